//! The composition root: out of a configuration, a gateway that listens; out of that, one that serves.
//!
//! Binding comes before serving, so that `main` can tell every address, and so that a test boots the very same thing on
//! ports that the kernel chose.

pub mod gateway;
pub mod issuance;
pub mod renewal;
mod start;
pub mod surfaces;
pub mod traces;
mod ways;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::start::StartError;
use crate::address::{BoundAddress, ListenAddress};
use crate::admin::facts::Facts;
use crate::admin::{self, Admin};
use crate::app::gateway::{Lasting, asking, names, needs_key};
use crate::app::issuance::{ClerkMint, Issuance, Means};
use crate::app::renewal::{Crew, Renewal, listener_tls};
use crate::app::surfaces::{Kind, Surfaces};
use crate::app::traces::Tracing;
use crate::app::ways::Ways;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Control, Levers};
use crate::lifecycle::{Needs, Readiness, Shutdown, Spawner};
use crate::listener::bound::{self, Inherited};
use crate::live::Live;
use crate::metrics::ledger::Ledger;
use crate::metrics::{CacheName, Metrics};
use crate::proxy::gateway::{Gateway, Plans};
use crate::server::{DataListener, Door, Pulse, Terms, Workers};
use crate::token::shared::follow::CaughtUp;
use crate::token::shared::outbox::Hear;
use crate::transport::tls::client::Upstreams;
use crate::transport::tls::reload::{self, Reload, Watchlist};

/// At most so many workers when nobody says how many.
const MAX_WORKERS: usize = 4;

/// Between two looks at the files of certificates and keys.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Between two sweeps of what has died in memory.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// A gateway that starts is ready without knowing whom the others refuse when they have not told in so long.
const HEARING: Duration = Duration::from_secs(5);

/// At its end a gateway tells the others what they have not heard, for so long.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    /// What the control listener moves; without them there is none.
    pub levers: Option<Levers>,
    /// Serve on the control runtime instead of on threads: one worker, for tests under paused time.
    pub in_place: bool,
}

/// A gateway that has its addresses and serves nothing yet.
pub struct Bound {
    renewal: Renewal,
    process: Process,
    readiness: Readiness,
    listeners: Vec<DataListener>,
    surfaces: Surfaces,
}

/// Binds every listener and builds everything that a request needs.
///
/// # Errors
/// See [`StartError`]. Nothing is left listening then.
pub fn bind(config: Config, mut process: Process) -> Result<Bound, StartError> {
    let metrics = Arc::new(Metrics::new(names(&config)));
    let upstream_tls = Upstreams::new(&config.upstreams).map_err(StartError::UpstreamTls)?;
    let lasting = Lasting::new(&config, &metrics, &process.clock, &process.control);
    let means = Means {
        clock: process.clock.clone(),
        metrics: Arc::clone(&metrics),
        tasks: process.control.sibling(),
        shutdown: process.shutdown.clone(),
        outbox: lasting.outbox(),
    };
    let issuance = Issuance::new(&config, &means)?;
    let needs = Needs { key: needs_key(&config), others: config.shared.is_some() };
    let readiness = Readiness::new(process.shutdown.clone(), needs);
    let (jwks, mint) = (issuance.jwks.clone(), issuance.mint(&config, &process.clock));
    let plans = Plans::new(&config, &upstream_tls.live).map_err(StartError::Value)?;
    let tracing = Tracing::new(&means);
    let tracer = tracing.begin(&config).map_err(StartError::Traces)?;
    let gateway = Gateway { tracer, ..lasting.gateway(1, &config, plans, jwks, mint, &metrics) };
    let crew = Crew::new(Arc::new(gateway));
    let (ledger, issuance) = (Arc::new(Ledger::new(metrics)), Live::new(issuance));
    let tls = listener_tls(&config).map_err(StartError::Tls)?;
    let mut listeners = Vec::with_capacity(config.server.listen.len());
    for listen in &config.server.listen {
        for bound in listen_on(&listen.address, &mut process.inherited)? {
            listeners.push(DataListener { listen: listen.clone(), door: Door::Proxy, bound });
        }
    }
    if let Some(authz) = &config.authz {
        for bound in listen_on(&authz.way.listen, &mut process.inherited)? {
            listeners.push(DataListener { listen: asking(&config, authz), door: Door::Authz, bound });
        }
    }
    let hooks = hooks(&crew, &issuance, process.dropped_lines.take());
    let facts = Live::new(Facts::of(&config, 1));
    let mut surfaces = Surfaces::default();
    let revocation = lasting.revocation(crew.end_tunnels());
    let hear: Hear = {
        let revocation = revocation.clone();
        Hear::by(move |word, age| revocation.hear(word, age))
    };
    if let Some(caught_up) = issuance.load().engage(&means, Duration::ZERO, &hear) {
        watch_others(caught_up, &readiness, &means.tasks);
    }
    if let Some(configured) = &config.admin {
        let router = Admin {
            ledger: Arc::clone(&ledger),
            readiness: readiness.clone(),
            clock: process.clock.clone(),
            hosts: configured.hosts.clone(),
            hooks,
            facts: facts.clone(),
            shutdown: process.shutdown.clone(),
            tasks: process.control.sibling(),
        }
        .router();
        surfaces.plain(Kind::Admin, &configured.listen, &router, &mut process.inherited)?;
        if let (Some(configured), Some(levers)) = (&configured.control, process.levers.take()) {
            let (token, revocation) = (configured.token.clone(), revocation.clone());
            let router = Control { levers, token, revocation }.router();
            surfaces.plain(Kind::Control, &configured.listen, &router, &mut process.inherited)?;
        }
    }
    let live = tls.each_ref().map(|tls| tls.as_ref().map(Reload::live));
    let ways = Ways::of(&config, &crew.gateway(), &issuance.load());
    let token_api = ways.token_api(revocation.clone(), &process.clock);
    let webhooks = ways.webhooks(revocation, &process.clock, &ledger);
    surfaces.ways(&config, &token_api, &webhooks, &live, &mut process.inherited)?;
    let certificates = Watchlist::new(upstream_tls.files, tls.into_iter().flatten());
    let probes = readiness.clone();
    let pulse = Pulse::default();
    let renewal = Renewal {
        crew,
        ledger,
        lasting,
        issuance,
        means,
        readiness: probes,
        config,
        tls: live,
        certificates,
        pulse,
        facts,
        tracing,
        ways,
        hear,
    };
    Ok(Bound { renewal, process, readiness, listeners, surfaces })
}

