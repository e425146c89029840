//! How to get from a frame to the one that called it, for x86-64: what the compiler's tables say, kept in a word for
//! each place that was met.
//!
//! ```text
//!  63              16 15        6   5   4        1  0
//! ┌──────────────────┬───────────┬─────┬──────────┬───┐
//! │     address      │ words     │ rbp │ saved    │ 0 │   the frame ends so many words above rsp, or rbp; the caller's
//! └──────────────────┴───────────┴─────┴──────────┴───┘   rbp is where it was, or so many words below the end
//!
//!   in place of all that: 0 for what does not fit, 1 for the outermost frame
//! ```
//!
//! The tables are programs for each function, which the unwinder looks up and runs at each step. Most of what they come
//! to is as above, and the same each time. What is not is left to the unwinder.
#![allow(unsafe_code, reason = "tables in the memory of programs and libraries")]

use std::ffi::{c_int, c_void};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, NativeEndian, Register, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindSection, UnwindTableRow, X86_64,
};

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    Step {
        /// From rbp, not from rsp.
        from_frame_pointer: bool,
        /// Bytes from there to the end of the frame. Right below it is where it returns to.
        bytes: usize,
        /// Bytes from the end down to where the caller's rbp is, 0 if it is still in the register.
        saved: usize,
    },
    Outermost,
    Complicated,
}

const WORD: usize = 8;
const ADDRESS_SHIFT: u32 = 16;

impl Rule {
    fn bits(self) -> u64 {
        match self {
            Self::Step { from_frame_pointer, bytes, saved } => {
                let [bytes, saved] = [bytes, saved].map(|bytes| (bytes / WORD) as u64);
                bytes << 6 | u64::from(from_frame_pointer) << 5 | saved << 1
            }
            Self::Outermost => 1,
            Self::Complicated => 0,
        }
    }

    fn of(bits: u64) -> Self {
        match bits {
            0 => Self::Complicated,
            1 => Self::Outermost,
            _ => Self::Step {
                from_frame_pointer: bits >> 5 & 1 != 0,
                bytes: (bits >> 6 & 0x3ff) as usize * WORD,
                saved: (bits >> 1 & 15) as usize * WORD,
            },
        }
    }
}

/// The words, two places for each address.
static KNOWN: [AtomicU64; 1 << 13] = [const { AtomicU64::new(0) }; 1 << 13];

/// The step from a frame whose code is at this address.
#[inline]
pub(super) fn at(address: usize) -> Rule {
    let hash = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - KNOWN.len().ilog2());
    let places = [hash as usize, hash as usize ^ 1];
    // Relaxed: a word is all there is to know.
    let known = places.map(|place| KNOWN[place].load(Ordering::Relaxed));
    match known.iter().find(|&&word| word >> ADDRESS_SHIFT == address as u64) {
        Some(word) => Rule::of(word & ((1 << ADDRESS_SHIFT) - 1)),
        None => {
            let rule = look_up(address);
            let place = if known[0] == 0 { places[0] } else { places[1] };
            KNOWN[place].store((address as u64) << ADDRESS_SHIFT | rule.bits(), Ordering::Relaxed);
            rule
        }
    }
}

/// Forgets everything if a library has gone since the last look: another one may be where it was.
pub(super) fn forget_what_has_gone() {
    static GONE: AtomicU64 = AtomicU64::new(0);
    let gone = libraries_gone();
    if GONE.swap(gone, Ordering::Relaxed) != gone {
        KNOWN.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

fn libraries_gone() -> u64 {
    extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, gone: *mut c_void) -> c_int {
        // SAFETY: what the loader tells of, for as long as this is called.
        let subs = unsafe { (*info).dlpi_subs };
        // SAFETY: the place that is handed on below.
        unsafe { gone.cast::<u64>().write(subs) };
        1
    }
    let mut gone = 0u64;
    // SAFETY: the function gets the place, and is called before this returns.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut gone).cast()) };
    gone
}

/// The tables of the file that an address is in: an index, and from the tables' beginning to the end of its segment.
struct Tables {
    address: usize,
    index: Option<&'static [u8]>,
    segments: [(usize, usize); 16],
}

impl Tables {
    fn of(address: usize) -> Self {
        let mut tables = Self { address, index: None, segments: [(0, 0); 16] };
        // SAFETY: the function gets the tables, and is called before this returns.
        unsafe { libc::dl_iterate_phdr(Some(file), (&raw mut tables).cast()) };
        tables
    }

    /// What is loaded of the file from an address on, to the end of that segment.
    fn from(&self, start: usize) -> Option<&'static [u8]> {
        let &(first, bytes) = self.segments.iter().find(|(first, bytes)| start.wrapping_sub(*first) < *bytes)?;
        // SAFETY: a part of a file that is loaded, and readable like all that tables are in.
        Some(unsafe { slice::from_raw_parts(std::ptr::without_provenance(start), first + bytes - start) })
    }
}

