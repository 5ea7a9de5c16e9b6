//! A single-threaded model of the daemon around the pure core, one step at a time: a lane for each twin, documents with ETags,
//! modules that follow their device, and a registry.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use twinsync::domain::{
    decide::{decide, follow},
    document::{Cascade, Document, ETag, Operation},
    event::{Change, TwinEvent},
    id::TwinKey,
    registry::went_back,
    upsert::{Action, Upsert},
};

use crate::{
    convergence::{equal, is_flagged},
    delivery::Random,
    hub::Hub,
    store::{NOW, RULES, TOLERANCE},
};

/// The next step of a lane.
enum Step {
    /// Apply these events.
    Bring(Upsert),
    /// Find the modules of a deleted device.
    Cascade(Upsert, Cascade),
    /// Check the device of a module whose incarnation began.
    ReadDevice(Upsert),
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<TwinEvent>,
    step: Option<Step>,
}

/// The documents and the lanes whose events are not applied yet.
#[derive(Default)]
pub(crate) struct Replica {
    documents: BTreeMap<TwinKey, (Arc<Document>, u64)>,
    lanes: BTreeMap<TwinKey, Lane>,
    etag: u64,
    /// What happened, for the message of a failed test.
    story: Vec<String>,
    pub(crate) repairs: u32,
    /// Whether an answer of the registry has shown that the hub was set back by a failover.
    pub(crate) audit_wanted: bool,
}

impl Replica {
    pub(crate) fn document(&self, key: &TwinKey) -> Option<&Document> {
        self.documents.get(key).map(|(document, _)| document.as_ref())
    }

    /// Puts an event of a stream into the lane of its twin.
    pub(crate) fn receive(&mut self, event: &TwinEvent) {
        self.lanes.entry(event.key.clone()).or_default().waiting.push_back(event.clone());
    }

    /// Performs the next step of a random lane. Returns `false` if no lane has work.
    pub(crate) fn step(&mut self, random: &mut Random) -> bool {
        let busy = |lane: &Lane| lane.step.is_some() || !lane.waiting.is_empty();
        let busy: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| busy(lane)).map(|(key, _)| key.clone()).collect();
        if busy.is_empty() {
            return false;
        }
        let key = busy[random.below(busy.len() as u64) as usize].clone();
        let lane = self.lanes.get_mut(&key).expect("it is busy");
        let step = lane.step.take().unwrap_or_else(|| {
            let many = (random.between(1, 4) as usize).min(lane.waiting.len());
            let events = lane.waiting.drain(..many).collect();
            Step::Bring(Upsert::new(events, None, RULES))
        });
        let next = self.perform(&key, step);
        self.lanes.get_mut(&key).expect("it was there").step = next;
        true
    }

    /// Performs steps until no lane has work.
    pub(crate) fn come_to_rest(&mut self, random: &mut Random) {
        while self.step(random) {}
    }

    fn perform(&mut self, key: &TwinKey, step: Step) -> Option<Step> {
        match step {
            Step::Bring(mut upsert) => {
                self.bring_in(key, &mut upsert);
                if key.is_module() {
                    return upsert.began_incarnation().map(|_| Step::ReadDevice(upsert));
                }
                upsert.cascade().map(|cascade| Step::Cascade(upsert, cascade))
            }
            Step::Cascade(mut upsert, cascade) => {
                upsert.cascaded();
                let modules: Vec<_> = self.documents.keys().filter(|key| key.is_module()).cloned().collect();
                self.tell(format!("{key} cascades {cascade:?}"));
                for module in modules {
                    self.receive(&follow(module, cascade));
                }
                // A cascade that has ended is cleared in memory at once, but in the store only with the next write. After a crash
                // it is repeated. Half of the cascades are not cleared, as after a crash.
                if self.etag.is_multiple_of(2)
                    && let Some((document, _)) = self.documents.get_mut(key)
                {
                    Arc::make_mut(document).cascade = None;
                }
                None
            }
            Step::ReadDevice(mut upsert) => {
                let ended = upsert.checked_device(self.document(&key.parent()));
                ended.then(|| {
                    self.tell(format!("{key} began before its device ended, or about then"));
                    Step::Bring(upsert)
                })
            }
        }
    }

    fn bring_in(&mut self, key: &TwinKey, upsert: &mut Upsert) {
        loop {
            let document = match upsert.action(NOW) {
                Action::Done => return,
                Action::Read => {
                    match self.documents.get(key) {
                        None => upsert.absent(),
                        Some((document, etag)) => upsert.found(Arc::clone(document), name(*etag)),
                    }
                    continue;
                }
                Action::Create(document) | Action::Replace(document, _) => document,
            };
            self.write(document);
            upsert.written(name(self.etag));
        }
    }

    fn write(&mut self, document: Arc<Document>) {
        self.etag += 1;
        self.tell(shown(&document));
        self.documents.insert(document.key.clone(), (document, self.etag));
    }

    fn tell(&mut self, what: String) {
        self.story.push(what);
    }

    /// Asks the hub about every twin whose document is flagged.
    pub(crate) fn repair(&mut self, hub: &mut Hub) {
        for key in hub.keys() {
            if is_flagged(self.document(&key)) {
                self.repair_one(hub, &key);
            }
        }
    }

    /// Asks about every twin that is flagged or differs.
    pub(crate) fn audit(&mut self, hub: &mut Hub) {
        for key in hub.keys() {
            if is_flagged(self.document(&key)) || !equal(self.document(&key), hub.twins.get(&key)) {
                self.repair_one(hub, &key);
            }
        }
    }

    fn repair_one(&mut self, hub: &mut Hub, key: &TwinKey) {
        self.repairs += 1;
        let answer = hub.get_twin(key);
        self.take_answer(&answer);
        let cascaded = self.document(key).filter(|document| document.operation == Operation::Snapshot);
        if cascaded.is_some_and(|document| document.cascade.is_some()) {
            for module in self.documents.keys().filter(|key| key.is_module()).cloned().collect::<Vec<_>>() {
                let answer = hub.get_twin(&module);
                self.take_answer(&answer);
            }
            let mut document = self.document(key).expect("it was repaired").clone();
            document.cascade = None;
            self.write(Arc::new(document));
        }
    }

    fn take_answer(&mut self, answer: &TwinEvent) {
        self.tell(format!("the hub says {} {:?}", answer.at, answer.change));
        let mut document = self.document(&answer.key).cloned();
        if let (Some(stored), Change::Snapshot { version, twin }) = (&document, &answer.change) {
            self.audit_wanted |= went_back(stored, *version, twin, TOLERANCE);
        }
        decide(&mut document, answer, NOW, &RULES);
        if let Some(document) = document.filter(|document| Some(document) != self.document(&answer.key)) {
            self.write(Arc::new(document));
        }
        assert!(!is_flagged(self.document(&answer.key)), "a registry answer leaves no flag");
    }

    /// The history of this replica and of the hub, for the message of a failed test.
    pub(crate) fn story(&self, hub: &Hub) -> String {
        let sent = hub.events.iter().map(|event| format!("{} {} {:?}", event.at, event.key, event.change));
        let sent = sent.collect::<Vec<_>>().join("\n");
        format!(
            "the hub sent\n{sent}\nthe replica wrote\n{}\nthe hub has {:#?}",
            self.story.join("\n"),
            hub.twins
        )
    }
}

fn shown(document: &Document) -> String {
    let shown = serde_json::to_value(document).expect("serialises");
    format!("{} v{} {} {}", document.key, shown["version"], shown["sync"], shown["tags"])
}

fn name(etag: u64) -> ETag {
    ETag(format!("\"{etag}\""))
}
