//! The request units of the daemon's scans over the container.

use std::{fmt, pin::pin};

use anyhow::{Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use twinsync::{
    domain::document::Flag,
    ports::{TwinStore, Which},
};

use super::{Fleet, Policy, start, written};

/// Numbers of documents in the scanned containers.
const COUNTS: [usize; 2] = [1_000, 10_000];
/// The number of documents for which the price is extrapolated.
const LARGE: f64 = 1_000_000.0;
/// Maximum number of documents in a page of a scan. A page whose size limit is reached has fewer.
const PAGE: f64 = 1_000.0;
/// Bytes of each document.
const BYTES: usize = 2 << 10;
/// One document in this many is flagged.
const FLAGGED_INTERVAL: usize = 100;
const CONCURRENCY: usize = 16;

/// A scan over one container.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scan {
    policy: Policy,
    name: &'static str,
    documents: usize,
    found: usize,
    pages: usize,
    request_units: f64,
    /// The price of point reads of all documents that it found.
    as_reads: f64,
    scans: u64,
}

pub(super) struct Scans {
    pub(super) policy: Policy,
    pub(super) quick: bool,
}

impl Scans {
    /// Measures each scan over each container.
    pub(super) async fn measure(&self) -> Result<Vec<Scan>> {
        let mut scans = Vec::new();
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
                if number % FLAGGED_INTERVAL == 0 {
                    document.flags.insert(Flag::Gap);
                }
                documents.push(document);
            }
            let writes = stream::iter(&documents).map(|document| store.create(&document.key, document));
            let writes = writes.buffer_unordered(CONCURRENCY).map(written);
            writes.try_for_each(|_| async { Ok(()) }).await?;
            for (name, which) in [("flagged", Which::Flagged), ("present", Which::Present)] {
                server.reset_counters();
                let mut scan = Scan {
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
                    scan.request_units += page.request_units;
                    scan.pages += 1;
                    match page.outcome {
                        Ok(rows) => scan.found += rows.len(),
                        Err(trouble) => bail!("the scan ended: {trouble:?}"),
                    }
                }
                scan.as_reads = scan.found as f64 * devkit::cosmos::price::read(BYTES);
                scan.scans = server.counters().get("query").map_or(0, |query| query.scans);
                scans.push(scan);
            }
            server.stop().await;
        }
        Ok(scans)
    }
}

/// The price of a scan: per page, and per document that it finds. Both scans had the same number of pages: one per physical partition.
fn prices(small: &Scan, large: &Scan) -> (f64, f64) {
    let each = (large.request_units - small.request_units) / (large.found - small.found).max(1) as f64;
    ((large.request_units - each * large.found as f64) / large.pages.max(1) as f64, each)
}

/// The extrapolated price of a scan over many documents, with the same share of found ones as in `large`.
fn beyond(small: &Scan, large: &Scan) -> String {
    let (page, each) = prices(small, large);
    let found = (LARGE * large.found as f64 / large.documents as f64).round();
    let pages = (found / PAGE).ceil().max(large.pages as f64);
    format!("{page:.2} × {pages:.0} + {each:.4} × {found:.0} = {:.0}", page * pages + each * found)
}

/// All scans, with the extrapolated prices for a large container.
pub(super) fn table(f: &mut fmt::Formatter<'_>, scans: &[Scan]) -> fmt::Result {
    writeln!(
        f,
        "| scan | indexing policy | documents | found | pages | RU | as point reads, RU | over {LARGE:.0} documents: per page × pages + each × found, RU |"
    )?;
    writeln!(f, "|---|---|---|---|---|---|---|---|")?;
    for large in scans {
        let is_pair = |other: &&Scan| {
            (other.name, other.policy) == (large.name, large.policy) && other.documents < large.documents
        };
        let beyond = scans.iter().find(is_pair).map_or_else(String::new, |small| beyond(small, large));
        let Scan { policy, name, documents, found, pages, request_units, as_reads, .. } = large;
        let policy = policy.name();
        writeln!(
            f,
            "| {name} | {policy} | {documents} | {found} | {pages} | {request_units:.1} | {as_reads:.0} | {beyond} |"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(documents: usize, found: usize, request_units: f64) -> Scan {
        let (policy, name, pages, as_reads, scans) = (Policy::Recommended, "x", 16, 0.0, 0);
        Scan { policy, name, documents, found, pages, request_units, as_reads, scans }
    }

    #[test]
    fn many_documents_need_many_pages() {
        let (small, large) =
            (scan(1_000, 1_000, 16.0 * 3.0 + 20.0), scan(10_000, 10_000, 16.0 * 3.0 + 200.0));
        assert_eq!(beyond(&small, &large), "3.00 × 1000 + 0.0200 × 1000000 = 23000");
        let (small, large) = (scan(1_000, 10, 16.0 * 3.0 + 0.2), scan(10_000, 100, 16.0 * 3.0 + 2.0));
        assert_eq!(beyond(&small, &large), "3.00 × 16 + 0.0200 × 10000 = 248");
    }
}
