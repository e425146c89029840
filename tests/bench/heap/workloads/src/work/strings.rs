//! Text is put together from parts, which is what many programs do most.

use std::fmt::Write as _;
use std::hint::black_box;

use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const PARTS: usize = 8;

/// A unit is one text of a few parts.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let texts = load.times(150_000);
    load.on_each_thread(|index| {
        let mut rng = Rng::new(index);
        for number in 0..texts {
            black_box(text(number, &mut rng));
        }
    });
    (texts * load.threads) as u64
}

fn text(number: usize, rng: &mut Rng) -> String {
    let parts: Vec<String> = (0..PARTS)
        .map(|part| {
            let mut text = format!("part {part} of {number}");
            for _ in 0..rng.below(6) {
                text.push_str(", and more of it");
            }
            text
        })
        .collect();
    let mut text = parts.join("; ");
    let _ = write!(text, " ({} parts)", parts.len());
    text.replace(", and", " &")
}
