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
                outage = OVER, "a dependency answers again"
            ),
            Self::Fails { dependency, fault: Fault { failure, code, reason } } => {
                let what_is_done = match dependency {
                    Dependency::Credential => {
                        "asked again until there is a token; clients that have one continue with it"
                    }
                    Dependency::DeadLetters => {
                        "dead letters are tried again until they are stored; the checkpoints of their partitions wait"
                    }
                    Dependency::Checkpoints => {
                        "checkpoints are tried again until they are written; replication continues, and more events would be \
                         received again after a restart"
                    }
                    Dependency::Leases => {
                        "tried again until it answers; partitions are kept while their leases last, and then stopped"
                    }
                    Dependency::EventHub(_) => {
                        "asked again until it answers; received events are completed, and the lag is not known"
                    }
                    Dependency::Registry(_) => {
                        "asked again until it answers; replication continues, repair, backfill and audit of its twins wait"
                    }
                    Dependency::Traces => {
                        "traces are kept in a queue and sent when it answers, those that find it full are dropped and counted; \
                         replication continues"
                    }
                    Dependency::EntraKeys => {
                        "existing keys are valid for a day, and are requested again; without any, tokens are answered with \
                         503, and shared access signatures are still accepted"
                    }
                    Dependency::Lag => {
                        "asked again; twins can still be read, and answers do not say how far behind the copy is"
                    }
                    Dependency::ChangeFeed => {
                        "asked again; replication continues, and declared counts keep their last values"
                    }
                };
                match failure {
                    Failure::Silent => {
                        tracing::warn!(
                            what = %dependency, stream = stream(dependency), hub = hub(dependency), code, reason,
                            outage = BEGAN, what_is_done, "a dependency does not answer"
                        );
                    }
                    Failure::Throttled => {
                        tracing::warn!(
                            what = %dependency, stream = stream(dependency), hub = hub(dependency), code, reason,
                            outage = BEGAN, what_is_done, "a dependency throttles requests"
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
                "the document store does not answer: requests for twins are answered with 503"
            ),
        }
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
                "the IoT hub does not answer: replication continues, repair, backfill and audit of its twins wait until it does"
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
                        %what, code, reason, ?retry_in, "the start waits for a temporary error to end"
                    ),
                    Some(left) => tracing::error!(
                        %what, code, reason, ?retry_in, gives_up_in_seconds = left.as_secs(),
                        "the start was refused access: trying again, since new rights take minutes to take effect, and then ending with this error"
                    ),
                }
            }
            Self::Over { what, after } => {
                tracing::info!(%what, seconds = after.as_secs(), outage = OVER, "the start continues")
            }
        }
    }
}

facts! {
    /// The registry of a hub was asked.
    RegistryAsked<'a> {
        /// The hub.
        hub: &'a str,
        /// The kind of call.
        call: RegistryCall,
        /// The purpose of the call.
        purpose: Purpose,
        /// The outcome.
        outcome: RegistryOutcome,
        /// Duration of the call.
        took: Duration,
        /// What went wrong, in one line.
        message: Option<&'a str>,
    }
    counts(metrics: &Metrics) { metrics.registry_asked(call, outcome, purpose, took); }
    /// DEBUG.
    tracing::debug!(
        %hub, call = call.label(), purpose = purpose.label(), outcome = outcome.label(), reason = message,
        "the hub was asked"
    );

    /// The data in a directory will be lost with the container of the daemon.
    StorageEphemeral<'a> {
        /// The section of the configuration that names it.
        section: &'static str,
        /// The directory.
        path: &'a Path,
        /// The kind of file system.
        kind: Ephemeral,
    }
    /// WARN.
    tracing::warn!(
        code = "STORAGE_EPHEMERAL", what = %section, directory = %path.display(), lies_on = kind.describe(),
        "what is kept here will be lost: mount a volume on the directory, or set {section}.store = \"blob\""
    );

    /// Some spans could not be exported before the shutdown.
    SpansLeft<'a> {
        /// Number of spans that were queued and not exported.
        spans: usize,
        /// Stable code.
        code: &'static str,
        /// Why not, in one line.
        reason: &'a str,
    }
    /// WARN.
    tracing::warn!(spans, code, reason, "traces could not be sent before the end: they are dropped");

    /// A receiver has accepted a request, but not all of its spans.
    SpansRefused<'a> {
        /// Number of spans that it did not accept.
        spans: usize,
        /// Stable code.
        code: &'static str,
        /// Its message, on one line.
        reason: &'a str,
    }
    /// WARN.
    tracing::warn!(spans, code, reason, "the receiver of traces refuses a part of them: they are dropped");
}
