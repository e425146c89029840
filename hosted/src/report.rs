//! The account of every heap of a process, as text and as JSON, put together without allocating.

use std::fmt::{self, Write};

use pagemill::{HeapReport, NodeId, NumaCounts, SizeClass};

use crate::ctl::{self, Control};
use crate::options::{Format, options};
use crate::print::Print;
use crate::stats::{NUMBERS, SYSTEM_NUMBERS, Stats};

/// What there is on one node.
#[derive(Clone, Copy, Default)]
pub(crate) struct NodeAccount {
    pub(crate) managed_bytes: usize,
    pub(crate) free_bytes: usize,
    pub(crate) counts: NumaCounts,
}

/// Writes the account of every heap that the process has used: one table after another, or one line of JSON.
///
/// Both are made while the heaps are at work, so that sums may be off by what moves meanwhile. It looks at every slab,
/// and reads `/proc/self/smaps`; nothing is allocated.
///
/// ```
/// use pagemill_hosted::{Format, Pagemill};
///
/// #[global_allocator]
/// static A: Pagemill = Pagemill::new();
///
/// let mut text = String::with_capacity(1 << 14);
/// pagemill_hosted::write_report(&mut text, Format::Text)?;
/// assert!(text.contains("at level checked"));
/// # std::fmt::Result::Ok(())
/// ```
///
/// The JSON is one object. What is in it stays; more may be added.
///
/// ```text
/// {"pagemill": "0.1.0", "process": 4711, "heaps": [{
///   "level": "checked", "with_handlers": false,
///   "limit_bytes": null, "memory_bytes": …, "mapped_bytes": …, "used_bytes": …, "free_bytes": …, "dirty_bytes": …,
///   "kept_bytes": …, "given_back_bytes": …, "moved_bytes": …, "lost_at_fork": 0,
///   "lent_bytes": …, "slab_bytes": …, "descriptor_bytes": …,
///   "system": {"resident_bytes": …, "huge_bytes": …, "locked_bytes": …, "swapped_bytes": …, "mappings": …, "faults": …},
///   "nodes": [{"node": 0, "managed_bytes": …, "free_bytes": …, "numa_hit": …, "numa_miss": …, …}],
///   "classes": [{"bytes": 16, "live": …, "free": …, "pooled": …, "depot": …, "slots": …, "slabs": …, "slab_bytes": …}, …]
/// }]}
/// ```
///
/// `system` is null where the system does not tell. Numbers named `bytes` are [`Stats`] and
/// [`SystemStats`](crate::SystemStats); a class's are objects.
///
/// # Errors
/// If `to` answers one.
pub fn write_report(to: &mut dyn Write, format: Format) -> fmt::Result {
    write_heaps(to, format, ctl::all())
}

/// The same of these heaps.
pub(crate) fn write_heaps<'a>(
    to: &mut dyn Write,
    format: Format,
    heaps: impl Iterator<Item = &'a dyn Control>,
) -> fmt::Result {
    match format {
        Format::Text => heaps.into_iter().try_for_each(|heap| text(to, heap)),
        Format::Json => {
            let (version, process) = (env!("CARGO_PKG_VERSION"), std::process::id());
            write!(to, "{{\"pagemill\":\"{version}\",\"process\":{process},\"heaps\":[")?;
            for (place, heap) in heaps.enumerate() {
                to.write_str(if place == 0 { "" } else { "," })?;
                json(to, heap)?;
            }
            to.write_str("]}\n")
        }
    }
}

/// Writes what `stats_print` asks for.
pub(crate) fn at_exit() {
    // A heap that was never used has nothing to tell, and has read no options.
    if ctl::all().next().is_none() {
        return;
    }
    if let Some(format) = options().stats_print() {
        let mut to = Print::to_errors();
        // An error output that is closed cannot be told anything.
        let _ = write_report(&mut to, format);
    }
}

