//! One configuration with everything that was built from it: what a request needs, ready to be looked up.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};

use crate::clock::{Clock, Now};
use crate::config::{Config, ConnectionInit, Log, Origin, Route, SessionSource, Trusted, Upstream};
use crate::headers::{HEAD_ONLY, NameSet};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::proxy::clean::{self, Cleaner};
use crate::proxy::inject::{Slot, SlotIndex};
use crate::route::Router;
use crate::secret::NotHeaderSafe;
use crate::session::credential::{CookieRules, Credential};
use crate::session::jwks::Jwks;
use crate::session::memory::{Memory, Remembered, Slots};
use crate::session::revoked::Revoked;
use crate::session::tag::Tag;
use crate::session::verify::{self, Verifier};
use crate::session::{Reason, SessionError};
use crate::token::cache::TokenCache;
use crate::token::{Issuer, Mint};
use crate::traces::Tracer;
use crate::transport::body::BodyRules;
use crate::transport::body::room::Room;
use crate::transport::tls::client::ClientTls;

/// How long a request waits for the keys that its token may be signed with.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// Bodies of the greatest length that a route keeps at one time for `retry_rejected`.
const KEPT_BODIES: usize = 256;

/// One configuration, shared by all workers. Immutable, but for the maps that outlive it.
#[derive(Debug)]
pub struct Gateway<M> {
    /// Counts configurations: what one of them has verified is verified anew under the next.
    pub number: u64,
    /// What requests are judged by.
    pub plans: Plans,
    /// What the access record shows.
    pub log: Log,
    /// Verifies sessions.
    pub sessions: Sessions,
    /// The tokens in memory.
    pub tokens: Arc<TokenCache>,
    /// Mints what is not there.
    pub mint: Arc<M>,
    /// Whose tokens they are.
    pub issuer: Issuer,
    /// For one mint with all its waiting.
    pub mint_timeout: Duration,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// Takes the spans of sampled requests, where there are traces.
    pub tracer: Option<Arc<Tracer>>,
}

/// What verifies sessions and remembers them.
#[derive(Debug)]
pub struct Sessions {
    /// How Clerk's cookies are chosen from.
    pub cookies: CookieRules,
    /// What a token must say.
    pub verifier: Verifier,
    /// What it must be signed with.
    pub jwks: Jwks,
    /// What has been verified before.
    pub memory: Memory,
    /// What is refused although it is verified.
    pub revoked: Arc<Revoked>,
    /// Tolerance for `exp`, `nbf` and `iat`.
    pub skew: Duration,
}

/// What the routes of a configuration are compiled to.
#[derive(Debug)]
pub struct Plans {
    /// Finds the plan of a request.
    pub router: Router,
    /// In the order of the routes' ids.
    pub routes: Box<[Plan]>,
    /// In the order of the upstreams' ids.
    pub upstreams: Box<[Destination]>,
    /// Leaves every upstream's response.
    pub response: Arc<NameSet>,
    /// Leaves the trailers of every upstream's response.
    pub response_trailers: Arc<NameSet>,
    /// Whose pages may read our errors.
    pub parties: Box<[Origin]>,
    /// Whose forwarding headers are believed.
    pub trusted: Trusted,
    /// Who may ask for decisions.
    pub allow_from: Trusted,
    /// Every header that some route injects, `authorization` and `cookie` apart.
    pub targets: Box<[HeaderName]>,
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// Bytes of a request target.
    pub max_uri_bytes: usize,
    /// Bytes of a request body.
    pub max_body_bytes: Option<u64>,
    /// How many distinct tokens and values a remembered session has slots for.
    pub slots: Slots,
}

/// An upstream, with what its connections need.
#[derive(Debug)]
pub struct Destination {
    /// As configured.
    pub upstream: Arc<Upstream>,
    /// Where TLS is spoken.
    pub tls: Option<Live<ClientTls>>,
}

