//! A large JSON document is read into a tree, and the tree is dropped.

use std::fmt::Write as _;
use std::hint::black_box;

use serde_json::Value;

use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const BYTES: usize = 20_000_000;

/// A unit is a byte of the document; making that does not count.
pub fn run(load: &Load, meter: &mut Meter) -> u64 {
    let text = document(load.times(BYTES));
    meter.start();
    load.on_each_thread(|_| {
        let tree: Value = serde_json::from_str(&text).expect("the document is well-formed");
        black_box(&tree);
    });
    meter.stop();
    (text.len() * load.threads) as u64
}

fn document(bytes: usize) -> String {
    let mut rng = Rng::new(0);
    // Reserved, so that its growth is not the peak of memory.
    let mut text = String::with_capacity(bytes + 1000);
    text.push('[');
    while text.len() < bytes {
        if text.len() > 1 {
            text.push(',');
        }
        record(&mut text, &mut rng);
    }
    text.push(']');
    text
}

fn record(text: &mut String, rng: &mut Rng) {
    let id = rng.below(1 << 30);
    let _ = write!(text, r#"{{"id":{id},"name":"user number {id}","active":{},"#, rng.chance(50));
    let _ = write!(text, r#""place":{{"x":{}.5,"y":-{}.25,"of":null}},"tags":["#, rng.below(1000), rng.below(1000));
    for tag in 0..rng.within(1, 8) {
        let comma = if tag == 0 { "" } else { "," };
        let _ = write!(text, r#"{comma}"tag {}""#, rng.below(500));
    }
    text.push_str(r#"],"text":""#);
    for _ in 0..rng.within(2, 30) {
        text.push_str("words and ");
    }
    text.push_str(r#"so on"}"#);
}
