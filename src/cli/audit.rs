//! `twinsync audit`: finds differences between the documents and the hubs' twins.

use std::{path::PathBuf, sync::atomic::Ordering, time::Duration};

use serde::Serialize;

use super::{
    Error, Sources,
    output::{self, printable, table},
    reconcile::{Session, stopped, watched},
};
use crate::{
    config::parse_duration,
    domain::drift::{Drift, ORPHAN, Strictness},
    runtime::reconcile::{
        audit::{self, Finding, FindingOutcome, Options, Progress, Report},
        candidates::Ended,
        reconciler::Mode,
    },
};

/// Maximum number of findings in the text output. The report file and `--json` have more.
const SHOWN: usize = 20;

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Only this hub; by default all configured hubs, one after the other.
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// Percentage of the twins to compare; each audit takes a different part.
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0, value_parser = percentage)]
    sample: f64,
    /// Repairs differences; without this, nothing is written.
    #[arg(long)]
    repair: bool,
    /// Compares `$metadata` as well.
    #[arg(long)]
    strict: bool,
    /// Does not compare twins that changed within this time, e.g. "30m", except audit.recent_checks of them. Default: audit.tolerance.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    tolerance: Option<Duration>,
    /// Writes the whole report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Prints one JSON object per hub.
    #[arg(long)]
    json: bool,
}

fn percentage(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        Ok(_) | Err(_) => Err("a percentage above 0, up to 100".to_owned()),
    }
}

#[derive(Serialize)]
struct File<'a> {
    reports: &'a [Report],
}

/// Audits the hubs. Fails if differences remain or some twins had no answer.
pub async fn run(arguments: &Arguments) -> Result<(), Error> {
    let session = Session::begin(&arguments.sources).await?;
    let options = Options {
        sample: arguments.sample / 100.0,
        mode: if arguments.repair { Mode::Correct } else { Mode::Compare },
        strictness: if arguments.strict { Strictness::Metadata } else { Strictness::Content },
        tolerance: arguments.tolerance.unwrap_or(session.reconciler.audit.tolerance),
        ..session.reconciler.audit
    };
    let mut reports = Vec::new();
    for registry in session.hubs(arguments.hub.as_deref())? {
        let progress = Progress::default();
        // The daemon's audits take turns through the recent twins. This one begins at a random place.
        let from = rand::random::<u64>() >> 11;
        let work =
            audit::run(&session.reconciler.reconciler, &registry, &options, from, &progress, &session.stop);
        let position =
            || (progress.already_checked.load(Ordering::Relaxed), progress.devices.load(Ordering::Relaxed));
        let label = format!("audit of {}", registry.hub());
        let report = match watched(arguments.json, label, position, Box::pin(work)).await {
            Ok(report) => report,
            Err(Ended::Stopped) => return Err(stopped("an incomplete audit has no report")),
            Err(error) => return Err(Error::Failed(error.to_string())),
        };
        match arguments.json {
            true => output::json(&report)?,
            false => output::line(text(&report).trim_end())?,
        }
        reports.push(report);
    }
    if let Some(path) = &arguments.report {
        keep(path, &reports)?;
    }
    end(&reports)
}

fn keep(path: &PathBuf, reports: &[Report]) -> Result<(), Error> {
    let failed = |reason: String| Error::Failed(format!("cannot write {}: {reason}", path.display()));
    let text = serde_json::to_vec_pretty(&File { reports }).map_err(|error| failed(error.to_string()))?;
    std::fs::write(path, text).map_err(|error| failed(error.to_string()))
}

fn end(reports: &[Report]) -> Result<(), Error> {
    let left: u64 = reports.iter().map(Report::left).sum();
    let unknown: u64 = reports.iter().map(|report| report.unknown).sum();
    if unknown > 0 {
        return Err(Error::Failed(format!(
            "{left} twins differ, and {unknown} could not be compared, because Cosmos DB or the hub did not answer; those were not changed: run the audit again"
        )));
    }
    match usize::try_from(left) {
        Ok(0) => Ok(()),
        Ok(left) => Err(Error::Different(left)),
        Err(_) => Err(Error::Different(usize::MAX)),
    }
}

fn text(report: &Report) -> String {
    let seconds = report.finished_at.seconds_since(report.started_at);
    let mut text = format!(
        "{}: {} twins and {} documents in {seconds:.1} s, {:.0} %: {} differ{}\n",
        report.hub,
        report.twins,
        report.documents,
        report.sample * 100.0,
        report.left(),
        if report.repairs { " after repair" } else { "" },
    );
    let row = |name: &str, count: u64, note: &str| [format!("  {name}"), count.to_string(), note.to_owned()];
    let mut rows = Vec::new();
    for class in Drift::CLASSES {
        let of = |counts: &std::collections::BTreeMap<_, u64>| counts.get(class).copied().unwrap_or_default();
        let note = if report.repairs { format!("{} repaired", of(&report.repaired)) } else { String::new() };
        rows.push(row(class, of(&report.found), &note));
    }
    let orphans = report.found.get(ORPHAN).copied().unwrap_or_default();
    rows.push(row(
        ORPHAN,
        orphans,
        if orphans > 0 { "documents that nobody updates: delete them" } else { "" },
    ));
    let note =
        format!("changed within the tolerance and not compared; {} more were compared", report.recent_asked);
    rows.push(row("too recent", report.recent, &note));
    rows.push(row(
        "cleared",
        report.cleared,
        "the query result was old; the hub's present twin equals the document",
    ));
    for (name, count, note) in [
        ("completed", report.completed, "fields of the identity, such as status, were added"),
        ("incomplete", report.incomplete, "lack fields of the identity, such as status: --repair adds them"),
    ] {
        if count > 0 {
            rows.push(row(name, count, note));
        }
    }
    rows.push(row("not known", report.unknown, ""));
    rows.push(row("still different", report.still_different, ""));
    text.push_str(&table(&rows));
    for finding in report.findings.iter().take(SHOWN) {
        text.push_str(&format!("  {}\n", line(finding)));
    }
    if report.findings.len() > SHOWN {
        text.push_str(&format!("  … and {} more, see --report\n", report.findings.len() - SHOWN));
    }
    text
}

fn line(finding: &Finding) -> String {
    let module = finding.module_id.as_ref().map_or_else(String::new, |module| format!("/{module}"));
    let part = finding.part.map_or_else(String::new, |part| format!(" ({part})"));
    let reason = finding.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let outcome = match finding.outcome {
        FindingOutcome::Repaired => ", repaired",
        FindingOutcome::Found => "",
        FindingOutcome::Rejected => ", refused by Cosmos DB",
        FindingOutcome::Unknown => ", not known",
        FindingOutcome::Orphaned => "",
        FindingOutcome::StillDifferent => ", still different after its repair",
    };
    printable(&format!("{}{part}  {}{module}{outcome}{reason}", finding.class, finding.device_id), false)
}