fn text(to: &mut dyn Write, heap: &dyn Control) -> fmt::Result {
    let (level, with_handlers) = heap.level();
    let handlers = if with_handlers { " with handlers" } else { "" };
    let (version, process) = (env!("CARGO_PKG_VERSION"), std::process::id());
    writeln!(to, "pagemill {version}, the heap of process {process} at level {level}{handlers}")?;
    writeln!(to, "{}", heap.stats())?;
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    for (node, account) in nodes(heap) {
        let NodeAccount { managed_bytes, free_bytes, counts } = account;
        write!(to, "node {node:<6}{:>10.2} MiB, {:.2} free", mib(managed_bytes), mib(free_bytes))?;
        writeln!(to, "; {} hits, {} misses, {} foreign", counts.numa_hit, counts.numa_miss, counts.numa_foreign)?;
    }
    writeln!(to, "{}", heap.slabs())
}

fn json(to: &mut dyn Write, heap: &dyn Control) -> fmt::Result {
    let (level, with_handlers) = heap.level();
    write!(to, "{{\"level\":\"{level}\",\"with_handlers\":{with_handlers}")?;
    let stats = heap.stats();
    json_stats(to, &stats)?;
    let slabs = heap.slabs();
    let slab_bytes: usize =
        SizeClass::all().map(|class| slabs.slab_bytes(class) * slabs.census().class(class).slabs).sum();
    fields(
        to,
        &[
            ("lent_bytes", slabs.census().lent_bytes()),
            ("slab_bytes", slab_bytes),
            ("descriptor_bytes", slabs.census().descriptor_bytes),
        ],
    )?;
    to.write_str(",\"nodes\":[")?;
    for (node, account) in nodes(heap) {
        write!(to, "{}{{\"node\":{node}", if node == 0 { "" } else { "," })?;
        fields(to, &[("managed_bytes", account.managed_bytes), ("free_bytes", account.free_bytes)])?;
        let counts = account.counts;
        fields(
            to,
            &[
                ("numa_hit", counts.numa_hit as usize),
                ("numa_miss", counts.numa_miss as usize),
                ("numa_foreign", counts.numa_foreign as usize),
                ("interleave_hit", counts.interleave_hit as usize),
                ("local_node", counts.local_node as usize),
                ("other_node", counts.other_node as usize),
            ],
        )?;
        to.write_char('}')?;
    }
    to.write_str("],\"classes\":[")?;
    json_classes(to, &slabs)?;
    to.write_str("]}")
}

fn json_stats(to: &mut dyn Write, stats: &Stats) -> fmt::Result {
    match stats.limit_bytes {
        Some(limit) => write!(to, ",\"limit_bytes\":{limit}")?,
        None => to.write_str(",\"limit_bytes\":null")?,
    }
    for (name, number) in &NUMBERS {
        write!(to, ",\"{name}\":{}", number(stats))?;
    }
    let Some(system) = &stats.system else { return to.write_str(",\"system\":null") };
    to.write_str(",\"system\":{")?;
    for (place, (name, number)) in SYSTEM_NUMBERS.iter().enumerate() {
        write!(to, "{}\"{name}\":{}", if place == 0 { "" } else { "," }, number(system))?;
    }
    to.write_char('}')
}

fn json_classes(to: &mut dyn Write, slabs: &HeapReport) -> fmt::Result {
    let mut separator = "";
    for class in SizeClass::all() {
        let count = slabs.census().class(class);
        if count.slabs == 0 {
            continue;
        }
        write!(to, "{separator}{{\"bytes\":{}", class.bytes())?;
        separator = ",";
        fields(
            to,
            &[
                ("live", count.lent()),
                ("free", count.free),
                ("pooled", count.pooled),
                ("depot", count.depot),
                ("quarantined", count.quarantined),
                ("slots", count.slots),
                ("slabs", count.slabs),
                ("slab_bytes", count.slabs * slabs.slab_bytes(class)),
            ],
        )?;
        to.write_char('}')?;
    }
    Ok(())
}

/// Numbers that follow others in an object.
fn fields(to: &mut dyn Write, fields: &[(&str, usize)]) -> fmt::Result {
    fields.iter().try_for_each(|(name, value)| write!(to, ",\"{name}\":{value}"))
}

fn nodes(heap: &dyn Control) -> impl Iterator<Item = (usize, NodeAccount)> {
    (0u32..).map_while(|node| Some((node as usize, heap.node(NodeId::new(node)?)?)))
}
