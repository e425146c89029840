//! pagemill on this machine: from the tables that boot read to an allocator that serves all CPUs.
//!
//! This is what a kernel has to do to embed the frame core, in the order in which it has to be done:
//!
//! 1. cut each node's memory into zones ([`zone_map`](crate::zone_map));
//! 2. place metadata, each node's on that node, while there still is early memory;
//! 3. end early memory: what it has dealt out is reserved now, the metadata included;
//! 4. add the pieces, all but what is reserved;
//! 5. say which CPU is where and how far nodes are apart, set the marks, and hang in the hooks.
//!
//! Whatever fails is reported on the serial line and left out. Only a machine without any room for metadata ends
//! without an allocator.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use pagemill::{CpuId, FrameCount, FrameSpan, Frames, FreeError, Metadata, NodeId, Pfn, SetupError};
use spin::Once;

use crate::early::{EarlyError, MAX_RESERVATIONS, Owner};
use crate::memory_map::{FRAME_BYTES, PhysRange};
use crate::percpu::{self, Bare};
use crate::topology::Topology;
use crate::zone_map::{MAX_PIECES, Piece, pieces, span_of};
use crate::{harness, machine, physical, println, smp};

/// The machine's allocator. It has no frame before [`init`].
pub static FRAMES: Frames<'static, Bare> = Frames::new();

/// What became of the machine's memory.
#[derive(Clone, Copy, Default, Debug)]
pub struct Handover {
    /// Pieces that the allocator manages.
    pub pieces: usize,
    /// Pieces that it could not be given.
    pub left_out: usize,
    /// Pieces whose metadata lies on another node, because theirs had no room.
    pub far_metadata: usize,
    /// Other things that went wrong.
    pub problems: usize,
}

impl Handover {
    fn problem(&mut self, what: impl core::fmt::Display) {
        println!("frames: {what}");
        self.problems += 1;
    }
}

/// Gives [`FRAMES`] all memory that nobody has taken, with its nodes, CPUs, marks and hooks. Works once; later calls
/// answer what the first one did.
///
/// The word `movable=N` on the command line keeps node N's memory above 4 GiB for what can be moved.
pub fn init() -> Handover {
    static DONE: Once<Handover> = Once::new();
    *DONE.call_once(|| {
        let done = hand_over(&FRAMES, &machine::get().topology);
        static FAULT: fn(FreeError) = report_fault;
        static LOW: fn(NodeId) = report_low;
        FRAMES.set_fault_hook(&FAULT);
        FRAMES.set_low_hook(&LOW);
        // On every CPU, the machine's allocator is the one that should be nearest.
        smp::on_all(&|_| {
            FRAMES.settle();
        });
        // What one CPU asks of the others (give back what lies idle) is done where they are idle, and when kicked.
        smp::add_idle_hook(|| FRAMES.poll());
        done
    })
}

/// The frames from the first of the machine's memory to the last.
pub fn span() -> Option<FrameSpan> {
    let movable = harness::option("movable").and_then(|node| node.parse().ok());
    hull(&pieces(machine::get().topology.memory(), movable))
}

/// Wrong frees since boot, each of which was refused and reported.
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// How often a node was found below its low mark.
pub fn low_calls() -> u64 {
    LOW_CALLS.load(Ordering::Relaxed)
}

// Relaxed: counts that order nothing.
static FAULTS: AtomicU64 = AtomicU64::new(0);
static LOW_CALLS: AtomicU64 = AtomicU64::new(0);

/// A wrong free is somebody's mistake: the line says whose frame, and nothing has changed.
fn report_fault(error: FreeError) {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    println!("frames: CPU {}: {error}", percpu::cpu());
}

/// Here a kernel would wake the thread that reclaims.
fn report_low(_: NodeId) {
    LOW_CALLS.fetch_add(1, Ordering::Relaxed);
}

fn hand_over(frames: &Frames<'static, Bare>, topology: &Topology) -> Handover {
    let mut done = Handover::default();
    let movable = harness::option("movable").and_then(|node| node.parse().ok());
    let pieces = pieces(topology.memory(), movable);
    let Some(hull) = hull(&pieces) else {
        done.problem("there is no memory");
        return done;
    };
    if let Err(error) = found(frames, topology, &pieces, hull) {
        done.left_out = pieces.len();
        done.problem(error);
        return done;
    }
    let mut places = [const { None }; MAX_PIECES];
    for (piece, place) in pieces.iter().zip(&mut places) {
        *place = metadata_for(piece, topology, &mut done);
    }
    // What is free from here on is the allocator's.
    if let Err(error) = physical::retire() {
        done.problem(format_args!("early memory cannot end: {error:?}"));
    }
    let reserved = reserved_spans();
    for (piece, place) in pieces.iter().zip(places) {
        let Some((span, metadata)) = piece.span().zip(place) else { continue };
        match frames.add_memory(node(piece.node), piece.kind, span, &reserved, Metadata::new(metadata)) {
            Ok(()) => done.pieces += 1,
            Err(error) => {
                done.left_out += 1;
                done.problem(format_args!("{} is left out: {error}", piece.range));
            }
        }
    }
    describe(frames, topology, &mut done);
    frames.set_default_watermarks();
    done
}

