//! What one worker thread owns: its snapshot, its pools, its shard of the metrics.
//!
//! A reload hands every worker a new snapshot. A request takes the worker's own handle on it once, so it never touches
//! a reference count that other cores touch too.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::clock::Clock;
use crate::lifecycle::Spawner;
use crate::metrics::{Metrics, Shard, UpstreamId};
use crate::proxy::error::Code;
use crate::proxy::gateway::{Destination, Gateway};
use crate::proxy::pool::Pool;
use crate::proxy::upgrade::registry::Tunnels;
use crate::record::Recorder;
use crate::token::Mint;

/// One worker.
#[derive(Debug)]
pub struct Worker<M: Mint> {
    current: Mutex<Arc<Snapshot<M>>>,
    spawner: Spawner,
    shard: Arc<Shard>,
    metrics: Arc<Metrics>,
    clock: Clock,
    tunnels: Tunnels,
}

/// One configuration as one worker uses it.
#[derive(Debug)]
pub struct Snapshot<M: Mint> {
    /// What all workers share.
    pub gateway: Arc<Gateway<M>>,
    /// Makes access records.
    pub recorder: Arc<Recorder>,
    /// In the order of the upstreams' ids.
    pools: Box<[Pool]>,
}

// === impl Worker ===

impl<M: Mint> Worker<M> {
    /// A worker on the runtime behind `spawner`, with a shard of its own.
    pub fn new(gateway: Arc<Gateway<M>>, metrics: &Arc<Metrics>, clock: Clock, spawner: Spawner) -> Arc<Self> {
        let shard = metrics.shard();
        let snapshot = Snapshot::new(gateway, metrics, &shard, &clock, &spawner);
        Arc::new(Self {
            current: Mutex::new(snapshot),
            spawner,
            shard,
            metrics: Arc::clone(metrics),
            clock,
            tunnels: Tunnels::default(),
        })
    }

    /// Serves further requests with another configuration. What is under way keeps the old one.
    pub fn replace(&self, gateway: Arc<Gateway<M>>) {
        let snapshot = Snapshot::new(gateway, &self.metrics, &self.shard, &self.clock, &self.spawner);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// The configuration for one request.
    pub fn snapshot(&self) -> Arc<Snapshot<M>> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Spawns on this worker's runtime.
    pub fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// What this worker counts.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The clocks.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Counts a connection that was turned away.
    pub fn overloaded(&self) {
        self.shard.requests(self.metrics.no_route(), Code::Overloaded.outcome()).bump();
    }

    /// The open WebSockets.
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Closes upstream connections that have been idle for too long, and WebSockets whose time is over; in a drain all
    /// that are idle, and every WebSocket.
    pub fn reap(&self, now: Instant, draining: bool) {
        let snapshot = self.snapshot();
        for pool in &snapshot.pools {
            pool.reap(now, draining);
        }
        self.tunnels.sweep(self.clock.at(now), draining, &snapshot.gateway.sessions.revoked);
    }
}

// === impl Snapshot ===

impl<M: Mint> Snapshot<M> {
    fn new(
        gateway: Arc<Gateway<M>>,
        metrics: &Arc<Metrics>,
        shard: &Arc<Shard>,
        clock: &Clock,
        spawner: &Spawner,
    ) -> Arc<Self> {
        let log = &gateway.log;
        let recorder = Recorder::new(Arc::clone(metrics), Arc::clone(shard), log.access, log.identity, clock.clone());
        let pool = |to: &Destination| Pool::new(Arc::clone(&to.upstream), to.tls.as_ref(), spawner);
        let pools = gateway.plans.upstreams.iter().map(pool).collect();
        Arc::new(Self { gateway, recorder, pools })
    }

    /// The connections to an upstream.
    pub fn pool(&self, upstream: UpstreamId) -> &Pool {
        &self.pools[upstream.index()]
    }
}
