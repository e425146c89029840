//! Who has the memory: a profile of what is lent, by samples.
//!
//! ```text
//! sampler   is told of samples by the heap, and keeps count
//! samples   those that are lent, by address             words  [unsafe] memory for both
//! stacks    where they came from
//! capture   [unsafe] the stack of the caller           rules  [unsafe] from a frame to its caller
//! pprof     the file: proto, gzip; maps, elf, names: what addresses mean
//! leaks     the same as text
//! signal    [unsafe] a file whenever a signal comes
//! ```
//!
//! While the program runs a sample costs a walk up the stack and an entry in a table; what code is called is looked up
//! when somebody wants to see it.

mod capture;
mod elf;
mod gzip;
mod leaks;
mod maps;
mod names;
mod pprof;
mod proto;
#[cfg(target_arch = "x86_64")]
mod rules;
mod sampler;
mod samples;
mod signal;
mod stacks;
mod words;

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use lock_api::Mutex;
use pagemill::SampleHook;

use crate::ctl;
use crate::lock::HostedLock;
use crate::options::options;
use crate::print::Print;
use sampler::Inside;

pub(crate) use sampler::{after_fork, before_fork};

/// The profile of the process, over all its heaps: [`profile`].
///
/// ```no_run
/// use pagemill_hosted::profile;
///
/// profile().start(512 << 10)?;
/// // … the program does its work …
/// profile().dump("before.pb.gz")?;
/// // … and more …
/// profile().dump("after.pb.gz")?;
/// # std::io::Result::Ok(())
/// ```
///
/// A file is what `pprof` and the tools around it read: objects and bytes of all requests, and of what is not yet
/// freed, by the stack that asked, with the names of functions. All are estimates: of many small objects one is a
/// sample, and stands for the others. With a mean of 512 KiB, 50 MiB from one place are told to within a tenth, mostly;
/// 50 KiB may not be there at all.
///
/// A copy by `fork` has the profile that there was, and goes on with it. The loader's lock is lost to a copy of a
/// process with several threads, so a file of its own has functions without lines there, and a sample costs five times
/// as much.
///
/// The level [`Fast`](crate::Fast) has nothing by which a free would know a sample, so objects of up to 32 KiB are
/// not in its profile.
pub struct Profile {
    /// What a file at the end is called. Whoever has the lock, here and below, only copies a reference: who allocated
    /// with it could be waiting for a fork, whose child would find it locked for ever.
    at_exit: Mutex<HostedLock, Option<&'static Path>>,
    on_signal: Mutex<HostedLock, Option<&'static Path>>,
    leaks_at_exit: AtomicU32,
    /// Files so far.
    files: AtomicU32,
}

static PROFILE: Profile = Profile {
    at_exit: Mutex::new(None),
    on_signal: Mutex::new(None),
    leaks_at_exit: AtomicU32::new(0),
    files: AtomicU32::new(0),
};

/// Whether the process is a copy of one with several threads: one of these may have had the loader's lock, which nobody
/// gives back here.
static LOADER_IS_LOST: AtomicBool = AtomicBool::new(false);

/// The process is a copy; of one with several threads, if so told.
pub(crate) fn in_copy(of_several: bool) {
    if of_several {
        LOADER_IS_LOST.store(true, Ordering::Relaxed);
    }
    signal::in_copy();
}

/// The mean gap between samples; 0 while there are none.
static MEAN: AtomicUsize = AtomicUsize::new(0);

/// The profile of the process.
pub fn profile() -> &'static Profile {
    &PROFILE
}

/// How much there is in a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProfileTotals {
    /// Samples that are not yet freed.
    pub samples: usize,
    /// Samples that there was no memory to keep.
    pub lost: u64,
    /// The bytes from one sample to the next, in the mean; 0 if there are no more.
    pub sample_bytes: usize,
}

/// What is in a profile at some moment.
struct Snapshot {
    records: Vec<u64>,
    period: usize,
    lost: u64,
}

impl Snapshot {
    /// All of it; growth counts from here, if so told.
    fn take(rebase: bool) -> Self {
        let mut words = sampler::with(|state| state.stacks.words());
        loop {
            // The lock is held by nobody who allocates.
            let mut records = vec![0; words + words / 8 + 1024];
            let used = sampler::with(|state| {
                words = state.stacks.words();
                Some((state.stacks.copy(&mut records, rebase)?, state.period, state.lost))
            });
            if let Some((used, period, lost)) = used {
                records.truncate(used);
                return Self { records, period, lost };
            }
        }
    }
}

impl Profile {
    /// Takes a sample for each so many bytes, on average, from now on. What was lent before is not in the profile. To
    /// start again changes the gap.
    ///
    /// A sample costs a walk up the stack: some microseconds. With gaps of 512 KiB that is a few per cent at most of
    /// what a program does that does nothing but allocate.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for no bytes at all.
    pub fn start(&self, sample_bytes: usize) -> io::Result<()> {
        if sample_bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set(sample_bytes);
        Ok(())
    }

    /// Takes no more samples. Those that there are stay until they are freed.
    pub fn stop(&self) {
        set(0);
    }

    /// How much there is in it.
    pub fn totals(&self) -> ProfileTotals {
        sampler::with(|state| ProfileTotals { samples: state.len(), lost: state.lost, sample_bytes: state.mean })
    }

