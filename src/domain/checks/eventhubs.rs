//! Event Hubs: permission to read, current readers, and whether the retention and checkpoints fit our settings.

use std::{collections::BTreeSet, time::Duration};

use super::{Finding, Problem, words};
use crate::domain::{
    id::Position,
    progress::{Extent, Resume, resume},
};

/// Evaluates the number of partitions.
pub fn hub(partitions: usize) -> Finding {
    Finding::ok(words::count(partitions, "partition"))
}

/// The result of an attempt to read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// An event was received.
    Proved,
    /// The partition has no event, and the read was not refused.
    Quiet,
    /// It cannot be read.
    Failed(Problem),
}

/// An attempt to read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its id.
    pub partition: String,
    /// The result.
    pub attempt: Attempt,
}

/// Evaluates the attempts to read all partitions of an Event Hub.
pub fn group(group: &str, attached: &[Attached]) -> Finding {
    let failed = |attached: &&Attached| matches!(attached.attempt, Attempt::Failed(_));
    let at: Vec<_> = attached.iter().filter(failed).map(|attached| attached.partition.as_str()).collect();
    let first = attached.iter().find_map(|attached| match &attached.attempt {
        Attempt::Failed(problem) => Some(problem),
        Attempt::Proved | Attempt::Quiet => None,
    });
    if let Some(problem) = first {
        let place = match at.as_slice() {
            all if all.len() == attached.len() => String::new(),
            [one] => format!(" (partition {one} only)"),
            some => format!(" (partitions {} only)", some.join(", ")),
        };
        return Finding::Fail(Problem {
            text: format!("consumer group {group} cannot be read{place}: {}", problem.text),
            ..problem.clone()
        });
    }
    let proved = attached.iter().filter(|attached| attached.attempt == Attempt::Proved).count();
    let quiet = attached.len() - proved;
    let text = match (proved, quiet) {
        (_, 0) => "an event was received from each partition".to_owned(),
        (0, _) => "reading was allowed; there was no event to receive".to_owned(),
        (_, quiet) => format!(
            "events were received; {} had none, but reading was allowed",
            words::count(quiet, "partition")
        ),
    };
    Finding::ok(format!("consumer group {group} can be read: {text}"))
}

/// The owner of a partition according to the checkpoint store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The partition.
    pub partition: String,
    /// The owner's name, not empty.
    pub name: String,
    /// Time since it last renewed its ownership; `None` if not known.
    pub age: Option<Duration>,
}

/// Whether the name of an owner has the form that twinsync uses: a host and sixteen hexadecimal digits.
pub fn is_ours(owner: &str) -> bool {
    owner.rsplit_once('-').is_some_and(|(host, chance)| {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        !host.is_empty() && chance.len() == 16 && chance.bytes().all(is_digit)
    })
}

/// Evaluates the owners of an Event Hub's partitions. An owner that has not renewed for longer than `lasting` is gone.
pub fn owners(owners: &[Owner], lasting: Duration) -> Finding {
    let present: Vec<_> = owners.iter().filter(|owner| owner.age.is_none_or(|age| age <= lasting)).collect();
    let (ours, strangers): (Vec<_>, Vec<_>) = present.into_iter().partition(|owner| is_ours(&owner.name));
    if !strangers.is_empty() {
        let names: BTreeSet<_> = strangers.iter().map(|owner| owner.name.as_str()).collect();
        let names: Vec<_> = names.into_iter().collect();
        return Finding::warn(
            "EVENTHUBS_FOREIGN_READER",
            format!(
                "{} owned by another program ({}) with the same consumer group and container",
                words::count(strangers.len(), "partition"),
                names.join(", ")
            ),
            "give twinsync a consumer group of its own (eventhubs.consumer_group), or stop the other program",
        );
    }
    let replicas: BTreeSet<_> = ours.iter().map(|owner| owner.name.as_str()).collect();
    Finding::ok(match replicas.len() {
        0 => "nobody owns partitions at present".to_owned(),
        count => format!(
            "{} owned by {} of twinsync",
            words::count(ours.len(), "partition"),
            words::count(count, "running replica")
        ),
    })
}

/// What the checkpoint store has for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A position.
    At(Position),
    /// A checkpoint without a sequence number, written by another program.
    Unnumbered,
}

/// What the daemon does at start with a checkpoint that does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// It ends.
    Nowhere,
    /// It starts at the oldest event.
    On,
    /// It starts at the oldest event, and an audit checks what was skipped.
    OnWithAudit,
}

