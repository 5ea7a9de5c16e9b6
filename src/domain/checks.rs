//! The checks of `twinsync check` and the meaning of each fact that they find: ok, a warning, or a failure, with an
//! explanation, the remedy, and the code of the page with the details.
//!
//! Facts are gathered elsewhere and passed as arguments. Every function here returns a finding for every fact; none is
//! skipped silently.

mod clock;
mod container;
mod directories;
mod eventhubs;
mod process;
mod read_api;
mod registry;
mod signature;
mod token;
mod words;

pub use self::{
    clock::{Measured, clock},
    container::{Container, DefaultTtl, Indexing, QUERIED, indexing, time_to_live},
    directories::{Directory, Writable, directory},
    eventhubs::{
        Attached, Attempt, Found, Goes, Owner, checkpoints, group, hub, is_ours, oldest, owners, retention,
    },
    process::{Listening, Load, Memory, files, listening, memory, shutdown},
    read_api::{Certificate, Served, certificate, served},
    registry::{Seen, document_ids, hub_names, quota},
    signature::{Signature, signature},
    token::token,
};

/// All checks, in the order of the report. `docs/check.md` has a row for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The configuration is consistent.
    Configuration,
    /// An identity is available.
    CredentialKind,
    /// The identity provides tokens.
    CredentialToken,
    /// The clock of this machine.
    Clock,
    /// The configured retention fits the other settings.
    EventHubsRetention,
    /// The Event Hub answers.
    EventHubsHub,
    /// The consumer group can be read.
    EventHubsGroup,
    /// The oldest event is not older than expected.
    EventHubsOldest,
    /// The checkpoints match the partitions.
    EventHubsCheckpoints,
    /// The owners of the partitions.
    EventHubsOwners,
    /// The Cosmos DB account answers.
    CosmosAccount,
    /// Reads return what was written.
    CosmosConsistency,
    /// One region accepts our writes.
    CosmosRegions,
    /// The container exists and has our partition key.
    CosmosContainer,
    /// Tombstones can expire automatically.
    CosmosTimeToLive,
    /// The index serves our queries.
    CosmosIndexing,
    /// Our queries are answered.
    CosmosQuery,
    /// Documents can be written conditionally, read and deleted.
    CosmosWrite,
    /// The signature in the container's URL.
    BlobSignature,
    /// The blob container exists.
    BlobContainer,
    /// Blobs can be written conditionally, read and deleted.
    BlobWrite,
    /// The directory of the checkpoints.
    DirectoryCheckpoints,
    /// The directory of the dead letters.
    DirectoryDeadLetters,
    /// The share of the hubs' quota.
    IotHubQuota,
    /// Document ids when there are several hubs.
    IotHubDocumentIds,
    /// A twin can be read.
    IotHubRead,
    /// Twins can be queried.
    IotHubQuery,
    /// Events and documents come from the configured hubs.
    IotHubNames,
    /// The address of the read API.
    ServeListen,
    /// The certificate and key of the read API.
    ServeCertificate,
    /// The address of health and metrics.
    HttpListen,
    /// File descriptors.
    ProcessFiles,
    /// Memory.
    ProcessMemory,
    /// The time that a shutdown may take.
    ProcessShutdown,
}

/// A group of checks, as shown to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// The configuration.
    Configuration,
    /// Our identity.
    Credential,
    /// The source of events.
    EventHubs,
    /// The store of documents.
    Cosmos,
    /// Checkpoints and dead letters in blob storage.
    Blobs,
    /// Checkpoints and dead letters on a disk.
    Directories,
    /// The IoT hubs.
    IotHub,
    /// What `twinsync serve` needs.
    ReadApi,
    /// This process.
    Process,
}

impl Area {
    /// Its title, for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Credential => "Credential and clock",
            Self::EventHubs => "Event Hubs",
            Self::Cosmos => "Cosmos DB",
            Self::Blobs => "Blob container",
            Self::Directories => "Directories",
            Self::IotHub => "IoT Hub",
            Self::ReadApi => "Read API",
            Self::Process => "Process",
        }
    }
}

