//! Images that `slim` keeps unpacked: used again while nobody has changed them, bounded, and never in anybody's way.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use support::{Outcome, TestContext, names_in, needs_root, outcome_of, text};

/// A small image whose program says what its note says.
fn image(context: &TestContext, form: &str, said: &str) -> String {
    let note = context.path("note");
    fs_err::write(&note, said).unwrap();
    let image = format!("{form}:{}", context.text(&format!("image-{said}")));
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
    outcome_of(command.args(["--", "/bin/cat", &text(&note)])).success();
    image
}

fn slim(context: &TestContext, arguments: &[&str]) -> Outcome {
    let out = format!("oci:{}", context.text("out"));
    context.outcome(&[&["slim", "--force", "-o", &out], arguments].concat())
}

fn says(context: &TestContext, said: &str) {
    let out = format!("oci:{}", context.text("out"));
    assert_eq!(context.outcome(&["run", "-q", "--no-cache", &out]).success().text(), said);
}

fn cache(context: &TestContext, arguments: &[&str]) -> serde_json::Value {
    let outcome = context.outcome(&[&["cache", "--json"], arguments].concat()).success();
    serde_json::from_slice(&outcome.stdout).unwrap()
}

fn roots(context: &TestContext) -> PathBuf {
    context.work().join(".cache/minjail/roots")
}

fn inode(path: &Path) -> u64 {
    fs_err::metadata(path).unwrap().ino()
}

#[test]
fn an_image_is_unpacked_once() {
    let context = TestContext::new();
    for form in ["oci", "docker-archive"] {
        let image = image(&context, form, form);
        slim(&context, &[&image]).success();
        let list = cache(&context, &[]);
        let kept = list["kept"].as_array().unwrap();
        assert!(kept.len() == 1 && kept[0]["bytes"].as_u64() > Some(1 << 20), "{list}");
        assert_eq!(kept[0]["image"].as_str(), Some(image.as_str()), "{list}");
        let entry = roots(&context).join(kept[0]["name"].as_str().unwrap());
        assert_eq!(fs_err::metadata(roots(&context)).unwrap().permissions().mode() & 0o777, 0o700);
        let first = inode(&entry);
        // While it is open, nothing else gets its number.
        let _held = fs_err::File::open(&entry).unwrap();
        slim(&context, &[&image]).success();
        says(&context, form);
        assert_eq!(inode(&entry), first, "it was unpacked again");
        // Somebody has been there: what is kept is not what the image has.
        let note = format!("root{}", context.text("note"));
        fs_err::write(entry.join(note), "forged").unwrap();
        slim(&context, &[&image]).success();
        says(&context, form);
        assert_ne!(inode(&entry), first, "it was not unpacked again");
        // A half-made one has no seal.
        fs_err::remove_file(entry.join("seal.json")).unwrap();
        slim(&context, &[&image]).success();
        says(&context, form);
        assert_eq!(cache(&context, &["prune"])["removed"].as_array().unwrap().len(), 1);
        slim(&context, &["--no-cache", &image]).success();
        assert_eq!(names_in(&roots(&context)), [""; 0]);
    }
}

/// So it is by whatever runs it, each time with the same files.
#[test]
fn run_and_verify_use_what_is_kept() {
    let context = TestContext::new();
    let image = image(&context, "oci", "kept");
    let run = |arguments: &[&str]| {
        let outcome = context.outcome(&[&["run", "-q", &image], arguments].concat());
        assert_eq!(outcome.success().text(), "kept");
    };
    run(&["--no-cache"]);
    assert!(!roots(&context).exists());
    run(&[]);
    let list = cache(&context, &[]);
    let entry = roots(&context).join(list["kept"][0]["name"].as_str().unwrap());
    let first = inode(&entry);
    let _held = fs_err::File::open(&entry).unwrap();
    let note = context.text("note");
    let text = format!("workloads:\n  say: {{run: [/bin/cat, {note}], expect: {{stdout: {{equals: kept}}}}}}\n");
    fs_err::write(context.path("profile.yaml"), text).unwrap();
    let profile = context.text("profile.yaml");
    context.outcome(&["verify", "-q", &image, "-p", &profile]).success();
    run(&["--", "/bin/cat", &note]);
    // What a program writes does not stay.
    let outcome = context.outcome(&["run", "-q", &image, "--", "/bin/cat", "/none"]);
    assert_eq!(outcome.status, 1, "{outcome}");
    slim(&context, &[&image]).success();
    assert_eq!((inode(&entry), names_in(&roots(&context)).len()), (first, 1));
}

