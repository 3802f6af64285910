//! A minted token: its key, its life, and the trait behind which it is minted.

pub mod breaker;
pub mod budget;
pub mod cache;
pub mod capacity;
pub mod clerk;
pub mod expect;
#[cfg(test)]
pub(crate) mod fake;
pub mod freshness;
pub mod retry;
pub mod scope;
pub mod shared;
pub mod spent;

use std::fmt;
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::clock::Wall;
pub use crate::config::MintKind as Kind;
use crate::config::MintSpec;
use crate::metrics::{MintResult, TemplateId};
use crate::secret::{self, Digest, NotHeaderSafe};
use crate::session::{Session, SessionId, UserId};
use crate::traces::mint::Origin;

use self::expect::{Expected, Named};
pub use self::freshness::Freshness;
use self::freshness::{Life, Rules};
use self::spent::Spent;

/// What a token is minted and kept for. A structured value, never joined strings: two different keys share neither an
/// entry nor a flight. Cheap to clone; hashed once, when made. The hash stands beside the parts and not among them: a hit
/// that is found by the key that it was kept under touches none of them.
#[derive(Clone)]
pub struct TokenKey {
    parts: Arc<KeyParts>,
    /// Uniformly spread over all parts but `expected`, of which the scope has a digest.
    hash: u64,
}

/// Under what the hashes of all keys of this process are made, so that nobody can choose parts that collide.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The parts of a [`TokenKey`].
#[derive(Debug, PartialEq, Eq)]
pub struct KeyParts {
    /// Which issuer: the API URL and the instance. Another one shares nothing.
    pub issuer: Issuer,
    /// Whose session.
    pub sid: SessionId,
    /// Whose; `None` under [`Scope::Neutral`] alone.
    pub sub: Option<UserId>,
    /// What kind of token.
    pub kind: Kind,
    /// Asked life time in seconds; `None`: the template's own.
    pub expires_in: Option<u32>,
    /// What else the token's content depends on.
    pub scope: Scope,
    /// What the token must say, or nobody gets it. The scope has a digest of it.
    pub expected: Box<[Expected]>,
}

/// An issuer's identity: a digest of its API URL and instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Issuer(Digest);

/// What a token's content depends on beside its session. The two never share an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Digest of the session's organization, role, slug, permissions and actor, and of the values that the route's
    /// `vary` and `expect` name.
    Claims(Digest),
    /// For those who know no claims.
    Neutral,
}

/// A minted token. Opaque: it may be signed with a key that only the upstream knows.
pub struct Token {
    /// `Bearer <jwt>`, sensitive.
    bearer: HeaderValue,
    /// `<jwt>`, sensitive; shares its bytes with `bearer`.
    bare: HeaderValue,
    /// When the mint request was sent: where its life is counted from.
    pub sent_at: Instant,
    /// Whole life; `None` when the token tells no `exp`.
    pub lifetime: Option<Duration>,
    /// `exp` in the issuer's time, and what to add to our wall clock to get the issuer's.
    pub expires_at: Option<Wall>,
    /// Issuer's clock minus ours when this token was minted, in milliseconds.
    pub offset_ms: i64,
    /// Whether another replica had minted it.
    pub shared: bool,
    /// Whose it says that it is, where its key names no user.
    pub owner: Option<UserId>,
}

/// One thing to mint.
#[derive(Debug, Clone)]
pub struct MintRequest {
    /// For whom and what.
    pub key: TokenKey,
    /// The metric's label.
    pub template: TemplateId,
    /// Who asks.
    pub urgency: Urgency,
    /// Whether a hub must not answer from its cache.
    pub forced: bool,
    /// When the credential behind the request was issued: a very young session may not be known everywhere yet.
    pub credential_issued_at: Option<Wall>,
    /// When waiting has no more use.
    pub deadline: Instant,
    /// What the cache that replicas share has cost it, with all that is done anew for it.
    pub spent: Spent,
    /// The sampled request that asks, which has the span of a mint that begins with it.
    pub trace: Option<Box<Origin>>,
}

/// Who asks for a mint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A request waits.
    Waiting,
    /// Refresh ahead of time: may not touch the reserve of the budget.
    Ahead,
}

