//! Prints every path that a program hands to the kernel: `cargo run --example paths -- /bin/ls`.
#![allow(clippy::print_stderr)]

use std::ops::ControlFlow;

use minjail_tracer::{Command, Event, Found, Options, Outcome, trace};

fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Some(program) = arguments.first() else {
        eprintln!("usage: paths PROGRAM [ARGUMENT]...");
        std::process::exit(125);
    };
    let command = Command {
        program: program.into(),
        environment: std::env::vars_os().collect(),
        directory: None,
        credentials: None,
        arguments,
    };
    let outcome = trace(&command, &Options::default(), &mut |event| {
        match event {
            Event::Touch(touch) => {
                let state = if matches!(touch.walk.found, Found::Missing) { "missing " } else { "" };
                eprintln!("{} {:?} {state}{}", touch.call, touch.access, String::from_utf8_lossy(&touch.walk.end));
            }
            other => eprintln!("{other:?}"),
        }
        ControlFlow::Continue(())
    });
    match outcome {
        Ok(Outcome::Exited(code)) => std::process::exit(code),
        Ok(Outcome::Killed(signal)) => std::process::exit(128 + signal),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(125);
        }
    }
}
