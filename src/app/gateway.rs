//! What requests meet, built out of a configuration.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::lifecycle::Spawner;
use crate::metrics::Metrics;
use crate::proxy::gateway::{Gateway, Plans, Sessions};
use crate::secret::NotHeaderSafe;
use crate::session::credential::CookieRules;
use crate::session::jwks::Jwks;
use crate::session::memory::Memory;
use crate::session::revoked::Revoked;
use crate::session::verify::Verifier;
use crate::token::cache::TokenCache;
use crate::token::freshness::Jitter;
use crate::token::{Issuer, Mint};
use crate::transport::tls::client::ClientTls;
use crate::transport::tls::reload::Live;

/// What requests meet: everything but where the keys come from and how tokens are minted. `tls`: for each upstream that
/// speaks it.
///
/// # Errors
/// When a fixed value cannot stand in a header.
pub fn build<M: Mint>(
    config: &Config,
    tls: &[Option<Live<ClientTls>>],
    jwks: Jwks,
    mint: M,
    metrics: &Arc<Metrics>,
    clock: &Clock,
    control: &Spawner,
) -> Result<Gateway<M>, NotHeaderSafe> {
    let tokens = TokenCache::new(&config.cache, clock.clone(), control.clone(), Jitter::random(), Arc::clone(metrics));
    let sessions = Sessions {
        cookies: CookieRules::new(&config.clerk),
        verifier: Verifier::new(&config.clerk).with_claims(config.reads_claims()),
        jwks,
        memory: Memory::new(config.cache.max_session_bytes),
        revoked: Arc::new(Revoked::new(Arc::clone(metrics))),
        skew: config.clerk.clock_skew,
    };
    Ok(Gateway {
        number: 1,
        plans: Plans::new(config, tls)?,
        log: config.log.clone(),
        sessions,
        tokens,
        mint: Arc::new(mint),
        issuer: Issuer::new(config.clerk.api_url.as_str(), config.clerk.issuer.as_deref().unwrap_or_default()),
        mint_timeout: config.clerk.timeout,
        metrics: Arc::clone(metrics),
    })
}
