#![no_main]

#[path = "../../tracer/src/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../../tracer/src/status.rs"]
mod status;
#[path = "../src/tasks.rs"]
mod tasks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tasks::tasks(bytes));
