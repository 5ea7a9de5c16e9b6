//! Plots of a run as SVG: lines over what grows, and the ratios of the workloads as bars.
//!
//! No colour of the background is set: text and lines are readable on light and dark, and follow the reader's preference where it is known.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result};
use clap::ValueEnum as _;
use twinsync::domain::headline::grouped;

use crate::{
    growth::{Point, Series},
    report::Row,
    run::Run,
};

const WIDTH: f64 = 640.0;
/// Of one panel, its axis included.
const PANEL: f64 = 190.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
/// Between two panels, and below the last one for the title of the common axis.
const GAP: f64 = 34.0;
const BAR: f64 = 22.0;
/// Lines across a panel, at most.
const GRID: usize = 5;

/// One line of text, or a part of a plot, is drawn with one of these.
const STYLE: &str = "<style>\
text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:15px;font-weight:600}.middle{text-anchor:middle}.end{text-anchor:end}\
.grid{stroke:#8c959f;stroke-opacity:.35}.axis{stroke:#8c959f}.line{fill:none;stroke:#2f81f7;stroke-width:2}.dot,.bar{fill:#2f81f7}\
.spread{stroke:#8c959f;stroke-width:2}.even{stroke:#d29922;stroke-dasharray:4 3}\
@media (prefers-color-scheme:dark){text{fill:#adbac7}}</style>";

/// A line over a common horizontal axis.
struct Panel<'a> {
    title: &'a str,
    values: Vec<f64>,
}

/// The file of a series' plot.
pub(crate) fn file_of(series: Series) -> String {
    format!("growth-{}.svg", series.name())
}

/// The file of the ratios' plot.
pub(crate) const RATIOS: &str = "ratios.svg";

/// Writes a plot of each series that was measured, and one of the workloads' ratios. Returns the names of the files.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(run: &Run, directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot write plots to {}", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    let mut files = Vec::new();
    for series in Series::value_variants() {
        let points: Vec<_> = run.growth.iter().filter(|point| point.series == *series).collect();
        if points.len() > 1 {
            std::fs::write(directory.join(file_of(*series)), growth(*series, &points))
                .with_context(failed)?;
            files.push(file_of(*series));
        }
    }
    if run.workloads.iter().any(|row| row.ratio.is_some()) {
        std::fs::write(directory.join(RATIOS), ratios(&run.workloads)).with_context(failed)?;
        files.push(RATIOS.to_owned());
    }
    Ok(files)
}

fn growth(series: Series, points: &[&Point]) -> String {
    let values = |figure: &dyn Fn(&Point) -> f64| points.iter().map(|point| figure(point)).collect();
    let panels = [
        Panel { title: "events per second", values: values(&|point| point.events_per_second) },
        Panel { title: "CPU, µs per event", values: values(&|point| point.cpu_seconds_per_event * 1e6) },
        Panel {
            title: "peak memory, MiB",
            values: values(&|point| point.peak_memory as f64 / f64::from(1 << 20)),
        },
    ];
    let places: Vec<_> = points.iter().map(|point| point.at).collect();
    let (title, axis) = match series {
        Series::Partitions => ("Partitions", "partitions of each of the two Event Hubs (logarithmic)"),
        Series::Twins => ("Twins", "twins (logarithmic)"),
        Series::Documents => ("Size of documents", "bytes of a document (logarithmic)"),
        Series::Replicas => ("Replicas", "replicas on one machine (logarithmic)"),
    };
    lines(title, axis, &places, &panels)
}

fn lines(title: &str, axis: &str, places: &[f64], panels: &[Panel<'_>]) -> String {
    let height = TOP + panels.len() as f64 * (PANEL + GAP) + GAP / 2.0;
    let mut svg = begin(title, height);
    let across = |at: f64| {
        let (least, most) = (places.iter().copied().fold(f64::MAX, f64::min), largest(places));
        let part = if most > least { (at / least).ln() / (most / least).ln() } else { 0.5 };
        LEFT + 16.0 + part * (WIDTH - LEFT - RIGHT - 48.0)
    };
    for (number, panel) in panels.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL + GAP) + 14.0;
        let bottom = top + PANEL - 14.0;
        let step = step(largest(&panel.values));
        let most = (largest(&panel.values) / step).ceil().max(1.0) * step;
        let up = |value: f64| bottom - value / most * (bottom - top);
        text(&mut svg, LEFT, top - 8.0, "", panel.title);
        let mut value = 0.0;
        while value <= most * 1.000_1 {
            line(&mut svg, "grid", (LEFT, up(value)), (WIDTH - RIGHT, up(value)));
            text(&mut svg, LEFT - 8.0, up(value) + 4.0, "end", &number_of(value));
            value += step;
        }
        line(&mut svg, "axis", (LEFT, bottom), (WIDTH - RIGHT, bottom));
        let marks: Vec<_> =
            places.iter().zip(&panel.values).map(|(at, value)| (across(*at), up(*value))).collect();
        let path: Vec<_> = marks.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        push(&mut svg, format_args!("<polyline class=\"line\" points=\"{}\"/>", path.join(" ")));
        for ((x, y), at) in marks.iter().zip(places) {
            push(&mut svg, format_args!("<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"));
            text(&mut svg, *x, bottom + 15.0, "middle", &number_of(*at));
        }
    }
    text(&mut svg, (LEFT + WIDTH - RIGHT) / 2.0, height - 8.0, "middle", axis);
    svg.push_str("</svg>\n");
    svg
}

