//! Every call of the table, of each width.

use crate::hazard::{Hazard, sources};

/// The comments behind the rows of `every_call.c`, for programs of a width.
fn expected(width: &str) -> Vec<String> {
    let source = fs_err::read_to_string(sources().join("every_call.c")).unwrap();
    let rows = source.lines().filter_map(|line| line.trim().strip_prefix("ROW("));
    let rows = rows.filter_map(|row| {
        let call = row.split_once(',').unwrap().0;
        let comment = row.split_once("// ").unwrap().1;
        let touches = match comment.split_once(": ") {
            Some((only, touches)) => {
                (only == width || (only == "x86" && cfg!(target_arch = "x86_64"))).then_some(touches)?
            }
            None => comment,
        };
        // `p/x`: a file `x` in the directory that is named after the call.
        Some(touches.split(", ").map(move |touch| {
            let (access, path) = touch.split_once(' ').unwrap();
            let (path, below) = path.split_at(1);
            format!("{call} {access} {path}-{call}{below} missing")
        }))
    });
    rows.flatten().collect()
}

fn every_call(width: &str, flags: &[&str]) {
    let expected = expected(width);
    // aarch64 has no calls of the old kind.
    assert!(expected.len() > if cfg!(target_arch = "x86_64") { 80 } else { 60 });
    let seen = Hazard::with_flags("every_call", flags).exact_calls().run();
    seen.is(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn of_the_64_bit_interface() {
    every_call("64", &[]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn of_the_32_bit_interface() {
    every_call("32", &["-m32"]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn of_the_32_bit_interface_in_a_64_bit_program() {
    every_call("32", &["-DINT80"]);
}
