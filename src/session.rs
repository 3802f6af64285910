//! A verified session, and why a credential is not one.

pub mod cookies;
pub mod credential;
pub mod guard;
pub(crate) mod json;
pub mod jwks;
pub mod memory;
pub mod named;
pub mod revoked;
pub mod tag;
pub mod verify;

#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::clock::Wall;
use crate::config::Claim;
use crate::metrics::Verdict;
use crate::record::Caller;
use crate::secret::Digest;

/// A session's id: `^[A-Za-z0-9_-]{1,128}$`, so it can stand in a URL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// A user's id: any non-empty text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// The id of a verification key: its `kid` (for a pinned key a fixed text) with a digest of the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(Arc<str>);

/// What a session JWT says after its signature and its fixed claims were checked. What depends on the time, the route
/// or a revocation is checked on every request instead.
pub struct Session {
    /// `sid`
    pub sid: SessionId,
    /// `sub`
    pub sub: UserId,
    /// `exp`
    pub expires_at: Wall,
    /// `nbf`
    pub not_before: Option<Wall>,
    /// `iat`
    pub issued_at: Option<Wall>,
    /// `azp`
    pub azp: Option<Box<str>>,
    /// `sts: pending`
    pub pending: bool,
    /// `act`: somebody else acts as the user.
    pub impersonated: bool,
    /// The active organization.
    pub org: Option<Org>,
    /// Digest of org id, role, slug, sorted permissions and `act`, v1 and v2 alike: what a minted token depends on
    /// beside the session itself.
    pub scope: Digest,
    /// The claims as they were signed. `None`: no route reads any beyond those above, and they are not kept.
    pub claims: Option<Box<RawValue>>,
    /// The key that signed them.
    pub key: KeyId,
}

/// The active organization of a session, v1 and v2 alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    /// `org_id`, or `o.id`.
    pub id: Box<str>,
    /// As `org:admin`.
    pub role: Option<Box<str>>,
    /// `org_slug`, or `o.slg`.
    pub slug: Option<Box<str>>,
}

/// Why a credential does not make a session. One closed set: the codes of the design's section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// There is none.
    #[error("no session credential")]
    Missing,
    /// It is not a session token, or not one of ours.
    #[error("invalid session token: {}", .0.as_str())]
    Invalid(Reason),
    /// Past its `exp`.
    #[error("session token expired")]
    Expired,
    /// Refused since a revocation.
    #[error("session revoked")]
    Revoked,
    /// `sts: pending`.
    #[error("session pending")]
    Pending,
    /// Two credentials where one may be.
    #[error("ambiguous credential")]
    Ambiguous,
    /// Valid, and not what the route asks for.
    #[error("the session is not allowed on this route")]
    Forbidden,
}

/// Why `session-invalid`; public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not a JWS in compact form, or its JSON is not what RFC 7515 and 7519 say.
    Malformed,
    /// Not RS256, or a `crit` header.
    Algorithm,
    /// No such `kid`.
    UnknownKey,
    /// The signature does not fit.
    Signature,
    /// `cat` says that it is another kind of token.
    Category,
    /// A claim is missing or of the wrong type.
    Claims,
    /// Another issuer.
    Issuer,
    /// `azp` is not allowed.
    Azp,
    /// `nbf` or `iat` lies in the future.
    NotYetValid,
    /// A cookie older than `__client_uat`, or without one.
    OutdatedCookie,
    /// An API key, OAuth or machine token.
    NotASessionToken,
}

/// The text could not be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct BadId;

// === impl SessionId ===

impl SessionId {
    /// Checks the text.
    ///
    /// # Errors
    /// When it could not stand in a URL's path segment as it is.
    pub fn new(text: &str) -> Result<Self, BadId> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(fits) { Ok(Self(text.into())) } else { Err(BadId) }
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Ids are personal data: `Debug` shows a digest. `[log] identity` decides what the access record shows.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", Digest::of(self.0.as_bytes()))
    }
}

// === impl UserId ===

impl UserId {
    /// Checks the text.
    ///
    /// # Errors
    /// When it is empty.
    pub fn new(text: &str) -> Result<Self, BadId> {
        if text.is_empty() { Err(BadId) } else { Ok(Self(text.into())) }
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({})", Digest::of(self.0.as_bytes()))
    }
}

