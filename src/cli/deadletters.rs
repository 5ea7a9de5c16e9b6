//! `twinsync deadletters`: shows dead letters, replays them on the normal path, discards them.
//!
//! | command | reads | writes |
//! |---|---|---|
//! | `list`, `show` | dead letters | nothing |
//! | `replay` | dead letters, documents | documents, under the same conditions as the daemon; removes dead letters that are decided |
//! | `discard` | dead letters | removes dead letters |
//!
//! All of them may run beside a daemon. Dead letters are scanned in the order of stream, partition and sequence number, one at a time.
//! Scripts get one JSON object per line: dead letters, then a summary. Only `show` prints a payload.

mod discard;
mod filter;
mod list;
mod replay;
mod row;
mod scan;
mod show;

use super::Error;

/// Arguments of `deadletters`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Counts dead letters by reason and lists them, without their payloads.
    List(list::Arguments),
    /// Prints one complete dead letter: reason, properties and body.
    Show(show::Arguments),
    /// Applies dead letters again, and removes those that are applied or no longer needed.
    ///
    /// Versions protect newer state: a change that the document already contains is a duplicate. A dead letter that still
    /// cannot be applied is kept, and the exit code is 1.
    Replay(replay::Arguments),
    /// Removes dead letters permanently.
    Discard(discard::Arguments),
}

/// Runs one of the commands.
pub async fn run(arguments: &Arguments) -> Result<(), Error> {
    match &arguments.command {
        Command::List(arguments) => list::run(arguments).await,
        Command::Show(arguments) => show::run(arguments).await,
        Command::Replay(arguments) => Box::pin(replay::run(arguments)).await,
        Command::Discard(arguments) => discard::run(arguments).await,
    }
}
