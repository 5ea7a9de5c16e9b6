//! The document that `twinsync check` writes to find out whether documents can be written. It is always removed
//! afterwards.
//!
//! Its id has more separators than the id of any twin, so no twin can have it, and its partition is one that no device
//! can have. It names no hub and has no twin state, so no scan or query of the daemon returns it. If the container has
//! time to live and the connection is lost, it soon expires.

use std::time::Duration;

use azure_data_cosmos::options::{ItemWriteOptions, Precondition};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Inspected,
    answer::Meaning,
    inspection::Failed,
    queries, {Failure, Writes, finish_write},
};
use crate::ports::Write;

/// Its time to live if it cannot be removed, in seconds.
const ENDS_AFTER_SECONDS: u32 = 300;

/// How often its removal is tried.
const REMOVALS: u32 = 3;

/// The pause between two removals: a request whose answer was lost may still be on its way.
const PAUSE: Duration = Duration::from_millis(300);

/// The result of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Whether all steps succeeded; `None` if it was stopped before the end.
    pub worked: Option<Result<(), Failed>>,
    /// The document that could not be removed, and the reason; `None` if nothing is left.
    pub left: Option<String>,
}

struct Probe<'a> {
    inspected: &'a Inspected,
    id: String,
}

/// Whether the document may exist.
enum Created {
    Maybe(Result<(), Failed>),
    Refused(Failed),
}

impl Inspected {
    /// Creates a document, reads it, replaces it under a condition, verifies that a failed condition is respected, and
    /// removes it. If `stop` is cancelled, it ends early and still removes the document.
    ///
    /// *Cancellation*: must not be dropped, or the document stays until it expires.
    pub async fn write(&self, stop: &CancellationToken) -> Probed {
        let probe =
            Probe { inspected: self, id: format!("twinsync|check|probe|{:016x}", rand::random::<u64>()) };
        if stop.is_cancelled() {
            return Probed { worked: None, left: None };
        }
        let worked = match probe.create().await {
            Created::Refused(failed) => return Probed { worked: Some(Err(failed)), left: None },
            Created::Maybe(Err(failed)) => Some(Err(failed)),
            Created::Maybe(Ok(())) => tokio::select! {
                biased;
                () = stop.cancelled() => None,
                worked = probe.use_it() => Some(worked),
            },
        };
        match probe.remove().await {
            Ok(()) => Probed { worked, left: None },
            Err(failed) => {
                let left = format!("{} in partition {}: {}", probe.id, probe.id, failed.message);
                Probed { worked: worked.map(|worked| worked.and(Err(failed))), left: Some(left) }
            }
        }
    }
}

impl Probe<'_> {
    fn body(&self, step: u8) -> Value {
        json!({
            "id": self.id,
            "deviceId": self.id,
            "ttl": ENDS_AFTER_SECONDS,
            "twinsyncCheck": { "note": "`twinsync check` wrote this; it can be deleted at any time", "step": step },
        })
    }

    async fn create(&self) -> Created {
        let container = &self.inspected.store.container;
        let body = &self.body(1);
        let create = async || container.create_item(self.id.clone(), &self.id, body, None).await;
        let result = self.inspected.with_retries("create_item", create).await;
        let failed = match result {
            Ok(_) => return Created::Maybe(Ok(())),
            Err(failure) => failure,
        };
        let told = Failed::from(&failed);
        match failed.meaning() {
            // No other process uses this id: the SDK has sent the request twice.
            Meaning::Conflict => Created::Maybe(Ok(())),
            Meaning::Refused | Meaning::TooLarge => Created::Refused(told),
            Meaning::Missing | Meaning::Nothing if told.code == "COSMOS_REFUSED" => Created::Refused(told),
            Meaning::Missing | Meaning::Nothing => Created::Maybe(Err(told)),
        }
    }

    async fn use_it(&self) -> Result<(), Failed> {
        let first = self.read(1).await?;
        match self.replace(2, &first).await? {
            Write::Written(_) => {}
            // The request may have been sent twice: the second time, the condition failed.
            Write::Conflict => drop(self.read(2).await?),
            Write::Rejected(message) => return Err(Failed { code: "COSMOS_UNAVAILABLE", message }),
            Write::Unknown(trouble) => {
                return Err(Failed { code: trouble.code, message: trouble.message });
            }
        }
        match self.replace(3, &first).await? {
            Write::Conflict => {}
            Write::Written(_) => {
                let message = "replace_item: a write was accepted although its condition was false; make sure that \
                               the account accepts writes in one region only, and that this is Azure Cosmos DB";
                return Err(Failed { code: "COSMOS_MULTI_WRITE", message: message.to_owned() });
            }
            Write::Rejected(message) => return Err(Failed { code: "COSMOS_UNAVAILABLE", message }),
            Write::Unknown(trouble) => {
                return Err(Failed { code: trouble.code, message: trouble.message });
            }
        }
        let query = queries::MODULES.into();
        self.inspected.store.within(&self.id, query).await.map(drop).map_err(|failure| Failed::from(&failure))
    }

    /// The document's version, if it is at this step.
    async fn read(&self, step: u8) -> Result<String, Failed> {
        let container = &self.inspected.store.container;
        let read = async || container.read_item(self.id.clone(), &self.id, None).await;
        let response = self.inspected.with_retries("read_item", read).await;
        let response = response.map_err(|failure| Failed::from(&failure))?;
        let odd = |what: &str| Failed { code: "COSMOS_UNAVAILABLE", message: format!("read_item: {what}") };
        let etag = response.headers().etag().map(ToString::to_string).ok_or_else(|| odd("no ETag"))?;
        let body: Value = response.into_model().map_err(|_| odd("the answer is not a document"))?;
        match body.pointer("/twinsyncCheck/step").and_then(Value::as_u64) {
            Some(found) if found == u64::from(step) => Ok(etag),
            _ => Err(odd("the document is not the one that was written")),
        }
    }

    async fn replace(&self, step: u8, etag: &str) -> Result<Write, Failed> {
        let container = &self.inspected.store.container;
        let body = &self.body(step);
        let replace = async || {
            let options = ItemWriteOptions::default().with_precondition(Precondition::if_match(etag));
            container.replace_item(self.id.clone(), &self.id, body, Some(options)).await
        };
        let result = self.inspected.with_retries("replace_item", replace).await;
        match result {
            Err(failure) if failure.meaning() == Meaning::Nothing => Err(Failed::from(&failure)),
            other => Ok(finish_write(other, Writes::Something).outcome),
        }
    }

    async fn remove(&self) -> Result<(), Failed> {
        let container = &self.inspected.store.container;
        let mut absent = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let delete = async || container.delete_item(self.id.clone(), &self.id, None).await;
            let result = self.inspected.with_retries("delete_item", delete).await;
            let failure: Failure = match result {
                Ok(_) => return Ok(()),
                // It does not exist, and still does not exist a moment later.
                Err(failure) if failure.meaning() == Meaning::Missing && absent => return Ok(()),
                Err(failure) => failure,
            };
            absent = failure.meaning() == Meaning::Missing;
            if tries >= REMOVALS && !absent {
                return Err(Failed::from(&failure));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
