//! The seccomp filter: which calls stop.
//!
//! In: the table of calls. Out: BPF programs: one that makes every such call a stop, and every call that is younger than the table; and one that has those which only
//! ask or open wait for an answer instead (`SECCOMP_RET_USER_NOTIF`). Everything that can be decided by the call's number alone is, so that
//! the kernel's bitmap of always-allowed calls applies (`kernel/seccomp.c`, `seccomp_cache_prepare`); the few looks at
//! arguments come last.

use libc::sock_filter;

use crate::calls::{Abi, CALLS, Call, Kind, NO_HANG, NONE, YOUNGEST};

/// `SECCOMP_RET_DATA` of every stop that is ours: a filter of the program's own may ask for stops as well.
pub(crate) const MARK: u16 = 0x6d6a;

/// Added to the number of every x32 call (`arch/x86/include/uapi/asm/unistd.h`, `__X32_SYSCALL_BIT`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// `CLONE_UNTRACED` of `clone(2)`.
pub(crate) const CLONE_UNTRACED: u64 = 0x0080_0000;

/// `CLONE_NEWNS` of `clone(2)`.
pub(crate) const CLONE_NEWNS: u64 = 0x0002_0000;

// Commands of `fsconfig(2)` (`include/uapi/linux/mount.h`).
pub(crate) const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_PATH: u32 = 3;
const FSCONFIG_SET_PATH_EMPTY: u32 = 4;

// Commands of `bpf(2)` (`include/uapi/linux/bpf.h`).
pub(crate) const BPF_OBJ_PIN: u32 = 6;
const BPF_OBJ_GET: u32 = 7;
pub(crate) const BPF_LINK_CREATE: u32 = 28;

/// `PR_SET_SECCOMP` of `prctl(2)`.
const PR_SET_SECCOMP: u32 = libc::PR_SET_SECCOMP.cast_unsigned();

/// `AUDIT_ARCH_*` of `include/uapi/linux/audit.h`: machine, 64-bit and little-endian bits.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCH_X86_64: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCH_I386: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCH_AARCH64: u32 = 0xc000_00b7;

/// The interfaces that a program on this machine can use.
#[cfg(target_arch = "x86_64")]
pub(crate) const ABIS: &[(u32, Abi)] = &[(ARCH_X86_64, Abi::X86_64), (ARCH_I386, Abi::I386)];
#[cfg(target_arch = "aarch64")]
pub(crate) const ABIS: &[(u32, Abi)] = &[(ARCH_AARCH64, Abi::Aarch64)];

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const ALLOW: sock_filter = sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
const STOP: sock_filter = sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_TRACE | MARK as u32 };
const WAIT: sock_filter = sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF };

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Low and high half of an argument, on a little-endian machine.
const fn argument(index: u32) -> (u32, u32) {
    (16 + 8 * index, 20 + 8 * index)
}

const fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

/// Goes on with the next instruction if the loaded word is `value`, else skips `skip` of them.
const fn unless_equal(value: u32, skip: u8) -> sock_filter {
    sock_filter { code: EQUAL, jt: 0, jf: skip, k: value }
}

/// How a call is heard of that may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// It stops, as all others do.
    Stop,
    /// It waits for the answer of whoever holds the filter's listener.
    Wait,
}

/// The filter for the interfaces of this machine.
pub(crate) fn program(asks: Asks) -> Vec<sock_filter> {
    let mut program = vec![load(ARCH)];
    for &(arch, abi) in ABIS {
        let section = section(abi, asks);
        // Sections are longer than a conditional jump reaches.
        program.push(sock_filter { code: EQUAL, jt: 1, jf: 0, k: arch });
        let always = (libc::BPF_JMP | libc::BPF_JA) as u16;
        let length = u32::try_from(section.len()).expect("a filter has at most 4,096 instructions");
        program.push(sock_filter { code: always, jt: 0, jf: 0, k: length });
        program.extend(section);
    }
    // An interface that this build does not know: nothing of it would be seen.
    program.push(STOP);
    program
}

