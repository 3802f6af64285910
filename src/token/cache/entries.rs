//! The map of live tokens: bounded by weight, least recently used first out. It knows nothing of time.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::token::freshness::Life;
use crate::token::{Token, TokenKey};

/// What the map itself needs for an entry, measured.
const OVERHEAD: usize = 450;

/// The only place that names the library behind the map.
#[derive(Debug)]
pub(super) struct Entries(Cache<TokenKey, Kept, Prehashed>);

/// A token that may be served while its life lasts.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) token: Arc<Token>,
    pub(super) life: Life,
}

/// Takes the key's own hash, which is spread already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prehashed;

/// The hash that the key told.
#[derive(Debug, Default)]
pub(super) struct Told(u64);

// === impl Entries ===

impl Entries {
    pub(super) fn new(max_bytes: u64) -> Self {
        let weigh = |key: &TokenKey, kept: &Kept| {
            u32::try_from(key.weight() + kept.token.weight() + size_of::<Kept>() + OVERHEAD).unwrap_or(u32::MAX)
        };
        Self(
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .build_with_hasher(Prehashed),
        )
    }

    pub(super) fn get(&self, key: &TokenKey) -> Option<Kept> {
        self.0.get(key)
    }

    pub(super) fn insert(&self, key: &TokenKey, kept: Kept) {
        self.0.insert(key.clone(), kept);
    }

    /// Removes what `goes` says; how many those were.
    pub(super) fn remove_if(&self, goes: impl Fn(&TokenKey, &Kept) -> bool) -> usize {
        let leaving = self.0.iter().filter(|(key, kept)| goes(key, kept));
        leaving.map(|(key, _)| self.0.invalidate(&*key)).count()
    }

    /// Entries and their weight in bytes, counted now.
    pub(super) fn size(&self) -> (u64, u64) {
        self.0.run_pending_tasks();
        (self.0.entry_count(), self.0.weighted_size())
    }
}

// === impl Prehashed, Told ===

impl BuildHasher for Prehashed {
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

    /// A `TokenKey` never comes here; whatever does is still hashed soundly (FNV-1a).
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
