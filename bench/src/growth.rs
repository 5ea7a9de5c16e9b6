//! How the daemon's figures grow with one quantity at a time: partitions, twins, the size of documents, replicas.
//!
//! Each point is a separate backlog on a separate local Azure. It ends with the comparison of all documents with their twins.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use devkit::fleet::Rounds;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    azure::{Azure, Options},
    bare,
    daemon::{self, Done, Place},
    workload::{PARTITIONS, Programs, TWIN_BYTES},
};

/// Number of changes per point, except for large documents.
const EVENTS: usize = 100_000;
/// Number of changes with large documents, which cost much more each.
const EVENTS_OF_LARGE: usize = 20_000;
/// Number of twins, unless twins are the growing quantity.
const TWINS: usize = 2_000;
/// Partitions of each Event Hub if replicas share them. Three replicas can share this number evenly.
const SHARED_PARTITIONS: u16 = 12;
/// Number of Event Hubs, each with its own partitions to share.
const HUBS: usize = 2;
/// Divisor of the work in a quick run.
const QUICK: usize = 10;
/// Size of one filler property in bytes, including its name.
const BALLAST_BYTES: usize = 64;

/// The growing quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Series {
    /// Partitions of each of the two Event Hubs.
    Partitions,
    /// Twins. The same number of changes is spread over them.
    Twins,
    /// Size of a document in bytes.
    Documents,
    /// Replicas that share the partitions with leases on blobs.
    Replicas,
}

/// One measurement. Times in seconds, memory in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    pub(crate) series: Series,
    /// The value of the growing quantity: a count, or bytes.
    pub(crate) at: f64,
    pub(crate) twins: usize,
    pub(crate) events: u64,
    pub(crate) events_per_second: f64,
    /// Of all replicas together.
    pub(crate) cpu_seconds_per_event: f64,
    /// Of the replica with the highest value.
    pub(crate) peak_memory: u64,
    pub(crate) writes_per_event: f64,
    pub(crate) request_units_per_event: f64,
}

/// The setting of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Size {
    partitions: u16,
    twins: usize,
    events: usize,
    /// Size of tags and desired properties at registration, and of reported properties that are written before the measurement.
    bytes: [usize; 2],
    replicas: usize,
}

impl Series {
    /// Its name, as `--only` accepts it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn sizes(self, quick: bool) -> Vec<Size> {
        let part = if quick { QUICK } else { 1 };
        let usual = Size {
            partitions: PARTITIONS,
            twins: TWINS / part,
            events: EVENTS / part,
            bytes: [TWIN_BYTES, 0],
            replicas: 1,
        };
        match self {
            Self::Partitions => {
                [1, 4, 16, 32].map(|partitions| Size { partitions, ..usual }).into_iter().collect()
            }
            Self::Twins => [1_000, 10_000, 100_000]
                .map(|twins| Size { twins: twins / part, ..usual })
                .into_iter()
                .collect(),
            // Documents of about 2, 8, 32 and 72 KB: metadata more than doubles the size of desired and reported properties. The real size
            // is measured.
            Self::Documents => [[0, 0], [6_200, 0], [17_000, 0], [30_000, 5_200]]
                .map(|bytes| Size { bytes, twins: 1_000 / part, events: EVENTS_OF_LARGE / part, ..usual })
                .into_iter()
                .collect(),
            Self::Replicas => [1, 3]
                .map(|replicas| Size { replicas, partitions: SHARED_PARTITIONS, ..usual })
                .into_iter()
                .collect(),
        }
    }

    /// Measures all points. `progress` receives progress messages.
    ///
    /// # Errors
    /// Any failure, and any difference between documents and twins.
    pub(crate) async fn run(
        self,
        programs: &Programs,
        quick: bool,
        progress: &dyn Fn(&str),
    ) -> Result<Vec<Point>> {
        let mut points = Vec::new();
        for size in self.sizes(quick) {
            points.push(Box::pin(self.point(programs, size, progress)).await?);
        }
        Ok(points)
    }

    async fn point(self, programs: &Programs, size: Size, progress: &dyn Fn(&str)) -> Result<Point> {
        let azurite = self == Self::Replicas;
        let azure = Azure::with(&programs.devkit, Options { partitions: size.partitions, azurite }).await?;
        let places =
            (0..size.replicas).map(|_| Place::new(&programs.twinsync)).collect::<Result<Vec<_>>>()?;
        let first = places.first().context("no replica")?;
        let register = Rounds { register: true, bytes: size.bytes[0], ..rounds(size, 0) };
        let mut before = azure.load(&register).await?;
        if size.bytes[1] > 0 {
            before += report(&azure, size).await?;
        }
        daemon::work_off(&azure, &first.setup(&azure, "")?, before).await?;
        let load = rounds(size, size.events / size.twins);
        let done = match self {
            Self::Replicas => together(&azure, &places, &load).await?,
            Self::Partitions | Self::Twins | Self::Documents => {
                let events = azure.load(&load).await?;
                daemon::work_off(&azure, &first.setup(&azure, "")?, events).await?
            }
        };
        let at = match self {
            Self::Partitions => f64::from(size.partitions),
            Self::Twins => size.twins as f64,
            Self::Documents => bare::document_bytes(&azure.endpoints).await?,
            Self::Replicas => size.replicas as f64,
        };
        let report = azure.verify().await?;
        progress(&format!("{} {at:.0}: {report}", self.name()));
        Ok(Point::new(self, at, size.twins, &done))
    }
}

