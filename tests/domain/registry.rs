//! Random histories with all faults and with a registry. Repairs of flagged documents and a final audit leave no
//! difference. Events that arrive afterwards cause no difference without a flag.

use twinsync::domain::{
    decide::decide,
    document::Document,
    event::{Change, TwinEvent},
};

use crate::{
    convergence::{UNHURRIED, equal, for_each_seed, is_flagged, story},
    delivery::{Order, Random, coalesced, deliver},
    hub::{Hub, Nature, SECOND},
    store::{NOW, RULES},
};

/// Drops 5 % of the events, of any kind, the last one included.
fn lossy(random: &mut Random, events: Vec<TwinEvent>) -> Vec<TwinEvent> {
    events.into_iter().filter(|_| !random.chance(5)).collect()
}

/// One document and the number of its repairs.
struct Replica {
    document: Option<Document>,
    delivered: Vec<TwinEvent>,
    repairs: u32,
}

impl Replica {
    fn receive(&mut self, event: &TwinEvent) {
        decide(&mut self.document, event, NOW, &RULES);
        self.delivered.push(event.clone());
    }

    /// Applies the registry's answer. The registry was asked after the document had been read, and no event was
    /// applied since.
    fn repair(&mut self, answer: &TwinEvent) {
        self.receive(answer);
        self.repairs += 1;
        assert!(!is_flagged(self.document.as_ref()), "a registry answer leaves no flag");
    }

    fn repair_where_flagged(&mut self, hub: &mut Hub) {
        if is_flagged(self.document.as_ref()) {
            let answer = hub.get();
            self.repair(&answer);
        }
    }

    /// Repairs the document if it is flagged or differs. An audit finds differences by a query.
    fn audit(&mut self, hub: &mut Hub) {
        if !equal(self.document.as_ref(), hub.device()) || is_flagged(self.document.as_ref()) {
            let answer = hub.get();
            self.repair(&answer);
        }
    }
}

#[test]
fn with_a_registry_every_history_ends_equal_and_stays_so() {
    let (mut repairs, mut late_flags, mut histories) = (0_u32, 0_u32, 0_u32);
    for_each_seed(2, |seed| {
        let mut random = Random::new(seed ^ 0x00AD_17E5);
        let mut hub = Hub::new(seed, UNHURRIED);
        let mut replica = Replica { document: None, delivered: Vec::new(), repairs: 0 };
        let mut sent = Vec::new();
        for round in 0..random.between(1, 4) {
            let before = hub.events.len();
            hub.live(random.between(0, 8) as usize);
            let mut events = hub.events[before..].to_vec();
            if random.chance(20) {
                events = coalesced(&mut random, events);
            }
            if random.chance(40) {
                events = lossy(&mut random, events);
            }
            let order = Order::of(seed + round as u64);
            for event in deliver(&mut random, &events, order) {
                replica.receive(&event);
                if random.chance(15) {
                    replica.repair_where_flagged(&mut hub);
                }
            }
            sent.extend(events);
            if random.chance(15) {
                hub.fail_over();
            }
            if random.chance(20) {
                replica.audit(&mut hub);
            }
        }
        replica.audit(&mut hub);
        let check = |replica: &Replica, hub: &Hub, when: &str| {
            assert!(
                equal(replica.document.as_ref(), hub.device()),
                "different {when}:\n{}",
                story(replica.document.as_ref(), hub, &replica.delivered)
            );
        };
        check(&replica, &hub, "after the audit");
        // A route delivers old events again, and the hub goes on. Events within the tolerance of the clocks may
        // raise a flag, but no document may differ without one.
        for event in deliver(&mut random, &sent, Order::Interleaved) {
            replica.receive(&event);
            if !is_flagged(replica.document.as_ref()) {
                check(&replica, &hub, "after a replay");
            }
        }
        late_flags += u32::from(is_flagged(replica.document.as_ref()));
        replica.repair_where_flagged(&mut hub);
        check(&replica, &hub, "after the last repair");
        repairs += replica.repairs;
        histories += 1;
    });
    if histories > 100 {
        assert!(repairs > histories / 2, "too few faults: {repairs} repairs in {histories} histories");
        assert!(
            late_flags < histories / 4,
            "too many old events flag a document: {late_flags} of {histories}"
        );
    }
}

#[test]
fn a_twin_that_was_read_before_its_history_is_replayed_costs_no_repair() {
    for_each_seed(4, |seed| {
        let mut random = Random::new(seed ^ 0xBACF);
        let mut hub = Hub::new(seed, Nature::PLAIN);
        hub.live(random.between(1, 12) as usize);
        hub.rest(60 * SECOND); // the backfill starts long after the last operation
        let mut document = None;
        let answer = hub.get();
        decide(&mut document, &answer, NOW, &RULES);
        for event in deliver(&mut random, &hub.events, Order::of(seed)) {
            decide(&mut document, &event, NOW, &RULES);
            if matches!(answer.change, Change::Snapshot { .. }) {
                let delivered = std::slice::from_ref(&event);
                assert!(!is_flagged(document.as_ref()), "{}", story(document.as_ref(), &hub, delivered));
                assert!(equal(document.as_ref(), hub.device()));
            }
        }
    });
}

/// A repair reads the document, asks the registry and writes. Events may arrive between these steps, so the answer
/// is written only if the document is unchanged.
#[test]
fn an_answer_is_taken_only_over_the_document_that_was_read_before_it() {
    for_each_seed(4, |seed| {
        let mut random = Random::new(seed ^ 0x0DD5);
        let mut hub = Hub::new(seed, Nature::PLAIN);
        hub.live(random.between(1, 6) as usize);
        let mut replica = Replica { document: None, delivered: Vec::new(), repairs: 0 };
        let mut pending: Vec<TwinEvent> = deliver(&mut random, &hub.events, Order::Interleaved);
        pending.reverse();
        let mut sent = hub.events.len();
        for _ in 0..random.between(2, 12) {
            let read = replica.document.clone();
            if random.chance(50) {
                hub.live(random.between(0, 3) as usize);
                let mut more = deliver(&mut random, &hub.events[sent..], Order::Interleaved);
                sent = hub.events.len();
                more.reverse();
                more.append(&mut pending);
                pending = more;
            }
            let answer = hub.get();
            for _ in 0..random.below(4) {
                if let Some(event) = pending.pop() {
                    replica.receive(&event);
                }
            }
            if replica.document == read {
                decide(&mut replica.document, &answer, NOW, &RULES);
                replica.delivered.push(answer);
            }
        }
        while let Some(event) = pending.pop() {
            replica.receive(&event);
        }
        let silently_wrong =
            !is_flagged(replica.document.as_ref()) && !equal(replica.document.as_ref(), hub.device());
        assert!(!silently_wrong, "{}", story(replica.document.as_ref(), &hub, &replica.delivered));
    });
}
