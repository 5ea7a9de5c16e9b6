//! `twinsync deadletters show`

use serde_json::Value;

use super::{
    filter::Filter,
    row::Row,
    scan::{Found, Scan, Stop},
};
use crate::{
    adapters::dead_letters,
    app,
    cli::{
        Error, Sources,
        output::{self, printable},
    },
    domain::ticks::Ticks,
};

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    filter: Filter,
    /// Prints one JSON object, in the form in which the dead letter is stored.
    #[arg(long)]
    json: bool,
}

/// Prints the one matching dead letter.
pub(super) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let settings = arguments.sources.load()?;
    let letters = app::dead_letter_commands::connect(&settings).await?;
    let mut scan = Scan::begin(letters.archive, &arguments.filter).await?;
    let found = match scan.next().await? {
        Some(Stop::Letter(found)) => found,
        Some(Stop::Unreadable(unreadable)) => {
            let name = printable(&unreadable.name.to_string(), false);
            return Err(Error::Failed(format!("{name} {}", unreadable.reason())));
        }
        None if arguments.json => return Ok(()),
        None => return output::line("no dead letter matches"),
    };
    if scan.next().await?.is_some() {
        let name = printable(&found.name.to_string(), false);
        let message =
            format!("several dead letters match; show takes one, e.g. `twinsync deadletters show {name}`");
        return Err(Error::Usage(message));
    }
    let stored = dead_letters::to_value(&found.letter)
        .map_err(|error| Error::Failed(format!("cannot print the dead letter: {error}")))?;
    if arguments.json {
        return output::json(&named(&found, stored));
    }
    output::line(text(&found, &stored).trim_end())
}

fn named(found: &Found, mut stored: Value) -> Value {
    if let Some(fields) = stored.as_object_mut() {
        fields.insert("letter".to_owned(), found.name.to_string().into());
    }
    stored
}

/// The text output: header fields, properties with their types, and the body.
fn text(found: &Found, stored: &Value) -> String {
    let row = Row::new(&found.name, &found.letter);
    let or_dash = |at: Option<Ticks>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let position = &found.letter.message.position;
    let heads = [
        ("letter", row.letter.clone()),
        ("reason", format!("{}: {}", row.reason, row.detail)),
        ("stored at", or_dash(row.stored_at)),
        ("stream", row.stream.clone()),
        ("partition", row.partition.clone()),
        ("sequence number", position.sequence_number.to_string()),
        ("offset", position.offset.to_string()),
        ("enqueued", or_dash(row.enqueued)),
        ("twin", row.twin()),
    ];
    let mut text = output::table(&heads.map(|(name, value)| [name.to_owned(), printable(&value, false)]));
    for (title, key) in [("application properties", "application_properties"), ("annotations", "annotations")]
    {
        text.push_str(&format!("\n{title}\n"));
        let properties: Vec<[String; 3]> = stored[key]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                let typed = value.as_object().and_then(|typed| typed.iter().next());
                let (kind, value) = typed.map_or(("", value), |(kind, value)| (kind.as_str(), value));
                [
                    format!("  {}", printable(name, false)),
                    kind.to_owned(),
                    printable(&value.to_string(), false),
                ]
            })
            .collect();
        text.push_str(&output::table(&properties));
    }
    let bytes = row.body_bytes;
    match (&stored["body"]["text"], &stored["body"]["base64"]) {
        (Value::String(body), _) => {
            text.push_str(&format!("\nbody, {bytes} bytes of text\n{}\n", printable(body, true)));
        }
        (_, body) => {
            let body = body.as_str().unwrap_or_default();
            text.push_str(&format!("\nbody, {bytes} bytes that are not text, in base64\n{body}\n"));
        }
    }
    text
}