impl Kind {
    /// All checks, in order.
    pub const ALL: [Self; 34] = [
        Self::Configuration,
        Self::CredentialKind,
        Self::CredentialToken,
        Self::Clock,
        Self::EventHubsRetention,
        Self::EventHubsHub,
        Self::EventHubsGroup,
        Self::EventHubsOldest,
        Self::EventHubsCheckpoints,
        Self::EventHubsOwners,
        Self::CosmosAccount,
        Self::CosmosConsistency,
        Self::CosmosRegions,
        Self::CosmosContainer,
        Self::CosmosTimeToLive,
        Self::CosmosIndexing,
        Self::CosmosQuery,
        Self::CosmosWrite,
        Self::BlobSignature,
        Self::BlobContainer,
        Self::BlobWrite,
        Self::DirectoryCheckpoints,
        Self::DirectoryDeadLetters,
        Self::IotHubQuota,
        Self::IotHubDocumentIds,
        Self::IotHubRead,
        Self::IotHubQuery,
        Self::IotHubNames,
        Self::ServeListen,
        Self::ServeCertificate,
        Self::HttpListen,
        Self::ProcessFiles,
        Self::ProcessMemory,
        Self::ProcessShutdown,
    ];

    /// Its stable name, for scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::CredentialKind => "credential.kind",
            Self::CredentialToken => "credential.token",
            Self::Clock => "clock",
            Self::EventHubsRetention => "eventhubs.retention",
            Self::EventHubsHub => "eventhubs.hub",
            Self::EventHubsGroup => "eventhubs.group",
            Self::EventHubsOldest => "eventhubs.oldest",
            Self::EventHubsCheckpoints => "eventhubs.checkpoints",
            Self::EventHubsOwners => "eventhubs.owners",
            Self::CosmosAccount => "cosmos.account",
            Self::CosmosConsistency => "cosmos.consistency",
            Self::CosmosRegions => "cosmos.regions",
            Self::CosmosContainer => "cosmos.container",
            Self::CosmosTimeToLive => "cosmos.time_to_live",
            Self::CosmosIndexing => "cosmos.indexing",
            Self::CosmosQuery => "cosmos.query",
            Self::CosmosWrite => "cosmos.write",
            Self::BlobSignature => "blob.signature",
            Self::BlobContainer => "blob.container",
            Self::BlobWrite => "blob.write",
            Self::DirectoryCheckpoints => "directory.checkpoints",
            Self::DirectoryDeadLetters => "directory.dead_letters",
            Self::IotHubQuota => "iothub.quota",
            Self::IotHubDocumentIds => "iothub.document_ids",
            Self::IotHubRead => "iothub.read",
            Self::IotHubQuery => "iothub.query",
            Self::IotHubNames => "iothub.names",
            Self::ServeListen => "serve.listen",
            Self::ServeCertificate => "serve.certificate",
            Self::HttpListen => "http.listen",
            Self::ProcessFiles => "process.files",
            Self::ProcessMemory => "process.memory",
            Self::ProcessShutdown => "process.shutdown",
        }
    }

    /// Whether it only runs with `--connect`.
    pub const fn connects(self) -> bool {
        match self {
            Self::CredentialToken
            | Self::Clock
            | Self::EventHubsHub
            | Self::EventHubsGroup
            | Self::EventHubsOldest
            | Self::EventHubsCheckpoints
            | Self::EventHubsOwners
            | Self::CosmosAccount
            | Self::CosmosConsistency
            | Self::CosmosRegions
            | Self::CosmosContainer
            | Self::CosmosTimeToLive
            | Self::CosmosIndexing
            | Self::CosmosQuery
            | Self::CosmosWrite
            | Self::BlobContainer
            | Self::BlobWrite
            | Self::IotHubRead
            | Self::IotHubQuery
            | Self::IotHubNames => true,
            Self::Configuration
            | Self::CredentialKind
            | Self::EventHubsRetention
            | Self::BlobSignature
            | Self::DirectoryCheckpoints
            | Self::DirectoryDeadLetters
            | Self::IotHubQuota
            | Self::IotHubDocumentIds
            | Self::ServeListen
            | Self::ServeCertificate
            | Self::HttpListen
            | Self::ProcessFiles
            | Self::ProcessMemory
            | Self::ProcessShutdown => false,
        }
    }

    /// The area that it belongs to.
    pub const fn area(self) -> Area {
        match self {
            Self::Configuration => Area::Configuration,
            Self::CredentialKind | Self::CredentialToken | Self::Clock => Area::Credential,
            Self::EventHubsRetention
            | Self::EventHubsHub
            | Self::EventHubsGroup
            | Self::EventHubsOldest
            | Self::EventHubsCheckpoints
            | Self::EventHubsOwners => Area::EventHubs,
            Self::CosmosAccount
            | Self::CosmosConsistency
            | Self::CosmosRegions
            | Self::CosmosContainer
            | Self::CosmosTimeToLive
            | Self::CosmosIndexing
            | Self::CosmosQuery
            | Self::CosmosWrite => Area::Cosmos,
            Self::BlobSignature | Self::BlobContainer | Self::BlobWrite => Area::Blobs,
            Self::DirectoryCheckpoints | Self::DirectoryDeadLetters => Area::Directories,
            Self::IotHubQuota
            | Self::IotHubDocumentIds
            | Self::IotHubRead
            | Self::IotHubQuery
            | Self::IotHubNames => Area::IotHub,
            Self::ServeListen | Self::ServeCertificate => Area::ReadApi,
            Self::HttpListen | Self::ProcessFiles | Self::ProcessMemory | Self::ProcessShutdown => {
                Area::Process
            }
        }
    }
}

