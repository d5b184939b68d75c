//! Any sequence of wait statuses: no panic, no lost task, no task told gone that lives.

use crate::machine::{Machine, Step};
use crate::status::{Stop, decode};

/// Five bytes a status: the task, then what `waitpid` gave.
pub(crate) fn tasks(bytes: &[u8]) {
    let mut machine = Machine::new(1);
    for five in bytes.chunks_exact(5) {
        let task = 1 + i32::from(five[0] % 16);
        let Some(stop) = decode(i32::from_le_bytes([five[1], five[2], five[3], five[4]])) else { continue };
        if !machine.knows(task) {
            machine.adopt(task, 1 + (task - 1) / 3 * 3);
        }
        let step = machine.step(task, stop);
        let is_gone = matches!(stop, Stop::Exited { .. } | Stop::Killed { .. });
        assert_eq!(matches!(step, Step::Gone { .. }), is_gone, "{stop:?}: {step:?}");
        assert_eq!(machine.knows(task), !is_gone, "{stop:?}");
        assert!(!(is_gone && task == 1) || machine.end().is_some(), "the first one's end is the end");
        if !is_gone {
            let process = machine.process_of(task).expect("it is known");
            assert!(machine.processes().contains(&process), "its process is there");
        }
    }
}
