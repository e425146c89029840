//! A large Rust source is parsed into its syntax tree, as procedural macros and tools do.

use std::fmt::Write as _;
use std::hint::black_box;

use crate::load::Load;
use crate::meter::Meter;

const ITEMS: usize = 1500;

/// A unit is a type with its methods; making the source does not count.
pub fn run(load: &Load, meter: &mut Meter) -> u64 {
    let items = load.times(ITEMS);
    let text = source(items);
    meter.start();
    load.on_each_thread(|_| {
        let file = syn::parse_file(&text).expect("the source is well-formed");
        black_box(&file);
    });
    meter.stop();
    (items * load.threads) as u64
}

fn source(items: usize) -> String {
    let mut text = String::with_capacity(items * 1100);
    for n in 0..items {
        let _ = write!(
            text,
            "/// Number {n}.\n#[derive(Clone, Debug, PartialEq)]\npub struct Thing{n}<T: Clone> {{\n    pub id: u64,\n    \
             name: String,\n    inner: Option<Box<Vec<T>>>,\n    table: std::collections::HashMap<String, Vec<(u32, T)>>,\n}}\n\n\
             impl<T: Clone> Thing{n}<T> {{\n    pub fn new(id: u64, name: &str) -> Self {{\n        Self {{ id, name: \
             name.to_string(), inner: None, table: Default::default() }}\n    }}\n\n    pub fn total(&self, by: usize) -> \
             Result<usize, String> {{\n        let mut sum = {n};\n        for (key, values) in &self.table {{\n            if \
             key.len() > by && !values.is_empty() {{\n                sum += values.iter().map(|(n, _)| *n as usize * \
             2).sum::<usize>();\n            }} else {{\n                return Err(format!(\"no {{}} in {{}}\", key, \
             self.name));\n            }}\n        }}\n        match &self.inner {{\n            Some(inner) if inner.len() > 3 \
             => Ok(sum + inner.len()),\n            Some(_) | None => Ok(sum),\n        }}\n    }}\n}}\n\n"
        );
    }
    text
}