/// How serious a finding is, the most serious last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything is right.
    Ok,
    /// Not checked.
    Skipped,
    /// It works, but somebody should look at it.
    Warn,
    /// twinsync does not work like this.
    Fail,
}

impl Verdict {
    /// Its name, for people and scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The exit code of a run whose worst verdict this is.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok | Self::Skipped => 0,
            Self::Warn => 1,
            Self::Fail => 2,
        }
    }
}

/// Something that has to be fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one line.
    pub text: String,
    /// The command or setting that fixes it.
    pub remedy: String,
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub code: &'static str,
}

impl Problem {
    /// Creates a problem.
    pub fn new(code: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { text: text.into(), remedy: remedy.into(), code }
    }

    /// Parses one of our own errors. They all have one form: what is wrong, a semicolon, the remedy, and the code in
    /// brackets. If an error has no remedy, the page has one.
    pub fn of_error(code: &'static str, message: &str) -> Self {
        let message = message.trim();
        let message = message.strip_suffix(&format!(" ({code})")).unwrap_or(message);
        match message.rsplit_once("; ") {
            Some((text, remedy)) => Self::new(code, text, remedy),
            None => Self::new(code, message, format!("docs/errors/{code}.md says what to do")),
        }
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Everything is right; the text describes it.
    Ok(String),
    /// It works, but somebody should look at it.
    Warn(Problem),
    /// twinsync does not work like this.
    Fail(Problem),
    /// Not checked; the text says why.
    Skipped(String),
}

impl Finding {
    /// A result without a problem.
    pub fn ok(text: impl Into<String>) -> Self {
        Self::Ok(text.into())
    }

    /// A warning.
    pub fn warn(code: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Warn(Problem::new(code, text, remedy))
    }

    /// A failure.
    pub fn fail(code: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Fail(Problem::new(code, text, remedy))
    }

    /// A failure described by one of our errors.
    pub fn of_error(code: &'static str, message: &str) -> Self {
        Self::Fail(Problem::of_error(code, message))
    }

    /// Not checked, because it needs another check that did not succeed.
    pub fn needs(kind: Kind, subject: &str) -> Self {
        let subject = if subject.is_empty() { String::new() } else { format!(" ({subject})") };
        Self::Skipped(format!("it needs {}{subject}, which did not succeed", kind.name()))
    }

    /// How serious it is.
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Ok(_) => Verdict::Ok,
            Self::Warn(_) => Verdict::Warn,
            Self::Fail(_) => Verdict::Fail,
            Self::Skipped(_) => Verdict::Skipped,
        }
    }

    /// Whether checks that depend on it can run.
    pub const fn is_usable(&self) -> bool {
        matches!(self, Self::Ok(_) | Self::Warn(_))
    }

    /// The text of the finding.
    pub fn text(&self) -> &str {
        match self {
            Self::Ok(text) | Self::Skipped(text) => text,
            Self::Warn(problem) | Self::Fail(problem) => &problem.text,
        }
    }

    /// The problem to fix, if there is one.
    pub const fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Warn(problem) | Self::Fail(problem) => Some(problem),
            Self::Ok(_) | Self::Skipped(_) => None,
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What was checked.
    pub kind: Kind,
    /// What the line is about, e.g. the Event Hub; empty if there is only one.
    pub subject: String,
    /// The result.
    pub finding: Finding,
}

