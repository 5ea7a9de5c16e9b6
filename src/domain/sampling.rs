//! Which events are traced, and under which ids.
//!
//! Both depend only on the position of an event: if any replica receives the event again, it is sampled again, into the
//! same trace.

use super::{
    id::{PartitionId, SequenceNumber},
    ticks::Ticks,
};

/// The fraction of all events that is sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// A ratio from 0 (none) to 1 (all); `None` for anything else.
    pub fn new(ratio: f64) -> Option<Self> {
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio))
    }

    /// The ratio as a number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// Decides for the events of one partition. A decision costs a few multiplications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    seed: u64,
    chosen: Chosen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    All,
    /// The events whose mixed number is less than this; 0: none.
    Below(u64),
}

impl Sampler {
    /// The sampler of a partition in this namespace. Names of namespaces and Event Hubs are case-insensitive.
    pub fn new(namespace: &str, partition: &PartitionId, ratio: Ratio) -> Self {
        let names = [namespace, &partition.stream, &partition.partition];
        // FNV-1a is short; the mixing below compensates for its weaknesses.
        let bytes = names.into_iter().flat_map(|name| name.bytes().chain([0xff]));
        let seed = bytes.fold(0xcbf2_9ce4_8422_2325, |seed: u64, byte| {
            (seed ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
        });
        let chosen = match ratio.get() {
            1.0 => Chosen::All,
            // The cast saturates, and a rounded ratio is as good as the exact one.
            ratio => Chosen::Below((ratio * 2_f64.powi(64)) as u64),
        };
        Self { seed, chosen }
    }

    /// Whether the event with this number is sampled.
    pub fn samples(&self, number: SequenceNumber) -> bool {
        match self.chosen {
            Chosen::All => true,
            Chosen::Below(limit) => self.mixed(number, 0) < limit,
        }
    }

    /// The id of the event's trace; never 0, which would mean no trace. The time distinguishes the event from the one
    /// with the same number before the Event Hub was re-created.
    pub fn trace_id(&self, number: SequenceNumber, enqueued: Option<Ticks>) -> u128 {
        let salt = enqueued.map_or(1, |enqueued| enqueued.get() as u64 | 1);
        let (high, low) = (self.mixed(number, salt), self.mixed(number, salt.wrapping_add(2)));
        (u128::from(high) << 64 | u128::from(low)).max(1)
    }

    /// SplitMix64's finalizer: each input bit changes about half of the output bits.
    fn mixed(&self, number: SequenceNumber, salt: u64) -> u64 {
        let step = (number.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt.rotate_left(32));
        let mut word = self.seed ^ step;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// A span of another system's trace, in the form of W3C's `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The trace.
    pub trace: u128,
    /// The span in it.
    pub span: u64,
    /// Whether its sender samples it.
    pub sampled: bool,
}

impl Remote {
    /// Parses `version-trace-span-flags`; `None` if the text is not of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str, digits: usize| {
            let lower = part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            (part.len() == digits && lower).then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let mut parts = text.trim().splitn(5, '-');
        let version = parts.next()?;
        hex(version, 2).filter(|_| version != "ff")?;
        let trace = hex(parts.next()?, 32).filter(|trace| *trace != 0)?;
        let span = u64::try_from(hex(parts.next()?, 16)?).ok().filter(|span| *span != 0)?;
        let flags = hex(parts.next()?, 2)?;
        // Only future versions may have more parts.
        (version != "00" || parts.next().is_none()).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

/// The times at which an event passed each stage. Clocks of different machines differ; [`Way::in_order`] corrects that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// When the hub performed the operation.
    pub operation: Ticks,
    /// When it arrived in Event Hubs.
    pub enqueued: Option<Ticks>,
    /// When we received it.
    pub received: Ticks,
    /// When it was put into the lane of its twin.
    pub dispatched: Option<Ticks>,
    /// When it was taken into a write.
    pub taken: Option<Ticks>,
    /// When it was completed: durable, needing no write, or a dead letter.
    pub ended: Ticks,
}

impl Way {
    /// The same times, but none is before the one that it follows. Times of other machines are adjusted to ours, which
    /// come from one clock.
    #[must_use]
    pub fn in_order(self) -> Self {
        let received = self.received.min(self.ended);
        let enqueued = self.enqueued.map(|enqueued| enqueued.min(received));
        let dispatched = self.dispatched.map(|at| at.clamp(received, self.ended));
        let taken = self.taken.map(|at| at.clamp(dispatched.unwrap_or(received), self.ended));
        let operation = self.operation.min(enqueued.unwrap_or(received));
        Self { operation, enqueued, received, dispatched, taken, ended: self.ended }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(stream: &str, partition: &str, ratio: f64) -> Sampler {
        let partition = PartitionId { stream: stream.into(), partition: partition.into() };
        Sampler::new("contoso.servicebus.windows.net", &partition, Ratio::new(ratio).unwrap())
    }

    #[test]
    fn ids_are_made_by_splitmix64() {
        let sampler = Sampler { seed: 0, chosen: Chosen::All };
        let number = SequenceNumber;
        // The first outputs of the reference implementation for the seed 0.
        let expected = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        assert_eq!([1, 2, 3].map(|step| sampler.mixed(number(step), 0)), expected);
        let id = sampler.trace_id(number(1), Some(Ticks::new(3)));
        let halves = (u128::from(sampler.mixed(number(1), 3)), u128::from(sampler.mixed(number(1), 5)));
        assert_eq!((id >> 64, id & u128::from(u64::MAX)), halves);
    }

    #[test]
    fn a_ratio_is_from_0_to_1() {
        for (ratio, valid) in
            [(0.0, true), (1.0, true), (0.25, true), (-0.1, false), (1.1, false), (f64::NAN, false)]
        {
            assert_eq!(Ratio::new(ratio).is_some(), valid, "{ratio}");
        }
    }

    #[test]
    fn about_the_ratio_of_each_partition_is_sampled_and_all_or_none_at_the_ends() {
        let count =
            |sampler: Sampler| (0..100_000).filter(|number| sampler.samples(SequenceNumber(*number))).count();
        for partition in ["0", "1", "31"] {
            assert_eq!(count(sampler("twins", partition, 1.0)), 100_000);
            assert_eq!(count(sampler("twins", partition, 0.0)), 0);
            for (ratio, around) in [(0.5, 50_000), (0.01, 1_000)] {
                let sampled = count(sampler("twins", partition, ratio));
                assert!(sampled.abs_diff(around) < around / 5, "{ratio}: {sampled}");
            }
        }
    }

    #[test]
    fn partitions_are_sampled_and_named_apart_and_the_spelling_of_names_is_nothing() {
        let (one, other) = (sampler("twins", "0", 0.5), sampler("twins", "1", 0.5));
        let number = SequenceNumber(7);
        assert_ne!(one.trace_id(number, None), other.trace_id(number, None));
        let differ =
            (0..1000).filter(|n| one.samples(SequenceNumber(*n)) != other.samples(SequenceNumber(*n)));
        assert!(differ.count() > 300);
        assert_eq!(one, sampler("Twins", "0", 0.5));
        assert_ne!(
            sampler("twins1", "0", 0.5),
            sampler("twins", "10", 0.5),
            "names and partitions must be separated"
        );
    }

    #[test]
    fn an_event_of_the_same_number_in_an_event_hub_made_anew_has_another_trace() {
        let (sampler, number) = (sampler("twins", "0", 1.0), SequenceNumber(7));
        let id = |seconds: i64| sampler.trace_id(number, Ticks::from_unix_milliseconds(seconds * 1000));
        assert_eq!(id(5), id(5), "a replay must have the same id");
        assert_ne!(id(5), id(6));
        assert_ne!(id(5), 0);
    }

    #[test]
    fn a_context_of_w3c_is_read_or_none() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let remote = Remote::parse(text).unwrap();
        assert_eq!((remote.span, remote.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(remote.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert!(!Remote::parse(&text.replace("-01", "-00")).unwrap().sampled);
        assert!(
            Remote::parse(&format!("01{}-more", &text[2..])).is_some(),
            "a later version must be accepted"
        );
        for bad in [
            "",
            "00",
            "timestamp=1539243209",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(Remote::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_clocks_say_the_way_is_in_order_and_our_own_times_stay(
            operation in 0..1000_i64, enqueued in proptest::option::of(0..1000_i64),
            steps in proptest::collection::vec(0..100_i64, 4),
        ) {
            let at = |count: usize| Ticks::new(300 + steps[..count].iter().sum::<i64>());
            let way = Way {
                operation: Ticks::new(operation),
                enqueued: enqueued.map(Ticks::new),
                received: at(1),
                dispatched: Some(at(2)),
                taken: Some(at(3)),
                ended: at(4),
            };
            let ordered = way.in_order();
            prop_assert!(ordered.operation <= ordered.enqueued.unwrap_or(ordered.received));
            prop_assert!(ordered.enqueued.is_none_or(|enqueued| enqueued <= ordered.received));
            prop_assert_eq!(
                (ordered.received, ordered.dispatched, ordered.taken, ordered.ended),
                (way.received, way.dispatched, way.taken, way.ended)
            );
        }
    }
}
