//! Bars: one figure of each allocator.

use plotters::coord::ranged1d::{IntoSegmentedCoord, SegmentValue};
use plotters::prelude::*;

/// A bar.
pub(crate) struct Bar<'a> {
    /// Whose it is.
    pub title: &'a str,
    /// Its end, and where a half of the samples lies.
    pub value: f64,
    /// A quarter of the samples lies below.
    pub low: f64,
    /// A quarter lies above.
    pub high: f64,
    /// What is written at its end.
    pub text: String,
    /// Is it one of those that the others are compared with?
    pub is_ours: bool,
}

const OURS: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const OTHERS: RGBColor = RGBColor(0x56, 0x84, 0xb4);
const WIDTH: u32 = 340;
const PER_BAR: u32 = 17;

/// A bar this many times as long as the shortest is cut; the text tells the figure.
const CUT: f64 = 6.0;

/// The bars below each other, as SVG.
pub(crate) fn bars(title: &str, bars: &[Bar<'_>]) -> String {
    let mut svg = String::new();
    draw(&mut svg, title, bars).expect("a string takes every drawing");
    svg
}

fn draw(svg: &mut String, title: &str, bars: &[Bar<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let shortest = bars.iter().map(|bar| bar.value).filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    let longest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let end = longest.min(if shortest.is_finite() { shortest * CUT } else { 1.0 }).max(1e-9);
    let height = 30 + PER_BAR * bars.len() as u32;
    let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    let count = bars.len() as i32;
    // Room for the figures at the ends. The first bar is the topmost.
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 15))
        .set_label_area_size(LabelAreaPosition::Left, 62)
        .build_cartesian_2d(0.0..end * 1.3, (0..count - 1).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(n) => bars.get((count - 1 - n) as usize).map_or(String::new(), |bar| bar.title.into()),
        _ => String::new(),
    };
    let mut mesh = chart.configure_mesh();
    mesh.disable_mesh().disable_x_axis().y_labels(bars.len()).y_label_formatter(&name).axis_style(BLACK.mix(0.3));
    mesh.label_style(("sans-serif", 13)).draw()?;
    for (row, bar) in (0..count).rev().zip(bars) {
        let colour = if bar.is_ours { OURS } else { OTHERS };
        let (from, to) = (SegmentValue::Exact(row), SegmentValue::Exact(row + 1));
        let mut shape = Rectangle::new([(0.0, from), (bar.value.min(end), to)], colour.filled());
        shape.set_margin(2, 2, 0, 0);
        chart.draw_series([shape])?;
        let whisker = [bar.low, bar.high].map(|at| (at.min(end), SegmentValue::CenterOf(row)));
        chart.draw_series([PathElement::new(whisker, BLACK)])?;
        let after = (bar.value.max(bar.high).min(end) + end * 0.02, SegmentValue::CenterOf(row));
        let style = ("sans-serif", 13).into_text_style(&area);
        let place = plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Left,
            plotters::style::text_anchor::VPos::Center,
        );
        chart.draw_series([Text::new(bar.text.clone(), after, style.pos(place))])?;
    }
    drop(chart);
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_become_a_picture() {
        let bar =
            |title, value, is_ours| Bar { title, value, low: value, high: value, text: format!("{value}"), is_ours };
        let svg = bars("pairs", &[bar("one", 1.0, true), bar("two", 2.5, false), bar("far", 100.0, false)]);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(["pairs", "one", "two", "2.5"].iter().all(|word| svg.contains(word)), "{svg}");
    }
}
