//! [`TwinChanges`] on Cosmos DB's change feed.
//!
//! Facts (learn: cosmos-db/change-feed; azure_data_cosmos 1.0, `feed/change_feed_iterator.rs` and
//! `driver/dataflow/unordered_merge.rs`): the feed of latest versions contains every document that was created or
//! replaced, at the position of its last change. It begins with the oldest existing change and has no retention limit.
//! Deleted documents, also those that expired, are not in it. The SDK reads the physical partitions in turn, page by
//! page, and returns an empty page for a partition without more changes at present. Whenever the feed is opened, it
//! begins with the first partition, so a reader that opens it for each page would never reach the second.

use std::num::NonZeroU32;

use azure_data_cosmos::{
    FeedScope,
    feed::{ChangeFeedPageIterator, ContinuationToken},
    models::ChangeFeedItem,
    options::{ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint},
};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use serde_json::Value;

use super::{CosmosStore, Failure, selection::refusal};
use crate::{
    domain::{document::Item, id::TwinKey, query::TwinPlace},
    ports::{Change, Changed, Charged, Cursor, SelectError, TwinChanges},
};

type Pages = ChangeFeedPageIterator<ChangeFeedItem<Value>>;

/// The position of a reader.
enum Reading {
    Begin(Option<Cursor>),
    At {
        pages: Box<Pages>,
        is_continued: bool,
        /// Number of consecutive physical partitions without more changes.
        empty: usize,
    },
    End,
}

impl CosmosStore {
    async fn open_changes(&self, cursor: Option<&Cursor>, most: NonZeroU32) -> Result<Pages, Failure> {
        let mut options = ChangeFeedOptions::default().with_max_item_count(MaxItemCountHint::Limit(most));
        if let Some(Cursor(token)) = cursor {
            options = options.with_continuation_token(ContinuationToken::from_string(token.clone()));
        }
        let (everywhere, start) = (FeedScope::full_container(), ChangeFeedStartFrom::Beginning);
        let feed = self.container.query_change_feed::<Value>(everywhere, start, Some(options));
        self.limited("query_change_feed", Box::pin(feed)).await
    }

    /// The number of physical partitions. The SDK knows it, and sends a request only if it does not.
    async fn physical_partitions(&self) -> Result<usize, Failure> {
        let ranges = self.container.read_feed_ranges(None);
        Ok(self.limited("read_feed_ranges", Box::pin(ranges)).await?.len())
    }

    /// The next page, and the position of the reader after it; `None` if there are no more changes.
    async fn next_changes(
        &self,
        reading: Reading,
        most: NonZeroU32,
    ) -> Option<(Charged<Result<Changed, SelectError>>, Reading)> {
        let (mut pages, is_continued, empty) = match reading {
            Reading::End => return None,
            Reading::At { pages, is_continued, empty } => (pages, is_continued, empty),
            Reading::Begin(cursor) => match self.open_changes(cursor.as_ref(), most).await {
                Ok(pages) => (Box::new(pages), cursor.is_some(), 0),
                Err(failure) => return Some((failed(&failure, cursor.is_some()), Reading::End)),
            },
        };
        // Read again each time, because a partition may have been split.
        let partitions = match self.physical_partitions().await {
            Ok(partitions) => partitions,
            Err(failure) => return Some((failed(&failure, false), Reading::End)),
        };
        if empty >= partitions {
            return None;
        }
        let page = self.limited("query_change_feed", Box::pin(pages.try_next())).await;
        let (page, next) = match page.and_then(|page| {
            let next = pages.to_continuation_token();
            Ok((page, next.map_err(|error| Failure::Answered("query_change_feed", error))?))
        }) {
            Ok((Some(page), next)) => (page, Cursor(next.as_str().to_owned())),
            // The SDK's feed never ends.
            Ok((None, _)) => return None,
            Err(failure) => return Some((failed(&failure, is_continued), Reading::End)),
        };
        let request_units = page.headers().request_charge().map_or(0.0, |charge| charge.value());
        let items = page.into_items();
        let empty = if items.is_empty() { empty + 1 } else { 0 };
        let outcome = Ok(Changed { changes: items.into_iter().filter_map(change).collect(), next });
        Some((Charged { outcome, request_units }, Reading::At { pages, is_continued, empty }))
    }
}

fn failed<T>(failure: &Failure, is_continued: bool) -> Charged<Result<T, SelectError>> {
    Charged { outcome: Err(refusal(failure, is_continued)), request_units: failure.charge() }
}

/// The content of a change. A change without a document would be a deletion; this feed has none.
fn change(item: ChangeFeedItem<Value>) -> Option<Change> {
    let item = item.current()?.clone();
    let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
    let id = text("id").unwrap_or_default();
    let (hub, device, module) = (text("hubName"), text("deviceId"), text("moduleId"));
    let place = TwinPlace::of(device.as_deref().unwrap_or_default(), &id);
    let (Some(hub), Some(device)) = (hub, device) else { return Some(Change { place, document: None }) };
    let key = TwinKey { hub: hub.into(), device, module };
    let document = match Item::of(item, &key) {
        Item::Document(document) => Some(document),
        Item::Foreign(_) | Item::Newer(_) | Item::Damaged(_) => None,
    };
    Some(Change { place, document })
}

impl TwinChanges for CosmosStore {
    fn changes(
        &self,
        cursor: Option<&Cursor>,
        most: NonZeroU32,
    ) -> BoxStream<'_, Charged<Result<Changed, SelectError>>> {
        let begin = Reading::Begin(cursor.cloned());
        stream::unfold(begin, move |reading| self.next_changes(reading, most)).boxed()
    }
}
