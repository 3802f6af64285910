//! A stream towards an upstream that notes when it has been answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

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
        (Self { stream, answered: answered.clone() }, answered)
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(on!(&mut self.stream, stream => Pin::new(stream).poll_read(cx, buf)))?;
        if buf.filled().len() > before {
            self.answered.0.store(true, Ordering::Relaxed);
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
        on!(&mut self.stream, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }
}
