//! The pure core: every decision about events, twins and progress.
//!
//! This code performs no I/O, reads no clock and draws no random numbers; time and jitter are arguments. The same input
//! gives the same output. That makes the property tests possible.
//!
//! Example: an event arrives for a twin that has no document yet.
//!
//! ```
//! use std::time::Duration;
//! use twinsync::domain::{
//!     decide::{Decision, Rules, decide},
//!     decode::{Decoded, decode},
//!     id::{DocumentIdScheme, Position, SequenceNumber},
//!     message::{Message, Properties, Property},
//!     ticks::Ticks,
//! };
//!
//! let text = |text: &str| Property::Text(text.to_owned().into());
//! let message = Message {
//!     position: Position { sequence_number: SequenceNumber(0), offset: "0".into() },
//!     enqueued: None,
//!     body: br#"{"version": 2, "tags": {"site": "Oslo"}}"#.to_vec().into(),
//!     application_properties: [
//!         ("hubName", text("contoso")),
//!         ("deviceId", text("thermostat-1")),
//!         ("opType", text("createDeviceIdentity")),
//!         ("operationTimestamp", text("2026-01-31T08:00:00Z")),
//!         ("iothub-message-schema", text("deviceLifecycleNotification")),
//!     ]
//!     .into_iter()
//!     .collect(),
//!     annotations: Properties::default(),
//! };
//! let Decoded::Event(event) = decode(&message, 256 * 1024) else { panic!("it is one of ours") };
//!
//! let rules = Rules {
//!     id_scheme: DocumentIdScheme::Device,
//!     tombstone_ttl_seconds: 7 * 86_400,
//!     clock_tolerance: Duration::from_secs(5),
//!     forgets_after: None,
//! };
//! let now = Ticks::parse("2026-01-31T08:00:01Z").expect("a time");
//! let mut document = None;
//! assert_eq!(decide(&mut document, &event, now, &rules), Decision::Applied);
//! assert_eq!(document.expect("it was begun").twin().expect("it is live").tags["site"], "Oslo");
//! // Delivered once more, as Event Hubs may do at any time:
//! let mut document = None;
//! decide(&mut document, &event, now, &rules);
//! assert_eq!(decide(&mut document, &event, now, &rules), Decision::Duplicate);
//! ```
//!
//! **From a message to a document**
//!
//! | module | decides |
//! |---|---|
//! | [`message`], [`decode`], [`body`], [`undeliverable`] | whether a message is an event of a twin, another's, or one that can never be applied |
//! | [`event`], [`twin`], [`patch`], [`id`], [`ticks`] | what it says, in our types |
//! | [`decide`] | the decision table: what one event means for one document |
//! | [`merge`], [`document`] | sections of a twin under patches; the document as it is stored |
//! | [`upsert`] | read, decide, write with `If-Match`, and what an answer that fails means |
//! | [`lane`] | order within a twin, one write at a time, and what arrives meanwhile |
//!
//! **Progress and pace**
//!
//! | module | decides |
//! |---|---|
//! | [`progress`] | the contiguous prefix of completed events, and whether a checkpoint fits its partition |
//! | [`lease`] | which partitions a replica should own |
//! | [`retry`], [`outage`], [`grace_period`], [`in_flight_limit`] | how long to wait, what caused a failure, when to give up, how many events may be under way |
//! | [`lag`], [`other_partitions`], [`invariant`] | how far behind a partition is; conditions that hold at every moment |
//!
//! **Answers of the hub**
//!
//! | module | decides |
//! |---|---|
//! | [`registry`], [`rest`] | twins as the hub's service API shows them, read and written |
//! | [`drift`], [`differences`] | whether a document differs from its twin, and where |
//! | [`audit`], [`quota`], [`scan_rate`] | which twins the hub is asked about, how many per second, and when the scan ends |
//!
//! **Questions of users**
//!
//! | module | decides |
//! |---|---|
//! | [`query`] | IoT Hub's query language over documents, and declared counts |
//! | [`read_requirement`], [`sync_status`] | what a reader waits for; what `sync` means, in words |
//! | [`health`], [`readiness`], [`obstacles`], [`wait`], [`token`], [`headline`] | whether the process is alive and ready, and the sentence that explains why not |
//! | [`checks`], [`mounts`], [`hint`] | what `twinsync check` finds, and what to do about it |
//! | [`refresh`], [`dead_letter_counts`], [`sampling`], [`words`] | when the status is refreshed; which events are traced; how numbers are written |

pub mod audit;
pub mod body;
pub mod checks;
pub mod dead_letter_counts;
pub mod decide;
pub mod decode;
pub mod differences;
pub mod document;
pub mod drift;
pub mod event;
pub mod grace_period;
pub mod headline;
pub mod health;
pub mod hint;
pub mod id;
pub mod in_flight_limit;
pub mod invariant;
pub mod lag;
pub mod lane;
pub mod lease;
pub mod merge;
pub mod message;
pub mod mounts;
pub mod obstacles;
pub mod other_partitions;
pub mod outage;
pub mod patch;
pub mod progress;
pub mod query;
pub mod quota;
pub mod read_requirement;
pub mod readiness;
pub mod refresh;
pub mod registry;
pub mod rest;
pub mod retry;
pub mod sampling;
pub mod scan_rate;
pub mod sync_status;
#[cfg(test)]
pub(crate) mod testing;
pub mod ticks;
pub mod token;
pub mod twin;
pub mod undeliverable;
pub mod upsert;
pub mod wait;
pub mod words;
