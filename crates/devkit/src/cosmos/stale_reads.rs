//! Stale reads: the result of reading from a replica that has not received the newest writes yet.
//!
//! For some time after each write, a read of the document returns the state before it. The exception is a client that shows that it knows
//! of the write, by a session token that covers it. This only counts if the read requests Session consistency, or if that is the account's
//! consistency. Queries are not stale.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::HeaderMap;

use super::{
    authorization::percent_decode,
    headers::{Place, STRATEGY, places},
    reply::Reply,
};

/// The states before each of the last writes, by the document's path.
#[derive(Debug, Default)]
pub(super) struct StaleReads(Mutex<HashMap<String, Vec<Before>>>);

/// The state before a write.
#[derive(Debug)]
struct Before {
    /// Until this time, reads may return it.
    until: Instant,
    /// The write's position in its physical partition.
    written: Place,
    reply: Reply,
}

impl StaleReads {
    /// Records a write that was answered with `written`. `before` is the answer to a read before it.
    pub(super) fn wrote(&self, path: &str, before: Reply, written: &Reply, time: Duration) {
        let Some(place) = places(&written.headers).into_iter().next() else {
            return;
        };
        let now = Instant::now();
        let mut writes = self.lock();
        // Clients may escape more characters than necessary.
        let of_document = writes.entry(percent_decode(path)).or_default();
        of_document.retain(|before| before.until > now);
        of_document.push(Before { until: now + time, written: place, reply: before });
    }

    /// The stale answer to a read of `path`. `None`: the read sees the present state.
    pub(super) fn answer(&self, path: &str, headers: &HeaderMap, account_is_session: bool) -> Option<Reply> {
        let strategy = headers.get(STRATEGY).and_then(|strategy| strategy.to_str().ok());
        let is_session = match strategy {
            Some("LatestCommitted" | "GlobalStrong") => return None,
            Some(strategy) => strategy == "Session",
            None => account_is_session,
        };
        let known = if is_session { places(headers) } else { Vec::new() };
        let now = Instant::now();
        let writes = self.lock();
        let unseen =
            |before: &&Before| before.until > now && !known.iter().any(|place| place.covers(before.written));
        writes.get(&percent_decode(path))?.iter().find(unseen).map(|before| before.reply.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Before>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Bytes,
        http::{HeaderValue, StatusCode},
    };

    use super::*;
    use crate::cosmos::headers::SESSION_TOKEN;

    const LONG: Duration = Duration::from_secs(60);

    fn reply(body: &'static str, token: &'static str) -> Reply {
        let headers =
            HeaderMap::from_iter([(SESSION_TOKEN.parse().unwrap(), HeaderValue::from_static(token))]);
        Reply {
            status: StatusCode::OK,
            headers,
            body: Bytes::from_static(body.as_bytes()),
            request_units: 1.0,
            is_scan: false,
        }
    }

    fn asking(headers: &[(&str, &'static str)]) -> HeaderMap {
        let parsed =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        parsed.collect()
    }

    fn seen(
        behind: &StaleReads,
        headers: &[(&str, &'static str)],
        account_is_session: bool,
    ) -> Option<Bytes> {
        behind.answer("/d", &asking(headers), account_is_session).map(|reply| reply.body)
    }

    #[test]
    fn a_read_sees_what_was_there_before_the_first_write_that_it_does_not_know_of() {
        let behind = StaleReads::default();
        behind.wrote("/d", reply("nothing", "3:1#10#0=10"), &reply("", "3:1#11#0=11"), LONG);
        behind.wrote("/d", reply("one", "3:1#11#0=11"), &reply("", "3:1#12#0=12"), LONG);
        assert_eq!(seen(&behind, &[], true).as_deref(), Some(&b"nothing"[..]));
        let token = |token| [(SESSION_TOKEN, token)];
        assert_eq!(seen(&behind, &token("3:1#11#0=11"), true).as_deref(), Some(&b"one"[..]));
        assert_eq!(seen(&behind, &token("0:1#99#0=99,3:1#12#0=12"), true), None);
        assert_eq!(seen(&behind, &token("0:1#99#0=99"), true).as_deref(), Some(&b"nothing"[..]));
        assert!(behind.answer("/other", &HeaderMap::new(), true).is_none());
    }

    #[test]
    fn a_token_counts_where_session_is_meant_only() {
        let behind = StaleReads::default();
        behind.wrote("/d", reply("nothing", "3:1#10#0=10"), &reply("", "3:1#11#0=11"), LONG);
        let knows = (SESSION_TOKEN, "3:1#11#0=11");
        assert!(seen(&behind, &[knows], false).is_some(), "the account is not Session");
        assert!(seen(&behind, &[knows, (STRATEGY, "Session")], false).is_none(), "but this read is");
        assert!(seen(&behind, &[knows, (STRATEGY, "Eventual")], true).is_some());
        assert!(seen(&behind, &[(STRATEGY, "LatestCommitted")], false).is_none());
    }

    #[test]
    fn it_is_over_after_its_time() {
        let behind = StaleReads::default();
        behind.wrote("/d", reply("nothing", "3:1#10#0=10"), &reply("", "3:1#11#0=11"), Duration::ZERO);
        assert!(seen(&behind, &[], true).is_none());
    }
}
