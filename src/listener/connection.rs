//! What is known about one downstream connection, shared by its socket and the requests on it.
//!
//! The fields that change are written by the connection's worker alone; they are atomics with relaxed order only so
//! that the type may be shared, and cost plain loads and stores.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, Sleep};

use crate::metrics::ListenerId;

/// The protocol on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where a connection is between two requests. Decides which limit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing has been received.
    First = 0,
    /// A head has begun.
    Head = 1,
    /// A request is under way.
    Busy = 2,
    /// Between requests.
    Idle = 3,
    /// An HTTP/2 connection that was told to end for having been idle.
    Closing = 4,
}

/// One downstream connection.
#[derive(Debug)]
pub struct Connection {
    /// Who calls.
    pub peer: SocketAddr,
    /// The bound address of the listener.
    pub local: SocketAddr,
    /// Through which listener.
    pub listener: ListenerId,
    /// Built when first needed, then shared by every request of the connection.
    forwarding: Mutex<Option<Forwarding>>,
    version: AtomicU8,
    phase: AtomicU8,
    /// Requests under way; more than one only on HTTP/2.
    active: AtomicU32,
    opened: Instant,
    /// When the phase began, in milliseconds after `opened`, plus one; 0: not known yet.
    since: AtomicU64,
    idle_limit: Option<Duration>,
    timer: Mutex<Timer>,
}

/// What `X-Forwarded-For`, `X-Forwarded-Host` and `Forwarded` say for one Host.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// The Host for which this was built.
    pub host: HeaderValue,
    /// The peer's address.
    pub peer: HeaderValue,
    /// RFC 7239: `for=...;host=...;proto=http`.
    pub forwarded: HeaderValue,
}

/// A timer that is armed for the earliest deadline in sight and moved only when it fires too early: a deadline that
/// keeps moving on, as on a busy connection, costs a comparison.
///
/// Invariant: polled by one task only (the connection's), so a waker registered once stays right.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

// === impl Connection ===

impl Connection {
    /// A connection that was just accepted.
    pub fn new(peer: SocketAddr, local: SocketAddr, listener: ListenerId, idle_limit: Option<Duration>) -> Self {
        Self {
            peer,
            local,
            listener,
            forwarding: Mutex::default(),
            version: AtomicU8::new(0),
            phase: AtomicU8::new(Phase::First as u8),
            active: AtomicU32::new(0),
            opened: Instant::now(),
            since: AtomicU64::new(1),
            idle_limit,
            timer: Mutex::default(),
        }
    }

    /// The protocol, once it is known.
    pub fn version(&self) -> Version {
        if self.version.load(Relaxed) == 2 { Version::Http2 } else { Version::Http1 }
    }

