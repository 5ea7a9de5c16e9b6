//! The socket of the API: accepts connections, answers requests, and stops.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{Request, Response, StatusCode},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    Counters, FaultError, FaultKind, Faults, Quota, QuotaError, answer::Answer, authorization::Access,
    call::Call, counters::Counting, faults::Injector, kind::Kind, throttle::Throttle,
};
use crate::Service;

/// How long running requests may take when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Much larger than the largest twin and the longest query.
const LARGEST_BODY_BYTES: usize = 1024 * 1024;

/// Options of the API.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to bind. With port 0, the system chooses a free port.
    pub listen: SocketAddr,
    /// The hub's host name, for which signatures are made.
    pub host_name: String,
    /// The name of the shared access policy.
    pub policy: String,
    /// The policy's key in base64.
    pub key: String,
    /// The only bearer token that is accepted. `None` accepts every token.
    pub token: Option<String>,
    /// The limits of requests. `None`: no limits.
    pub quota: Option<Quota>,
}

/// Why the API could not start or change its settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address} for iot hub's service api")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Reason given by the system.
        #[source]
        source: std::io::Error,
    },
    /// The policy's key is not base64.
    #[error("the shared access key is not base64")]
    Key(#[source] base64::DecodeError),
    /// A fault is invalid.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// A quota does not exist.
    #[error(transparent)]
    Quota(#[from] QuotaError),
}

/// The service REST API of a hub.
pub struct Server {
    address: SocketAddr,
    registry: Arc<Registry>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Registry {
    hub: Arc<Service>,
    access: Access,
    injector: Injector,
    throttle: Mutex<Throttle>,
    counting: Counting,
    stop: CancellationToken,
}

/// Tells hyper to close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was closed by a fault")]
struct Dropped;

impl Server {
    /// Binds the address and serves `hub`.
    ///
    /// # Errors
    /// The address cannot be bound, or an option is invalid.
    pub async fn start(options: Options, hub: Arc<Service>) -> Result<Self, Error> {
        if let Some(quota) = options.quota {
            quota.validate()?;
        }
        let access = Access {
            host_name: options.host_name,
            policy: options.policy,
            key: STANDARD.decode(options.key).map_err(Error::Key)?,
            token: options.token,
        };
        let bind = |source| Error::Bind { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let registry = Arc::new(Registry {
            hub,
            access,
            injector: Injector::new(),
            throttle: Mutex::new(Throttle::new(options.quota)),
            counting: Counting::default(),
            stop: CancellationToken::new(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&registry)));
        Ok(Self { address, registry, accepting: Mutex::new(Some(accepting)) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The counters since the start or the last reset.
    pub fn counters(&self) -> Counters {
        self.registry.counting.snapshot()
    }

    /// Resets the counters to zero.
    pub fn reset_counters(&self) {
        self.registry.counting.reset();
    }

    /// The active faults, with their remaining counts.
    pub fn faults(&self) -> Faults {
        self.registry.injector.get()
    }

    /// Replaces all faults. The default removes them all. Requests that already hang continue to hang. Queries of an earlier state need the
    /// hub's history: if it is off, this switches it on, and it stays on.
    ///
    /// # Errors
    /// A setting is invalid. In that case, nothing changes.
    pub fn set_faults(&self, faults: Faults) -> Result<(), Error> {
        faults.validate()?;
        if faults.stale_by_ms > 0 {
            self.registry.hub.need_history();
        }
        self.registry.injector.set(faults, Instant::now());
        Ok(())
    }

    /// The limits of requests.
    pub fn quota(&self) -> Option<Quota> {
        self.registry.throttle().quota()
    }

    /// Sets the limits of requests, with full token buckets. `None` removes the limits.
    ///
    /// # Errors
    /// The quota does not exist. In that case, nothing changes.
    pub fn set_quota(&self, quota: Option<Quota>) -> Result<(), Error> {
        if let Some(quota) = quota {
            quota.validate()?;
        }
        *self.registry.throttle() = Throttle::new(quota);
        Ok(())
    }

    /// Stops the server. Running requests get one second to finish. Requests that hang are ended at once.
    pub async fn stop(&self) {
        self.registry.stop.cancel();
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(accepting) = accepting {
            // If the task panicked, nothing is left to stop.
            let _ = accepting.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.registry.stop.cancel();
    }
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = registry.stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&registry)));
                }
                Err(error) => {
                    // The next attempt may find a free file descriptor.
                    tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // Dropping the set aborts the connections that have not ended in time.
    let _ = tokio::time::timeout(STOP_GRACE, all).await;
}

async fn serve(stream: TcpStream, registry: Arc<Registry>) {
    // Without `TCP_NODELAY`, every small answer waits for the peer's delayed acknowledgement. If the option cannot be set, the connection
    // still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| registry.handle(request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client that disconnects and an injected fault both end the connection with an error. These errors are expected.
    tokio::select! {
        biased;
        () = registry.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
        _ = connection.as_mut() => {}
    }
}

impl Registry {
    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
        let (parts, body) = request.into_parts();
        let call = Call::of(&parts.method, parts.uri.path(), parts.uri.query());
        let kind = call.kind();
        let verdict = self.injector.decide(kind, Instant::now());
        if !verdict.delay.is_zero() {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Dropped),
                () = tokio::time::sleep(verdict.delay) => {}
            }
        }
        match verdict.trouble {
            Some(FaultKind::Hang) => {
                self.counting.record(kind.name(), "hang");
                self.stop.cancelled().await;
                return Err(Dropped);
            }
            Some(FaultKind::Drop) => {
                self.counting.record(kind.name(), "drop");
                return Err(Dropped);
            }
            Some(FaultKind::Answer { status, retry_after_seconds }) => {
                let answer = Answer::fault(status);
                let answer = match retry_after_seconds {
                    Some(seconds) => answer.with("retry-after", seconds.to_string()),
                    None => answer,
                };
                return Ok(self.answer(kind, &answer));
            }
            Some(FaultKind::Truncate | FaultKind::Delay { .. }) | None => {}
        }
        let answer = match self.admit(&call, &parts.headers) {
            Err(refusal) => refusal,
            Ok(()) => match to_bytes(Body::new(body), LARGEST_BODY_BYTES).await {
                Ok(body) => call.perform(&self.hub, &self.injector, &parts.headers, &body).await,
                Err(_) => Answer::problem(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "MessageTooLarge",
                    "the body is too large or broke off",
                ),
            },
        };
        if verdict.trouble == Some(FaultKind::Truncate) {
            self.counting.record(kind.name(), "truncate");
            return Ok(self.truncated(&answer));
        }
        Ok(self.answer(kind, &answer))
    }

    /// Checks whether the request may be performed. Otherwise, returns the answer.
    fn admit(&self, call: &Call, headers: &axum::http::HeaderMap) -> Result<(), Answer> {
        let now = self.hub.now().unix_milliseconds().div_euclid(1_000);
        self.access.verify(headers, now).map_err(|refusal| {
            Answer::problem(StatusCode::UNAUTHORIZED, "IotHubUnauthorizedAccess", &refusal.to_string())
        })?;
        if let Some(refusal) = call.refusal() {
            return Err(refusal);
        }
        self.throttle().take(call.kind(), Instant::now()).map_err(|wait| {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Answer::fault(429).with("retry-after", seconds.max(1).to_string())
        })
    }

    fn answer(&self, kind: Kind, answer: &Answer) -> Response<Body> {
        self.counting.record(kind.name(), answer.status.as_str());
        let (response, body) = answer.response(self.hub.now());
        response.map(|_| Body::from(body))
    }

    /// Announces the complete body, and ends the connection in the middle of it.
    fn truncated(&self, answer: &Answer) -> Response<Body> {
        let (response, mut body) = answer.response(self.hub.now());
        body.truncate(body.len() / 2);
        let half = futures::stream::iter([Ok(Bytes::from(body))]);
        let end = futures::stream::once(async {
            // Yields once, so that the connection sends the first half before the error.
            tokio::task::yield_now().await;
            Err(Dropped)
        });
        response.map(|_| Body::from_stream(half.chain(end)))
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
