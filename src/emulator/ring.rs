//! The keys of an instance: the one that signs, and those before it whose public halves are still shown.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::{Value, json};

use crate::emulator::keys::{self, CryptoError, SigningKey};

/// One key signs; those before it verify what they have signed until they are retired.
pub(crate) struct Ring(RwLock<Shown>);

struct Shown {
    signs: Arc<Named>,
    before: Vec<Arc<Named>>,
}

/// A key under its `kid`.
pub(crate) struct Named {
    pub(crate) kid: String,
    pub(crate) key: SigningKey,
}

/// Why a key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// No key has this `kid`.
    Unknown,
    /// It signs.
    Signs,
}

// === impl Ring ===

impl Ring {
    /// One new key.
    pub(crate) fn new(kid: String) -> Result<Self, CryptoError> {
        let signs = Arc::new(Named { kid, key: SigningKey::generate()? });
        Ok(Self(RwLock::new(Shown { signs, before: Vec::new() })))
    }

    /// The one that signs now.
    pub(crate) fn signing(&self) -> Arc<Named> {
        Arc::clone(&self.read().signs)
    }

    /// The public halves of all of them, the newest first.
    pub(crate) fn jwks(&self) -> Value {
        let shown = self.read();
        let keys = std::iter::once(&shown.signs).chain(shown.before.iter().rev());
        json!({ "keys": keys.map(|named| named.key.jwk(&named.kid)).collect::<Vec<_>>() })
    }

    /// A new key signs from now on; the one before it stays among those that are shown.
    pub(crate) fn rotate(&self) -> Result<(), CryptoError> {
        let new = Arc::new(Named { kid: keys::random_id("ins_")?, key: SigningKey::generate()? });
        let mut shown = self.write();
        let before = std::mem::replace(&mut shown.signs, new);
        shown.before.push(before);
        Ok(())
    }

    /// Shows a key no longer.
    pub(crate) fn retire(&self, kid: &str) -> Result<(), Kept> {
        let mut shown = self.write();
        if shown.signs.kid == kid {
            return Err(Kept::Signs);
        }
        let at = shown.before.iter().position(|named| named.kid == kid).ok_or(Kept::Unknown)?;
        shown.before.remove(at);
        Ok(())
    }

    /// A panic elsewhere leaves no half-made change: each one is a single assignment, push or removal of whole keys.
    fn read(&self) -> RwLockReadGuard<'_, Shown> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shown> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
