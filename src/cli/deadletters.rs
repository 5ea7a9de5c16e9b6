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
    /// Prints one dead letter whole: reason, properties and body.
    Show(show::Arguments),
    /// Applies dead letters through the normal path and removes those that are decided.
    ///
    /// Versions protect newer state: what is contained already ends as a duplicate. A dead letter that still can not be
    /// applied stays, and the exit code is 1 then.
    Replay(replay::Arguments),
    /// Removes dead letters for good.
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
