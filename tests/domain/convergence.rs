//! Random histories of one twin, delivered in every legal order and with some faults: the document equals the
//! hub's twin or is flagged, and a snapshot repairs it.

use std::collections::BTreeMap;

use serde_json::Value;
use twinsync::domain::{
    decide::{Decision, decide},
    document::{Document, State},
    event::TwinEvent,
    upsert::EventOutcome,
};

use crate::{
    delivery::{Order, Random, coalesced, deliver, with_losses},
    hub::{Hub, Nature, SECOND, Truth},
    store::{NOW, RULES, Store},
};

const DEFAULT_HISTORIES: u64 = 20_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs `check` for every seed. Prints the seed if `check` panics.
pub(crate) fn for_each_seed(part: u64, mut check: impl FnMut(u64)) {
    struct Tell(u64);
    impl Drop for Tell {
        #[expect(clippy::print_stdout, reason = "how a failing seed gets known")]
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("failing seed: TWINSYNC_SEED={} TWINSYNC_HISTORIES=1", self.0);
            }
        }
    }
    let histories = number("TWINSYNC_HISTORIES", DEFAULT_HISTORIES);
    let count = if histories == 1 { 1 } else { histories / part };
    let first = number("TWINSYNC_SEED", 0);
    for seed in first..first + count {
        let tell = Tell(seed);
        check(seed);
        drop(tell);
    }
}

fn play(document: &mut Option<Document>, events: &[TwinEvent]) -> Vec<Decision> {
    events.iter().map(|event| decide(document, event, NOW, &RULES)).collect()
}

/// Whether the document equals the hub's twin.
pub(crate) fn equal(document: Option<&Document>, truth: Option<&Truth>) -> bool {
    match (document, truth) {
        (None, None) => true,
        (Some(document), None) => document.state == State::Deleted,
        (Some(document), Some(truth)) => match &document.state {
            State::Live { twin, .. } => truth.is_told_by(twin),
            State::Partial { .. } | State::Deleted => false,
        },
        (None, Some(_)) => false,
    }
}

/// Whether the document is flagged or partial.
pub(crate) fn is_flagged(document: Option<&Document>) -> bool {
    document
        .is_some_and(|document| !document.flags.is_empty() || matches!(document.state, State::Partial { .. }))
}

#[track_caller]
fn never_silently_wrong(document: Option<&Document>, hub: &Hub, delivered: &[TwinEvent]) {
    assert!(
        equal(document, hub.device()) || is_flagged(document),
        "silently wrong:\n{}",
        story(document, hub, delivered)
    );
}

#[track_caller]
fn exact_and_unflagged(document: Option<&Document>, hub: &Hub, delivered: &[TwinEvent]) {
    assert!(
        equal(document, hub.device()) && !is_flagged(document),
        "not converged:\n{}",
        story(document, hub, delivered)
    );
}

pub(crate) fn story(document: Option<&Document>, hub: &Hub, delivered: &[TwinEvent]) -> String {
    let mut stored = None;
    let lines = delivered.iter().map(|event| {
        let decision = decide(&mut stored, event, NOW, &RULES);
        format!("{} {:?} => {}", event.at.get(), event.change, decision.name())
    });
    let lines = lines.collect::<Vec<_>>().join("\n");
    let shown = document.map(|document| serde_json::to_value(document).expect("serialises"));
    format!("{lines}\nhub      {:#?}\ndocument {:#}", hub.device(), shown.unwrap_or(Value::Null))
}

/// After a snapshot the document equals the hub's twin and has no flag.
#[track_caller]
fn a_snapshot_repairs(document: &mut Option<Document>, hub: &mut Hub, delivered: &[TwinEvent]) {
    let snapshot = hub.get();
    decide(document, &snapshot, NOW, &RULES);
    exact_and_unflagged(document.as_ref(), hub, delivered);
}

/// Operations are further apart than the tolerance of the clocks, so no document needs a flag.
pub(crate) const UNHURRIED: Nature = Nature { pace: (6 * SECOND, 20 * SECOND), ..Nature::PLAIN };

fn hub(seed: u64, nature: Nature) -> (Hub, Random) {
    let mut random = Random::new(seed ^ 0xC0FF_EE00_0000_0000);
    let mut hub = Hub::new(seed, nature);
    hub.live(random.between(1, 14) as usize);
    (hub, random)
}

#[test]
fn one_ordered_stream_with_replays_always_converges() {
    for_each_seed(1, |seed| {
        let (hub, mut random) = hub(seed, UNHURRIED);
        let delivered = deliver(&mut random, &hub.events, Order::OneStream);
        let mut document = None;
        play(&mut document, &delivered);
        exact_and_unflagged(document.as_ref(), &hub, &delivered);
    });
}

