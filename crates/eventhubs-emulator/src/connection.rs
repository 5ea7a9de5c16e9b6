//! The listener and the connections that it accepts.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fe2o3_amqp::acceptor::{
    ConnectionAcceptor, ListenerConnectionHandle, SaslAcceptor, SessionAcceptor,
    sasl_acceptor::SaslServerFrame,
};
use fe2o3_amqp_types::{
    primitives::{Array, Symbol},
    sasl::{SaslCode, SaslInit, SaslOutcome, SaslResponse},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{context::SessionContext, namespace::Namespace, stream::CutStream};

const CONTAINER_ID: &str = "devkit";
const MAXIMUM_FRAME_BYTES: u32 = 65_536;
/// The Rust client opens one session per token.
const MAXIMUM_CHANNEL: u16 = 5_000;
/// Maximum number of transfers in flight per session and direction.
const SESSION_WINDOW: u32 = 50_000;
/// Time limit for SASL and the open frames of both sides.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait before the next attempt after the system could not accept a connection, for example because file
/// descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`.
pub(super) async fn listen(
    listener: TcpListener,
    namespace: Arc<Namespace>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((_stream, _peer)) if namespace.switches.refuses_connections() => {}
            Ok((stream, _peer)) => {
                let connection = Connection {
                    namespace: Arc::clone(&namespace),
                    tasks: tasks.clone(),
                    cut: namespace.switches.connection_token(),
                };
                tasks.spawn(connection.serve(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "the broker could not accept a connection and tries again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    namespace: Arc<Namespace>,
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let switches = &self.namespace.switches;
        switches.accepted.fetch_add(1, Ordering::AcqRel);
        if let Some(mut connection) = self.open(stream).await {
            self.accept_sessions(&mut connection).await;
        }
        switches.closed.fetch_add(1, Ordering::AcqRel);
    }

    async fn open(&self, stream: TcpStream) -> Option<ListenerConnectionHandle> {
        // Without `TCP_NODELAY`, credit flow waits for delayed acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection has no TCP_NODELAY");
        }
        let acceptor = ConnectionAcceptor::builder()
            .container_id(CONTAINER_ID)
            .max_frame_size(MAXIMUM_FRAME_BYTES)
            .channel_max(MAXIMUM_CHANNEL)
            .sasl_acceptor(AnyIdentity)
            .build();
        let opening = acceptor.accept(CutStream::new(stream, self.cut.clone()));
        match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok(connection)) => Some(connection),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection did not open");
                None
            }
            Err(_elapsed) => {
                tracing::debug!("a connection did not open in time");
                None
            }
        }
    }

    async fn accept_sessions(&self, connection: &mut ListenerConnectionHandle) {
        let acceptor = SessionAcceptor::builder()
            .incoming_window(SESSION_WINDOW)
            .outgoing_window(SESSION_WINDOW)
            .build();
        let context = SessionContext {
            namespace: Arc::clone(&self.namespace),
            tasks: self.tasks.clone(),
            authorization: Arc::default(),
        };
        while let Some(incoming) = connection.next_incoming_session().await {
            match acceptor.accept_incoming_session(incoming, connection).await {
                Ok(session) => {
                    self.tasks.spawn(context.clone().serve(session));
                }
                Err(error) => tracing::debug!(%error, "a session did not begin"),
            }
        }
        if let Err(error) = connection.on_close().await {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

/// Accepts every client. As in Event Hubs, authorization follows on the open connection, with tokens on
/// `$cbs`.
#[derive(Debug, Clone)]
struct AnyIdentity;

impl SaslAcceptor for AnyIdentity {
    fn mechanisms(&self) -> Array<Symbol> {
        Array(["MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL"].map(Symbol::from).to_vec())
    }

    fn on_init(&mut self, _init: SaslInit) -> SaslServerFrame {
        outcome(SaslCode::Ok)
    }

    fn on_response(&mut self, _response: SaslResponse) -> SaslServerFrame {
        outcome(SaslCode::Sys)
    }
}

fn outcome(code: SaslCode) -> SaslServerFrame {
    SaslServerFrame::Outcome(SaslOutcome { code, additional_data: None })
}
