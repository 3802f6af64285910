//! The arithmetic of the budget: a bucket of units that fills up again, and a pace for each session.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Budget, Rate};
use crate::session::SessionId;

/// Sessions whose pace is remembered. Only a session that minted within `per_session`'s window is worth it, and the
/// bucket limits how many those are; beyond this many a newcomer is held by the bucket alone.
const MAX_SESSIONS: usize = 100_000;

/// A token bucket. It is our own because the usual crate for it reads the system's clock, which tests cannot pause, and
/// cannot keep a part back from those who refresh ahead of time.
#[derive(Debug)]
pub(super) struct Bucket {
    capacity: f64,
    /// Units in a second.
    rate: f64,
    reserve: f64,
    available: f64,
    filled_at: Instant,
}

/// When each session may mint next (the generic cell rate algorithm: one time stamp a session).
#[derive(Debug)]
pub(super) struct Paces {
    rate: Rate,
    /// When a session's allowance would be whole again.
    whole_at: HashMap<SessionId, Instant>,
    /// The map is swept when it has grown to this.
    sweep_at: usize,
}

/// The size of a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measure {
    pub(super) capacity: f64,
    /// Units in a second.
    pub(super) rate: f64,
    pub(super) reserve: f64,
}

// === impl Measure ===

impl Measure {
    /// Of a bucket with so many units in a window.
    pub(super) fn of(budget: &Budget, capacity: f64) -> Self {
        let rate = capacity / budget.per.as_secs_f64().max(0.001);
        Self { capacity, rate, reserve: (capacity * budget.reserve).min(capacity - 1.0) }
    }
}

// === impl Bucket ===

impl Bucket {
    /// Full: the burst is the whole window's share.
    pub(super) fn new(budget: &Budget, now: Instant) -> Self {
        let Measure { capacity, rate, reserve } = Measure::of(budget, budget.own_requests());
        Self { capacity, rate, reserve, available: capacity, filled_at: now }
    }

    /// For another budget: what has been spent of this one is spent of that one too, since the issuer goes on counting.
    pub(super) fn resized(&mut self, budget: &Budget, now: Instant) -> Self {
        self.fill(now);
        let (spent, mut resized) = (self.capacity - self.available, Self::new(budget, now));
        resized.available -= spent;
        resized
    }

    /// Takes a unit, or says when there will be one. Who refreshes ahead leaves the reserve untouched.
    pub(super) fn take(&mut self, ahead: bool, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        let needed = if ahead { 1.0 + self.reserve } else { 1.0 };
        // A thousandth of a unit is forgiven, or rounding would let a waiter sleep twice.
        let missing = needed - self.available;
        if missing > 0.001 {
            return Err(now + Duration::from_secs_f64(missing / self.rate));
        }
        self.available -= 1.0;
        Ok(())
    }

    /// Takes a unit that somebody else has granted, also where there is none.
    pub(super) fn debit(&mut self, now: Instant) {
        self.fill(now);
        self.available = (self.available - 1.0).max(0.0);
    }

    /// Whole units that are left.
    pub(super) fn available(&mut self, now: Instant) -> i64 {
        self.fill(now);
        #[expect(clippy::cast_possible_truncation, reason = "at most the configured u32")]
        let units = self.available.max(0.0) as i64;
        units
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.available = (self.available + passed * self.rate).min(self.capacity);
        self.filled_at = self.filled_at.max(now);
    }
}

// === impl Paces ===

