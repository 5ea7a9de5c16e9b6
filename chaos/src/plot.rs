//! The series of a run as a plot: one panel per figure, one line per replica.

use bench_sync::svg::{LEFT, RIGHT, TOP, WIDTH, begin, largest, line, number_of, push, step, text};

use crate::{cluster::REPLICAS, series::Point};

/// Height of one panel.
const PANEL: f64 = 120.0;
/// Height between two panels, and below the last one for the title of the common axis.
const GAP: f64 = 30.0;
/// The classes of the lines, one per replica.
const LINES: [&str; REPLICAS] = ["line", "line line1", "line line2"];

/// The value of a point in a panel. `None`: it is not known.
type Figure = fn(&Point) -> Option<f64>;

const PANELS: [(&str, Figure); 5] = [
    ("memory, MiB", |point| Some(point.memory / f64::from(1 << 20))),
    ("cached documents, a part of the memory, MiB", |point| Some(point.cached / f64::from(1 << 20))),
    ("open files and sockets", |point| Some(point.files)),
    ("tasks", |point| Some(point.tasks)),
    ("freshness, 99 of 100 changes of the last 5 s, in seconds", |point| point.freshness_p99),
];

/// Draws the points.
pub(crate) fn drawn(title: &str, points: &[Point]) -> String {
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP) + GAP;
    let mut svg = begin(title, height);
    let end = largest(&points.iter().map(|point| point.at).collect::<Vec<_>>()).max(1.0);
    let across = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
    for (number, (what, figure)) in PANELS.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL + GAP) + 14.0;
        let bottom = top + PANEL - 14.0;
        let values: Vec<_> = points.iter().filter_map(figure).collect();
        let step = step(largest(&values));
        let most = (largest(&values) / step).ceil().max(1.0) * step;
        let up = |value: f64| bottom - value / most * (bottom - top);
        text(&mut svg, LEFT, top - 8.0, "", what);
        let mut value = 0.0;
        while value <= most * 1.000_1 {
            line(&mut svg, "grid", (LEFT, up(value)), (WIDTH - RIGHT, up(value)));
            text(&mut svg, LEFT - 8.0, up(value) + 4.0, "end", &number_of(value));
            value += step;
        }
        for (replica, class) in LINES.iter().enumerate() {
            let of_replica = points.iter().filter(|point| point.replica == replica);
            let places = of_replica.filter_map(|point| Some((across(point.at), up(figure(point)?))));
            let path: Vec<_> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            push(&mut svg, format_args!("<polyline class=\"{class}\" points=\"{}\"/>", path.join(" ")));
        }
    }
    let bottom = height - GAP;
    for part in 0..=4 {
        let at = end * f64::from(part) / 4.0;
        text(&mut svg, across(at), bottom, "middle", &number_of((at / 6.0).round() / 10.0));
    }
    let axis = "minutes; a line for each of the three replicas";
    text(&mut svg, (LEFT + WIDTH - RIGHT) / 2.0, height - 8.0, "middle", axis);
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_replica_has_a_line_in_each_panel_and_what_is_not_known_is_left_out() {
        let point = |at, replica, freshness_p99| Point {
            at,
            replica,
            memory: 50e6,
            cached: 9e6,
            files: 40.0,
            tasks: 90.0,
            freshness_p99,
            events: 7.0,
        };
        let points = [point(0.0, 0, None), point(5.0, 0, Some(0.02)), point(5.0, 1, None)];
        let svg = drawn("a run", &points);
        assert_eq!(svg.matches("<polyline").count(), PANELS.len() * REPLICAS);
        let pairs = |class: &str| -> Vec<usize> {
            let before = format!("class=\"{class}\" points=\"");
            let lines = svg.split(before.as_str()).skip(1);
            lines.map(|line| line.split('"').next().unwrap_or_default().matches(',').count()).collect()
        };
        assert_eq!(pairs("line"), [2, 2, 2, 2, 1]);
        assert_eq!(pairs("line line1"), [1, 1, 1, 1, 0]);
        assert_eq!(pairs("line line2"), [0, 0, 0, 0, 0]);
    }
}
