//! `[[routes]]`, validated: what a route answers to, what it asks of a session, what it injects.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use crate::config::connection_init::{ConnectionInit, InPayload};
use crate::config::rejected::RetryRejected;
use crate::config::url::Origin;
use crate::headers::NameSet;
use crate::metrics::{ListenerId, RouteId, TemplateId, UpstreamId};
use crate::secret::Secret;

/// `[[routes]]`
#[derive(Debug, Clone)]
pub struct Route {
    /// Its place in metrics.
    pub id: RouteId,
    /// The label in metrics and logs.
    pub name: String,
    /// What it answers to.
    pub matcher: Matcher,
    /// Where it goes. `None`: nowhere from here; a proxy that has asked for a decision forwards it.
    pub upstream: Option<UpstreamId>,
    /// How the path changes.
    pub rewrite: Rewrite,
    /// Whether the caller's `Host` reaches the upstream.
    pub preserve_host: bool,
    /// Where to look for a credential, in order. Empty: public.
    pub session: Vec<SessionSource>,
    /// Sessions are named by a trusted program of this machine, not verified; `session` is empty then.
    pub session_id: Option<SessionIdSource>,
    /// Session rules of this route.
    pub rules: SessionRules,
    /// What happens without a session.
    pub on_no_session: OnNoSession,
    /// What happens without a token.
    pub on_mint_error: OnMintError,
    /// Whether a CORS preflight passes without a session.
    pub preflight: Preflight,
    /// The upstream runs Clerk's SDK: a session that is not good counts as none. `on_no_session` is `Pass` then, and the
    /// credential and Clerk's cookies are forwarded.
    pub clerk_app: bool,
    /// Leave the session credential in the request.
    pub forward_credential: bool,
    /// Leave Clerk's cookies in the request.
    pub forward_clerk_cookies: bool,
    /// Names of the upstream's `remove_headers` that may pass.
    pub keep_headers: NameSet,
    /// Whole request; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Whether WebSockets are opened, and what ends them; `None`: none are.
    pub websocket: Option<WebSocket>,
    /// What is done with the first message of one; `None`: it passes like every other.
    pub connection_init: Option<ConnectionInit>,
    /// Whether requests of this route may be logged.
    pub log_access: bool,
    /// Whether answers tell how the tokens were come by, in `x-mintgate-token`.
    pub show_token: bool,
    /// What is put into the request.
    pub inject: Vec<Injection>,
    /// When a refused token is replaced, and its request sent once more.
    pub retry_rejected: Option<RetryRejected>,
    /// Take a path that can be read in several ways, where all of them are this route's.
    pub allow_odd_paths: bool,
}

/// `match = { ... }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// Which hosts.
    pub host: HostPattern,
    /// Begins with `/`; `/` alone matches everything as a prefix. Never ends in `/` otherwise, unless `exact`.
    pub path: String,
    /// The whole path, not a prefix of it.
    pub exact: bool,
    /// Empty: every method.
    pub methods: Vec<Method>,
    /// The one listener that it is for; `None`: every one.
    pub listener: Option<ListenerId>,
}

/// `match.host`: exact beats suffix beats any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Lower case, no port, no trailing dot.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`.
    Suffix(String),
    /// Every host, and none.
    Any,
}

/// How the path of a request changes on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// Not at all.
    Keep,
    /// The prefix goes; what is left begins with `/`.
    Strip(String),
    /// The matched path is replaced by this one.
    Replace {
        /// What the route matches.
        from: String,
        /// What stands there instead.
        to: String,
    },
}

/// Where a credential may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionSource {
    /// `Authorization: Bearer`
    Bearer,
    /// Clerk's `__session` cookies.
    Cookie,
    /// A header of its own, with or without `Bearer `.
    Header(HeaderName),
}

/// `session_id_header`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionIdSource {
    /// Where the session's id stands.
    pub header: HeaderName,
    /// What the caller shows beside it.
    pub caller: CallerToken,
}

/// `caller_token`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerToken {
    /// None: who may open the Unix socket may name sessions.
    Needless,
    /// This one, in `x-mintgate-caller`. `None` only under `check`, where it is not known.
    Needed(Option<Secret>),
}

/// What a route asks of a session beyond its being valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRules {
    /// `sts: pending` passes.
    pub allow_pending: bool,
    /// Allowed `azp`: `[clerk]`'s, or the route's own part of it. Empty: not looked at.
    pub authorized_parties: Vec<Origin>,
    /// Every one must hold.
    pub require: Vec<Requirement>,
    /// Sessions in which somebody acts as the user pass.
    pub allow_impersonation: bool,
}

/// One entry of `require`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The session's value.
    pub claim: Claim,
    /// What it must be one of.
    pub one_of: Vec<String>,
}

/// `on_no_session`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNoSession {
    /// 401.
    Reject,
    /// Forwarded without tokens, their headers removed.
    Pass,
}

