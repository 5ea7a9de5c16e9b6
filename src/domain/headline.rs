//! The state of a replica and its reason, in one sentence, for a first look.
//!
//! | the first condition that applies, from top to bottom | level |
//! |---|---|
//! | it stops | attention |
//! | a loop is stuck: only a restart helps | bad |
//! | it starts | attention |
//! | it is not ready | bad |
//! | no replica reads a partition | bad |
//! | events will be lost soon | bad |
//! | the lag could not be measured | attention |
//! | it is behind | attention |
//! | something other than its main work is out of order | attention |
//! | it has no partitions | good |
//! | none of these | good |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    health::Phase,
    id::PartitionId,
    readiness::Report,
    ticks::Ticks,
    words::{about, clock, grouped},
};

/// A lag longer than this is reported.
const BEHIND: Duration = Duration::from_secs(10);
/// A lag that was measured longer ago than this is too old to use.
const OLD: Duration = Duration::from_secs(60);
/// If only this fraction of the retention is left, an alert must have fired.
const LITTLE_IS_LEFT: f64 = 0.25;

/// The level of a headline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Everything is in order.
    Good,
    /// It may be of interest to an operator.
    Attention,
    /// An operator must look at it.
    Bad,
}

/// The headline: one sentence with its level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headline {
    /// Its level.
    pub level: Level,
    /// The state and its reason.
    pub text: String,
}

/// What is known about the flow of events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flow {
    /// The number of partitions that this replica owns.
    pub partitions: usize,
    /// Events in them that are not completed, at the last measurement.
    pub lag_events: u64,
    /// The age of the oldest of these measurements; `None` if one is missing.
    pub measured_ago: Option<Duration>,
    /// Age of the oldest event that is not completed, if known.
    pub behind: Duration,
    /// Time until the lag is worked off, if it shrinks.
    pub caught_up_in: Option<Duration>,
    /// 99 of 100 changes of the last minute were stored within this time; `None` if there were none.
    pub freshness: Option<Duration>,
    /// The partition that will lose events first, the time until then, and the retention.
    pub loss: Option<(PartitionId, Duration, Duration)>,
    /// The partitions that no replica has read for some time.
    pub unread: Option<Unread>,
}

/// Partitions that no replica reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The one that has been unread for the longest time.
    pub partition: PartitionId,
    /// How long it has been unread.
    pub lasts: Duration,
    /// The number of other unread partitions.
    pub others: usize,
    /// Events that wait in all of them; `None` if not known.
    pub events: Option<u64>,
}

/// Chooses the headline at `now`.
pub fn headline(phase: Phase, report: &Report, flow: &Flow, now: Ticks) -> Headline {
    let with = |level, text| Headline { level, text };
    if phase == Phase::Stopping {
        return with(Level::Attention, "Stopping: received events are being completed".to_owned());
    }
    if let Some(reason) = report.live.reasons.first() {
        return with(Level::Bad, format!("Stalled: {reason}; only a restart helps"));
    }
    if phase == Phase::Starting {
        return match report.obstacles.first() {
            Some(wait) => with(Level::Bad, format!("Starting, and waiting: {}", wait.told(now))),
            None => with(Level::Attention, "Starting: connections are being made".to_owned()),
        };
    }
    if let Some((first, others)) = report.obstacles.split_first() {
        let first = first.told(now);
        let more = match others.len() {
            0 => String::new(),
            1 => " (and one more reason)".to_owned(),
            more => format!(" (and {more} more reasons)"),
        };
        return with(Level::Bad, format!("Blocked: {first}{more}"));
    }
    if let Some(unread) = &flow.unread {
        return with(Level::Bad, told(unread, now));
    }
    if let Some((partition, left, retention)) = &flow.loss
        && left.as_secs_f64() < retention.as_secs_f64() * LITTLE_IS_LEFT
    {
        let text = match left.is_zero() {
            true => format!("Losing events: partition {partition} is behind by more than its retention"),
            false => format!("Losing events in {}: partition {partition} is too far behind", about(*left)),
        };
        return with(Level::Bad, text);
    }
    if flow.partitions > 0 && flow.measured_ago.is_none_or(|ago| ago > OLD) {
        return with(
            Level::Attention,
            "How far behind it is could not be measured for a minute: see the partitions".to_owned(),
        );
    }
    if flow.behind > BEHIND {
        let events = grouped(flow.lag_events);
        let until = match flow.caught_up_in {
            Some(time) => format!("done in about {}", about(time)),
            None => "and not catching up".to_owned(),
        };
        let text = format!("Behind by {} and {events} events, {until}", about(flow.behind));
        return with(Level::Attention, text);
    }
    if let Some(worry) = report.worries.first() {
        return with(Level::Attention, format!("In step, but {}", worry.told(now)));
    }
    if flow.partitions == 0 {
        return with(Level::Good, "Standing by: other replicas own all partitions".to_owned());
    }
    let text = match flow.freshness {
        Some(freshness) => format!("In step: changes are stored within {}", about(freshness)),
        None => "In step: nothing has changed in the last minute".to_owned(),
    };
    with(Level::Good, text)
}

