//! `twinsync deadletters discard`

use serde::Serialize;

use super::{
    filter::Filter,
    row::Row,
    scan::{Scan, Stop, Unreadable, ended},
};
use crate::{
    app,
    cli::{
        Error, Sources,
        output::{self, printable},
    },
    ports::{DeadLetterArchive, LetterName, LetterVersion, Removed},
};

/// Arguments of `discard`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    filter: Filter,
    /// Selects all dead letters; required if no filter is given.
    #[arg(long, conflicts_with_all = ["letters", "reasons", "device", "stream", "partition", "sequence_number"])]
    all: bool,
    /// Reports what would be removed, and removes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Prints one JSON object per line: each dead letter, then the counts.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct LetterLine<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    row: &'a Row,
    removed: bool,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct DamagedLine {
    r#type: &'static str,
    letter: String,
    removed: bool,
    error: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    r#type: &'static str,
    dry_run: bool,
    letters: u64,
    removed: u64,
    failed: u64,
    unreadable: u64,
}

/// Removes the matching dead letters.
pub(super) async fn run(arguments: &Arguments) -> Result<(), Error> {
    if arguments.filter.is_empty() && !arguments.all {
        let message = "discard removes dead letters permanently: select some, e.g. --reason CODE or --device ID, or use --all";
        return Err(Error::Usage(message.to_owned()));
    }
    let settings = arguments.sources.load()?;
    let letters = app::dead_letter_commands::connect(&settings).await?;
    let archive = letters.archive.as_ref();
    let mut scan = Scan::begin(letters.archive.clone(), &arguments.filter).await?;
    let mut summary = Summary {
        r#type: "summary",
        dry_run: arguments.dry_run,
        letters: 0,
        removed: 0,
        failed: 0,
        unreadable: 0,
    };
    while let Some(stop) = scan.next().await? {
        match stop {
            Stop::Letter(found) => {
                summary.letters += 1;
                let row = Row::new(&found.name, &found.letter);
                let outcome = remove(arguments, archive, &found.name, &found.version).await;
                summary.count(arguments, &outcome);
                print(arguments, &row, &outcome)?;
            }
            // Its twin is unknown, so only its name can show that it is meant.
            Stop::Unreadable(Unreadable { name, version: Some(version), .. })
                if arguments.filter.names(&name) =>
            {
                summary.letters += 1;
                let outcome = remove(arguments, archive, &name, &version).await;
                summary.count(arguments, &outcome);
                print_damaged(arguments, &name, outcome)?;
            }
            Stop::Unreadable(unreadable) => {
                summary.unreadable += 1;
                unreadable.print(arguments.json)?;
            }
        }
    }
    if arguments.json {
        output::json(&summary)?;
    } else {
        output::line(match (summary.letters, arguments.dry_run) {
            (0, _) => "no dead letter matches".to_owned(),
            (count, true) => format!("{} would be removed; nothing was", output::letters(count)),
            (_, false) => format!("{} removed", output::letters(summary.removed)),
        })?;
    }
    let failed =
        (summary.failed > 0).then(|| format!("{} could not be removed", output::letters(summary.failed)));
    ended(summary.unreadable, failed)
}

impl Summary {
    fn count(&mut self, arguments: &Arguments, outcome: &Result<(), String>) {
        match outcome {
            Ok(()) if arguments.dry_run => {}
            Ok(()) => self.removed += 1,
            Err(_) => self.failed += 1,
        }
    }
}

/// Removes one dead letter, or returns why it still exists.
async fn remove(
    arguments: &Arguments,
    archive: &dyn DeadLetterArchive,
    name: &LetterName,
    version: &LetterVersion,
) -> Result<(), String> {
    if arguments.dry_run {
        return Ok(());
    }
    match archive.remove(name, version).await {
        Ok(Removed::Gone) => Ok(()),
        Ok(Removed::Changed) => Err("it was replaced in the meantime and is kept".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn verb<'a>(arguments: &Arguments, outcome: &'a Result<(), String>) -> &'a str {
    match outcome {
        Ok(()) if arguments.dry_run => "would be removed",
        Ok(()) => "removed",
        Err(reason) => reason,
    }
}

fn print(arguments: &Arguments, row: &Row, outcome: &Result<(), String>) -> Result<(), Error> {
    if !arguments.json {
        return output::line(format_args!("{}  {}", row.head(), verb(arguments, outcome)));
    }
    let removed = outcome.is_ok() && !arguments.dry_run;
    let error = outcome.as_ref().err().map(String::as_str);
    output::json(&LetterLine { r#type: "letter", row, removed, error })
}

fn print_damaged(arguments: &Arguments, name: &LetterName, outcome: Result<(), String>) -> Result<(), Error> {
    if !arguments.json {
        let name = printable(&name.to_string(), false);
        return output::line(format_args!("{name}  damaged  {}", verb(arguments, &outcome)));
    }
    let removed = outcome.is_ok() && !arguments.dry_run;
    output::json(&DamagedLine { r#type: "damaged", letter: name.to_string(), removed, error: outcome.err() })
}