/// One bar per workload, with its spread; the dashed line is where both are equal.
fn ratios(rows: &[Row]) -> String {
    let bars: Vec<_> = rows.iter().filter_map(|row| Some((row, row.ratio?))).collect();
    let height = TOP + bars.len() as f64 * (BAR + 10.0) + 48.0;
    let bottom = height - 40.0;
    let mut svg = begin("twinsync beside its bare loop", height);
    let most = bars.iter().map(|(_, ratio)| ratio.most).fold(1.0, f64::max);
    let step = step(most);
    let most = (most / step).ceil() * step;
    let (left, right) = (LEFT + 70.0, WIDTH - RIGHT - 48.0);
    let across = |value: f64| left + value / most * (right - left);
    let mut value = 0.0;
    while value <= most * 1.000_1 {
        line(&mut svg, "grid", (across(value), TOP), (across(value), bottom));
        text(&mut svg, across(value), bottom + 15.0, "middle", &number_of(value));
        value += step;
    }
    for (number, (row, ratio)) in bars.iter().enumerate() {
        let y = TOP + number as f64 * (BAR + 10.0) + 5.0;
        let name = row.workload.name();
        let name = if row.workload.compares_cpu() { format!("{name} (CPU)") } else { name };
        text(&mut svg, left - 8.0, y + 15.0, "end", &name);
        let width = across(ratio.median) - left;
        push(
            &mut svg,
            format_args!(
                "<rect class=\"bar\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\"/>"
            ),
        );
        let middle = y + BAR / 2.0;
        line(&mut svg, "spread", (across(ratio.least), middle), (across(ratio.most), middle));
        text(&mut svg, across(ratio.most) + 6.0, y + 15.0, "", &format!("{:.2}", ratio.median));
    }
    line(&mut svg, "even", (across(1.0), TOP), (across(1.0), bottom));
    let axis = "events per second, daemon / bare loop; for steady loads CPU per event, daemon / bare loop";
    text(&mut svg, WIDTH / 2.0, height - 8.0, "middle", axis);
    svg.push_str("</svg>\n");
    svg
}

fn begin(title: &str, height: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         role=\"img\"><title>{}</title>{STYLE}",
        escaped(title)
    );
    text(&mut svg, LEFT, 22.0, "title", title);
    svg
}

fn push(svg: &mut String, what: std::fmt::Arguments<'_>) {
    // Nothing that is written to a string fails.
    let _ = svg.write_fmt(what);
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, what: &str) {
    push(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escaped(what)));
}

fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    push(
        svg,
        format_args!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"),
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// 1, 2 or 5 times a power of ten, so that a panel has a handful of lines.
fn step(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let least = most / GRID as f64;
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least * 0.999_9);
    factor.unwrap_or(10.0) * power
}

/// Thousands are set apart; fractions are shown where they count.
fn number_of(value: f64) -> String {
    if value != 0.0 && value < 10.0 && value.fract().abs() > 1e-9 {
        return format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    grouped(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: f64, events_per_second: f64) -> Point {
        Point {
            series: Series::Twins,
            at,
            twins: at as usize,
            events: 1_000,
            events_per_second,
            cpu_seconds_per_event: 1e-4,
            peak_memory: 50 << 20,
            writes_per_event: 0.1,
            request_units_per_event: 1.0,
        }
    }

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
    fn a_line_rises_with_its_values_and_every_axis_has_a_title_with_its_unit() {
        let (low, high) = (point(1_000.0, 100.0), point(100_000.0, 900.0));
        let svg = growth(Series::Twins, &[&low, &high]);
        let (_, line) = svg.split_once("points=\"").expect("a line");
        let heights: Vec<f64> = line
            .split('"')
            .next()
            .expect("points")
            .split(' ')
            .map(|point| point.split_once(',').expect("a pair").1.parse().expect("a number"))
            .collect();
        assert!(heights[0] > heights[1], "up is less: {heights:?}");
        for title in ["events per second", "CPU, µs per event", "peak memory, MiB", "twins (logarithmic)"] {
            assert!(svg.contains(&format!(">{title}</text>")), "{title}");
        }
        assert!(svg.contains("prefers-color-scheme:dark") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 6);
    }

    #[test]
    fn what_is_text_stays_text() {
        assert!(
            lines("a < b & \"c\"", "x", &[1.0], &[]).contains("<title>a &lt; b &amp; &quot;c&quot;</title>")
        );
    }

    #[test]
    fn only_what_was_measured_is_plotted() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = Run::new(true, Vec::new(), vec![point(1.0, 1.0), point(2.0, 1.0)]).expect("a run");
        assert_eq!(write(&run, directory.path()).expect("written"), ["growth-twins.svg"]);
        assert!(directory.path().join("growth-twins.svg").is_file());
    }
}
