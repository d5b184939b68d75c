//! Filters of calls as seccomp runs them: classic BPF, without what is about packets.
//!
//! In: a filter's instructions, and what it is told of a call. Out: what it returns. What there is says `seccomp_check_filter` in
//! `kernel/seccomp.c`, and what it does `bpf_convert_filter` in `net/core/filter.c`. Pure.

use libc::{seccomp_data, sock_filter};

/// The most instructions that the kernel takes (`BPF_MAXINSNS` of `include/uapi/linux/bpf_common.h`).
pub(crate) const LONGEST: usize = 4096;

/// The size of an instruction (`struct sock_filter`).
pub(crate) const INSTRUCTION: usize = 8;

/// `BPF_MEMWORDS`.
const MEMORY: usize = 16;

/// A filter from the memory of whoever installs it.
pub(crate) fn parse(text: &[u8]) -> Vec<sock_filter> {
    let (instructions, _) = text.as_chunks::<INSTRUCTION>();
    let instruction = |&[low, high, jt, jf, ref k @ ..]: &[u8; INSTRUCTION]| {
        let code = u16::from_ne_bytes([low, high]);
        sock_filter { code, jt, jf, k: u32::from_ne_bytes(*k) }
    };
    instructions.iter().map(instruction).collect()
}

/// What `filter` returns for a call; nothing if it divides by 0, for which the kernel kills the task, or is none that the kernel takes.
pub(crate) fn run(filter: &[sock_filter], call: &seccomp_data) -> Option<u32> {
    let words = words(call);
    let (mut accumulator, mut index, mut memory, mut at) = (0, 0, [0; MEMORY], 0);
    // It jumps forward alone.
    while let Some(&sock_filter { code, jt, jf, k }) = filter.get(at) {
        at += 1;
        let (place, code) = (k as usize, u32::from(code));
        let operand = if code & libc::BPF_X == 0 { k } else { index };
        // Class, and for what loads the mode.
        match code & 0x07 {
            libc::BPF_LD | libc::BPF_LDX => {
                let loaded = match code & 0xe0 {
                    libc::BPF_IMM => k,
                    libc::BPF_ABS if k.is_multiple_of(4) => *words.get(place / 4)?,
                    libc::BPF_LEN => size_of::<seccomp_data>() as u32,
                    libc::BPF_MEM => *memory.get(place)?,
                    _ => return None,
                };
                *(if code & 0x07 == libc::BPF_LD { &mut accumulator } else { &mut index }) = loaded;
            }
            libc::BPF_ST => *memory.get_mut(place)? = accumulator,
            libc::BPF_STX => *memory.get_mut(place)? = index,
            libc::BPF_ALU => accumulator = compute(code & 0xf0, accumulator, operand)?,
            libc::BPF_JMP if code & 0xf0 == libc::BPF_JA => at = at.checked_add(place)?,
            libc::BPF_JMP => at += usize::from(if holds(code & 0xf0, accumulator, operand)? { jt } else { jf }),
            libc::BPF_RET => return Some(if code & 0x18 == libc::BPF_A { accumulator } else { k }),
            _ if code & 0xf8 == libc::BPF_TXA => accumulator = index,
            _ => index = accumulator,
        }
    }
    None
}

/// `struct seccomp_data` as 32-bit words, in the order in which a little-endian machine has them.
fn words(call: &seccomp_data) -> [u32; 16] {
    let halves = |word: u64| [word as u32, (word >> 32) as u32];
    let mut words = [call.nr.cast_unsigned(), call.arch, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = std::iter::once(call.instruction_pointer).chain(call.args);
    for (word, half) in words[2..].iter_mut().zip(long.flat_map(halves)) {
        *word = half;
    }
    words
}

fn compute(operation: u32, accumulator: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        libc::BPF_ADD => accumulator.wrapping_add(operand),
        libc::BPF_SUB => accumulator.wrapping_sub(operand),
        libc::BPF_MUL => accumulator.wrapping_mul(operand),
        libc::BPF_DIV => accumulator.checked_div(operand)?,
        libc::BPF_AND => accumulator & operand,
        libc::BPF_OR => accumulator | operand,
        libc::BPF_XOR => accumulator ^ operand,
        // By the lower five bits (`kernel/bpf/core.c`, `SHT`).
        libc::BPF_LSH => accumulator.wrapping_shl(operand),
        libc::BPF_RSH => accumulator.wrapping_shr(operand),
        libc::BPF_NEG => accumulator.wrapping_neg(),
        _ => return None,
    })
}

