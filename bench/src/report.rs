//! The results as a table and as JSON.

use std::fmt;

use anyhow::Result;
use bench_sync::pure;
use serde::{Deserialize, Serialize};

use crate::{
    bare::Took,
    statistics::Spread,
    usual::Way,
    workload::{Pair, Workload},
};

/// The figures of one workload over all its pairs. Rates are per second, times in seconds, memory in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) workload: Workload,
    pairs: usize,
    twins: usize,
    events: u64,
    pub(crate) events_per_second: Option<Spread>,
    /// The work of the bare loop.
    beside: String,
    bare_per_second: Option<Spread>,
    /// Ratio of daemon to bare loop of each pair: of their rates, or for steady loads of the CPU time per
    /// event.
    pub(crate) ratio: Option<Spread>,
    usual: Vec<Usual>,
    pub(crate) cpu_seconds_per_event: Option<Spread>,
    /// The part of it for decoding, deciding and serializing, measured separately with the same number of
    /// events per write.
    pub(crate) pure_seconds_per_event: Option<f64>,
    /// Size of an event in memory in bytes, including its properties.
    pub(crate) bytes_per_event: Option<f64>,
    bare_cpu_seconds_per_item: Option<Spread>,
    devkit_cpu_seconds_per_event: Option<Spread>,
    writes_per_event: Option<Spread>,
    reads_per_event: Option<Spread>,
    pub(crate) request_units_per_event: Option<Spread>,
    peak_memory: Option<Spread>,
    freshness_p50: Option<Spread>,
    freshness_p99: Option<Spread>,
    start_seconds: Option<Spread>,
}

/// The figures of the usual way over all pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usual {
    way: Way,
    per_second: Spread,
    cpu_seconds_per_event: Spread,
    /// Ratio of the daemon's rate to its rate, of each pair.
    ratio: Spread,
}

impl Usual {
    fn new(way: Way, pairs: &[Pair]) -> Option<Self> {
        let each = |figure: &dyn Fn(&Pair, &Took) -> f64| {
            Spread::of(pairs.iter().filter_map(|pair| {
                let (_, took) = pair.usual.iter().find(|(other, _)| *other == way)?;
                Some(figure(pair, took))
            }))
        };
        Some(Self {
            way,
            per_second: each(&|_, took| took.rate())?,
            cpu_seconds_per_event: each(&|_, took| took.cpu_per_item())?,
            ratio: each(&|pair, took| rate(pair) / took.rate())?,
        })
    }
}

fn rate(pair: &Pair) -> f64 {
    pair.daemon.events as f64 / pair.daemon.seconds
}

impl Row {
    /// The figures of these pairs, with this many twins.
    pub(crate) fn new(workload: Workload, twins: usize, pairs: &[Pair]) -> Self {
        let each = |figure: &dyn Fn(&Pair) -> Option<f64>| Spread::of(pairs.iter().filter_map(figure));
        let per_event = |figure: &dyn Fn(&Pair) -> f64| {
            each(&|pair: &Pair| (pair.daemon.events > 0).then(|| figure(pair) / pair.daemon.events as f64))
        };
        let cpu = |pair: &Pair| pair.daemon.cpu_seconds / pair.daemon.events as f64;
        // The work after the first write of a start has no meaning for the result.
        let counts = workload != Workload::Start;
        Self {
            workload,
            pairs: pairs.len(),
            twins,
            events: pairs.first().map_or(0, |pair| pair.daemon.events),
            events_per_second: counts.then(|| each(&|pair| Some(rate(pair)))).flatten(),
            beside: workload.beside().to_owned(),
            bare_per_second: each(&|pair| pair.bare.as_ref().map(Took::rate)),
            ratio: each(&|pair| {
                let bare = pair.bare.as_ref()?;
                Some(match workload.compares_cpu() {
                    true => cpu(pair) / bare.cpu_per_item(),
                    false => rate(pair) / bare.rate(),
                })
            }),
            usual: Way::ALL.into_iter().filter_map(|way| Usual::new(way, pairs)).collect(),
            cpu_seconds_per_event: counts.then(|| each(&|pair| Some(cpu(pair)))).flatten(),
            pure_seconds_per_event: None,
            bytes_per_event: None,
            bare_cpu_seconds_per_item: each(&|pair| pair.bare.as_ref().map(Took::cpu_per_item)),
            devkit_cpu_seconds_per_event: counts
                .then(|| per_event(&|pair| pair.daemon.azure_cpu_seconds))
                .flatten(),
            writes_per_event: counts.then(|| per_event(&|pair| pair.daemon.writes as f64)).flatten(),
            reads_per_event: counts.then(|| per_event(&|pair| pair.daemon.reads as f64)).flatten(),
            request_units_per_event: counts.then(|| per_event(&|pair| pair.daemon.request_units)).flatten(),
            peak_memory: each(&|pair| Some(pair.daemon.peak_memory as f64)),
            freshness_p50: workload.compares_cpu().then(|| each(&|pair| pair.daemon.freshness_p50)).flatten(),
            freshness_p99: workload.compares_cpu().then(|| each(&|pair| pair.daemon.freshness_p99)).flatten(),
            start_seconds: each(&|pair| pair.start_seconds),
        }
    }
}

