//! What whoever starts a program wants of its heap: `PAGEMILL_CONF="name:value,name:value"`, read once, and changed at
//! run time where that can be.
//!
//! ```text
//! parse       values as text, and back
//! error       an option that cannot be had, in one line
//! environment [unsafe] the variable, found without the C library's help
//! ```
//!
//! It is read by the first request of the process, which may come before `main` and before the C library is ready. So
//! nothing here allocates or waits.

mod environment;
mod error;
mod parse;

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

pub use error::OptionError;
use error::Refusal;

use crate::balloon::LimitError;
use crate::ctl::{self, Control};
use crate::huge::HugePages;
use crate::nodes;
use crate::print::Print;

/// What is said at the end of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A table for people.
    Text,
    /// One line for machines.
    Json,
}

/// A level as an option names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChosenLevel {
    /// [`Fast`](crate::Fast).
    Fast,
    /// [`Checked`](crate::Checked).
    Checked,
    /// [`Hardened`](crate::Hardened).
    Hardened,
}

/// How much memory gets its pages before it is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefault {
    /// None: each page comes with its first touch.
    Off,
    /// As much as the heap has grown lately, once it is no longer small.
    Auto,
    /// So many bytes at a time.
    Bytes(usize),
}

/// Which nodes the heap's memory comes from, by the system's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NumaChoice {
    /// The node of the CPU that touches a page first.
    Local,
    /// All nodes in turn, page by page.
    Interleave,
    /// This node alone.
    Bind(u32),
    /// This node while it has memory.
    Preferred(u32),
}

/// The options' places, in the order of [`parse::ENTRIES`].
#[derive(Clone, Copy)]
enum Name {
    StatsPrint,
    DecayMs,
    DirtyShare,
    BackgroundThread,
    Thp,
    Prefault,
    Reserve,
    Limit,
    Numa,
    Level,
    Abort,
    Prof,
    ProfSample,
    ProfPrefix,
    ProfSignal,
    LeakReport,
}

/// The bytes of the longest path for [`Options::prof_prefix`].
pub(crate) const PREFIX_BYTES: usize = 256;

/// A path, copied out of the options.
#[derive(Clone, Copy)]
pub struct Prefix {
    bytes: [u8; PREFIX_BYTES],
    len: usize,
}

impl Prefix {
    /// The path as it was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What the process was asked for. There is one: [`options`].
pub struct Options {
    state: AtomicU8,
    values: [AtomicUsize; parse::COUNT],
    prefix: [AtomicU8; PREFIX_BYTES],
}

/// Nobody has read them yet; somebody has and is about to say so; they are there.
const UNREAD: u8 = 0;
const STORING: u8 = 1;
const READ: u8 = 2;

static OPTIONS: Options = Options::new();

/// The options of the process: what `PAGEMILL_CONF` says, and what was [set](Options::set) since. Each that is not
/// named has its default; each that is not understood is a line on the error output, once, and has its default too.
///
/// ```
/// use pagemill_hosted::options;
///
/// // As `PAGEMILL_CONF="dirty_share:1/4"` from now on.
/// options().set("dirty_share", "1/4").expect("an option that can be changed");
/// assert_eq!(options().dirty_per_mille(), 250);
/// let error = options().set("limit", "much").unwrap_err();
/// assert_eq!(error.to_string(), "option `limit` is `much`, expected bytes as 512m, or none");
/// ```
///
/// The variable is read by the first call, which the heap makes before its first request is served. It is not read in a
/// program with more rights than who started it.
#[inline]
pub fn options() -> &'static Options {
    // Acquire: pairs with the Release of who has stored what was read.
    if OPTIONS.state.load(Ordering::Acquire) != READ {
        OPTIONS.read_environment();
    }
    &OPTIONS
}

/// Writes a line on what cannot be had.
fn complain(error: OptionError) {
    let mut line = Print::to_errors();
    line.line(format_args!("pagemill: PAGEMILL_CONF: {error}"));
}

impl Options {
    const fn new() -> Self {
        let mut values = [const { AtomicUsize::new(0) }; parse::COUNT];
        let mut place = 0;
        while place < parse::COUNT {
            values[place] = AtomicUsize::new(parse::ENTRIES[place].default);
            place += 1;
        }
        Self { state: AtomicU8::new(UNREAD), values, prefix: [const { AtomicU8::new(0) }; PREFIX_BYTES] }
    }

    /// Everybody who finds them unread reads them, and the first to be done stores them. Nobody waits for whom he may
    /// have interrupted: the others go on after a while, with what is there.
    #[cold]
    fn read_environment(&self) {
        environment::with(|text| self.read_first(text));
    }

