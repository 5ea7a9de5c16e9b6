//! The parts of plots, as SVG.
//!
//! The background has no colour. Text and lines are readable on light and dark backgrounds, and follow the reader's preference if it is
//! known.

use std::fmt::{Arguments, Write as _};

use twinsync::domain::words::grouped;

/// Width of a plot.
pub const WIDTH: f64 = 640.0;
/// Space on the left, for the labels of the horizontal lines.
pub const LEFT: f64 = 90.0;
/// Space on the right.
pub const RIGHT: f64 = 24.0;
/// Space at the top, for the title.
pub const TOP: f64 = 44.0;
/// Maximum number of horizontal lines in a panel.
const GRID: usize = 5;

/// The style of plots.
const STYLE: &str = "<style>\
text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:15px;font-weight:600}.middle{text-anchor:middle}.end{text-anchor:end}\
.grid{stroke:#8c959f;stroke-opacity:.35}.axis{stroke:#8c959f}.line{fill:none;stroke:#2f81f7;stroke-width:2}.dot,.bar{fill:#2f81f7}\
.line1{stroke:#8250df}.line2{stroke:#bf8700}.spread{stroke:#8c959f;stroke-width:2}.even{stroke:#d29922;stroke-dasharray:4 3}\
@media (prefers-color-scheme:dark){text{fill:#adbac7}}</style>";

/// The beginning of a plot, with its title.
pub fn begin(title: &str, height: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         role=\"img\"><title>{}</title>{STYLE}",
        escaped(title)
    );
    text(&mut svg, LEFT, 22.0, "title", title);
    svg
}

/// Adds a part.
pub fn push(svg: &mut String, what: Arguments<'_>) {
    // Writing to a string never fails.
    let _ = svg.write_fmt(what);
}

/// Adds text at a position, with a class of the style.
pub fn text(svg: &mut String, x: f64, y: f64, class: &str, what: &str) {
    push(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escaped(what)));
}

/// Adds a straight line, with a class of the style.
pub fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    push(
        svg,
        format_args!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"),
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The largest value. 0 if there are none.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// 1, 2 or 5 times a power of ten, so that a panel has about five lines.
pub fn step(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let least = most / GRID as f64;
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least * 0.999_9);
    factor.unwrap_or(10.0) * power
}

/// Formats a number: groups the thousands, and shows decimals only for small values.
pub fn number_of(value: f64) -> String {
    if value != 0.0 && value < 10.0 && value.fract().abs() > 1e-9 {
        return format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    grouped(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        for (most, expected) in [(1.0, 0.2), (4.9, 1.0), (5.1, 2.0), (9_900.0, 2_000.0), (0.0, 1.0)] {
            assert!((step(most) - expected).abs() < 1e-9, "{most}: {}", step(most));
        }
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [0.0, 0.25, 1.5, 10.0, 1_234.4, 1_000_000.0].map(number_of),
            ["0", "0.25", "1.5", "10", "1,234", "1,000,000"]
        );
    }

    #[test]
    fn what_is_text_stays_text() {
        assert!(begin("a < b & \"c\"", 9.0).contains("<title>a &lt; b &amp; &quot;c&quot;</title>"));
    }
}
