//! What the daemon's walks over the container cost.

use std::{fmt, pin::pin};

use anyhow::{Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use twinsync::{
    domain::document::Flag,
    ports::{TwinStore, Which},
};

use super::{Fleet, Policy, start, written};

/// Documents of the containers that are walked over.
const COUNTS: [usize; 2] = [1_000, 10_000];
/// For which it is told what that would come to.
const LARGE: f64 = 1_000_000.0;
/// Bytes of each document.
const BYTES: usize = 2 << 10;
/// One of so many documents is in doubt.
const DOUBTFUL: usize = 100;
const CONCURRENCY: usize = 16;

/// A walk over one container.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Walk {
    policy: Policy,
    name: &'static str,
    documents: usize,
    found: usize,
    pages: usize,
    request_units: f64,
    /// What point reads of everything that it found would cost.
    as_reads: f64,
    scans: u64,
}

pub(super) struct Walks {
    pub(super) policy: Policy,
    pub(super) quick: bool,
}

impl Walks {
    /// Each walk over each container.
    pub(super) async fn measure(&self) -> Result<Vec<Walk>> {
        let mut walks = Vec::new();
        for count in COUNTS {
            let count = if self.quick { count / 10 } else { count };
            let (server, store) = start(self.policy).await?;
            let mut fleet = Fleet::new()?;
            let mut documents = Vec::new();
            let first = fleet.register(0, BYTES)?;
            let template = fleet.document(&first)?;
            for number in 0..count {
                let mut document = template.clone();
                document.key.device = format!("device-{number:06}");
                document.id.clone_from(&document.key.device);
                if number % DOUBTFUL == 0 {
                    document.flags.insert(Flag::Gap);
                }
                documents.push(document);
            }
            let writes = stream::iter(&documents).map(|document| store.create(&document.key, document));
            let writes = writes.buffer_unordered(CONCURRENCY).map(written);
            writes.try_for_each(|_| async { Ok(()) }).await?;
            for (name, which) in [("in doubt", Which::Doubtful), ("present", Which::Present)] {
                server.reset_counters();
                let mut walk = Walk {
                    policy: self.policy,
                    name,
                    documents: count,
                    found: 0,
                    pages: 0,
                    request_units: 0.0,
                    as_reads: 0.0,
                    scans: 0,
                };
                let mut pages = pin!(store.scan(which));
                while let Some(page) = pages.next().await {
                    walk.request_units += page.request_units;
                    walk.pages += 1;
                    match page.outcome {
                        Ok(rows) => walk.found += rows.len(),
                        Err(trouble) => bail!("the walk ended: {trouble:?}"),
                    }
                }
                walk.as_reads = walk.found as f64 * devkit::cosmos::price::read(BYTES);
                walk.scans = server.counters().get("query").map_or(0, |query| query.scans);
                walks.push(walk);
            }
            server.stop().await;
        }
        Ok(walks)
    }
}

/// What a walk costs: so much at any size, and so much for each document.
fn line(small: &Walk, large: &Walk) -> (f64, f64) {
    let (from, to) = (small.documents as f64, large.documents as f64);
    let each = (large.request_units - small.request_units) / (to - from);
    (small.request_units - each * from, each)
}

/// All of them, and what they come to over a large container.
pub(super) fn table(f: &mut fmt::Formatter<'_>, walks: &[Walk]) -> fmt::Result {
    writeln!(
        f,
        "| walk | indexing policy | documents | found | RU | at most, as point reads, RU | over {LARGE:.0} documents, RU |"
    )?;
    writeln!(f, "|---|---|---|---|---|---|---|")?;
    for large in walks {
        let is_pair = |other: &&Walk| {
            (other.name, other.policy) == (large.name, large.policy) && other.documents < large.documents
        };
        let beyond = walks.iter().find(is_pair).map_or_else(String::new, |small| {
            let (fixed, each) = line(small, large);
            format!("{fixed:.0} + {each:.5} × {LARGE:.0} = {:.0}", fixed + each * LARGE)
        });
        let Walk { policy, name, documents, found, request_units, as_reads, .. } = large;
        let policy = policy.name();
        writeln!(
            f,
            "| {name} | {policy} | {documents} | {found} | {request_units:.1} | {as_reads:.0} | {beyond} |"
        )?;
    }
    Ok(())
}
