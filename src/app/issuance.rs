//! The way to the issuer: its client, its keys, the budget, the breaker and the cache that replicas share; and what of them
//! another configuration keeps.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::config::{ApiUrl, Clerk, Config, KeySource};
use crate::lifecycle::{Shutdown, Spawner};
use crate::metrics::Metrics;
use crate::session::jwks::keys::{BadKey, KeySet};
use crate::session::jwks::{FetchError, FetchKeys, Jwks, Pace};
use crate::token::breaker::{Breaker, Health};
use crate::token::budget::purse::Purse;
use crate::token::budget::{Budget, Limiter};
use crate::token::clerk::{BuildError, ClerkClient};
use crate::token::freshness::{Jitter, Rules};
use crate::token::retry::Retry;
use crate::token::shared::follow::CaughtUp;
use crate::token::shared::level::Level;
use crate::token::shared::outbox::{Hear, Outbox};
use crate::token::shared::redis::{self, RedisStore};
use crate::token::shared::{self, Shared, follow, herald};

/// How a token is minted: found in the shared level, or asked again, unless the issuer is down, within the budget.
pub type ClerkMint = Shared<Retry<Breaker<Budget<Arc<ClerkClient>>>>, RedisStore>;

/// What minting and verifying under one configuration goes through.
#[derive(Debug, Clone)]
pub struct Issuance {
    /// One attempt to mint.
    pub client: Arc<ClerkClient>,
    /// The keys that verify sessions.
    pub jwks: Jwks,
    /// The budget.
    pub limiter: Arc<Limiter>,
    health: Arc<Health>,
    level: Option<Arc<Level<RedisStore>>>,
}

/// What it is made with.
#[derive(Debug, Clone)]
pub struct Means {
    /// The clocks.
    pub clock: Clock,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// Runs what lasts: connections and the fetching of keys.
    pub tasks: Spawner,
    /// Ends all of it.
    pub shutdown: Shutdown,
    /// What other replicas have to hear.
    pub outbox: Arc<Outbox>,
}

