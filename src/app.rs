//! The composition root: out of a configuration, a gateway that listens; out of that, one that serves.
//!
//! Binding comes before serving, so that `main` can tell every address, and so that a test boots the very same thing on
//! ports that the kernel chose.

pub mod gateway;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::address::{BoundAddress, ListenAddress};
use crate::admin::{self, Admin};
use crate::clock::Clock;
use crate::config::{ApiUrl, Config, KeySource};
use crate::lifecycle::{Readiness, Shutdown, Spawner};
use crate::listener::bound::{self, BindError, Inherited};
use crate::metrics::{CacheName, Metrics, Names};
use crate::proxy::error::outcome_names;
use crate::proxy::gateway::Gateway;
use crate::proxy::worker::Worker;
use crate::secret::NotHeaderSafe;
use crate::server::{DataListener, Terms, Workers};
use crate::session::jwks::keys::KeySet;
use crate::session::jwks::{FetchError, FetchKeys, Jwks, Pace};
use crate::surface;
use crate::token::breaker::{Breaker, Health};
use crate::token::budget::{Budget, Limiter};
use crate::token::clerk::{self, ClerkClient};
use crate::token::freshness::Jitter;
use crate::token::retry::Retry;
use crate::transport::tls::client::{UpstreamTlsError, Upstreams};
use crate::transport::tls::reload::{self, Reload, Reloads};
use crate::transport::tls::server::{ServerTls, ServerTlsError};

/// At most so many workers when nobody says how many.
const MAX_WORKERS: usize = 4;

/// Between two looks at the files of certificates and keys.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Between two sweeps of what has died in memory.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// How a token is minted: asked again, unless the issuer is down, within the budget.
pub type ClerkMint = Retry<Breaker<Budget<Arc<ClerkClient>>>>;

/// Tells how many log lines were lost.
pub type DroppedLines = Box<dyn Fn() -> u64 + Send + Sync>;

/// What the process lends a gateway.
pub struct Process {
    /// The clocks.
    pub clock: Clock,
    /// Ends it.
    pub shutdown: Shutdown,
    /// Where mints, refreshes, keys and the admin listener run.
    pub control: Spawner,
    /// How many log lines were lost, where logging counts that.
    pub dropped_lines: Option<DroppedLines>,
    /// Sockets that systemd has passed.
    pub inherited: Inherited,
    /// Serve on the control runtime instead of on threads: one worker, for tests under paused time.
    pub in_place: bool,
}

