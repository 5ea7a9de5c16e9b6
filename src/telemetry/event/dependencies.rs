//! Dependencies of the daemon: that they answer, fail, or delay the start.

use std::{path::Path, time::Duration};

use crate::{
    domain::{
        health::{Dependency, Failure},
        mounts::Ephemeral,
    },
    telemetry::{
        health_state::HealthState,
        label::{Purpose, RegistryCall, RegistryOutcome},
        limit::{BEGAN, OVER},
        metrics::Metrics,
    },
};

/// How and why a dependency fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault<'a> {
    /// How it fails.
    pub failure: Failure,
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub code: &'static str,
    /// What went wrong, in one line.
    pub reason: &'a str,
}

/// The Event Hub, if the dependency is one.
fn stream(dependency: &Dependency) -> Option<tracing::field::DisplayValue<&String>> {
    match dependency {
        Dependency::EventHub(stream) => Some(tracing::field::display(stream)),
        Dependency::Credential
        | Dependency::DeadLetters
        | Dependency::Checkpoints
        | Dependency::Leases
        | Dependency::Registry(_)
        | Dependency::Traces
        | Dependency::EntraKeys
        | Dependency::Lag
        | Dependency::ChangeFeed => None,
    }
}

/// The IoT hub, if the dependency is its registry.
fn hub(dependency: &Dependency) -> Option<tracing::field::DisplayValue<&String>> {
    match dependency {
        Dependency::Registry(hub) => Some(tracing::field::display(hub)),
        Dependency::Credential
        | Dependency::DeadLetters
        | Dependency::Checkpoints
        | Dependency::Leases
        | Dependency::EventHub(_)
        | Dependency::Traces
        | Dependency::EntraKeys
        | Dependency::Lag
        | Dependency::ChangeFeed => None,
    }
}

/// Name of the document store in `what`.
const STORE: &str = "the document store";

/// A dependency, other than the document store and the partitions, began or ceased to fail.
#[derive(Debug, Clone, Copy)]
pub enum DependencyChanged<'a> {
    /// It answers again.
    Answers {
        /// The dependency.
        dependency: &'a Dependency,
        /// How long it failed.
        after: Duration,
    },
    /// It fails repeatedly.
    Fails {
        /// The dependency.
        dependency: &'a Dependency,
        /// How and why.
        fault: Fault<'a>,
    },
}

impl DependencyChanged<'_> {
    /// Posts in the health state that a dependency answers, or how and why it fails. Logs the change, if there is one.
    pub fn post(health: &HealthState, dependency: &Dependency, failed: Option<Fault<'_>>) {
        match failed {
            Some(fault) if health.is_down(dependency.clone(), fault.failure, fault.reason) => {
                DependencyChanged::Fails { dependency, fault }.emit();
            }
            Some(_) => {}
            None => {
                if let Some(after) = health.is_up(dependency.clone()) {
                    DependencyChanged::Answers { dependency, after }.emit();
                }
            }
        }
    }

    /// Logs at INFO or WARN.
    pub fn emit(&self) {
        match self {
            Self::Answers { dependency, after } => tracing::info!(
                what = %dependency, stream = stream(dependency), hub = hub(dependency), seconds = after.as_secs(),
                outage = OVER, "what did not answer answers again"
            ),
            Self::Fails { dependency, fault: Fault { failure, code, reason } } => {
                let what_is_done = match dependency {
                    Dependency::Credential => {
                        "asked again until there is a token; what has one goes on with it"
                    }
                    Dependency::DeadLetters => {
                        "letters are tried again until they are stored; the checkpoints of their partitions wait"
                    }
                    Dependency::Checkpoints => {
                        "checkpoints are tried again until they are written; events go on, and more of them would be \
                         received again after a restart"
                    }
                    Dependency::Leases => {
                        "tried again until it answers; partitions are kept while their leases last, and then stopped"
                    }
                    Dependency::EventHub(_) => {
                        "asked again until it answers; what arrives is worked off, and the lag is not known"
                    }
                    Dependency::Registry(_) => {
                        "asked again until it answers; replication goes on, repair, backfill and audit of its twins wait"
                    }
                    Dependency::Traces => {
                        "traces are kept while there is room and sent when it answers, those beyond are dropped and counted; \
                         replication goes on"
                    }
                    Dependency::EntraKeys => {
                        "keys that are there are good for a day, and are asked for again; without any, tokens are answered with \
                         503, and shared access signatures are good all the same"
                    }
                    Dependency::Lag => {
                        "asked again; twins are read all the same, and answers do not say how far behind the copy is"
                    }
                    Dependency::ChangeFeed => {
                        "asked again; replication goes on, and declared counts stay as they were"
                    }
                };
                match failure {
                    Failure::Silent => {
                        tracing::warn!(
                            what = %dependency, stream = stream(dependency), hub = hub(dependency), code, reason,
                            outage = BEGAN, what_is_done, "something that is needed does not answer"
                        );
                    }
                    Failure::Throttled => {
                        tracing::warn!(
                            what = %dependency, stream = stream(dependency), hub = hub(dependency), code, reason,
                            outage = BEGAN, what_is_done, "something that is needed asks for less"
                        );
                    }
                }
            }
        }
    }
}

