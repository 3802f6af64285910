//! The events that were followed a moment ago: Svix sends one again when it did not hear that it was taken.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::signature::TOLERANCE;
use crate::lapsing::Lapsing;
use crate::secret::Digest;

/// How long one is remembered: for as long as its signature can be fresh, which may be of the future as well.
const LIFE: Duration = Duration::from_secs(2 * TOLERANCE.as_secs());

/// Events at most. The oldest give way: to follow one twice does no harm.
const CAPACITY: usize = 16_384;

/// Ids by their digests, bounded in time and number.
#[derive(Debug)]
pub struct Replays(Mutex<Lapsing<Digest, ()>>);

// === impl Replays ===

impl Replays {
    /// Whether this one was remembered.
    pub fn has(&self, id: &str, now: Instant) -> bool {
        self.known().get(&Digest::of(id.as_bytes()), now).is_some()
    }

    /// Remembers one.
    pub fn remember(&self, id: &str, now: Instant) {
        let mut known = self.known();
        known.sweep(now);
        known.insert(Digest::of(id.as_bytes()), (), now + LIFE);
    }

    fn known(&self) -> MutexGuard<'_, Lapsing<Digest, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Replays {
    fn default() -> Self {
        Self(Mutex::new(Lapsing::new(CAPACITY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_event_is_remembered_for_as_long_as_it_could_be_repeated() {
        let (replays, begin) = (Replays::default(), Instant::now());
        assert!(!replays.has("a", begin));
        replays.remember("a", begin);
        replays.remember("a", begin);
        let last = begin + LIFE.checked_sub(Duration::from_millis(1)).unwrap();
        assert!(replays.has("a", last) && !replays.has("b", last));
        assert!(!replays.has("a", begin + LIFE));
        replays.remember("b", begin + LIFE);
        assert_eq!(replays.known().len(), 1);
    }

    /// Fails without the bound.
    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_events_is_bounded() {
        let (replays, now) = (Replays::default(), Instant::now());
        for number in 0..CAPACITY + 10 {
            replays.remember(&number.to_string(), now);
        }
        assert_eq!(replays.known().len(), CAPACITY);
        assert!(!replays.has("9", now) && replays.has("10", now) && replays.has(&(CAPACITY + 9).to_string(), now));
    }
}
