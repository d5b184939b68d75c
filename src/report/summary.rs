//! The closing summary: what was packed, from where, what was not, and what to do next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::coverage::Estimate;
use crate::files::{Configured, Note};
use crate::manifest::{Config, Entry, Kind, Manifest};
use crate::path::{JailPath, escape};
use crate::trace::Gap;

/// What a build came to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Regular files, each once however many names it has.
    pub files: u64,
    /// The size of their contents, in bytes.
    pub bytes: u64,
    pub kinds: BTreeMap<Sort, Amount>,
    pub directories: u64,
    pub links: u64,
    /// Names that a listing showed and nobody touched: dangling links to [`crate::files::OMITTED`].
    pub names_only: u64,
    /// How the image is run.
    pub image: Config,
    pub left_out: LeftOut,
    /// What the runs say of the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Estimate>,
    /// The largest files, the largest first.
    pub largest: Vec<Large>,
    pub packages: Packages,
    /// Of the files those that are of none.
    pub unpackaged: Amount,
    pub notes: Vec<Note>,
    /// What the trace could not see, and how often.
    pub gaps: BTreeMap<Gap, u64>,
    /// The numbers of the layers that are the whole image's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_layers: Vec<u32>,
    pub outputs: Vec<Output>,
    pub locks: Vec<String>,
}

/// What a file is for, as far as its name and mode say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    Programs,
    Libraries,
    OtherFiles,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    pub files: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Large {
    pub path: JailPath,
    pub bytes: u64,
}

/// Paths that the runs asked for and that are not packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Made by the runs themselves.
    pub made: u64,
    /// Looked for in vain.
    pub missing: u64,
}

/// The distribution packages that files came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Packages {
    pub count: u64,
    /// The packed bytes that are from them.
    pub packed_bytes: u64,
    /// What they take when installed.
    pub installed_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// As the user spells it.
    pub name: String,
    pub bytes: u64,
    /// `sha256:...`: of each uncompressed layer, the lowest first; the stable identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diff_ids: Vec<String>,
    /// Of the image configuration: the image's ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What a tree is not, for want of root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Lacks>,
}

/// How many paths of a tree are not as the lock says, since only root can make them so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lacks {
    /// They belong to who made the tree.
    pub owners: u64,
    /// Programs of these without their set-user-ID or set-group-ID bit.
    pub set_id: u64,
    /// Device nodes that are missing.
    pub devices: u64,
    /// Extended attributes that are missing.
    pub xattrs: u64,
}

impl Lacks {
    /// In words, of the output `name`.
    pub fn sentence(&self, name: &str) -> String {
        let parts = [
            (self.owners, "path belongs to you and not to its owner", "paths belong to you and not to their owners"),
            (self.set_id, "program is without its set-user-ID bit", "programs are without their set-user-ID bits"),
            (self.devices, "device is missing", "devices are missing"),
            (self.xattrs, "extended attribute is missing", "extended attributes are missing"),
        ];
        let parts = parts.iter().filter(|(count, ..)| *count > 0);
        let parts: Vec<String> =
            parts.map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many })).collect();
        format!("{name} is not all that an image is, as only root can make it: {}", parts.join(", "))
    }
}

/// How many of the largest files are named.
const LARGEST: usize = 5;

/// So many notes of a kind are told one by one.
const SHOWN: usize = 5;

impl Summary {
    /// Counts what is in `manifest`; what is to be told besides is filled in by the caller.
    pub fn of(manifest: &Manifest) -> Self {
        let mut summary = Self {
            files: 0,
            bytes: 0,
            kinds: BTreeMap::new(),
            directories: 0,
            links: 0,
            names_only: 0,
            image: manifest.config.clone(),
            left_out: LeftOut::default(),
            coverage: None,
            largest: Vec::new(),
            packages: Packages::default(),
            unpackaged: Amount::default(),
            notes: Vec::new(),
            gaps: BTreeMap::new(),
            kept_layers: manifest.originals.iter().map(|original| original.layer).collect(),
            outputs: Vec::new(),
            locks: Vec::new(),
        };
        for entry in &manifest.entries {
            match &entry.kind {
                Kind::Directory => summary.directories += 1,
                kind if kind.is_name_only() => summary.names_only += 1,
                Kind::Symlink { .. } => summary.links += 1,
                Kind::File { size, .. } => summary.count(entry, *size),
                _ => {}
            }
        }
        summary.largest.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        summary.largest.truncate(LARGEST);
        summary
    }

