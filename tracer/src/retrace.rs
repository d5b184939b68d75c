//! What is changed in the registers of a task so that nobody notices that it is traced; and what they say of its last call.
//!
//! A child that is not to be traced is traced all the same: `CLONE_UNTRACED` is taken off while the kernel looks at the call,
//! and put back in the register or the memory where it stood, in the parent when its call returns and in the child before
//! it runs.

use std::collections::BTreeMap;

#[cfg(target_arch = "aarch64")]
use libc::user_regs_struct as Registers;
use nix::errno::Errno;
#[cfg(target_arch = "x86_64")]
use pete::{Registers, Tracee};

use crate::calls::{Abi, Table};
#[cfg(target_arch = "x86_64")]
use crate::filter::ARCH_I386;
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
            set_registers(task, &registers)?;
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
                set_registers(task, &registers)?;
            }
            None => {}
        }
        Ok(())
    }
}

/// The call of `task`, which a signal stops now, if it may have waited for its listener and would end with EINTR; what
/// only asks never does otherwise (`arch/x86/kernel/signal.c`, `handle_signal`: ERESTARTSYS is restarted only for handlers
/// that want it, ERESTARTNOINTR always): its number and its arguments.
#[cfg(target_arch = "x86_64")]
pub(crate) fn cut_short(task: i32, tables: &BTreeMap<u32, (Abi, Table)>) -> Result<Option<(u64, [u64; 6])>, Errno> {
    let registers = registers(task)?;
    if registers.rax.cast_signed() != ERESTARTSYS {
        return Ok(None);
    }
    let Some((abi, table)) = tables.get(&sys::interface(task)?) else { return Ok(None) };
    let Registers { orig_rax, rdi, rsi, rdx, r10, r8, r9, rbx, rcx, rbp, .. } = registers;
    // Numbers are `int`: the kernel looks at the lower half of the register alone.
    let number = orig_rax & 0xffff_ffff;
    let arguments = abi.arguments(match abi {
        Abi::I386 => [rbx, rcx, rdx, rsi, rdi, rbp],
        _ => [rdi, rsi, rdx, r10, r8, r9],
    });
    let waits = table.get(number).is_some_and(|call| call.waits_with(&arguments));
    Ok(waits.then_some((number, arguments)))
}

/// Has the call that a signal has [cut short](cut_short) begin anew after it, whatever its handler wants.
#[cfg(target_arch = "x86_64")]
pub(crate) fn restart(task: i32) -> Result<(), Errno> {
    end_with(task, ERESTARTNOINTR)
}

/// True if `task` has left a call for a signal, with EINTR, and would make the same call once more.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_interrupted(task: i32) -> Result<bool, Errno> {
    let registers = registers(task)?;
    let is_in_call = registers.orig_rax.cast_signed() >= 0;
    if !is_in_call || registers.rax.cast_signed() != -i64::from(libc::EINTR) {
        return Ok(false);
    }
    // What is closed is closed (`close(2)`). Who has begun to connect and asks again waits on (`net/ipv4/af_inet.c`, `__inet_stream_connect`).
    let close = if sys::interface(task)? == ARCH_I386 { 6 } else { 3 };
    Ok(registers.orig_rax & 0xffff_ffff != close)
}

/// Has the call that a signal has ended begin anew, unless a handler is to hear of another one first.
#[cfg(target_arch = "x86_64")]
pub(crate) fn restart_unless_handled(task: i32) -> Result<(), Errno> {
    end_with(task, ERESTARTNOHAND)
}

/// Gives the call that `task` has left this result.
#[cfg(target_arch = "x86_64")]
fn end_with(task: i32, result: i64) -> Result<(), Errno> {
    let mut registers = registers(task)?;
    registers.rax = result.cast_unsigned();
    set_registers(task, &registers)
}

/// Here no call waits for a listener.
#[cfg(target_arch = "aarch64")]
#[expect(clippy::unnecessary_wraps, reason = "on other machines registers are read, which may fail")]
pub(crate) fn cut_short(_task: i32, _tables: &BTreeMap<u32, (Abi, Table)>) -> Result<Option<(u64, [u64; 6])>, Errno> {
    Ok(None)
}

#[cfg(target_arch = "aarch64")]
#[expect(clippy::unnecessary_wraps, reason = "on other machines registers are set, which may fail")]
pub(crate) fn restart(_task: i32) -> Result<(), Errno> {
    Ok(())
}

/// What a call has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    /// What it returned; `None`: an error.
    Value(Option<i64>),
    /// It begins anew.
    Again,
}

/// What the last call of `task` has come to, wherever that stands.
pub(crate) fn result(task: i32) -> Result<Returned, Errno> {
    let registers = registers(task)?;
    #[cfg(target_arch = "x86_64")]
    let value = registers.rax.cast_signed();
    #[cfg(target_arch = "aarch64")]
    let value = registers.regs[0].cast_signed();
    Ok(match value {
        ERESTARTSYS | ERESTARTNOINTR => Returned::Again,
        value => Returned::Value((value >= 0).then_some(value)),
    })
}

/// What a call returns inside the kernel that a signal has ended (`include/linux/errno.h`).
const ERESTARTSYS: i64 = -512;
#[cfg(target_arch = "x86_64")]
const ERESTARTNOHAND: i64 = -514;
const ERESTARTNOINTR: i64 = -(sys::ERESTARTNOINTR as i64);

/// Lets `task`, which stands at the entry of a call, go on without it, as if the kernel did not have the call.
pub(crate) fn skip(task: i32) -> Result<(), Errno> {
    // seccomp(2), SECCOMP_RET_TRACE: the number -1 skips the call, and the tracer gives the result.
    let error = -i64::from(libc::ENOSYS);
    #[cfg(target_arch = "x86_64")]
    {
        let mut registers = registers(task)?;
        registers.orig_rax = u64::MAX;
        registers.rax = error.cast_unsigned();
        set_registers(task, &registers)
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
fn set_registers(task: i32, registers: &Registers) -> Result<(), Errno> {
    tracee(task).set_registers(*registers).map_err(|_| Errno::ESRCH)
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
fn set_registers(task: i32, registers: &Registers) -> Result<(), Errno> {
    sys::set_registers(task, registers)
}
