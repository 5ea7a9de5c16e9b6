//! Turns recorded outages into unit tests of the alert rules, which are kept in `deploy/prometheus/outages`.
//!
//! `TWINSYNC_RECORD_SCRAPES=DIR cargo test -p twinsync --test it -- --ignored monitoring::recorded` reads what
//! [`super::outages`] has written to `DIR`. The expected alerts are written by hand in this file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// Seconds between two scrapes.
const INTERVAL: u64 = 15;
const MINUTE: u64 = 60;

/// An outage and its expected alerts.
struct Outage {
    name: &'static str,
    /// Alerts that fire at the end of the outage: name, severity, number.
    fires: &'static [(&'static str, &'static str, u32)],
    /// Minutes after the beginning in which only the alerts of `at_once` may fire.
    minutes_before_alert: u64,
    at_once: &'static [(&'static str, &'static str, u32)],
    /// Alerts that still fire minutes after the end of the outage.
    stays: &'static [(&'static str, &'static str, u32)],
}

const OUTAGES: [Outage; 9] = [
    Outage {
        name: "eventhubs_refused",
        fires: &[("TwinsyncEventHubDown", "page", 2)],
        minutes_before_alert: 5,
        at_once: &[],
        stays: &[],
    },
    // No connection breaks. Only the requests for the lag notice the outage.
    Outage {
        name: "eventhubs_hanging",
        fires: &[("TwinsyncEventHubDown", "page", 2)],
        minutes_before_alert: 5,
        at_once: &[],
        stays: &[],
    },
    // First a ticket, and a page after partitions have received nothing for ten minutes.
    Outage {
        name: "eventhubs_throttled",
        fires: &[("TwinsyncEventHubsThrottled", "ticket", 2), ("TwinsyncPartitionNotReceiving", "page", 2)],
        minutes_before_alert: 4,
        at_once: &[],
        stays: &[],
    },
    Outage {
        name: "cosmos_down",
        fires: &[("TwinsyncCosmosDown", "page", 1)],
        minutes_before_alert: 5,
        at_once: &[],
        stays: &[],
    },
    Outage {
        name: "cosmos_throttled",
        fires: &[("TwinsyncCosmosThrottled", "ticket", 1)],
        minutes_before_alert: 14,
        at_once: &[],
        stays: &[],
    },
    // The dead letter fires its alert when it is stored.
    Outage {
        name: "dead_letters_unwritable",
        fires: &[("TwinsyncDeadLetterStoreDown", "page", 1)],
        minutes_before_alert: 10,
        at_once: &[],
        stays: &[("TwinsyncDeadLetters", "ticket", 1)],
    },
    // The dead letter that flags a twin fires its own ticket.
    Outage {
        name: "iothub_refused",
        fires: &[("TwinsyncDeadLetters", "ticket", 1), ("TwinsyncRegistryDown", "ticket", 1)],
        minutes_before_alert: 15,
        at_once: &[("TwinsyncDeadLetters", "ticket", 1)],
        stays: &[("TwinsyncDeadLetters", "ticket", 1)],
    },
    // Partitions stop when their leases end, and then have no owner. This has the same cause and must not fire a second alert.
    Outage {
        name: "checkpoints_refused",
        fires: &[("TwinsyncCheckpointStoreDown", "page", 1)],
        minutes_before_alert: 5,
        at_once: &[],
        stays: &[],
    },
    Outage {
        name: "replica_gone",
        fires: &[("TwinsyncAbsent", "page", 1)],
        minutes_before_alert: 5,
        at_once: &[],
        stays: &[],
    },
];

/// Scrapes by their number.
struct Recording {
    begins: u64,
    ends: u64,
    /// Seconds since the Unix epoch at which the time of the tests begins.
    unix: f64,
    scrapes: BTreeMap<u64, BTreeMap<String, f64>>,
}

