//! Where the bytes of a process's heap are: as the heap has it, and as the system does.

use std::fmt;
use std::ops::Range;

use crate::ctl;
use crate::proc::{self, Lines};
use crate::reserve::Reservation;

/// Where the bytes of a heap are. Exact while nothing moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Memory that objects may be in: what the heap has asked the system for so far.
    pub memory_bytes: usize,
    /// The same, and what is beyond the limit: what was made usable once, and is address space for ever.
    pub mapped_bytes: usize,
    /// The limit on it, if there is one.
    pub limit_bytes: Option<usize>,
    /// Of the memory, what slabs and large blocks have. What threads keep at hand is part of this.
    pub used_bytes: usize,
    /// Of it, what nobody has.
    pub free_bytes: usize,
    /// Free memory that was in use, so that there may be pages behind it.
    pub dirty_bytes: usize,
    /// Freed large blocks that wait for the next request of their size.
    pub kept_bytes: usize,
    /// What was given back to the system so far.
    pub given_back_bytes: usize,
    /// Huge frames with pages of large blocks that have grown by moving them, in bytes.
    pub moved_bytes: usize,
    /// Objects that were at hand for other threads when the process became a copy by `fork`, and are in nobody's hands.
    pub lost_at_fork: usize,
    /// What the system tells, if it does.
    pub system: Option<SystemStats>,
}

/// Where a heap's bytes are as the system has it, its metadata included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SystemStats {
    /// Pages that are there.
    pub resident_bytes: usize,
    /// Of them, those in transparent huge pages, and in explicit ones.
    pub huge_bytes: usize,
    /// Pages that are locked.
    pub locked_bytes: usize,
    /// Pages that are swapped out.
    pub swapped_bytes: usize,
    /// Mappings that the heap consists of.
    pub mappings: usize,
    /// Page faults of the whole process so far, those that waited for a disk included.
    pub faults: u64,
}

