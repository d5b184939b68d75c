//! Seccomp filters of the program's own, which may hand a call to a tracer.
//!
//! There is none for the program, so that such a call fails with ENOSYS (`seccomp(2)`, `SECCOMP_RET_TRACE`), and nothing that it asks
//! for is used. But where a call waits for the [listener](crate::listener), that outranks the wish; and a stop is told by
//! its data, which may be the same as that of ours. So what a program installs is remembered, and asked as the kernel asks it.
//!
//! In: the filters that were installed, who made whom, and a call. Out: whether the program is to find that there is no tracer. What
//! outranks that, as an error, is not asked for: the kernel has done it before anybody hears of the call. Filters that were there before
//! the program are not known, nor is one of a process that a thread makes while another has it installed for all.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use libc::{seccomp_data, sock_filter};

use crate::engine::Engine;
use crate::event::Gap;
use crate::inspect::Asking;
use crate::sys::SyscallEntry;
use crate::{TraceError, bpf, decode, memory};

type Filter = Rc<Vec<sock_filter>>;

#[derive(Debug, Default)]
pub(crate) struct OwnFilters {
    /// Those of each task that can hand a call to a tracer; hardly any task has one.
    of: HashMap<i32, Vec<Filter>>,
    /// Tasks that stand where they begin until it is heard who has made them, and so, which filters they have.
    unclaimed: BTreeSet<i32>,
}

impl OwnFilters {
    /// True if a filter of `task` hands this call to a tracer.
    pub(crate) fn want_tracer(&self, task: i32, entry: &SyscallEntry) -> bool {
        if self.of.is_empty() {
            return false;
        }
        let call = seccomp_data {
            nr: entry.number as i32,
            arch: entry.arch,
            instruction_pointer: entry.instruction,
            args: entry.arguments,
        };
        let wants = |filter: &Filter| bpf::run(filter, &call).is_some_and(is_trace);
        self.of.get(&task).is_some_and(|filters| filters.iter().any(wants))
    }

    fn has(&self, task: i32, filter: &Filter) -> bool {
        self.of.get(&task).is_some_and(|filters| filters.iter().any(|other| Rc::ptr_eq(other, filter)))
    }

    fn add(&mut self, task: i32, filter: &Filter) {
        if !self.has(task, filter) {
            self.of.entry(task).or_default().push(Rc::clone(filter));
        }
    }

    /// `maker` has made `task`.
    pub(crate) fn inherit(&mut self, task: i32, maker: i32) {
        for filter in self.of.get(&maker).cloned().unwrap_or_default() {
            self.add(task, &filter);
        }
    }

    /// One of `makers` has made `task`, and it is not known yet which: it has what they all have, and waits for what else.
    pub(crate) fn take_after(&mut self, task: i32, makers: impl Iterator<Item = i32>) {
        if self.of.is_empty() {
            return;
        }
        self.unclaimed.insert(task);
        let mut makers = makers.filter(|&maker| maker != task);
        let Some(first) = makers.next() else { return };
        let mut common = self.of.get(&first).cloned().unwrap_or_default();
        for maker in makers {
            common.retain(|filter| self.has(maker, filter));
        }
        for filter in common {
            self.add(task, &filter);
        }
    }

    /// True if `task` must not run yet.
    pub(crate) fn keep_waiting(&self, task: i32) -> bool {
        self.unclaimed.contains(&task)
    }

    /// It is known who has made `task`; true if that waited for it.
    pub(crate) fn claim(&mut self, task: i32) -> bool {
        self.unclaimed.remove(&task)
    }

    /// Those that wait for their maker, which will not be heard of any more.
    pub(crate) fn orphans(&mut self) -> BTreeSet<i32> {
        std::mem::take(&mut self.unclaimed)
    }

    /// `former` is `task` now, having executed something.
    pub(crate) fn executed(&mut self, former: i32, task: i32) {
        let filters = self.of.remove(&former);
        self.of.remove(&task);
        self.of.extend(filters.map(|filters| (task, filters)));
    }

    pub(crate) fn remove(&mut self, task: i32) {
        self.unclaimed.remove(&task);
        self.of.remove(&task);
    }
}

