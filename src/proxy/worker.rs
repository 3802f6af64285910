//! What one worker thread owns: its snapshot, its pools, its shard of the metrics.
//!
//! A reload hands every worker a new snapshot. A request takes the worker's own handle on it once, so it never touches
//! a reference count that other cores touch too.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::clock::Clock;
use crate::lifecycle::Spawner;
use crate::metrics::{Shard, UpstreamId};
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
    /// What this worker counts under this configuration.
    shard: Arc<Shard>,
    /// In the order of the upstreams' ids.
    pools: Box<[Arc<Pool>]>,
}

// === impl Worker ===

impl<M: Mint> Worker<M> {
    /// A worker on the runtime behind `spawner`, with a shard of its own.
    pub fn new(gateway: Arc<Gateway<M>>, clock: Clock, spawner: Spawner) -> Arc<Self> {
        let shard = gateway.metrics.shard();
        let snapshot = Snapshot::new(gateway, Arc::clone(&shard), &[], &clock, &spawner);
        Arc::new(Self { current: Mutex::new(snapshot), spawner, shard, clock, tunnels: Tunnels::default() })
    }

    /// Serves further requests with another configuration. What is under way keeps the old one. Connections to an upstream
    /// of which nothing has changed are kept.
    pub fn replace(&self, gateway: Arc<Gateway<M>>) {
        let shard = gateway.metrics.shard();
        let before = self.snapshot();
        let snapshot = Snapshot::new(gateway, shard, &before.pools, &self.clock, &self.spawner);
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

    /// What this worker counts of connections, which outlive a configuration.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The clocks.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Counts a connection that was turned away.
    pub fn overloaded(&self) {
        let snapshot = self.snapshot();
        snapshot.shard.requests(snapshot.gateway.metrics.no_route(), Code::Overloaded.outcome()).bump();
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
        shard: Arc<Shard>,
        before: &[Arc<Pool>],
        clock: &Clock,
        spawner: &Spawner,
    ) -> Arc<Self> {
        let (log, metrics) = (&gateway.log, Arc::clone(&gateway.metrics));
        let recorder =
            Recorder::new(metrics, Arc::clone(&shard), log.access, log.identity, clock.clone(), gateway.tracer.clone());
        let pool = |to: &Destination| {
            let kept = before.iter().find(|pool| pool.upstream().shares_connections_with(&to.upstream));
            kept.cloned().unwrap_or_else(|| Arc::new(Pool::new(Arc::clone(&to.upstream), to.tls.as_ref(), spawner)))
        };
        let pools = gateway.plans.upstreams.iter().map(pool).collect();
        Arc::new(Self { gateway, recorder, shard, pools })
    }

    /// The connections to an upstream.
    pub fn pool(&self, upstream: UpstreamId) -> &Pool {
        &self.pools[upstream.index()]
    }
}
