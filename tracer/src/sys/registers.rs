//! The registers of a task on aarch64, for which pete has nothing.

use std::mem::MaybeUninit;

use nix::errno::Errno;

use super::syscall_info;
use crate::filter::ARCH_AARCH64;

/// Changes the number of the call at whose entry `task` stands: on aarch64 it is not among the registers
/// (`arch/arm64/kernel/ptrace.c`, `NT_ARM_SYSTEM_CALL`).
pub(crate) fn set_call(task: i32, mut number: i32) -> Result<(), Errno> {
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    let mut part = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of::<i32>() };
    // SAFETY: the kernel reads `iov_len` bytes from `number`.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETREGSET, task, NT_ARM_SYSTEM_CALL, &raw mut part) };
    Errno::result(result).map(drop)
}

/// Sets what the call at whose entry `task` stands returns, in the first of its registers.
pub(crate) fn set_result(task: i32, mut result: i64) -> Result<(), Errno> {
    // arch/arm64/kernel/ptrace.c, task_user_regset_view: of a 32-bit program, they are half as wide.
    let width = if syscall_info(task)?.arch == ARCH_AARCH64 { size_of::<u64>() } else { size_of::<u32>() };
    let mut first = libc::iovec { iov_base: (&raw mut result).cast(), iov_len: width };
    // SAFETY: the kernel reads `iov_len` bytes from `result`, which is as long or longer.
    let set = unsafe { libc::ptrace(libc::PTRACE_SETREGSET, task, libc::NT_PRSTATUS as usize, &raw mut first) };
    Errno::result(set).map(drop)
}

/// The registers of `task`, which stands still (`NT_PRSTATUS`).
pub(crate) fn registers(task: i32) -> Result<libc::user_regs_struct, Errno> {
    let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
    let mut all = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of_val(&registers) };
    // SAFETY: the kernel writes at most `iov_len` bytes to `registers`, which is so long.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, task, libc::NT_PRSTATUS as usize, &raw mut all) };
    Errno::result(result)?;
    // SAFETY: all bytes were zeroed, which is a value of this struct of integers, and the kernel wrote more of them.
    Ok(unsafe { registers.assume_init() })
}

/// Sets them.
pub(crate) fn set_registers(task: i32, registers: &libc::user_regs_struct) -> Result<(), Errno> {
    let base = std::ptr::from_ref(registers).cast_mut().cast();
    let mut all = libc::iovec { iov_base: base, iov_len: size_of_val(registers) };
    // SAFETY: the kernel reads `iov_len` bytes from `registers`, which is so long, and writes none.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETREGSET, task, libc::NT_PRSTATUS as usize, &raw mut all) };
    Errno::result(result).map(drop)
}
