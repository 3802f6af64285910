//! One configuration with everything that was built from it: what a request needs, ready to be looked up.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};

use crate::config::{Config, Origin, Route, SessionSource, Trusted, Upstream};
use crate::headers::NameSet;
use crate::proxy::clean::{self, Cleaner};
use crate::proxy::inject::{Slot, SlotIndex};
use crate::route::Router;
use crate::secret::NotHeaderSafe;
use crate::transport::body::BodyRules;

/// What one snapshot of the configuration is compiled to. Immutable, shared by all workers.
#[derive(Debug)]
pub struct Plans {
    /// Finds the plan of a request.
    pub router: Router,
    /// In the order of the routes' ids.
    pub routes: Box<[Plan]>,
    /// In the order of the upstreams' ids.
    pub upstreams: Box<[Arc<Upstream>]>,
    /// Leaves every upstream's response.
    pub response: Arc<NameSet>,
    /// Whose pages may read our errors.
    pub parties: Box<[Origin]>,
    /// Whose forwarding headers are believed.
    pub trusted: Trusted,
    /// Bytes of a request target.
    pub max_uri_bytes: usize,
    /// Bytes of a request body.
    pub max_body_bytes: Option<u64>,
    /// How many distinct tokens and session values a remembered session has slots for.
    pub keys: usize,
    /// See `keys`.
    pub values: usize,
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
    /// `Vary` on its responses: the headers in which a credential may stand.
    pub vary: Option<HeaderValue>,
    /// What its request bodies must obey.
    pub body: BodyRules,
    /// To the response head.
    pub response_timeout: Option<Duration>,
}

// === impl Plans ===

impl Plans {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// When a fixed value that is injected cannot stand in a header.
    pub fn new(config: &Config) -> Result<Self, NotHeaderSafe> {
        let upstreams: Box<[_]> = config.upstreams.iter().cloned().map(Arc::new).collect();
        let mut index = SlotIndex::default();
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            let upstream = &upstreams[route.upstream.index()];
            let cleaner = Cleaner::new(route, upstream, &config.routes);
            let mut slots = Vec::with_capacity(route.inject.len());
            for injection in &route.inject {
                slots.extend(index.compile(injection)?);
            }
            let limits = &config.server.limits;
            let body = BodyRules {
                progress: limits.body_progress,
                limit: limits.request_body,
                forbidden: Arc::clone(&cleaner.trailers),
            };
            routes.push(Plan {
                vary: vary(&route.session),
                cleaner,
                slots: slots.into(),
                body,
                response_timeout: upstream.response_timeout,
                route: route.clone(),
            });
        }
        Ok(Self {
            router: Router::new(&config.routes),
            routes: routes.into(),
            upstreams,
            response: Arc::new(clean::response_names()),
            parties: config.clerk.authorized_parties.clone().into(),
            trusted: config.server.trusted_proxies.clone(),
            max_uri_bytes: config.server.limits.max_uri_bytes,
            max_body_bytes: config.server.limits.request_body,
            keys: index.keys(),
            values: index.values(),
        })
    }
}

/// The headers on which the answers of a route depend; a shared cache in front sees no credential otherwise.
fn vary(sources: &[SessionSource]) -> Option<HeaderValue> {
    let names: Vec<&str> = sources
        .iter()
        .map(|source| match source {
            SessionSource::Bearer => header::AUTHORIZATION.as_str(),
            SessionSource::Cookie => header::COOKIE.as_str(),
            SessionSource::Header(name) => name.as_str(),
        })
        .collect();
    // Header names joined by commas are a valid header value.
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
}

/// x
#[derive(Debug)]
pub struct Gateway<M> { /// x
pub plans: Plans, /// x
pub log: crate::config::Log, /// x
pub m: std::marker::PhantomData<M> }