/// The store began or ceased to fail.
#[derive(Debug, Clone, Copy)]
pub enum StoreChanged<'a> {
    /// The store answers.
    Reachable,
    /// The store does not answer.
    Unreachable {
        /// Stable code.
        code: &'static str,
        /// What went wrong, in one line.
        reason: &'a str,
    },
    /// The store does not answer, and this process only reads.
    Unreadable {
        /// Stable code.
        code: &'static str,
        /// What went wrong, in one line.
        reason: &'a str,
    },
}

impl StoreChanged<'_> {
    /// Logs at INFO or WARN.
    pub fn emit(&self) {
        match self {
            Self::Reachable => tracing::info!(what = STORE, outage = OVER, "the document store answers"),
            Self::Unreachable { code, reason } => tracing::warn!(
                what = STORE,
                code,
                reason,
                outage = BEGAN,
                "the document store does not answer: writes are tried again until it does, nothing is lost"
            ),
            Self::Unreadable { code, reason } => tracing::warn!(
                what = STORE,
                code,
                reason,
                outage = BEGAN,
                "the document store does not answer: whoever asks for twins is told to ask again later"
            ),
        }
    }
}

/// The registry of a hub was asked.
#[derive(Debug, Clone, Copy)]
pub struct RegistryAsked<'a> {
    /// The hub.
    pub hub: &'a str,
    /// The kind of call.
    pub call: RegistryCall,
    /// The purpose of the call.
    pub purpose: Purpose,
    /// The outcome.
    pub outcome: RegistryOutcome,
    /// Duration of the call.
    pub took: Duration,
    /// What went wrong, in one line.
    pub message: Option<&'a str>,
}

impl RegistryAsked<'_> {
    /// DEBUG.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.registry_asked(self.call, self.outcome, self.purpose, self.took);
        let (call, purpose, outcome) = (self.call.label(), self.purpose.label(), self.outcome.label());
        tracing::debug!(hub = %self.hub, call, purpose, outcome, reason = self.message, "the hub was asked");
    }
}

/// The registry of a hub began or ceased to fail.
#[derive(Debug, Clone, Copy)]
pub enum RegistryChanged<'a> {
    /// It answers again.
    Reachable {
        /// The hub.
        hub: &'a str,
    },
    /// It does not answer, or refuses the calls.
    Unreachable {
        /// The hub.
        hub: &'a str,
        /// Stable code.
        code: &'static str,
        /// What went wrong and what to do, in one line.
        reason: &'a str,
    },
}