/// There is no way to the issuer.
#[derive(Debug, thiserror::Error)]
pub enum IssuanceError {
    /// The issuer's client cannot be set up.
    #[error("cannot set up the client of the issuer")]
    Client(#[source] BuildError),
    /// `jwt_key` is not a key that can verify.
    #[error("clerk.jwt_key is not an RSA key that can verify session tokens")]
    Key(#[source] BadKey),
    /// The client of Redis cannot be set up.
    #[error(transparent)]
    Shared(#[from] redis::BuildError),
}

/// Downloads the issuer's keys.
struct IssuerKeys {
    client: Arc<ClerkClient>,
    url: ApiUrl,
    with_secret: bool,
}

// === impl Issuance ===

impl Issuance {
    /// For the first configuration.
    ///
    /// # Errors
    /// When the client cannot be set up, or `jwt_key` is no key.
    pub fn new(config: &Config, means: &Means) -> Result<Self, IssuanceError> {
        let clerk = &config.clerk;
        let client = client(clerk, means)?;
        let jwks = jwks(clerk, &client, KeySet::empty(), means)?;
        let limiter = Limiter::new(&clerk.budget, Arc::clone(&means.metrics));
        let (health, level) = (Health::new(Arc::clone(&means.metrics)), level(config, means)?);
        Ok(Self { client, jwks, limiter, health, level })
    }

    /// For the next one. What is known of an issuer stays known while it is the same: its keys, the budget, its health.
    ///
    /// # Errors
    /// As before.
    pub fn next(&self, before: &Config, config: &Config, means: &Means) -> Result<Self, IssuanceError> {
        let (old, new) = (&before.clerk, &config.clerk);
        let same_issuer = old.api_url == new.api_url;
        let same_way = same_issuer && old.is_called_like(new);
        let client = if same_way { Arc::clone(&self.client) } else { client(new, means)? };
        // One URL serves every instance of Clerk: which one's keys they are, the secret decides.
        let named = old.issuer.is_some() || old.publishable_key.is_some();
        let same_instance = named && old.issuer == new.issuer && old.publishable_key == new.publishable_key;
        let jwks = match (&old.keys, &new.keys) {
            (old, new) if old == new && same_way => self.jwks.clone(),
            (KeySource::Jwks { url: before, .. }, KeySource::Jwks { url, .. }) if before == url && same_instance => {
                jwks(new, &client, (*self.jwks.current()).clone(), means)?
            }
            _ => jwks(new, &client, KeySet::empty(), means)?,
        };
        let limiter = match (same_issuer, old.budget == new.budget) {
            (true, true) => Arc::clone(&self.limiter),
            (true, false) => self.limiter.resized(&new.budget),
            (false, _) => Limiter::new(&new.budget, Arc::clone(&means.metrics)),
        };
        let health = if same_issuer { Arc::clone(&self.health) } else { Health::new(Arc::clone(&means.metrics)) };
        let same_level = before.shared == config.shared && old.timeout == new.timeout && same_issuer;
        let level = if same_level { self.level.clone() } else { level(config, means)? };
        Ok(Self { client, jwks, limiter, health, level })
    }

    /// Mints so.
    pub fn mint(&self, config: &Config, clock: &Clock) -> ClerkMint {
        let budgeted = Budget::new(Arc::clone(&self.client), Arc::clone(&self.limiter));
        let retried = Retry::new(Breaker::new(budgeted, Arc::clone(&self.health)), clock.clone(), Jitter::random());
        Shared::new(retried, self.level.clone(), Rules::from(&config.cache))
    }

    /// This is what counts from now on. Other replicas are told, and what they say is heard by `hear`, of purges what concerns
    /// tokens no older than `age`; with what tells that all of it was heard, where that has just begun.
    pub fn engage(&self, means: &Means, age: Duration, hear: &Hear) -> Option<CaughtUp> {
        means.outbox.open(self.level.is_some());
        if self.level.is_none() {
            means.metrics.control().shared_up.set(-1);
        }
        let purse = self.level.clone().map(|level| -> Arc<dyn Purse> { Arc::new(level) });
        self.limiter.share(purse);
        let level = self.level.as_ref().filter(|level| level.engage())?;
        herald::begin(level, Arc::clone(&means.outbox), &means.tasks);
        Some(follow::begin(level, age, hear, &means.tasks))
    }
}

/// The level that replicas share, where there is one.
fn level(config: &Config, means: &Means) -> Result<Option<Arc<Level<RedisStore>>>, IssuanceError> {
    let Some(configured) = &config.shared else { return Ok(None) };
    let (tasks, counts) = (means.tasks.sibling(), means.metrics.control().common());
    let shared = shared::level::Means { clock: means.clock.clone(), tasks, counts };
    let (store, outbox) = (RedisStore::new(configured)?, Arc::clone(&means.outbox));
    let level = Level::telling(store, configured, config.clerk.timeout, shared, outbox);
    level.warm();
    Ok(Some(level))
}

fn client(clerk: &Clerk, means: &Means) -> Result<Arc<ClerkClient>, IssuanceError> {
    let (clock, metrics) = (means.clock.clone(), Arc::clone(&means.metrics));
    let client = ClerkClient::new(clerk, clock, means.tasks.sibling(), metrics);
    client.map(Arc::new).map_err(IssuanceError::Client)
}

/// `known`: what is verified with until the first fetch.
fn jwks(clerk: &Clerk, client: &Arc<ClerkClient>, known: KeySet, means: &Means) -> Result<Jwks, IssuanceError> {
    match &clerk.keys {
        KeySource::None => Ok(Jwks::fixed(KeySet::empty())),
        KeySource::Pinned(der) => KeySet::pinned(der).map(Jwks::fixed).map_err(IssuanceError::Key),
        KeySource::Jwks { url, with_secret, refresh } => {
            let fetch = IssuerKeys { client: Arc::clone(client), url: url.clone(), with_secret: *with_secret };
            let pace = Pace { refresh: *refresh, timeout: clerk.timeout };
            let (clock, metrics) = (means.clock.clone(), Arc::clone(&means.metrics));
            Ok(Jwks::start(fetch, known, pace, clock, metrics, &means.tasks.sibling(), &means.shutdown))
        }
    }
}

// === impl IssuerKeys ===

impl FetchKeys for IssuerKeys {
    async fn fetch(&self) -> Result<Bytes, FetchError> {
        let fetched = self.client.fetch_jwks(&self.url, self.with_secret).await;
        fetched.map_err(|error| FetchError(Box::new(error)))
    }
}
