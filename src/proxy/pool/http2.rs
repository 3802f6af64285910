//! HTTP/2 connections: each carries many exchanges.
//!
//! A connection takes no more streams when our count reaches what the configuration or the peer allows, or when we have
//! cancelled many of its streams: h2 ends a connection on which too many streams were reset locally, with all that is
//! under way on it, so a replacement is opened long before that.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::lifecycle::Spawner;
use crate::proxy::pool::exchange::SendError;
use crate::transport::body::RequestBody;
use crate::transport::io::{self, UpstreamIo};

/// Streams that we may cancel before h2 ends the connection; a connection is replaced at half of it.
const MAX_LOCAL_RESETS: usize = 1024;

/// Bytes that a stream's peer may send ahead of whoever reads. A connection's window is this for every stream that it
/// may carry, so that callers who read slowly never use up what the others need.
const STREAM_WINDOW: u32 = 512 * 1024;

/// RFC 9113 section 6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The open connections.
#[derive(Debug)]
pub(super) struct Shared {
    connections: Mutex<Vec<Arc<Connection>>>,
    /// One at a time opens a connection; the others then find it.
    opening: Semaphore,
}

#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<RequestBody>,
    streams: AtomicUsize,
    /// Streams that ended before their time.
    cancelled: AtomicUsize,
    /// What the peer allows, as its settings said last; no limit until then.
    peer_max: Arc<AtomicUsize>,
    quiet_since: Mutex<Instant>,
}

/// One stream's place on a connection.
#[derive(Debug)]
pub(super) struct Stream {
    connection: Arc<Connection>,
    finished: bool,
}

// === impl Shared ===

impl Default for Shared {
    fn default() -> Self {
        Self { connections: Mutex::default(), opening: Semaphore::new(1) }
    }
}

impl Shared {
    /// The right to open a connection: one at a time, so that the others find it.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Closed never: the semaphore lives as long as `self`.
        self.opening.acquire().await.ok()
    }

    /// Keeps a new connection, and takes the first place on it.
    pub(super) fn add(&self, connection: Connection) -> Stream {
        let connection = Arc::new(connection);
        let stream = Stream::on(&connection);
        self.lock().push(connection);
        stream
    }

    pub(super) fn reap(&self, now: Instant, limit: Duration) {
        self.lock().retain(|connection| {
            let idle = connection.streams.load(Relaxed) == 0
                && now.saturating_duration_since(*lock(&connection.quiet_since)) >= limit;
            !connection.sender.is_closed() && !idle
        });
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// A place on the connection with the fewest streams that has one.
    pub(super) fn take(&self, max_streams: usize) -> Option<Stream> {
        let mut connections = self.lock();
        connections.retain(|connection| connection.is_usable());
        let places = connections
            .iter()
            .filter(|connection| connection.streams.load(Relaxed) < max_streams.min(connection.peer_max.load(Relaxed)));
        places.min_by_key(|connection| connection.streams.load(Relaxed)).map(Stream::on)
    }

    /// A place on the connection with the fewest streams.
    pub(super) fn take_any(&self) -> Option<Stream> {
        let connections = self.lock();
        let usable = connections.iter().filter(|connection| connection.is_usable());
        usable.min_by_key(|connection| connection.streams.load(Relaxed)).map(Stream::on)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        lock(&self.connections)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Connection ===

impl Connection {
    /// Speaks HTTP/2 on a stream, for so many requests at once at most.
    pub(super) async fn open(stream: io::Stream, max_streams: usize, spawner: &Spawner) -> hyper::Result<Self> {
        let (io, heard) = UpstreamIo::new(stream);
        let streams = u32::try_from(max_streams).unwrap_or(u32::MAX);
        let (sender, connection) = Builder::new(spawner.clone())
            .timer(TokioTimer::new())
            .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .keep_alive_timeout(Duration::from_secs(10))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW.saturating_mul(streams).min(MAX_WINDOW))
            // Until the peer has said how many it takes: h2 holds the others back, where a peer would refuse them and
            // their bodies would be lost.
            .initial_max_send_streams(1)
            .handshake(TokioIo::new(io))
            .await?;
        let peer_max = Arc::new(AtomicUsize::new(usize::MAX));
        let seen = Arc::clone(&peer_max);
        drop(spawner.spawn(async move {
            let mut connection = pin!(connection);
            let ended = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                // The first thing that a peer says is its settings (RFC 9113 section 3.4).
                if heard.get() {
                    seen.store(connection.current_max_send_streams().max(1), Relaxed);
                }
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        }));
        Ok(Self {
            sender,
            streams: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            peer_max,
            quiet_since: Mutex::new(Instant::now()),
        })
    }

    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.cancelled.load(Relaxed) < MAX_LOCAL_RESETS / 2
    }
}

// === impl Stream ===

impl Stream {
    fn on(connection: &Arc<Connection>) -> Self {
        connection.streams.fetch_add(1, Relaxed);
        Self { connection: Arc::clone(connection), finished: false }
    }

    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Box<SendError>>> + use<> {
        let mut sender = self.connection.sender.clone();
        let sent = sender.try_send_request(request);
        async move {
            sent.await.map_err(|mut refused| {
                let unsent = refused.take_message();
                let error = refused.into_error();
                Box::new(SendError { unsent, answered: !was_refused(&error), error })
            })
        }
    }

    pub(super) fn finish(mut self, now: Instant) {
        self.finished = true;
        *lock(&self.connection.quiet_since) = now;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Relaxed);
        if !self.finished {
            self.connection.cancelled.fetch_add(1, Relaxed);
        }
    }
}

/// The peer said that it has not looked at the stream: REFUSED_STREAM, or a GOAWAY with NO_ERROR below its id
/// (RFC 9113 section 8.7).
fn was_refused(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR));
        }
        source = cause.source();
    }
    false
}