impl Recording {
    fn read(path: &Path) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = text.lines();
        let head: Vec<_> = lines.next().expect("a first line").split(' ').collect();
        let number = |place: usize| head[place].parse::<f64>().expect("a number");
        let mut scrapes: BTreeMap<u64, BTreeMap<String, f64>> = BTreeMap::new();
        let mut at = 0;
        for line in lines {
            if let Some(second) = line.strip_prefix("# scrape ") {
                at = second.parse::<u64>().expect("seconds") / INTERVAL;
                scrapes.insert(at, BTreeMap::new());
            } else if let Some((series, value)) = line.rsplit_once(' ') {
                let value = value.parse().expect("a number");
                scrapes.get_mut(&at).expect("a scrape").insert(series.to_owned(), value);
            }
        }
        Self { begins: number(2) as u64, ends: number(3) as u64, unix: number(4), scrapes }
    }

    fn last(&self) -> u64 {
        *self.scrapes.keys().next_back().expect("a scrape")
    }

    /// The series of the metrics that the rules use, in the notation of promtool.
    fn series(&self, wanted: &BTreeSet<String>) -> BTreeMap<String, String> {
        let is_wanted = |series: &str| {
            let name = series.split('{').next().expect("a name");
            let bound = series.contains("le=\"") && !series.contains("le=\"5\"");
            wanted.contains(name) && !bound
        };
        let all: BTreeSet<_> =
            self.scrapes.values().flat_map(BTreeMap::keys).filter(|name| is_wanted(name)).collect();
        let mut series: BTreeMap<_, _> = all
            .into_iter()
            .map(|series| {
                let moment = series.contains("timestamp") || series.starts_with("process_start_time");
                let value = |value: &f64| if moment { value - self.unix } else { *value };
                let values = (0..=self.last()).map(|at| self.scrapes.get(&at)?.get(series).map(value));
                (labelled(series), notation(&values.collect::<Vec<_>>()))
            })
            .collect();
        let up = (0..=self.last()).map(|at| {
            let answered = self.scrapes.get(&at).is_some_and(|scrape| !scrape.is_empty());
            Some(if answered { 1.0 } else { 0.0 })
        });
        series.insert(labelled("up"), notation(&up.collect::<Vec<_>>()));
        series
    }
}

/// A series with the labels that Prometheus adds to a scrape.
fn labelled(series: &str) -> String {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let comma = if labels == "}" { "" } else { "," };
    format!("{name}{{job=\"twinsync\",instance=\"twinsync-0:8080\"{comma}{labels}")
}

