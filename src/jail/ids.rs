//! Which ids inside stand for which ids outside (`user_namespaces(7)`, "User and group ID mappings").
//!
//! In: what the caller may map and whom the program wants to be. Out: the lines of a map. Pure.

use std::collections::BTreeSet;

/// `count` ids from `inside` up stand for those from `outside` up: one line of `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) count: u32,
}

/// Some ids from `start` up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) count: u32,
}

/// The kernel takes no more lines than this (`user_namespaces(7)`; Linux 4.15).
const MAX_LINES: usize = 340;

/// Maps every id in `ranges` to itself, but gives up the highest of them for those that are `wanted` and not there.
///
/// For a caller who has `CAP_SETUID` here: real root, whose range is all ids, or the root of a user namespace, whose
/// ranges are what its own map shows. `None` if there are not enough ids.
pub(super) fn keep(ranges: &[Range], wanted: &BTreeSet<u32>) -> Option<Vec<Extent>> {
    let extents = ranges.iter().map(|range| Extent { inside: range.start, outside: range.start, count: range.count });
    make_room(extents.collect(), wanted)
}

/// Maps 0 to `own`, ids from 1 up to the `subordinate` ones in order, and the rest of `wanted` to the highest of those.
///
/// This is what rootless podman does, so that files of one's own show as root's, as they do in most images. `None` if
/// there are not enough ids.
pub(super) fn spread(own: u32, subordinate: &[Range], wanted: &BTreeSet<u32>) -> Option<Vec<Extent>> {
    let mut extents = vec![Extent { inside: 0, outside: own, count: 1 }];
    let mut inside: u32 = 1;
    for range in subordinate.iter().filter(|range| range.count > 0) {
        extents.push(Extent { inside, outside: range.start, count: range.count });
        inside = inside.checked_add(range.count)?;
    }
    make_room(extents, wanted)
}

/// Maps one id, the only thing that anyone may do.
pub(super) fn single(own: u32, wanted: u32) -> Vec<Extent> {
    vec![Extent { inside: wanted, outside: own, count: 1 }]
}

/// The lines as the kernel reads them.
pub(super) fn text(extents: &[Extent]) -> String {
    let line =
        |extent: &Extent| [extent.inside, extent.outside, extent.count].map(|number| number.to_string()).join(" ");
    extents.iter().map(|extent| line(extent) + "\n").collect()
}

/// The ids that a map shows as existing inside.
pub(super) fn parse_map(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
        let start = numbers.next()??;
        let count = numbers.nth(1)??;
        Some(Range { start, count })
    };
    text.lines().filter_map(line).collect()
}

/// The ranges of a user in `/etc/subuid` or `/etc/subgid` (`subuid(5)`): lines `name:start:count` or `uid:start:count`.
pub(super) fn parse_subordinate(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.split(':');
        let whose = fields.next()?;
        let range = Range { start: fields.next()?.parse().ok()?, count: fields.next()?.trim_end().parse().ok()? };
        (whose == name || whose == number).then_some(range)
    };
    text.lines().filter_map(line).collect()
}

/// True if `id` exists inside.
pub(super) fn has(extents: &[Extent], id: u32) -> bool {
    extents.iter().any(|extent| id.checked_sub(extent.inside).is_some_and(|offset| offset < extent.count))
}

fn make_room(mut extents: Vec<Extent>, wanted: &BTreeSet<u32>) -> Option<Vec<Extent>> {
    let missing: Vec<u32> = wanted.iter().copied().filter(|&id| !has(&extents, id)).collect();
    for inside in missing {
        let outside = take_highest(&mut extents, wanted)?;
        extents.push(Extent { inside, outside, count: 1 });
    }
    (extents.len() <= MAX_LINES).then_some(extents)
}

/// Takes the highest id inside out of the map, though never 0 nor a wanted one, and gives what it stood for.
fn take_highest(extents: &mut Vec<Extent>, wanted: &BTreeSet<u32>) -> Option<u32> {
    let highest = |(index, extent): (usize, &Extent)| {
        let mut ids = (extent.inside..extent.inside.checked_add(extent.count)?).rev();
        ids.find(|&id| id != 0 && !wanted.contains(&id)).map(|id| (id, index))
    };
    let (id, index) = extents.iter().enumerate().filter_map(highest).max()?;
    let extent = extents.remove(index);
    let below = id - extent.inside;
    let above = Extent { inside: id + 1, outside: extent.outside + below + 1, count: extent.count - below - 1 };
    let parts = [Extent { count: below, ..extent }, above];
    extents.splice(index..index, parts.into_iter().filter(|part| part.count > 0));
    Some(extent.outside + below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u32]) -> BTreeSet<u32> {
        ids.iter().copied().collect()
    }

    fn lines(extents: Option<Vec<Extent>>) -> Vec<String> {
        text(&extents.unwrap()).lines().map(str::to_owned).collect()
    }

    #[test]
    fn root_keeps_every_id() {
        let all = parse_map("         0          0 4294967295\n");
        assert_eq!(lines(keep(&all, &set(&[0, 33, 65534]))), ["0 0 4294967295"]);
    }

    #[test]
    fn the_root_of_a_namespace_maps_what_its_own_map_has() {
        let partial = parse_map("0 1000 1\n1 100000 10\n");
        assert_eq!(lines(keep(&partial, &set(&[5]))), ["0 0 1", "1 1 10"]);
        assert_eq!(lines(keep(&partial, &set(&[33]))), ["0 0 1", "1 1 9", "33 10 1"]);
        assert_eq!(keep(&parse_map("0 1000 1"), &set(&[33])), None);
    }

    #[test]
    fn own_files_are_roots_and_others_come_from_the_range() {
        let range = [Range { start: 100_000, count: 65_536 }];
        assert_eq!(lines(spread(1000, &range, &set(&[0, 33]))), ["0 1000 1", "1 100000 65536"]);
        assert_eq!(
            lines(spread(1000, &range, &set(&[70_000, 70_001]))),
            ["0 1000 1", "1 100000 65534", "70000 165535 1", "70001 165534 1"]
        );
    }

    #[test]
    fn a_wanted_id_is_never_given_up_for_another() {
        let range = [Range { start: 500, count: 2 }];
        assert_eq!(lines(spread(1000, &range, &set(&[2, 9]))), ["0 1000 1", "2 501 1", "9 500 1"]);
    }

    #[test]
    fn subordinate_ranges_by_name_and_by_number() {
        let text = "anna:100000:65536\nbob:1:2\n1000:300000:5\nbroken:\n";
        assert_eq!(
            parse_subordinate(text, "anna", 1000),
            [Range { start: 100_000, count: 65_536 }, Range { start: 300_000, count: 5 }]
        );
    }
}
