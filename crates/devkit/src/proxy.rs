//! The network between a client and a service, for faults that neither of them can produce: a TCP proxy on loopback
//! whose connections can be frozen. Both ends keep their sockets then, no bytes pass, and neither gets an error. The
//! proxy can also refuse connections, as if no service listened, delay bytes, and connect to another target.
//!
//! It does not interpret the bytes. All connections end when it is dropped.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Size of the buffer in bytes. It is small: bytes that were read before a freeze are held back as well.
const BUFFER_BYTES: usize = 16 * 1024;

/// Maximum number of connections that the system keeps before they are accepted.
const BACKLOG: u32 = 1024;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    _stop: DropGuard,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The target of connections. `None`: not known yet, and connections wait.
    target: Option<SocketAddr>,
    /// Whether all connections are frozen.
    frozen: bool,
    /// Whether connections are refused.
    refusing: bool,
    /// Delay between reading and writing of bytes.
    delay: Duration,
    /// Connections with a lower number are frozen for good.
    abandoned_below: u64,
    /// Connections with a lower number are closed.
    cut_below: u64,
    /// The number of the next connection.
    next: u64,
}

impl Proxy {
    /// Listens on a free port and connects to `target`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let proxy = Self::reserve(SocketAddr::new(target.ip(), 0)).await?;
        proxy.lead_to(target);
        Ok(proxy)
    }

    /// Listens on `address` for a service that does not exist yet. Connections wait for [`Self::lead_to`].
    ///
    /// # Errors
    /// The address is in use.
    pub async fn reserve(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let state = Arc::new(watch::Sender::new(State::default()));
        let listen = listen(listener, address, Arc::clone(&state), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(listen));
        Ok(Self { address, state, _stop: stop.drop_guard() })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the target of new connections. Existing connections are closed.
    pub fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|state| {
            state.target = Some(target);
            state.cut_below = state.next;
        });
    }

    /// Freezes all connections until [`Self::thaw`]. New connections are still accepted, and frozen as well.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.frozen = true);
    }

    /// Ends the freeze. The bytes that waited pass.
    pub fn thaw(&self) {
        self.state.send_modify(|state| state.frozen = false);
    }

    /// Refuses new connections until [`Self::admit`], as the system does if no process listens. Existing connections
    /// are closed.
    pub fn refuse(&self) {
        self.state.send_modify(|state| {
            state.refusing = true;
            state.cut_below = state.next;
        });
    }

    /// Listens again.
    pub fn admit(&self) {
        self.state.send_modify(|state| state.refusing = false);
    }

    /// Delays all bytes by this time, in both directions. Zero ends it.
    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Freezes the existing connections for good, as if a host on the way had failed. New connections work. Returns
    /// the number of connections ever accepted.
    pub fn abandon_connections(&self) -> u64 {
        self.state.send_modify(|state| state.abandoned_below = state.next);
        self.connections()
    }

    /// Number of connections ever accepted.
    pub fn connections(&self) -> u64 {
        self.state.borrow().next
    }
}

