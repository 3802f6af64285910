//! Whose tokens a request has in it, and until when those may be sent.

use std::sync::Arc;

use tokio::time::Instant;

use crate::clock::{Now, Wall};
use crate::config::MintSpec;
use crate::session::SessionId;
use crate::session::memory::Remembered;
use crate::session::named::Named;
use crate::session::revoked::Revoked;
use crate::token::freshness::Border;
use crate::token::{Issuer, Scope, Token, TokenKey};

/// Whose tokens they are: a subject of injections, without what its caller sent.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    /// A verified session.
    Verified(&'a Remembered),
    /// One that is only named.
    Named(&'a Named),
}

/// The same, kept with the request.
#[derive(Debug)]
pub enum Whose {
    /// Without a session.
    Nobodys,
    /// A verified session's.
    Verified(Arc<Remembered>),
    /// One's that is only named.
    Named(Arc<Named>),
}

/// What was injected, and until when it may be sent.
#[derive(Debug)]
pub struct Aging {
    /// Whose it is.
    pub whose: Whose,
    /// When the first of it is over; `None`: it does not age.
    pub end: Option<Border>,
}

/// Whether a token that was minted for a session's id alone is a revoked user's, as far as it tells.
pub fn is_revoked_users(token: &Token, sid: &SessionId, revoked: &Revoked, now: Instant) -> bool {
    token.owner.as_ref().is_some_and(|owner| revoked.refuses(sid, Some(owner), now))
}

// === impl Owner ===

impl<'a> Owner<'a> {
    /// When its credential was issued.
    pub fn issued_at(self) -> Option<Wall> {
        match self {
            Self::Verified(remembered) => remembered.session.issued_at,
            Self::Named(_) => None,
        }
    }

    /// Whether its session token has expired; one that is only named has none.
    pub fn has_expired(self, now: Wall) -> bool {
        matches!(self, Self::Verified(remembered) if remembered.session.expires_at <= now)
    }

    /// Whether it is refused by now, whatever it was when it was let in.
    pub fn is_revoked(self, revoked: &Revoked, now: Instant) -> bool {
        match self {
            Self::Verified(remembered) => revoked.refuses(&remembered.session.sid, Some(&remembered.session.sub), now),
            Self::Named(named) => revoked.refuses(&named.sid, None, now),
        }
    }

    /// Whether this token of it is a revoked user's. Of a session that is only named, the token alone tells the user.
    pub fn is_revoked_users(self, token: &Token, revoked: &Revoked, now: Instant) -> bool {
        match self {
            Self::Verified(_) => false,
            Self::Named(named) => is_revoked_users(token, &named.sid, revoked, now),
        }
    }

    /// When that will be.
    pub fn end(self, now: Now) -> Option<Border> {
        let Self::Verified(remembered) = self else { return None };
        let wall = remembered.session.expires_at;
        Some(Border { mono: now.mono.checked_add(wall.since(now.wall))?, wall })
    }

    /// What the token of this slot is kept under. A session that is only named shares nothing with one that was verified.
    pub fn key(self, issuer: Issuer, slot: usize, spec: &MintSpec) -> &'a TokenKey {
        match self {
            Self::Verified(remembered) => remembered.token_key(slot, |session| TokenKey::of(issuer, session, spec)),
            Self::Named(named) => {
                named.token_key(slot, |sid| TokenKey::new(issuer, sid.clone(), None, spec, Scope::Neutral, Vec::new()))
            }
        }
    }
}

// === impl Whose ===

impl Whose {
    /// Whose they are; `None` without a session.
    pub fn owner(&self) -> Option<Owner<'_>> {
        match self {
            Self::Nobodys => None,
            Self::Verified(remembered) => Some(Owner::Verified(remembered)),
            Self::Named(named) => Some(Owner::Named(named)),
        }
    }

    /// The session, where it was verified.
    pub fn verified(&self) -> Option<&Arc<Remembered>> {
        match self {
            Self::Verified(remembered) => Some(remembered),
            Self::Nobodys | Self::Named(_) => None,
        }
    }
}

// === impl Aging ===

impl Aging {
    /// Of a request without a session, or one that waits no more.
    pub const NONE: Self = Self { whose: Whose::Nobodys, end: None };
}
