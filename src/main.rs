//! The `minjail` program.

fn main() {}
