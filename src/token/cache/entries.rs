//! Live tokens in memory, bounded by weight. It knows nothing of time.

use std::sync::Arc;

use crate::bounded::{Bounded, Prehashed, Weighed};
use crate::token::freshness::Life;
use crate::token::{Token, TokenKey};

/// The map.
#[derive(Debug)]
pub(super) struct Entries(Bounded<TokenKey, Kept>);

/// A token that may be served while its life lasts.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) token: Arc<Token>,
    pub(super) life: Life,
}

// === impl Entries ===

impl Entries {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self(Bounded::new(max_bytes))
    }

    pub(super) fn get(&self, key: &TokenKey) -> Option<Kept> {
        self.0.get(key)
    }

    pub(super) fn insert(&self, key: &TokenKey, kept: Kept) {
        self.0.insert(key.clone(), kept);
    }

    /// Removes what `goes` says; how many those were.
    pub(super) fn remove_if(&self, goes: impl Fn(&TokenKey, &Kept) -> bool) -> usize {
        self.0.remove_if(goes)
    }

    /// Entries and their weight in bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.0.len(), self.0.bytes())
    }
}

// === impl TokenKey, Kept ===

impl Prehashed for TokenKey {
    fn weight(&self) -> usize {
        TokenKey::weight(self)
    }
}

impl Weighed for Kept {
    fn weight(&self) -> usize {
        self.token.weight() + size_of::<Self>()
    }
}
