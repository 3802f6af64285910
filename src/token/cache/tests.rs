//! Each invariant of the design's section 5, by name.

mod expect;
mod flight;
mod life;
mod purge;
mod replace;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::clock::Wall;
use crate::config::{MintKind, MintSpec, TemplateName};
use crate::secret::Digest;
use crate::session::{SessionId, UserId};
use crate::token::breaker::{Breaker, Health};
use crate::token::budget::{Budget, Limiter};
use crate::token::fake::{Fake, budget, key, metrics, request, spec, unavailable};
use crate::token::retry::Retry;
use crate::token::{Issuer, Scope};

const LATENCY: Duration = Duration::from_millis(250);

fn config() -> config::Cache {
    config::Cache {
        max_bytes: 64 << 20,
        max_session_bytes: 0,
        min_remaining: Duration::from_secs(5),
        max_lifetime: Duration::from_hours(1),
        refresh_at: Some(0.8),
        missing_ttl: Some(Duration::from_secs(5)),
    }
}

struct Bench {
    clock: Clock,
    cache: Arc<TokenCache>,
    tasks: Spawner,
    metrics: Arc<Metrics>,
}

type Got = (Lookup, Result<Arc<Token>, MintError>);

impl Bench {
    fn new() -> Self {
        Self::with(&config())
    }

    fn with(config: &config::Cache) -> Self {
        let (clock, tasks, metrics) =
            (Clock::following(Wall::from_seconds(1_800_000_000)), Spawner::current(), metrics());
        let cache = TokenCache::new(config, clock.clone(), tasks.clone(), Jitter::fixed(0.0), Arc::clone(&metrics));
        Self { clock, cache, tasks, metrics }
    }

    fn healthy(&self, life: u64) -> Arc<Fake> {
        Fake::healthy(&self.clock, life, LATENCY)
    }

    async fn get<M: Mint>(&self, number: usize, mint: &Arc<M>) -> Got {
        self.cache.get(request(&key(number)), mint).await
    }

    fn spawn<M: Mint>(&self, number: usize, mint: &Arc<M>) -> JoinHandle<Got> {
        let (cache, mint, request) = (Arc::clone(&self.cache), Arc::clone(mint), request(&key(number)));
        self.tasks.spawn(async move { cache.get(request, &mint).await })
    }

    /// As a proxy does it: look, serve, and refresh where that is due.
    fn serve<M: Mint>(&self, number: usize, mint: &Arc<M>) -> Option<Arc<Token>> {
        let (token, freshness) = self.cache.get_fresh(&key(number), self.clock.now())?;
        if freshness == Freshness::RefreshDue {
            self.cache.refresh(request(&key(number)), mint);
        }
        Some(token)
    }

    /// What is left of a token's life in the issuer's time, in milliseconds.
    fn left(&self, token: &Token) -> i64 {
        token.expires_at.unwrap().as_millis() - self.clock.wall().shifted(token.offset_ms).as_millis()
    }
}

fn text(token: &Token) -> &str {
    token.bare().to_str().unwrap()
}

fn error(got: Got) -> MintError {
    got.1.unwrap_err()
}