    fn count(&mut self, entry: &Entry, size: u64) {
        self.files += 1;
        self.bytes += size;
        let unpackaged = entry.package.is_none().then_some(&mut self.unpackaged);
        for amount in unpackaged.into_iter().chain([self.kinds.entry(sort(entry)).or_default()]) {
            amount.files += 1;
            amount.bytes += size;
        }
        self.largest.push(Large { path: entry.path.clone(), bytes: size });
    }

    /// The summary for a person, with colours as escape codes.
    pub fn to_text(&self) -> String {
        let mut text = Text(String::new());
        text.line("packed", &self.amounts());
        for (index, large) in self.largest.iter().enumerate() {
            let label = if index == 0 { "largest" } else { "" };
            text.line(label, &format!("{:>9}  {}", size(large.bytes), large.path));
        }
        if self.packages.count > 0 {
            text.line("from", &self.origin());
        }
        tell_image(&self.image, &mut text);
        self.tell_left_out(&mut text);
        if let Some(coverage) = &self.coverage {
            text.line("seen", &coverage.to_string());
        }
        self.tell_notes(&mut text);
        for output in &self.outputs {
            if let Some(lacks) = &output.lacks {
                text.line("note", &lacks.sentence(&output.name));
            }
        }
        for (index, output) in self.outputs.iter().enumerate() {
            let label = if index == 0 { "wrote" } else { "" };
            let kept = match self.kept_layers.len() {
                0 => String::new(),
                count => format!(", {count} of the whole image as it was"),
            };
            let id = match output.diff_ids.as_slice() {
                [] => String::new(),
                [id] => format!("  layer {id}{kept}"),
                several => format!("  {} layers{kept}", several.len()),
            };
            text.line(label, &format!("{} ({}){id}", output.name, size(output.bytes)));
        }
        for lock in &self.locks {
            text.line("", &format!("{lock} (the lock: what is in it, and why)"));
        }
        self.tell_next(&mut text);
        text.0
    }

    fn amounts(&self) -> String {
        let mut text = format!("{} files, {}", self.files, size(self.bytes));
        let mut parts = Vec::new();
        for (sort, amount) in &self.kinds {
            parts.push(format!("{} {} {}", amount.files, sort.name(amount.files), size(amount.bytes)));
        }
        parts.push(format!("{} {}", self.directories, if self.directories == 1 { "directory" } else { "directories" }));
        parts.push(format!("{} {}", self.links, if self.links == 1 { "link" } else { "links" }));
        write!(text, ": {}", parts.join(", ")).expect("writing to a String cannot fail");
        text
    }

    fn origin(&self) -> String {
        let Packages { count, packed_bytes, installed_bytes } = self.packages;
        let share = tenths(packed_bytes.saturating_mul(100), installed_bytes);
        let packages = if count == 1 { "package" } else { "packages" };
        let (installed, packed) = (size(installed_bytes), size(packed_bytes));
        let others = match self.unpackaged {
            Amount { files: 0, .. } => String::new(),
            Amount { files: 1, bytes } => format!("; one file of no package, {}", size(bytes)),
            Amount { files, bytes } => format!("; {files} files of no package, {}", size(bytes)),
        };
        format!("{count} {packages} of {installed} installed: {packed} of that, {share} %{others}")
    }