impl Engine<'_> {
    /// A call has returned that installs a filter, which had this `text` when it began.
    pub(crate) fn filtered(
        &mut self,
        asking: Asking,
        text: &[u8],
        flags: u64,
        result: Option<i64>,
    ) -> Result<(), TraceError> {
        let is_for_all = flags & libc::SECCOMP_FILTER_FLAG_TSYNC != 0;
        // seccomp(2), "RETURN VALUE": the number of a thread that has other filters, unless it is a descriptor. None is
        // installed then.
        let is_refused = |result| result > 0 && is_for_all && flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0;
        if result.is_none_or(is_refused) {
            return Ok(());
        }
        let read = |address: u64, buffer: &mut [u8]| memory::read(asking.task, address, buffer);
        if decode::filter(&asking.entry, &read).is_ok_and(|now| now != text) {
            self.gap(asking.process, Gap::Rewritten)?;
        }
        let filter = bpf::parse(text);
        if !may_trace(&filter) {
            return Ok(());
        }
        let filter = Rc::new(filter);
        self.own_filters.add(asking.task, &filter);
        for task in self.machine.tasks_of(asking.process).filter(|_| is_for_all) {
            self.own_filters.add(task, &filter);
        }
        Ok(())
    }
}

fn is_trace(returned: u32) -> bool {
    returned & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_TRACE
}

/// True if a filter may hand a call to a tracer, as one may that computes what it returns.
fn may_trace(filter: &[sock_filter]) -> bool {
    let may_return = |instruction: &sock_filter| {
        let code = u32::from(instruction.code);
        code == libc::BPF_RET | libc::BPF_A || (code == libc::BPF_RET | libc::BPF_K && is_trace(instruction.k))
    };
    filter.iter().any(may_return)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENAT: u64 = 257;

    fn filter(action: u32) -> Filter {
        let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let code = (libc::BPF_RET | libc::BPF_K) as u16;
        let returns = |k| sock_filter { code, jt: 0, jf: 0, k };
        Rc::new(vec![
            sock_filter { code: load, jt: 0, jf: 0, k: 0 },
            sock_filter { code: equal, jt: 0, jf: 1, k: OPENAT as u32 },
            returns(action),
            returns(libc::SECCOMP_RET_ALLOW),
        ])
    }

    fn wants(filters: &OwnFilters, task: i32, number: u64) -> bool {
        let entry = SyscallEntry { arch: 0, number, arguments: [0; 6], instruction: 0, data: 0, stack: None };
        filters.want_tracer(task, &entry)
    }

    #[test]
    fn any_filter_of_the_task() {
        let mut filters = OwnFilters::default();
        filters.add(7, &filter(libc::SECCOMP_RET_LOG));
        assert!(!wants(&filters, 7, OPENAT));
        filters.add(7, &filter(libc::SECCOMP_RET_TRACE | 0x6d6a));
        assert!(wants(&filters, 7, OPENAT) && !wants(&filters, 7, 2) && !wants(&filters, 8, OPENAT));
    }

    #[test]
    fn who_has_which() {
        let mut filters = OwnFilters::default();
        let (one, other) = (filter(libc::SECCOMP_RET_TRACE), filter(libc::SECCOMP_RET_TRACE));
        filters.add(1, &one);
        filters.add(2, &one);
        filters.add(2, &other);
        filters.take_after(3, [1, 2, 3].into_iter());
        filters.take_after(4, [1, 9].into_iter());
        assert!(filters.keep_waiting(3) && filters.keep_waiting(4));
        assert!(filters.of[&3].len() == 1 && !filters.of.contains_key(&4));
        // Who has made it is known now.
        filters.inherit(3, 2);
        assert!(filters.claim(3) && !filters.claim(3) && !filters.keep_waiting(3));
        assert_eq!(filters.of[&3].len(), 2);
        // The maker of this one was killed before anybody heard of it.
        assert!(filters.orphans() == BTreeSet::from([4]) && !filters.keep_waiting(4));
        // A thread executes something.
        filters.executed(2, 1);
        assert!(filters.of[&1].len() == 2 && !filters.of.contains_key(&2));
        filters.executed(1, 1);
        assert_eq!(filters.of[&1].len(), 2);
        filters.executed(9, 1);
        assert!(!filters.of.contains_key(&1));
        filters.remove(3);
        assert!(filters.of.is_empty());
    }

    #[test]
    fn only_what_may_trace_is_kept() {
        for (action, expected) in [
            (libc::SECCOMP_RET_TRACE | 7, true),
            (libc::SECCOMP_RET_ERRNO | 1, false),
            (libc::SECCOMP_RET_ALLOW, false),
            (libc::SECCOMP_RET_LOG, false),
        ] {
            assert_eq!(may_trace(&filter(action)), expected);
        }
        let computed = sock_filter { code: (libc::BPF_RET | libc::BPF_A) as u16, jt: 0, jf: 0, k: 0 };
        assert!(may_trace(&[computed]));
    }
}
