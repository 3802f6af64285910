//! The ends of a tunnel through a stream of HTTP/2: each fails when its peer takes nothing for too long, as a downstream
//! socket does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::listener::connection::Connection;
use crate::listener::streams;
use crate::listener::timer::Timer;

/// One end. The caller's is hyper's, whose writing half is a task beside this one ([`streams`]) that knows no deadline.
#[derive(Debug)]
pub struct Opened<S> {
    stream: S,
    /// How long its peer may take nothing.
    stall: Option<Duration>,
    /// Since when it has.
    blocked: Option<Instant>,
    /// It has for too long: it is not heard any more either.
    given_up: bool,
    timer: Timer,
}

// === impl Opened ===

impl<S> Opened<S> {
    /// An end of a tunnel through a stream of that connection.
    pub fn new(stream: S, connection: &Connection) -> Self {
        Self { stream, stall: streams::patience(connection), blocked: None, given_up: false, timer: Timer::default() }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked = None;
            return result;
        }
        let Some(limit) = self.stall else { return Poll::Pending };
        let since = *self.blocked.get_or_insert_with(Instant::now);
        ready!(self.timer.poll(cx, since + limit));
        if !self.given_up {
            self.given_up = true;
            // Whoever waits for what it says is told as well.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Opened<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given_up {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
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
