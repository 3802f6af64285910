//! What the cache that replicas share has cost one mint so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The time that it has cost. Clones are one account: whatever a mint does anew, it has no time anew.
#[derive(Debug, Clone, Default)]
pub struct Spent(Arc<AtomicU64>);

// === impl Spent ===

impl Spent {
    /// All of it.
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// It has cost so much more.
    pub fn add(&self, time: Duration) {
        self.0.fetch_add(nanos(time), Ordering::Relaxed);
    }

    /// So much of it was no cost: it would have been waited for in any case.
    pub fn give_back(&self, time: Duration) {
        let less = |spent: u64| Some(spent.saturating_sub(nanos(time)));
        // It always says what is there then.
        let _before: Result<u64, u64> = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
