//! Connections of one worker to one upstream, behind one interface: [`Pool::lease`], [`Lease::send`], [`Lease::finish`].
//!
//! A lease that is dropped without `finish` takes its HTTP/1 connection with it: what is left on it belongs to nobody.
//! HTTP/1 connections are reused last in, first out, so that a quiet time lets the surplus age and close.

pub mod exchange;
mod http1;
mod http2;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Upstream;
use crate::lifecycle::Spawner;
use crate::proxy::pool::exchange::{SendError, Want};
use crate::transport::body::RequestBody;
use crate::transport::connect::ConnectError;

/// The connections.
#[derive(Debug)]
pub struct Pool {
    upstream: Arc<Upstream>,
    spawner: Spawner,
    /// A lease holds a permit; with last in, first out no more connections are open than permits were taken at once.
    limit: Option<Arc<Semaphore>>,
    http1: http1::Idle,
    http2: http2::Shared,
    /// The upstream's own `Host`, built once.
    host: HeaderValue,
}

/// The right to send one request.
#[derive(Debug)]
pub struct Lease {
    connection: Leased,
    pool: Arc<Pool>,
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Leased {
    Http1(http1::Connection),
    Http2(http2::Stream),
}

// === impl Pool ===

impl Pool {
    /// An empty pool.
    pub fn new(upstream: Arc<Upstream>, spawner: Spawner) -> Arc<Self> {
        let limit = upstream.pool.max_connections.map(|limit| Arc::new(Semaphore::new(limit)));
        // An authority is made of characters that a header may hold.
        let host = HeaderValue::try_from(upstream.address.authority.as_str()).unwrap_or(HeaderValue::from_static(""));
        Arc::new(Self {
            upstream,
            spawner,
            limit,
            http1: http1::Idle::default(),
            http2: http2::Shared::default(),
            host,
        })
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The upstream's own `Host`.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// A connection that can take a request at once, if there is one.
    pub fn ready(self: &Arc<Self>, now: Instant) -> Option<Lease> {
        if self.limit.is_some() {
            return None;
        }
        let connection = Leased::Http1(self.http1.ready(self.idle_since(now))?);
        Some(Lease { connection, pool: Arc::clone(self), _permit: None })
    }

    /// A connection that can take a request, opened where that is needed. Waits without end where every connection that
    /// may be open is in use: the caller has a limit.
    ///
    /// # Errors
    /// When none can be opened.
    pub async fn lease(self: &Arc<Self>, want: Want) -> Result<Lease, ConnectError> {
        let permit = match &self.limit {
            // Closed never: the semaphore lives as long as `self`. HTTP/2 counts connections, not streams.
            Some(limit) if !self.upstream.http2 => Arc::clone(limit).acquire_owned().await.ok(),
            Some(_) | None => None,
        };
        let connection = if self.upstream.http2 {
            Leased::Http2(self.http2.stream(&self.upstream, &self.spawner, want).await?)
        } else {
            let since = self.idle_since(Instant::now());
            Leased::Http1(self.http1.connection(&self.upstream, &self.spawner, want, since).await?)
        };
        Ok(Lease { connection, pool: Arc::clone(self), _permit: permit })
    }

    /// What has been idle since before this is not to be used: its peer may be closing it.
    fn idle_since(&self, now: Instant) -> Option<Instant> {
        now.checked_sub(self.upstream.pool.idle_timeout?)
    }

    /// Closes what has been idle for too long, or with `all` whatever is idle.
    pub fn reap(&self, now: Instant, all: bool) {
        let limit = if all { Some(Duration::ZERO) } else { self.upstream.pool.idle_timeout };
        if let Some(limit) = limit {
            self.http1.reap(now, limit);
            self.http2.reap(now, limit);
        }
    }

    /// Idle HTTP/1 connections and open HTTP/2 ones.
    pub fn len(&self) -> usize {
        self.http1.len() + self.http2.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Lease ===

impl Lease {
    /// Whether the connection has served before, so that its peer may have closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        match &self.connection {
            Leased::Http1(connection) => connection.is_reused(),
            Leased::Http2(stream) => stream.is_reused(),
        }
    }

    /// Hands the request over now; what is returned waits for the response head. Not `async`, so that the request is
    /// never part of a future that is moved about.
    pub fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Box<SendError>>> + use<> {
        match &mut self.connection {
            Leased::Http1(connection) => Either::Left(connection.send(request)),
            Leased::Http2(stream) => Either::Right(stream.send(request)),
        }
    }

    /// The exchange is over, both bodies included: the connection may serve the next one.
    pub fn finish(self, now: Instant) {
        match self.connection {
            Leased::Http1(connection) => self.pool.http1.keep(connection, self.pool.upstream.pool.max_idle, now),
            Leased::Http2(stream) => stream.finish(now),
        }
    }
}
