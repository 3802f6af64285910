//! What is known about one downstream connection, shared by its socket and the requests on it.
//!
//! The fields that change are written by the connection's worker alone; they are atomics with relaxed order only so
//! that the type may be shared, and cost plain loads and stores.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::address::{BoundAddress, PeerAddress};
use crate::config::Limits;
use crate::listener::rest::Rest;
use crate::listener::sequel::{Sequel, Slot};
use crate::listener::timer::Timer;
use crate::metrics::ListenerId;
use crate::transport::tls::server::Leaf;

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

/// What an answer's body has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It was not asked.
    Nothing,
    /// It waits for the upstream.
    Waits,
    /// It gave bytes away, and has to be over by that time.
    Gave(Option<Instant>),
}

/// Between whom a connection is.
#[derive(Debug, Clone)]
pub struct Ends {
    /// Who calls.
    pub peer: PeerAddress,
    /// The bound address of the listener.
    pub local: BoundAddress,
    /// Through which listener.
    pub listener: ListenerId,
}

/// What a TLS handshake has shown.
#[derive(Debug, Clone)]
pub struct Secured {
    /// The name that the client asked for (SNI), lower case.
    pub server_name: Option<Box<str>>,
    /// The certificate that it was shown.
    pub leaf: Arc<Leaf>,
}

/// One downstream connection.
#[derive(Debug)]
pub struct Connection {
    /// Between whom it is.
    pub ends: Ends,
    /// TLS; `None`: there is none.
    pub secured: Option<Secured>,
    /// Built when first needed, then shared by every request of the connection.
    forwarding: Mutex<Option<Forwarding>>,
    version: AtomicU8,
    phase: AtomicU8,
    /// Requests under way; more than one only on HTTP/2.
    active: AtomicU32,
    opened: Instant,
    /// When the phase began, in milliseconds after `opened`, plus one; 0: not known yet.
    since: AtomicU64,
    first_limit: Option<Duration>,
    idle_limit: Option<Duration>,
    /// How long its peer may take no bytes.
    pub write_stall: Option<Duration>,
    /// When it has served for long enough.
    retires: Option<Instant>,
    retired: AtomicBool,
    /// The last request was answered before its body was read.
    unread: AtomicBool,
    /// Frames of HTTP/2 that may have come, or may yet come, for streams that are over.
    late: AtomicU32,
    timer: Mutex<Timer>,
    /// What the body of the answer that was polled last has done; see [`Connection::heard`].
    note: AtomicU64,
    /// What goes on with the socket, or with a stream of HTTP/2, once HTTP is over on it.
    pub sequel: Slot,
}

/// What `X-Forwarded-For`, `X-Forwarded-Host` and `Forwarded` say for one Host.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// The Host for which this was built.
    pub host: HeaderValue,
    /// The peer's address; a process behind a Unix socket has none.
    pub peer: Option<HeaderValue>,
    /// RFC 7239: `for=...;host=...;proto=...`.
    pub forwarded: HeaderValue,
}

// === impl Connection ===

impl Connection {
    /// A connection that was just accepted, after its handshake where it has one.
    pub fn new(ends: Ends, secured: Option<Secured>, limits: &Limits) -> Self {
        let opened = Instant::now();
        Self {
            ends,
            secured,
            forwarding: Mutex::default(),
            version: AtomicU8::new(0),
            phase: AtomicU8::new(Phase::First as u8),
            active: AtomicU32::new(0),
            opened,
            since: AtomicU64::new(1),
            first_limit: limits.first_byte,
            idle_limit: limits.idle,
            write_stall: limits.write_stall,
            retires: limits.max_age.map(|age| opened + earlier(age)),
            retired: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            late: AtomicU32::new(0),
            timer: Mutex::default(),
            note: AtomicU64::new(NOTHING),
            sequel: Slot::default(),
        }
    }

