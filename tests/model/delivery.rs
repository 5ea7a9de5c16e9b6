//! How events get from the hub to the daemon: at least once, in order within a stream, in any order between
//! streams. Also faults of the delivery.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value};
use twinsync::domain::{
    event::{Change, TwinEvent},
    patch::Patch,
    twin::Sections,
};

/// A small generator of reproducible randomness (SplitMix64).
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn between(&mut self, first: i64, last: i64) -> i64 {
        first + self.below((last - first + 1) as u64) as i64
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The order in which the two streams are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    OneStream,
    LifecycleFirst,
    ChangesFirst,
    Interleaved,
    /// Each twin has its own streams, because modules may be in other partitions than their device.
    Scattered,
}

impl Order {
    pub(crate) const ALL: [Self; 5] =
        [Self::OneStream, Self::LifecycleFirst, Self::ChangesFirst, Self::Interleaved, Self::Scattered];

    pub(crate) fn of(number: u64) -> Self {
        Self::ALL[(number % 5) as usize]
    }
}

/// Delivers `events` in `order`, with ordered replays such as 1,2,1,2,3.
pub(crate) fn deliver(random: &mut Random, events: &[TwinEvent], order: Order) -> Vec<TwinEvent> {
    if order == Order::OneStream {
        return replayed(random, events.to_vec());
    }
    let (lifecycle, changes) = events.iter().cloned().partition::<Vec<_>, _>(is_lifecycle);
    let lifecycle = replayed(random, lifecycle);
    let changes = replayed(random, changes);
    match order {
        Order::Scattered => {
            let mut streams: BTreeMap<_, VecDeque<TwinEvent>> = BTreeMap::new();
            for event in [lifecycle, changes].concat() {
                streams.entry((event.key.clone(), is_lifecycle(&event))).or_default().push_back(event);
            }
            let mut streams: Vec<_> = streams.into_values().collect();
            std::iter::from_fn(|| {
                streams.retain(|stream| !stream.is_empty());
                // The square prefers the first streams, so some streams lag far behind.
                let (many, dice) = (streams.len() as u64, random.below(1 << 10));
                streams.get_mut(((dice * dice * many) >> 20) as usize)?.pop_front()
            })
            .collect()
        }
        Order::OneStream | Order::LifecycleFirst => [lifecycle, changes].concat(),
        Order::ChangesFirst => [changes, lifecycle].concat(),
        Order::Interleaved => {
            let (mut left, mut right) = (lifecycle.into_iter().peekable(), changes.into_iter().peekable());
            // Some histories switch often between the streams, some hold one stream back for long.
            let left_percent = [10, 50, 90][random.below(3) as usize];
            std::iter::from_fn(|| match (left.peek(), right.peek()) {
                (Some(_), None) => left.next(),
                (Some(_), Some(_)) if random.chance(left_percent) => left.next(),
                _ => right.next(),
            })
            .collect()
        }
    }
}

pub(crate) fn is_lifecycle(event: &TwinEvent) -> bool {
    matches!(event.change, Change::Created { .. } | Change::Deleted)
}

fn replayed(random: &mut Random, events: Vec<TwinEvent>) -> Vec<TwinEvent> {
    let mut delivered = Vec::new();
    for (index, event) in events.iter().enumerate() {
        delivered.push(event.clone());
        if random.chance(25) {
            let back = random.between(1, 5) as usize;
            delivered.extend_from_slice(&events[(index + 1).saturating_sub(back)..=index]);
        }
    }
    delivered
}

/// Coalesces runs of a twin's patches into one event with the last version, as the hub may do.
pub(crate) fn coalesced(random: &mut Random, events: Vec<TwinEvent>) -> Vec<TwinEvent> {
    let mut packed: Vec<TwinEvent> = Vec::new();
    for event in events {
        let last = packed.iter().rposition(|earlier| earlier.key == event.key);
        if let (Some(last), Change::Updated { version, patch }) = (last, &event.change)
            && let Change::Updated { version: earlier, patch: sum } = &mut packed[last].change
            && random.chance(40)
        {
            *sum = one_after_the_other(sum, patch);
            *earlier = *version;
            packed[last].at = event.at;
            continue;
        }
        packed.push(event);
    }
    packed
}

/// The patch that has the effect of both.
pub(crate) fn one_after_the_other(earlier: &Patch, later: &Patch) -> Patch {
    let mut both = earlier.sections();
    compose(&mut both, &later.sections());
    both.into()
}

fn compose(sum: &mut Sections, patch: &Sections) {
    fn into(sum: &mut Map<String, Value>, patch: &Map<String, Value>) {
        for (name, value) in patch {
            match (sum.get_mut(name), value) {
                (Some(Value::Object(sum)), Value::Object(patch)) => into(sum, patch),
                _ => {
                    sum.insert(name.clone(), value.clone());
                }
            }
        }
    }
    for (sum, patch) in [
        (&mut sum.tags, &patch.tags),
        (&mut sum.desired, &patch.desired),
        (&mut sum.reported, &patch.reported),
    ] {
        if let Some(patch) = patch {
            into(sum.get_or_insert_default(), patch);
        }
    }
}

/// Loses about one change in six, but never the last event of a twin, because no later event could show that
/// loss.
pub(crate) fn with_losses(random: &mut Random, events: Vec<TwinEvent>) -> Vec<TwinEvent> {
    let last: BTreeMap<_, _> =
        events.iter().enumerate().map(|(index, event)| (event.key.clone(), index)).collect();
    events
        .into_iter()
        .enumerate()
        .filter(|(index, event)| last[&event.key] == *index || is_lifecycle(event) || !random.chance(17))
        .map(|(_, event)| event)
        .collect()
}