/// What is kept does not make a damaged image, or one that is too large, a good one.
#[test]
fn digests_and_limits_are_checked_all_the_same() {
    let context = TestContext::new();
    let image = image(&context, "oci", "sound");
    slim(&context, &[&image]).success();
    slim(&context, &["--max-size", "4K", &image]).assert_refused(125, &["more than 4096 bytes", "--max-size"]);
    slim(&context, &["--max-entries", "2", &image]).assert_refused(125, &["more than 2 entries"]);
    let blobs = context.path("image-sound/blobs/sha256");
    let size = |name: &String| fs_err::metadata(blobs.join(name)).unwrap().len();
    let layer = names_in(&blobs).into_iter().max_by_key(size).unwrap();
    let mut bytes = fs_err::read(blobs.join(&layer)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(blobs.join(&layer), bytes).unwrap();
    slim(&context, &[&image]).assert_refused(125, &["has the digest", "damaged"]);
}

#[test]
fn several_at_once_share_one() {
    let context = TestContext::new();
    let image = image(&context, "oci-archive", "shared");
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (context, image) = (&context, &image);
            scope.spawn(move || {
                let out = format!("oci:{}", context.text(&format!("out{number}")));
                context.outcome(&["slim", "-q", image, "-o", &out]).success();
                assert_eq!(context.outcome(&["run", "-q", "--no-cache", &out]).success().text(), "shared");
            });
        }
    });
    assert_eq!(names_in(&roots(&context)).len(), 1);
}

#[test]
fn what_is_used_least_recently_goes_first_and_what_is_in_use_stays() {
    let context = TestContext::new();
    let images = ["one", "two", "three"].map(|said| image(&context, "oci", said));
    for image in &images {
        slim(&context, &[image]).success();
    }
    slim(&context, &[&images[0]]).success();
    let names = || -> Vec<String> {
        let list = cache(&context, &["show"]);
        list["kept"].as_array().unwrap().iter().map(|entry| entry["image"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(), [images[1].clone(), images[2].clone(), images[0].clone()]);
    let list = cache(&context, &[]);
    let (total, entry) = (list["bytes"].as_u64().unwrap(), &list["kept"][0]);
    // What a killed minjail has left: nobody holds it.
    let name = entry["name"].as_str().unwrap();
    fs_err::create_dir(roots(&context).join(format!(".{name}.minjail-aB3dE6"))).unwrap();
    let held = fs_err::File::open(roots(&context).join(name)).unwrap().into_parts().0;
    held.lock_shared().unwrap();
    let removed = cache(&context, &["prune", "--max-size", &(total - 1).to_string()]);
    assert_eq!(removed["removed"][0]["image"].as_str(), Some(images[2].as_str()), "{removed}");
    assert_eq!(names(), [images[1].clone(), images[0].clone()]);
    assert_eq!(names_in(&roots(&context)).len(), 2, "what nobody holds is gone");
    drop(held);
    // The bound holds without being asked: of three entries there is room for two.
    let room = (total - 1).to_string();
    outcome_of(
        context
            .minjail(&["slim", "-q", &images[2], "--force", "-o", &format!("oci:{}", context.text("out"))])
            .env("MINJAIL_CACHE_SIZE", room),
    )
    .success();
    assert_eq!(names(), [images[0].clone(), images[2].clone()]);
    let shown = context.outcome(&["cache"]).success().text();
    assert!(shown.contains("kept: 2 images, ") && shown.contains(&images[0]), "{shown}");
}

/// Where others could put something into the cache, or where there is no place, an image is unpacked for one time.
#[test]
fn a_place_that_cannot_be_trusted_is_not_used() {
    let context = TestContext::new();
    let image = image(&context, "oci", "shy");
    fs_err::create_dir_all(roots(&context)).unwrap();
    fs_err::set_permissions(roots(&context), PermissionsExt::from_mode(0o777)).unwrap();
    let told = slim(&context, &[&image]);
    assert!(told.stderr.contains("others may write there; the image is unpacked for this one time"), "{told}");
    says(&context, "shy");
    assert_eq!(names_in(&roots(&context)), [""; 0]);
    let mut command =
        context.minjail(&["slim", "-q", &image, "--force", "-o", &format!("oci:{}", context.text("out"))]);
    outcome_of(command.env_remove("HOME")).success();
    let mut command = context.minjail(&["slim", &image, "--force", "-o", &format!("oci:{}", context.text("out"))]);
    outcome_of(command.env("MINJAIL_CACHE_SIZE", "much")).assert_refused(125, &["MINJAIL_CACHE_SIZE is `much`"]);
}

/// As where it is on a small file system of its own.
#[test]
fn an_image_for_which_the_cache_has_no_room_is_unpacked_for_one_time() {
    if !needs_root("to mount a file system") {
        return;
    }
    let context = TestContext::new();
    let image = image(&context, "oci", "big");
    let small = context.text("small");
    fs_err::create_dir(&small).unwrap();
    let script =
        "mount -t tmpfs -o size=256k none \"$1\" && \"$2\" run \"$3\"; status=$?; find \"$1\" -type f; exit $status";
    let mut command = context.command("unshare");
    command.env("XDG_CACHE_HOME", &small).args(["--mount", "sh", "-c", script, "sh", &small]);
    let ran = outcome_of(command.args([support::minjail(), &image])).success();
    assert_eq!(ran.text(), "big", "{ran}");
    for words in ["No space left on device", "; the image is unpacked for this one time"] {
        assert!(ran.stderr.contains(words), "{ran}");
    }
}