    fn read_first(&self, text: &[u8]) {
        if self.state.compare_exchange(UNREAD, STORING, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            for _ in 0..1000 {
                if self.state.load(Ordering::Acquire) == READ {
                    return;
                }
                std::thread::yield_now();
            }
            return;
        }
        self.read(text, |_| ());
        self.state.store(READ, Ordering::Release);
        // Only now, since whoever reads the lines may be a program with this heap.
        if !text.is_empty() {
            Self::new().read(text, complain);
        }
    }

    /// Takes over what a text says, and tells what of it cannot be.
    fn read(&self, text: &[u8], mut complain: impl FnMut(OptionError)) {
        for item in text.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty()) {
            let mut parts = item.splitn(2, |&byte| byte == b':');
            let name = parts.next().unwrap_or(b"").trim_ascii();
            let stored = match parts.next() {
                Some(value) => self.store(name, value.trim_ascii()).map(|_| ()),
                None => Err(OptionError::without_value(name)),
            };
            if let Err(error) = stored {
                complain(error);
            }
        }
    }

    /// Stores one value; answers its place.
    fn store(&self, name: &[u8], value: &[u8]) -> Result<usize, OptionError> {
        let place = parse::place(name).ok_or_else(|| OptionError::unknown(name))?;
        let entry = &parse::ENTRIES[place];
        let parsed = (entry.parse)(value).ok_or_else(|| OptionError::bad(entry, value))?;
        if place == Name::ProfPrefix as usize {
            self.prefix.iter().zip(value).for_each(|(to, &from)| to.store(from, Ordering::Relaxed));
        }
        // Relaxed, here and wherever one is read: each is a number that nothing else hangs on.
        self.values[place].store(parsed, Ordering::Relaxed);
        Ok(place)
    }

    /// Changes an option from now on, in every heap of the process: `options().set("dirty_share", "1/4")`. What is read
    /// once cannot be changed: `reserve`, `numa`, `level`, `prof_prefix` and `prof_signal`.
    ///
    /// Allocates nothing, but a thread in the background that is started.
    ///
    /// # Errors
    /// [`OptionError`] if there is no such option, if the value is none for it, if it cannot be changed, if more memory
    /// is in use than a limit, or if the system has no thread to spare. Then the option has its old value.
    pub fn set(&self, name: &str, value: &str) -> Result<(), OptionError> {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let place = parse::place(name).ok_or_else(|| OptionError::unknown(name))?;
        let entry = &parse::ENTRIES[place];
        if !entry.can_change {
            return Err(OptionError::fixed(entry));
        }
        let before = self.values[place].load(Ordering::Relaxed);
        self.store(name, value)?;
        #[cfg(feature = "profile")]
        if [Name::Prof as usize, Name::ProfSample as usize, Name::LeakReport as usize].contains(&place) {
            crate::profile::follow_changed_options();
        }
        let applied = ctl::all().try_for_each(|heap| self.apply(place, heap));
        applied.map_err(|why| {
            self.values[place].store(before, Ordering::Relaxed);
            OptionError::refused(entry, why)
        })
    }

    /// Has a heap follow an option that has changed, if it does not look by itself.
    fn apply(&self, place: usize, heap: &'static dyn Control) -> Result<(), Refusal> {
        if place == Name::Limit as usize {
            heap.set_limit(self.get(Name::Limit)).map_err(Refusal::Limit)?;
        } else if place == Name::Thp as usize {
            heap.set_huge_pages(self.thp());
        } else if [Name::BackgroundThread as usize, Name::DecayMs as usize].contains(&place) {
            if !self.background_thread() && place == Name::DecayMs as usize {
                // A thread that the program has started by itself keeps its period.
                return Ok(());
            }
            let period = if self.background_thread() { self.decay() } else { Duration::ZERO };
            let started = heap.set_background(period);
            started.map_err(|error| Refusal::System(error.raw_os_error().unwrap_or(0)))?;
        }
        Ok(())
    }

    /// Gives up what `numa` asks for if the process may have no memory there, and says so.
    pub(crate) fn check_nodes(&self) {
        if !nodes::are_there(self.numa()) {
            complain(OptionError::refused(&parse::ENTRIES[Name::Numa as usize], Refusal::NoNode));
            self.values[Name::Numa as usize].store(0, Ordering::Relaxed);
        }
    }

    /// Writes a line on a limit that was asked for and cannot be kept.
    pub(crate) fn complain_of_limit(&self, error: LimitError) {
        complain(OptionError::refused(&parse::ENTRIES[Name::Limit as usize], Refusal::Limit(error)));
    }

    /// Writes the value of an option as `PAGEMILL_CONF` would name it.
    ///
    /// # Errors
    /// [`OptionError`] if there is no such option. What `to` answers is not looked at.
    pub fn write(&self, name: &str, to: &mut dyn fmt::Write) -> Result<(), OptionError> {
        let place = parse::place(name.as_bytes()).ok_or_else(|| OptionError::unknown(name.as_bytes()))?;
        let written = if place == Name::ProfPrefix as usize {
            write!(to, "{}", self.prof_prefix().as_bytes().escape_ascii())
        } else {
            (parse::ENTRIES[place].show)(self.values[place].load(Ordering::Relaxed), to)
        };
        // A writer that has no room has what it has room for.
        let _ = written;
        Ok(())
    }

    fn get(&self, name: Name) -> usize {
        self.values[name as usize].load(Ordering::Relaxed)
    }

    fn is_on(&self, name: Name) -> bool {
        self.get(name) != 0
    }

    /// `stats_print`: whether statistics are written to the error output at exit, and how.
    pub fn stats_print(&self) -> Option<Format> {
        match self.get(Name::StatsPrint) {
            0 => None,
            1 => Some(Format::Text),
            _ => Some(Format::Json),
        }
    }

    /// `decay_ms`: how often the thread in the background looks for what should go back.
    pub fn decay(&self) -> Duration {
        Duration::from_millis(self.get(Name::DecayMs) as u64)
    }

    /// `dirty_share`: of a thousand bytes in use, how many more may be free and have pages behind them.
    pub fn dirty_per_mille(&self) -> usize {
        self.get(Name::DirtyShare)
    }

    /// `background_thread`: whether there shall be one.
    pub fn background_thread(&self) -> bool {
        self.is_on(Name::BackgroundThread)
    }

    /// `thp`: which pages there should be behind memory.
    pub fn thp(&self) -> HugePages {
        HugePages::of_number(self.get(Name::Thp) as u8)
    }

    /// `prefault`: how much memory gets its pages before it is touched.
    pub fn prefault(&self) -> Prefault {
        match self.get(Name::Prefault) {
            0 => Prefault::Off,
            usize::MAX => Prefault::Auto,
            bytes => Prefault::Bytes(bytes),
        }
    }

    /// `reserve`: bytes of address space for objects; `None` is as much as may be.
    pub fn reserve(&self) -> Option<usize> {
        Some(self.get(Name::Reserve)).filter(|&bytes| bytes != 0)
    }

    /// `limit`: the most bytes for objects, as [`Pagemill::set_limit`](crate::Pagemill::set_limit) has it; `None` is no
    /// limit.
    pub fn limit(&self) -> Option<usize> {
        Some(self.get(Name::Limit)).filter(|&bytes| bytes != usize::MAX)
    }

    /// `numa`: which nodes memory comes from.
    pub fn numa(&self) -> NumaChoice {
        parse::numa_of(self.get(Name::Numa))
    }

    /// `level`: how the C library checks. A Rust program names its level by a type, and nothing follows from this
    /// there.
    pub fn level(&self) -> ChosenLevel {
        match self.get(Name::Level) {
            0 => ChosenLevel::Fast,
            1 => ChosenLevel::Checked,
            _ => ChosenLevel::Hardened,
        }
    }

    /// `abort`: whether a wrong free ends the process, once its line is written. If not, it is ignored.
    pub fn abort(&self) -> bool {
        self.is_on(Name::Abort)
    }

    /// `prof`: whether the heap is profiled.
    pub fn prof(&self) -> bool {
        self.is_on(Name::Prof)
    }

    /// `prof_sample`: bytes from one sampled object to the next, in the mean.
    pub fn prof_sample(&self) -> usize {
        self.get(Name::ProfSample)
    }

    /// `prof_prefix`: where profiles go; what tells them apart is appended.
    pub fn prof_prefix(&self) -> Prefix {
        const DEFAULT: &[u8] = b"pagemill";
        let mut prefix = Prefix { bytes: [0; PREFIX_BYTES], len: self.get(Name::ProfPrefix) };
        if prefix.len == 0 {
            prefix.bytes[..DEFAULT.len()].copy_from_slice(DEFAULT);
            prefix.len = DEFAULT.len();
        } else {
            prefix.bytes.iter_mut().zip(&self.prefix).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
        }
        prefix
    }

    /// `prof_signal`: the signal at which a profile is written; `None` is none.
    pub fn prof_signal(&self) -> Option<i32> {
        Some(self.get(Name::ProfSignal) as i32).filter(|&number| number != 0)
    }

    /// `leak_report`: whether what was never freed is listed at exit.
    pub fn leak_report(&self) -> bool {
        self.is_on(Name::LeakReport)
    }
}

#[cfg(test)]
mod tests;
