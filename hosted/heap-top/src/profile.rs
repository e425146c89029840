//! A profile as a file has it: <https://github.com/google/pprof/blob/main/proto/profile.proto>.

use std::collections::HashMap;

use miniz_oxide::inflate::decompress_to_vec;

/// What is in a file.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Names and units of the values of a sample.
    pub(crate) types: Vec<(String, String)>,
    /// Stacks, the innermost function first, and their values.
    pub(crate) samples: Vec<(Vec<String>, Vec<i64>)>,
    /// The mean gap between samples, 0 if the file does not say.
    pub(crate) period: u64,
    default: String,
}

/// Fields of a message, one after the other: their numbers, and what they hold.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next one; `None` if what follows is none.
    fn next(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let count = self.varint()?;
                Field::Bytes(self.take(usize::try_from(count).ok()?)?)
            }
            5 => Field::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

/// Calls `each` with the fields of a message; `None` if it is none.
fn each<'a>(message: &'a [u8], mut each: impl FnMut(u64, Field<'a>) -> Option<()>) -> Option<()> {
    let mut fields = Fields(message);
    while !fields.0.is_empty() {
        let (number, field) = fields.next()?;
        each(number, field)?;
    }
    Some(())
}

impl<'a> Field<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }

    fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Bytes(_) => None,
        }
    }

    /// Numbers that are packed, or one that is not.
    fn numbers(self) -> Option<Vec<u64>> {
        match self {
            Self::Number(number) => Some(vec![number]),
            Self::Bytes(bytes) => {
                let (mut packed, mut numbers) = (Fields(bytes), Vec::new());
                while !packed.0.is_empty() {
                    numbers.push(packed.varint()?);
                }
                Some(numbers)
            }
        }
    }
}

/// The first numbers of a message's fields, up to 5.
fn numbers_of(message: &[u8]) -> Option<[u64; 6]> {
    let mut numbers = [0; 6];
    each(message, |number, field| {
        if let (Field::Number(value), Some(place)) = (field, numbers.get_mut(number as usize)) {
            *place = value;
        }
        Some(())
    })?;
    Some(numbers)
}

/// What is inside of gzip, as it is without it.
fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Some(bytes.to_vec());
    }
    let flags = *bytes.get(3)?;
    let mut rest = bytes.get(10..)?;
    if flags & 4 != 0 {
        let count = u16::from_le_bytes(rest.get(..2)?.try_into().ok()?);
        rest = rest.get(2 + usize::from(count)..)?;
    }
    // A name, a comment.
    for flag in [8, 16] {
        if flags & flag != 0 {
            rest = rest.get(rest.iter().position(|&byte| byte == 0)? + 1..)?;
        }
    }
    if flags & 2 != 0 {
        rest = rest.get(2..)?;
    }
    decompress_to_vec(rest).ok()
}

/// Parts of a file that refer to one another.
#[derive(Default)]
struct Parts<'a> {
    strings: Vec<&'a [u8]>,
    types: Vec<[u64; 6]>,
    samples: Vec<&'a [u8]>,
    /// Where code lies, by numbers: its address, where that is in its file, and the file's name.
    mappings: HashMap<u64, [u64; 3]>,
    locations: Vec<&'a [u8]>,
    functions: HashMap<u64, u64>,
    period: u64,
    default: u64,
}

impl<'a> Parts<'a> {
    fn of(file: &'a [u8]) -> Option<Self> {
        let mut parts = Self::default();
        each(file, |number, field| {
            match number {
                1 => parts.types.push(numbers_of(field.bytes()?)?),
                2 => parts.samples.push(field.bytes()?),
                3 => {
                    let [_, id, start, _, offset, file] = numbers_of(field.bytes()?)?;
                    parts.mappings.insert(id, [start, offset, file]);
                }
                4 => parts.locations.push(field.bytes()?),
                5 => {
                    let [_, id, name, ..] = numbers_of(field.bytes()?)?;
                    parts.functions.insert(id, name);
                }
                6 => parts.strings.push(field.bytes()?),
                12 => parts.period = field.number()?,
                14 => parts.default = field.number()?,
                _ => {}
            }
            Some(())
        })?;
        Some(parts)
    }

    fn string(&self, number: u64) -> Option<String> {
        let bytes = self.strings.get(usize::try_from(number).ok()?)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The functions of each location; where it is in its file, if there are none.
    fn places(&self) -> Option<HashMap<u64, Vec<String>>> {
        let place = |location: &&'a [u8]| {
            let [_, id, mapping, address, ..] = numbers_of(location)?;
            let mut names = Vec::new();
            each(location, |number, field| {
                if number == 4 {
                    let [_, function, ..] = numbers_of(field.bytes()?)?;
                    names.push(self.string(*self.functions.get(&function)?)?);
                }
                Some(())
            })?;
            if names.is_empty() {
                names.push(match self.mappings.get(&mapping) {
                    Some(&[start, offset, file]) => {
                        let path = self.string(file)?;
                        let file = path.rsplit('/').next().unwrap_or_default();
                        format!("{file}+{:#x}", address.wrapping_sub(start).wrapping_add(offset))
                    }
                    None => format!("{address:#x}"),
                });
            }
            Some((id, names))
        };
        self.locations.iter().map(place).collect()
    }
}

