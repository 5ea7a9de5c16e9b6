//! `cargo bench-sync units`: the request units of documents and scans, under the recommended indexing policy and under the default of new
//! containers.
//!
//! The documents are those that the daemon makes of the twins of devkit's IoT Hub, and the daemon's own store writes them. The prices are
//! those of devkit's Cosmos DB host, a model of Microsoft's published figures: see `devkit::cosmos::price`. They are the same in each run.

mod scans;
mod twins;

use std::{fmt, time::Duration};

use anyhow::{Context, Result, bail};
use devkit::cosmos::{RECOMMENDED_POLICY, Server, service_default_policy};
use serde::Serialize;
use serde_json::Value;
use twinsync::{
    adapters::cosmos::{Access, CosmosStore, Options},
    domain::id::DocumentIdScheme,
    ports::{Charged, TwinStore, Write},
};

use self::{
    scans::{Scan, Scans},
    twins::Fleet,
};

/// Sizes of documents, in KiB.
const SIZES: [usize; 4] = [1, 2, 8, 32];
/// Number of reported values that a replace changes.
const CHANGED: [usize; 2] = [1, 5];
/// An arbitrary key: the host does not check it.
const KEY: &str = "a2V5";

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Scans over a tenth of the documents.
    #[arg(long)]
    quick: bool,
    /// Prints one JSON object instead of the tables.
    #[arg(long)]
    json: bool,
}

/// A measured indexing policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Policy {
    Recommended,
    Default,
}

impl Policy {
    const BOTH: [Self; 2] = [Self::Recommended, Self::Default];

    fn value(self) -> Result<Value> {
        match self {
            Self::Recommended => serde_json::from_str(RECOMMENDED_POLICY).context("the policy is not JSON"),
            Self::Default => Ok(service_default_policy()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Recommended => "recommended",
            Self::Default => "default",
        }
    }
}

/// The prices of documents of one size under one policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kib: usize,
    bytes: usize,
    policy: Policy,
    create: f64,
    /// By the number of changed values, as in [`CHANGED`].
    replace: [f64; 2],
    read: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    documents: Vec<Row>,
    scans: Vec<Scan>,
}

/// Measures, and returns the result as text.
///
/// # Errors
/// The host gives an unexpected answer.
pub(crate) async fn measure(arguments: &Arguments) -> Result<String> {
    let mut documents = Vec::new();
    for kib in SIZES {
        for policy in Policy::BOTH {
            documents.push(Box::pin(document(kib, policy)).await?);
        }
    }
    let mut scans = Vec::new();
    for policy in Policy::BOTH {
        scans.extend(Box::pin(Scans { policy, quick: arguments.quick }.measure()).await?);
    }
    let outcome = Outcome { documents, scans };
    Ok(match arguments.json {
        true => serde_json::to_string(&outcome)?,
        false => outcome.to_string(),
    })
}

async fn document(kib: usize, policy: Policy) -> Result<Row> {
    let (server, store) = start(policy).await?;
    let mut fleet = Fleet::new()?;
    let key = fleet.register(0, kib << 10)?;
    let before = fleet.document(&key)?;
    let created = store.create(&key, &before).await;
    let create = created.request_units;
    let mut etag = written(created)?;
    let mut replace = [0.0; 2];
    for (price, changed) in replace.iter_mut().zip(CHANGED) {
        fleet.report(&key, changed)?;
        let charged = store.replace(&key, &fleet.document(&key)?, &etag).await;
        *price = charged.request_units;
        etag = written(charged)?;
    }
    let read = store.read(&key).await.request_units;
    server.stop().await;
    let bytes = serde_json::to_vec(&before)?.len();
    Ok(Row { kib, bytes, policy, create, replace, read })
}

/// Starts a host whose container has this policy, with the daemon's store for it.
async fn start(policy: Policy) -> Result<(Server, CosmosStore)> {
    let options = devkit::cosmos::Options { indexing_policy: Some(policy.value()?), ..Default::default() };
    let (database, container) = (options.database.clone(), options.container.clone());
    let server = Server::start(options).await?;
    let options = Options {
        endpoint: server.endpoint().parse().context("the endpoint is no URL")?,
        database,
        container,
        region: None,
        write_region: None,
        request_timeout: Duration::from_secs(60),
        binary_encoding: false,
        id_scheme: DocumentIdScheme::Device,
    };
    let store = CosmosStore::connect(&options, Access::Key(KEY.to_owned())).await?;
    Ok((server, store))
}

fn written(charged: Charged<Write>) -> Result<twinsync::domain::document::ETag> {
    match charged.outcome {
        Write::Written(etag) => Ok(etag),
        other => bail!("the document was not written: {other:?}"),
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| document, KiB | indexing policy | create, RU | replace, 1 value changed, RU | replace, 5 values changed, RU | read, RU |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for Row { kib, policy, create, replace: [one, five], read, bytes: _ } in &self.documents {
            writeln!(f, "| {kib} | {} | {create:.2} | {one:.2} | {five:.2} | {read:.2} |", policy.name())?;
        }
        writeln!(f)?;
        scans::table(f, &self.scans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_recommended_policy_serves_what_is_asked_about_one_device() {
        let (server, store) = start(Policy::Recommended).await.expect("a container");
        let mut fleet = Fleet::new().expect("a hub");
        let key = fleet.register(0, 2 << 10).expect("fits");
        written(store.create(&key, &fleet.document(&key).expect("is there")).await).expect("written");
        assert!(store.modules(&key).await.outcome.expect("answered").is_empty());
        assert_eq!(store.hubs(&key.device, None).await.outcome.expect("answered").len(), 1);
        assert_eq!(store.hubs(&key.device, Some("m")).await.outcome.expect("answered").len(), 0);
        let query = server.counters()["query"].clone();
        assert!(query.requests >= 3 && query.scans == 0, "{query:?}");
        server.stop().await;
    }

    #[tokio::test]
    async fn the_recommended_policy_makes_every_write_cheaper_and_no_scan_dearer() {
        let outcome = measure(&Arguments { quick: true, json: true }).await.expect("measured");
        let outcome: Value = serde_json::from_str(&outcome).expect("JSON");
        let documents = outcome["documents"].as_array().expect("rows");
        assert_eq!(documents.len(), SIZES.len() * 2);
        for pair in documents.chunks(2) {
            let [lean, all] = pair else { panic!("two policies") };
            let size = |row: &Value| {
                row["bytes"].as_f64().expect("a number") / row["kib"].as_f64().expect("a number")
            };
            assert!((size(lean) - 1_024.0).abs() < 16.0, "{lean}");
            let units = |row: &Value, of: &str| row.pointer(of).and_then(Value::as_f64).expect("a number");
            for of in ["/create", "/replace/0", "/replace/1"] {
                assert!(units(lean, of) < units(all, of), "{of}: {lean} {all}");
            }
            // Only one value changes: two terms at 0.2, in addition to removing and inserting the document.
            let without_index = units(all, "/read"); // the same for both
            assert!((units(lean, "/read") - without_index).abs() < 1e-9);
        }
        for pair in outcome["scans"].as_array().expect("scans").chunks(4) {
            assert_eq!(pair.len(), 4, "two scans over two containers");
        }
        assert!(
            outcome["scans"].as_array().expect("scans").iter().all(|scan| scan["scans"] == 0),
            "{outcome}"
        );
    }
}