    fn tell_left_out(&self, text: &mut Text) {
        let parts = [
            (self.names_only, "that listings showed and nobody opened (their names are there)"),
            (self.left_out.made, "that the run made itself"),
            (self.left_out.missing, "that it looked for in vain"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        for (index, (count, what)) in parts.enumerate() {
            text.line(
                if index == 0 { "left out" } else { "" },
                &format!("{count} {} {what}", if *count == 1 { "path" } else { "paths" }),
            );
        }
    }

    fn tell_notes(&self, text: &mut Text) {
        let mut label = "note";
        for alike in self.notes.chunk_by(|one, other| std::mem::discriminant(one) == std::mem::discriminant(other)) {
            for note in alike.iter().take(SHOWN) {
                text.line(label, &sentence(note));
                label = "";
            }
            if let Some(more) = alike.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                text.line("", &format!("and {more} more like these: `--json` tells all"));
            }
        }
        for (gap, count) in &self.gaps {
            text.line("gap", &format!("{} ({})", gap_sentence(*gap), times(*count)));
        }
    }

    fn tell_next(&self, text: &mut Text) {
        let mut next = Vec::new();
        for output in &self.outputs {
            let (form, path) = output.name.split_once(':').unwrap_or(("", &output.name));
            if path.starts_with('-') {
                continue;
            }
            match form {
                "docker-archive" => next.push(format!("podman load -i {0}, or docker load -i {0}", file_of(path))),
                "oci-archive" => next.push(format!("podman load -i {}", file_of(path))),
                "oci" => next.push(format!("skopeo copy {} containers-storage:NAME", output.name)),
                _ => {}
            }
            if form != "layer" {
                next.push(format!("minjail run {}", output.name));
            }
        }
        next.extend(self.locks.first().map(|lock| format!("minjail why {lock} PATH")));
        for (index, next) in next.iter().enumerate() {
            text.line(if index == 0 { "next" } else { "" }, next);
        }
    }
}

/// How the image is run, as far as it says it.
fn tell_image(image: &Config, text: &mut Text) {
    let command: Vec<String> = image.entrypoint.iter().chain(&image.cmd).map(|word| escape(word.as_bytes())).collect();
    if command.is_empty() {
        return;
    }
    text.line("runs", &shortened(&command.join(" ")));
    let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    let check = image.healthcheck.as_ref().and_then(|check| check.test.as_ref());
    let parts = [
        (!image.user.is_empty()).then(|| format!("as {}", image.user)),
        (!image.working_dir.is_empty()).then(|| format!("in {}", image.working_dir)),
        (!image.architecture.is_empty()).then(|| format!("for {}", image.architecture)),
        (!image.exposed_ports.is_empty()).then(|| format!("ports {}", list(&image.exposed_ports))),
        (!image.volumes.is_empty()).then(|| format!("volumes {}", list(&image.volumes))),
        image.stop_signal.as_ref().map(|signal| format!("stopped by {signal}")),
        check.filter(|test| test.len() > 1).map(|test| {
            format!("checked by {}", shortened(&escape(test.get(1..).unwrap_or_default().join(" ").as_bytes())))
        }),
    ];
    text.line("", &parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
}

/// The beginning of a line that may be a whole script.
fn shortened(line: &str) -> String {
    const MOST: usize = 100;
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

impl Sort {
    fn name(self, count: u64) -> &'static str {
        match (self, count) {
            (Self::Programs, 1) => "program",
            (Self::Programs, _) => "programs",
            (Self::Libraries, 1) => "library",
            (Self::Libraries, _) => "libraries",
            (Self::OtherFiles, 1) => "other file",
            (Self::OtherFiles, _) => "other files",
        }
    }
}

/// Lines with a label in front.
struct Text(String);

impl Text {
    fn line(&mut self, label: &str, line: &str) {
        const LABEL: Style = AnsiColor::Green.on_default().bold();
        writeln!(self.0, "{LABEL}{label:>8}{LABEL:#}  {line}").expect("writing to a String cannot fail");
    }
}

fn sort(entry: &Entry) -> Sort {
    let name = entry.path.file_name();
    if name.ends_with(b".so") || name.windows(4).any(|part| part == b".so.") {
        Sort::Libraries
    } else if entry.mode & 0o111 != 0 {
        Sort::Programs
    } else {
        Sort::OtherFiles
    }
}

fn file_of(path: &str) -> &str {
    path.split_once(':').map_or(path, |(file, _)| file)
}

fn sentence(note: &Note) -> String {
    match note {
        Note::State { path } => format!("{path} was changed by the run; the image has it as it was before (a volume?)"),
        Note::Socket { path } => format!("the socket {path} is not packed; something must provide it"),
        Note::Given { path } => {
            format!("{path} was given to the program at a descriptor, as by a redirection, and is not packed")
        }
        Note::Namespace { path } => format!("the namespace {path} is not packed; something must provide it"),
        Note::MadeUp { path } => {
            format!("what the kernel makes up at {path} is not packed; something must mount it there")
        }
        Note::Device { path } => format!("the device {path} is not packed; the runtime must provide it"),
        Note::Shared { path } => {
            format!("{path} is not packed: what runs an image has a /dev of its own; something must provide it there")
        }
        Note::Refused { path } => {
            format!("{path} could not be read, by the program neither; it is packed without content")
        }
        Note::AccessList { path } => {
            format!(
                "{path} has an access control list, which no image has; there its owner, group and mode alone say who may use it"
            )
        }
        Note::Departed { path, package } => {
            format!("{path} is not what {package} brought; it is packed as a file of no package")
        }
        Note::Accounts { path, left_out } => {
            let accounts = if *left_out == 1 { "one account".to_owned() } else { format!("{left_out} accounts") };
            format!("{path} is packed without {accounts} of people (`--accounts full` packs them)")
        }
        Note::Hashes { path } => {
            format!("{path} is packed without its password hashes; `--allow-secret {path}` packs them")
        }
        Note::Excluded { path } => format!("{path} was used by the run and is not packed, because it is excluded"),
        Note::NothingExcluded { pattern } => {
            format!("`{pattern}`, which is to be excluded, names nothing that would be packed")
        }
        Note::NothingIncluded { pattern } => {
            format!("`{pattern}`, which is to be included, is excluded as a whole: nothing of it is packed")
        }
        Note::Lacks { path, needs } => {
            format!("{path}, which comes with what is included, needs {needs}, which is nowhere to be found")
        }
        Note::Secret { path, kind } => {
            format!("{path} looks like {kind} and is not packed; `--allow-secret {path}` packs it")
        }
        Note::Variable { name } => {
            format!(
                "the variable {name} looks like a secret; the image does not have it: give it when you run the image"
            )
        }
        Note::Configured { what, name } => {
            let what = match what {
                Configured::Variable => format!("the variable {name} of the profile"),
                Configured::Label => format!("the label {name}"),
                Configured::Argument => format!("argument {name} of the command"),
            };
            format!("{what} looks like a secret; everybody who has the image can read it")
        }
        Note::Unset { path, names } => match names.as_slice() {
            [name] => {
                format!("the run used {path}, which the variable {name} names; the image gets it by `--env {name}`")
            }
            names => format!(
                "the run used {path}, which the variables {} name; the image gets them by `--env {}`",
                names.join(", "),
                names.join(" --env ")
            ),
        },
        Note::Home { path } => {
            format!("{path} is somebody's own; what the run used of it is packed (`--exclude {path}` leaves it out)")
        }
        Note::Temporary { path } => {
            format!("{path} was there before the run, in a place for temporary files; it is packed")
        }
        Note::Names { path } => format!(
            "a listing of {path} showed names that are not packed, as files of others come and go there; \
             `--include {path}/NAME` packs one"
        ),
    }
}

/// What a gap means, in words.
pub fn gap_sentence(gap: Gap) -> &'static str {
    match gap {
        Gap::IoUring => {
            "the program asked for io_uring, which opens files unseen, and was told that there is none; or it was given one"
        }
        Gap::Fanotify => {
            "the program asked to be asked before files are opened (fanotify), which minjail itself would have to wait for; it was told that it cannot"
        }
        Gap::FanotifyWrite => {
            "the program asked for files that it can write to, of those that are opened or changed (fanotify); what it wrote to was not seen"
        }
        Gap::X32 => "x32 calls were answered with ENOSYS",
        Gap::Interface => "a program of another width than minjail knows had all its calls answered with ENOSYS",
        Gap::UnknownCall => {
            "a program made a call of a newer kernel than minjail knows, and whatever it opened was not seen"
        }
        Gap::Memory => "a path in the program's memory could not be read",
        Gap::Handle => "a file was opened by handle, and its path could not be found",
        Gap::Supervisor => {
            "the program asked for a seccomp supervisor, which hides calls, or was told that it cannot have one"
        }
        Gap::MountNamespace => {
            "a path led to what is hidden: below a mount, or in a mount, or a mount namespace, that minjail cannot see into"
        }
        Gap::LongPath => "a descriptor's path was longer than the kernel tells",
        Gap::Rewritten => {
            "another thread rewrote a path, or moved, while a file was opened for writing or removed, or took away what was opened, or rewrote a seccomp filter while it was installed"
        }
        Gap::Untraced => "another thread rewrote the flags of a `clone3`, and what that made was not traced",
        Gap::Served => {
            "a path led through a file system that the program may serve itself (FUSE), and nobody could be asked whose files lie there, or through one that hides them from all but the program's user"
        }
    }
}

/// How often something was, in words.
pub fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Bytes for a person, in powers of 1000 as file managers and registries count.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (1_000, "kB"),
        (1_000_000, "MB"),
        (1_000_000_000, "GB"),
        (1_000_000_000_000, "TB"),
        (1_000_000_000_000_000, "PB"),
    ];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // The first unit of which there are fewer than a thousand, rounded as they will be shown.
    let fitting =
        UNITS.iter().find(|(unit, _)| u128::from(bytes) * 10 + u128::from(unit / 2) < u128::from(*unit) * 10_000);
    let (unit, name) = fitting.unwrap_or(&UNITS[UNITS.len() - 1]);
    format!("{} {name}", tenths(bytes, *unit))
}

