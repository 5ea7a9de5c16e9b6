//! The network between a client and a service, for faults that neither of them can show: a TCP proxy on loopback whose
//! connections can be frozen. Both ends then keep their sockets, and no byte passes; no error tells either of them.
//!
//! It knows nothing of what it carries. Everything ends when it is dropped.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Bytes taken at once. Small: what was taken before a freeze is on its way no more, and no less.
const BUFFER_BYTES: usize = 16 * 1024;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    _stop: DropGuard,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Nothing passes on any connection.
    frozen: bool,
    /// Connections with a lower number never pass anything again.
    abandoned_below: u64,
    /// The next connection's number.
    next: u64,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `target`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((target.ip(), 0)).await?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let state = Arc::new(watch::Sender::new(State::default()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(listen(
            listener,
            target,
            Arc::clone(&state),
            stop.clone(),
        )));
        Ok(Self { address, state, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on nothing passes; connections are still taken. Until [`Self::thaw`].
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.frozen = true);
    }

    /// Everything that waited goes on.
    pub fn thaw(&self) {
        self.state.send_modify(|state| state.frozen = false);
    }

    /// Freezes the connections that exist for good, as the death of a host on the way does; new ones work. Returns how
    /// many connections there ever were.
    pub fn abandon_connections(&self) -> u64 {
        self.state.send_modify(|state| state.abandoned_below = state.next);
        self.connections()
    }

    /// Connections that were ever taken.
    pub fn connections(&self) -> u64 {
        self.state.borrow().next
    }
}

async fn listen(
    listener: TcpListener,
    target: SocketAddr,
    state: Arc<watch::Sender<State>>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        match listener.accept().await {
            Ok((client, _peer)) => {
                let mut number = 0;
                state.send_modify(|state| {
                    number = state.next;
                    state.next += 1;
                });
                let gate = Gate { number, state: state.subscribe() };
                connections.spawn(stop.clone().run_until_cancelled_owned(carry(client, target, gate)));
            }
            Err(error) => {
                tracing::warn!(%error, "the proxy could not take a connection and tries again");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Whether bytes of one connection pass.
#[derive(Clone)]
struct Gate {
    number: u64,
    state: watch::Receiver<State>,
}

impl Gate {
    /// Waits until bytes pass; for ever, once the connection is abandoned.
    async fn open(&mut self) {
        let number = self.number;
        let passes = |state: &State| !state.frozen && number >= state.abandoned_below;
        if self.state.wait_for(passes).await.is_err() {
            // The proxy is gone, and with it this task.
            std::future::pending::<()>().await;
        }
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut gate: Gate) {
    gate.open().await;
    let carried = async {
        let service = TcpStream::connect(target).await?;
        // It should add no delays of its own.
        client.set_nodelay(true)?;
        service.set_nodelay(true)?;
        let ((from_client, to_client), (from_service, to_service)) =
            (client.into_split(), service.into_split());
        tokio::try_join!(copy(from_client, to_service, gate.clone()), copy(from_service, to_client, gate))
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, "a connection through the proxy broke");
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: Gate) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        gate.open().await;
        let length = from.read(&mut buffer).await?;
        // It may have been frozen while nothing came.
        gate.open().await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A service that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn exchange(client: &mut TcpStream) -> io::Result<u8> {
        client.write_u8(7).await?;
        client.read_u8().await
    }

    #[tokio::test]
    async fn a_frozen_connection_is_silent_and_goes_on_where_it_stood() {
        let proxy = Proxy::start(echo().await).await.expect("starts");
        let mut client = TcpStream::connect(proxy.address()).await.expect("connects");
        assert_eq!(exchange(&mut client).await.expect("echoed"), 7);
        proxy.freeze();
        client.write_u8(8).await.expect("the socket is open");
        // An absence can only be observed over a time.
        tokio::time::timeout(Duration::from_millis(200), client.read_u8()).await.expect_err("silence");
        proxy.thaw();
        let late = tokio::time::timeout(LIMIT, client.read_u8()).await.expect("in time");
        assert_eq!(late.expect("echoed"), 8);
    }

    #[tokio::test]
    async fn an_abandoned_connection_stays_open_and_silent_while_new_ones_work() {
        let proxy = Proxy::start(echo().await).await.expect("starts");
        let mut old = TcpStream::connect(proxy.address()).await.expect("connects");
        exchange(&mut old).await.expect("echoed");
        assert_eq!(proxy.abandon_connections(), 1);
        let mut new = TcpStream::connect(proxy.address()).await.expect("connects");
        assert_eq!(exchange(&mut new).await.expect("echoed"), 7);
        tokio::time::timeout(Duration::from_millis(200), exchange(&mut old)).await.expect_err("silence");
        drop(proxy);
        let gone = tokio::time::timeout(LIMIT, old.read_u8()).await.expect("in time");
        gone.expect_err("with the proxy, everything ends");
    }
}
