//! What is counted with: counters, gauges and histograms over fixed bounds, for one writer or for many.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A count that goes up. [`Counter::bump`] is for one writer, [`Counter::add`] for many.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// Upper bounds of the buckets for times, in nanoseconds: 50 us to 60 s. Dense where a gateway's own share lies
/// (below 1 ms) and around Clerk's 250 to 300 ms.
pub const TIME_BOUNDS: [u64; 16] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    60_000_000_000,
];

/// Upper bounds of the buckets for token sizes, in bytes. 4 KiB and 8 KiB are the head limits of common upstreams.
pub const BYTE_BOUNDS: [u64; 16] =
    [256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12_288, 16_384, 24_576, 32_768, 49_152, 65_536];

/// A histogram over sixteen fixed bounds. [`Histogram::observe`] is for one writer, `observe_shared` for many.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last one counts what is above every bound.
    buckets: [AtomicU64; 17],
    sum: AtomicU64,
}

/// So many values at nothing.
pub(super) fn table<T: Default>(size: usize) -> Box<[T]> {
    (0..size).map(|_| T::default()).collect()
}

/// What can be added to another of its kind; for one writer.
pub(super) trait Fold {
    /// Adds what the other one holds.
    fn fold(&self, other: &Self);
}

// === impl Counter, Gauge, Histogram ===

impl Fold for Counter {
    fn fold(&self, other: &Self) {
        self.0.store(self.get().wrapping_add(other.get()), Relaxed);
    }
}

impl Fold for Gauge {
    fn fold(&self, other: &Self) {
        self.set(self.get().wrapping_add(other.get()));
    }
}

impl Fold for Histogram {
    fn fold(&self, other: &Self) {
        for (into, from) in self.buckets.iter().zip(&other.buckets).chain([(&self.sum, &other.sum)]) {
            into.store(into.load(Relaxed).wrapping_add(from.load(Relaxed)), Relaxed);
        }
    }
}

impl Counter {
    /// One more; for the one writer of a shard.
    pub fn bump(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// One more; for any thread.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// So many more; for any thread.
    pub fn add_some(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds, or subtracts what is negative.
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Histogram {
    /// Counts a time; for the one writer of a shard.
    pub fn observe(&self, time: Duration) {
        let value = nanos(time);
        let bucket = &self.buckets[bucket(&TIME_BOUNDS, value)];
        bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        self.sum.store(self.sum.load(Relaxed).wrapping_add(value), Relaxed);
    }

    /// Counts a time; for any thread.
    pub fn observe_shared(&self, time: Duration) {
        self.count_shared(&TIME_BOUNDS, nanos(time));
    }

    /// Counts a size in bytes; for any thread.
    pub fn observe_bytes(&self, bytes: usize) {
        self.count_shared(&BYTE_BOUNDS, bytes as u64);
    }

    /// The buckets (not cumulative, the last one above every bound) and the sum of what was observed.
    pub fn read(&self) -> ([u64; 17], u64) {
        (std::array::from_fn(|index| self.buckets[index].load(Relaxed)), self.sum.load(Relaxed))
    }

    fn count_shared(&self, bounds: &[u64; 16], value: u64) {
        self.buckets[bucket(bounds, value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }
}

fn bucket(bounds: &[u64; 16], value: u64) -> usize {
    bounds.partition_point(|&bound| bound < value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for nanos in [0, 50_000, 50_001, 60_000_000_000, 60_000_000_001] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let (buckets, sum) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[15], buckets[16]), (2, 1, 1, 1));
        assert_eq!(sum, 120_000_100_002);
    }
}
