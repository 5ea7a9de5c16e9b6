//! Scans the dead letters that match a filter: in order, one at a time, and past unreadable ones.

use std::{sync::Arc, vec};

use serde::Serialize;

use super::filter::Filter;
use crate::{
    adapters::dead_letters::DAMAGED,
    cli::{
        Error,
        output::{self, printable},
    },
    domain::id::PartitionId,
    ports::{ArchiveError, DeadLetterArchive, LetterName, LetterVersion, ReadLetter, StoredLetter},
};

/// One step of a scan.
pub(super) enum Stop {
    /// A matching dead letter.
    Letter(Box<Found>),
    /// An entry that may be a matching dead letter, but is unreadable.
    Unreadable(Unreadable),
}

/// A dead letter that was found.
pub(super) struct Found {
    pub(super) name: LetterName,
    pub(super) letter: StoredLetter,
    pub(super) version: LetterVersion,
}

/// An unreadable dead letter.
pub(super) struct Unreadable {
    pub(super) name: LetterName,
    reason: String,
    /// Present if the stored entry is not a dead letter.
    pub(super) version: Option<LetterVersion>,
}

impl Unreadable {
    /// The reason, on one line.
    pub(super) fn reason(&self) -> String {
        match &self.version {
            Some(_) => format!(
                "cannot be read: {}; restore it, or discard it by its name ({DAMAGED})",
                printable(&self.reason, false)
            ),
            None => printable(&self.reason, false),
        }
    }

    /// Prints it on standard output, like the dead letters around it.
    pub(super) fn print(&self, json: bool) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            r#type: &'static str,
            letter: String,
            code: Option<&'static str>,
            error: &'a str,
        }
        if json {
            return output::json(&Line {
                r#type: "unreadable",
                letter: self.name.to_string(),
                code: self.version.as_ref().map(|_| DAMAGED),
                error: &self.reason,
            });
        }
        output::line(format_args!("{}  {}", printable(&self.name.to_string(), false), self.reason()))
    }
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The scan.
pub(super) struct Scan<'a> {
    archive: Arc<dyn DeadLetterArchive>,
    filter: &'a Filter,
    partitions: vec::IntoIter<PartitionId>,
    names: vec::IntoIter<LetterName>,
}

impl<'a> Scan<'a> {
    /// Begins before the first dead letter.
    pub(super) async fn begin(
        archive: Arc<dyn DeadLetterArchive>,
        filter: &'a Filter,
    ) -> Result<Self, Error> {
        let mut partitions = archive.partitions().await?;
        partitions.retain(|partition| filter.takes_partition(partition));
        Ok(Self { archive, filter, partitions: partitions.into_iter(), names: Vec::new().into_iter() })
    }

    /// The next dead letter; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Stop>, Error> {
        loop {
            let Some(name) = self.names.next() else {
                let Some(partition) = self.partitions.next() else {
                    return Ok(None);
                };
                self.names = self.archive.letters(&partition).await?.into_iter();
                continue;
            };
            if !self.filter.takes_name(&name) {
                continue;
            }
            return Ok(Some(match self.archive.read(&name).await {
                Ok(ReadLetter::Found(letter, version)) if self.filter.takes_letter(&letter) => {
                    Stop::Letter(Box::new(Found { name, letter: *letter, version }))
                }
                // Another process has already removed the absent one.
                Ok(ReadLetter::Found(..) | ReadLetter::Absent) => continue,
                Ok(ReadLetter::Damaged(reason, version)) => {
                    Stop::Unreadable(Unreadable { name, reason, version: Some(version) })
                }
                Err(error) => Stop::Unreadable(Unreadable { name, reason: error.to_string(), version: None }),
            }));
        }
    }
}

/// The final error of a command that could not do everything.
pub(super) fn ended(unreadable: u64, other: Option<String>) -> Result<(), Error> {
    let unreadable = (unreadable > 0).then(|| format!("{} could not be read", output::letters(unreadable)));
    let failures: Vec<_> = unreadable.into_iter().chain(other).collect();
    if failures.is_empty() { Ok(()) } else { Err(Error::Failed(failures.join("; "))) }
}
