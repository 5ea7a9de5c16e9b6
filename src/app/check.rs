//! What `twinsync check` does: it gathers facts, with the same adapters as a start, and `domain/checks` assesses them.
//!
//! *Invariants*: every check has its own time limit, so nothing hangs. Independent checks run at the same time, but the lines come in the
//! order of [`Kind`]. A check is skipped, and says so, if something that it needs is not in order. Nothing that belongs to a running daemon
//! is touched: no lock, no lease, no checkpoint, no port, no reader. Test writes are removed, also when the run is stopped.

mod blobs;
mod cosmos;
mod credential;
mod directories;
mod eventhubs;
mod iothub;
mod process;
mod read_api;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use azure_core::credentials::TokenCredential;
use futures::{StreamExt, future::LocalBoxFuture, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::credential::Tokens;
use crate::{
    config::{self, CheckpointStore, DeadLetters, Settings},
    domain::checks::{Checked, Finding, Kind},
};

/// Time limit of one request to a service, if the configured limit is longer.
const LIMIT: Duration = Duration::from_secs(5);

/// Time limit of a check that consists of several requests.
const WHOLE_LIMIT: Duration = Duration::from_secs(15);

/// The dependencies that all sections of a run share.
struct Inspector<'a> {
    settings: &'a Settings,
    connect: bool,
    stop: &'a CancellationToken,
}

/// Results that sections share with each other. `None`: not known yet.
#[derive(Default)]
struct Shared {
    /// Whether the blob container can be used.
    container: watch::Sender<Option<bool>>,
    /// The facts that were found in Event Hubs.
    events: watch::Sender<Option<eventhubs::Seen>>,
    /// Spellings of hub names in documents.
    documents: watch::Sender<Option<BTreeSet<String>>>,
}

impl Shared {
    /// Waits until a section has published its result. Every section publishes one, whatever it found.
    async fn told<T: Clone + Default>(told: &watch::Sender<Option<T>>) -> T {
        let mut receiver = told.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(value) => value.clone().unwrap_or_default(),
            Err(_) => T::default(),
        }
    }
}

impl Inspector<'_> {
    /// Waits for an answer, at most for `limit`, and until the run is stopped.
    ///
    /// # Errors
    /// A finding with the reason why there is no answer: `late`, or that the run was stopped.
    async fn within<T>(
        &self,
        limit: Duration,
        late: impl FnOnce(String) -> Finding,
        work: impl Future<Output = T>,
    ) -> Result<T, Finding> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(stopped()),
            result = tokio::time::timeout(limit, work) => {
                result.map_err(|_| late(format!("no answer within {} s", limit.as_secs())))
            }
        }
    }

    /// The blob container, if checkpoints or dead letters are stored in one, and whether dead letters are.
    fn blob(&self) -> Option<(&config::Blob, bool)> {
        match (&self.settings.checkpoint.store, &self.settings.dead_letters) {
            (_, DeadLetters::Blob(blob)) => Some((blob, true)),
            (CheckpointStore::Blob(blob), DeadLetters::File { .. }) => Some((blob, false)),
            (CheckpointStore::Memory | CheckpointStore::File { .. }, DeadLetters::File { .. }) => None,
        }
    }
}

/// The finding for a run that was stopped.
fn stopped() -> Finding {
    Finding::Skipped("stopped on request".to_owned())
}

/// Runs all checks, with or without connections. Reports each line in order, as soon as all lines before it are known. When `stop` is
/// cancelled, the remaining checks are skipped, and test writes are removed.
pub async fn run(
    settings: &Settings,
    connect: bool,
    stop: &CancellationToken,
    mut tell: impl FnMut(Checked),
) {
    let inspector = Inspector { settings, connect, stop };
    let shared = Shared::default();
    let made = credential::make(settings);
    let tokens = match (&made, connect) {
        (Ok(credential), true) => inspector.tokens(credential).await,
        (Ok(_) | Err(_), _) => Tokens::default(),
    };
    let (inspector, shared, tokens, made) = (&inspector, &shared, &tokens, &made);
    let credential: Option<&Arc<dyn TokenCredential>> = made.as_ref().ok();
    let sections: [LocalBoxFuture<'_, Vec<Checked>>; 8] = [
        Box::pin(inspector.credential(made, tokens)),
        Box::pin(inspector.eventhubs(credential, tokens, shared)),
        Box::pin(inspector.cosmos(credential, tokens, shared)),
        Box::pin(inspector.blobs(credential, tokens, shared)),
        Box::pin(inspector.directories()),
        Box::pin(inspector.iothub(credential, tokens, shared)),
        Box::pin(inspector.read_api()),
        Box::pin(inspector.process(shared)),
    ];
    let count = sections.len();
    let mut lines = stream::iter(sections).buffered(count);
    while let Some(section) = lines.next().await {
        section.into_iter().for_each(&mut tell);
    }
}

/// The lines for an unusable configuration: nothing can be checked.
pub fn without_configuration(connect: bool) -> impl Iterator<Item = Checked> {
    let rest = Kind::ALL
        .into_iter()
        .filter(move |kind| *kind != Kind::Configuration && (connect || !kind.connects()));
    rest.map(|kind| Checked::new(kind, Finding::needs(Kind::Configuration, "")))
}
