//! The issuer's rate limit: so many requests of one instance in ten seconds (contract section 2).

use std::time::Duration;

use tokio::time::Instant;

/// Which of Clerk's limits holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RateLimit {
    /// 1000 requests in 10 s
    Production,
    /// 100 requests in 10 s
    Development,
    /// No limit
    Off,
}

/// Counts the requests of one window.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: RateLimit,
    began: Option<Instant>,
    used: u32,
}

// === impl RateLimit ===

impl RateLimit {
    /// The window in which requests are counted.
    pub const WINDOW: Duration = Duration::from_secs(10);

    /// Requests in one window; `None`: no limit.
    pub const fn requests(self) -> Option<u32> {
        match self {
            Self::Production => Some(1000),
            Self::Development => Some(100),
            Self::Off => None,
        }
    }
}

// === impl Limiter ===

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, began: None, used: 0 }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// How long the block lasts, in whole seconds, 1 or more. A refused request is not counted.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(requests) = self.limit.requests() else { return Ok(()) };
        let began = match self.began {
            Some(began) if now.duration_since(began) < RateLimit::WINDOW => began,
            _ => {
                self.used = 0;
                *self.began.insert(now)
            }
        };
        if self.used < requests {
            self.used += 1;
            return Ok(());
        }
        let left = RateLimit::WINDOW.saturating_sub(now.duration_since(began));
        Err(Duration::from_secs(left.as_millis().div_ceil(1000).try_into().unwrap_or(1).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_admits_its_share_and_tells_when_it_ends() {
        let mut limiter = Limiter::new(RateLimit::Development);
        for _ in 0..100 {
            assert_eq!(limiter.admit(Instant::now()), Ok(()));
        }
        assert_eq!(limiter.admit(Instant::now()), Err(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_millis(9_500)).await;
        assert_eq!(limiter.admit(Instant::now()), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(limiter.admit(Instant::now()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn off_admits_everything() {
        let mut limiter = Limiter::new(RateLimit::Off);
        assert!((0..5000).all(|_| limiter.admit(Instant::now()).is_ok()));
    }
}