/// A route, compiled.
#[derive(Debug)]
pub struct Plan {
    /// As configured.
    pub route: Route,
    /// What leaves its requests.
    pub cleaner: Cleaner,
    /// What is put into them.
    pub slots: Box<[Slot]>,
    /// The place in a remembered session of whether it is what the route asks for; `None` where it asks nothing.
    pub guard: Option<usize>,
    /// `Vary` on its responses: the headers in which a credential may stand.
    pub vary: Option<HeaderValue>,
    /// What its request bodies must obey.
    pub body: BodyRules,
    /// To the response head.
    pub response_timeout: Option<Duration>,
    /// For the bodies that `retry_rejected` keeps, of all requests and their answers together.
    pub kept: Arc<Room>,
    /// Which of the slots is the token of `route.connection_init`.
    first: Option<usize>,
}

/// Why a credential proves no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It does not.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Nobody can tell: no verification key has come from the issuer yet.
    #[error("no verification key is known yet")]
    NoKeys,
    /// Nor will one come: the issuer refuses the secret key that its keys are asked for with.
    #[error("no verification key is known, since the issuer refuses the secret key")]
    KeyRejected,
}

// === impl Gateway ===

impl<M: Mint> Gateway<M> {
    /// The session that a credential proves: remembered or verified now, and then checked against the time, the route
    /// and the revocations, which no memory may answer for. `tag` is its token's. `now` is brought up to date where this
    /// had to wait.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub async fn verify(
        &self,
        credential: &Credential<'_>,
        tag: Tag,
        plan: &Plan,
        clock: &Clock,
        now: &mut Now,
    ) -> Result<Arc<Remembered>, VerifyError> {
        let sessions = &self.sessions;
        let remembered = if let Some(remembered) = sessions.memory.get(tag, self.number, &sessions.jwks) {
            remembered
        } else {
            // Rarer than a hit, and big: boxed, so that the future of every request stays small.
            let verified = Box::pin(self.verify_anew(credential.token.as_str(), tag, *now)).await?;
            // It may have waited for a key: what follows is judged by the time after that.
            *now = clock.now();
            verified
        };
        let session = &remembered.session;
        let rules = &plan.route.rules;
        let checked = verify::check(session, now.wall, rules, credential.client_uat(), sessions.skew);
        // A Clerk application may be less strict than its route, and gets what is not good: it is judged to the end.
        let foreign = matches!(checked, Err(SessionError::Invalid(Reason::Azp)));
        if !(plan.route.clerk_app && (foreign || matches!(checked, Err(SessionError::Pending)))) {
            checked?;
        }
        if sessions.revoked.refuses(&session.sid, Some(&session.sub), now.mono) {
            return Err(SessionError::Revoked.into());
        }
        if let Some(guard) = plan.guard
            && (checked.is_ok() || foreign)
            && !remembered.verdict(guard, |session| verify::permits(session, rules))
        {
            if tracing::enabled!(tracing::Level::DEBUG) {
                let unmet = verify::unmet(session, rules).join(", ");
                tracing::debug!(route = plan.route.name, unmet, "the session is not what the route asks for");
            }
            return Err(SessionError::Forbidden.into());
        }
        checked?;
        Ok(remembered)
    }

    async fn verify_anew(&self, token: &str, tag: Tag, now: Now) -> Result<Arc<Remembered>, VerifyError> {
        let sessions = &self.sessions;
        if !sessions.jwks.is_ready() {
            // No token is at fault while no key is known.
            let known = tokio::time::timeout(KEY_PATIENCE, sessions.jwks.ready()).await;
            known.map_err(|_| match self.metrics.control().issuer_key_rejected.get() {
                0 => VerifyError::NoKeys,
                _ => VerifyError::KeyRejected,
            })?;
        }
        let session = match sessions.verifier.verify(token, &sessions.jwks.current()) {
            Err(SessionError::Invalid(Reason::UnknownKey)) => {
                sessions.verifier.verify_or_fetch(token, &sessions.jwks, KEY_PATIENCE).await?
            }
            verified => verified?,
        };
        Ok(sessions.memory.remember(tag, session, self.number, self.plans.slots, now.wall, sessions.skew))
    }
}

// === impl Plan ===

