//! Updates the generated parts of `docs/performance.md` from the file of a run.
//!
//! A generated part is between `<!-- bench: NAME -->` and `<!-- bench: end -->`. Everything else in the page is written by hand and not
//! changed.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;

use crate::{
    growth::Series,
    namespace, plots,
    report::{Row, Table, UsualTable},
    run::Run,
};

const END: &str = "<!-- bench: end -->";
/// The directory of the plots, relative to the page.
const PLOTS: &str = "images/performance";

/// Writes the page and the plots.
///
/// # Errors
/// The run or the page cannot be read, the page has no place for a part, or a file cannot be written.
pub(crate) fn document(run: &Path, page: &Path) -> Result<()> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let run: Run = serde_json::from_str(&read(run)?).context("this is not the output of `--json`")?;
    let directory = page.parent().unwrap_or(Path::new(".")).join(PLOTS);
    let plots = plots::write(&run, &directory)?;
    let mut text = read(page)?;
    for (name, part) in parts(&run, &plots) {
        // Parts that were not measured this time stay as they are.
        if let Some(part) = part {
            text = filled(&text, name, &part)?;
        }
    }
    std::fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// The text that a terminal shows for a run.
pub(crate) fn shown(run: &Run) -> String {
    let mut text = String::new();
    if !run.workloads.is_empty() {
        text.push_str(&workloads(&run.workloads, &[]));
    }
    if let Some(usual) = usual(&run.workloads) {
        text.push('\n');
        text.push_str(&usual);
    }
    if !run.growth.is_empty() {
        text.push('\n');
        text.push_str(&growth(run, &[]));
    }
    text
}

fn parts(run: &Run, plots: &[String]) -> [(&'static str, Option<String>); 5] {
    let measured = !run.workloads.is_empty();
    [
        ("machine", measured.then(|| machine(run))),
        ("workloads", measured.then(|| workloads(&run.workloads, plots))),
        ("usual", usual(&run.workloads)),
        ("growth", (!run.growth.is_empty()).then(|| growth(run, plots))),
        ("namespace", measured.then(|| namespace::table(&run.workloads))),
    ]
}

fn machine(run: &Run) -> String {
    let machine = &run.machine;
    let gib = machine.memory as f64 / f64::from(1 << 30);
    let quick = if run.quick { " A quick run, with a tenth of the work: no figures to quote." } else { "" };
    format!(
        "Measured at {}: {} cores of {}, {gib:.1} GiB of memory, Linux {}, mean load {:.1}, by `cargo bench-sync {}`.{quick}\n",
        run.at,
        machine.cores,
        if machine.processor.is_empty() { "an unnamed processor" } else { &machine.processor },
        machine.kernel,
        machine.load,
        run.arguments.join(" "),
    )
}

fn workloads(rows: &[Row], plots: &[String]) -> String {
    let mut text = Table(rows).to_string();
    if plots.iter().any(|plot| plot == plots::RATIOS) {
        picture(&mut text, "The ratio of each workload to its bare loop", plots::RATIOS);
    }
    text
}

fn usual(rows: &[Row]) -> Option<String> {
    let table = UsualTable(rows);
    (!table.is_empty()).then(|| table.to_string())
}

fn growth(run: &Run, plots: &[String]) -> String {
    let mut text = String::new();
    for series in Series::value_variants() {
        let points: Vec<_> = run.growth.iter().filter(|point| point.series == *series).collect();
        if points.is_empty() {
            continue;
        }
        let at = match series {
            Series::Partitions => "partitions per Event Hub",
            Series::Twins => "twins",
            Series::Documents => "document, KB",
            Series::Replicas => "replicas",
        };
        let _ = writeln!(
            text,
            "\n| {at} | twins · events | events/s | CPU µs/event | peak MiB | writes · RU per event |\n|---|---|---|---|---|---|"
        );
        for point in points {
            let at = match series {
                Series::Documents => format!("{:.1}", point.at / 1e3),
                Series::Partitions | Series::Twins | Series::Replicas => format!("{:.0}", point.at),
            };
            let _ = writeln!(
                text,
                "| {at} | {} · {} | {:.0} | {:.0} | {:.0} | {:.3} · {:.2} |",
                point.twins,
                point.events,
                point.events_per_second,
                point.cpu_seconds_per_event * 1e6,
                point.peak_memory as f64 / f64::from(1 << 20),
                point.writes_per_event,
                point.request_units_per_event,
            );
        }
        let file = plots::file_of(*series);
        if plots.contains(&file) {
            picture(&mut text, &format!("Growth over {at}"), &file);
        }
    }
    text.trim_start().to_owned()
}

fn picture(text: &mut String, what: &str, file: &str) {
    // Writing to a string never fails.
    let _ = writeln!(text, "\n![{what}]({PLOTS}/{file})");
}

/// Returns the page with new content of one part.
fn filled(page: &str, name: &str, part: &str) -> Result<String> {
    let begin = format!("<!-- bench: {name} -->");
    let (before, rest) = page.split_once(&begin).with_context(|| format!("the page has no `{begin}`"))?;
    let (old, after) = rest.split_once(END).with_context(|| format!("`{begin}` has no `{END}`"))?;
    ensure!(!old.contains("<!-- bench:"), "`{begin}` has no `{END}` of its own");
    Ok(format!("{before}{begin}\n\n{}\n\n{END}{after}", part.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::Point;

    const PAGE: &str = "# Page\n<!-- bench: a -->\nold\n<!-- bench: end -->\nby hand\n<!-- bench: b -->\n<!-- bench: end -->\n";

    #[test]
    fn a_part_is_replaced_and_what_is_written_by_hand_stays() {
        let once = filled(PAGE, "a", "new\n").expect("has a place");
        assert_eq!(once, PAGE.replace("\nold\n", "\n\nnew\n\n"));
        assert_eq!(filled(&once, "a", "new").expect("has a place"), once, "the same again");
    }

    #[test]
    fn a_part_without_a_place_is_an_error() {
        assert!(filled(PAGE, "c", "").is_err());
        assert!(filled("<!-- bench: a -->\n", "a", "").is_err());
        assert!(filled("<!-- bench: a -->\n<!-- bench: b -->\n<!-- bench: end -->", "a", "").is_err());
    }

    #[test]
    fn the_page_of_the_repository_has_a_place_for_everything() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        let mut page = std::fs::read_to_string(path).expect("there is one");
        let run = Run::new(false, Vec::new(), Vec::new()).expect("a run");
        for (name, _) in parts(&run, &[]) {
            page = filled(&page, name, "x").unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn growth_has_a_row_per_point_and_a_picture_per_series() {
        let point = |at: f64| Point {
            series: Series::Documents,
            at,
            twins: 10,
            events: 100,
            events_per_second: 1_000.0,
            cpu_seconds_per_event: 2e-4,
            peak_memory: 64 << 20,
            writes_per_event: 0.5,
            request_units_per_event: 5.0,
        };
        let run = Run::new(false, Vec::new(), vec![point(1_000.0), point(72_000.0)]).expect("a run");
        let text = growth(&run, &[plots::file_of(Series::Documents)]);
        assert!(text.contains("| 72.0 | 10 · 100 | 1000 | 200 | 64 | 0.500 · 5.00 |"), "{text}");
        assert!(text.contains("(images/performance/growth-documents.svg)"), "{text}");
    }
}