impl Profile {
    /// What a file says; `None` if it is no profile.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let file = unpacked(bytes)?;
        let parts = Parts::of(&file)?;
        let types = parts.types.iter().map(|&[_, name, unit, ..]| Some((parts.string(name)?, parts.string(unit)?)));
        let types: Vec<_> = types.collect::<Option<_>>()?;
        let places = parts.places()?;
        let mut samples = Vec::new();
        for sample in &parts.samples {
            let (mut stack, mut values) = (Vec::new(), Vec::new());
            each(sample, |number, field| {
                match number {
                    1 => {
                        for place in field.numbers()? {
                            stack.extend(places.get(&place)?.iter().cloned());
                        }
                    }
                    2 => values.extend(field.numbers()?.into_iter().map(|value| value as i64)),
                    _ => {}
                }
                Some(())
            })?;
            if values.len() != types.len() {
                return None;
            }
            samples.push((stack, values));
        }
        let default = parts.string(parts.default)?;
        (!types.is_empty()).then_some(Self { types, samples, period: parts.period, default })
    }

    /// Takes away what another one has.
    pub(crate) fn subtract(&mut self, base: Self) -> Result<(), String> {
        if self.types != base.types {
            return Err("the two profiles are of different values".into());
        }
        let negative = |(stack, values): (_, Vec<i64>)| (stack, values.into_iter().map(i64::wrapping_neg).collect());
        self.samples.extend(base.samples.into_iter().map(negative));
        Ok(())
    }

    /// The place of a value by its name; of the one that the file thinks the most interesting, if there is none.
    pub(crate) fn value(&self, name: Option<&str>) -> Result<usize, String> {
        let place = |name: &str| self.types.iter().position(|(own, _)| own == name);
        match name {
            Some(name) => place(name).ok_or_else(|| {
                let names: Vec<_> = self.types.iter().map(|(name, _)| name.as_str()).collect();
                format!("there is no {name}, but {}", names.join(", "))
            }),
            None => Ok(place(&self.default).unwrap_or(self.types.len() - 1)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    /// Two stacks: `leaf` under `main` with 5 and 500, `main` with 1 and 20.
    pub(crate) fn file() -> Vec<u8> {
        let strings = ["", "objects", "count", "space", "bytes", "leaf", "main", "/lib/some.so"];
        let mut file: Vec<u8> = strings.iter().flat_map(|text| field(6, text.as_bytes())).collect();
        // Types; functions; locations: the first with a function in line, the second with none.
        for (number, message) in [
            (1, &[0x08, 1, 0x10, 2][..]),
            (1, &[0x08, 3, 0x10, 4]),
            (5, &[0x08, 1, 0x10, 5]),
            (5, &[0x08, 2, 0x10, 6]),
            (4, &[0x08, 1, 0x18, 0x20, 0x22, 2, 0x08, 1, 0x22, 4, 0x08, 2, 0x10, 9]),
            (3, &[0x08, 1, 0x10, 0x28, 0x18, 0x38, 0x20, 0x20, 0x28, 7]),
            (4, &[0x08, 2, 0x10, 1, 0x18, 0x30]),
            (4, &[0x08, 3, 0x22, 2, 0x08, 2]),
            (2, &[0x0a, 2, 1, 2, 0x12, 3, 5, 0xf4, 3]),
            (2, &[0x08, 3, 0x10, 1, 0x10, 20]),
        ] {
            file.extend(field(number, message));
        }
        // A period of 512; the first type is the default.
        file.extend([12 << 3, 0x80, 4, 14 << 3, 1]);
        file
    }

    #[test]
    fn a_file_is_understood() {
        let profile = Profile::parse(&file()).unwrap();
        assert_eq!(profile.types[1], ("space".into(), "bytes".into()));
        let stack = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(profile.samples[0], (stack(&["leaf", "main", "some.so+0x28"]), vec![5, 500]));
        assert_eq!(profile.samples[1], (stack(&["main"]), vec![1, 20]));
        assert_eq!((profile.period, profile.value(None), profile.value(Some("space"))), (512, Ok(0), Ok(1)));
        assert_eq!(profile.value(Some("time")).unwrap_err(), "there is no time, but objects, space");
    }

    #[test]
    fn what_is_cut_off_or_none_is_refused() {
        let file = file();
        for end in 0..file.len() {
            // Some ends are those of fields: then something is missing, or a profile is left.
            if let Some(profile) = Profile::parse(&file[..end]) {
                assert!(profile.samples.len() <= 2);
            }
        }
        assert!(Profile::parse(b"\x1f\x8b\x08").is_none() && Profile::parse(b"no profile").is_none());
        assert!(Profile::parse(&[0xff; 30]).is_none());
    }

    #[test]
    fn a_profile_less_itself_is_nothing() {
        let mut profile = Profile::parse(&file()).unwrap();
        profile.subtract(Profile::parse(&file()).unwrap()).unwrap();
        let sum: i64 = profile.samples.iter().map(|(_, values)| values[1]).sum();
        assert_eq!((profile.samples.len(), sum), (4, 0));
    }
}
