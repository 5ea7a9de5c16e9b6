//! [`TwinSelection`] on Cosmos DB.
//!
//! A query over all partitions reads the physical partitions one after another, and with each page the SDK returns a
//! token to continue (azure_data_cosmos 1.0: `QueryPageIterator::to_continuation_token`). Each page here is a separate
//! query that begins where the last one ended, so no state is kept between two pages.

use std::num::NonZeroU32;

use async_trait::async_trait;
use azure_data_cosmos::{
    FeedScope, Query,
    feed::ContinuationToken,
    options::{MaxItemCountHint, QueryOptions},
};
use futures::TryStreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    CosmosStore, Failure, SCAN_PAGE,
    answer::{Answer, Meaning},
    queries,
};
use crate::{
    domain::{document::Item, id::TwinKey},
    ports::{
        Charged, Cursor, Documents, Filter, SelectError, Selected, StoreError, StoreErrorKind, TwinSelection,
    },
};

impl CosmosStore {
    /// A page of a query's rows, and where the next page begins.
    async fn rows<T: DeserializeOwned + Send + 'static>(
        &self,
        query: azure_data_cosmos::Result<Query>,
        from: Option<&Cursor>,
        most: NonZeroU32,
    ) -> Charged<Result<Selected<Vec<T>>, SelectError>> {
        let ask = Box::pin(async {
            let mut options = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(most));
            if let Some(Cursor(token)) = from {
                options = options.with_continuation_token(ContinuationToken::from_string(token.clone()));
            }
            let everywhere = FeedScope::full_container();
            let feed = self.container.query_items::<T>(query?, everywhere, Some(options)).await?;
            let mut pages = feed.into_pages();
            let Some(page) = pages.try_next().await? else {
                return Ok((Vec::new(), 0.0, None));
            };
            let charge = page.headers().request_charge().map_or(0.0, |charge| charge.value());
            // The last page also has a token, which leads to an empty page. So a missing token would mean that rows are
            // silently lost.
            let next = pages.to_continuation_token()?;
            Ok((page.into_items(), charge, Some(next)))
        });
        match self.limited("query_items", ask).await {
            Ok((content, request_units, next)) => {
                let next = next.map(|token| Cursor(token.as_str().to_owned()));
                Charged { outcome: Ok(Selected { content, next }), request_units }
            }
            Err(failure) => {
                let request_units = failure.charge();
                Charged { outcome: Err(refusal(&failure, from.is_some())), request_units }
            }
        }
    }
}

/// Why there is no page. If the first page of a query was accepted and a later one is refused, its start is wrong.
pub(super) fn refusal(failure: &Failure, is_continued: bool) -> SelectError {
    match (failure.meaning(), is_continued) {
        (Meaning::Refused | Meaning::TooLarge, true) => SelectError::Position,
        (_, true) if is_the_sdks_own(failure) => SelectError::Position,
        (Meaning::Refused | Meaning::TooLarge, false) => SelectError::Refused(failure.to_string()),
        (Meaning::Missing | Meaning::Conflict | Meaning::Nothing, _) => {
            SelectError::StoreError(failure.trouble())
        }
    }
}

/// Whether the SDK itself refuses the token (azure_data_cosmos_driver 1.0, `models/continuation_token.rs`): with 400,
/// or with 500 and the substatus 20020 if it cannot read the token's content.
fn is_the_sdks_own(failure: &Failure) -> bool {
    let Failure::Answered(_, error) = failure else {
        return false;
    };
    let Answer { status, substatus, from_wire, .. } = Answer::of(error);
    !from_wire && matches!((status, substatus), (400, _) | (500, 20020))
}

/// Sorts the items of a page into readable and damaged ones. A document that only a newer release can read is an error:
/// without it, the page would be wrong.
fn documents(items: Vec<Value>) -> Result<Documents, StoreError> {
    let mut found = Documents::default();
    for item in items {
        let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
        let id = text("id").unwrap_or_default();
        let (Some(hub), Some(device)) = (text("hubName"), text("deviceId")) else {
            found.damaged.push(format!("`{id}` has no hubName or deviceId"));
            continue;
        };
        let key = TwinKey { hub: hub.into(), device, module: text("moduleId") };
        match Item::of(item, &key) {
            Item::Document(document) => found.readable.push(*document),
            Item::Damaged(reason) | Item::Foreign(reason) => found.damaged.push(format!("`{id}`: {reason}")),
            Item::Newer(format) => {
                let message = format!(
                    "the document `{id}` has format {format}, which a newer release has written: update this replica (DOCUMENT_NEWER)"
                );
                let (kind, code) = (StoreErrorKind::Newer, "DOCUMENT_NEWER");
                return Err(StoreError { kind, code, retry_after: None, message });
            }
        }
    }
    Ok(found)
}

#[async_trait]
impl TwinSelection for CosmosStore {
    async fn select(
        &self,
        filter: &Filter,
        from: Option<&Cursor>,
        most: NonZeroU32,
    ) -> Charged<Result<Selected<Documents>, SelectError>> {
        let Charged { outcome, request_units } = self.rows(queries::selection("*", filter), from, most).await;
        let outcome = outcome.and_then(|Selected { content, next }| {
            let content = documents(content).map_err(SelectError::StoreError)?;
            Ok(Selected { content, next })
        });
        Charged { outcome, request_units }
    }

    async fn count(
        &self,
        filter: &Filter,
        from: Option<&Cursor>,
    ) -> Charged<Result<Selected<u64>, SelectError>> {
        // The driver does not support aggregates over partitions (azure_data_cosmos_driver 1.0, planner). So each page
        // has a very small row for each document, and the rows are counted here.
        let counted = self.rows::<Value>(queries::selection("VALUE 1", filter), from, SCAN_PAGE).await;
        let outcome = counted
            .outcome
            .map(|Selected { content, next }| Selected { content: content.len() as u64, next });
        Charged { outcome, request_units: counted.request_units }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_document_is_told_and_what_is_too_new_ends_the_page() {
        let live = json!({
            "id": "a", "hubName": "h", "deviceId": "a", "version": 1, "tags": {}, "properties": {"desired": {}, "reported": {}},
            "sync": {"state": "live", "last": "2031-01-01T00:00:00.0000000Z", "appliedAt": "2031-01-01T00:00:01.0000000Z", "op": "updateTwin"},
        });
        let damaged = json!({"id": "b", "hubName": "h", "deviceId": "b", "sync": {"state": "live"}});
        let found = documents(vec![live.clone(), damaged, json!({"id": "c"}), json!(7)]).expect("readable");
        assert_eq!(found.readable.len(), 1);
        let [damaged, nameless, nothing] = &found.damaged[..] else { panic!("{:?}", found.damaged) };
        assert!(damaged.starts_with("`b`: ") && nameless.starts_with("`c` has no hubName"), "{found:?}");
        assert!(nothing.contains("has no hubName"), "{nothing}");
        let mut newer = live;
        newer["sync"]["format"] = json!(99);
        let trouble = documents(vec![newer]).expect_err("a document of a newer release");
        assert_eq!((trouble.kind, trouble.code), (StoreErrorKind::Newer, "DOCUMENT_NEWER"));
    }
}