/// Evaluates the checkpoints of an Event Hub's partitions. They must have been read before the extents.
pub fn checkpoints(found: &[(String, Found, Extent)], goes: Goes) -> Finding {
    let (mut fresh, mut behind, mut odd) = (0, 0, Vec::new());
    for (partition, found, extent) in found {
        let reason = match found {
            Found::Nothing => {
                fresh += 1;
                continue;
            }
            Found::Unnumbered => "its checkpoint has no sequence number: another program wrote it".to_owned(),
            Found::At(position) => match resume(Some(position.clone()), extent) {
                Resume::Invalid(invalid) => invalid.to_string(),
                Resume::Fresh | Resume::After(_) => {
                    behind += extent.lag(Some(position.sequence_number));
                    continue;
                }
            },
        };
        odd.push(format!("partition {partition}: {reason}"));
    }
    if !odd.is_empty() {
        let text = odd.join("; ");
        return match goes {
            Goes::Nowhere => Finding::fail(
                "CHECKPOINT_INVALID",
                text,
                "set checkpoint.on_invalid = \"earliest\" to begin at the oldest event, or \"earliest_and_audit\" \
                 with [iothub] to find the missed changes as well",
            ),
            Goes::On => Finding::warn(
                "CHECKPOINT_INVALID",
                format!("{text}; a start continues at the oldest event, and missed changes are not found"),
                "run `twinsync audit --repair` after the start, or set checkpoint.on_invalid = \"earliest_and_audit\"",
            ),
            Goes::OnWithAudit => Finding::warn(
                "CHECKPOINT_INVALID",
                format!("{text}; a start continues at the oldest event, and begins an audit"),
                "do nothing if the Event Hub was re-created on purpose; otherwise raise its retention",
            ),
        };
    }
    let events = words::count(usize::try_from(behind).unwrap_or(usize::MAX), "event");
    Finding::ok(match fresh {
        0 => format!("all fit their partitions; {events} to receive"),
        fresh if fresh == found.len() => "none yet: a start begins as eventhubs.start says".to_owned(),
        fresh => {
            format!("{} without one; the others fit, {events} to receive", words::count(fresh, "partition"))
        }
    })
}

/// The minimum time by which tombstones must outlive events, because a replay takes some time.
const ROOM: Duration = Duration::from_secs(86_400);

/// Compares the configured retention with the lifetime of tombstones.
pub fn retention(told: Duration, tombstones: Duration) -> Finding {
    let text =
        format!("events stay for {}, tombstones for {}", words::duration(told), words::duration(tombstones));
    if tombstones < told.saturating_add(ROOM) {
        return Finding::warn(
            "EVENTHUBS_RETENTION",
            format!("{text}: a late replay can bring a deleted twin back"),
            format!("set document.tombstone_ttl = \"{}d\" or longer", told.as_secs().div_ceil(86_400) + 7),
        );
    }
    Finding::ok(text)
}

