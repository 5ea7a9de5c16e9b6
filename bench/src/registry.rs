//! The commands that query the hub, beside loops that do the same with the clients alone.
//!
//! A backfill needs a fleet without documents, so each run has a local Azure of its own. An audit needs a fleet with all documents, of
//! which some are outdated, because nothing consumes the events.

use anyhow::{Result, ensure};
use devkit::{fleet::Rounds, verify::Report};

use crate::{
    azure::Azure,
    bare::{Fill, Loop, Scan, Took},
    command,
    daemon::{Done, Place},
    workload::{PARTITIONS, Pair, Programs, Size, TWIN_BYTES, Workload},
};

/// The default number of concurrent twins. The bare loop uses it as well.
const CONCURRENCY: usize = 16;
/// One twin in this many differs at an audit.
const DIFFERS: usize = 100;

/// Runs all pairs.
///
/// # Errors
/// Any failure, and any difference between documents and twins at the end.
pub(crate) async fn run(
    programs: &Programs,
    workload: Workload,
    size: Size,
    pairs: usize,
    progress: &dyn Fn(&str),
) -> Result<Vec<Pair>> {
    let bench = Bench { programs, devices: size.devices };
    let audited = match workload {
        Workload::Audit => Some(Box::pin(bench.filled(progress)).await?),
        _ => None,
    };
    let mut all = Vec::new();
    for number in 0..pairs {
        let product = async || match &audited {
            Some(audited) => Box::pin(bench.audit(audited, number)).await,
            None => Box::pin(bench.backfill()).await,
        };
        let bare = async || match &audited {
            Some((azure, _)) => Box::pin(bench.bare_audit(azure)).await,
            None => Box::pin(bench.bare_backfill()).await,
        };
        let ((daemon, report), bare) = match number.is_multiple_of(2) {
            true => {
                let bare = bare().await?;
                (product().await?, bare)
            }
            false => (product().await?, bare().await?),
        };
        progress(&format!("{}: pair {} of {pairs}: {report}", workload.name(), number + 1));
        all.push(Pair { daemon, bare: Some(bare), usual: Vec::new(), start_seconds: None });
    }
    Ok(all)
}

struct Bench<'a> {
    programs: &'a Programs,
    devices: usize,
}

impl Bench<'_> {
    /// A hub with a fleet, and an empty container.
    async fn fleet(&self) -> Result<Azure> {
        let azure = Azure::start(&self.programs.devkit, PARTITIONS).await?;
        let rounds = Rounds { register: true, rounds: 0, bytes: TWIN_BYTES, ..self.rounds(0) };
        azure.load(&rounds).await?;
        Ok(azure)
    }

    fn rounds(&self, seed: u64) -> Rounds {
        Rounds { devices: self.devices, prefix: String::new(), register: false, rounds: 1, bytes: 0, seed }
    }

    async fn backfill(&self) -> Result<(Done, Report)> {
        let azure = self.fleet().await?;
        let done = self.fill(&azure, &Place::new(&self.programs.twinsync)?).await?;
        Ok((done, azure.verify().await?))
    }

    async fn fill(&self, azure: &Azure, place: &Place) -> Result<Done> {
        let (more, twins) = (configuration(azure), self.devices as u64);
        let done = Box::pin(command::run(azure, place, &["backfill", "--json"], &more, twins)).await?;
        let missing = (self.devices as u64).saturating_sub(done.writes);
        ensure!(missing == 0, "{missing} documents were not written");
        Ok(done)
    }

    async fn bare_backfill(&self) -> Result<Took> {
        let azure = self.fleet().await?;
        let endpoints = azure.endpoints.clone();
        Loop::Fill(Fill { endpoints, concurrency: CONCURRENCY }).run().await
    }

    async fn filled(&self, progress: &dyn Fn(&str)) -> Result<(Azure, Place)> {
        progress(&format!("{}: {} twins are registered", Workload::Audit.name(), self.devices));
        let (azure, place) = (self.fleet().await?, Place::new(&self.programs.twinsync)?);
        self.fill(&azure, &place).await?;
        Ok((azure, place))
    }

    async fn audit(&self, (azure, place): &(Azure, Place), number: usize) -> Result<(Done, Report)> {
        let differ = self.devices.div_ceil(DIFFERS);
        azure.load(&Rounds { devices: differ, ..self.rounds(number as u64 + 1) }).await?;
        // All twins are compared, even if they have changed just now.
        let arguments = ["audit", "--json", "--repair", "--tolerance", "0s"];
        let (more, twins) = (configuration(azure), self.devices as u64);
        let done = Box::pin(command::run(azure, place, &arguments, &more, twins)).await?;
        ensure!(done.writes == differ as u64, "{differ} twins differed, {} were written", done.writes);
        Ok((done, azure.verify().await?))
    }

    async fn bare_audit(&self, azure: &Azure) -> Result<Took> {
        let endpoints = azure.endpoints.clone();
        Loop::Scan(Scan { endpoints, concurrency: CONCURRENCY }).run().await
    }
}

/// A configuration with the complete quota of the largest possible hub, 100,000 point reads per second, so that the quota does not
/// determine the result.
pub(crate) fn configuration(azure: &Azure) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string(); // JSON strings are TOML strings
    let endpoints = &azure.endpoints;
    format!(
        "[iothub]\nhosts = {}\nendpoint = {}\ntier = \"s3\"\nunits = 200\nshare = \"1\"\n\
         [backfill]\nconcurrency = {CONCURRENCY}\n",
        quoted(&endpoints.iothub_host_name),
        quoted(&endpoints.iothub),
    )
}
