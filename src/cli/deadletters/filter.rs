//! The filter that selects dead letters.

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};

use crate::{
    domain::{decode::subject, id::PartitionId, undeliverable::Undeliverable},
    ports::{LetterName, StoredLetter},
    telemetry::reason,
};

/// A dead letter has to match all kinds of filter that are given.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only these dead letters, named as `list` prints them, e.g. twin-changes/0/4711.
    #[arg(value_name = "LETTER", value_parser = letter)]
    pub(super) letters: Vec<String>,
    /// Only dead letters with this reason code; may be given several times.
    #[arg(long = "reason", value_name = "CODE", value_parser = PossibleValuesParser::new(reasons()))]
    pub(super) reasons: Vec<String>,
    /// Only dead letters of this device and its modules; case-sensitive.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(super) device: Option<String>,
    /// Only dead letters from this Event Hub; not case-sensitive.
    #[arg(long, value_name = "HUB", value_parser = NonEmptyStringValueParser::new())]
    pub(super) stream: Option<String>,
    /// Only dead letters from this partition.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(super) partition: Option<String>,
    /// Only dead letters with this sequence number.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..))]
    pub(super) sequence_number: Option<i64>,
}

/// Every reason code that a dead letter can have.
pub(super) fn reasons() -> impl Iterator<Item = &'static str> {
    Undeliverable::ALL.into_iter().map(Undeliverable::code).chain(reason::LETTERS)
}

/// `stream/partition/name`, with or without the ending that files have.
fn letter(text: &str) -> Result<String, String> {
    let name = text.strip_suffix(".json").unwrap_or(text).to_lowercase();
    match name.split('/').collect::<Vec<_>>()[..] {
        [stream, partition, number] if ![stream, partition, number].contains(&"") => Ok(name),
        _ => Err("name a dead letter as `list` prints it: stream/partition/sequence number".to_owned()),
    }
}

impl Filter {
    /// Whether there is no filter.
    pub(super) fn is_empty(&self) -> bool {
        let Self { letters, reasons, device, stream, partition, sequence_number } = self;
        letters.is_empty()
            && reasons.is_empty()
            && [device, stream, partition].into_iter().all(Option::is_none)
            && sequence_number.is_none()
    }

    /// Whether dead letters of this partition can match.
    pub(super) fn takes_partition(&self, partition: &PartitionId) -> bool {
        let PartitionId { stream, partition: id } = partition;
        let named = format!("{partition}/");
        self.stream.as_ref().is_none_or(|wanted| wanted.to_lowercase() == stream.to_lowercase())
            && self.partition.as_ref().is_none_or(|wanted| wanted == id)
            && (self.letters.is_empty() || self.letters.iter().any(|letter| letter.starts_with(&named)))
    }

    /// Whether the dead letter with this name can match.
    pub(super) fn takes_name(&self, name: &LetterName) -> bool {
        let number = name.position().map(|(number, _)| number);
        self.sequence_number.is_none_or(|wanted| Some(wanted) == number)
            && (self.letters.is_empty() || self.names(name))
    }

    /// Whether this dead letter is given by name.
    pub(super) fn names(&self, name: &LetterName) -> bool {
        self.letters.contains(&name.to_string().to_lowercase())
    }

    /// Whether a dead letter matches whose name already matches.
    pub(super) fn takes_letter(&self, letter: &StoredLetter) -> bool {
        (self.reasons.is_empty() || self.reasons.contains(&letter.reason))
            && self.device.as_ref().is_none_or(|wanted| subject(&letter.message).0.as_ref() == Some(wanted))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;

    #[test]
    fn every_reason_code_is_explained() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dead-letters.md");
        let page = std::fs::read_to_string(page).unwrap();
        for reason in reasons() {
            assert!(page.contains(&format!("| `{reason}` |")), "no entry for {reason}");
        }
        assert_eq!(reasons().collect::<BTreeSet<_>>().len(), reasons().count(), "codes are unique");
    }

    #[test]
    fn dead_letters_are_named_as_they_are_listed() {
        assert_eq!(letter("Twins/0/7.json").unwrap(), "twins/0/7");
        assert_eq!(letter("twins/0/7.2").unwrap(), "twins/0/7.2");
        for bad in ["7", "twins/7", "twins//7", "/twins/0/7", "a/b/c/d", ""] {
            letter(bad).expect_err(bad);
        }
    }

    #[test]
    fn a_dead_letter_has_to_match_every_kind_of_filter() {
        let partition = Arc::new(PartitionId { stream: "twins".into(), partition: "0".into() });
        let name = |name: &str| LetterName::new(Arc::clone(&partition), name);
        let filter = Filter { stream: Some("Twins".into()), sequence_number: Some(7), ..Filter::default() };
        assert!(filter.takes_partition(&partition) && !filter.is_empty());
        assert!(filter.takes_name(&name("7")) && filter.takes_name(&name("7.2")));
        assert!(!filter.takes_name(&name("8")) && !filter.takes_name(&name("foreign")));
        let filter = Filter { letters: vec!["twins/0/7".into()], ..Filter::default() };
        assert!(filter.takes_name(&name("7")) && !filter.takes_name(&name("7.2")));
        let other = PartitionId { stream: "twins".into(), partition: "01".into() };
        assert!(filter.takes_partition(&partition) && !filter.takes_partition(&other));
    }
}