#[test]
fn one_incarnation_converges_in_every_interleaving() {
    for_each_seed(1, |seed| {
        let (hub, mut random) = hub(seed, Nature { deletes: false, ..UNHURRIED });
        let delivered = deliver(&mut random, &hub.events, Order::of(seed));
        let mut document = None;
        play(&mut document, &delivered);
        exact_and_unflagged(document.as_ref(), &hub, &delivered);
    });
}

#[test]
fn two_streams_are_never_silently_wrong_and_a_snapshot_repairs_them() {
    for_each_seed(1, |seed| {
        let (mut hub, mut random) = hub(seed, Nature::PLAIN);
        let orders = [Order::LifecycleFirst, Order::ChangesFirst, Order::Interleaved];
        let delivered = deliver(&mut random, &hub.events, orders[(seed % 3) as usize]);
        let mut document = None;
        play(&mut document, &delivered);
        never_silently_wrong(document.as_ref(), &hub, &delivered);
        a_snapshot_repairs(&mut document, &mut hub, &delivered);
    });
}

#[test]
fn coalesced_and_lost_changes_are_never_silent() {
    for_each_seed(2, |seed| {
        let (mut hub, mut random) = hub(seed, Nature::PLAIN);
        let mut sent = hub.events.clone();
        if !seed.is_multiple_of(3) {
            sent = coalesced(&mut random, sent);
        }
        if seed % 3 != 1 {
            sent = with_losses(&mut random, sent);
        }
        let delivered = deliver(&mut random, &sent, Order::of(seed / 3));
        let mut document = None;
        play(&mut document, &delivered);
        never_silently_wrong(document.as_ref(), &hub, &delivered);
        a_snapshot_repairs(&mut document, &mut hub, &delivered);
    });
}

#[test]
fn a_snapshot_in_the_middle_is_never_spoilt_silently_by_what_comes_after() {
    for_each_seed(2, |seed| {
        let (mut hub, mut random) = hub(seed, Nature::PLAIN);
        let early = deliver(&mut random, &hub.events, Order::of(seed));
        let seen = random.below(early.len() as u64 + 1) as usize;
        let mut delivered = early[..seen].to_vec();
        delivered.push(hub.get());
        let sent = hub.events.len();
        let more = random.between(0, 8) as usize;
        hub.live(more);
        delivered.extend_from_slice(&early[seen..]);
        delivered.extend(deliver(&mut random, &hub.events[sent..], Order::of(seed / 5)));
        let mut document = None;
        play(&mut document, &delivered);
        never_silently_wrong(document.as_ref(), &hub, &delivered);
        a_snapshot_repairs(&mut document, &mut hub, &delivered);
    });
}

#[test]
fn a_snapshot_repairs_versions_that_went_back() {
    for_each_seed(2, |seed| {
        let (mut hub, mut random) = hub(seed, Nature::PLAIN);
        hub.fail_over();
        let more = random.between(0, 8) as usize;
        hub.live(more);
        let sent = if seed.is_multiple_of(2) {
            hub.events.clone()
        } else {
            with_losses(&mut random, hub.events.clone())
        };
        let delivered = deliver(&mut random, &sent, Order::of(seed / 2));
        let mut document = None;
        play(&mut document, &delivered);
        a_snapshot_repairs(&mut document, &mut hub, &delivered);
    });
}

#[test]
fn batches_through_the_store_end_like_events_one_by_one() {
    for_each_seed(4, |seed| {
        let (hub, mut random) = hub(seed, Nature::PLAIN);
        let delivered = deliver(&mut random, &hub.events, Order::of(seed));
        let mut document = None;
        let decisions = play(&mut document, &delivered);
        let (mut store, mut cached, mut outcomes) = (Store::default(), None, Vec::new());
        let mut rest = &delivered[..];
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at((random.between(1, 6) as usize).min(rest.len()));
            rest = behind;
            let before = store.writes;
            let outcome = store.bring(batch.to_vec(), cached.take().filter(|_| random.chance(50)));
            assert!(store.writes <= before + 1, "a batch costs at most one write");
            cached = outcome.cached;
            outcomes.extend(outcome.outcomes);
        }
        assert_eq!(store.document(), document, "{}", story(document.as_ref(), &hub, &delivered));
        assert_eq!(outcomes, decisions.into_iter().map(EventOutcome::Decided).collect::<Vec<_>>());
    });
}

#[test]
fn histories_reach_every_decision() {
    let mut seen = BTreeMap::<Decision, u32>::new();
    for seed in 0..500 {
        let (hub, mut random) = hub(seed, UNHURRIED);
        for order in Order::ALL {
            let sent = coalesced(&mut random, hub.events.clone());
            for events in [&hub.events, &sent] {
                for decision in play(&mut None, &deliver(&mut random, events, order)) {
                    *seen.entry(decision).or_default() += 1;
                }
            }
        }
    }
    for decision in Decision::ALL {
        assert!(seen.get(&decision).is_some_and(|count| *count > 20), "{decision:?}: {seen:?}");
    }
}
