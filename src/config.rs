//! The validated configuration: what the gateway runs on, with no value that it could not use.
//!
//! Made by [`validate`] out of [`raw`] alone. Durations that may be `"off"` are `Option`s; names are resolved to ids;
//! headers, origins and URLs are parsed. Nothing here reads the outside.

mod connection_init;
mod listening;
mod pointer;
pub mod raw;
pub mod reference;
mod rejected;
mod restart;
mod route;
pub mod schema;
pub mod shared;
mod traces;
mod upstream;
mod url;
pub mod validate;
mod ways;

use std::sync::Arc;
use std::time::Duration;

pub use self::connection_init::{ConnectionInit, InPayload};
pub use self::listening::{ClientAuth, Tls, Trusted};
pub use self::pointer::{BadPointer, Pointer, Step};
pub use self::rejected::{JsonMatch, RetryRejected, Scalar};
pub use self::route::{
    BadTemplateName, CallerToken, Claim, CloseAt, Expectation, HostPattern, Injection, Matcher, MintKind, MintSpec,
    OnMintError, OnNoSession, Preflight, Requirement, Rewrite, Route, SessionIdSource, SessionRules, SessionSource,
    Source, TemplateName, WebSocket,
};
pub use self::shared::Shared;
pub use self::traces::{OtlpProtocol, Traces};
pub use self::upstream::{Addresses, ClientIdentity, Place, Pool, Upstream, UpstreamAddress, UpstreamTls, Wire};
pub use self::url::{ApiUrl, Origin};
pub use self::ways::{ApiCaller, Authz, TokenApi, Way, Webhooks};
use crate::address::ListenAddress;
use crate::file::File;
use crate::metrics::ListenerId;
use crate::secret::{Digest, Secret};
pub use crate::telemetry::{Access, Identity, LogFormat};

/// Everything that one snapshot of the gateway is built from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The issuer and how sessions are verified.
    pub clerk: Clerk,
    /// The data listeners and their limits.
    pub server: Server,
    /// Probes and metrics; absent when not configured.
    pub admin: Option<Admin>,
    /// Decisions for other proxies; absent when not configured.
    pub authz: Option<Authz>,
    /// Clerk's own API, with a cache; absent when not configured.
    pub token_api: Option<TokenApi>,
    /// What Clerk tells of; absent when not configured.
    pub webhooks: Option<Webhooks>,
    /// Logs and the access record.
    pub log: Log,
    /// Spans of requests; absent when not configured.
    pub traces: Option<Traces>,
    /// The two maps in memory.
    pub cache: Cache,
    /// The second level of the token cache; absent when not configured, and under `check` where its key is not there.
    pub shared: Option<Shared>,
    /// In the order of [`UpstreamId`](crate::metrics::UpstreamId).
    pub upstreams: Vec<Upstream>,
    /// In the order of [`RouteId`](crate::metrics::RouteId).
    pub routes: Vec<Route>,
    /// Distinct kinds of token that routes mint, in the order of [`TemplateId`](crate::metrics::TemplateId).
    pub minted: Vec<MintKind>,
}

/// `[clerk]`
#[derive(Debug, Clone)]
pub struct Clerk {
    /// The key in use first; a later one serves during rotation. Empty where nothing mints, and under `check` without
    /// secrets.
    pub secret_keys: Vec<Secret>,
    /// `pk_live_...`
    pub publishable_key: Option<PublishableKey>,
    /// Allowed `azp` values and Origins; empty means that `azp` is not looked at.
    pub authorized_parties: Vec<Origin>,
    /// What `iss` must equal, when known.
    pub issuer: Option<String>,
    /// What `aud` must contain one of; empty means that `aud` is not looked at.
    pub audience: Vec<String>,
    /// Where verification keys come from.
    pub keys: KeySource,
    /// `https://api.clerk.com`, without a trailing slash.
    pub api_url: ApiUrl,
    /// Sent as `Clerk-API-Version`.
    pub api_version: String,
    /// Tolerance for `exp`, `nbf` and `iat`.
    pub clock_skew: Duration,
    /// To a TCP and TLS connection with the issuer.
    pub connect_timeout: Duration,
    /// One mint with its retries and its waiting, whole.
    pub timeout: Duration,
    /// An extra trust root for the issuer, PEM.
    pub ca: Option<Arc<[u8]>>,
    /// `[clerk.budget]`
    pub budget: Budget,
}

/// Where the keys that verify sessions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `jwt_key`: this RSA key alone (DER, SubjectPublicKeyInfo); `kid` is ignored and nothing is downloaded.
    Pinned(Arc<[u8]>),
    /// A JWKS that is downloaded at start and refreshed.
    Jwks {
        /// Absolute URL.
        url: ApiUrl,
        /// Whether the secret key is sent: only to the issuer's own API.
        with_secret: bool,
        /// Time between refreshes.
        refresh: Duration,
    },
    /// No route needs a session.
    None,
}

/// A publishable key and what is derived from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishableKey {
    /// The key as written.
    pub text: String,
    /// The Frontend API host that it encodes.
    pub frontend_api: String,
    /// The eight characters that follow `__session_` (contract section 3.3).
    pub cookie_suffix: String,
    /// Whether it is a development key (`pk_test_`).
    pub development: bool,
}

/// `[clerk.budget]`: the instance's limit and our part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Calls that the instance allows in `per`.
    pub requests: u32,
    /// The window.
    pub per: Duration,
    /// Our gateways' part, 0 to 1.
    pub share: f64,
    /// How many gateways divide it.
    pub replicas: u32,
    /// The part of ours that refresh-ahead may not use, 0 to 1.
    pub reserve: f64,
    /// Mints of one session.
    pub per_session: Rate,
    /// Mints under way.
    pub max_concurrent: usize,
    /// Mints in line.
    pub max_waiting: usize,
}