fn listen_on(address: &ListenAddress, inherited: &mut Inherited) -> Result<Vec<bound::Bound>, StartError> {
    bound::Bound::listen(address, inherited).map_err(|source| StartError::Bind { address: address.clone(), source })
}

fn hooks(crew: &Arc<Crew>, issuance: &Live<Issuance>, dropped_lines: Option<DroppedLines>) -> Vec<admin::Hook> {
    let (crew, issuance) = (Arc::clone(crew), issuance.clone());
    vec![Box::new(move |counts| {
        let gateway = crew.gateway();
        gateway.tokens.observe();
        issuance.load().limiter.observe();
        let memory = &gateway.sessions.memory;
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        counts.cache_entries(CacheName::Sessions).set(gauge(memory.entries()));
        counts.cache_bytes(CacheName::Sessions).set(gauge(memory.bytes()));
        if let Some(dropped) = &dropped_lines {
            counts.log_lines_dropped.set(gauge(dropped()));
        }
    })]
}

// === impl Bound ===

impl Bound {
    /// The data listeners: what they are called and where they listen.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, &BoundAddress)> {
        let data = self.listeners.iter().filter(|data| data.door == Door::Proxy);
        data.map(|data| (data.listen.name.as_str(), data.bound.address()))
    }

    /// Where the surfaces of one kind are.
    pub fn surfaces(&self, kind: Kind) -> impl Iterator<Item = &BoundAddress> {
        self.surfaces.addresses().filter(move |(of, _)| *of == kind).map(|(_, address)| address)
    }

    /// Where proxies ask for decisions.
    pub fn authz_listeners(&self) -> impl Iterator<Item = &BoundAddress> {
        self.listeners.iter().filter(|data| data.door == Door::Authz).map(|data| data.bound.address())
    }

    /// The first data listener's TCP address, where there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners().find_map(|(_, address)| address.tcp())
    }

    /// The admin listener's TCP address, where there is one.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.surface(Kind::Admin)
    }

    /// The TCP address of one kind of surface, where there is one.
    pub fn surface(&self, kind: Kind) -> Option<SocketAddr> {
        self.surfaces(kind).find_map(BoundAddress::tcp)
    }

    /// What requests meet: for tests that look inside.
    pub fn gateway(&self) -> Arc<Gateway<ClerkMint>> {
        self.renewal.crew.gateway()
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
        self.run_renewable(async |_| told.await).await
    }

    /// The same; `told` is given what puts another configuration to use.
    ///
    /// # Errors
    /// When the workers cannot be started.
    pub async fn run_renewable(self, told: impl AsyncFnOnce(Renewal)) -> Result<(), StartError> {
        let Self { mut renewal, process, readiness, listeners, surfaces } = self;
        let (shutdown, control) = (process.shutdown.clone(), process.control.clone());
        let background = control.sibling();
        let (crew, server) = (Arc::clone(&renewal.crew), renewal.config.server.clone());
        let outbox = renewal.lasting.outbox();
        let traces = renewal.tracing.clone();
        watch_keys(&crew, &readiness, &background);
        sweep(&crew, &process.clock, &background, &shutdown);
        if !renewal.config.clerk.secret_keys.is_empty() {
            let client = Arc::clone(&renewal.issuance.load().client);
            drop(background.spawn(async move { client.warm().await }));
        }
        let surfaces = surfaces.serve(&background, &shutdown);
        drop(background.spawn(reload::watch(renewal.certificates.clone(), LOOK_EVERY, shutdown.clone())));
        let limits = Arc::new(server.limits.clone());
        let [proxy, authz, ..] = renewal.tls.clone();
        let terms = Terms { limits, tls: [proxy, authz], shutdown: shutdown.clone() };
        let workers = if process.in_place {
            let worker = crew.hire(process.clock.clone(), control.sibling());
            Workers::in_place(listeners, &worker, &terms)
        } else {
            let (clock, crew) = (process.clock.clone(), Arc::clone(&crew));
            let make = move |_, spawner| crew.hire(clock.clone(), spawner);
            Workers::spawn(worker_count(server.workers), listeners, &terms, &background, make)
        }
        .map_err(StartError::Workers)?;
        renewal.pulse = workers.pulse();
        readiness.set_listening();
        let stopped = shutdown.stopped();
        tokio::pin!(stopped);
        tokio::select! {
            () = told(renewal) => {}
            () = &mut stopped => {}
        }
        shutdown.announce();
        tracing::info!("ending: not ready any more");
        tokio::select! {
            () = tokio::time::sleep(server.drain_delay) => {}
            () = &mut stopped => {}
        }
        shutdown.drain();
        let idle = async {
            workers.idle().await;
            for tasks in &surfaces {
                tasks.idle().await;
            }
        };
        let at_once = tokio::select! {
            // In this order: a stop cuts what the workers do, which makes them idle too.
            biased;
            () = &mut stopped => true,
            () = idle => {
                tracing::info!("every request has ended");
                false
            }
            () = tokio::time::sleep(server.drain_timeout) => {
                tracing::warn!("ending requests that took too long");
                false
            }
        };
        let left = outbox.left_after(if at_once { Duration::ZERO } else { LAST_WORDS }).await;
        if left > 0 {
            tracing::warn!(words = left, "other gateways were not told of all purges and revocations: Redis is away");
        }
        shutdown.stop();
        workers.join();
        match &crew.gateway().tracer {
            _ if at_once => tracing::warn!("told to stop at once"),
            Some(tracer) => traces.end(tracer).await,
            None => {}
        }
        Ok(())
    }
}