impl Plan {
    /// What is done with the first message of a WebSocket, and the token for it.
    pub fn connection_init(&self) -> Option<(&ConnectionInit, &Slot)> {
        Some((self.route.connection_init.as_ref()?, self.slots.get(self.first?)?))
    }
}

// === impl Plans ===

impl Plans {
    /// Compiles a configuration. `tls`: for each upstream that speaks it.
    ///
    /// # Errors
    /// When a fixed value that is injected cannot stand in a header.
    pub fn new(config: &Config, tls: &[Option<Live<ClientTls>>]) -> Result<Self, NotHeaderSafe> {
        let upstreams: Box<[Arc<Upstream>]> = config.upstreams.iter().cloned().map(Arc::new).collect();
        let mut index = SlotIndex::default();
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            let upstream = config.upstream_of(route);
            let cleaner = Cleaner::new(route, upstream, &config.routes);
            let mut slots = Vec::with_capacity(route.inject.len());
            let mut first = None;
            for (number, injection) in route.inject.iter().enumerate() {
                if route.connection_init.as_ref().is_some_and(|init| init.injection == number) {
                    first = Some(slots.len());
                }
                slots.extend(index.compile(injection)?);
            }
            let limits = &config.server.limits;
            let body = BodyRules {
                progress: limits.body_progress,
                limit: limits.request_body,
                forbidden: Arc::clone(&cleaner.trailers),
            };
            routes.push(Plan {
                guard: index.guard(&route.rules),
                vary: vary(route),
                first,
                cleaner,
                slots: slots.into(),
                body,
                response_timeout: upstream.and_then(|upstream| upstream.response_timeout),
                kept: Arc::new(Room::new(
                    route.retry_rejected.as_ref().map_or(0, |rules| rules.max_body.saturating_mul(KEPT_BODIES)),
                )),
                route: route.clone(),
            });
        }
        let tls = tls.iter().cloned().chain(std::iter::repeat(None));
        let destinations =
            upstreams.iter().cloned().zip(tls).map(|(upstream, tls)| Destination { upstream, tls }).collect();
        Ok(Self {
            router: Router::new(&config.routes),
            routes: routes.into(),
            upstreams: destinations,
            response: Arc::new(clean::response_names()),
            response_trailers: Arc::new(response_trailers()),
            parties: config.clerk.authorized_parties.clone().into(),
            trusted: config.server.trusted_proxies.clone(),
            allow_from: config.authz.as_ref().map(|authz| authz.allow_from.clone()).unwrap_or_default(),
            targets: targets(&config.routes),
            max_header_bytes: config.server.limits.max_header_bytes,
            max_uri_bytes: config.server.limits.max_uri_bytes,
            max_body_bytes: config.server.limits.request_body,
            slots: Slots {
                keys: index.keys(),
                values: index.values(),
                verdicts: index.verdicts(),
                // Without a key there is but one cookie.
                peek: config.clerk.publishable_key.is_some()
                    && config.routes.iter().any(|route| route.session.contains(&SessionSource::Cookie)),
            },
        })
    }
}

fn targets(routes: &[Route]) -> Box<[HeaderName]> {
    let mut targets: Vec<HeaderName> = Vec::new();
    for injection in routes.iter().flat_map(|route| &route.inject) {
        let name = &injection.header;
        if *name != header::AUTHORIZATION && *name != header::COOKIE && !targets.contains(name) {
            targets.push(name.clone());
        }
    }
    targets.into()
}

fn response_trailers() -> NameSet {
    let mut names = clean::response_names();
    for name in &HEAD_ONLY {
        names.insert(name);
    }
    names
}

/// The headers on which the answers of a route depend; a shared cache in front sees no credential otherwise.
fn vary(route: &Route) -> Option<HeaderValue> {
    let id = route.session_id.iter().map(|source| source.header.as_str());
    let names: Vec<&str> = route
        .session
        .iter()
        .map(|source| match source {
            SessionSource::Bearer => header::AUTHORIZATION.as_str(),
            SessionSource::Cookie => header::COOKIE.as_str(),
            SessionSource::Header(name) => name.as_str(),
        })
        .chain(id)
        .collect();
    // Header names joined by commas are a valid header value.
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
}