/// Values in the notation of promtool. A series that is missing in a scrape is stale from then on.
fn notation(values: &[Option<f64>]) -> String {
    let values: Vec<_> =
        values.iter().map(|value| value.map(|value| (value * 100.0).round() / 100.0)).collect();
    let mut words: Vec<String> = Vec::new();
    let mut at = 0;
    while at < values.len() {
        let Some(first) = values[at] else {
            let missing = values[at..].iter().take_while(|value| value.is_none()).count();
            if at == 0 {
                words.push(format!("_x{missing}"));
            } else {
                words.push("stale".to_owned());
                if missing > 1 {
                    words.push(format!("_x{}", missing - 1));
                }
            }
            at += missing;
            continue;
        };
        let step =
            values.get(at + 1).copied().flatten().map(|next| next - first).filter(|step| step.fract() == 0.0);
        let run = step.filter(|_| first.fract() == 0.0).map_or(0, |step| {
            let next = (1..).map(|place| first + step * f64::from(place));
            values[at + 1..].iter().zip(next).take_while(|(value, next)| **value == Some(*next)).count()
        });
        if run >= 2 {
            let step = step.unwrap_or_default();
            words.push(format!("{first}{}{}x{run}", if step < 0.0 { "-" } else { "+" }, step.abs()));
            at += run + 1;
        } else {
            words.push(first.to_string());
            at += 1;
        }
    }
    words.join(" ")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The unit tests of one outage, for promtool.
fn tests(outage: &Outage, recording: &Recording, wanted: &BTreeSet<String>) -> String {
    let firing = "count by (alertname, severity) (ALERTS{alertstate=\"firing\"})".to_owned();
    let names: Vec<_> = outage.fires.iter().chain(outage.stays).map(|(name, ..)| *name).collect();
    let end = recording.last() * INTERVAL;
    let others = format!(
        "count by (alertname) (max_over_time(ALERTS{{alertstate=\"firing\", alertname!~\"{}\"}}[{end}s]))",
        names.join("|")
    );
    let expected = |alerts: &[(&str, &str, u32)]| {
        let sample = |(name, severity, count): &(&str, &str, u32)| {
            let labels = format!("{{alertname=\"{name}\", severity=\"{severity}\"}}");
            format!("          - labels: {}\n            value: {count}\n", quoted(&labels))
        };
        let samples: String = alerts.iter().map(sample).collect();
        if samples.is_empty() { " []\n".to_owned() } else { format!("\n{samples}") }
    };
    let mut text = format!(
        "# Scrapes of a real outage, which began after {} seconds and ended after {}. Generated by\n\
         # tests/it/monitoring; CONTRIBUTING.md describes how.\n\
         rule_files:\n  - ../twinsync.rules.yml\nevaluation_interval: {INTERVAL}s\n\
         group_eval_order: [twinsync-recording, twinsync-service, twinsync-dependencies, twinsync-progress, twinsync-copy]\n\ntests:\n  - name: {}\n    interval: {INTERVAL}s\n    input_series:\n",
        recording.begins, recording.ends, outage.name
    );
    for (series, values) in recording.series(wanted) {
        let _ = writeln!(text, "      - series: {}\n        values: {}", quoted(&series), quoted(&values));
    }
    text.push_str("    promql_expr_test:\n");
    let early = recording.begins + outage.minutes_before_alert * MINUTE - INTERVAL;
    for (what, at, query, alerts) in [
        ("no alert fires before the outage", recording.begins - INTERVAL, &firing, &[][..]),
        ("only these alerts fire early", early, &firing, outage.at_once),
        (
            "exactly these alerts fire at the end of the outage",
            recording.ends - INTERVAL,
            &firing,
            outage.fires,
        ),
        ("the alerts end after the outage", end, &firing, outage.stays),
        ("no other alert has fired at any time", end, &others, &[]),
    ] {
        let _ = write!(
            text,
            "      # {what}\n      - expr: {}\n        eval_time: {at}s\n        exp_samples:{}",
            quoted(query),
            expected(alerts)
        );
    }
    text
}

/// The metrics that the rules use.
fn wanted() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/twinsync.rules.yml");
    let text = std::fs::read_to_string(path).expect("readable");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words
        .filter(|word| word.starts_with("twinsync_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
#[ignore = "needs recorded outages"]
fn recorded_outages_become_tests_of_the_rules() {
    let directory = std::env::var_os("TWINSYNC_RECORD_SCRAPES");
    let directory = PathBuf::from(directory.expect("TWINSYNC_RECORD_SCRAPES names a directory"));
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/outages");
    std::fs::create_dir_all(&kept).expect("a directory");
    for outage in &OUTAGES {
        let path = directory.join(format!("{}.scrapes", outage.name));
        if path.exists() {
            let text = tests(outage, &Recording::read(&path), &wanted());
            std::fs::write(kept.join(format!("{}.test.yml", outage.name)), text).expect("written");
        }
    }
}

#[test]
fn every_outage_has_been_recorded_and_is_tested_for_what_has_to_fire() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/outages");
    let files: BTreeSet<_> = std::fs::read_dir(&kept)
        .expect("a directory")
        .map(|file| file.expect("a file").file_name())
        .collect();
    let names = OUTAGES.iter().map(|outage| format!("{}.test.yml", outage.name).into());
    assert_eq!(files, names.collect());
    for outage in &OUTAGES {
        let text = std::fs::read_to_string(kept.join(format!("{}.test.yml", outage.name))).expect("readable");
        let (_, checks) = text.split_once("promql_expr_test:").expect("checks");
        for (name, severity, count) in outage.fires.iter().chain(outage.at_once).chain(outage.stays) {
            let sample =
                format!("'{{alertname=\"{name}\", severity=\"{severity}\"}}'\n            value: {count}\n");
            assert!(checks.contains(&sample), "{}: {name}: generate its test again", outage.name);
        }
    }
}

#[test]
fn values_are_written_as_promtool_reads_them() {
    for (values, expected) in [
        (&[Some(1.0), Some(1.0), Some(1.0), Some(1.0)][..], "1+0x3"),
        (&[Some(0.0), Some(15.0), Some(30.0), Some(31.5)], "0+15x2 31.5"),
        (&[Some(9.0), Some(6.0), Some(3.0), Some(0.0)], "9-3x3"),
        (&[Some(0.126), Some(0.5)], "0.13 0.5"),
        (&[None, None, Some(1.0), None, None, Some(2.0)], "_x2 1 stale _x1 2"),
    ] {
        assert_eq!(notation(values), expected);
    }
}
