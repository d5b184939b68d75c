//! A child that is not to be traced is traced all the same, and nobody notices.
//!
//! `CLONE_UNTRACED` is taken off while the kernel looks at the call, and put back in the register or the memory where it
//! stood, in the parent when its call returns and in the child before it runs.

use std::collections::BTreeMap;

#[cfg(target_arch = "aarch64")]
use libc::user_regs_struct as Registers;
use nix::errno::Errno;
#[cfg(target_arch = "x86_64")]
use pete::{Registers, Tracee};

#[cfg(target_arch = "x86_64")]
use crate::calls::Call;
use crate::calls::{Abi, Table};
use crate::filter::CLONE_UNTRACED;
use crate::{memory, sys};

/// A call that lost the flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retraced {
    /// Where the flags are; `None`: in the register of the first argument.
    address: Option<u64>,
    flags: u64,
    abi: Abi,
    /// Where the program goes on, in the parent and in the child.
    resumes_at: u64,
}

impl Retraced {
    /// Takes the flag off the call at whose entry `task` stands.
    pub(crate) fn start(task: i32, abi: Abi, address: Option<u64>, flags: u64) -> Result<Self, Errno> {
        let mut registers = registers(task)?;
        let retraced = Self { address, flags, abi, resumes_at: instruction(&registers) };
        if let Some(address) = address {
            sys::write_word(task, address, flags & !CLONE_UNTRACED)?;
        } else {
            *first_argument(&mut registers, abi) = flags & !CLONE_UNTRACED;
            set_registers(task, registers)?;
        }
        Ok(retraced)
    }

    /// Puts the flag back, if `task` is the one that lost it or its child.
    pub(crate) fn undo(&self, task: i32) -> Result<(), Errno> {
        let mut registers = registers(task)?;
        if instruction(&registers) != self.resumes_at {
            return Ok(());
        }
        let changed = self.flags & !CLONE_UNTRACED;
        match self.address {
            Some(address) => {
                let mut word = [0; 8];
                if memory::read(task, address, &mut word).is_ok() && u64::from_ne_bytes(word) == changed {
                    sys::write_word(task, address, self.flags)?;
                }
            }
            // On aarch64 the first argument's register is the result's: nobody expects to find it as it was.
            None if cfg!(target_arch = "x86_64") && *first_argument(&mut registers, self.abi) == changed => {
                *first_argument(&mut registers, self.abi) = self.flags;
                set_registers(task, registers)?;
            }
            None => {}
        }
        Ok(())
    }
}

/// Has a call that only asks begin anew after a signal that stops `task` now: it waited for its listener, and would end
/// with EINTR, which it never does (`arch/x86/kernel/signal.c`, `handle_signal`: ERESTARTSYS is restarted only for
/// handlers that want it, ERESTARTNOINTR always).
#[cfg(target_arch = "x86_64")]
pub(crate) fn restart(task: i32, tables: &BTreeMap<u32, (Abi, Table)>) -> Result<(), Errno> {
    // include/linux/errno.h
    const ERESTARTSYS: i64 = 512;
    const ERESTARTNOINTR: i64 = 513;
    let mut registers = registers(task)?;
    if registers.rax.cast_signed() != -ERESTARTSYS {
        return Ok(());
    }
    let Some((_, table)) = tables.get(&sys::interface(task)?) else { return Ok(()) };
    if table.get(registers.orig_rax).is_some_and(Call::only_asks) {
        registers.rax = (-ERESTARTNOINTR).cast_unsigned();
        set_registers(task, registers)?;
    }
    Ok(())
}

/// Here no call waits for a listener.
#[cfg(target_arch = "aarch64")]
pub(crate) fn restart(_task: i32, _tables: &BTreeMap<u32, (Abi, Table)>) -> Result<(), Errno> {
    Ok(())
}

/// Lets `task`, which stands at the entry of a call, go on without it, as if the kernel did not have the call.
pub(crate) fn skip(task: i32) -> Result<(), Errno> {
    // seccomp(2), SECCOMP_RET_TRACE: the number -1 skips the call, and the tracer gives the result.
    let error = -i64::from(libc::ENOSYS);
    #[cfg(target_arch = "x86_64")]
    {
        let mut registers = registers(task)?;
        registers.orig_rax = u64::MAX;
        registers.rax = error.cast_unsigned();
        set_registers(task, registers)
    }
    #[cfg(target_arch = "aarch64")]
    {
        sys::set_call(task, -1)?;
        sys::set_result(task, error)
    }
}

fn instruction(registers: &Registers) -> u64 {
    #[cfg(target_arch = "x86_64")]
    return registers.rip;
    #[cfg(target_arch = "aarch64")]
    return registers.pc;
}

#[cfg_attr(target_arch = "aarch64", expect(unused_variables, reason = "there is only one interface"))]
fn first_argument(registers: &mut Registers, abi: Abi) -> &mut u64 {
    #[cfg(target_arch = "x86_64")]
    return if abi == Abi::I386 { &mut registers.rbx } else { &mut registers.rdi };
    #[cfg(target_arch = "aarch64")]
    return &mut registers.regs[0];
}

#[cfg(target_arch = "x86_64")]
fn registers(task: i32) -> Result<Registers, Errno> {
    tracee(task).registers().map_err(|_| Errno::ESRCH)
}

#[cfg(target_arch = "x86_64")]
fn set_registers(task: i32, registers: Registers) -> Result<(), Errno> {
    tracee(task).set_registers(registers).map_err(|_| Errno::ESRCH)
}

#[cfg(target_arch = "x86_64")]
fn tracee(task: i32) -> Tracee {
    Tracee::new(nix::unistd::Pid::from_raw(task), None, pete::Stop::SyscallEnter)
}

/// pete has none for this machine.
#[cfg(target_arch = "aarch64")]
fn registers(task: i32) -> Result<Registers, Errno> {
    sys::registers(task)
}

#[cfg(target_arch = "aarch64")]
fn set_registers(task: i32, registers: Registers) -> Result<(), Errno> {
    sys::set_registers(task, registers)
}
