//! `twinsync deadletters replay`

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::{
    filter::Filter,
    row::Row,
    scan::{Found, Scan, Stop, ended},
};
use crate::{
    app,
    cli::{
        Error, Sources,
        output::{self, printable},
    },
    config::Settings,
    ports::{DeadLetterArchive, LetterName, LetterVersion, Removed},
    runtime::replay::{Submitted, Verdict},
    telemetry,
};

/// Maximum number of submitted dead letters whose outcome is still pending. The in-flight limits bound their bodies.
const WINDOW: usize = 1024;

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    filter: Filter,
    /// Reports what would happen to each dead letter; writes and removes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Prints one JSON object per line: each dead letter, then the counts.
    #[arg(long)]
    json: bool,
}

/// Replays the matching dead letters.
pub(super) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let settings = arguments.sources.load()?;
    telemetry::init(&settings.telemetry).map_err(|error| Error::Failed(error.to_string()))?;
    let report = match arguments.dry_run {
        true => preview(arguments, &settings).await?,
        false => replay(arguments, &settings).await?,
    };
    report.end()
}

async fn preview(arguments: &Arguments, settings: &Settings) -> Result<Report, Error> {
    let letters = app::dead_letter_commands::connect(settings).await?;
    let mut scan = Scan::begin(letters.archive, &arguments.filter).await?;
    let mut preview = app::dead_letter_commands::preview(settings).await?;
    let mut report = Report::new(arguments);
    while let Some(stop) = scan.next().await? {
        match stop {
            Stop::Letter(found) => {
                let Found { name, letter, .. } = *found;
                let verdict = preview.next(&letter).await;
                report.letter(&Row::new(&name, &letter), &verdict, &Removal::Untouched)?;
            }
            Stop::Unreadable(unreadable) => {
                report.summary.unreadable += 1;
                unreadable.print(arguments.json)?;
            }
        }
    }
    Ok(report)
}

/// A dead letter that was submitted to the router.
struct Pending {
    name: LetterName,
    version: LetterVersion,
    row: Row,
    submitted: Submitted,
}

async fn replay(arguments: &Arguments, settings: &Settings) -> Result<Report, Error> {
    let letters = app::dead_letter_commands::connect(settings).await?;
    let archive = letters.archive.as_ref();
    let mut scan = Scan::begin(letters.archive.clone(), &arguments.filter).await?;
    let replay = app::dead_letter_commands::replay(settings, &letters).await?;
    let mut report = Report::new(arguments);
    let mut pending = VecDeque::new();
    while let Some(stop) = scan.next().await? {
        match stop {
            Stop::Letter(found) => {
                let Found { name, letter, version } = *found;
                let row = Row::new(&name, &letter);
                let submitted = replay.submit(letter).await.map_err(app::Error::from)?;
                pending.push_back(Pending { name, version, row, submitted });
            }
            Stop::Unreadable(unreadable) => {
                report.summary.unreadable += 1;
                unreadable.print(arguments.json)?;
            }
        }
        if pending.len() >= WINDOW
            && let Some(first) = pending.pop_front()
        {
            conclude(archive, first, &mut report).await?;
        }
    }
    while let Some(first) = pending.pop_front() {
        conclude(archive, first, &mut report).await?;
    }
    replay.finish().await.map_err(app::Error::from)?;
    Ok(report)
}

/// Waits until the outcome is durable. Only then is the dead letter removed.
async fn conclude(
    archive: &dyn DeadLetterArchive,
    pending: Pending,
    report: &mut Report,
) -> Result<(), Error> {
    let Pending { name, version, row, submitted } = pending;
    let verdict = submitted.verdict().await.map_err(app::Error::from)?;
    let removal = match verdict.is_final() {
        false => Removal::Untouched,
        true => match archive.remove(&name, &version).await {
            Ok(Removed::Gone) => Removal::Removed,
            Ok(Removed::Changed) => Removal::Failed("it was replaced in the meantime and is kept".to_owned()),
            Err(error) => Removal::Failed(format!("{error}; replaying it again is harmless")),
        },
    };
    report.letter(&row, &verdict, &removal)
}

/// The outcome for the dead letter itself.
enum Removal {
    Removed,
    Untouched,
    Failed(String),
}

#[derive(Serialize)]
struct LetterLine<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    row: &'a Row,
    outcome: &'static str,
    removed: bool,
    why: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    r#type: &'static str,
    dry_run: bool,
    letters: u64,
    removed: u64,
    /// Number of dead letters that still cannot be applied.
    stay: u64,
    /// Number of dead letters that are decided and could not be removed, or whose document a preview could not read.
    failed: u64,
    unreadable: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

/// Prints each dead letter, and counts.
struct Report {
    json: bool,
    summary: Summary,
}

impl Report {
    fn new(arguments: &Arguments) -> Self {
        let summary = Summary {
            r#type: "summary",
            dry_run: arguments.dry_run,
            letters: 0,
            removed: 0,
            stay: 0,
            failed: 0,
            unreadable: 0,
            outcomes: BTreeMap::new(),
        };
        Self { json: arguments.json, summary }
    }

    fn letter(&mut self, row: &Row, verdict: &Verdict, removal: &Removal) -> Result<(), Error> {
        let summary = &mut self.summary;
        summary.letters += 1;
        *summary.outcomes.entry(verdict.name()).or_default() += 1;
        match (verdict, removal) {
            (_, Removal::Removed) => summary.removed += 1,
            (_, Removal::Failed(_)) | (Verdict::Unknown(_), Removal::Untouched) => summary.failed += 1,
            (Verdict::Undeliverable { .. } | Verdict::Ignored(_), Removal::Untouched) => summary.stay += 1,
            (Verdict::Decided(_), Removal::Untouched) => {}
        }
        let why = match removal {
            Removal::Failed(reason) => Some(reason.clone()),
            Removal::Removed | Removal::Untouched => verdict.why_it_stays(),
        };
        if self.json {
            let (outcome, removed) = (verdict.name(), matches!(removal, Removal::Removed));
            return output::json(&LetterLine { r#type: "letter", row, outcome, removed, why });
        }
        let would = if summary.dry_run { "would be " } else { "" };
        let why = why.map_or_else(String::new, |why| format!(" ({})", printable(&why, false)));
        output::line(format_args!("{}  {would}{}{why}", row.head(), verdict.name()))
    }

    fn end(self) -> Result<(), Error> {
        let summary = &self.summary;
        if self.json {
            output::json(summary)?;
        } else {
            output::line(text(summary))?;
        }
        let stay = (summary.stay > 0 && !summary.dry_run)
            .then(|| format!("{} still cannot be applied and are kept", output::letters(summary.stay)));
        let failed = (summary.failed > 0).then(|| match summary.dry_run {
            true => format!("the outcome of {} is not known", output::letters(summary.failed)),
            false => format!("{} could not be removed", output::letters(summary.failed)),
        });
        let both: Vec<_> = stay.into_iter().chain(failed).collect();
        ended(summary.unreadable, (!both.is_empty()).then(|| both.join("; ")))
    }
}

fn text(summary: &Summary) -> String {
    if summary.letters == 0 {
        return "no dead letter matches".to_owned();
    }
    let outcomes: Vec<_> = summary.outcomes.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let letters = output::letters(summary.letters);
    match summary.dry_run {
        true => format!("{letters} would be: {}; nothing was written or removed", outcomes.join(", ")),
        false => format!("{letters}: {}; {} removed", outcomes.join(", "), summary.removed),
    }
}
