//! Prints every path that a program hands to the kernel: `cargo run --example paths -- /bin/ls`.
//!
//! With `--quiet` nothing is printed but failures, and with `--count` only how many events there were: to compare
//! the cost with that of other tracers.
#![allow(clippy::print_stderr)]

use std::ops::ControlFlow;

use minjail_tracer::{Command, Event, Found, Options, Outcome, trace};
use nix::sys::prctl::get_pdeathsig;

fn main() {
    minjail_tracer::fail_beyond_limits();
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let mode = arguments.first().filter(|mode| *mode == "--quiet" || *mode == "--count").cloned();
    if mode.is_some() {
        arguments.remove(0);
    }
    let Some(program) = arguments.first() else {
        eprintln!("usage: paths [--quiet | --count] PROGRAM [ARGUMENT]...");
        std::process::exit(125);
    };
    let command = Command {
        program: program.into(),
        environment: std::env::vars_os().map(|(name, value)| [name, "=".into(), value].into_iter().collect()).collect(),
        directory: None,
        credentials: None,
        leads_group: false,
        parent_death_signal: get_pdeathsig().ok().flatten().map_or(0, |signal| signal as i32),
        arguments,
    };
    let mut count = 0;
    let outcome = trace(&command, &Options::default(), &mut |event| {
        count += 1;
        if mode.is_none() {
            print(&event);
        }
        ControlFlow::Continue(())
    });
    if mode.is_some_and(|mode| mode == "--count") {
        eprintln!("{count} events");
    }
    match outcome {
        Ok(Outcome::Exited(code)) => std::process::exit(code),
        Ok(Outcome::Killed(signal)) => std::process::exit(128 + signal),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(125);
        }
    }
}

fn print(event: &Event<'_>) {
    match event {
        Event::Touch(touch) => {
            let state = if matches!(touch.walk.found, Found::Missing) { "missing " } else { "" };
            eprintln!("{} {:?} {state}{}", touch.call, touch.access, String::from_utf8_lossy(&touch.walk.end));
        }
        Event::Gap { gap, .. } => eprintln!("gap: {gap:?}"),
        other => eprintln!("{other:?}"),
    }
}
