//! The connections of one worker to one address.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::balance::Balance;
use super::exchange::Want;
use super::{http1, http2};
use crate::config::{Upstream, UpstreamAddress, Wire};
use crate::lifecycle::Spawner;
use crate::transport::connect::{ConnectError, connect};

/// See the file's comment.
#[derive(Debug)]
pub(super) struct Endpoint {
    upstream: Arc<Upstream>,
    /// Which of the upstream's addresses.
    index: usize,
    /// Hears how attempts to connect end, where there are other addresses.
    balance: Option<Arc<Balance>>,
    spawner: Spawner,
    /// A lease holds a permit; with last in, first out no more connections are open than permits were taken at once.
    limit: Option<Arc<Semaphore>>,
    http1: http1::Idle,
    http2: http2::Shared,
    /// The address's own `Host`, built once.
    host: HeaderValue,
}

/// A connection, or a place on one.
#[derive(Debug)]
pub(super) enum Leased {
    Http1(http1::Connection),
    Http2(http2::Stream),
}

/// A connection with the right to use it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: Leased,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

// === impl Endpoint ===

impl Endpoint {
    /// No connection is open.
    pub(super) fn new(upstream: &Arc<Upstream>, index: usize, balance: Option<Arc<Balance>>, spawner: Spawner) -> Self {
        let authority = upstream.addresses[index].authority.as_str();
        Self {
            limit: upstream.pool.max_connections.map(|limit| Arc::new(Semaphore::new(limit))),
            // An authority is made of characters that a header may hold.
            host: HeaderValue::try_from(authority).unwrap_or(HeaderValue::from_static("")),
            upstream: Arc::clone(upstream),
            index,
            balance,
            spawner,
            http1: http1::Idle::default(),
            http2: http2::Shared::default(),
        }
    }

    pub(super) fn address(&self) -> &UpstreamAddress {
        &self.upstream.addresses[self.index]
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// A connection that can take a request at once, if there is one.
    pub(super) fn ready(&self, now: Instant) -> Option<Held> {
        if self.limit.is_some() {
            return None;
        }
        let connection = match self.upstream.wire {
            Wire::Http1 => Leased::Http1(self.http1.ready(self.idle_since(now))?),
            Wire::Http2 => Leased::Http2(self.http2.take(self.upstream.pool.max_streams)?),
        };
        Some(Held { connection, permit: None })
    }

    /// A connection that can take a request, opened where that is needed.
    pub(super) async fn lease(&self, want: Want) -> Result<Held, ConnectError> {
        match self.upstream.wire {
            _ if want == Want::Own => self.http1(want).await,
            Wire::Http1 => self.http1(want).await,
            Wire::Http2 => self.http2(want).await.map(|connection| Held { connection, permit: None }),
        }
    }

    async fn http1(&self, want: Want) -> Result<Held, ConnectError> {
        let permit = match &self.limit {
            // Closed never: the semaphore lives as long as `self`.
            Some(limit) => Arc::clone(limit).acquire_owned().await.ok(),
            None => None,
        };
        if want == Want::Any
            && let Some(connection) = self.http1.settled(self.idle_since(Instant::now())).await
        {
            return Ok(Held { connection: Leased::Http1(connection), permit });
        }
        if want == Want::Own && permit.is_some() {
            self.http1.give_way();
        }
        Ok(Held { connection: self.open(want).await?, permit })
    }

    /// HTTP/2 counts connections, not streams: no permit.
    async fn http2(&self, want: Want) -> Result<Leased, ConnectError> {
        let max_streams = self.upstream.pool.max_streams;
        if want == Want::Any
            && let Some(stream) = self.http2.take(max_streams)
        {
            return Ok(Leased::Http2(stream));
        }
        let opened = async {
            let _turn = self.http2.turn().await;
            if want == Want::Any
                && let Some(stream) = self.http2.take(max_streams)
            {
                return Ok(Leased::Http2(stream));
            }
            // As many connections as may be open: h2 itself holds a stream back until the peer allows it.
            let full = self.upstream.pool.max_connections.is_some_and(|limit| self.http2.len() >= limit);
            if full && let Some(stream) = self.http2.take_any() {
                return Ok(Leased::Http2(stream));
            }
            self.open(want).await
        };
        match self.upstream.connect_timeout {
            // Those who wait for their turn behind an attempt that hangs wait no longer than it may hang.
            Some(limit) => tokio::time::timeout(limit, opened)
                .await
                .unwrap_or_else(|_| Err(ConnectError::TimedOut { address: self.address().to_string(), after: limit })),
            None => opened.await,
        }
    }

    /// Opens a connection, and tells the balance how that went.
    async fn open(&self, want: Want) -> Result<Leased, ConnectError> {
        let opened = self.connect(want).await;
        if let Some(balance) = &self.balance {
            balance.attempted(self.index, opened.is_ok(), Instant::now());
        }
        opened
    }

    async fn connect(&self, want: Want) -> Result<Leased, ConnectError> {
        let stream = connect(self.address(), self.upstream.connect_timeout).await?;
        let refused = |source| ConnectError::Handshake { address: self.address().to_string(), source };
        match self.upstream.wire {
            _ if want == Want::Own => {
                http1::Connection::open(stream, &self.spawner, true).await.map(Leased::Http1).map_err(refused)
            }
            Wire::Http1 => {
                http1::Connection::open(stream, &self.spawner, false).await.map(Leased::Http1).map_err(refused)
            }
            Wire::Http2 => {
                let connection = http2::Connection::open(stream, self.upstream.pool.max_streams, &self.spawner)
                    .await
                    .map_err(refused)?;
                Ok(Leased::Http2(self.http2.add(connection)))
            }
        }
    }

    /// Takes an HTTP/1 connection back.
    pub(super) fn keep(&self, connection: http1::Connection, now: Instant) {
        self.http1.keep(connection, self.upstream.pool.max_idle, now);
    }

    /// What has been idle since before this is not to be used: its peer may be closing it.
    fn idle_since(&self, now: Instant) -> Option<Instant> {
        now.checked_sub(self.upstream.pool.idle_timeout?)
    }

    pub(super) fn reap(&self, now: Instant, limit: Duration) {
        self.http1.reap(now, limit);
        self.http2.reap(now, limit);
    }

    pub(super) fn len(&self) -> usize {
        self.http1.len() + self.http2.len()
    }
}
