//! Stacks of layers with whiteouts, opaque directories, hard links and changes of type, as umoci unpacks them.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use support::crafted::{Compression, Tar, lay_out, oci, tar};
use support::numbers::Numbers;
use support::{TestContext, has, limited, needs_root, outcome_of};

/// So many stacks; 1,000 with `MINJAIL_TESTS_ALL` set.
fn count() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is how a user asks for all")]
    if std::env::var_os("MINJAIL_TESTS_ALL").is_some() { 1000 } else { 100 }
}

fn some_path(numbers: &mut Numbers) -> String {
    let depth = 1 + numbers.below(3);
    let names = std::iter::repeat_with(|| ["a", "b", "c", "a-b"][numbers.below(4)]);
    names.take(depth).collect::<Vec<_>>().join("/")
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Directory,
    File,
    Link,
}

/// What the layers so far amount to: enough to know what the next one may say.
#[derive(Default)]
struct Stack {
    there: BTreeMap<String, Kind>,
    /// What the present layer has made, and what it has hidden.
    made: BTreeSet<String>,
    hidden: Vec<String>,
}

impl Stack {
    /// A name that can be made: no link and no file is on its way, and nothing that this layer hides: tools differ on that.
    fn is_free(&self, path: &str) -> bool {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let hidden = self.hidden.iter().any(|hidden| is_in(path, hidden) || is_in(hidden, path));
        !hidden && above.into_iter().all(|above| self.there.get(above).is_none_or(|kind| *kind == Kind::Directory))
    }

    fn make(&mut self, path: &str, kind: Kind) {
        if self.there.get(path).is_some_and(|there| !(*there == Kind::Directory && kind == Kind::Directory)) {
            self.there.retain(|other, _| !is_in(other, path));
            self.made.retain(|other| !is_in(other, path));
        }
        for (at, _) in path.match_indices('/') {
            self.there.insert(path[..at].to_owned(), Kind::Directory);
            self.made.insert(path[..at].to_owned());
        }
        self.there.insert(path.to_owned(), kind);
        self.made.insert(path.to_owned());
    }

    fn step(&mut self, layer: Tar, numbers: &mut Numbers) -> Tar {
        let path = some_path(numbers);
        let choice = numbers.below(8);
        if choice >= 6 {
            return self.hide(layer, &path, choice == 6);
        }
        if !self.is_free(&path) {
            return layer;
        }
        // Directories above are named, as tools do that write layers.
        let above = path.match_indices('/').map(|(at, _)| &path[..at]).filter(|above| !self.there.contains_key(*above));
        let layer = above.fold(layer, Tar::directory);
        match choice {
            0 | 1 => {
                self.make(&path, Kind::File);
                layer.file(&path, &"x".repeat(numbers.below(700)))
            }
            2 => {
                self.make(&path, Kind::Directory);
                layer.directory(&path)
            }
            3 => {
                self.make(&path, Kind::Link);
                let target = numbers.one_of(&["a", "../b", "/c/a", "nowhere/x", "."]).expect("there are some");
                layer.symlink(&path, target)
            }
            _ => {
                let is_file = |(other, kind): (&String, &Kind)| {
                    (*kind == Kind::File && !is_in(other, &path)).then(|| other.clone())
                };
                let files: Vec<String> = self.there.iter().filter_map(is_file).collect();
                let Some(target) = numbers.one_of(&files) else { return layer };
                self.make(&path, Kind::File);
                layer.hard_link(&path, target)
            }
        }
    }

    /// Hides a lower layer's path, or all that is in it.
    fn hide(&mut self, layer: Tar, path: &str, opaque: bool) -> Tar {
        let made_below = self.made.iter().any(|made| is_in(made, path));
        if !self.there.contains_key(path) || made_below || !self.is_free(path) {
            return layer;
        }
        let (directory, name) = path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
        if opaque && self.there[path] == Kind::Directory {
            self.there.retain(|other, _| other == path || !is_in(other, path));
            return layer.directory(path).file(&format!("{path}/.wh..wh..opq"), "");
        }
        self.there.retain(|other, _| !is_in(other, path));
        self.hidden.push(path.to_owned());
        layer.file(format!("{directory}/.wh.{name}").trim_start_matches('/'), "")
    }
}

/// True if `path` is `top`, or below it.
fn is_in(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn random_stack(seed: u64) -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(seed);
    let mut stack = Stack::default();
    let mut layers = Vec::new();
    for _ in 0..=numbers.below(5) {
        stack.made.clear();
        stack.hidden.clear();
        let steps = 2 + numbers.below(12);
        layers.push((0..steps).fold(tar(), |layer, _| stack.step(layer, &mut numbers)).end());
    }
    layers
}

/// Everything that `find` says of a tree, but for times; the size of a directory is the file system's.
fn listing(directory: &Path) -> Vec<String> {
    let mut find = limited("find");
    find.arg(directory).args(["-mindepth", "1", "-type", "d", "-printf", "%P %y %m %U %G\\n"]);
    find.args(["-o", "-printf", "%P %y %m %U %G %s %n %l\\n"]);
    let mut lines: Vec<String> = outcome_of(&mut find).success().text().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn random_stacks_are_what_umoci_makes_of_them() {
    if !needs_root("umoci") || !has(&["umoci"]) {
        return;
    }
    let compressions = [Compression::Plain, Compression::Gzip];
    for seed in 0..count() {
        let context = TestContext::new();
        let layers = random_stack(seed);
        lay_out(&oci(&layers, compressions[usize::from(seed % 2 == 0)]), &context.path("image"));
        let image = context.text("image");
        let mut umoci = context.command("umoci");
        outcome_of(umoci.args(["unpack", "--image", &format!("{image}:v1"), &context.text("bundle")])).success();
        let [image, tree, again] = [
            format!("oci:{image}:v1"),
            format!("rootfs:{}", context.text("tree")),
            format!("oci:{}", context.text("again")),
        ];
        let unpack = |output: &str| context.outcome(&["unpack", "-q", &image, "-o", output]).success();
        unpack(&tree);
        unpack(&again);
        let theirs = listing(&context.path("bundle/rootfs"));
        assert_eq!(listing(&context.path("tree")), theirs, "stack {seed}");
        // One layer of all of them, and its entries as `diff` tells them, are the same tree.
        let outcome = context.outcome(&["diff", &image, &again]);
        assert_eq!(outcome.status, 0, "stack {seed}: {outcome}");
        let outcome = context.outcome(&["diff", &again, &tree]);
        assert_eq!(outcome.status, 0, "stack {seed}: {outcome}");
    }
}