    /// Writes a file, compressed by gzip.
    ///
    /// Looks up names, which for a large program with debug information takes a second and some 100 MB for that time.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn dump(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let _inside = Inside::enter();
        fs::write(path, encode(&Snapshot::take(true), false))
    }

    /// As [`dump`](Self::dump), of what has come and gone since the last file: what is not yet freed now, less what was
    /// not then.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn dump_growth(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let _inside = Inside::enter();
        fs::write(path, encode(&Snapshot::take(true), true))
    }

    /// Writes a file when the process ends, by a return from `main` or by `exit`: `PREFIX.PID.NUMBER.exit.pb.gz`.
    /// `None` for none.
    pub fn dump_at_exit(&self, prefix: Option<PathBuf>) {
        let prefix = prefix.map(for_ever);
        *self.at_exit.lock() = prefix;
    }

    /// Writes a file, `PREFIX.PID.NUMBER.signal.pb.gz`, whenever the process gets this signal, whose handler this sets.
    /// A thread of its own does it, which does not come along into a copy by `fork`: a copy has to ask again.
    ///
    /// # Errors
    /// If the signal cannot be handled, or there can be no more threads.
    pub fn dump_on_signal(&self, signal: i32, prefix: PathBuf) -> io::Result<()> {
        let prefix = for_ever(prefix);
        *self.on_signal.lock() = Some(prefix);
        signal::on(signal, signalled)
    }

    /// What is not yet freed, as text: estimates by the stack that asked, the most first; `None` if no sample is.
    pub fn leaks(&self) -> Option<String> {
        let _inside = Inside::enter();
        let Snapshot { records, period, .. } = Snapshot::take(false);
        leaks::report(&records, period)
    }

    /// Whether [`leaks`](Self::leaks) go to the error output when the process ends.
    pub fn report_leaks_at_exit(&self, wanted: bool) {
        self.leaks_at_exit.store(u32::from(wanted), Ordering::Relaxed);
    }

    /// Writes the next file with this prefix; answers its path too if it cannot.
    fn dump_next(&self, prefix: &Path, why: &str) -> Result<(), (PathBuf, io::Error)> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let mut path = prefix.as_os_str().to_owned();
        path.push(format!(".{}.{number}.{why}.pb.gz", std::process::id()));
        self.dump(&path).map_err(|error| (path.into(), error))
    }

    /// The same, and says so if it cannot.
    fn dump_by_the_way(&self, prefix: &Path, why: &str) {
        if let Err((path, error)) = self.dump_next(prefix, why) {
            complain(&path.display(), &error);
        }
    }
}

/// A path that stays. There are few, since few are ever set.
fn for_ever(path: PathBuf) -> &'static Path {
    let _inside = Inside::enter();
    Box::leak(path.into_boxed_path())
}

fn complain(what: &dyn Display, error: &io::Error) {
    Print::to_errors().line(format_args!("pagemill: {what}: {error}"));
}

/// Takes samples so far apart, in every heap of the process.
fn set(mean: usize) {
    sampler::with(|state| {
        state.mean = mean;
        if mean != 0 {
            state.period = mean;
        }
    });
    MEAN.store(mean, Ordering::Relaxed);
    ctl::all().for_each(|heap| heap.sample(&sampler::HOOK, mean));
}

fn encode(snapshot: &Snapshot, growth: bool) -> Vec<u8> {
    gzip::compressed(&pprof::profile(&snapshot.records, snapshot.period, snapshot.lost, growth))
}

fn signalled() {
    let prefix = *PROFILE.on_signal.lock();
    PROFILE.dump_by_the_way(&prefix.map_or_else(wished_prefix, Path::to_owned), "signal");
}

/// The prefix that the options name.
fn wished_prefix() -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(options().prof_prefix().as_bytes()))
}

/// Writes a file where the options name a place for it: `PREFIX.PID.NUMBER.call.pb.gz`.
pub(crate) fn dump_on_call() -> io::Result<()> {
    PROFILE.dump_next(&wished_prefix(), "call").map_err(|(_, error)| error)
}

/// Tells a heap that has just been set up what to sample. Nothing is allocated.
pub(crate) fn follow(tell: impl FnOnce(&'static SampleHook, usize)) {
    if MEAN.load(Ordering::Relaxed) == 0 && (options().prof() || options().leak_report()) {
        set(options().prof_sample());
    }
    let mean = MEAN.load(Ordering::Relaxed);
    if mean != 0 {
        tell(&sampler::HOOK, mean);
    }
}

/// Options about profiles have changed.
pub(crate) fn follow_changed_options() {
    set(if options().prof() || options().leak_report() { options().prof_sample() } else { 0 });
}

/// Before `main`: what needs a thread.
pub(crate) fn at_start() {
    if let Some(signal) = options().prof_signal().filter(|_| options().prof())
        && let Err(error) = signal::on(signal, signalled)
    {
        complain(&format_args!("prof_signal {signal}"), &error);
    }
}

/// What is wanted of a process that ends.
pub(crate) fn at_exit() {
    let own = *PROFILE.at_exit.lock();
    if let Some(prefix) = own.map(Path::to_owned).or_else(|| options().prof().then(wished_prefix)) {
        PROFILE.dump_by_the_way(&prefix, "exit");
    }
    if (options().leak_report() || PROFILE.leaks_at_exit.load(Ordering::Relaxed) != 0)
        && let Some(leaks) = PROFILE.leaks()
    {
        let mut errors = Print::to_errors();
        leaks.lines().for_each(|line| errors.line(format_args!("{line}")));
    }
}
