//! Another configuration for a gateway that serves: built whole, then handed to every worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gateway::{Lasting, names, needs_key};
use super::issuance::{ClerkMint, Issuance, IssuanceError, Means};
use super::traces::Tracing;
use super::ways::Ways;
use crate::admin::facts::Facts;
use crate::clock::Clock;
use crate::config::Config;
use crate::lifecycle::{Readiness, Spawner};
use crate::live::Live;
use crate::metrics::ledger::Ledger;
use crate::proxy::gateway::{Gateway, Plans};
use crate::proxy::worker::Worker;
use crate::revocation::EndTunnels;
use crate::secret::NotHeaderSafe;
use crate::server::Pulse;
use crate::token::shared::outbox::Hear;
use crate::traces::client;
use crate::transport::tls::client::{UpstreamTlsError, Upstreams};
use crate::transport::tls::reload::{Reload, Watchlist};
use crate::transport::tls::server::{ServerTls, ServerTlsError};

/// The workers and what they serve with.
#[derive(Debug)]
pub(super) struct Crew {
    current: Live<Gateway<ClerkMint>>,
    workers: Mutex<Vec<Arc<Worker<ClerkMint>>>>,
}

/// Puts another configuration to use.
#[derive(Debug)]
pub struct Renewal {
    pub(super) crew: Arc<Crew>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) lasting: Lasting,
    pub(super) issuance: Live<Issuance>,
    pub(super) means: Means,
    pub(super) readiness: Readiness,
    pub(super) config: Config,
    /// Of each section that listens, in the order of [`Config::listener_tls`].
    pub(super) tls: [Option<Live<ServerTls>>; 4],
    pub(super) certificates: Watchlist,
    pub(super) pulse: Pulse,
    pub(super) facts: Live<Facts>,
    pub(super) tracing: Tracing,
    pub(super) ways: Ways,
    pub(super) hear: Hear,
}

/// Why a configuration that is valid is not put to use. The one before serves on.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// Routes name listeners, so that neither can change alone.
    #[error("a change of server.listen needs a restart, and nothing of this configuration is used before")]
    Listeners,
    /// The issuer cannot be called, or its key not be used.
    #[error(transparent)]
    Issuance(#[from] IssuanceError),
    /// Some upstream's `tls` cannot be used.
    #[error("cannot set up TLS")]
    UpstreamTls(#[from] UpstreamTlsError),
    /// The files of a listener's `tls` cannot be used.
    #[error("cannot serve TLS")]
    Tls(#[from] ServerTlsError),
    /// A fixed value cannot stand in a header.
    #[error("a value of a route's inject cannot stand in a header")]
    Value(#[from] NotHeaderSafe),
    /// There is no way to the collector of traces.
    #[error("cannot send traces")]
    Traces(#[from] client::BuildError),
    /// Nobody could be verified with it.
    #[error("the verification keys at the new clerk.jwks_url do not come")]
    NoKeys,
}

// === impl Crew ===

impl Crew {
    pub(super) fn new(gateway: Arc<Gateway<ClerkMint>>) -> Arc<Self> {
        Arc::new(Self { current: Live::new(gateway), workers: Mutex::default() })
    }

    /// What requests meet now.
    pub(super) fn gateway(&self) -> Arc<Gateway<ClerkMint>> {
        self.current.current()
    }

    /// A worker on the runtime behind `spawner`, which will hear of every further configuration.
    pub(super) fn hire(&self, clock: Clock, spawner: Spawner) -> Arc<Worker<ClerkMint>> {
        // Under the lock, so that no configuration comes in between.
        let mut workers = self.workers();
        let worker = Worker::new(self.gateway(), clock, spawner);
        workers.push(Arc::clone(&worker));
        worker
    }

    /// What tells the open tunnels of every worker to end.
    pub(super) fn end_tunnels(self: &Arc<Self>) -> EndTunnels {
        let crew = Arc::clone(self);
        Arc::new(move |whose, farewell| crew.workers().iter().map(|worker| worker.tunnels().end(whose, farewell)).sum())
    }

    fn replace(&self, gateway: &Arc<Gateway<ClerkMint>>) {
        let workers = self.workers();
        self.current.replace(Arc::clone(gateway));
        for worker in &*workers {
            worker.replace(Arc::clone(gateway));
        }
    }

    fn workers(&self) -> MutexGuard<'_, Vec<Arc<Worker<ClerkMint>>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Renewal ===

impl Renewal {
    /// What asks the workers for a sign of life.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Whether requests should be sent here.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Everything that is counted.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Serves further requests with this configuration; what is under way keeps the one before. The keys of the
    /// configuration that keep their old value until a restart.
    ///
    /// # Errors
    /// See [`RenewalError`]. Nothing has changed then.
    pub async fn renew(&mut self, mut config: Config) -> Result<Vec<&'static str>, RenewalError> {
        if config.server.listen != self.config.server.listen {
            return Err(RenewalError::Listeners);
        }
        let kept = config.keep_what_needs_a_restart(&self.config);
        let upstream_tls = Upstreams::new(&config.upstreams)?;
        let tls = listener_tls(&config)?;
        let plans = Plans::new(&config, &upstream_tls.live)?;
        let issuance = self.issuance.current().next(&self.config, &config, &self.means)?;
        let known = self.issuance.load().jwks.is_ready();
        if needs_key(&config) && known && !issuance.jwks.is_ready() {
            // Requests would wait for the keys, or be refused: the configuration before serves until they are there.
            let ready = tokio::time::timeout(config.clerk.timeout, issuance.jwks.ready());
            ready.await.map_err(|_| RenewalError::NoKeys)?;
        }
        let metrics = self.ledger.begin(names(&config));
        let (number, mint) = (self.crew.gateway().number + 1, issuance.mint(&config, &self.means.clock));
        let jwks = issuance.jwks.clone();
        let tracer = self.tracing.next(&self.config, &config, self.crew.gateway().tracer.clone())?;
        let gateway = Gateway { tracer, ..self.lasting.gateway(number, &config, plans, jwks, mint, &metrics) };
        let gateway = Arc::new(gateway);
        self.crew.replace(&gateway);
        let tls = self.tls.iter().zip(tls).filter_map(|(live, tls)| live.clone().zip(tls));
        self.certificates.replace(upstream_tls.files, tls);
        self.ways.replace(&config, &gateway, &issuance);
        if issuance.jwks.is_ready() || !needs_key(&config) {
            self.readiness.set_key_known();
        }
        // Who serves already serves on while it is heard.
        drop(issuance.engage(&self.means, self.config.cache.max_lifetime, &self.hear));
        self.issuance.replace(issuance);
        self.facts.replace(Facts::of(&config, number));
        self.config = config;
        Ok(kept)
    }
}

/// What each section that listens presents, in the order of [`Config::listener_tls`].
pub(super) fn listener_tls(config: &Config) -> Result<[Option<Reload<ServerTls>>; 4], ServerTlsError> {
    let mut built = [const { None }; 4];
    for (built, tls) in built.iter_mut().zip(config.listener_tls()) {
        *built = tls.map(ServerTls::reloading).transpose()?;
    }
    Ok(built)
}