/// A gateway that has its addresses and serves nothing yet.
pub struct Bound {
    config: Config,
    process: Process,
    metrics: Arc<Metrics>,
    gateway: Arc<Gateway<ClerkMint>>,
    client: Arc<ClerkClient>,
    readiness: Readiness,
    listeners: Vec<DataListener>,
    admin: Vec<(bound::Bound, axum::Router)>,
    tls: Option<Reload<ServerTls>>,
    files: Vec<Box<dyn Reloads>>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// What was asked for.
        address: ListenAddress,
        /// Why not.
        #[source]
        source: BindError,
    },
    /// The files of `server.tls` cannot be used.
    #[error("cannot serve TLS")]
    Tls(#[source] ServerTlsError),
    /// Some upstream's `tls` cannot be used.
    #[error("cannot set up TLS")]
    UpstreamTls(#[source] UpstreamTlsError),
    /// The issuer's client cannot be set up.
    #[error("cannot set up the client of the issuer")]
    Client(#[source] clerk::http::BuildError),
    /// `jwt_key` is not a key that can verify.
    #[error("clerk.jwt_key is not an RSA key that can verify session tokens")]
    Key(#[source] crate::session::jwks::keys::BadKey),
    /// A fixed value cannot stand in a header.
    #[error("a value of a route's inject cannot stand in a header")]
    Value(#[source] NotHeaderSafe),
    /// A worker cannot be started.
    #[error("cannot start the workers")]
    Workers(#[source] std::io::Error),
}

/// Downloads the issuer's keys.
struct IssuerKeys {
    client: Arc<ClerkClient>,
    url: ApiUrl,
    with_secret: bool,
}

/// Binds every listener and builds everything that a request needs.
///
/// # Errors
/// See [`StartError`]. Nothing is left listening then.
pub fn bind(config: Config, mut process: Process) -> Result<Bound, StartError> {
    let metrics = Arc::new(Metrics::new(names(&config)));
    let upstream_tls = Upstreams::new(&config.upstreams).map_err(StartError::UpstreamTls)?;
    let connections = process.control.sibling();
    let client = ClerkClient::new(&config.clerk, process.clock.clone(), connections, Arc::clone(&metrics));
    let client = Arc::new(client.map_err(StartError::Client)?);
    let jwks = jwks(&config, &client, &metrics, &process)?;
    let readiness = Readiness::new(process.shutdown.clone(), needs_key(&config));
    let limiter = Limiter::new(&config.clerk.budget, Arc::clone(&metrics));
    let health = Health::new(Arc::clone(&metrics));
    let budgeted = Budget::new(Arc::clone(&client), Arc::clone(&limiter));
    let mint = Retry::new(Breaker::new(budgeted, health), process.clock.clone(), Jitter::random());
    let gateway = gateway::build(&config, &upstream_tls.live, jwks, mint, &metrics, &process.clock, &process.control);
    let gateway = Arc::new(gateway.map_err(StartError::Value)?);
    let tls = config.server.tls.as_ref().map(ServerTls::reloading).transpose().map_err(StartError::Tls)?;
    let mut listeners = Vec::with_capacity(config.server.listen.len());
    for listen in &config.server.listen {
        for bound in listen_on(&listen.address, &mut process.inherited)? {
            listeners.push(DataListener { listen: listen.clone(), bound });
        }
    }
    let hooks = hooks(&gateway, limiter, process.dropped_lines.take());
    let mut admin = Vec::new();
    if let Some(configured) = &config.admin {
        let router = Admin {
            metrics: Arc::clone(&metrics),
            readiness: readiness.clone(),
            clock: process.clock.clone(),
            hosts: configured.hosts.clone(),
            hooks,
        }
        .router();
        for bound in listen_on(&configured.listen, &mut process.inherited)? {
            admin.push((bound, router.clone()));
        }
    }
    Ok(Bound { config, process, metrics, gateway, client, readiness, listeners, admin, tls, files: upstream_tls.files })
}

fn listen_on(address: &ListenAddress, inherited: &mut Inherited) -> Result<Vec<bound::Bound>, StartError> {
    bound::Bound::listen(address, inherited).map_err(|source| StartError::Bind { address: address.clone(), source })
}

/// What is counted, by name.
pub fn names(config: &Config) -> Names {
    Names {
        routes: config.routes.iter().map(|route| route.name.clone()).collect(),
        templates: config.minted.iter().map(|kind| kind.label().to_owned()).collect(),
        upstreams: config.upstreams.iter().map(|upstream| upstream.name.clone()).collect(),
        listeners: config.server.listen.iter().map(|listen| listen.name.clone()).collect(),
        outcomes: outcome_names(),
    }
}

fn needs_key(config: &Config) -> bool {
    config.routes.iter().any(|route| !route.session.is_empty())
}

fn jwks(
    config: &Config,
    client: &Arc<ClerkClient>,
    metrics: &Arc<Metrics>,
    process: &Process,
) -> Result<Jwks, StartError> {
    match &config.clerk.keys {
        KeySource::None => Ok(Jwks::fixed(KeySet::empty())),
        KeySource::Pinned(der) => KeySet::pinned(der).map(Jwks::fixed).map_err(StartError::Key),
        KeySource::Jwks { url, with_secret, refresh } => {
            let fetch = IssuerKeys { client: Arc::clone(client), url: url.clone(), with_secret: *with_secret };
            let pace = Pace { refresh: *refresh, timeout: config.clerk.timeout };
            let (clock, metrics) = (process.clock.clone(), Arc::clone(metrics));
            Ok(Jwks::start(fetch, pace, clock, metrics, &process.control.sibling(), &process.shutdown))
        }
    }
}

fn hooks(
    gateway: &Arc<Gateway<ClerkMint>>,
    limiter: Arc<Limiter>,
    dropped_lines: Option<DroppedLines>,
) -> Vec<admin::Hook> {
    let gateway = Arc::clone(gateway);
    vec![Box::new(move |metrics| {
        gateway.tokens.observe();
        limiter.observe();
        let memory = &gateway.sessions.memory;
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.control().cache_entries(CacheName::Sessions).set(gauge(memory.entries()));
        metrics.control().cache_bytes(CacheName::Sessions).set(gauge(memory.bytes()));
        if let Some(dropped) = &dropped_lines {
            metrics.control().log_lines_dropped.set(gauge(dropped()));
        }
    })]
}

// === impl Bound ===

impl Bound {
    /// The data listeners: what they are called and where they listen.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, &BoundAddress)> {
        self.listeners.iter().map(|data| (data.listen.name.as_str(), data.bound.address()))
    }

    /// Where probes and metrics are served.
    pub fn admin_listeners(&self) -> impl Iterator<Item = &BoundAddress> {
        self.admin.iter().map(|(bound, _)| bound.address())
    }

    /// The first data listener's TCP address, where there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners().find_map(|(_, address)| address.tcp())
    }

    /// The admin listener's TCP address, where there is one.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin_listeners().find_map(BoundAddress::tcp)
    }

    /// Everything that is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What requests meet: for tests that look inside.
    pub fn gateway(&self) -> &Arc<Gateway<ClerkMint>> {
        &self.gateway
    }

    /// Whether requests should be sent here.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Serves until `told` resolves, and then in order: not ready but serving for `drain_delay`; nothing new, and what
    /// is under way may finish within `drain_timeout`; the rest is ended. A second signal may skip all of it by
    /// [`Shutdown::stop`].
    ///
    /// # Errors
    /// When the workers cannot be started.
    pub async fn run(self, told: impl Future<Output = ()>) -> Result<(), StartError> {
        let Self { config, process, metrics, gateway, client, readiness, listeners, admin, tls, mut files } = self;
        let (shutdown, control) = (process.shutdown.clone(), process.control.clone());
        let (background, surfaces) = (control.sibling(), control.sibling());
        watch_keys(&gateway, &readiness, &background);
        sweep(&gateway, &process.clock, &background, &shutdown);
        if !config.clerk.secret_keys.is_empty() {
            drop(background.spawn(async move { client.warm().await }));
        }
        for (bound, router) in admin {
            let (tasks, until) = (surfaces.clone(), shutdown.stopped());
            // Probes and metrics are served to the end of the drain.
            let (ending, shut) = (Shutdown::new(), shutdown.clone());
            drop(background.spawn(async move {
                if let Err(error) = surface::serve(bound, router, tasks, ending.clone(), until).await {
                    tracing::error!(%error, "the admin listener has ended");
                }
                shut.stopped().await;
                ending.stop();
            }));
        }
        let live = tls.as_ref().map(Reload::live);
        if let Some(tls) = tls {
            files.push(Box::new(tls));
        }
        drop(background.spawn(reload::watch(files, LOOK_EVERY, shutdown.clone())));
        let limits = Arc::new(config.server.limits.clone());
        let terms = Terms { limits, tls: live, shutdown: shutdown.clone() };
        let workers = if process.in_place {
            let worker = Worker::new(gateway, &metrics, process.clock.clone(), control.sibling());
            Workers::in_place(listeners, &worker, &terms)
        } else {
            let clock = process.clock.clone();
            let make = move |_, spawner| Worker::new(Arc::clone(&gateway), &metrics, clock.clone(), spawner);
            Workers::spawn(worker_count(config.server.workers), listeners, &terms, &background, make)
        }
        .map_err(StartError::Workers)?;
        readiness.set_listening();
        let stopped = shutdown.stopped();
        tokio::pin!(stopped);
        tokio::select! {
            () = told => {}
            () = &mut stopped => {}
        }
        shutdown.announce();
        tracing::info!("ending: not ready any more");
        tokio::select! {
            () = tokio::time::sleep(config.server.drain_delay) => {}
            () = &mut stopped => {}
        }
        shutdown.drain();
        tokio::select! {
            () = workers.idle() => tracing::info!("every request has ended"),
            () = tokio::time::sleep(config.server.drain_timeout) => tracing::warn!("ending requests that took too long"),
            () = &mut stopped => tracing::warn!("told to stop at once"),
        }
        shutdown.stop();
        workers.join();
        Ok(())
    }
}

/// Tells the probes when the first verification key is known.
fn watch_keys(gateway: &Arc<Gateway<ClerkMint>>, readiness: &Readiness, tasks: &Spawner) {
    let (jwks, readiness) = (gateway.sessions.jwks.clone(), readiness.clone());
    if jwks.is_ready() {
        readiness.set_key_known();
    } else {
        drop(tasks.spawn(async move {
            jwks.ready().await;
            readiness.set_key_known();
        }));
    }
}

fn sweep(gateway: &Arc<Gateway<ClerkMint>>, clock: &Clock, tasks: &Spawner, shutdown: &Shutdown) {
    let (gateway, clock, stopped) = (Arc::clone(gateway), clock.clone(), shutdown.stopped());
    drop(tasks.spawn(async move {
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            gateway.tokens.sweep();
            gateway.sessions.memory.sweep(clock.wall());
            gateway.sessions.revoked.sweep(tokio::time::Instant::now());
        }
    }));
}

/// The CPUs that this process may use (affinity and control group quota counted), at most [`MAX_WORKERS`].
fn worker_count(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
        count => count,
    }
}

// === impl IssuerKeys ===

impl FetchKeys for IssuerKeys {
    async fn fetch(&self) -> Result<Bytes, FetchError> {
        let fetched = self.client.fetch_jwks(&self.url, self.with_secret).await;
        fetched.map_err(|error| FetchError(Box::new(error)))
    }
}
