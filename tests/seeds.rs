//! The fuzzer's seeds, as a plain test: `docs/fuzzing.md` says how to go on from them.

#[path = "../fuzz/src/readers.rs"]
mod readers;

use std::path::Path;

/// A fuzz target's body.
type Target = fn(&[u8]);

#[test]
fn every_seed_is_read() {
    let targets: [(&str, Target); 7] = [
        ("tar", readers::tar),
        ("image", readers::image),
        ("elf", readers::elf),
        ("ld_cache", readers::ld_cache),
        ("trace", readers::trace),
        ("profile", readers::profile),
        ("lock", readers::lock),
    ];
    for (name, target) in targets {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let mut count = 0;
        for seed in fs_err::read_dir(seeds).expect("each target has seeds") {
            let bytes = fs_err::read(seed.expect("it can be listed").path()).expect("it can be read");
            target(&bytes);
            // Cut short, and with one byte changed, as damage does.
            let step = (bytes.len() / 200).max(1);
            for at in (0..bytes.len()).step_by(step) {
                target(&bytes[..at]);
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x55;
                target(&damaged);
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no seed");
    }
}
