//! One document behind conditional writes, with scripted faults, and the loop that drives an [`Upsert`].

use std::{collections::VecDeque, sync::Arc, time::Duration};

use twinsync::domain::{
    decide::Rules,
    document::{Document, ETag},
    event::TwinEvent,
    id::DocumentIdScheme,
    ticks::Ticks,
    upsert::{Action, EventOutcome, Upsert},
};

/// Time of every decision: 18:00 on the day whose midnight is `hub::START`.
pub(crate) const NOW: Ticks = Ticks::new(19_250_568_000_000_000);

/// Tolerance of the clocks.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(5);

pub(crate) const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 86_400,
    clock_tolerance: TOLERANCE,
    forgets_after: None,
};

/// What happens to the next write.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It succeeds.
    Pass,
    /// It is stored, but the reply is lost.
    ApplyThenFail,
    /// It is not stored, and no reply comes.
    Lose,
    /// Another writer writes first, so the condition fails.
    Overtake(Vec<TwinEvent>),
    /// It is stored, another writer follows, and the reply is lost.
    ApplyThenOvertake(Vec<TwinEvent>),
    /// The document disappears before the write, like an expired tombstone.
    Vanish,
}

/// The stored document as JSON with its ETag, and the number of requests.
#[derive(Debug, Default)]
pub(crate) struct Store {
    stored: Option<(String, u64)>,
    etag: u64,
    pub(crate) faults: VecDeque<Fault>,
    /// A write whose document contains this text is rejected permanently.
    pub(crate) poison: Option<&'static str>,
    pub(crate) reads: usize,
    pub(crate) writes: usize,
}

/// The outcome of one batch.
pub(crate) struct Outcome {
    pub(crate) outcomes: Vec<EventOutcome>,
    pub(crate) cached: Option<(Arc<Document>, ETag)>,
    pub(crate) incarnation: Option<Ticks>,
}

enum Reply {
    Written(ETag),
    Unsure,
    Rejected,
}

impl Store {
    pub(crate) fn document(&self) -> Option<Document> {
        self.stored.as_ref().map(|(text, _)| serde_json::from_str(text).expect("a document"))
    }

    /// Stores any text, as another program might.
    pub(crate) fn put(&mut self, text: &str) {
        self.etag += 1;
        self.stored = Some((text.to_owned(), self.etag));
    }

    /// Applies `events` as the runtime does.
    pub(crate) fn bring(&mut self, events: Vec<TwinEvent>, cached: Option<(Arc<Document>, ETag)>) -> Outcome {
        self.bring_at(events, cached, &mut || NOW)
    }

    /// The same with its own clock.
    pub(crate) fn bring_at(
        &mut self,
        events: Vec<TwinEvent>,
        cached: Option<(Arc<Document>, ETag)>,
        clock: &mut dyn FnMut() -> Ticks,
    ) -> Outcome {
        let mut upsert = Upsert::new(events, cached, RULES);
        for _ in 0..200 {
            let reply = match upsert.action(clock()) {
                Action::Done => {
                    let incarnation = upsert.began_incarnation();
                    let (outcomes, cached) = upsert.finish();
                    return Outcome { outcomes, cached, incarnation };
                }
                Action::Read => {
                    self.reads += 1;
                    match &self.stored {
                        None => upsert.absent(),
                        // Cosmos DB stores numbers as doubles and returns them in their shortest form.
                        Some((text, etag)) => {
                            match serde_json::from_str::<Document>(
                                &text.replace(":1.0", ":1").replace("[1.0", "[1"),
                            ) {
                                Ok(document) => upsert.found(Arc::new(document), name(*etag)),
                                Err(_) => upsert.damaged(name(*etag)),
                            }
                        }
                    }
                    continue;
                }
                Action::Create(document) => self.write(&document, None),
                Action::Replace(document, etag) => self.write(&document, Some(etag)),
            };
            match reply {
                Reply::Written(etag) => upsert.written(etag),
                Reply::Unsure => upsert.unsure(),
                Reply::Rejected => upsert.rejected("too large".into()),
            }
        }
        panic!("the upsert does not come to an end");
    }

    /// Applies the write if its condition holds: no document for a create, the same ETag for a replace.
    fn write(&mut self, document: &Document, condition: Option<ETag>) -> Reply {
        let fault = self.faults.pop_front().unwrap_or(Fault::Pass);
        match &fault {
            Fault::Vanish => self.stored = None,
            Fault::Overtake(events) => self.other_writer(events.clone()),
            Fault::Pass | Fault::ApplyThenFail | Fault::Lose | Fault::ApplyThenOvertake(_) => {}
        }
        let text = serde_json::to_string(document).expect("serialises");
        if self.poison.is_some_and(|poison| text.contains(poison)) {
            return Reply::Rejected;
        }
        if matches!(fault, Fault::Lose) || self.stored.as_ref().map(|(_, etag)| name(*etag)) != condition {
            return Reply::Unsure;
        }
        self.writes += 1;
        self.put(&text);
        match fault {
            Fault::ApplyThenFail => Reply::Unsure,
            Fault::ApplyThenOvertake(events) => {
                self.other_writer(events);
                Reply::Unsure
            }
            Fault::Pass | Fault::Lose | Fault::Overtake(_) | Fault::Vanish => Reply::Written(name(self.etag)),
        }
    }

    /// Another replica with its own clock writes.
    fn other_writer(&mut self, events: Vec<TwinEvent>) {
        let faults = std::mem::take(&mut self.faults);
        self.bring_at(events, None, &mut || Ticks::new(NOW.get() + 7));
        self.faults = faults;
    }
}

fn name(etag: u64) -> ETag {
    ETag(format!("\"{etag}\""))
}
