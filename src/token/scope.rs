//! Whose tokens are purged.

use crate::session::{SessionId, UserId};
use crate::token::{Token, TokenKey};

/// Whose tokens are purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeScope {
    /// Those of one session.
    Session(SessionId),
    /// Those of all sessions of one user.
    User(UserId),
    /// Every token.
    All,
}

// === impl PurgeScope ===

impl PurgeScope {
    /// Whether the key belongs to it, or may.
    pub fn covers(&self, key: &TokenKey) -> bool {
        match self {
            Self::Session(sid) => key.parts().sid == *sid,
            // A key that names no user may be anybody's.
            Self::User(sub) => key.parts().sub.as_ref().is_none_or(|own| own == sub),
            Self::All => true,
        }
    }

    /// The same of a token that is kept, which may tell whose it is.
    pub fn covers_token(&self, key: &TokenKey, token: &Token) -> bool {
        match (self, &token.owner) {
            (Self::User(sub), Some(owner)) => owner == sub,
            _ => self.covers(key),
        }
    }

    /// Whether the key is known to belong to it. Who waits for one that only may is given nothing either (he looks
    /// again after a revocation), but not told that his session was revoked.
    pub fn names(&self, key: &TokenKey) -> bool {
        self.covers(key) && (key.parts().sub.is_some() || !matches!(self, Self::User(_)))
    }
}
