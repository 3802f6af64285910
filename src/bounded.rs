//! A map that is bounded by the weight of what it holds: the one place that names the library behind it.
//!
//! quick_cache rather than moka: a hit costs a read lock on one of many shards and no bookkeeping, where moka also
//! records each read in a queue and works it off on the caller's thread; with two look-ups a request that was 4 % of
//! the whole. What is used least goes first (a clock, not a strict LRU), and one pass over many keys does not drive out
//! what is used again and again. It knows nothing of time: freshness is the owner's check on each read.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

/// What an entry takes beside what it holds: its place in the map and in the map's memory of what it has let go, and
/// what the allocator needs for its dozen allocations. Measured, see `benches/README.md`.
const OVERHEAD: usize = 240;

/// The part of what entries hold that the allocator loses between entries of many sizes.
const SCATTER: usize = 16;

/// What an entry weighs on average, to size the tables by.
const TYPICAL: u64 = 2048;

/// A key that carries its own, uniformly spread hash and feeds it, alone, to [`Hasher::write_u64`].
pub trait Prehashed: Hash + Eq + Clone {
    /// Bytes that the key holds.
    fn weight(&self) -> usize;
}

/// A value that can be weighed. Cloned on each hit, so a handle.
pub trait Weighed: Clone {
    /// Bytes that the value holds.
    fn weight(&self) -> usize;
}

/// The map. All methods may be called from any thread.
pub struct Bounded<K, V>(Cache<K, V, Scale, PassThrough, DefaultLifecycle<K, V>>);

#[derive(Clone)]
struct Scale;

/// Builds the hasher that takes a [`Prehashed`] key's own hash.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassThrough;

/// The hash that the key told.
#[derive(Debug, Default)]
pub struct Told(u64);

// === impl Bounded ===

impl<K: Prehashed, V: Weighed> Bounded<K, V> {
    /// Holds `max_bytes` at most, of memory rather than of content: 240 bytes and a sixteenth come on top of each entry.
    #[expect(clippy::expect_used, reason = "both capacities are set")]
    pub fn new(max_bytes: u64) -> Self {
        let items = usize::try_from((max_bytes / TYPICAL).clamp(16, 4_000_000)).unwrap_or(16);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(max_bytes)
            .build()
            .expect("the options are complete");
        Self(Cache::with_options(options, Scale, PassThrough, DefaultLifecycle::default()))
    }

    /// The value.
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)
    }

    /// Puts a value in the place of any that was there.
    pub fn insert(&self, key: K, value: V) {
        self.0.insert(key, value);
    }

    /// Removes a value.
    pub fn remove(&self, key: &K) {
        self.0.remove(key);
    }

    /// Removes what `goes` says; how many those were. Looks at every entry.
    pub fn remove_if(&self, goes: impl Fn(&K, &V) -> bool) -> usize {
        let gone = Cell::new(0);
        self.0.retain(|key, value| {
            let goes = goes(key, value);
            gone.set(gone.get() + usize::from(goes));
            !goes
        });
        gone.get()
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their weight in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.weight()
    }
}

impl<K: Prehashed, V: Weighed> fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("entries", &self.len()).field("bytes", &self.bytes()).finish()
    }
}

// === impl Scale, PassThrough, Told ===

impl<K: Prehashed, V: Weighed> Weighter<K, V> for Scale {
    fn weight(&self, key: &K, value: &V) -> u64 {
        let content = key.weight() + value.weight();
        (content + content / SCATTER + OVERHEAD) as u64
    }
}

impl BuildHasher for PassThrough {
    type Hasher = Told;

    fn build_hasher(&self) -> Told {
        Told::default()
    }
}

impl Hasher for Told {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// A [`Prehashed`] key never comes here; whatever does is still hashed soundly (FNV-1a).
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Eq)]
    struct Key(u64);

    impl Hash for Key {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u64(self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
    }

    impl Prehashed for Key {
        fn weight(&self) -> usize {
            8
        }
    }

    impl Weighed for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    #[test]
    fn the_bound_holds_whatever_is_put_in() {
        let map = Bounded::new(1 << 20);
        for key in 0..10_000 {
            map.insert(Key(key), 1000);
            assert!(map.bytes() <= 1 << 20);
        }
        assert!(map.len() > 300, "{map:?}");
    }

    #[test]
    fn what_is_used_stays_while_others_pass() {
        let map = Bounded::new(1 << 20);
        map.insert(Key(u64::MAX), 1000);
        for key in 0..10_000 {
            map.insert(Key(key), 1000);
            assert!(map.get(&Key(u64::MAX)).is_some(), "{key}");
        }
    }

    #[test]
    fn a_key_takes_the_place_of_its_equal_only() {
        let map = Bounded::new(1 << 20);
        map.insert(Key(1), 1);
        map.insert(Key(1), 2);
        map.insert(Key(2), 3);
        assert_eq!((map.get(&Key(1)), map.len()), (Some(2), 2));
        assert_eq!(map.remove_if(|_, value| *value == 2), 1);
        map.remove(&Key(2));
        assert!(map.is_empty() && map.bytes() == 0);
    }
}
