//! All replicas together use one share of the hub's quota.

use std::time::{Duration, Instant};

use devkit::{
    daemon::{Daemon, Signal},
    iothub::Operation,
    stack::Options,
};
use serde_json::json;

use super::bench::Bench;
use crate::world::{LIMIT, device, report, until};

/// A fifth of 100 point reads per second.
const TWENTY: &str = "tier = \"s1\"\nunits = 1\nshare = \"0.2\"\n";
const PER_SECOND: f64 = 20.0;

async fn has(daemon: &mut Daemon, replicas: u64, share: f64) {
    until(daemon, &format!("the metrics show {replicas} replicas and a share of {share}"), |sample| {
        sample.count("twinsync_replicas_alive", "") == replicas
            && (sample.sum("twinsync_registry_share", "") - share).abs() < 1e-9
            && (sample.sum("twinsync_request_units_per_second_limit", "") - share * 1e6).abs() < 1e-3
    })
    .await;
}

/// Devices `from` to `to` without a create event. Each needs one point read.
fn unheard(bench: &Bench, from: usize, to: usize) {
    let ids: Vec<_> = (from..to).map(|number| device(&format!("pump-{number}"))).collect();
    let created: Vec<_> = ids.iter().map(|id| Operation::Create { id: id.clone(), twin: None }).collect();
    bench.were_there(&created);
    for number in from..to {
        bench.world.apply(report(&format!("pump-{number}"), json!({"step": 1})));
    }
}

/// Waits for `gets` point reads. Returns the time from the first to the last of them.
async fn repaired(bench: &Bench, gets: u64) -> Duration {
    let (before, waited) = (bench.gets(), Instant::now());
    let (mut first, mut last, mut seen) = (None, Instant::now(), before);
    while seen < before + gets {
        assert!(waited.elapsed() < LIMIT, "{} of {gets}", seen - before);
        tokio::time::sleep(Duration::from_millis(5)).await;
        if bench.gets() > seen {
            seen = bench.gets();
            last = Instant::now();
            first.get_or_insert(last);
        }
    }
    bench.world.equal().await;
    first.map_or(Duration::ZERO, |first| last - first)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_use_no_more_of_the_quota_than_one() {
    let options = Options { azurite: true, ..Options::default() };
    let bench = Bench::over(options, TWENTY, "").await;
    let url = bench.world.stack.endpoints().checkpoint_container_url.clone().expect("Azurite runs");
    let shared = format!(
        "[checkpoint]\nstore = \"blob\"\n[blob]\ncontainer_url = \"{url}\"\n\
         [lease]\nduration = \"3s\"\nrenew_interval = \"600ms\"\n[audit]\ninterval = \"off\"\n\
         [cosmos]\nmax_request_units_per_second = \"200000\"\n"
    );
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = bench.setup(directory.path(), TWENTY, &shared);
        replicas.push((setup.start().await.unwrap_or_else(|error| panic!("{error}")), directory));
    }
    for (replica, _) in &mut replicas {
        has(replica, 2, 0.1).await;
    }
    unheard(&bench, 0, 160);
    let took = repaired(&bench, 160).await;
    // The unused quota that one bucket of twenty or two of ten may have saved before.
    let least = (160.0 - PER_SECOND) / PER_SECOND - 0.5;
    assert!(took.as_secs_f64() >= least, "{took:?}, not {least} s");
    println!("two replicas: 160 point reads in {took:?}");

    let (gone, _directory) = replicas.remove(1);
    gone.end(Signal::Kill).await.expect("killed");
    has(&mut replicas[0].0, 1, 0.2).await;
    unheard(&bench, 160, 260);
    let took = repaired(&bench, 100).await;
    println!("one replica: 100 point reads in {took:?}");
    for (replica, _) in replicas {
        replica.stop().await.unwrap_or_else(|error| panic!("{error}"));
    }
}
