//! Connections of one worker to one upstream, behind one interface: [`Pool::lease`], [`Lease::send`], [`Lease::finish`].
//!
//! A lease that is dropped without `finish` takes its HTTP/1 connection with it: what is left on it belongs to nobody.
//! HTTP/1 connections are reused last in, first out, so that a quiet time lets the surplus age and close.

mod balance;
mod endpoint;
pub mod exchange;
mod http1;
mod http2;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use self::balance::{Balance, Seat, Tried};
use self::endpoint::{Endpoint, Held, Leased};
use crate::config::{Upstream, UpstreamAddress};
use crate::lifecycle::Spawner;
use crate::live::Live;
use crate::proxy::pool::exchange::{Protocol, SendError, Want};
use crate::transport::body::RequestBody;
use crate::transport::connect::ConnectError;
use crate::transport::tls::client::ClientTls;

/// The connections.
#[derive(Debug)]
pub struct Pool {
    upstream: Arc<Upstream>,
    /// In the order of the upstream's addresses; at least one.
    endpoints: Box<[Arc<Endpoint>]>,
    /// Chooses, where there is a choice.
    balance: Option<Arc<Balance>>,
}

/// The right to send one request.
#[derive(Debug)]
pub struct Lease {
    connection: Leased,
    endpoint: Arc<Endpoint>,
    permit: Option<OwnedSemaphorePermit>,
    seat: Option<Seat>,
}

/// The place of a connection that has become a tunnel, among those that may be open and in the choice of an address. Free
/// when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    _seat: Option<Seat>,
}

// === impl Pool ===

impl Pool {
    /// An empty pool. `tls`: for an upstream that speaks it.
    pub fn new(upstream: Arc<Upstream>, tls: Option<&Live<ClientTls>>, spawner: &Spawner) -> Self {
        let count = upstream.addresses.len();
        let balance = (count > 1).then(|| Balance::new(count));
        let endpoint =
            |index| Arc::new(Endpoint::new(&upstream, index, tls.cloned(), balance.clone(), spawner.clone()));
        Self { endpoints: (0..count).map(endpoint).collect(), balance, upstream }
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// What `Host` says when it is the upstream's own; each of several addresses has another, see [`Lease::host`].
    pub fn host(&self) -> &HeaderValue {
        self.endpoints[0].host()
    }

    /// A connection that can take a request at once, if there is one.
    pub fn ready(&self, now: Instant) -> Option<Lease> {
        match &self.balance {
            None => Some(Lease::of(self.endpoints[0].ready(now)?, &self.endpoints[0], None)),
            Some(balance) => {
                let seat = balance.fit(now)?;
                let endpoint = &self.endpoints[seat.index()];
                Some(Lease::of(endpoint.ready(now)?, endpoint, Some(seat)))
            }
        }
    }

    /// A connection that can take a request, opened where that is needed. Waits without end where every connection that
    /// may be open is in use: the caller has a limit, and ends the wait at `end`. An address that cannot be connected to
    /// leads to the next one, as nothing has been sent.
    ///
    /// # Errors
    /// When none can be opened: what the last address said.
    pub async fn lease(&self, want: Want, end: Option<Instant>) -> Result<Lease, ConnectError> {
        let mut tried = Tried::default();
        let mut seat = self.balance.as_ref().and_then(|balance| balance.any(tried, Instant::now()));
        loop {
            // Without a choice there is no seat.
            let index = seat.as_ref().map_or(0, Seat::index);
            let endpoint = &self.endpoints[index];
            let error = match endpoint.lease(want, self.share(tried, end)).await {
                Ok(held) => {
                    if seat.as_mut().is_some_and(|seat| seat.connected().is_some()) {
                        endpoint.is_back();
                    }
                    return Ok(Lease::of(held, endpoint, seat));
                }
                Err(error) => error,
            };
            tried = tried.and(index);
            seat = self.balance.as_ref().and_then(|balance| balance.any(tried, Instant::now()));
            if seat.is_none() {
                return Err(error);
            }
            tracing::debug!(upstream = self.upstream.name, %error, "trying another address");
        }
    }

    /// What an attempt to connect may take: no more of the time that is left than falls to one of the addresses that are
    /// left, so that one which accepts nothing is found out, and leaves the next one its time.
    fn share(&self, tried: Tried, end: Option<Instant>) -> Option<Duration> {
        let most = self.upstream.connect_timeout;
        let (Some(_), Some(end)) = (&self.balance, end) else { return most };
        let left = u32::try_from(self.endpoints.len() - tried.count()).unwrap_or(u32::MAX).max(1);
        let share = end.saturating_duration_since(Instant::now()) / left;
        Some(most.map_or(share, |most| most.min(share)))
    }

    /// Closes what has been idle for too long, or with `all` whatever is idle.
    pub fn reap(&self, now: Instant, all: bool) {
        let limit = if all { Some(Duration::ZERO) } else { self.upstream.pool.idle_timeout };
        if let Some(limit) = limit {
            for endpoint in &self.endpoints {
                endpoint.reap(now, limit);
            }
        }
    }

    /// Idle HTTP/1 connections and open HTTP/2 ones.
    pub fn len(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Lease ===

impl Lease {
    fn of(held: Held, endpoint: &Arc<Endpoint>, seat: Option<Seat>) -> Self {
        Self { connection: held.connection, endpoint: Arc::clone(endpoint), permit: held.permit, seat }
    }

    /// What is spoken on the connection.
    pub fn protocol(&self) -> Protocol {
        match &self.connection {
            Leased::Http1(_) => Protocol::Http1,
            Leased::Http2(_) => Protocol::Http2,
        }
    }

    /// Where it leads.
    pub fn address(&self) -> &UpstreamAddress {
        self.endpoint.address()
    }

    /// The address's own `Host`.
    pub fn host(&self) -> &HeaderValue {
        self.endpoint.host()
    }

    /// Whether the upstream has other addresses too.
    pub fn is_chosen(&self) -> bool {
        self.seat.is_some()
    }

    /// What `:scheme` says.
    pub fn scheme(&self) -> Scheme {
        if self.endpoint.is_secure() { Scheme::HTTPS } else { Scheme::HTTP }
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

    /// The connection has become a tunnel: only its place is left to be held.
    pub fn into_place(self) -> Place {
        Place { _permit: self.permit, _seat: self.seat }
    }

    /// The exchange is over, both bodies included: the connection may serve the next one.
    pub fn finish(self, now: Instant) {
        match self.connection {
            Leased::Http1(connection) => self.endpoint.keep(connection, now),
            Leased::Http2(stream) => stream.finish(now),
        }
    }
}