    /// Notes the protocol.
    pub fn set_version(&self, version: Version) {
        self.version.store(if version == Version::Http2 { 2 } else { 1 }, Relaxed);
        if version == Version::Http2 {
            self.enter(Phase::Idle, Some(Instant::now()));
        }
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::First,
            1 => Phase::Head,
            2 => Phase::Busy,
            3 => Phase::Idle,
            _ => Phase::Closing,
        }
    }

    /// A request's head is complete.
    pub fn begin_request(&self) {
        self.active.store(self.active.load(Relaxed) + 1, Relaxed);
        self.enter(Phase::Busy, None);
    }

    /// A request has ended, with its answer handed over or given up.
    pub fn end_request(&self, now: Instant) {
        let left = self.active.load(Relaxed).saturating_sub(1);
        self.active.store(left, Relaxed);
        if left == 0 {
            self.enter(Phase::Idle, Some(now));
        }
    }

    /// Bytes have arrived.
    pub fn received(&self) {
        // An HTTP/2 connection is between two requests until a stream opens, whatever frames arrive.
        if self.version.load(Relaxed) != 2 && matches!(self.phase(), Phase::First | Phase::Idle) {
            self.enter(Phase::Head, None);
        }
    }

    /// Whether this is an HTTP/2 connection on which nothing was asked for the idle time; it is `Closing` from then on.
    pub fn close_when_idle(&self) -> bool {
        if self.version() == Version::Http1 || self.phase() != Phase::Idle {
            return false;
        }
        let now = Instant::now();
        let over = self.idle_limit.is_some_and(|limit| now >= self.phase_began() + limit);
        if over {
            self.enter(Phase::Closing, Some(now));
        }
        over
    }

    /// When the phase began; now, when that was not known yet.
    pub fn phase_began(&self) -> Instant {
        match self.since.load(Relaxed) {
            0 => {
                let now = Instant::now();
                self.stamp(now);
                now
            }
            since => self.opened + Duration::from_millis(since - 1),
        }
    }

    /// Waits for a deadline on the connection's own timer. For the connection's task alone: its socket, and on
    /// HTTP/1 its one request.
    pub fn poll_deadline(&self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        lock(&self.timer).poll(cx, deadline)
    }

    /// Waits for the end of the idle time of an HTTP/1 connection; pending while it is not idle. For the connection's
    /// task alone.
    pub fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.idle_limit {
            Some(limit) if self.version() == Version::Http1 && self.phase() == Phase::Idle => {
                self.poll_deadline(cx, self.phase_began() + limit)
            }
            _ => Poll::Pending,
        }
    }

    /// The forwarding headers for a Host, built once as long as it stays the same.
    pub fn forwarding(&self, host: &HeaderValue, build: impl FnOnce() -> Forwarding) -> Forwarding {
        let mut kept = lock(&self.forwarding);
        match &*kept {
            Some(forwarding) if forwarding.host == *host => forwarding.clone(),
            _ => kept.insert(build()).clone(),
        }
    }

    fn enter(&self, phase: Phase, at: Option<Instant>) {
        self.phase.store(phase as u8, Relaxed);
        match at {
            Some(at) => self.stamp(at),
            None => self.since.store(0, Relaxed),
        }
    }

    fn stamp(&self, at: Instant) {
        let millis = at.saturating_duration_since(self.opened).as_millis();
        self.since.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Timer ===

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if sleep.deadline() > deadline {
                    sleep.as_mut().reset(deadline);
                } else if !sleep.is_elapsed() {
                    // Armed for this deadline or an earlier one, with this task's waker.
                    return Poll::Pending;
                } else {
                    if Instant::now() >= deadline {
                        return Poll::Ready(());
                    }
                    sleep.as_mut().reset(deadline);
                }
                sleep
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(deadline))),
        };
        // Whatever budget the task has left: a timer that was not armed now would be taken for armed ever after.
        pin!(tokio::task::unconstrained(sleep.as_mut())).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn connection() -> Connection {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Connection::new(address, address, ListenerId::new(0), Some(Duration::from_secs(75)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_on_is_kept_to() {
        let connection = connection();
        let start = Instant::now();
        for step in 1..=5 {
            let deadline = start + Duration::from_secs(10 * step);
            poll_fn(|cx| {
                let _ = connection.poll_deadline(cx, deadline);
                Poll::Ready(())
            })
            .await;
        }
        poll_fn(|cx| connection.poll_deadline(cx, start + Duration::from_secs(50))).await;
        assert_eq!(start.elapsed(), Duration::from_secs(50));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_is_not_missed() {
        let connection = connection();
        let start = Instant::now();
        poll_fn(|cx| {
            assert!(connection.poll_deadline(cx, start + Duration::from_mins(1)).is_pending());
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| connection.poll_deadline(cx, start + Duration::from_secs(5))).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_phases_of_two_requests_follow_each_other() {
        let connection = connection();
        connection.received();
        assert_eq!(connection.phase(), Phase::Head);
        connection.begin_request();
        connection.received();
        assert_eq!(connection.phase(), Phase::Busy);
        connection.end_request(Instant::now());
        assert_eq!(connection.phase(), Phase::Idle);
        tokio::time::advance(Duration::from_secs(76)).await;
        assert!(!connection.close_when_idle(), "HTTP/1 closes by itself");
        connection.set_version(Version::Http2);
        assert!(!connection.close_when_idle(), "the idle time begins with the protocol");
        tokio::time::advance(Duration::from_secs(76)).await;
        assert!(connection.close_when_idle() && connection.phase() == Phase::Closing);
    }
}