/// So many in so long, written `"20/10s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// In the order of [`ListenerId`]; at least one.
    pub listen: Vec<Listen>,
    /// TLS on every TCP listener. Absent: none, and under `check` where a key is not there.
    pub tls: Option<Tls>,
    /// Threads that serve connections; 0: as many as the process may use, at most 4.
    pub workers: usize,
    /// What a connection and a request may take.
    pub limits: Limits,
    /// After SIGTERM: not ready, still serving.
    pub drain_delay: Duration,
    /// Then: time to finish what is under way.
    pub drain_timeout: Duration,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Trusted,
}

/// A data listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Its place in metrics.
    pub id: ListenerId,
    /// What routes and metrics call it: the address unless named.
    pub name: String,
    /// Where it listens.
    pub address: ListenAddress,
}

/// What a connection and a request may take; `None` means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections over all data listeners.
    pub max_connections: usize,
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// Bytes of a request target.
    pub max_uri_bytes: usize,
    /// To the first byte of a connection.
    pub first_byte: Option<Duration>,
    /// From the first byte of a head to its end.
    pub header_read: Option<Duration>,
    /// Between requests.
    pub idle: Option<Duration>,
    /// A request body that stands still, until the response head has come.
    pub body_progress: Option<Duration>,
    /// A downstream that takes no bytes.
    pub write_stall: Option<Duration>,
    /// Bytes of a request body.
    pub request_body: Option<u64>,
    /// After which a connection takes no further request.
    pub max_age: Option<Duration>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where probes and metrics are served.
    pub listen: ListenAddress,
    /// Hosts allowed beside IP literals and `localhost`, lower case.
    pub hosts: Vec<String>,
    /// What changes the running process; absent when not configured.
    pub control: Option<Control>,
}

/// `admin.control`
#[derive(Debug, Clone)]
pub struct Control {
    /// Where it listens: a Unix socket, a loopback address, or a socket of systemd.
    pub listen: ListenAddress,
    /// What a request must show; absent on a Unix socket, and under `check` without secrets.
    pub token: Option<Secret>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Text or JSON.
    pub format: LogFormat,
    /// Which requests are logged.
    pub access: Access,
    /// What the access record shows of the caller.
    pub identity: Identity,
}

/// `[cache]`
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Weight of all tokens, in bytes.
    pub max_bytes: u64,
    /// Weight of all verified sessions, in bytes.
    pub max_session_bytes: u64,
    /// A minted token with less life is not injected; at most a quarter of its life time counts.
    pub min_remaining: Duration,
    /// A token is not kept longer.
    pub max_lifetime: Duration,
    /// The part of its life time after which a token is refreshed by use; `None` turns that off.
    pub refresh_at: Option<f64>,
    /// How long 'no such session' and 'no such template' are remembered; `None`: not at all.
    pub missing_ttl: Option<Duration>,
}

// === impl Control ===

impl PartialEq for Control {
    fn eq(&self, other: &Self) -> bool {
        let shown = |control: &Self| control.token.as_ref().map(|token| Digest::of(token.expose().as_bytes()));
        self.listen == other.listen && shown(self) == shown(other)
    }
}

impl Eq for Control {}

// === impl Config ===

impl Config {
    /// Whether some route points into the claims of sessions, beyond the values that have names.
    pub fn reads_claims(&self) -> bool {
        self.routes.iter().flat_map(Route::claims).any(|claim| matches!(claim, Claim::Pointer(_)))
    }

    /// Where a route goes.
    pub fn upstream_of(&self, route: &Route) -> Option<&Upstream> {
        route.upstream.and_then(|id| self.upstreams.get(id.index()))
    }

    /// The files of certificates and keys, for both sides.
    pub fn certificates(&self) -> impl Iterator<Item = &File> {
        let listeners = self.listener_tls().into_iter().flatten().flat_map(Tls::files);
        let upstreams = self.upstreams.iter().filter_map(|upstream| match &upstream.wire {
            Wire::Tls(tls) => Some(tls),
            Wire::Http1 | Wire::Http2 => None,
        });
        listeners.chain(upstreams.flat_map(UpstreamTls::files))
    }

    /// The `tls` of each section that listens, in the order of `server`, `authz`, `token_api`, `webhooks`.
    pub fn listener_tls(&self) -> [Option<&Tls>; 4] {
        [
            self.server.tls.as_ref(),
            self.authz.as_ref().and_then(|authz| authz.way.tls.as_ref()),
            self.token_api.as_ref().and_then(|api| api.way.tls.as_ref()),
            self.webhooks.as_ref().and_then(|webhooks| webhooks.way.tls.as_ref()),
        ]
    }

    /// The templates that routes mint from.
    pub fn templates(&self) -> impl Iterator<Item = &TemplateName> {
        self.minted.iter().filter_map(|kind| match kind {
            MintKind::Template(name) => Some(name),
            MintKind::Session => None,
        })
    }
}

// === impl Budget ===

impl Budget {
    /// Calls that one gateway may make in `per`: its share of the instance's, at least one, since with less it would never
    /// mint.
    pub fn own_requests(&self) -> f64 {
        (f64::from(self.requests) * self.share / f64::from(self.replicas.max(1))).max(1.0)
    }

    /// Calls that all gateways together may make in `per`, where they share the budget.
    pub fn all_requests(&self) -> f64 {
        (f64::from(self.requests) * self.share).max(1.0)
    }
}
