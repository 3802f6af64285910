//! The simulated shared level: the real one, over a store in memory that takes as long to answer as one over the network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::case::Case;
use crate::clock::Clock;
use crate::config;
use crate::config::shared::{CacheKey, Reach, Redis};
use crate::lifecycle::Spawner;
use crate::metrics::Metrics;
use crate::token::shared::level::{Level, Means};
use crate::token::shared::memory::MemoryStore;
use crate::token::shared::seal::{EPOCHS, Epoch, Names};
use crate::token::shared::store::{Holder, Leased, Seen, Store, StoreError};

/// It protects nothing here.
const KEY: &str = "c2ltdWxhdGVkIHNpbXVsYXRlZCBzaW11bGF0ZWQgISE=";

/// The store, as one replica sees it.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    store: Arc<MemoryStore>,
    latency: Duration,
}

// === impl Remote ===

impl Remote {
    /// `None` where the case has no shared level.
    pub(super) fn of(case: &Case) -> Option<Self> {
        case.shared.map(|latency| Self { store: Arc::default(), latency })
    }

    /// What a gateway puts before its mints.
    pub(super) fn level(
        &self,
        case: &Case,
        clock: &Clock,
        tasks: &Spawner,
        metrics: &Metrics,
    ) -> Option<Arc<Level<Self>>> {
        let shared = config::Shared {
            redis: Redis { reach: Reach::Socket(PathBuf::new()), tls: false, database: 0 },
            username: None,
            password: None,
            key: CacheKey::parse(KEY)?,
            previous: None,
            prefix: "mintgate:".to_owned(),
            timeout: Duration::from_millis(50),
            ca: None,
        };
        let means = Means { clock: clock.clone(), tasks: tasks.clone(), counts: metrics.control().common() };
        Some(Level::new(self.clone(), &shared, case.timeout, means))
    }
}

impl Store for Remote {
    async fn look(&self, at: &Names) -> Result<Seen, StoreError> {
        sleep(self.latency).await;
        self.store.look(at).await
    }

    async fn lease(
        &self,
        at: &Names,
        holder: &Holder,
        life: Duration,
        fresh: &[Epoch; EPOCHS],
    ) -> Result<Leased, StoreError> {
        sleep(self.latency).await;
        self.store.lease(at, holder, life, fresh).await
    }

    async fn put(&self, at: &Names, holder: &Holder, value: Vec<u8>, life: Duration) -> Result<(), StoreError> {
        sleep(self.latency).await;
        self.store.put(at, holder, value, life).await
    }

    async fn release(&self, at: &Names, holder: &Holder) -> Result<(), StoreError> {
        sleep(self.latency).await;
        self.store.release(at, holder).await
    }

    async fn renew(&self, epochs: &[(String, Epoch)]) -> Result<(), StoreError> {
        self.store.renew(epochs).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}
