//! What requests meet, built out of a configuration and of what outlives it.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Authz, Config, Listen, Route};
use crate::lifecycle::Spawner;
use crate::metrics::{ListenerId, Metrics, Names};
use crate::proxy::error::outcome_names;
use crate::proxy::gateway::{Gateway, Plans, Sessions};
use crate::revocation::{EndTunnels, Revocation};
use crate::session::credential::CookieRules;
use crate::session::jwks::Jwks;
use crate::session::memory::Memory;
use crate::session::revoked::Revoked;
use crate::session::verify::Verifier;
use crate::token::cache::TokenCache;
use crate::token::freshness::Jitter;
use crate::token::shared::outbox::Outbox;
use crate::token::{Issuer, Mint};

/// What metrics call the listener of `[authz]`, unless another one is called so.
const AUTHZ: &str = "authz";

/// What outlives a configuration: tokens, the sessions that were verified, and those that are revoked.
#[derive(Debug)]
pub struct Lasting {
    tokens: Arc<TokenCache>,
    memory: Memory,
    revoked: Arc<Revoked>,
    outbox: Arc<Outbox>,
}

// === impl Lasting ===

impl Lasting {
    /// Empty. Mints run on `control`.
    pub fn new(config: &Config, metrics: &Arc<Metrics>, clock: &Clock, control: &Spawner) -> Self {
        let (jitter, counts) = (Jitter::random(), Arc::clone(metrics));
        Self {
            tokens: TokenCache::new(&config.cache, clock.clone(), control.clone(), jitter, counts),
            memory: Memory::new(config.cache.max_session_bytes),
            revoked: Arc::new(Revoked::new(Arc::clone(metrics))),
            outbox: Arc::default(),
        }
    }

    /// What other replicas have to hear.
    pub fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox)
    }

    /// What ends sessions in all of it, and in the tunnels.
    pub fn revocation(&self, tunnels: EndTunnels) -> Revocation {
        Revocation {
            revoked: Arc::clone(&self.revoked),
            tokens: Arc::clone(&self.tokens),
            memory: self.memory.clone(),
            tunnels,
            outbox: self.outbox(),
        }
    }

    /// What requests meet: everything but where the keys come from and how tokens are minted. `number` counts the
    /// configurations.
    pub fn gateway<M: Mint>(
        &self,
        number: u64,
        config: &Config,
        plans: Plans,
        jwks: Jwks,
        mint: M,
        metrics: &Arc<Metrics>,
    ) -> Gateway<M> {
        self.tokens.reconfigure(&config.cache, Arc::clone(metrics));
        let sessions = Sessions {
            cookies: CookieRules::new(&config.clerk),
            verifier: Verifier::new(&config.clerk).with_claims(config.reads_claims()),
            jwks,
            memory: self.memory.clone(),
            revoked: Arc::clone(&self.revoked),
            skew: config.clerk.clock_skew,
        };
        Gateway {
            number,
            plans,
            log: config.log.clone(),
            sessions,
            tokens: Arc::clone(&self.tokens),
            mint: Arc::new(mint),
            issuer: Issuer::new(config.clerk.api_url.as_str(), config.clerk.issuer.as_deref().unwrap_or_default()),
            mint_timeout: config.clerk.timeout,
            metrics: Arc::clone(metrics),
            tracer: None,
        }
    }
}

/// What is counted, by name.
pub fn names(config: &Config) -> Names {
    let authz = config.authz.as_ref().map(|authz| asking(config, authz));
    let mut templates: Vec<String> = config.minted.iter().map(|kind| kind.label().to_owned()).collect();
    // The routes' keep their places. What the secret key's holders ask for beside these is `other`.
    for template in config.token_api.iter().flat_map(|api| &api.callers).flat_map(|caller| &caller.templates) {
        if !templates.iter().any(|known| known == template.as_str()) {
            templates.push(template.as_str().to_owned());
        }
    }
    Names {
        routes: config.routes.iter().map(|route| route.name.clone()).collect(),
        templates,
        upstreams: config.upstreams.iter().map(|upstream| upstream.name.clone()).collect(),
        listeners: config.server.listen.iter().chain(&authz).map(|listen| listen.name.clone()).collect(),
        outcomes: outcome_names(),
    }
}

/// The listener of `[authz]`: the place after those of `[server]`, so that no route names it.
pub(super) fn asking(config: &Config, authz: &Authz) -> Listen {
    let id = ListenerId::new(config.server.listen.len());
    let address = authz.way.listen.clone();
    let taken = config.server.listen.iter().any(|listen| listen.name == AUTHZ);
    Listen { id, name: if taken { address.to_string() } else { AUTHZ.to_owned() }, address }
}

/// Whether some route needs a verified session.
pub(super) fn needs_key(config: &Config) -> bool {
    config.routes.iter().any(Route::takes_sessions)
}