async fn listen(
    mut listener: TcpListener,
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let mut watched = state.subscribe();
    loop {
        tokio::select! {
            biased;
            gone = async { watched.wait_for(|state| state.refusing).await.is_err() } => {
                if gone {
                    return;
                }
                drop(listener);
                match closed(address, &mut watched).await {
                    Ok(again) => listener = again,
                    Err(error) => return tracing::error!(%error, "the proxy lost its port"),
                }
            }
            taken = listener.accept() => match taken {
                Ok((client, _peer)) => {
                    let mut number = 0;
                    state.send_modify(|state| {
                        number = state.next;
                        state.next += 1;
                    });
                    let gate = Gate { number, state: state.subscribe() };
                    connections.spawn(stop.clone().run_until_cancelled_owned(carry(client, gate)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the proxy could not accept a connection and tries again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// Holds the port without listening on it, for as long as connections have to be refused.
async fn closed(address: SocketAddr, watched: &mut watch::Receiver<State>) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    watched.wait_for(|state| !state.refusing).await.map_err(io::Error::other)?;
    socket.listen(BACKLOG)
}

/// Decides whether bytes of one connection pass.
#[derive(Clone)]
struct Gate {
    number: u64,
    state: watch::Receiver<State>,
}

impl Gate {
    /// Waits until bytes may pass. Returns the target. Never returns if the connection is abandoned.
    async fn open(&mut self) -> SocketAddr {
        let number = self.number;
        let passes = |state: &State| !state.frozen && number >= state.abandoned_below;
        loop {
            let Ok(state) = self.state.wait_for(|state| passes(state) && state.target.is_some()).await else {
                // The proxy was dropped. This task ends with it.
                return std::future::pending().await;
            };
            if let Some(target) = state.target {
                return target;
            }
        }
    }

    /// Waits until the connection has to be closed.
    async fn cut(mut self) {
        let number = self.number;
        if self.state.wait_for(|state| number < state.cut_below).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn delay(&self) -> Duration {
        self.state.borrow().delay
    }
}

async fn carry(client: TcpStream, mut gate: Gate) {
    let cut = gate.clone().cut();
    let carried = async {
        let target = gate.open().await;
        let service = TcpStream::connect(target).await?;
        // The proxy should not add delays of its own.
        client.set_nodelay(true)?;
        service.set_nodelay(true)?;
        let ((from_client, to_client), (from_service, to_service)) =
            (client.into_split(), service.into_split());
        tokio::try_join!(copy(from_client, to_service, gate.clone()), copy(from_service, to_client, gate))
    };
    tokio::select! {
        biased;
        () = cut => {}
        carried = carried => if let Err(error) = carried {
            tracing::debug!(%error, "a connection through the proxy broke");
        },
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: Gate) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        gate.open().await;
        let length = from.read(&mut buffer).await?;
        tokio::time::sleep(gate.delay()).await;
        // The connection may have been frozen while no bytes arrived.
        gate.open().await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A service that sends back the bytes that it receives.
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
        // That nothing arrives can only be observed over some time.
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

    #[tokio::test]
    async fn where_nobody_listens_connections_are_refused_and_old_ones_end_until_somebody_does() {
        let proxy = Proxy::start(echo().await).await.expect("starts");
        let mut old = TcpStream::connect(proxy.address()).await.expect("connects");
        exchange(&mut old).await.expect("echoed");
        for _ in 0..3 {
            proxy.refuse();
            let ended = tokio::time::timeout(LIMIT, old.read_u8()).await.expect("in time");
            ended.expect_err("it is closed");
            let started = Instant::now();
            // Connections that were being opened may still be accepted. They end at once.
            while TcpStream::connect(proxy.address()).await.is_ok() {
                assert!(started.elapsed() < LIMIT, "never refused");
                tokio::task::yield_now().await;
            }
            let refused = TcpStream::connect(proxy.address()).await.expect_err("refused");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            proxy.admit();
            old = loop {
                assert!(started.elapsed() < LIMIT, "never taken");
                if let Ok(mut client) = TcpStream::connect(proxy.address()).await
                    && exchange(&mut client).await.is_ok()
                {
                    break client;
                }
                tokio::task::yield_now().await;
            };
        }
    }

    #[tokio::test]
    async fn a_slow_connection_passes_everything_late() {
        let proxy = Proxy::start(echo().await).await.expect("starts");
        let mut client = TcpStream::connect(proxy.address()).await.expect("connects");
        proxy.delay(Duration::from_millis(100));
        let started = Instant::now();
        assert_eq!(exchange(&mut client).await.expect("echoed"), 7);
        assert!(started.elapsed() >= Duration::from_millis(200), "there and back");
    }

    #[tokio::test]
    async fn it_leads_to_whom_it_is_told() {
        let proxy = Proxy::reserve(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("starts");
        let mut waiting = TcpStream::connect(proxy.address()).await.expect("connects");
        waiting.write_u8(7).await.expect("the socket is open");
        // That nothing arrives can only be observed over some time.
        tokio::time::timeout(Duration::from_millis(100), waiting.read_u8()).await.expect_err("nobody there");
        proxy.lead_to(echo().await);
        waiting.read_u8().await.expect_err("what led elsewhere is closed");
        let mut client = TcpStream::connect(proxy.address()).await.expect("connects");
        exchange(&mut client).await.expect("echoed");
        proxy.lead_to(echo().await);
        client.read_u8().await.expect_err("closed as well");
        let mut client = TcpStream::connect(proxy.address()).await.expect("connects");
        exchange(&mut client).await.expect("echoed");
    }
}