/// Tells the probes when the first verification key is known.
fn watch_keys(crew: &Arc<Crew>, readiness: &Readiness, tasks: &Spawner) {
    if crew.gateway().sessions.jwks.is_ready() {
        readiness.set_key_known();
        return;
    }
    let (crew, readiness) = (Arc::clone(crew), readiness.clone());
    drop(tasks.spawn(async move {
        loop {
            // Asked for anew: a handle on the keys of a configuration that is over would keep them being fetched.
            let jwks = crew.gateway().sessions.jwks.clone();
            if tokio::time::timeout(LOOK_EVERY, jwks.ready()).await.is_ok() {
                readiness.set_key_known();
                return;
            }
        }
    }));
}

/// Tells the probes when it is known whom other replicas refuse; or that nobody tells, since Redis may fail.
fn watch_others(caught_up: CaughtUp, readiness: &Readiness, tasks: &Spawner) {
    let readiness = readiness.clone();
    drop(tasks.spawn(async move {
        if !caught_up.within(HEARING).await {
            tracing::warn!("it takes long to hear whom other gateways refuse: serving meanwhile");
        }
        readiness.set_others_heard();
    }));
}

fn sweep(crew: &Arc<Crew>, clock: &Clock, tasks: &Spawner, shutdown: &Shutdown) {
    let (crew, clock, stopped) = (Arc::clone(crew), clock.clone(), shutdown.stopped());
    drop(tasks.spawn(async move {
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            let gateway = crew.gateway();
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
