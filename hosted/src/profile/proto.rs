//! The encoding of protocol buffers, as far as a profile needs it.

/// A message, field by field.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number. 0 is what a field is without, and takes no room.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
    }

    /// Bytes, a text, or a message.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// Numbers of one field, packed. Negative ones are as long as can be.
    pub(super) fn numbers(&mut self, field: u32, values: impl IntoIterator<Item = i64>) {
        let mut packed = Self::default();
        values.into_iter().for_each(|value| packed.varint(value as u64));
        self.message(field, &packed);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_the_encoding_is_documented() {
        let mut message = Message::default();
        message.number(1, 150);
        message.number(2, 0);
        message.bytes(2, b"testing");
        message.numbers(6, [3, 270, 86_942]);
        let expected = b"\x08\x96\x01\x12\x07testing\x32\x06\x03\x8e\x02\x9e\xa7\x05";
        assert_eq!(message.into_bytes(), expected);
        let mut negative = Message::default();
        negative.numbers(1, [-1]);
        assert_eq!(negative.into_bytes(), b"\x0a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }
}
