//! What blocks are filled with: every byte tells its block and its place in it, so that bytes of a neighbour, of
//! another place, or of the block's last owner are told from its own.

use core::ops::Range;

use super::fault::Fault;

const WORD: usize = size_of::<u64>();

/// What stands in the word at that place.
fn value(seed: u64, index: usize) -> u64 {
    // Multiplying by an odd number and folding the upper half down lets neighbouring seeds and places differ in all
    // bytes.
    let product = (seed ^ (index as u64).rotate_left(40)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 29
}

/// The same as bytes.
fn word(seed: u64, index: usize) -> [u8; WORD] {
    value(seed, index).to_le_bytes()
}

/// A range of bytes as words: for each its number, and which bytes of it lie in the range.
fn words(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    (range.start / WORD..range.end.div_ceil(WORD)).map(move |index| {
        let first = index * WORD;
        (index, range.start.max(first) - first..range.end.min(first + WORD) - first)
    })
}

/// The pattern that a block has at `range`, piece by piece: `put` writes each where it belongs.
pub(super) fn write(seed: u64, range: Range<usize>, mut put: impl FnMut(Range<usize>, &[u8])) {
    // Blocks of megabytes are filled by the thousand: many words at a time.
    let mut buffer = [0; 64 * WORD];
    let mut start = range.start;
    while start < range.end {
        let first = start / WORD;
        let end = range.end.min(first * WORD + buffer.len());
        for (index, word) in (first..end.div_ceil(WORD)).zip(buffer.chunks_exact_mut(WORD)) {
            word.copy_from_slice(&self::word(seed, index));
        }
        put(start..end, &buffer[start - first * WORD..end - first * WORD]);
        start = end;
    }
}

/// Whether these are the bytes that the pattern has at `range` of a block.
pub(super) fn verify(bytes: &[u8], seed: u64, range: Range<usize>) -> Result<(), Fault> {
    let (whole, rest) = bytes.as_chunks();
    let as_written = |(index, &word): (usize, &[u8; WORD])| u64::from_le_bytes(word) == value(seed, index);
    // Whole words first, and byte by byte only where that is not enough.
    let done = if range.start == 0 && whole.iter().enumerate().all(as_written) { bytes.len() - rest.len() } else { 0 };
    for (index, part) in words(range.start + done..range.end) {
        compare(bytes, range.start, index * WORD + part.start, &word(seed, index)[part])?;
    }
    Ok(())
}

/// Whether these bytes, at `range` of a block, are all zero.
pub(super) fn verify_zero(bytes: &[u8], range: Range<usize>) -> Result<(), Fault> {
    let (whole, rest) = bytes.as_chunks();
    if whole.iter().all(|&word| u64::from_ne_bytes(word) == 0) && rest.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    for (index, part) in words(range.clone()) {
        compare(bytes, range.start, index * WORD + part.start, &[0; WORD][part])?;
    }
    Ok(())
}

/// Compares what stands at `offset` of a block whose `bytes` begin at `start`.
fn compare(bytes: &[u8], start: usize, offset: usize, expected: &[u8]) -> Result<(), Fault> {
    let found = &bytes[offset - start..][..expected.len()];
    if found == expected {
        return Ok(());
    }
    let place = found.iter().zip(expected).position(|(found, expected)| found != expected).unwrap_or(0);
    Err(Fault::Changed { offset: offset + place, expected: expected[place], found: found[place] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(range: Range<usize>) -> [u8; 40] {
        let mut bytes = [0; 40];
        write(5, range, |place, part| bytes[place].copy_from_slice(part));
        bytes
    }

    #[test]
    fn what_is_written_is_verified_in_any_part() {
        let bytes = block(0..37);
        for start in 0..37 {
            for end in start..=37 {
                assert_eq!(verify(&bytes[start..end], 5, start..end), Ok(()));
            }
        }
        assert_eq!(bytes[37..], [0; 3]);
        let part = block(11..37);
        assert_eq!((&part[..11], &part[11..]), ([0; 11].as_slice(), &bytes[11..]));
    }

    #[test]
    fn every_byte_differs_by_place_and_block() {
        let bytes = block(0..37);
        for offset in 0..37 {
            let mut changed = bytes;
            changed[offset] ^= 0x10;
            let fault = Fault::Changed { offset, expected: bytes[offset], found: changed[offset] };
            assert_eq!(verify(&changed[..37], 5, 0..37), Err(fault));
        }
        assert!(verify(&bytes[..8], 6, 0..8).is_err());
        assert!(verify(&bytes[8..16], 5, 0..8).is_err());
    }

    #[test]
    fn zeros_are_zeros() {
        assert_eq!(verify_zero(&[0; 21], 3..24), Ok(()));
        let mut bytes = [0; 21];
        bytes[20] = 1;
        assert_eq!(verify_zero(&bytes, 3..24), Err(Fault::Changed { offset: 23, expected: 0, found: 1 }));
    }
}