/// Why there is no token. Shared by all who waited for one mint.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MintError {
    /// The issuer knows no such template.
    #[error("the issuer knows no such template")]
    TemplateUnknown,
    /// The issuer does not know the session any more, or it is not active.
    #[error("the issuer does not know the session any more")]
    SessionEnded,
    /// The secret key was refused.
    #[error("the issuer refused the secret key")]
    RejectedKey,
    /// No answer, or a 5xx, to the end; or the breaker is open.
    #[error("the issuer is unavailable")]
    Unavailable {
        /// When it may be worth another try.
        retry_after: Duration,
        /// What the last attempt met.
        #[source]
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The deadline passed.
    #[error("the issuer did not answer in time")]
    Timeout,
    /// A 200 without a usable token.
    #[error("the issuer's answer made no sense: {0}")]
    Malformed(&'static str),
    /// Any other 3xx or 4xx.
    #[error("the issuer refused with status {0}")]
    Refused(u16),
    /// A 429, or the budget's line is full.
    #[error("the issuer's rate limit is reached")]
    Throttled {
        /// When it is worth another try.
        retry_after: Duration,
    },
    /// The token cannot stand in a header.
    #[error("the minted token cannot stand in a header")]
    Unfit,
    /// The session was revoked while the mint was under way.
    #[error("the session was revoked while its token was minted")]
    Revoked,
    /// What the issuer minted does not say what `expect` asks for, not even a second time.
    #[error("the minted token contradicts the session")]
    Stale,
}

/// Mints a token. The issuer's client, retries, breaker and budget each implement it around another.
pub trait Mint: Send + Sync + 'static {
    /// Mints, within the request's deadline.
    fn mint(&self, request: MintRequest) -> impl Future<Output = Result<Token, MintError>> + Send;
}

impl<M: Mint> Mint for Arc<M> {
    fn mint(&self, request: MintRequest) -> impl Future<Output = Result<Token, MintError>> + Send {
        M::mint(self, request)
    }
}

/// Why there was no attempt at all: the issuer failed several times in a row and is left alone for a while.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the breaker is open after repeated failures of the issuer")]
pub struct BreakerOpen;

// === impl MintRequest ===

impl MintRequest {
    /// Why it is minted, for its span.
    pub fn reason(&self) -> &'static str {
        match self.urgency {
            _ if self.forced => "refused",
            Urgency::Waiting => "miss",
            Urgency::Ahead => "refresh",
        }
    }
}

// === impl TokenKey ===

impl TokenKey {
    /// For a verified session.
    pub fn of(issuer: Issuer, session: &Session, spec: &MintSpec) -> Self {
        let Named { digest, expected } = Named::of(session, spec);
        let scope = Scope::Claims(digest.unwrap_or(session.scope));
        Self::new(issuer, session.sid.clone(), Some(session.sub.clone()), spec, scope, expected)
    }

    /// Hashes the parts once.
    pub fn new(
        issuer: Issuer,
        sid: SessionId,
        sub: Option<UserId>,
        spec: &MintSpec,
        scope: Scope,
        expected: Vec<Expected>,
    ) -> Self {
        let kind = spec.kind.clone();
        let expires_in = spec.expires_in;
        let hash = SEED.hash_one((&issuer, &sid, &sub, &kind, expires_in, &scope));
        let expected = expected.into();
        Self { parts: Arc::new(KeyParts { issuer, sid, sub, kind, expires_in, scope, expected }), hash }
    }

    /// The same with a hash that the caller chose, uniformly spread: for keys that nobody else chooses, where every process
    /// must place them alike. Never in one cache with others.
    #[must_use]
    pub fn placed(self, hash: u64) -> Self {
        Self { hash, ..self }
    }

    /// The parts.
    pub fn parts(&self) -> &KeyParts {
        &self.parts
    }

    /// Bytes that the key holds, for weighing.
    pub fn weight(&self) -> usize {
        let kind = match &self.parts.kind {
            Kind::Template(name) => name.as_str().len(),
            Kind::Session => 0,
        };
        let parts = self.parts();
        let ids = parts.sid.as_str().len() + parts.sub.as_ref().map_or(0, |sub| sub.as_str().len());
        size_of::<KeyParts>() + ids + kind + parts.expected.iter().map(Expected::weight).sum::<usize>()
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts) || (self.hash == other.hash && self.parts == other.parts)
    }
}