fn told(Unread { partition, lasts, others, events }: &Unread, now: Ticks) -> String {
    let since = clock(now.before(*lasts), now);
    let others = match others {
        0 => String::new(),
        1 => " and one more partition".to_owned(),
        others => format!(" and {others} more partitions"),
    };
    let events = match events {
        None => "how many events wait is not known".to_owned(),
        Some(1) => "one event waits".to_owned(),
        Some(events) => format!("{} events wait", grouped(*events)),
    };
    format!("Nobody reads {partition}{others} since {since}: {events}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{readiness::Verdict, wait::Wait};

    fn report(live: &[&str], ready: &[&str], warnings: &[&str]) -> Report {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let waits = |lines: &[&str]| {
            lines.iter().map(|line| Wait { what: (*line).to_owned(), ..Wait::default() }).collect()
        };
        Report {
            live: Verdict { reasons: lines(live) },
            ready: Verdict { reasons: lines(ready) },
            warnings: lines(warnings),
            obstacles: waits(ready),
            worries: waits(warnings),
        }
    }

    fn flowing() -> Flow {
        Flow {
            partitions: 4,
            measured_ago: Some(Duration::from_secs(3)),
            freshness: Some(Duration::from_millis(12)),
            loss: Some((partition(), Duration::from_secs(86_000), Duration::from_secs(86_400))),
            ..Flow::default()
        }
    }

    fn partition() -> PartitionId {
        PartitionId { stream: "twin-changes".into(), partition: "1".into() }
    }

    fn now() -> Ticks {
        Ticks::parse("2026-11-28T14:03:07Z").expect("a time")
    }

    fn says(phase: Phase, report: &Report, flow: &Flow) -> (Level, String) {
        let Headline { level, text } = headline(phase, report, flow, now());
        (level, text)
    }

    #[test]
    fn what_matters_most_comes_first() {
        let all = Flow {
            behind: Duration::from_secs(90),
            lag_events: 12_345,
            loss: Some((partition(), Duration::from_secs(600), Duration::from_secs(86_400))),
            measured_ago: None,
            ..flowing()
        };
        let sick = report(&["loop lanes has not run"], &["the store", "and that"], &["the registry"]);
        assert_eq!(says(Phase::Stopping, &sick, &all).0, Level::Attention);
        assert_eq!(
            says(Phase::Running, &sick, &all),
            (Level::Bad, "Stalled: loop lanes has not run; only a restart helps".to_owned())
        );
        let sick = report(&[], &["the store does not answer", "and that"], &["the registry"]);
        assert_eq!(
            says(Phase::Running, &sick, &all),
            (Level::Bad, "Blocked: the store does not answer (and one more reason)".to_owned())
        );
        let warned = report(&[], &[], &["the registry does not answer"]);
        assert_eq!(
            says(Phase::Running, &warned, &all),
            (Level::Bad, "Losing events in 10 min: partition twin-changes/1 is too far behind".to_owned())
        );
        let unmeasured = Flow { loss: None, ..all.clone() };
        assert!(says(Phase::Running, &warned, &unmeasured).1.starts_with("How far behind"));
        let behind = Flow { measured_ago: Some(Duration::ZERO), ..unmeasured };
        assert_eq!(
            says(Phase::Running, &warned, &behind),
            (Level::Attention, "Behind by 90 s and 12,345 events, and not catching up".to_owned())
        );
        let shrinking = Flow { caught_up_in: Some(Duration::from_secs(40)), ..behind };
        assert!(says(Phase::Running, &warned, &shrinking).1.ends_with("events, done in about 40 s"));
        assert_eq!(
            says(Phase::Running, &warned, &flowing()),
            (Level::Attention, "In step, but the registry does not answer".to_owned())
        );
    }

    #[test]
    fn a_replica_in_order_says_how_fresh_it_is_or_that_it_stands_by() {
        let fine = report(&[], &[], &[]);
        assert_eq!(
            says(Phase::Running, &fine, &flowing()),
            (Level::Good, "In step: changes are stored within 12 ms".to_owned())
        );
        let idle = Flow { freshness: None, ..flowing() };
        assert_eq!(says(Phase::Running, &fine, &idle).1, "In step: nothing has changed in the last minute");
        assert_eq!(
            says(Phase::Running, &fine, &Flow::default()),
            (Level::Good, "Standing by: other replicas own all partitions".to_owned())
        );
    }

    #[test]
    fn a_start_that_waits_says_for_what() {
        let starting = |reasons: &[&str]| says(Phase::Starting, &report(&[], reasons, &[]), &Flow::default());
        assert_eq!(starting(&[]).0, Level::Attention);
        assert_eq!(
            starting(&["no answer from Event Hubs"]),
            (Level::Bad, "Starting, and waiting: no answer from Event Hubs".to_owned())
        );
    }

    #[test]
    fn what_it_waits_for_is_told_with_the_time_and_the_next_try() {
        let mut sick = report(&[], &["x"], &[]);
        sick.obstacles[0] = Wait {
            what: "twin-changes/1 waits for the dead-letter store".to_owned(),
            lasts: Some(Duration::from_secs(60)),
            next_try: Some(Duration::from_secs(12)),
            reason: Some("disk full".to_owned()),
        };
        assert_eq!(
            says(Phase::Running, &sick, &flowing()),
            (
                Level::Bad,
                "Blocked: twin-changes/1 waits for the dead-letter store since 14:02 UTC, next try in 12 s: \
                 disk full"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_partition_that_nobody_reads_is_bad_whatever_else_is_in_order() {
        let fine = report(&[], &[], &[]);
        let unread = |others, events| Flow {
            unread: Some(Unread { partition: partition(), lasts: Duration::from_secs(120), others, events }),
            ..flowing()
        };
        assert_eq!(
            says(Phase::Running, &fine, &unread(0, Some(1234))),
            (Level::Bad, "Nobody reads twin-changes/1 since 14:01 UTC: 1,234 events wait".to_owned())
        );
        let text = |others, events| says(Phase::Running, &fine, &unread(others, events)).1;
        assert!(text(1, Some(1)).contains("and one more partition since 14:01 UTC: one event waits"));
        assert!(
            text(3, None).contains("and 3 more partitions since") && text(3, None).ends_with("not known")
        );
        let blocked = report(&[], &["the store does not answer"], &[]);
        assert!(says(Phase::Running, &blocked, &unread(0, None)).1.starts_with("Blocked"));
    }

    #[test]
    fn the_limits_themselves_are_in_order() {
        let fine = report(&[], &[], &[]);
        let at_limit = Flow {
            behind: BEHIND,
            measured_ago: Some(OLD),
            loss: Some((partition(), Duration::from_secs(25), Duration::from_secs(100))),
            ..flowing()
        };
        assert_eq!(says(Phase::Running, &fine, &at_limit).0, Level::Good);
        let gone = Flow { loss: Some((partition(), Duration::ZERO, Duration::from_secs(100))), ..flowing() };
        assert_eq!(
            says(Phase::Running, &fine, &gone).1,
            "Losing events: partition twin-changes/1 is behind by more than its retention"
        );
    }
}