/// Changes of each twin in the load for the pure cost, and number of runs.
const PURE: (usize, usize) = (256, 5);
/// Number of twins in it, and size of their registration in bytes.
const PURE_TWINS: (usize, usize) = (100, 1 << 10);

impl Row {
    /// Adds the cost of the pure core, if the workload writes changes.
    ///
    /// # Errors
    /// The load cannot be applied.
    pub(crate) async fn with_pure(self) -> Result<Self> {
        let Some(writes) = self.writes_per_event.filter(|writes| writes.median > 0.0) else {
            return Ok(self);
        };
        if self.workload.is_command() {
            return Ok(self);
        }
        let batch = (1.0 / writes.median).round().clamp(1.0, PURE.0 as f64) as usize;
        let load = pure::Load::new(PURE_TWINS.0, PURE.0, PURE_TWINS.1).await?;
        let seconds = pure::seconds_per_event(&load, batch, PURE.1)?;
        Ok(Self {
            pure_seconds_per_event: Some(seconds),
            bytes_per_event: Some(load.bytes_per_event()),
            ..self
        })
    }
}

/// All rows, as Markdown.
pub(crate) struct Table<'a>(pub(crate) &'a [Row]);

/// A median with its spread, in some unit.
struct Shown(Option<Spread>, f64, usize);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Some(spread), factor, digits) = self else {
            return f.write_str("–");
        };
        let (median, least, most) = (spread.median * factor, spread.least * factor, spread.most * factor);
        write!(f, "{median:.digits$}")?;
        match spread.least < spread.most {
            true => write!(f, " ({least:.digits$}–{most:.digits$})"),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| workload | twins · events · pairs | events/s (backfill, audit: twins/s) | bare loop, per s | ratio | CPU µs/event: daemon · ours, pure · bare · devkit | writes · reads · RU per event | peak MiB | p50 · p99 ms |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for row in self.0 {
            let start = match row.start_seconds {
                Some(_) => format!(", {} s to the first write", Shown(row.start_seconds, 1.0, 2)),
                None => String::new(),
            };
            let beside = match row.beside.as_str() {
                "" => "–".to_owned(),
                beside => format!("{beside}: {}", Shown(row.bare_per_second, 1.0, 0)),
            };
            let ratio = match row.workload.compares_cpu() {
                true => format!("CPU × {}", Shown(row.ratio, 1.0, 2)),
                false => Shown(row.ratio, 1.0, 2).to_string(),
            };
            writeln!(
                f,
                "| {}{start} | {} · {} · {} | {} | {beside} | {ratio} | {} · {} · {} · {} | {} · {} · {} | {} | {} · {} |",
                row.workload.name(),
                row.twins,
                row.events,
                row.pairs,
                Shown(row.events_per_second, 1.0, 0),
                Shown(row.cpu_seconds_per_event, 1e6, 0),
                Shown(row.pure_seconds_per_event.and_then(|seconds| Spread::of([seconds])), 1e6, 1),
                Shown(row.bare_cpu_seconds_per_item, 1e6, 0),
                Shown(row.devkit_cpu_seconds_per_event, 1e6, 0),
                Shown(row.writes_per_event, 1.0, 3),
                Shown(row.reads_per_event, 1.0, 3),
                Shown(row.request_units_per_event, 1.0, 2),
                Shown(row.peak_memory, 1.0 / f64::from(1 << 20), 0),
                Shown(row.freshness_p50, 1e3, 1),
                Shown(row.freshness_p99, 1e3, 1),
            )?;
        }
        Ok(())
    }
}