impl Paces {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, whole_at: HashMap::new(), sweep_at: 1024 }
    }

    /// Takes one of the session's mints and says from when on it may run. `None`, and nothing is taken, when that is
    /// later than `latest`; then with the time to wait.
    pub(super) fn take(&mut self, sid: &SessionId, now: Instant, latest: Instant) -> Result<Instant, Duration> {
        let window = self.rate.per;
        let step = window / self.rate.count.max(1);
        let whole_at = self.whole_at.get(sid).copied().unwrap_or(now).max(now) + step;
        let from = (whole_at - window).max(now);
        if from > latest {
            return Err(from - now);
        }
        if let Some(known) = self.whole_at.get_mut(sid) {
            *known = whole_at;
        } else if self.has_room(now) {
            self.whole_at.insert(sid.clone(), whole_at);
        }
        Ok(from)
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.whole_at.len() >= self.sweep_at {
            self.whole_at.retain(|_, whole_at| *whole_at > now);
            self.sweep_at = (self.whole_at.len() * 2).clamp(1024, MAX_SESSIONS);
        }
        self.whole_at.len() < MAX_SESSIONS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::fake;

    fn budget(requests: u32, share: f64, replicas: u32, reserve: f64) -> Budget {
        Budget { requests, share, replicas, reserve, ..fake::budget() }
    }

    #[test]
    fn the_burst_is_the_share_and_the_reserve_is_kept() {
        let now = Instant::now();
        let mut bucket = Bucket::new(&budget(1000, 0.8, 2, 0.2), now);
        let ahead = std::iter::from_fn(|| bucket.take(true, now).ok()).count();
        assert_eq!(ahead, 320);
        let waiting = std::iter::from_fn(|| bucket.take(false, now).ok()).count();
        assert_eq!(waiting, 80);
        assert_eq!(bucket.take(false, now), Err(now + Duration::from_millis(25)), "40 units a second");
        assert!(bucket.take(false, now + Duration::from_millis(25)).is_ok());
        assert_eq!(bucket.available(now + Duration::from_mins(1)), 400, "never above the share");
    }

    #[test]
    fn a_share_below_one_unit_still_mints() {
        let now = Instant::now();
        let mut bucket = Bucket::new(&budget(10, 0.1, 10, 0.9), now);
        assert!(bucket.take(true, now).is_ok() && bucket.take(false, now).is_err());
        assert!(bucket.take(false, now + Duration::from_secs(10)).is_ok());
    }

    /// Threads read the clock before they take the lock, so the times do not come in order. Fails when `filled_at` goes
    /// back.
    #[test]
    fn no_time_is_counted_twice() {
        let now = Instant::now();
        let mut bucket = Bucket::new(&budget(100, 0.8, 1, 0.0), now);
        while bucket.take(false, now).is_ok() {}
        let later = now + Duration::from_secs(1);
        assert_eq!((bucket.available(later), bucket.available(now), bucket.available(later)), (8, 8, 8));
    }

    #[test]
    fn a_session_has_its_own_pace() {
        let now = Instant::now();
        let mut paces = Paces::new(Rate { count: 20, per: Duration::from_secs(10) });
        let (one, other) = (SessionId::new("one").unwrap(), SessionId::new("other").unwrap());
        for _ in 0..20 {
            assert_eq!(paces.take(&one, now, now), Ok(now));
        }
        let half = Duration::from_millis(500);
        assert_eq!(paces.take(&one, now, now), Err(half));
        assert_eq!(paces.take(&one, now, now), Err(half), "a refusal takes nothing");
        assert_eq!(paces.take(&other, now, now), Ok(now));
        assert_eq!(paces.take(&one, now, now + half), Ok(now + half));
        assert_eq!(paces.take(&one, now, now + half), Err(2 * half));
    }

    #[test]
    fn forgotten_paces_take_no_room() {
        let mut now = Instant::now();
        let mut paces = Paces::new(Rate { count: 20, per: Duration::from_secs(10) });
        for number in 0..50_000 {
            let _ = paces.take(&SessionId::new(&format!("s{number}")).unwrap(), now, now);
            now += Duration::from_millis(10);
        }
        assert!(paces.whole_at.len() <= 1024, "{}", paces.whole_at.len());
    }

    proptest! {
        /// Over any span no more is taken than the burst and what flows in meanwhile, and a unit is there when promised.
        #[test]
        fn the_bucket_keeps_its_rate(steps in proptest::collection::vec((0_u64..2000, any::<bool>()), 1..200)) {
            let start = Instant::now();
            let mut bucket = Bucket::new(&budget(50, 0.8, 1, 0.25), start);
            let (mut now, mut taken) = (start, 0.0);
            for (wait, ahead) in steps {
                now += Duration::from_millis(wait);
                match bucket.take(ahead, now) {
                    Ok(()) => taken += 1.0,
                    Err(at) => {
                        prop_assert!(at > now);
                        now = at + Duration::from_micros(1);
                        prop_assert!(bucket.take(ahead, now).is_ok());
                        taken += 1.0;
                    }
                }
                prop_assert!(taken <= 40.0 + 4.0 * (now - start).as_secs_f64() + 0.01);
            }
        }
    }
}
