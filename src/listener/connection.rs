//! Keeps track of the open connections, and chooses which one is closed in favour of a new one.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::Request;
use hyper::service::Service;
use tokio::task::AbortHandle;

/// What requests know about their connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Address of the client.
    pub peer: SocketAddr,
    /// Whether a request with its own place is in progress on it. If so, the connection is not closed in favour of another.
    pub kept: Arc<AtomicBool>,
}

impl Connection {
    /// Wraps a service, so that its requests carry this value.
    pub(super) fn attached_to<S>(&self, service: S) -> Attached<S> {
        Attached { service, connection: self.clone() }
    }
}

/// A service of one connection.
#[derive(Debug)]
pub(super) struct Attached<S> {
    service: S,
    connection: Connection,
}

impl<B, S: Service<Request<B>>> Service<Request<B>> for Attached<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.connection.clone());
        self.service.call(request)
    }
}

struct Open {
    number: u64,
    connection: Connection,
    task: AbortHandle,
}

/// All connections, oldest first.
pub(super) struct Connections {
    open: VecDeque<Open>,
    next: u64,
    most: usize,
}

impl Connections {
    /// Creates an empty list with `most` places, not counting connections that are kept.
    pub(super) const fn new(most: usize) -> Self {
        Self { open: VecDeque::new(), next: 0, most }
    }

    /// Assigns a number to the next connection.
    pub(super) fn next(&mut self, peer: SocketAddr) -> (u64, Connection) {
        self.next += 1;
        (self.next, Connection { peer, kept: Arc::default() })
    }

    /// Records that `task` serves the connection.
    pub(super) fn began(&mut self, number: u64, connection: Connection, task: AbortHandle) {
        self.open.push_back(Open { number, connection, task });
    }

    /// Records that the connection has ended.
    pub(super) fn ended(&mut self, number: u64) {
        self.open.retain(|open| open.number != number);
    }

    /// Whether all places are taken.
    pub(super) fn is_full(&self) -> bool {
        self.open.iter().filter(|open| !open.is_kept()).count() >= self.most
    }

    /// Closes the oldest connection that is not kept, if all places are taken.
    pub(super) fn make_room(&mut self) {
        if self.is_full()
            && let Some(place) = self.open.iter().position(|open| !open.is_kept())
            && let Some(oldest) = self.open.remove(place)
        {
            oldest.task.abort();
        }
    }
}

impl Open {
    fn is_kept(&self) -> bool {
        self.connection.kept.load(Ordering::Acquire)
    }
}