// === impl KeyId ===

impl KeyId {
    /// Any text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Session ===

impl Session {
    /// A named value, as text. Numbers and booleans are written as in JSON; `null`, lists and objects have no text.
    pub fn value(&self, claim: &Claim) -> Option<String> {
        let org = self.org.as_ref();
        match claim {
            Claim::Sid => Some(self.sid.as_str().to_owned()),
            Claim::Sub => Some(self.sub.as_str().to_owned()),
            Claim::OrgId => org.map(|org| org.id.to_string()),
            Claim::OrgRole => org.and_then(|org| org.role.as_deref()).map(str::to_owned),
            Claim::OrgSlug => org.and_then(|org| org.slug.as_deref()).map(str::to_owned),
            Claim::Azp => self.azp.as_deref().map(str::to_owned),
            Claim::Pointer(pointer) => {
                match serde_json::from_str(json::at(self.claims.as_deref()?, pointer)?.get()).ok()? {
                    serde_json::Value::String(text) => Some(text),
                    other @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => Some(other.to_string()),
                    _ => None,
                }
            }
        }
    }

    /// A named value as JSON, which tells more apart than its text: a number from its digits in a string, `null` from
    /// what is absent.
    pub fn json(&self, claim: &Claim) -> Option<String> {
        match claim {
            Claim::Pointer(pointer) => json::at(self.claims.as_deref()?, pointer).map(|raw| raw.get().to_owned()),
            named => self.value(named).map(|text| serde_json::Value::String(text).to_string()),
        }
    }
}

/// What a session says is personal data, as its ids are.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sid, sub, expires_at, scope, key, .. } = self;
        f.debug_struct("Session")
            .field("sid", sid)
            .field("sub", sub)
            .field("expires_at", expires_at)
            .field("scope", scope)
            .field("key", key)
            .finish_non_exhaustive()
    }
}

impl Caller for Session {
    fn sub(&self) -> Option<&str> {
        Some(self.sub.as_str())
    }

    fn sid(&self) -> &str {
        self.sid.as_str()
    }

    fn org(&self) -> Option<&str> {
        self.org.as_ref().map(|org| &*org.id)
    }
}

// === impl SessionError, Reason ===

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Malformed,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Category,
        Self::Claims,
        Self::Issuer,
        Self::Azp,
        Self::NotYetValid,
        Self::OutdatedCookie,
        Self::NotASessionToken,
    ];

    /// The reason's public text; the metric's label is the same.
    pub const fn as_str(self) -> &'static str {
        self.verdict().as_str()
    }

    /// The metric's label.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Malformed => Verdict::Malformed,
            Self::Algorithm => Verdict::Algorithm,
            Self::UnknownKey => Verdict::UnknownKey,
            Self::Signature => Verdict::Signature,
            Self::Category => Verdict::Category,
            Self::Claims => Verdict::Claims,
            Self::Issuer => Verdict::Issuer,
            Self::Azp => Verdict::Azp,
            Self::NotYetValid => Verdict::NotYetValid,
            Self::OutdatedCookie => Verdict::OutdatedCookie,
            Self::NotASessionToken => Verdict::NotASessionToken,
        }
    }
}

impl SessionError {
    /// The metric's label.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Missing => Verdict::Missing,
            Self::Invalid(reason) => reason.verdict(),
            Self::Expired => Verdict::Expired,
            Self::Revoked => Verdict::Revoked,
            Self::Pending => Verdict::Pending,
            Self::Ambiguous => Verdict::Ambiguous,
            Self::Forbidden => Verdict::Forbidden,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_can_stand_in_a_url() {
        assert!(SessionId::new("sess_2g7np7Hrk0SN6kj5EDMLDaKNL0S").is_ok());
        for bad in ["", "a/b", "..", "a?b", "a#b", "a%2fb", "é", &"x".repeat(129)] {
            assert_eq!(SessionId::new(bad), Err(BadId), "{bad:?}");
        }
    }

    #[test]
    fn ids_do_not_print() {
        let seen = format!("{:?} {:?}", SessionId::new("sess_canary").unwrap(), UserId::new("user_canary").unwrap());
        assert!(!seen.contains("canary"), "{seen}");
    }
}
