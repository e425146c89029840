//! gzip: a header, what is deflated, and a sum over what was.

use miniz_oxide::deflate::compress_to_vec;

/// How hard it is tried to make it small: what zlib does if nobody says.
const LEVEL: u8 = 6;

/// Magic, deflate, no name, no time, no extras, Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

pub(super) fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut file = HEADER.to_vec();
    file.extend(compress_to_vec(bytes, LEVEL));
    file.extend(crc32(bytes).to_le_bytes());
    file.extend((bytes.len() as u32).to_le_bytes());
    file
}

/// The sum of IEEE 802.3, four bits at a time.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut number = 0;
        while number < 16 {
            let mut sum = number as u32;
            let mut bit = 0;
            while bit < 4 {
                sum = if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ 0xedb8_8320 };
                bit += 1;
            }
            table[number] = sum;
            number += 1;
        }
        table
    };
    let step = |sum: u32, nibble: u32| sum >> 4 ^ TABLE[((sum ^ nibble) & 15) as usize];
    !bytes.iter().fold(!0, |sum, &byte| step(step(sum, u32::from(byte)), u32::from(byte >> 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_one_that_all_know() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
