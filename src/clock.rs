//! The only place that reads wall time.
//!
//! Everything that waits or measures uses `tokio::time::Instant`, which tests can pause. Wall time is needed to judge
//! `exp`, `nbf` and `iat` alone; a clock made by [`Clock::following`] derives it from the (paused) monotonic time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A point in wall time: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(i64);

/// One reading of both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For life times, deadlines and measurements.
    pub mono: Instant,
    /// For `exp`, `nbf`, `iat` and log lines.
    pub wall: Wall,
}

/// Where wall time comes from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Following { start: Instant, wall: Arc<AtomicI64> },
}

// === impl Wall ===

impl Wall {
    /// From whole seconds since the epoch, as in a JWT's NumericDate (RFC 7519 section 2); saturates.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Later by `by`; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Earlier by `by`; saturates.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// Moved by a signed number of milliseconds; saturates.
    #[must_use]
    pub fn shifted(self, by_millis: i64) -> Self {
        Self(self.0.saturating_add(by_millis))
    }

    /// How long from `earlier` to this, zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As the standard library's type, for formatting.
    pub fn to_system(self) -> SystemTime {
        let offset = Duration::from_millis(self.0.unsigned_abs());
        if self.0 < 0 { UNIX_EPOCH - offset } else { UNIX_EPOCH + offset }
    }
}

fn millis(of: Duration) -> i64 {
    i64::try_from(of.as_millis()).unwrap_or(i64::MAX)
}

// === impl Now ===

impl Now {
    /// How much more, or less, has passed on the wall clock than on the monotonic one since an earlier reading: what it was
    /// set by, or how long the machine slept.
    pub fn parted_from(self, earlier: Self) -> Duration {
        let expected = earlier.wall.plus(self.mono.saturating_duration_since(earlier.mono));
        self.wall.since(expected).max(expected.since(self.wall))
    }
}

// === impl Clock ===

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that starts at `start` and moves with `tokio::time`, paused or not.
    pub fn following(start: Wall) -> Self {
        Self(Source::Following { start: Instant::now(), wall: Arc::new(AtomicI64::new(start.0)) })
    }

    /// Moves a following clock's wall time by `by_millis` without moving monotonic time: a clock that was set.
    /// The machine's clock is not touched.
    pub fn step(&self, by_millis: i64) {
        if let Source::Following { wall, .. } = &self.0 {
            wall.fetch_add(by_millis, Ordering::Relaxed);
        }
    }

    /// Both clocks, read once.
    pub fn now(&self) -> Now {
        self.at(Instant::now())
    }

    /// Wall time beside a reading of the monotonic clock that was made a moment ago.
    pub fn at(&self, mono: Instant) -> Now {
        Now { mono, wall: self.wall_at(mono) }
    }

    /// Wall time alone.
    pub fn wall(&self) -> Wall {
        self.wall_at(Instant::now())
    }

    /// Wall time in nanoseconds since the epoch, at a reading of the monotonic clock that was made a moment ago: for what is
    /// compared with the clocks of other machines.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads wall time")]
    pub fn nanos(&self, mono: Instant) -> u64 {
        let nanos = |of: Duration| u64::try_from(of.as_nanos()).unwrap_or(u64::MAX);
        match &self.0 {
            Source::System => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
                now.saturating_sub(nanos(mono.elapsed()))
            }
            Source::Following { start, wall } => {
                let wall = Duration::from_millis(u64::try_from(wall.load(Ordering::Relaxed)).unwrap_or(0));
                nanos(wall).saturating_add(nanos(mono.duration_since(*start)))
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads wall time")]
    fn wall_at(&self, mono: Instant) -> Wall {
        match &self.0 {
            Source::System => Wall(
                SystemTime::now().duration_since(UNIX_EPOCH).map_or_else(|before| -millis(before.duration()), millis),
            ),
            Source::Following { start, wall } => Wall(wall.load(Ordering::Relaxed)).plus(mono.duration_since(*start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_following_clock_moves_with_paused_time() {
        let clock = Clock::following(Wall::from_seconds(1000));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.wall().as_seconds(), 1005);
        clock.step(-10_000);
        assert_eq!(clock.now().wall.as_seconds(), 995);
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_part_by_what_one_was_set_by() {
        for step in [0, 3_600_000, -3_600_000] {
            let clock = Clock::following(Wall::from_seconds(1000));
            let begun = clock.now();
            tokio::time::advance(Duration::from_secs(5)).await;
            clock.step(step);
            assert_eq!(clock.now().parted_from(begun), Duration::from_millis(step.unsigned_abs()));
        }
    }

    #[test]
    fn wall_time_saturates() {
        assert_eq!(Wall::from_seconds(i64::MAX).plus(Duration::MAX).as_millis(), i64::MAX);
        assert_eq!(Wall::from_seconds(1).since(Wall::from_seconds(5)), Duration::ZERO);
        assert_eq!(Wall::from_millis(-1).as_seconds(), -1);
    }
}
