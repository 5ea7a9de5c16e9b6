//! Which connections are open, and which of them makes room for a new one.

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

/// What requests know of their connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who is at its other end.
    pub peer: SocketAddr,
    /// Whether a request on it is under way that has a place of its own: then it makes room for nobody.
    pub kept: Arc<AtomicBool>,
}

impl Connection {
    /// A service whose requests carry this.
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

/// All connections, the oldest first.
pub(super) struct Connections {
    open: VecDeque<Open>,
    next: u64,
    most: usize,
}

impl Connections {
    /// None; room for so many, beside those that are kept.
    pub(super) const fn new(most: usize) -> Self {
        Self { open: VecDeque::new(), next: 0, most }
    }

    /// A number for the next one.
    pub(super) fn next(&mut self, peer: SocketAddr) -> (u64, Connection) {
        self.next += 1;
        (self.next, Connection { peer, kept: Arc::default() })
    }

    /// It is served by `task`.
    pub(super) fn began(&mut self, number: u64, connection: Connection, task: AbortHandle) {
        self.open.push_back(Open { number, connection, task });
    }

    /// It is not there any more.
    pub(super) fn ended(&mut self, number: u64) {
        self.open.retain(|open| open.number != number);
    }

    /// Whether there is room for no more.
    pub(super) fn is_full(&self) -> bool {
        self.open.iter().filter(|open| !open.is_kept()).count() >= self.most
    }

    /// Ends the oldest one that is not kept, where there is room for no more.
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
