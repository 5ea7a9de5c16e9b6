//! Checks the blob container of checkpoints and dead letters, if they are stored in one.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;

use super::{
    Inspector, Shared, WHOLE_LIMIT,
    credential::{Scope, Tokens},
    stopped,
};
use crate::{
    adapters::blob::{self, Container, Probed},
    config::Blob,
    domain::{
        checks::{Checked, Finding, Kind, Problem, Signature, signature},
        ticks::Ticks,
    },
    ports::{Clock as _, SystemClock},
};

const REMEDY: &str = "check blob.container_url, DNS, network rules and the state of the storage account";

fn failed(error: &blob::Error) -> Finding {
    let message = error.to_string();
    let problem = Problem::of_error(error.code(), &message);
    match error {
        // It is reachable, but throttles at present.
        blob::Error::Throttled { .. } => Finding::Warn(problem),
        _ if message.contains("; ") => Finding::Fail(problem),
        _ => Finding::Fail(Problem { remedy: REMEDY.to_owned(), ..problem }),
    }
}

fn late(late: String) -> Finding {
    Finding::fail("BLOB_UNAVAILABLE", format!("the container: {late}"), REMEDY)
}

fn read_signature(blob: &Blob) -> Option<Signature> {
    let (_, query) = blob.container_url.expose().split_once('?')?;
    Some(Signature::of(url::form_urlencoded::parse(query.as_bytes())))
}

impl Inspector<'_> {
    /// Runs the checks of this section.
    pub(super) async fn blobs(
        &self,
        credential: Option<&Arc<dyn TokenCredential>>,
        tokens: &Tokens,
        shared: &Shared,
    ) -> Vec<Checked> {
        let tell = |usable: bool| {
            shared.container.send_replace(Some(usable));
        };
        let kinds = [Kind::BlobSignature, Kind::BlobContainer, Kind::BlobWrite];
        let kinds = kinds.into_iter().filter(|kind| self.connect || !kind.connects());
        let Some((blob, letters)) = self.blob() else {
            tell(false);
            let why = || Finding::Skipped("nothing is kept in blobs".to_owned());
            return kinds.map(|kind| Checked::new(kind, why())).collect();
        };
        let found = read_signature(blob);
        let now: Ticks = SystemClock.now();
        let mut lines = vec![Checked::new(Kind::BlobSignature, signature(found.as_ref(), letters, now))];
        if !self.connect {
            tell(false);
            return lines;
        }
        let missing = match (&found, credential) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) => tokens.missing(Scope::Storage),
            (_, None) => Some(Finding::needs(Kind::CredentialKind, "")),
        };
        let (container, finding) = match (missing, credential) {
            (None, Some(credential)) => self.container(blob, credential).await,
            (missing, _) => (None, missing.unwrap_or_else(stopped)),
        };
        tell(container.is_some());
        let write = match &container {
            None => Finding::needs(Kind::BlobContainer, ""),
            Some(_) if found.as_ref().is_some_and(|found| !found.allows('d')) => Finding::Skipped(
                "the signature does not allow deletion, so a test blob could not be removed".to_owned(),
            ),
            // Not dropped when the run is stopped, because it removes its test write.
            Some(container) => written(&container.write(self.stop).await),
        };
        let place = container.as_ref().map(|container| container.place().to_owned()).unwrap_or_default();
        lines.push(Checked::about(Kind::BlobContainer, place, finding));
        lines.push(Checked::new(Kind::BlobWrite, write));
        lines
    }

    async fn container(
        &self,
        blob: &Blob,
        credential: &Arc<dyn TokenCredential>,
    ) -> (Option<Arc<Container>>, Finding) {
        let open = async {
            match Container::open_existing(blob, Arc::clone(credential)).await {
                // This creates the container, as a start does. There is no other way to check it.
                Err(blob::Error::Missing { .. }) => {
                    let created = Container::open(blob, Arc::clone(credential)).await;
                    created.map(|container| (container, "it did not exist and was created, as at a start"))
                }
                other => other.map(|container| (container, "it exists and can be listed")),
            }
        };
        match self.within(WHOLE_LIMIT, late, Box::pin(open)).await {
            Ok(Ok((container, words))) => (Some(container), Finding::ok(words)),
            Ok(Err(error)) => (None, failed(&error)),
            Err(finding) => (None, finding),
        }
    }
}

fn written(probed: &Probed) -> Finding {
    match (&probed.worked, &probed.left) {
        (Some(Ok(())), None) => {
            Finding::ok("a blob was created, read, claimed with a condition and removed again")
        }
        (Some(Err(error)), None) => failed(error),
        (None, None) => stopped(),
        (worked, Some(left)) => {
            let why = match worked {
                Some(Err(error)) => format!(": {}", Problem::of_error(error.code(), &error.to_string()).text),
                Some(Ok(())) | None => String::new(),
            };
            Finding::fail(
                "BLOB_REFUSED",
                format!("the test blob {left} could not be removed{why}"),
                "delete that blob, and give the identity or the signature the right to delete",
            )
        }
    }
}