fn section(abi: Abi, asks: Asks) -> Vec<sock_filter> {
    let mut section = vec![load(NUMBER)];
    if abi == Abi::X86_64 {
        section.push(sock_filter { code: ANY_BIT, jt: 0, jf: 1, k: X32_BIT });
        section.push(STOP);
    }
    let (looks, plain): (Vec<_>, Vec<_>) =
        CALLS.iter().filter(|call| call.numbers[abi as usize] != NONE).partition(|call| call.kind.argument_decides());
    for call in plain {
        section.push(unless_equal(call.numbers[abi as usize], 1));
        section.push(heard(call, asks));
    }
    for call in looks {
        let check = check(call, asks);
        let length = u8::try_from(check.len()).expect("a check is a handful of instructions");
        section.push(unless_equal(call.numbers[abi as usize], length));
        section.extend(check);
    }
    // A call that nobody knows. Last: a program makes it rarely, if ever.
    section.extend([sock_filter { code: GREATER, jt: 0, jf: 1, k: YOUNGEST }, STOP, ALLOW]);
    section
}

impl Kind {
    /// True if a call of this kind stops only for some arguments.
    fn argument_decides(&self) -> bool {
        matches!(
            self,
            Self::Clone
                | Self::Address { address: 4, .. }
                | Self::Fsconfig
                | Self::Bpf
                | Self::Prctl
                | Self::Reap { .. }
        )
    }
}

/// How `call` is heard of, if it is.
fn heard(call: &Call, asks: Asks) -> sock_filter {
    if asks == Asks::Wait && call.may_wait() { WAIT } else { STOP }
}

fn check(call: &Call, asks: Asks) -> Vec<sock_filter> {
    match &call.kind {
        Kind::Clone => {
            let flags = u32::try_from(CLONE_UNTRACED | CLONE_NEWNS).expect("flags of the lower half");
            vec![load(argument(0).0), sock_filter { code: ANY_BIT, jt: 0, jf: 1, k: flags }, STOP, ALLOW]
        }
        Kind::Reap { options } => {
            let options = load(argument(u32::try_from(*options).expect("an argument's index")).0);
            vec![options, sock_filter { code: ANY_BIT, jt: 0, jf: 1, k: NO_HANG }, heard(call, asks), ALLOW]
        }
        // `send` is `sendto` without an address.
        Kind::Address { address, .. } => {
            let (low, high) = argument(u32::try_from(*address).expect("an argument's index"));
            vec![load(low), unless_equal(0, 3), load(high), unless_equal(0, 1), ALLOW, STOP]
        }
        Kind::Fsconfig => one_of(argument(1).0, &[FSCONFIG_SET_STRING, FSCONFIG_SET_PATH, FSCONFIG_SET_PATH_EMPTY]),
        Kind::Bpf => one_of(argument(0).0, &[BPF_OBJ_PIN, BPF_OBJ_GET, BPF_LINK_CREATE]),
        Kind::Prctl => one_of(argument(0).0, &[PR_SET_SECCOMP]),
        _ => vec![STOP],
    }
}