/// `on_mint_error`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMintError {
    /// An error answer.
    Fail,
    /// The header is absent.
    Pass,
    /// The caller's own session token takes its place.
    Session,
}

/// `preflight`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preflight {
    /// Forwarded without credential or token.
    Pass,
    /// A request like any other.
    Reject,
}

/// `websocket`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebSocket {
    /// What ends an open one.
    pub close_at: CloseAt,
    /// How long one may be open; `None`: no limit.
    pub max_lifetime: Option<Duration>,
}

/// `websocket.close_at`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloseAt {
    /// The credential counts when it is opened, and not after.
    #[default]
    Never,
    /// The first of the injected minted tokens expires.
    Token,
    /// The session token expires.
    Session,
}

/// One entry of `inject`.
#[derive(Debug, Clone)]
pub struct Injection {
    /// The header that is set.
    pub header: HeaderName,
    /// Stands before the value.
    pub prefix: String,
    /// Where the value comes from.
    pub source: Source,
    /// Without a value the request fails.
    pub required: bool,
}

/// Where an injected value comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A minted token.
    Minted(MintSpec),
    /// A value of the verified session.
    Claim(Claim),
    /// The caller's own session token.
    SessionToken,
    /// A fixed secret. `None` only where it need not be known, as under `check`.
    Value(Option<Secret>),
}

/// What to mint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintSpec {
    /// Its place in metrics.
    pub id: TemplateId,
    /// What kind of token.
    pub kind: MintKind,
    /// Whole seconds, 30 or more; `None`: the issuer's own.
    pub expires_in: Option<u32>,
    /// What the token must say for the session to get it.
    pub expect: Vec<Expectation>,
    /// Values of the session that its content depends on, beside those that it always does.
    pub vary: Vec<Claim>,
}

/// What kind of token is minted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MintKind {
    /// From a JWT template.
    Template(TemplateName),
    /// A session token.
    Session,
}

/// One entry of `expect`: what stands there in the minted token equals this value of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// A JSON pointer (RFC 6901) into the minted token's claims.
    pub pointer: String,
    /// The session's value.
    pub claim: Claim,
}

/// The name of a JWT template: `[A-Za-z0-9_-]`, 1 to 128 characters, so that it can stand in a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateName(Arc<str>);

/// A session value that can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The session's id.
    Sid,
    /// The user's id.
    Sub,
    /// The active organization's id, v1 and v2 alike.
    OrgId,
    /// As `org:admin`, v1 and v2 alike.
    OrgRole,
    /// The active organization's slug.
    OrgSlug,
    /// The party that asked for the session token.
    Azp,
    /// A JSON pointer (RFC 6901) into the verified claims.
    Pointer(String),
}

/// The text is not a template name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a template name has 1 to 128 of the characters A-Z a-z 0-9 _ -")]
pub struct BadTemplateName;

// === impl Route ===

impl Route {
    /// Where its session stands that is found in the first message of a WebSocket; `session` is empty then.
    pub fn late_session(&self) -> Option<&InPayload> {
        self.connection_init.as_ref()?.session.as_ref()
    }

    /// Whether it takes verified sessions from somewhere.
    pub fn takes_sessions(&self) -> bool {
        !self.session.is_empty() || self.late_session().is_some()
    }

    /// Every value of a session that it reads.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        let injected = self.inject.iter().flat_map(|injection| match &injection.source {
            Source::Minted(spec) => {
                let expected = spec.expect.iter().map(|expectation| &expectation.claim);
                expected.chain(&spec.vary).collect()
            }
            Source::Claim(claim) => vec![claim],
            Source::SessionToken | Source::Value(_) => Vec::new(),
        });
        self.rules.require.iter().map(|requirement| &requirement.claim).chain(injected)
    }
}

// === impl SessionRules ===

impl SessionRules {
    /// Whether they ask more of a session than every route does.
    pub fn are_guarding(&self) -> bool {
        !self.require.is_empty() || !self.allow_impersonation
    }
}

// === impl MintKind ===

impl MintKind {
    /// The metric's label. No template can have the name of a session token's.
    pub fn label(&self) -> &str {
        match self {
            Self::Template(name) => name.as_str(),
            Self::Session => "(session)",
        }
    }
}

// === impl Claim ===

impl Claim {
    /// As it is written in the configuration.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sid => "sid",
            Self::Sub => "sub",
            Self::OrgId => "org_id",
            Self::OrgRole => "org_role",
            Self::OrgSlug => "org_slug",
            Self::Azp => "azp",
            Self::Pointer(pointer) => pointer,
        }
    }
}

// === impl TemplateName ===

impl TemplateName {
    /// Checks the text.
    ///
    /// # Errors
    /// When it could not stand in a URL's path segment as it is.
    pub fn new(text: &str) -> Result<Self, BadTemplateName> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(BadTemplateName)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
