//! `twinsync deadletters list`

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    filter::Filter,
    row::{Row, when},
    scan::{Scan, Stop, ended},
};
use crate::{
    app,
    cli::{
        Error, Sources,
        output::{self, printable},
    },
    domain::ticks::Ticks,
};

/// Default number of dead letters in the text output.
const LIMIT: usize = 50;
/// Maximum number of partitions that are listed for one reason.
const PARTITIONS: usize = 6;

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    filter: Filter,
    /// Maximum number of dead letters to list; the counts include all that match. Default: 50; with --json, all.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Prints one JSON object per line: each dead letter, then the counts.
    #[arg(long)]
    json: bool,
}

/// Counts for the dead letters of one reason.
#[derive(Debug, Default, Serialize)]
struct Group {
    count: u64,
    first_stored_at: Option<Ticks>,
    last_stored_at: Option<Ticks>,
    partitions: BTreeSet<String>,
}

impl Group {
    fn add(&mut self, row: &Row) {
        self.count += 1;
        self.partitions.insert(format!("{}/{}", row.stream, row.partition));
        let Some(at) = row.stored_at else { return };
        self.first_stored_at = Some(self.first_stored_at.map_or(at, |first| first.min(at)));
        self.last_stored_at = self.last_stored_at.max(Some(at));
    }

    fn partitions(&self) -> String {
        let mut text =
            self.partitions.iter().take(PARTITIONS).map(String::as_str).collect::<Vec<_>>().join(", ");
        if self.partitions.len() > PARTITIONS {
            text.push_str(&format!(" and {} more", self.partitions.len() - PARTITIONS));
        }
        printable(&text, false)
    }
}

#[derive(Serialize)]
struct LetterLine<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    row: &'a Row,
}

#[derive(Serialize)]
struct Summary {
    r#type: &'static str,
    letters: u64,
    unreadable: u64,
    reasons: BTreeMap<String, Group>,
}

/// Prints the matching dead letters, with their counts by reason.
pub(super) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let settings = arguments.sources.load()?;
    let letters = app::dead_letter_commands::connect(&settings).await?;
    let mut scan = Scan::begin(letters.archive, &arguments.filter).await?;
    let limit = arguments.limit.unwrap_or(if arguments.json { usize::MAX } else { LIMIT });
    let mut summary = Summary { r#type: "summary", letters: 0, unreadable: 0, reasons: BTreeMap::new() };
    let mut listed = 0;
    let mut rows = Vec::new();
    while let Some(stop) = scan.next().await? {
        let found = match stop {
            Stop::Letter(found) => found,
            Stop::Unreadable(unreadable) => {
                summary.unreadable += 1;
                unreadable.print(arguments.json)?;
                continue;
            }
        };
        let row = Row::new(&found.name, &found.letter);
        summary.letters += 1;
        summary.reasons.entry(row.reason.clone()).or_default().add(&row);
        if listed == limit {
            continue;
        }
        listed += 1;
        if arguments.json {
            output::json(&LetterLine { r#type: "letter", row: &row })?;
        } else {
            rows.push(row);
        }
    }
    if arguments.json {
        output::json(&summary)?;
    } else {
        output::line(text(&summary, &rows).trim_end())?;
    }
    ended(summary.unreadable, None)
}

/// The text output: counts by reason, then the dead letters.
fn text(summary: &Summary, rows: &[Row]) -> String {
    if summary.letters == 0 {
        return "no dead letter matches".to_owned();
    }
    let heads = ["REASON", "COUNT", "FIRST", "LAST", "PARTITIONS"].map(str::to_owned);
    let groups = summary.reasons.iter().map(|(reason, group)| {
        let (first, last) = (when(group.first_stored_at), when(group.last_stored_at));
        [printable(reason, false), group.count.to_string(), first, last, group.partitions()]
    });
    let mut text = output::table(&[heads].into_iter().chain(groups).collect::<Vec<_>>());
    if !rows.is_empty() {
        let heads = ["LETTER", "STORED AT", "REASON", "TWIN", "OPERATION", "BYTES"].map(str::to_owned);
        let lines = rows.iter().map(|row| {
            [
                printable(&row.letter, false),
                when(row.stored_at),
                printable(&row.reason, false),
                row.twin(),
                row.operation.as_deref().map_or_else(|| "-".to_owned(), |text| printable(text, false)),
                row.body_bytes.to_string(),
            ]
        });
        text.push('\n');
        text.push_str(&output::table(&[heads].into_iter().chain(lines).collect::<Vec<_>>()));
    }
    let hidden = summary.letters - rows.len() as u64;
    if hidden > 0 {
        text.push_str(&format!("and {hidden} more: --limit shows more of them, the filters fewer\n"));
    }
    text.push_str(&format!("\n{}\n", output::letters(summary.letters)));
    text
}
