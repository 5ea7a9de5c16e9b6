//! A TCP stream that can be cut from outside, that combines small writes, and that removes envelopes.
//!
//! fe2o3-amqp runs a connection in its own task, which ends when its stream ends. So cutting the stream is the only way to end a connection
//! without an AMQP close. A broken network would not send one either.
//!
//! That task flushes every single frame, which costs a system call and a TCP segment per event. So written bytes wait here until the task
//! has nothing more to write. The task shows this by reading: whenever it waits, it reads. Meanwhile the [`envelope`]s are removed from its
//! frames. Invariants:
//!
//! - Bytes leave in the order in which they were written, in complete frames.
//! - If nothing more is written, bytes wait no longer than until the other tasks have had one turn.
//! - If at least [`LARGEST_WAIT_BYTES`] wait, the next write waits until the socket has taken them.
//! - A shutdown sends the waiting bytes.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::envelope;

/// From this number of waiting bytes on, they are sent before more are taken. A loopback segment carries about as many.
const LARGEST_WAIT_BYTES: usize = 32 * 1024;

/// Reads and writes until its token is cancelled. After that, every operation fails.
pub(super) struct CutStream {
    stream: TcpStream,
    token: CancellationToken,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Bytes that were written and are not completely sent yet.
    waiting: Vec<u8>,
    /// Where the last complete frame in `waiting` ends.
    whole: usize,
    /// How many bytes of `waiting` are sent already.
    sent: usize,
    /// Whether something was written since the last [`Self::poll_send_waiting`].
    grown: bool,
}

impl CutStream {
    pub(super) fn new(stream: TcpStream, token: CancellationToken) -> Self {
        let cut = Box::pin(token.clone().cancelled_owned());
        Self { stream, token, cut, waiting: Vec::new(), whole: 0, sent: 0, grown: false }
    }

    fn check(&self) -> io::Result<()> {
        if self.token.is_cancelled() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Sends all complete frames that wait.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.sent..self.whole)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.waiting.drain(..self.whole);
        (self.whole, self.sent) = (0, 0);
        Poll::Ready(Ok(()))
    }

    /// Sends the waiting bytes, unless more were written since the last call. In that case, the other tasks get a turn first, because they
    /// usually cause further writes.
    fn poll_send_waiting(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.whole == 0 {
            return Ok(());
        }
        if std::mem::take(&mut self.grown) {
            context.waker().wake_by_ref();
            return Ok(());
        }
        match self.poll_send(context) {
            Poll::Ready(outcome) => outcome,
            // The socket wakes the task, which then calls this again.
            Poll::Pending => Ok(()),
        }
    }
}

impl fmt::Debug for CutStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CutStream").finish_non_exhaustive()
    }
}

impl AsyncRead for CutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Polling `cut` here registers the reader's task for the wake-up. That task is always waiting.
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.poll_send_waiting(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.whole >= LARGEST_WAIT_BYTES {
            ready!(self.poll_send(context))?;
        }
        let this = &mut *self;
        this.waiting.extend_from_slice(bytes);
        this.whole = envelope::open(&mut this.waiting, this.whole);
        self.grown = true;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Sends nothing: written bytes are sent by a later read, see the module documentation.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.check())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
        net::{TcpListener, TcpStream},
    };
    use tokio_util::sync::CancellationToken;

    use super::{CutStream, LARGEST_WAIT_BYTES};

    /// A frame that is no transfer.
    fn frame(content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(8 + content.len()).unwrap();
        [&size.to_be_bytes()[..], &[2, 1, 0, 0], content].concat()
    }

    async fn pair() -> (CutStream, TcpStream, CancellationToken) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let token = CancellationToken::new();
        (CutStream::new(accepted.unwrap().0, token.clone()), peer.unwrap(), token)
    }

    /// Polls for something to read, as the connection's task does whenever it has nothing else to do.
    async fn poll_once(stream: &mut CutStream) -> std::io::Result<()> {
        poll_fn(|context| {
            let mut space = [0; 8];
            match Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut space)) {
                Poll::Ready(outcome) => Poll::Ready(outcome),
                Poll::Pending => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    #[tokio::test]
    async fn what_was_flushed_piece_by_piece_leaves_together_when_the_writer_waits() {
        let (mut stream, mut peer, _token) = pair().await;
        let frames = ["one", "two", "three"].map(|content| frame(content.as_bytes()));
        for frame in &frames {
            stream.write_all(frame).await.unwrap();
            stream.flush().await.unwrap();
        }
        let all = frames.concat();
        assert_eq!(stream.waiting, all, "a flush sends nothing");
        poll_once(&mut stream).await.unwrap();
        assert_eq!((stream.sent, stream.waiting.len()), (0, all.len()), "others get a turn first");
        poll_once(&mut stream).await.unwrap();
        assert!(stream.waiting.is_empty(), "nothing was added meanwhile");
        let mut space = [0; 64];
        let read = peer.read(&mut space).await.unwrap();
        assert_eq!(&space[..read], all);
    }

    #[tokio::test]
    async fn a_reader_that_waits_sends_what_it_has_written_by_itself() {
        let (mut stream, mut peer, _token) = pair().await;
        stream.write_all(&frame(b"question")).await.unwrap();
        stream.flush().await.unwrap();
        let answer = async {
            let mut space = [0; 16];
            peer.read_exact(&mut space).await.unwrap();
            peer.write_all(b"answered").await.unwrap();
            space
        };
        let mut space = [0; 8];
        let (read, asked) = tokio::join!(stream.read_exact(&mut space), answer);
        assert_eq!((read.unwrap(), &space, &asked[..]), (8, b"answered", &frame(b"question")[..]));
    }

    #[tokio::test]
    async fn a_shutdown_sends_what_waits_first() {
        let (mut stream, mut peer, _token) = pair().await;
        stream.write_all(&frame(b"the last words")).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, frame(b"the last words"));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_holds_the_writer_up_and_loses_nothing() {
        let (mut stream, mut peer, _token) = pair().await;
        let piece = frame(&(0..=255).cycle().take(3_000).collect::<Vec<u8>>());
        let mut written = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(outcome) = Pin::new(&mut stream).poll_write(&mut context, &piece) {
            written.extend_from_slice(&piece[..outcome.unwrap()]);
            assert!(stream.waiting.len() < LARGEST_WAIT_BYTES + piece.len());
            assert!(written.len() < 64 << 20, "the writer is never held up");
        }
        let read = async {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).await.unwrap();
            all
        };
        let (closed, read) = tokio::join!(stream.shutdown(), read);
        closed.unwrap();
        assert!(read == written, "{} of {} bytes arrived", read.len(), written.len());
    }

    #[tokio::test]
    async fn a_cut_stream_fails_and_sends_nothing_more() {
        let (mut stream, mut peer, token) = pair().await;
        stream.write_all(&frame(b"never sent")).await.unwrap();
        token.cancel();
        assert!(poll_once(&mut stream).await.is_err());
        assert!(stream.write_all(b"x").await.is_err() && stream.flush().await.is_err());
        drop(stream);
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"");
    }
}