impl RegistryChanged<'_> {
    /// Logs at INFO or WARN.
    pub fn emit(&self) {
        match self {
            Self::Reachable { hub } => tracing::info!(%hub, outage = OVER, "the IoT hub answers again"),
            Self::Unreachable { hub, code, reason } => tracing::warn!(
                %hub, code, reason, outage = BEGAN,
                "the IoT hub does not answer: replication goes on, repair, backfill and audit of its twins wait until it does"
            ),
        }
    }
}

/// A start waits for a dependency.
#[derive(Clone, Copy)]
pub enum StartDelayed<'a> {
    /// It cannot be used yet.
    Waiting {
        /// The dependency.
        what: &'a dyn std::fmt::Display,
        /// Its name in metrics.
        label: &'static str,
        /// Stable code.
        code: &'static str,
        /// What went wrong and what to do, in one line.
        reason: &'a str,
        /// Time until the next try.
        retry_in: Duration,
        /// Time until the start fails with this error, if it does.
        gives_up_in: Option<Duration>,
    },
    /// It can be used.
    Over {
        /// The dependency.
        what: &'a dyn std::fmt::Display,
        /// How long that took.
        after: Duration,
    },
}

impl StartDelayed<'_> {
    /// Logs at WARN if waiting may help, at ERROR if a person has to fix it, and at INFO when the wait is over.
    pub fn emit(&self, metrics: &Metrics) {
        match *self {
            Self::Waiting { what, label, code, reason, retry_in, gives_up_in } => {
                metrics.start_delayed(label);
                match gives_up_in {
                    None => tracing::warn!(
                        %what, code, reason, ?retry_in, "the start waits for something that passes, and goes on when it has"
                    ),
                    Some(left) => tracing::error!(
                        %what, code, reason, ?retry_in, gives_up_in_seconds = left.as_secs(),
                        "the start is refused something: trying again, since new rights take minutes to take effect, and then ending with this error"
                    ),
                }
            }
            Self::Over { what, after } => {
                tracing::info!(%what, seconds = after.as_secs(), outage = OVER, "the start goes on")
            }
        }
    }
}

/// The data in a directory will be lost with the container of the daemon.
#[derive(Debug, Clone, Copy)]
pub struct StorageEphemeral<'a> {
    /// The section of the configuration that names it.
    pub section: &'static str,
    /// The directory.
    pub path: &'a Path,
    /// The kind of file system.
    pub kind: Ephemeral,
}

impl StorageEphemeral<'_> {
    /// WARN.
    pub fn emit(&self) {
        let Self { section, path, kind } = self;
        tracing::warn!(
            code = "STORAGE_EPHEMERAL", what = %section, directory = %path.display(), lies_on = kind.describe(),
            "what is kept here will be lost: mount a volume on the directory, or set {section}.store = \"blob\""
        );
    }
}

/// Some spans could not be exported before the shutdown.
#[derive(Debug, Clone, Copy)]
pub struct SpansLeft<'a> {
    /// Number of spans that were queued and not exported.
    pub spans: usize,
    /// Stable code.
    pub code: &'static str,
    /// Why not, in one line.
    pub reason: &'a str,
}

impl SpansLeft<'_> {
    /// WARN.
    pub fn emit(&self) {
        let Self { spans, code, reason } = *self;
        tracing::warn!(spans, code, reason, "traces could not be sent before the end: they are dropped");
    }
}

/// A receiver has accepted a request, but not all of its spans.
#[derive(Debug, Clone, Copy)]
pub struct SpansRefused<'a> {
    /// Number of spans that it did not accept.
    pub spans: usize,
    /// Stable code.
    pub code: &'static str,
    /// Its message, on one line.
    pub reason: &'a str,
}

impl SpansRefused<'_> {
    /// WARN.
    pub fn emit(&self) {
        let Self { spans, code, reason } = *self;
        tracing::warn!(
            spans,
            code,
            reason,
            "the receiver of traces refuses a part of them: they are dropped"
        );
    }
}