impl Eq for TokenKey {}

impl Hash for TokenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

// === impl Issuer ===

impl Issuer {
    /// The identity of an API and an instance (its `iss`, where known).
    pub fn new(api_url: &str, instance: &str) -> Self {
        Self(Digest::of_parts([api_url.as_bytes(), instance.as_bytes()]))
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

// === impl Token ===

impl Token {
    /// Builds the header values once.
    ///
    /// # Errors
    /// When the JWT is empty or cannot stand in a header as it is: white space around it would not arrive.
    pub fn new(jwt: &str, sent_at: Instant) -> Result<Self, NotHeaderSafe> {
        if jwt.is_empty() || jwt.trim_ascii() != jwt {
            return Err(NotHeaderSafe);
        }
        let text = bytes::Bytes::from(format!("Bearer {jwt}"));
        let bare = secret::sensitive(text.slice("Bearer ".len()..))?;
        let bearer = secret::sensitive(text)?;
        Ok(Self { bearer, bare, sent_at, lifetime: None, expires_at: None, offset_ms: 0, shared: false, owner: None })
    }

    /// Fixes its life: `exp` and `iat` as it tells them, our wall clock when the mint request was sent, and what to add
    /// to our wall clock to get the issuer's, in milliseconds.
    pub fn dated(mut self, exp: Wall, iat: Option<Wall>, sent: Wall, offset_ms: i64) -> Self {
        self.lifetime = Some(freshness::lifetime(exp, iat, sent, offset_ms));
        self.expires_at = Some(exp);
        self.offset_ms = offset_ms;
        self
    }

    /// When it is fresh, due for a refresh and dead; `None` when it tells no `exp`. `jitter` is from 0 to 1.
    pub fn life(&self, rules: &Rules, jitter: f64) -> Option<Life> {
        let (lifetime, expires_at) = self.lifetime.zip(self.expires_at)?;
        Some(Life::new(self.sent_at, lifetime, expires_at.shifted(self.offset_ms.saturating_neg()), rules, jitter))
    }

    /// `Bearer <jwt>`
    pub fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }

    /// `<jwt>`
    pub fn bare(&self) -> &HeaderValue {
        &self.bare
    }

    /// For a key that names no user: reads whose it says that it is.
    pub fn owned(mut self, key: &TokenKey) -> Self {
        let says = || UserId::new(expect::claims(self.bare.to_str().ok()?)?.get("sub")?.as_str()?).ok();
        self.owner = if key.parts().sub.is_none() { says() } else { None };
        self
    }

    /// Bytes that the token holds, for weighing.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.bearer.len() + self.owner.as_ref().map_or(0, |owner| owner.as_str().len())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("jwt", &"[secret]")
            .field("bytes", &self.bare.len())
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

// === impl MintError ===

impl MintError {
    /// The metric's label.
    pub fn result(&self) -> MintResult {
        match self {
            Self::TemplateUnknown => MintResult::TemplateUnknown,
            Self::SessionEnded => MintResult::SessionEnded,
            Self::RejectedKey => MintResult::RejectedKey,
            Self::Unavailable { .. } => MintResult::Unavailable,
            Self::Timeout => MintResult::Timeout,
            Self::Malformed(_) => MintResult::Malformed,
            Self::Refused(_) => MintResult::Refused,
            Self::Throttled { .. } => MintResult::Throttled,
            Self::Unfit => MintResult::Unfit,
            Self::Revoked => MintResult::Purged,
            Self::Stale => MintResult::Stale,
        }
    }

    /// Whether another attempt may do better. Not while the breaker is open: it tells when to come back.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { source, .. } => !source.as_ref().is_some_and(|source| source.is::<BreakerOpen>()),
            other => matches!(other, Self::Timeout | Self::Malformed(_)),
        }
    }

    /// Whether it is remembered for `missing_ttl`.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::TemplateUnknown | Self::SessionEnded)
    }
}
