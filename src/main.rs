//! The `minjail` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    minjail::cli::main(std::env::args_os())
}