impl Point {
    fn new(series: Series, at: f64, twins: usize, done: &Done) -> Self {
        let events = done.events as f64;
        Self {
            series,
            at,
            twins,
            events: done.events,
            events_per_second: events / done.seconds,
            cpu_seconds_per_event: done.cpu_seconds / events,
            peak_memory: done.peak_memory,
            writes_per_event: done.writes as f64 / events,
            request_units_per_event: done.request_units / events,
        }
    }
}

fn rounds(size: Size, rounds: usize) -> Rounds {
    Rounds {
        devices: size.twins,
        prefix: String::new(),
        register: false,
        rounds,
        bytes: 0,
        seed: 1 + rounds as u64,
    }
}

/// Reports filler properties as the devices, so that their documents become as large as possible.
async fn report(azure: &Azure, size: Size) -> Result<u64> {
    let mut ballast = Map::new();
    for number in 0..size.bytes[1] / BALLAST_BYTES {
        let group = ballast.entry(format!("group{:02}", number / 8)).or_insert_with(|| json!({}));
        group[format!("setting-{number:04}")] = Value::from(format!("{number:032x}"));
    }
    let ballast = Value::Object(ballast);
    let devices = azure.devices(size.twins).await?;
    ensure!(devices.len() == size.twins, "{} devices instead of {}", devices.len(), size.twins);
    for device in &devices {
        azure.report(device, &ballast).await?;
    }
    Ok(devices.len() as u64)
}

/// Starts replicas, which first share the partitions, and then emits the load.
async fn together(azure: &Azure, places: &[Place], load: &Rounds) -> Result<Done> {
    let mut daemons = Vec::new();
    for place in places {
        daemons.push(place.setup(azure, "")?.start().await?);
    }
    daemon::share(&mut daemons, HUBS * usize::from(SHARED_PARTITIONS)).await?;
    let marks = daemon::marks(&mut daemons, azure).await?;
    azure.begin(load, None).await?;
    let events = (load.devices * load.rounds) as u64;
    let done = daemon::until_all(&mut daemons, azure, marks, events).await?;
    for daemon in daemons {
        daemon.stop().await?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_whole_rounds_and_one_thing_grows_at_a_time() {
        for series in Series::value_variants() {
            for quick in [false, true] {
                let sizes = series.sizes(quick);
                assert!(sizes.iter().all(|size| size.events.is_multiple_of(size.twins)), "{series:?}");
                let differ = |part: &dyn Fn(&Size) -> [usize; 2]| {
                    usize::from(sizes.iter().any(|size| part(size) != part(&sizes[0])))
                };
                let grow = differ(&|size| [usize::from(size.partitions), 0])
                    + differ(&|size| [size.twins, 0])
                    + differ(&|size| size.bytes)
                    + differ(&|size| [size.replicas, 0]);
                assert_eq!(grow, 1, "{series:?}");
            }
        }
    }
}
