//! The events that were followed a moment ago: Svix sends one again when it did not hear that it was taken.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::signature::TOLERANCE;
use crate::secret::Digest;

/// How long one is remembered: for as long as its signature can be fresh, which may be of the future as well.
const LIFE: Duration = Duration::from_secs(2 * TOLERANCE.as_secs());

/// Events at most. The oldest give way: to follow one twice does no harm.
const CAPACITY: usize = 16_384;

/// Ids by their digests, bounded in time and number.
#[derive(Debug, Default)]
pub struct Replays(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<Digest>,
    order: VecDeque<(Instant, Digest)>,
}

// === impl Replays ===

impl Replays {
    /// Whether this one was remembered.
    pub fn has(&self, id: &str, now: Instant) -> bool {
        let mut known = self.known();
        known.forget(now, CAPACITY);
        known.ids.contains(&Digest::of(id.as_bytes()))
    }

    /// Remembers one.
    pub fn remember(&self, id: &str, now: Instant) {
        let (mut known, digest) = (self.known(), Digest::of(id.as_bytes()));
        known.forget(now, CAPACITY - 1);
        if known.ids.insert(digest) {
            known.order.push_back((now + LIFE, digest));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Known ===

impl Known {
    /// Forgets what is over, and the oldest beyond so many.
    fn forget(&mut self, now: Instant, most: usize) {
        while self.order.front().is_some_and(|(until, _)| *until <= now || self.order.len() > most) {
            if let Some((_, digest)) = self.order.pop_front() {
                self.ids.remove(&digest);
            }
        }
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
        assert_eq!(replays.known().order.len(), 0);
    }

    /// Fails without the bound.
    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_events_is_bounded() {
        let (replays, now) = (Replays::default(), Instant::now());
        for number in 0..CAPACITY + 10 {
            replays.remember(&number.to_string(), now);
        }
        let counts = |known: &Known| (known.ids.len(), known.order.len());
        assert_eq!(counts(&replays.known()), (CAPACITY, CAPACITY));
        assert!(!replays.has("9", now) && replays.has("10", now) && replays.has(&(CAPACITY + 9).to_string(), now));
    }
}
