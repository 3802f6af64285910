//! HTTP/1 connections: each carries one exchange at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::lifecycle::Spawner;
use crate::proxy::pool::exchange::SendError;
use crate::transport::body::RequestBody;
use crate::transport::io::{Answered, Stream, UpstreamIo};

/// Bytes of an answer's head, and of what is read ahead of a caller that takes it slowly.
const MAX_BUFFER: usize = 64 * 1024;

/// How long a connection's task may take to see that its last exchange is over.
const SETTLING: Duration = Duration::from_millis(20);

/// Connections that wait for work, the youngest last.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Vec<Connection>>);

/// One connection. Its socket is driven by a task of its own, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<RequestBody>,
    answered: Answered,
    /// Whether it may become a tunnel. Such a connection serves one request.
    own: bool,
    /// When it was last given back; `None` while it has not served yet.
    kept_at: Option<Instant>,
}

// === impl Idle ===

impl Idle {
    /// An idle connection that can take a request at once.
    pub(super) fn ready(&self, since: Option<Instant>) -> Option<Connection> {
        let mut idle = self.lock();
        while let Some(connection) = idle.pop() {
            if !connection.is_fresh(since) {
                // The younger ones stand behind it, so those in front are no fresher.
                idle.clear();
                return None;
            }
            if connection.sender.is_ready() {
                return Some(connection);
            }
            if !connection.sender.is_closed() {
                // Its task has not run since it was given back; the slow way waits for that.
                idle.push(connection);
                return None;
            }
        }
        None
    }

    /// An idle connection, waited for where its last exchange is just over.
    pub(super) async fn settled(&self, since: Option<Instant>) -> Option<Connection> {
        while let Some(mut connection) = self.pop().filter(|connection| connection.is_fresh(since)) {
            // One whose last request is still being written, or that is closing, is not worth waiting for.
            let ready = tokio::time::timeout(SETTLING, connection.sender.ready());
            if ready.await.is_ok_and(|ready| ready.is_ok()) {
                return Some(connection);
            }
        }
        None
    }

    pub(super) fn keep(&self, mut connection: Connection, max_idle: usize, now: Instant) {
        if connection.own {
            return;
        }
        let mut idle = self.lock();
        if !connection.sender.is_closed() && idle.len() < max_idle {
            connection.kept_at = Some(now);
            idle.push(connection);
        }
    }

    pub(super) fn reap(&self, now: Instant, limit: Duration) {
        // Last in, first out: the old ones stand in front, but a closed one may stand anywhere.
        self.lock().retain(|connection| {
            !connection.sender.is_closed() && connection.kept_at.is_none_or(|kept| now.duration_since(kept) < limit)
        });
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Closes one of them, so that another may be opened in its place.
    pub(super) fn give_way(&self) {
        drop(self.pop());
    }

    fn pop(&self) -> Option<Connection> {
        self.lock().pop()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    /// Speaks HTTP/1.1 on a stream. `own`: it may become a tunnel, and serves one request.
    pub(super) async fn open(stream: Stream, spawner: &Spawner, own: bool) -> hyper::Result<Self> {
        let (io, answered) = UpstreamIo::new(stream);
        let (sender, connection) = Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(io)).await?;
        drop(spawner.spawn(async move {
            // A connection that breaks tells so to whoever waits on it; an idle one has nobody to tell.
            let ended = if own { connection.with_upgrades().await } else { connection.await };
            if let Err(error) = ended {
                tracing::debug!(%error, "upstream connection ended");
            }
        }));
        Ok(Self { sender, answered, own, kept_at: None })
    }

    /// Whether it was given back after `since`.
    fn is_fresh(&self, since: Option<Instant>) -> bool {
        match (self.kept_at, since) {
            (Some(kept), Some(since)) => kept > since,
            _ => true,
        }
    }

    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Box<SendError>>> + use<> {
        self.answered.reset();
        let (sent, answered) = (self.sender.try_send_request(request), self.answered.clone());
        async move {
            sent.await.map_err(|mut refused| {
                let unsent = refused.take_message();
                Box::new(SendError { unsent, answered: answered.get(), error: refused.into_error() })
            })
        }
    }
}