/// Why an instance could not even begin.
enum Unfounded {
    Early(EarlyError),
    Setup(SetupError),
}

impl core::fmt::Display for Unfounded {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Early(error) => write!(f, "no memory for the allocator itself: {error:?}"),
            Self::Setup(error) => write!(f, "the allocator cannot begin: {error}"),
        }
    }
}

/// Makes the instance one of this machine's CPUs and nodes, still without memory.
fn found(
    frames: &Frames<'static, Bare>,
    topology: &Topology,
    pieces: &[Piece],
    hull: FrameSpan,
) -> Result<(), Unfounded> {
    let (cpus, nodes) = (percpu::online() as usize, topology.node_count());
    let bytes = Frames::<Bare>::base_metadata_size(hull, cpus, nodes) as u64;
    let boot_node = percpu::node();
    let here = pieces.iter().rev().filter(|piece| piece.node == boot_node).map(|piece| piece.range);
    let block = early(bytes, here).map_err(Unfounded::Early)?;
    frames.init(hull, cpus, nodes, Metadata::new(block.into_bytes())).map_err(Unfounded::Setup)
}

/// The bytes in which a piece is described: on its own node, at best the highest of it, else wherever there is room.
fn metadata_for(piece: &Piece, topology: &Topology, done: &mut Handover) -> Option<&'static mut [MaybeUninit<u8>]> {
    let bytes = Frames::<Bare>::memory_metadata_size(piece.span()?) as u64;
    let near = topology.memory().iter().rev().filter(|memory| memory.node == piece.node).map(|memory| memory.range);
    match early(bytes, near) {
        Ok(block) => {
            let is_near = topology
                .memory()
                .iter()
                .any(|memory| memory.node == piece.node && memory.range.contains(block.range()));
            done.far_metadata += usize::from(!is_near);
            Some(block.into_bytes())
        }
        Err(error) => {
            done.left_out += 1;
            done.problem(format_args!("{} is left out: no room for {bytes} bytes of metadata: {error:?}", piece.range));
            None
        }
    }
}

/// Early memory for metadata from the first of these ranges that has room, else from any.
fn early(bytes: u64, near: impl Iterator<Item = PhysRange>) -> Result<physical::EarlyBlock, EarlyError> {
    let mut error = EarlyError::NoMemory;
    for within in near.chain([PhysRange::ALL]) {
        match physical::alloc(bytes, FRAME_BYTES, within, Owner::Metadata) {
            Ok(block) => return Ok(block),
            Err(other) => error = other,
        }
    }
    Err(error)
}

/// Says which CPU is where, and how far nodes are apart.
fn describe(frames: &Frames<'static, Bare>, topology: &Topology, done: &mut Handover) {
    for cpu in 0..percpu::online() {
        let home = percpu::area(cpu).map_or(0, percpu::PerCpu::node);
        if let Err(error) = frames.set_cpu_node(CpuId::new(cpu), node(home)) {
            done.problem(error);
        }
    }
    let nodes = topology.node_count();
    for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        if let Err(error) = frames.set_distance(node(from), node(to), topology.distance(from, to)) {
            done.problem(error);
        }
    }
}

/// From the first frame of all pieces to the last.
fn hull(pieces: &[Piece]) -> Option<FrameSpan> {
    let start = pieces.iter().map(|piece| piece.range.start()).min()?;
    let end = pieces.iter().map(|piece| piece.range.end()).max()?;
    span_of(PhysRange::new(start, end)?)
}

/// What is reserved, as pagemill counts frames. Places that are left over name frame 0, which is nobody's.
fn reserved_spans() -> [FrameSpan; MAX_RESERVATIONS] {
    const FRAME_ZERO: FrameSpan = match FrameSpan::new(Pfn::new(0), FrameCount::new(1)) {
        Ok(span) => span,
        Err(_) => unreachable!(),
    };
    let mut spans = [FRAME_ZERO; MAX_RESERVATIONS];
    let reservations = physical::reservations();
    for (place, span) in spans.iter_mut().zip(reservations.iter().filter_map(|taken| span_of(taken.range))) {
        *place = span;
    }
    spans
}

fn node(index: usize) -> NodeId {
    NodeId::new(index as u32).unwrap_or_default()
}