fn holds(comparison: u32, accumulator: u32, operand: u32) -> Option<bool> {
    Some(match comparison {
        libc::BPF_JEQ => accumulator == operand,
        libc::BPF_JGT => accumulator > operand,
        libc::BPF_JGE => accumulator >= operand,
        libc::BPF_JSET => accumulator & operand != 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{
        BPF_A, BPF_ABS, BPF_ALU, BPF_IMM, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_LEN, BPF_MEM, BPF_MISC, BPF_RET,
    };
    use libc::{BPF_ST, BPF_STX, BPF_TAX, BPF_TXA, BPF_W, BPF_X};
    use proptest::prelude::*;

    const CALL: seccomp_data = seccomp_data {
        nr: -2,
        arch: 0xc000_003e,
        instruction_pointer: 0x1111_2222_3333_4444,
        args: [1, 2 << 32, 3, 4, 5, 0xaaaa_bbbb_cccc_dddd],
    };

    fn one(code: u32, k: u32) -> sock_filter {
        sock_filter { code: code as u16, jt: 0, jf: 1, k }
    }

    /// The accumulator, after these instructions.
    fn accumulator(instructions: &[(u32, u32)]) -> Option<u32> {
        let filter: Vec<_> =
            instructions.iter().chain(&[(BPF_RET | BPF_A, 7)]).map(|&(code, k)| one(code, k)).collect();
        run(&filter, &CALL)
    }

    const LOAD: u32 = BPF_LD | BPF_IMM;
    const INDEX: u32 = BPF_LDX | BPF_IMM;

    #[test]
    fn what_it_is_told() {
        let word = |offset| accumulator(&[(BPF_LD | BPF_W | BPF_ABS, offset)]);
        let told = [0xffff_fffe, 0xc000_003e, 0x3333_4444, 0x1111_2222, 1, 0, 0, 2];
        assert_eq!((0..8).map(|at| word(4 * at).unwrap()).collect::<Vec<_>>(), told);
        assert_eq!([word(56), word(60)], [Some(0xcccc_dddd), Some(0xaaaa_bbbb)]);
        assert_eq!([word(2), word(64)], [None, None], "the kernel does not take it");
    }

    #[test]
    fn operations() {
        let (sum, minus_one) = (|one: u32, other: u32| one.wrapping_add(other), u32::MAX);
        for (operation, one, other, result) in [
            (libc::BPF_ADD, minus_one, 3, 2),
            (libc::BPF_SUB, 3, 5, sum(0, minus_one - 1)),
            (libc::BPF_MUL, 1 << 31, 3, 1 << 31),
            (libc::BPF_DIV, minus_one, 2, i32::MAX.cast_unsigned()),
            (libc::BPF_AND, 0b110, 0b011, 0b010),
            (libc::BPF_OR, 0b110, 0b011, 0b111),
            (libc::BPF_XOR, 0b110, 0b011, 0b101),
            (libc::BPF_LSH, 3, 31, 1 << 31),
            (libc::BPF_RSH, minus_one, 31, 1),
        ] {
            assert_eq!(accumulator(&[(LOAD, one), (BPF_ALU | operation | BPF_K, other)]), Some(result));
            let by_index = [(LOAD, one), (INDEX, other), (BPF_ALU | operation | BPF_X, 77)];
            assert_eq!(accumulator(&by_index), Some(result), "{operation:#x}");
        }
        assert_eq!(accumulator(&[(LOAD, 1), (BPF_ALU | libc::BPF_NEG, 0)]), Some(minus_one));
        assert_eq!(accumulator(&[(LOAD, 5), (INDEX, 33), (BPF_ALU | libc::BPF_LSH | BPF_X, 0)]), Some(10));
        assert_eq!(accumulator(&[(LOAD, 5), (INDEX, 0), (BPF_ALU | libc::BPF_DIV | BPF_X, 0)]), None);
        assert_eq!(accumulator(&[(BPF_ALU | libc::BPF_MOD | BPF_K, 2)]), None, "the kernel does not take it");
    }

    #[test]
    fn places() {
        assert_eq!(accumulator(&[]), Some(0));
        assert_eq!(accumulator(&[(BPF_LD | BPF_W | BPF_LEN, 0)]), Some(64));
        assert_eq!(accumulator(&[(BPF_LDX | BPF_W | BPF_LEN, 0), (BPF_MISC | BPF_TXA, 0)]), Some(64));
        assert_eq!(accumulator(&[(LOAD, 3), (BPF_ST, 15), (LOAD, 4), (BPF_LD | BPF_MEM, 15)]), Some(3));
        let through_memory = [(INDEX, 3), (BPF_STX, 0), (INDEX, 4), (BPF_LDX | BPF_MEM, 0), (BPF_MISC | BPF_TXA, 0)];
        assert_eq!(accumulator(&through_memory), Some(3));
        let there_and_back = [(LOAD, 3), (BPF_MISC | BPF_TAX, 0), (LOAD, 4), (BPF_MISC | BPF_TXA, 0)];
        assert_eq!(accumulator(&there_and_back), Some(3));
        assert_eq!(accumulator(&[(BPF_ST, 16)]), None, "the kernel does not take it");
    }

    #[test]
    fn jumps() {
        for (comparison, one, other, holds) in [
            (libc::BPF_JEQ, 1, 1, true),
            (libc::BPF_JEQ, 1, 2, false),
            (libc::BPF_JGT, u32::MAX, 1, true),
            (libc::BPF_JGT, 1, 1, false),
            (libc::BPF_JGE, 1, 1, true),
            (libc::BPF_JGE, 0, u32::MAX, false),
            (libc::BPF_JSET, 6, 3, true),
            (libc::BPF_JSET, 4, 3, false),
        ] {
            // What does not hold passes over the next one, which passes over the one after it.
            let ends = [(BPF_JMP | libc::BPF_JA, 2), (LOAD, 1), (BPF_RET | BPF_A, 0), (LOAD, 2)];
            let by_value = [(LOAD, one), (BPF_JMP | comparison | BPF_K, other)];
            let by_index = [(LOAD, one), (INDEX, other), (BPF_JMP | comparison | BPF_X, 77)];
            for compared in [&by_value[..], &by_index] {
                let result = accumulator(&[compared, &ends].concat());
                assert_eq!(result, Some(u32::from(holds) + 1), "{comparison:#x} {one} {other}");
            }
        }
        assert_eq!(accumulator(&[(BPF_JMP | libc::BPF_JA, 1)]), None, "there is no end");
        assert_eq!(accumulator(&[(BPF_JMP | libc::BPF_JA, u32::MAX)]), None);
    }

    proptest! {
        #[test]
        fn any_text_comes_to_an_end(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            run(&parse(&text), &CALL);
        }
    }
}
