//! A downstream socket with its deadlines.
//!
//! Limits are looked at only when the socket would block, so a busy connection pays nothing for them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::config::Limits;
use crate::listener::connection::{Connection, Phase, Version};
use crate::listener::socket::Stream;
use crate::transport::quiet::Quiet;

/// How long an HTTP/2 peer may take to let go of a connection that was told to end.
const GRACE: Duration = Duration::from_secs(5);

/// How long, and how much, is read and thrown away after an answer that came before the end of its request: bytes that
/// nobody reads make the system reset the connection, and the reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 16 << 20;

/// A socket that fails when its peer is silent, or takes no bytes, for too long.
#[derive(Debug)]
pub struct Watched {
    stream: Stream,
    quiet: Quiet,
    /// What was read to find out the protocol, for the parser to read again.
    first: Bytes,
    connection: Arc<Connection>,
    first_byte: Option<Duration>,
    header_read: Option<Duration>,
    idle: Option<Duration>,
    write_stall: Option<Duration>,
    write_blocked: Option<Instant>,
    /// Our side has said its last word.
    lingering: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    until: Instant,
    left: usize,
}

// === impl Watched ===

impl Watched {
    /// Watches over a connection that was just accepted.
    pub fn new(stream: Stream, connection: Arc<Connection>, limits: &Limits) -> Self {
        Self {
            stream,
            quiet: Quiet::default(),
            first: Bytes::new(),
            connection,
            first_byte: limits.first_byte,
            header_read: limits.header_read,
            idle: limits.idle,
            write_stall: limits.write_stall,
            write_blocked: None,
            lingering: None,
        }
    }

    /// Gives bytes back, to be read again.
    pub fn rewind(&mut self, first: Bytes) {
        self.first = first;
    }

    /// The socket would block on a read: has the limit of this phase passed?
    fn poll_silence(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.connection.phase();
        let limit = match phase {
            Phase::First => self.first_byte,
            Phase::Head => self.header_read,
            Phase::Idle => self.idle,
            Phase::Closing => Some(GRACE),
            Phase::Busy => None,
        };
        let Some(limit) = limit else { return Poll::Pending };
        match self.connection.poll_deadline(cx, self.connection.phase_began() + limit) {
            Poll::Pending => Poll::Pending,
            // HTTP/1 between two requests: the end of the stream is a clean close. HTTP/2 says GOAWAY first, which
            // the connection's task does when it finds the same.
            Poll::Ready(()) if phase == Phase::Idle && self.connection.version() == Version::Http1 => {
                Poll::Ready(Ok(()))
            }
            Poll::Ready(())
                if matches!(phase, Phase::First | Phase::Idle) && self.connection.version() == Version::Http2 =>
            {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_blocked = None;
            return result;
        }
        let Some(limit) = self.write_stall else { return Poll::Pending };
        let since = *self.write_blocked.get_or_insert_with(Instant::now);
        match self.connection.poll_deadline(cx, since + limit) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Reads what the caller still sends, up to its end or a bound.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { stream, quiet, connection, lingering, .. } = self;
        let linger = lingering.get_or_insert_with(|| Linger { until: Instant::now() + LINGER, left: LINGER_BYTES });
        let mut scratch = [0; 8192];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match quiet.poll(cx, |cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                Poll::Pending => return connection.poll_deadline(cx, linger.until),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    let read = buffer.filled().len();
                    linger.left = linger.left.saturating_sub(read);
                    if read == 0 || linger.left == 0 || Instant::now() >= linger.until {
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let taken = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..taken]);
            self.first.advance(taken);
            if self.first.is_empty() {
                // An empty rest would keep the whole buffer for as long as the connection lives.
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let Self { stream, quiet, .. } = &mut *self;
        match quiet.poll(cx, |cx| Pin::new(stream).poll_read(cx, buf)) {
            Poll::Pending => self.poll_silence(cx),
            Poll::Ready(Ok(())) => {
                if buf.filled().len() > before {
                    self.connection.received();
                }
                Poll::Ready(Ok(()))
            }
            broken @ Poll::Ready(Err(_)) => broken,
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Only TLS keeps anything back here.
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let result = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.written(cx, result))?;
            if !self.connection.has_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_linger(cx).map(Ok)
    }
}