    /// The scheme of what is asked for on it.
    pub fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// The protocol, once it is known.
    pub fn version(&self) -> Version {
        if self.version.load(Relaxed) == 2 { Version::Http2 } else { Version::Http1 }
    }

    /// Notes the protocol.
    pub fn set_version(&self, version: Version) {
        self.version.store(if version == Version::Http2 { 2 } else { 1 }, Relaxed);
        // What has begun an HTTP/1 head is no more than the preface of HTTP/2: its first request is still to come.
        if version == Version::Http2 {
            self.enter(Phase::First, Some(Instant::now()));
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
        self.unread.store(false, Relaxed);
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

    /// Whether this is an HTTP/2 connection on which nothing was asked for too long; it is `Closing` from then on.
    pub fn close_when_idle(&self) -> bool {
        if self.version() == Version::Http1 {
            return false;
        }
        let limit = match self.phase() {
            Phase::First => self.first_limit,
            Phase::Idle => self.idle_limit,
            Phase::Head | Phase::Busy | Phase::Closing => return false,
        };
        let now = Instant::now();
        let over = limit.is_some_and(|limit| now >= self.phase_began() + limit);
        if over {
            self.enter(Phase::Closing, Some(now));
        }
        over
    }

    /// Whether it has served for `max_connection_age`, found out by [`Connection::poll_retirement`], or a drain has begun.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// A drain has begun: on HTTP/1 the next answer is the last one.
    pub fn leave(&self) {
        if self.version() == Version::Http1 {
            self.retired.store(true, Relaxed);
        }
    }

    /// Whether nothing is under way and a request may come that would be lost if the connection were closed now. Over
    /// HTTP/2, where GOAWAY says which requests are served, that is so before the first one alone.
    pub fn may_be_asked(&self) -> bool {
        match self.version() {
            Version::Http1 => self.phase() != Phase::Busy,
            Version::Http2 => self.phase() == Phase::First,
        }
    }

    /// Whether the next answer is the last one and says so: an HTTP/1 connection that is retired, or on which `rest` of
    /// this request's body is still to come and will not be read.
    pub fn says_goodbye(&self, rest: Rest) -> bool {
        self.version() == Version::Http1 && (self.is_retired() || rest > Rest::ARRIVES_WITH_ITS_HEAD)
    }

    /// Whether so much was sent for streams that are over that h2 might soon end the connection, with what is under way
    /// on it: it counts frames on streams that it has forgotten as errors of the peer, and ends after 1024 of them.
    pub fn is_worn(&self) -> bool {
        self.late.load(Relaxed) >= LATE_FRAMES
    }

    /// Waits for the end of `max_connection_age` on the connection's own timer. For the connection's task alone.
    pub fn poll_retirement(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.retires else { return Poll::Pending };
        if self.is_retired() {
            return Poll::Ready(());
        }
        let polled = self.poll_deadline(cx, at);
        if polled.is_ready() {
            self.retired.store(true, Relaxed);
        }
        polled
    }

    /// An answer's body has given bytes away; the answer has to be over by `end`.
    pub fn gave(&self, end: Option<Instant>) {
        let note = end.map_or(GAVE, |end| {
            let millis = end.saturating_duration_since(self.opened).as_millis();
            u64::try_from(millis).unwrap_or(u64::MAX / 2) + GAVE + 1
        });
        self.note.store(note, Relaxed);
    }

    /// An answer's body has nothing to give yet.
    pub fn waits_for_upstream(&self) {
        self.note.store(WAITS, Relaxed);
    }

    /// What the body of an answer did last since this was asked last. Streams share it: whoever polls one asks before,
    /// to forget, and after.
    pub fn heard(&self) -> Heard {
        match self.note.swap(NOTHING, Relaxed) {
            NOTHING => Heard::Nothing,
            WAITS => Heard::Waits,
            GAVE => Heard::Gave(None),
            end => Heard::Gave(Some(self.opened + Duration::from_millis(end - GAVE - 1))),
        }
    }

    /// The last request was answered although `rest` of its body was not read.
    pub fn leave_unread(&self, rest: Rest) {
        self.unread.store(rest != Rest::NONE, Relaxed);
        if self.version() == Version::Http2 {
            self.late.store(self.late.load(Relaxed).saturating_add(rest.frames()), Relaxed);
        }
    }

    /// Whether the caller may still be sending what nobody will read: to close at once could cost it the answer.
    pub fn has_unread(&self) -> bool {
        self.version() == Version::Http1 && (self.unread.load(Relaxed) || self.phase() == Phase::Head)
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

    /// What follows when HTTP is over on the socket. It may run in another task: no timer remembers this one.
    pub fn take_sequel(&self) -> Option<Sequel> {
        let sequel = self.sequel.take();
        if sequel.is_some() {
            *lock(&self.timer) = Timer::default();
        }
        sequel
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

/// Values of `Connection::note`; from [`GAVE`] + 1 on, the milliseconds to the answer's end.
const NOTHING: u64 = 0;
const WAITS: u64 = 1;
const GAVE: u64 = 2;

/// How many late frames end a connection well: half of what h2 ends it for, since it does not end at once.
const LATE_FRAMES: u32 = 512;

/// Up to a tenth earlier: connections that began together do not end together.
fn earlier(age: Duration) -> Duration {
    age.mul_f64(1.0 - fastrand::f64() / 10.0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::SocketAddr;

    use super::*;

    fn limits(max_age: Option<Duration>) -> Limits {
        let some = |seconds| Some(Duration::from_secs(seconds));
        Limits {
            max_connections: 1,
            max_header_bytes: 8192,
            max_uri_bytes: 8192,
            first_byte: some(10),
            header_read: some(10),
            idle: some(75),
            body_progress: None,
            write_stall: None,
            request_body: None,
            max_age,
        }
    }

    fn connection() -> Connection {
        aged(None)
    }

    fn aged(max_age: Option<Duration>) -> Connection {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let (peer, local) = (PeerAddress::Tcp(address), BoundAddress::Tcp(address));
        Connection::new(Ends { peer, local, listener: ListenerId::new(0) }, None, &limits(max_age))
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
        assert!(!connection.close_when_idle(), "the time to the first request begins with the protocol");
        connection.begin_request();
        tokio::time::advance(Duration::from_secs(76)).await;
        assert!(!connection.close_when_idle(), "a request is under way");
        connection.end_request(Instant::now());
        tokio::time::advance(Duration::from_secs(76)).await;
        assert!(connection.close_when_idle() && connection.phase() == Phase::Closing);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_without_a_request_has_the_time_of_a_first_byte() {
        let connection = connection();
        connection.set_version(Version::Http2);
        tokio::time::advance(Duration::from_secs(9)).await;
        connection.received();
        assert!(!connection.close_when_idle());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(connection.close_when_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_retires_up_to_a_tenth_earlier_and_never_later() {
        let (start, mut ages) = (Instant::now(), Vec::new());
        for _ in 0..50 {
            let connection = aged(Some(Duration::from_secs(1000)));
            let at = connection.retires.unwrap() - start;
            assert!((900..=1000).contains(&at.as_secs()), "{at:?}");
            ages.push(at);
        }
        ages.dedup();
        assert!(ages.len() > 1, "all at the same moment");
        let connection = aged(Some(Duration::from_secs(1000)));
        // Other deadlines come and go on the same timer.
        poll_fn(|cx| connection.poll_deadline(cx, start + Duration::from_secs(5))).await;
        poll_fn(|cx| connection.poll_retirement(cx)).await;
        // Timers count in milliseconds.
        let late = Instant::now() - connection.retires.unwrap();
        assert!(late < Duration::from_millis(2) && connection.is_retired(), "{late:?}");
    }
}