/// Stops if the word at `offset` is one of these.
fn one_of(offset: u32, values: &[u32]) -> Vec<sock_filter> {
    let stops = values.iter().flat_map(|&value| [unless_equal(value, 1), STOP]);
    std::iter::once(load(offset)).chain(stops).chain([ALLOW]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &[sock_filter], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let call = libc::seccomp_data { nr: number.cast_signed(), arch, instruction_pointer: 0, args };
        crate::bpf::run(program, &call).expect("the kernel takes it")
    }

    fn stops(arch: u32, number: u32, arguments: [u64; 6]) -> bool {
        match run(&program(Asks::Stop), arch, number, arguments) {
            libc::SECCOMP_RET_ALLOW => false,
            result => {
                assert_eq!(result, libc::SECCOMP_RET_TRACE | u32::from(MARK));
                true
            }
        }
    }

    #[test]
    fn every_call_of_the_table_stops_and_of_the_others_what_is_younger() {
        for &(arch, abi) in ABIS {
            for number in (0..600).chain([X32_BIT - 1, u32::MAX]) {
                let call = CALLS.iter().find(|call| call.numbers[abi as usize] == number);
                let expected = call.map_or(number > YOUNGEST, |call| !call.kind.argument_decides());
                assert_eq!(stops(arch, number, [0; 6]), expected, "{abi:?} {number}");
            }
        }
    }

    /// The interface of 64-bit programs, and the number of a call there.
    fn own(name: &str) -> (u32, u32) {
        let (arch, abi) = ABIS[0];
        let call = CALLS.iter().find(|call| call.name == name && call.numbers[abi as usize] != NONE).unwrap();
        (arch, call.numbers[abi as usize])
    }

    #[test]
    fn arguments_decide() {
        let stops = |name, arguments| {
            let (arch, number) = own(name);
            stops(arch, number, arguments)
        };
        let sendto = |address| stops("sendto", [0, 0, 0, 0, address, 0]);
        assert!(!sendto(0));
        assert!(sendto(0x10));
        assert!(sendto(0x7fff_0000_0000));
        let clone = |flags| stops("clone", [flags, 0, 0, 0, 0, 0]);
        assert!(!clone(0x1200_0011));
        assert!(clone(CLONE_UNTRACED | 0x11));
        assert!(clone(CLONE_NEWNS | 0x11));
        let fsconfig = |command| stops("fsconfig", [0, command, 0, 0, 0, 0]);
        assert_eq!([0, 1, 3, 4, 5, 6].map(fsconfig), [false, true, true, true, false, false]);
        let bpf = |command| stops("bpf", [command, 0, 0, 0, 0, 0]);
        assert_eq!([0, 5, 6, 7, 8, 28].map(bpf), [false, false, true, true, false, true]);
        let prctl = |option| stops("prctl", [option, 2, 0, 0, 0, 0]);
        assert_eq!([0, 15, 22, 38, 0x7_0000_0016].map(prctl), [false, false, true, false, true]);
        let wait = |options| stops("wait4", [1234, 0, options, 0, 0, 0]);
        assert_eq!([0, 1, 2, 3, 0x4000_0001].map(wait), [false, true, false, true, true]);
        let waitid = |options| stops("waitid", [1, 1, 0, options, 0, 0]);
        assert_eq!([4, 5].map(waitid), [false, true]);
    }

    #[test]
    fn calls_that_ask_or_open_may_wait() {
        let result = |number| run(&program(Asks::Wait), ABIS[0].0, number, [0; 6]);
        let stop = libc::SECCOMP_RET_TRACE | u32::from(MARK);
        let asks = ["newfstatat", "faccessat", "getdents64", "openat"].map(|name| result(own(name).1));
        assert_eq!(asks, [libc::SECCOMP_RET_USER_NOTIF; 4]);
        let wait = |options| run(&program(Asks::Wait), ABIS[0].0, own("wait4").1, [0, 0, options, 0, 0, 0]);
        assert_eq!([0, 1].map(wait), [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF]);
        let others = ["linkat", "execve", "unlinkat", "swapon"].map(|name| result(own(name).1));
        assert_eq!(others, [stop; 4]);
        assert_eq!(result(libc::SYS_read as u32), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn unknown_interfaces_stop() {
        assert!(stops(0x1234, 0, [0; 6]));
        // Elsewhere it is a number that no table has.
        assert!(stops(ABIS[0].0, X32_BIT | 1, [0; 6]));
    }

    #[test]
    fn the_kernel_takes_its_length() {
        assert!([Asks::Stop, Asks::Wait].iter().all(|&asks| program(asks).len() < 4096));
    }
}
