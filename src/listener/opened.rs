//! A stream of HTTP/2 that has become a socket: it fails as a socket of its own would.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::listener::connection::Connection;
use crate::listener::streams;
use crate::listener::timer::Timer;

/// The caller's end of a stream that was opened. `S` is hyper's, whose writing half is a task beside this one
/// ([`streams`]) that knows no deadline.
#[derive(Debug)]
pub struct Opened<S> {
    stream: S,
    /// How long its caller may take nothing.
    stall: Option<Duration>,
    /// Since when it has.
    blocked: Option<Instant>,
    timer: Timer,
}

// === impl Opened ===

impl<S> Opened<S> {
    /// A stream of that connection.
    pub fn new(stream: S, connection: &Connection) -> Self {
        Self { stream, stall: streams::patience(connection), blocked: None, timer: Timer::default() }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked = None;
            return result;
        }
        let Some(limit) = self.stall else { return Poll::Pending };
        let since = *self.blocked.get_or_insert_with(Instant::now);
        self.timer.poll(cx, since + limit).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Opened<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        // hyper tells of a reset by CANCEL, which is what a caller that goes away sends, as of an orderly end. The writing
        // half has found it out too, and calls it an error.
        if buf.filled().len() == before
            && let Poll::Ready(Err(reset)) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            return Poll::Ready(Err(reset));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, result)
    }
}