impl Checked {
    /// A line about something of which there is only one.
    pub fn new(kind: Kind, finding: Finding) -> Self {
        Self::about(kind, "", finding)
    }

    /// A line about one of several.
    pub fn about(kind: Kind, subject: impl Into<String>, finding: Finding) -> Self {
        Self { kind, subject: subject.into(), finding }
    }
}

/// The most serious verdict. Skipped checks do not count: they either do not matter, or need a check that is worse.
pub fn worst(checked: &[Checked]) -> Verdict {
    let verdicts = checked.iter().map(|line| line.finding.verdict());
    verdicts.filter(|verdict| *verdict != Verdict::Skipped).max().unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_listed_once_in_order_and_areas_are_not_torn_apart() {
        let mut sorted = Kind::ALL;
        sorted.sort();
        assert_eq!(sorted, Kind::ALL);
        assert_eq!(Kind::ALL.iter().map(|kind| kind.name()).collect::<BTreeSet<_>>().len(), Kind::ALL.len());
        let mut areas: Vec<_> = Kind::ALL.iter().map(|kind| kind.area().title()).collect();
        areas.dedup();
        assert_eq!(areas.len(), 9);
        assert_eq!(areas.iter().collect::<BTreeSet<_>>().len(), areas.len(), "{areas:?}");
    }

    #[test]
    fn what_can_be_checked_here_is_checked_without_connecting() {
        let local: Vec<_> =
            Kind::ALL.iter().filter(|kind| !kind.connects()).map(|kind| kind.name()).collect();
        let expected = [
            "configuration",
            "credential.kind",
            "eventhubs.retention",
            "blob.signature",
            "directory.checkpoints",
            "directory.dead_letters",
            "iothub.quota",
            "iothub.document_ids",
            "serve.listen",
            "serve.certificate",
            "http.listen",
            "process.files",
            "process.memory",
            "process.shutdown",
        ];
        assert_eq!(local, expected);
    }

    #[test]
    fn a_finding_has_a_verdict_and_says_whether_others_can_build_on_it() {
        let findings = [
            Finding::ok("x"),
            Finding::warn("A", "a", "b"),
            Finding::fail("B", "a", "b"),
            Finding::Skipped("y".into()),
        ];
        let told = findings.map(|finding| (finding.verdict().name(), finding.is_usable()));
        assert_eq!(told, [("ok", true), ("warn", true), ("fail", false), ("skipped", false)]);
    }

    #[test]
    fn the_worst_decides_the_exit_code() {
        let of = |findings: Vec<Finding>| {
            let lines: Vec<_> =
                findings.into_iter().map(|finding| Checked::new(Kind::Clock, finding)).collect();
            worst(&lines).exit_code()
        };
        let (ok, skipped) = (Finding::ok("x"), Finding::Skipped("y".into()));
        let (warn, fail) = (Finding::warn("A", "a", "b"), Finding::fail("B", "a", "b"));
        assert_eq!(of(vec![]), 0);
        assert_eq!(of(vec![ok.clone(), skipped.clone()]), 0);
        assert_eq!(of(vec![ok.clone(), warn.clone(), skipped]), 1);
        assert_eq!(of(vec![fail, warn, ok]), 2);
    }

    #[test]
    fn an_error_of_ours_is_taken_apart() {
        let problem = Problem::of_error("A_CODE", "cannot use x: y; z (p); mend it, or not (A_CODE)");
        assert_eq!(problem, Problem::new("A_CODE", "cannot use x: y; z (p)", "mend it, or not"));
        let problem = Problem::of_error("A_CODE", "cannot use x (A_CODE)");
        assert_eq!(problem.text, "cannot use x");
        assert!(problem.remedy.contains("docs/errors/A_CODE.md"), "{problem:?}");
    }
}
