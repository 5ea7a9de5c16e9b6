//! The resource usage of each replica during the faults: memory, of it the cached documents, open files, tasks, and the freshness of its documents.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use devkit::metrics::Sample;
use twinsync::telemetry::name;

use crate::cluster::Cluster;

/// The sampling interval.
const EVERY: Duration = Duration::from_secs(5);

/// One replica at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// Seconds since the begin of the run.
    pub(crate) at: f64,
    pub(crate) replica: usize,
    /// Resident memory in bytes.
    pub(crate) memory: f64,
    /// Bytes of the documents that are kept for the next write of their twin: a part of the memory.
    pub(crate) cached: f64,
    pub(crate) files: f64,
    pub(crate) tasks: f64,
    /// The 99th percentile of the time from the hub's operation to the durable document, in seconds, since the previous sample.
    pub(crate) freshness_p99: Option<f64>,
    /// Number of events handled since the start of the process.
    pub(crate) events: f64,
}

/// All points of a run.
pub(crate) struct Series {
    began: Instant,
    next: Instant,
    before: Vec<Option<Sample>>,
    pub(crate) points: Vec<Point>,
}

impl Series {
    /// A series that begins now.
    pub(crate) fn new(replicas: usize) -> Self {
        let now = Instant::now();
        Self { began: now, next: now, before: vec![None; replicas], points: Vec::new() }
    }

    /// Samples each replica that answers, if the interval has passed.
    pub(crate) async fn sample(&mut self, cluster: &mut Cluster) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        for (number, replica) in cluster.replicas.iter_mut().enumerate() {
            let Some(sample) = replica.sample().await else { continue };
            let point = self.point(number, &sample);
            // A process that cannot open a file cannot read its own resource usage.
            if point.memory > 0.0 {
                self.points.push(point);
            }
            self.before[number] = Some(sample);
        }
    }

    fn point(&self, replica: usize, sample: &Sample) -> Point {
        let before = self.before[replica].as_ref();
        // A process that was restarted since has counted fewer events. It is not compared with the previous one.
        let before = before.filter(|before| before.sum(name::EVENTS, "") <= sample.sum(name::EVENTS, ""));
        let nothing = Sample::default();
        Point {
            at: self.began.elapsed().as_secs_f64(),
            replica,
            memory: sample.sum(name::PROCESS_RESIDENT_MEMORY, ""),
            cached: sample.sum(name::CACHE_BYTES, ""),
            files: sample.sum(name::PROCESS_OPEN_FDS, ""),
            tasks: sample.sum(name::RUNTIME_TASKS, ""),
            freshness_p99: sample.quantile(before.unwrap_or(&nothing), name::FRESHNESS, 0.99),
            events: sample.sum(name::EVENTS, ""),
        }
    }
}

/// The points as CSV, with a header line.
pub(crate) fn csv(points: &[Point]) -> String {
    let mut text = String::from(
        "seconds,replica,memory_bytes,cached_bytes,open_files,tasks,freshness_p99_seconds,events\n",
    );
    for point in points {
        let Point { at, replica, memory, cached, files, tasks, freshness_p99, events } = point;
        let freshness = freshness_p99.map(|seconds| format!("{seconds:.4}")).unwrap_or_default();
        let _ = writeln!(text, "{at:.1},{replica},{memory},{cached},{files},{tasks},{freshness},{events}");
    }
    text
}

/// The largest value of a figure in the first and in the last quarter of the run. Their ratio shows continuous growth.
pub(crate) fn growth(points: &[Point], figure: impl Fn(&Point) -> f64) -> Option<(f64, f64)> {
    let end = points.last()?.at;
    let most = |wanted: &dyn Fn(f64) -> bool| {
        points.iter().filter(|point| wanted(point.at)).map(&figure).reduce(f64::max)
    };
    Some((most(&|at| at <= end / 4.0)?, most(&|at| at >= end * 3.0 / 4.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: f64, memory: f64) -> Point {
        Point {
            at,
            replica: 0,
            memory,
            cached: 5.0,
            files: 30.0,
            tasks: 9.0,
            freshness_p99: None,
            events: 1.0,
        }
    }

    #[test]
    fn the_first_and_the_last_quarter_are_compared() {
        let points =
            [point(0.0, 10.0), point(20.0, 12.0), point(50.0, 99.0), point(90.0, 13.0), point(100.0, 11.0)];
        assert_eq!(growth(&points, |point| point.memory), Some((12.0, 13.0)));
        assert_eq!(growth(&[], |point| point.memory), None);
    }

    #[test]
    fn a_missing_figure_is_an_empty_column() {
        let text = csv(&[point(1.0, 10.0), Point { freshness_p99: Some(0.0312), ..point(2.0, 10.0) }]);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(lines, ["1.0,0,10,5,30,9,,1", "2.0,0,10,5,30,9,0.0312,1"]);
    }
}