extern "C" fn file(info: *mut libc::dl_phdr_info, _: usize, tables: *mut c_void) -> c_int {
    // SAFETY: what the loader tells of, for as long as this is called.
    let info = unsafe { &*info };
    // SAFETY: what `of` hands on, which nobody else uses meanwhile.
    let tables = unsafe { &mut *tables.cast::<Tables>() };
    // SAFETY: the loader's own headers, so many.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let start = |header: &libc::Elf64_Phdr| (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
    let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    if !loaded().any(|header| tables.address.wrapping_sub(start(header)) < header.p_memsz as usize) {
        return 0;
    }
    tables.segments.iter_mut().zip(loaded()).for_each(|(to, header)| *to = (start(header), header.p_filesz as usize));
    if let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME) {
        let (start, bytes) = (std::ptr::without_provenance(start(header)), header.p_memsz as usize);
        // SAFETY: a part of a file that is loaded.
        tables.index = Some(unsafe { slice::from_raw_parts(start, bytes) });
    }
    1
}

/// Where rules are put together: of seven registers that calls keep, and with little that is remembered.
struct Small;

impl UnwindContextStorage<usize> for Small {
    type Rules = [(Register, RegisterRule<usize>); 24];
    type Stack = [UnwindTableRow<usize, Self>; 4];
}

#[cold]
#[inline(never)]
fn look_up(address: usize) -> Rule {
    rule_at(address).unwrap_or(Rule::Complicated)
}

fn rule_at(address: usize) -> Option<Rule> {
    let tables = Tables::of(address);
    let index = tables.index?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(index.as_ptr().addr() as u64);
    let index = EhFrameHdr::new(index, NativeEndian).parse(&bases, WORD as u8).ok()?;
    let gimli::Pointer::Direct(start) = index.eh_frame_ptr() else { return None };
    let frames = EhFrame::new(tables.from(start as usize)?, NativeEndian);
    let bases = bases.set_eh_frame(start);
    let table = index.table()?;
    let function =
        table.fde_for_address(&frames, &bases, address as u64, |frames, bases, at| frames.cie_from_offset(bases, at));
    let function = function.ok()?;
    if function.is_signal_trampoline() {
        // The stack of a handler ends at the handler. What it interrupted may be in the middle of an epilogue, of which
        // the tables are not exact, and who follows them then reads what is no stack.
        return Some(Rule::Outermost);
    }
    let mut context = UnwindContext::<usize, Small>::new_in();
    let row = function.unwind_info_for_address(&frames, &bases, &mut context, address as u64).ok()?;
    simple(row)
}

/// A row of the tables as a step, if it is one.
fn simple(row: &UnwindTableRow<usize, Small>) -> Option<Rule> {
    match row.register(X86_64::RA) {
        Some(RegisterRule::Offset(offset)) if offset == -(WORD as i64) => {}
        Some(RegisterRule::Undefined) => return Some(Rule::Outermost),
        _ => return None,
    }
    let &CfaRule::RegisterAndOffset { register, offset } = row.cfa() else { return None };
    let from_frame_pointer = register == X86_64::RBP;
    let bytes =
        usize::try_from(offset).ok().filter(|bytes| bytes % WORD == 0 && (1..1024).contains(&(bytes / WORD)))?;
    let saved = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => 0,
        Some(RegisterRule::Offset(offset)) => {
            usize::try_from(-offset).ok().filter(|bytes| bytes % WORD == 0 && (2..16).contains(&(bytes / WORD)))?
        }
        _ => return None,
    };
    let known = from_frame_pointer || register == X86_64::RSP;
    known.then_some(Rule::Step { from_frame_pointer, bytes, saved })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_its_bits() {
        for rule in [
            Rule::Outermost,
            Rule::Complicated,
            Rule::Step { from_frame_pointer: true, bytes: 16, saved: 16 },
            Rule::Step { from_frame_pointer: false, bytes: 8, saved: 0 },
            Rule::Step { from_frame_pointer: false, bytes: 1023 * WORD, saved: 15 * WORD },
        ] {
            assert!(rule.bits() < 1 << ADDRESS_SHIFT && Rule::of(rule.bits()) == rule, "{rule:?}");
        }
    }

    #[test]
    fn where_no_code_is_there_is_no_rule() {
        assert_eq!((at(0x1000), at(KNOWN.as_ptr().addr())), (Rule::Complicated, Rule::Complicated));
    }

    #[test]
    fn code_is_found_again() {
        let here = code_is_found_again as *const () as usize;
        // Nothing is pushed yet: the frame is what the call has left.
        let step = Rule::Step { from_frame_pointer: false, bytes: 8, saved: 0 };
        assert_eq!((at(here), at(here)), (step, step));
    }
}