/// `part / whole` with one digit behind the point, rounded.
fn tenths(part: u64, whole: u64) -> String {
    let whole = u128::from(whole.max(1));
    let tenths = (u128::from(part) * 10 + whole / 2) / whole;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Seal;

    #[test]
    fn where_files_are_from() {
        let file = |path: &'static [u8], size, package: Option<&str>| Entry {
            package: package.map(ToOwned::to_owned),
            ..Entry::new(JailPath::literal(path), Kind::File { size, sha256: Seal::default() })
        };
        let of = |entries: Vec<Entry>| {
            let mut summary = Summary::of(&Manifest::new(Config::default(), entries));
            summary.packages = Packages { count: 1, packed_bytes: 250, installed_bytes: 1000 };
            summary.origin()
        };
        let packaged = file(b"/a", 250, Some("deb:a=1"));
        let alone = "1 package of 1.0 kB installed: 250 B of that, 25.0 %";
        assert_eq!(of(vec![packaged.clone()]), alone);
        let one = of(vec![packaged.clone(), file(b"/b", 7, None)]);
        assert_eq!(one, format!("{alone}; one file of no package, 7 B"));
        let two = of(vec![packaged, file(b"/b", 7, None), file(b"/c", 8, None)]);
        assert_eq!(two, format!("{alone}; 2 files of no package, 15 B"));
    }

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1500), "1.5 kB");
        assert_eq!(size(999_999), "1.0 MB");
        assert_eq!(size(u64::MAX), "18446.7 PB");
    }
}