/// Compares the age of the oldest event with the configured retention; `None` if there is no event.
///
/// Event Hubs does not report its retention to consumers. An older event shows that the retention is longer than
/// configured; nothing shows that it is shorter. The service takes some time to delete expired events.
pub fn oldest(age: Option<Duration>, told: Duration, tombstones: Duration) -> Finding {
    let Some(age) = age else {
        return Finding::ok("there is no event whose age would show the retention");
    };
    let text = format!("the oldest event is {} old", words::duration(age));
    let days = age.as_secs().div_ceil(86_400);
    if age > tombstones {
        return Finding::fail(
            "EVENTHUBS_RETENTION",
            format!(
                "{text}, and tombstones stay for {} only: a replay can bring deleted twins back",
                words::duration(tombstones)
            ),
            format!(
                "set eventhubs.retention to the retention of the Event Hub (`az eventhubs eventhub show`), at least \
                 \"{days}d\", and document.tombstone_ttl to a week more"
            ),
        );
    }
    if age > told.saturating_add(told / 2) {
        return Finding::warn(
            "EVENTHUBS_RETENTION",
            format!("{text}, although eventhubs.retention says {}", words::duration(told)),
            format!(
                "set eventhubs.retention to the retention of the Event Hub (`az eventhubs eventhub show`), at least \"{days}d\""
            ),
        );
    }
    Finding::ok(format!("{text}, which fits eventhubs.retention ({})", words::duration(told)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{checks::Verdict, id::SequenceNumber};

    fn attached(partition: &str, attempt: Attempt) -> Attached {
        Attached { partition: partition.into(), attempt }
    }

    #[test]
    fn a_group_is_readable_where_nobody_refuses() {
        let refused = || Attempt::Failed(Problem::new("EVENTHUBS_REFUSED", "no", "give the role"));
        let of = |attempts: Vec<Attempt>| {
            let all: Vec<_> = attempts
                .into_iter()
                .enumerate()
                .map(|(id, attempt)| attached(&id.to_string(), attempt))
                .collect();
            group("$Default", &all)
        };
        assert!(of(vec![Attempt::Proved; 2]).text().contains("from each partition"));
        assert!(of(vec![Attempt::Quiet; 2]).text().contains("no event to receive"));
        assert!(of(vec![Attempt::Proved, Attempt::Quiet]).text().contains("1 partition had none"));
        let all = of(vec![refused(), refused()]);
        assert!(all.verdict() == Verdict::Fail && all.text().ends_with("cannot be read: no"), "{all:?}");
        let one = of(vec![Attempt::Proved, refused()]);
        assert!(one.text().contains("(partition 1 only)"), "{one:?}");
        assert_eq!(
            one.problem().map(|problem| (problem.code, problem.remedy.as_str())),
            Some(("EVENTHUBS_REFUSED", "give the role"))
        );
    }

    #[test]
    fn owners_that_are_no_twinsync_are_warned_of_while_they_live() {
        const OURS: &str = "pod-7-0123456789abcdef";
        const OTHER: &str = "8f3c1f0e-9a52-4c7b-8d7e-0123456789ab";
        assert!(is_ours(OURS) && is_ours("twinsync-00000000000000ff"));
        for other in [OTHER, "", "0123456789abcdef", "a-0123456789ABCDEF", "a-0123456789abcde"] {
            assert!(!is_ours(other), "{other}");
        }
        let owner = |name: &str, age| Owner {
            partition: "0".into(),
            name: name.into(),
            age: Some(Duration::from_secs(age)),
        };
        let of = |all: &[Owner]| owners(all, Duration::from_secs(60));
        assert!(
            of(&[owner(OURS, 3), owner(OURS, 4)]).text().contains("2 partitions owned by 1 running replica")
        );
        assert!(of(&[]).text().contains("nobody"));
        assert_eq!(
            of(&[owner(OTHER, 61)]).verdict(),
            Verdict::Ok,
            "an ownership that has expired does not count"
        );
        let found = of(&[owner(OTHER, 60), owner(OURS, 0)]);
        assert!(found.verdict() == Verdict::Warn && found.text().contains(OTHER), "{found:?}");
    }

    fn extent(first: i64, last: i64) -> Extent {
        Extent {
            first: SequenceNumber(first),
            last: SequenceNumber(last),
            is_empty: first > last,
            newest: None,
        }
    }

    fn at(number: i64) -> Found {
        Found::At(Position { sequence_number: SequenceNumber(number), offset: Default::default() })
    }

    #[test]
    fn a_checkpoint_must_lie_in_its_partition() {
        let of = |found: Found, goes| checkpoints(&[("0".into(), found, extent(10, 20))], goes);
        for number in [9, 15, 20] {
            assert_eq!(of(at(number), Goes::Nowhere).verdict(), Verdict::Ok, "{number}");
        }
        assert!(of(at(15), Goes::Nowhere).text().contains("5 events to receive"));
        assert!(of(Found::Nothing, Goes::Nowhere).text().contains("none yet"));
        for (found, words) in [
            (at(8), "events 9 to 9 are lost"),
            (at(21), "re-created"),
            (Found::Unnumbered, "another program"),
        ] {
            let stops = of(found.clone(), Goes::Nowhere);
            assert!(stops.verdict() == Verdict::Fail && stops.text().contains(words), "{stops:?}");
            for goes in [Goes::On, Goes::OnWithAudit] {
                assert_eq!(of(found.clone(), goes).verdict(), Verdict::Warn);
            }
        }
        let both = checkpoints(
            &[("0".into(), at(12), extent(10, 20)), ("1".into(), Found::Nothing, extent(0, -1))],
            Goes::Nowhere,
        );
        assert!(both.text().contains("1 partition without one"), "{both:?}");
    }

    #[test]
    fn retention_is_assessed_by_what_we_were_told_and_by_what_lies_there() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        assert_eq!(retention(days(1), days(8)).verdict(), Verdict::Ok);
        assert_eq!(retention(days(7), days(8)).verdict(), Verdict::Ok);
        let close = retention(days(7), days(7) + Duration::from_secs(3600));
        assert!(
            close.verdict() == Verdict::Warn
                && close.problem().is_some_and(|it| it.remedy.contains("\"14d\"")),
            "{close:?}"
        );
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let of = |age| oldest(age, days(1), days(8));
        assert_eq!(
            (of(None).verdict(), of(hours(20)).verdict(), of(hours(36)).verdict()),
            (Verdict::Ok, Verdict::Ok, Verdict::Ok)
        );
        let long = of(hours(37));
        assert!(
            long.verdict() == Verdict::Warn && long.problem().is_some_and(|it| it.remedy.contains("\"2d\"")),
            "{long:?}"
        );
        assert_eq!(of(hours(24 * 8)).verdict(), Verdict::Warn);
        assert_eq!(of(hours(24 * 8 + 1)).verdict(), Verdict::Fail);
    }
}
