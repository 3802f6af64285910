//! A stream towards an upstream that notes when it has been answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::transport::quiet::Quiet;

/// Whether a byte of an answer has arrived since the last request was sent. Shared by an upstream connection and its
/// pool entry: it decides whether a request that met a dying connection may be sent again.
#[derive(Debug, Default, Clone)]
pub struct Answered(Arc<AtomicBool>);

/// What connects us with an upstream.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP. Boxed: it is many times as large, and the others are the common ones.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket to an upstream. One read more or less is not told apart by hyper's errors, so the socket tells.
#[derive(Debug)]
pub struct UpstreamIo {
    stream: Stream,
    answered: Answered,
    quiet: Quiet,
}

/// When a peer that says nothing is asked whether it is still there, and how often until it counts as gone. An idle
/// WebSocket has no other limit.
pub fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_mins(1)).with_interval(Duration::from_secs(15))
}

/// What is gathered into one buffer before it is written: a head, with a small body behind it.
const GATHERED: usize = 2048;

/// Writes several pieces to a socket. Few bytes go out by a plain write: for the system that is less work than a vectored
/// one, by more than it takes to copy them.
pub fn poll_write_pieces(
    stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    pieces: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match pieces {
        [piece] => stream.poll_write(cx, piece),
        [head, body] if head.len() + body.len() <= GATHERED => {
            let mut both = [0; GATHERED];
            both[..head.len()].copy_from_slice(head);
            both[head.len()..head.len() + body.len()].copy_from_slice(body);
            stream.poll_write(cx, &both[..head.len() + body.len()])
        }
        _ => stream.poll_write_vectored(cx, pieces),
    }
}

/// Calls a method of whichever stream it is.
macro_rules! on {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::Tls($inner) => $call,
        }
    };
}

// === impl Stream ===

impl Stream {
    /// Finds out when the peer has vanished without a word. The other end of a Unix socket cannot.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep_alive(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).set_tcp_keepalive(&keep_alive()),
            Self::Tls(stream) => SockRef::from(stream.get_ref().0).set_tcp_keepalive(&keep_alive()),
            Self::Unix(_) => Ok(()),
        }
    }
}

// === impl Answered ===

impl Answered {
    /// A request is about to be sent.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether a byte has arrived since.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl UpstreamIo ===

impl UpstreamIo {
    /// Wraps a connected stream.
    pub fn new(stream: Stream) -> (Self, Answered) {
        let answered = Answered::default();
        (Self { stream, answered: answered.clone(), quiet: Quiet::default() }, answered)
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Self { stream, quiet, answered } = &mut *self;
        ready!(quiet.poll(cx, |cx| on!(stream, stream => Pin::new(stream).poll_read(cx, buf))))?;
        if buf.filled().len() > before {
            answered.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on!(&mut self.stream, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.stream, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.stream, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        on!(&self.stream, stream => stream.is_write_vectored())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => poll_write_pieces(Pin::new(stream), cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order_whichever_way_they_are_written() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        for lengths in [&[5][..], &[5, 7], &[GATHERED - 1, 1], &[GATHERED, 1], &[3, 4, 5]] {
            let pieces: Vec<Vec<u8>> = lengths.iter().zip(b'a'..).map(|(length, byte)| vec![byte; *length]).collect();
            let slices: Vec<_> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
            let written = poll_fn(|cx| poll_write_pieces(Pin::new(&mut stream), cx, &slices)).await.unwrap();
            assert_eq!(written, lengths.iter().sum::<usize>(), "an empty socket takes so little at once");
            let mut read = vec![0; written];
            peer.read_exact(&mut read).await.unwrap();
            assert!(read == pieces.concat(), "{lengths:?}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_vanished_is_looked_for_where_that_is_asked_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Stream::Tcp(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let asks = |stream: &Stream| match stream {
            Stream::Tcp(stream) => SockRef::from(stream).keepalive().unwrap(),
            Stream::Unix(_) | Stream::Tls(_) => false,
        };
        assert!(!asks(&stream));
        stream.keep_alive().unwrap();
        assert!(asks(&stream));
    }
}
