//! A profile in the format of `pprof`: <https://github.com/google/pprof/blob/main/proto/profile.proto>.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::maps::{self, Mapping};
use super::names::{Line, Names};
use super::proto::Message;
use super::stacks::{Record, Stacks};

/// Fields of the messages.
mod field {
    pub(super) const SAMPLE_TYPE: u32 = 1;
    pub(super) const SAMPLE: u32 = 2;
    pub(super) const MAPPING: u32 = 3;
    pub(super) const LOCATION: u32 = 4;
    pub(super) const FUNCTION: u32 = 5;
    pub(super) const STRING: u32 = 6;
    pub(super) const TIME_NANOS: u32 = 9;
    pub(super) const PERIOD_TYPE: u32 = 11;
    pub(super) const PERIOD: u32 = 12;
    pub(super) const COMMENT: u32 = 13;
    pub(super) const DEFAULT_SAMPLE_TYPE: u32 = 14;
}

/// What the values of a sample are, in this order.
const TYPES: [(&str, &str); 4] =
    [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")];

/// Builds the message.
struct Builder {
    profile: Message,
    strings: HashMap<String, u64>,
    functions: HashMap<(String, String), u64>,
    /// Frames, and how many of their functions are left out.
    locations: HashMap<(u64, usize), u64>,
    mappings: Vec<Mapping>,
    /// For each of them, whether some code of it has a name.
    is_named: Vec<bool>,
    names: Names,
}

/// The profile that copied records make. With `growth`, of what has changed since it was last looked at.
pub(super) fn profile(copy: &[u64], mean: usize, lost: u64, growth: bool) -> Vec<u8> {
    let mappings = maps::all();
    let mut builder = Builder {
        profile: Message::default(),
        strings: HashMap::new(),
        functions: HashMap::new(),
        locations: HashMap::new(),
        is_named: vec![false; mappings.len()],
        mappings: mappings.clone(),
        names: Names::new(mappings),
    };
    // The first string is none.
    builder.string("");
    for (name, unit) in TYPES {
        let kind = builder.value_type(name, unit);
        builder.profile.message(field::SAMPLE_TYPE, &kind);
    }
    for record in Stacks::records(copy) {
        builder.sample(&record, growth);
    }
    builder.mappings();
    builder.end(mean, lost)
}

impl Builder {
    /// The number of a string, which is written if it is new.
    fn string(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.strings.get(text) {
            return number;
        }
        let number = self.strings.len() as u64;
        self.strings.insert(text.into(), number);
        self.profile.bytes(field::STRING, text.as_bytes());
        number
    }

    fn value_type(&mut self, name: &str, unit: &str) -> Message {
        let mut message = Message::default();
        message.number(1, self.string(name));
        message.number(2, self.string(unit));
        message
    }

    fn mappings(&mut self) {
        for (index, mapping) in self.mappings.clone().iter().enumerate() {
            let mut message = Message::default();
            message.number(1, index as u64 + 1);
            message.number(2, mapping.start);
            message.number(3, mapping.end);
            message.number(4, mapping.offset);
            message.number(5, self.string(&mapping.file.to_string_lossy()));
            message.number(6, self.string(&mapping.build_id));
            // Functions, files, lines and what is in line are told where they are known. Of a file that says nothing a
            // reader with its symbols may say it.
            (7..=10).for_each(|has| message.number(has, self.is_named[index].into()));
            self.profile.message(field::MAPPING, &message);
        }
    }

    fn sample(&mut self, record: &Record<'_>, growth: bool) {
        let rounded = |value: f64| value.round() as i64;
        let since = |live: f64, base: f64| rounded(live) - if growth { rounded(base) } else { 0 };
        let all = if growth { [0.0, 0.0] } else { record.all };
        let live = [since(record.live[0], record.base[0]), since(record.live[1], record.base[1])];
        let values = [rounded(all[0]), rounded(all[1]), live[0], live[1]];
        if values == [0; 4] {
            return;
        }
        let (way, left_out) = self.names.way(record.frames);
        let frames = record.frames[way..].iter().enumerate();
        let locations: Vec<_> =
            frames.map(|(depth, &frame)| self.location(frame, if depth == 0 { left_out } else { 0 })).collect();
        let mut message = Message::default();
        message.numbers(1, locations.iter().map(|&location| location as i64));
        message.numbers(2, values);
        self.profile.message(field::SAMPLE, &message);
    }

    /// The number of a frame without its innermost functions, which is written if it is new.
    fn location(&mut self, address: u64, left_out: usize) -> u64 {
        if let Some(&number) = self.locations.get(&(address, left_out)) {
            return number;
        }
        let number = self.locations.len() as u64 + 1;
        self.locations.insert((address, left_out), number);
        let mapping = self.mappings.iter().position(|mapping| (mapping.start..mapping.end).contains(&address));
        let mut message = Message::default();
        message.number(1, number);
        message.number(2, mapping.map_or(0, |index| index as u64 + 1));
        message.number(3, address);
        let lines: Vec<_> = self.names.at(address).iter().skip(left_out).cloned().collect();
        if let Some(index) = mapping {
            self.is_named[index] |= !lines.is_empty();
        }
        for line in lines {
            let mut place = Message::default();
            place.number(1, self.function(&line));
            place.number(2, u64::from(line.line));
            message.message(4, &place);
        }
        self.profile.message(field::LOCATION, &message);
        number
    }

    fn function(&mut self, line: &Line) -> u64 {
        let key = (line.function.clone(), line.file.clone());
        if let Some(&number) = self.functions.get(&key) {
            return number;
        }
        let number = self.functions.len() as u64 + 1;
        self.functions.insert(key, number);
        let mut message = Message::default();
        let name = self.string(&line.function);
        message.number(1, number);
        message.number(2, name);
        // Where this is the same, `pprof` reads the name anew: what C++ has encoded, but of Rust's it would take types
        // away.
        message.number(3, if line.function.starts_with("_Z") { name } else { 0 });
        message.number(4, self.string(&line.file));
        self.profile.message(field::FUNCTION, &message);
        number
    }

    fn end(mut self, mean: usize, lost: u64) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.profile.number(field::TIME_NANOS, now.as_nanos() as u64);
        let kind = self.value_type("space", "bytes");
        self.profile.message(field::PERIOD_TYPE, &kind);
        self.profile.number(field::PERIOD, mean as u64);
        if lost != 0 {
            let comment = self.string(&format!("{lost} samples were lost for want of memory"));
            self.profile.number(field::COMMENT, comment);
        }
        let default = self.string("inuse_space");
        self.profile.number(field::DEFAULT_SAMPLE_TYPE, default);
        self.profile.into_bytes()
    }
}