/// A name, and where its number is.
pub(crate) type Number<S> = (&'static str, fn(&S) -> usize);

/// The numbers of an account and their names, in the order in which they are written.
pub(crate) const NUMBERS: [Number<Stats>; 9] = [
    ("memory_bytes", |stats| stats.memory_bytes),
    ("mapped_bytes", |stats| stats.mapped_bytes),
    ("used_bytes", |stats| stats.used_bytes),
    ("free_bytes", |stats| stats.free_bytes),
    ("dirty_bytes", |stats| stats.dirty_bytes),
    ("kept_bytes", |stats| stats.kept_bytes),
    ("given_back_bytes", |stats| stats.given_back_bytes),
    ("moved_bytes", |stats| stats.moved_bytes),
    ("lost_at_fork", |stats| stats.lost_at_fork),
];

/// Those that the system tells.
pub(crate) const SYSTEM_NUMBERS: [Number<SystemStats>; 6] = [
    ("resident_bytes", |system| system.resident_bytes),
    ("huge_bytes", |system| system.huge_bytes),
    ("locked_bytes", |system| system.locked_bytes),
    ("swapped_bytes", |system| system.swapped_bytes),
    ("mappings", |system| system.mappings),
    ("faults", |system| system.faults as usize),
];

/// The number of this name, summed over all heaps of the process. Its faults are counted once.
pub(crate) fn number(name: &str) -> Option<u64> {
    if name == "limit_bytes" {
        let limits = ctl::all().map(|heap| heap.own_stats().limit_bytes.map_or(u64::MAX, |bytes| bytes as u64));
        return Some(limits.reduce(u64::saturating_add).unwrap_or(u64::MAX));
    }
    if name == "faults" {
        return Some(proc::faults());
    }
    if let Some((_, number)) = NUMBERS.iter().find(|(other, _)| *other == name) {
        return Some(ctl::all().map(|heap| number(&heap.own_stats()) as u64).sum());
    }
    let (_, number) = SYSTEM_NUMBERS.iter().find(|(other, _)| *other == name)?;
    ctl::all().try_fold(0, |sum, heap| Some(sum + number(&heap.stats().system?) as u64))
}

impl Stats {
    /// Asks the system about the heap in this reservation.
    pub(crate) fn look_at(&mut self, reservation: Reservation) {
        self.system = SystemStats::of(reservation.addresses());
    }
}

impl SystemStats {
    fn of(heap: Range<usize>) -> Option<Self> {
        let mut stats = Self { faults: proc::faults(), ..Self::default() };
        let mut lines = Lines::open(c"/proc/self/smaps")?;
        let mut inside = false;
        while let Some(line) = lines.next() {
            if let Some(mapping) = mapping(line) {
                inside = mapping.start < heap.end && heap.start < mapping.end;
                stats.mappings += usize::from(inside);
                continue;
            }
            if !inside {
                continue;
            }
            let Some((name, bytes)) = field(line) else { continue };
            match name {
                b"Rss" => stats.resident_bytes += bytes,
                b"AnonHugePages" => stats.huge_bytes += bytes,
                b"Private_Hugetlb" => {
                    stats.huge_bytes += bytes;
                    stats.resident_bytes += bytes;
                }
                b"Locked" => stats.locked_bytes += bytes,
                b"Swap" => stats.swapped_bytes += bytes,
                _ => {}
            }
        }
        Some(stats)
    }
}

/// The addresses of a mapping, if this is the line that begins one: `7f00-7f40 rw-p …`.
fn mapping(line: &[u8]) -> Option<Range<usize>> {
    let word = line.split(|&byte| byte == b' ').next()?;
    let mut ends = word.split(|&byte| byte == b'-').map(|digits| {
        let text = str::from_utf8(digits).ok()?;
        usize::from_str_radix(text, 16).ok()
    });
    let (start, end) = (ends.next()??, ends.next()??);
    Some(start..end)
}

/// A name and its bytes: `Rss:   12 kB`.
fn field(line: &[u8]) -> Option<(&[u8], usize)> {
    let (name, rest) = line.split_at(line.iter().position(|&byte| byte == b':')?);
    let kib = str::from_utf8(&rest[1..]).ok()?.trim().strip_suffix("kB")?;
    Some((name, kib.trim().parse::<usize>().ok()? << 10))
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "memory     {:>10.2} MiB, {:.2} mapped", mib(self.memory_bytes), mib(self.mapped_bytes))?;
        writeln!(
            f,
            "used       {:>10.2} MiB, {:.2} kept for the next of its size",
            mib(self.used_bytes),
            mib(self.kept_bytes)
        )?;
        writeln!(f, "free       {:>10.2} MiB, {:.2} of it dirty", mib(self.free_bytes), mib(self.dirty_bytes))?;
        write!(f, "given back {:>10.2} MiB; {:.2} moved", mib(self.given_back_bytes), mib(self.moved_bytes))?;
        if let Some(limit) = self.limit_bytes {
            write!(f, "\nlimit      {:>10.2} MiB", mib(limit))?;
        }
        if self.lost_at_fork != 0 {
            write!(f, "\nlost       {:>10} objects at a fork", self.lost_at_fork)?;
        }
        let Some(system) = self.system else { return Ok(()) };
        writeln!(f)?;
        write!(f, "resident   {:>10.2} MiB, {:.2} in huge pages", mib(system.resident_bytes), mib(system.huge_bytes))?;
        write!(f, ", {:.2} locked, {:.2} swapped", mib(system.locked_bytes), mib(system.swapped_bytes))?;
        write!(f, "; {} mappings; {} faults", system.mappings, system.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_smaps_are_understood() {
        assert_eq!(mapping(b"7f0000001000-7f0000003000 rw-p 00000000 00:00 0 "), Some(0x7f0000001000..0x7f0000003000));
        assert_eq!(mapping(b"Rss:                  12 kB"), None);
        assert_eq!(mapping(b"VmFlags: rd wr mr mw me ac sd"), None);
        assert_eq!(field(b"AnonHugePages:      2048 kB"), Some((&b"AnonHugePages"[..], 2 << 20)));
        assert_eq!(field(b"THPeligible:           0"), None);
        assert_eq!(field(b""), None);
    }

    #[test]
    fn the_text_says_what_there_is() {
        let mut stats = Stats { memory_bytes: 64 << 20, used_bytes: 3 << 19, dirty_bytes: 1 << 20, ..Stats::default() };
        let text = stats.to_string();
        assert!(text.contains("memory          64.00 MiB") && text.contains("used             1.50 MiB"), "{text}");
        assert!(!text.contains("resident"), "{text}");
        stats.system = Some(SystemStats { huge_bytes: 2 << 20, faults: 77, ..SystemStats::default() });
        assert!(stats.to_string().contains("2.00 in huge pages") && stats.to_string().contains("77 faults"));
    }
}
