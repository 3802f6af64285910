//! The connections of one worker to one address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::balance::{Balance, Change};
use super::exchange::{Protocol, Want};
use super::{http1, http2};
use crate::config::{Upstream, UpstreamAddress, Wire};
use crate::lifecycle::Spawner;
use crate::live::Live;
use crate::telemetry;
use crate::transport::connect::{ConnectError, Secure, connect};
use crate::transport::io::Stream;
use crate::transport::tls;
use crate::transport::tls::client::{ClientTls, Offer};

/// See the file's comment.
#[derive(Debug)]
pub(super) struct Endpoint {
    upstream: Arc<Upstream>,
    /// Which of the upstream's addresses.
    index: usize,
    /// Hears how attempts to connect end, where there are other addresses.
    balance: Option<Arc<Balance>>,
    /// Where TLS is spoken.
    tls: Option<Live<ClientTls>>,
    /// The version of HTTP that ALPN chose last: 1, 2, or 0 when there was no handshake yet.
    negotiated: AtomicU8,
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
    pub(super) fn new(
        upstream: &Arc<Upstream>,
        index: usize,
        tls: Option<Live<ClientTls>>,
        balance: Option<Arc<Balance>>,
        spawner: Spawner,
    ) -> Self {
        let authority = upstream.addresses[index].authority.as_str();
        Self {
            limit: upstream.pool.max_connections.map(|limit| Arc::new(Semaphore::new(limit))),
            // An authority is made of characters that a header may hold.
            host: HeaderValue::try_from(authority).unwrap_or(HeaderValue::from_static("")),
            upstream: Arc::clone(upstream),
            index,
            balance,
            tls,
            negotiated: AtomicU8::new(0),
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

    /// Whether what is spoken here is wrapped in TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// A connection that can take a request at once, if there is one.
    pub(super) fn ready(&self, now: Instant) -> Option<Held> {
        if self.limit.is_some() {
            return None;
        }
        let connection = match self.spoken()? {
            Protocol::Http1 => Leased::Http1(self.http1.ready(self.idle_since(now))?),
            Protocol::Http2 => Leased::Http2(self.http2.take(self.upstream.pool.max_streams)?),
        };
        Some(Held { connection, permit: None })
    }

    /// A connection that can take a request, opened where that is needed. `within`: what an attempt to open one may take.
    pub(super) async fn lease(&self, want: Want, within: Option<Duration>) -> Result<Held, ConnectError> {
        let http1 = want == Want::Own || self.spoken() == Some(Protocol::Http1);
        if !http1 && let Some(connection) = self.http2(want, within).await? {
            // HTTP/2 counts connections, not streams: no permit.
            let permit = if matches!(connection, Leased::Http1(_)) { self.permit().await } else { None };
            return Ok(Held { connection, permit });
        }
        let permit = self.permit().await;
        if want == Want::Any
            && let Some(connection) = self.http1.settled(self.idle_since(Instant::now())).await
        {
            return Ok(Held { connection: Leased::Http1(connection), permit });
        }
        if want == Want::Own && permit.is_some() {
            self.http1.give_way();
        }
        let connection = self.open(want, within).await?;
        Ok(Held { permit: permit.filter(|_| matches!(connection, Leased::Http1(_))), connection })
    }

    /// A lease holds one where HTTP/1 connections are limited.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // Closed never: the semaphore lives as long as `self`.
        Arc::clone(self.limit.as_ref()?).acquire_owned().await.ok()
    }

    /// A place on an HTTP/2 connection; or, where it turns out that HTTP/1.1 is spoken, a connection of that for whoever
    /// has found it out, and `None` for those who waited meanwhile.
    async fn http2(&self, want: Want, within: Option<Duration>) -> Result<Option<Leased>, ConnectError> {
        let max_streams = self.upstream.pool.max_streams;
        if want == Want::Any
            && let Some(stream) = self.http2.take(max_streams)
        {
            return Ok(Some(Leased::Http2(stream)));
        }
        let opened = async {
            let _turn = self.http2.turn().await;
            if self.spoken() == Some(Protocol::Http1) {
                return Ok(None);
            }
            if want == Want::Any
                && let Some(stream) = self.http2.take(max_streams)
            {
                return Ok(Some(Leased::Http2(stream)));
            }
            // As many connections as may be open: h2 itself holds a stream back until the peer allows it.
            let full = self.upstream.pool.max_connections.is_some_and(|limit| self.http2.len() >= limit);
            if full && let Some(stream) = self.http2.take_any() {
                return Ok(Some(Leased::Http2(stream)));
            }
            self.open(want, within).await.map(Some)
        };
        match within {
            // Those who wait for their turn behind an attempt that hangs wait no longer than it may hang.
            Some(limit) => tokio::time::timeout(limit, opened)
                .await
                .unwrap_or_else(|_| Err(ConnectError::TimedOut { address: self.address().to_string(), after: limit })),
            None => opened.await,
        }
    }

    /// Opens a connection, and tells the balance how that went.
    async fn open(&self, want: Want, within: Option<Duration>) -> Result<Leased, ConnectError> {
        let opened = self.connect(want, within).await;
        if let Some(balance) = &self.balance {
            match (balance.attempted(self.index, opened.is_ok(), Instant::now()), &opened) {
                (Some(Change::Out(time)), Err(error)) => tracing::warn!(
                    upstream = self.upstream.name,
                    address = %self.address(),
                    error = telemetry::chain(error),
                    for_seconds = time.as_secs(),
                    "an address cannot be connected to and is left out"
                ),
                (Some(Change::StillOut(time)), Err(error)) => tracing::debug!(
                    upstream = self.upstream.name,
                    address = %self.address(),
                    error = telemetry::chain(error),
                    for_seconds = time.as_secs(),
                    "an address is still left out"
                ),
                (Some(_), _) => self.is_back(),
                (None, _) => {}
            }
        }
        opened
    }

    /// Says that requests go there again.
    pub(super) fn is_back(&self) {
        tracing::info!(upstream = self.upstream.name, address = %self.address(), "an address takes requests again");
    }

    async fn connect(&self, want: Want, within: Option<Duration>) -> Result<Leased, ConnectError> {
        // Only HTTP/1.1 can be upgraded.
        let offer = if want == Want::Own { Offer::Http1 } else { Offer::Negotiate };
        // To keep: a reload in the middle of a handshake does not change it.
        let tls = self.tls.as_ref().map(Live::current);
        let secure = match (&tls, &self.upstream.wire) {
            (Some(tls), Wire::Tls(configured)) => Some(Secure { tls, name: &configured.names[self.index], offer }),
            _ => None,
        };
        let stream = connect(self.address(), secure, within).await?;
        let protocol = self.protocol(&stream, offer)?;
        let refused = |source| ConnectError::Handshake { address: self.address().to_string(), source };
        if want == Want::Own {
            let failed = |source| ConnectError::Failed { address: self.address().to_string(), source };
            stream.keep_alive().map_err(failed)?;
        }
        match protocol {
            Protocol::Http1 => {
                let connection = http1::Connection::open(stream, &self.spawner, want == Want::Own).await;
                connection.map(Leased::Http1).map_err(refused)
            }
            Protocol::Http2 => {
                let connection = http2::Connection::open(stream, self.upstream.pool.max_streams, &self.spawner)
                    .await
                    .map_err(refused)?;
                Ok(Leased::Http2(self.http2.add(connection)))
            }
        }
    }

    /// What is spoken on a new connection; remembered where it was negotiated.
    fn protocol(&self, stream: &Stream, offer: Offer) -> Result<Protocol, ConnectError> {
        match (&self.upstream.wire, stream) {
            _ if offer == Offer::Http1 => Ok(Protocol::Http1),
            (Wire::Tls(configured), Stream::Tls(stream)) => {
                let chosen = stream.get_ref().1.alpn_protocol();
                let protocol = if tls::client::is_http2(chosen) { Protocol::Http2 } else { Protocol::Http1 };
                if configured.http2_only && protocol == Protocol::Http1 {
                    return Err(ConnectError::NotHttp2 { address: self.address().to_string() });
                }
                self.negotiated.store(if protocol == Protocol::Http1 { 1 } else { 2 }, Relaxed);
                Ok(protocol)
            }
            (Wire::Http2, _) => Ok(Protocol::Http2),
            (Wire::Http1 | Wire::Tls(_), _) => Ok(Protocol::Http1),
        }
    }

    /// What is spoken here, as far as it is known: over TLS what was negotiated last.
    fn spoken(&self) -> Option<Protocol> {
        match self.upstream.wire {
            Wire::Http1 => Some(Protocol::Http1),
            Wire::Http2 => Some(Protocol::Http2),
            Wire::Tls(_) => match self.negotiated.load(Relaxed) {
                1 => Some(Protocol::Http1),
                2 => Some(Protocol::Http2),
                _ => None,
            },
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