/// The usual way of all rows that have it, as Markdown.
pub(crate) struct UsualTable<'a>(pub(crate) &'a [Row]);

impl UsualTable<'_> {
    /// Whether no row has it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|row| row.usual.is_empty())
    }
}

impl fmt::Display for UsualTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| workload | the usual way | events/s | CPU µs/event | twinsync, events/s | CPU µs/event | ratio of the rates |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in self.0 {
            for usual in &row.usual {
                let way = match usual.way {
                    Way::InOrder => "in order",
                    Way::Concurrent => "concurrent",
                    Way::Coalesced => "coalesced",
                };
                writeln!(
                    f,
                    "| {} | {way} | {} | {} | {} | {} | {} |",
                    row.workload.name(),
                    Shown(Some(usual.per_second), 1.0, 0),
                    Shown(Some(usual.cpu_seconds_per_event), 1e6, 0),
                    Shown(row.events_per_second, 1.0, 0),
                    Shown(row.cpu_seconds_per_event, 1e6, 0),
                    Shown(Some(usual.ratio), 1.0, 1),
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Done;

    fn pair(seconds: f64, bare_seconds: f64) -> Pair {
        Pair {
            daemon: Done {
                events: 1000,
                seconds,
                cpu_seconds: 0.1,
                azure_cpu_seconds: 0.2,
                peak_memory: 50 << 20,
                writes: 200,
                reads: 100,
                request_units: 2_000.0,
                freshness_p50: Some(0.004),
                freshness_p99: None,
            },
            bare: Some(Took { items: 1000, seconds: bare_seconds, cpu_seconds: 0.05 }),
            usual: Vec::new(),
            start_seconds: None,
        }
    }

    #[test]
    fn ratios_are_of_pairs_and_not_of_medians() {
        let row = Row::new(Workload::Hot, 10, &[pair(2.0, 1.0), pair(1.0, 1.0), pair(4.0, 3.0)]);
        assert_eq!(row.ratio, Some(Spread { median: 0.75, least: 0.5, most: 1.0 }));
        let text = Table(&[row]).to_string();
        assert!(
            text.contains("| 0.75 (0.50–1.00) | 100 · – · 50 · 200 | 0.200 · 0.100 · 2.00 | 50 | – · – |"),
            "{text}"
        );
    }

    #[test]
    fn the_usual_way_is_compared_pair_by_pair() {
        let usual = |seconds| vec![(Way::InOrder, Took { items: 1000, seconds, cpu_seconds: 0.8 })];
        let pairs =
            [Pair { usual: usual(8.0), ..pair(2.0, 1.0) }, Pair { usual: usual(10.0), ..pair(1.0, 1.0) }];
        let rows = [Row::new(Workload::Wide, 10, &pairs), Row::new(Workload::Start, 10, &[pair(1.0, 1.0)])];
        let text = UsualTable(&rows).to_string();
        let row = "| wide | in order | 112 (100–125) | 800 | 750 (500–1000) | 100 | 7.0 (4.0–10.0) |\n";
        assert!(text.ends_with(row) && !text.contains("start"), "{text}");
        assert!(!UsualTable(&rows).is_empty() && UsualTable(&rows[1..]).is_empty());
    }

    #[test]
    fn steady_loads_compare_cpu_time() {
        let row = Row::new(Workload::Steady500, 10, &[pair(2.0, 1.0)]);
        let text = Table(&[row]).to_string();
        assert!(text.contains("| CPU × 2.00 |") && text.contains("| 4.0 · – |"), "{text}");
    }
}
