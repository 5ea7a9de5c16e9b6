//! Plots of a run as SVG: lines over the growing quantity, and the ratios of the workloads as bars.

use std::path::Path;

use anyhow::{Context, Result};
use bench_sync::svg::{LEFT, RIGHT, TOP, WIDTH, begin, largest, line, number_of, push, step, text};
use clap::ValueEnum as _;

use crate::{
    growth::{Point, Series},
    report::Row,
    run::Run,
};

/// Height of one panel, including its axis.
const PANEL: f64 = 190.0;
/// Height between two panels, and below the last one for the title of the common axis.
const GAP: f64 = 34.0;
const BAR: f64 = 22.0;

/// A line over a common horizontal axis.
struct Panel<'a> {
    title: &'a str,
    values: Vec<f64>,
}

/// The file name of a series' plot.
pub(crate) fn file_of(series: Series) -> String {
    format!("growth-{}.svg", series.name())
}

/// The file name of the ratios' plot.
pub(crate) const RATIOS: &str = "ratios.svg";

/// Writes a plot of each measured series, and one of the workloads' ratios. Returns the file names.
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

/// One bar per workload, with its spread. At the dashed line, both are equal.
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
    fn only_what_was_measured_is_plotted() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = Run::new(true, Vec::new(), vec![point(1.0, 1.0), point(2.0, 1.0)]).expect("a run");
        assert_eq!(write(&run, directory.path()).expect("written"), ["growth-twins.svg"]);
        assert!(directory.path().join("growth-twins.svg").is_file());
    }
}
