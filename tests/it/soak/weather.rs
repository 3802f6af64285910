//! What goes wrong around the gateway, one thing at a time, and which failures that excuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Trouble {
    None = 0,
    /// The upstream breaks connections: before, within and after its answers.
    Resets = 1,
    /// The issuer answers 503.
    Outage = 2,
    /// The issuer answers 429.
    Throttle = 3,
    /// The issuer answers with the token of another session.
    Lies = 4,
}

/// Troubles in the order in which they come.
pub(crate) const TROUBLES: [Trouble; 4] = [Trouble::Resets, Trouble::Outage, Trouble::Throttle, Trouble::Lies];

/// See the file's comment.
pub(crate) struct Weather {
    now: AtomicU8,
    began: Instant,
    grace: Duration,
    /// Until when the issuer's failures and the upstream's are excused, in milliseconds after `began`.
    issuer: AtomicU64,
    upstream: AtomicU64,
    /// Ends connections to the upstream whenever its trouble begins.
    storms: watch::Sender<u64>,
}

// === impl Weather ===

impl Weather {
    /// Fair, with failures excused for `grace` after a trouble.
    pub(crate) fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU8::new(0),
            began: Instant::now(),
            grace,
            issuer: AtomicU64::new(0),
            upstream: AtomicU64::new(0),
            storms: watch::Sender::new(0),
        })
    }

    pub(crate) fn now(&self) -> Trouble {
        match self.now.load(Relaxed) {
            0 => Trouble::None,
            1 => Trouble::Resets,
            2 => Trouble::Outage,
            3 => Trouble::Throttle,
            _ => Trouble::Lies,
        }
    }

    /// The next trouble, or the end of one.
    pub(crate) fn turn(&self, trouble: Trouble) {
        let until = self.millis() + u64::try_from(self.grace.as_millis()).unwrap();
        match self.now() {
            Trouble::None => {}
            Trouble::Resets => self.upstream.store(until, Relaxed),
            Trouble::Outage | Trouble::Throttle | Trouble::Lies => self.issuer.store(until, Relaxed),
        }
        match trouble {
            Trouble::None => {}
            Trouble::Resets => self.upstream.store(u64::MAX, Relaxed),
            Trouble::Outage | Trouble::Throttle | Trouble::Lies => self.issuer.store(u64::MAX, Relaxed),
        }
        self.now.store(trouble as u8, Relaxed);
        if trouble == Trouble::Resets {
            self.storms.send_modify(|count| *count += 1);
        }
    }

    /// Changes when connections to the upstream are to be broken.
    pub(crate) fn storms(&self) -> watch::Receiver<u64> {
        self.storms.subscribe()
    }

    /// Whether a failure has a trouble to blame, now or a moment ago.
    pub(crate) fn excuses(&self, failure: &str) -> bool {
        let until = if failure.starts_with("issuer-") { &self.issuer } else { &self.upstream };
        let blamable = ["issuer-", "upstream-", "cut"].iter().any(|kind| failure.starts_with(kind));
        blamable && self.millis() <= until.load(Relaxed)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }
}
