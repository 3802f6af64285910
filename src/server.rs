//! The workers: threads that serve data connections, each on a runtime of its own.
//!
//! A connection stays on its worker from its first byte to its last. A listener is bound once; one acceptor hands each
//! socket to the worker with the fewest connections. With one worker there is nobody to hand it to, and the worker
//! accepts in place.

mod reception;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use self::reception::{Arrival, Doors, Floor, Seat, accept_in_place, hand_out, serve_arrival};
pub use self::reception::{DataListener, Door};
use crate::config::Limits;
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::Serving;
use crate::live::Live;
use crate::proxy::worker::Worker;
use crate::token::Mint;
use crate::transport::tls::server::ServerTls;

/// How often idle upstream connections are looked through.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// The same during a drain, in which every connection that turns idle is closed.
const REAP_IN_DRAIN: Duration = Duration::from_millis(50);

/// Between two looks at whether the connections are gone.
const LOOK_IN_DRAIN: Duration = Duration::from_millis(10);

/// What connections are served with, the same for every worker.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Limits and deadlines.
    pub limits: Arc<Limits>,
    /// On the TCP listeners of each door, in the order of [`Door`].
    pub tls: [Option<Live<ServerTls>>; 2],
    /// Ends everything.
    pub shutdown: Shutdown,
}

/// A thread that serves connections.
#[derive(Debug)]
struct Desk {
    connections: mpsc::UnboundedSender<Arrival>,
    load: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    desks: Vec<Desk>,
    spawners: Vec<Spawner>,
    /// Those that hand sockets to the desks.
    acceptors: Spawner,
}

/// Asks the workers for a sign of life. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Vec<Spawner>);

// === impl Workers ===

impl Workers {
    /// Serves on the runtime that calls this: one worker, in place. Returns at once.
    ///
    /// # Errors
    /// When the runtime cannot watch the sockets.
    pub fn in_place<M: Mint>(listeners: Vec<DataListener>, worker: &Arc<Worker<M>>, terms: &Terms) -> io::Result<Self> {
        let floor = Floor::new(&terms.limits);
        let spawner = worker.spawner().clone();
        reap(worker, &terms.shutdown);
        accept_in_place(listeners, &floor, &terms.serving(spawner.clone()), worker, &Arc::default())?;
        let acceptors = spawner.sibling();
        Ok(Self { desks: Vec::new(), spawners: vec![spawner], acceptors })
    }

    /// Starts one thread for each worker. `make` runs on the new thread, inside its runtime.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made, or a socket not be watched.
    pub fn spawn<M: Mint>(
        count: usize,
        listeners: Vec<DataListener>,
        terms: &Terms,
        control: &Spawner,
        make: impl Fn(usize, Spawner) -> Arc<Worker<M>> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (make, floor) = (Arc::new(make), Floor::new(&terms.limits));
        let mut listeners = Some(listeners);
        let (mut desks, mut spawners) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (connections, mut arrivals) = mpsc::unbounded_channel::<Arrival>();
            let load = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let spawner = Spawner::new(runtime.handle().clone());
            spawners.push(spawner.clone());
            // With one worker the sockets are its own.
            let own = if count == 1 { listeners.take() } else { None };
            let (make, floor, load_here) = (Arc::clone(&make), Arc::clone(&floor), Arc::clone(&load));
            let terms = terms.clone();
            let serve = async move {
                let worker = make(index, spawner.clone());
                reap(&worker, &terms.shutdown);
                let shutdown = terms.shutdown.clone();
                let serving = terms.serving(spawner);
                if let Some(own) = own
                    && let Err(error) = accept_in_place(own, &floor, &serving, &worker, &load_here)
                {
                    tracing::error!(%error, "a worker cannot watch its listeners");
                    return;
                }
                let stopped = shutdown.stopped();
                tokio::pin!(stopped);
                loop {
                    tokio::select! {
                        () = &mut stopped => break,
                        // Once nobody hands sockets over any more, what is under way goes on until the stop.
                        Some(arrival) = arrivals.recv() => {
                            serve_arrival(arrival, &floor, &serving, &worker, &load_here);
                        }
                    }
                }
            };
            let name = format!("worker-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                runtime.block_on(serve);
                // A name that is being resolved cannot be told to stop, and nobody waits for it any more.
                runtime.shutdown_background();
            })?;
            desks.push(Desk { connections, load, thread });
        }
        let acceptors = control.sibling();
        if let Some(listeners) = listeners {
            let seats: Vec<Seat> =
                desks.iter().map(|desk| (desk.connections.clone(), Arc::clone(&desk.load))).collect();
            for DataListener { listen, door, bound } in listeners {
                let out = hand_out(bound.acceptor()?, listen.id, door, seats.clone(), terms.shutdown.clone());
                drop(acceptors.spawn(out));
            }
        }
        Ok(Self { desks, spawners, acceptors })
    }

    /// Resolves when no connection is left. Ask for it after a drain has begun.
    pub async fn idle(&self) {
        self.acceptors.idle().await;
        // A socket that was handed over counts before its worker has seen it.
        while self.desks.iter().any(|desk| desk.load.load(Relaxed) > 0) {
            tokio::time::sleep(LOOK_IN_DRAIN).await;
        }
        for spawner in &self.spawners {
            spawner.idle().await;
        }
    }

    /// What asks them for a sign of life.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.spawners.clone())
    }

    /// Waits for the threads. They end at the stop.
    pub fn join(self) {
        for desk in self.desks {
            drop(desk.connections);
            if desk.thread.join().is_err() {
                tracing::error!("a worker thread has panicked");
            }
        }
    }
}

/// Closes upstream connections that have been idle for too long; during a drain, all that are idle.
fn reap<M: Mint>(worker: &Arc<Worker<M>>, shutdown: &Shutdown) {
    let (worker, shutdown) = (Arc::clone(worker), shutdown.clone());
    // Not among the tasks that a drain waits for: it ends at the stop.
    let housekeeping = Spawner::current();
    drop(housekeeping.spawn(async move {
        let (stopped, draining) = (shutdown.stopped(), shutdown.draining());
        tokio::pin!(stopped, draining);
        loop {
            let pause = if shutdown.is_draining() { REAP_IN_DRAIN } else { REAP_EVERY };
            tokio::select! {
                () = &mut stopped => return,
                () = &mut draining, if !shutdown.is_draining() => {}
                () = tokio::time::sleep(pause) => {}
            }
            worker.reap(Instant::now(), shutdown.is_draining());
        }
    }));
}

// === impl Pulse ===

impl Pulse {
    /// Whether every worker turns: each one is given something to do, and has so long for it.
    pub async fn beats(&self, within: Duration) -> bool {
        for spawner in &self.0 {
            if !matches!(tokio::time::timeout(within, spawner.sibling().spawn(async {})).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }
}

// === impl Terms ===

impl Terms {
    /// In the order of [`Door`].
    fn serving(&self, spawner: Spawner) -> Doors {
        let serving = Serving::new(Arc::clone(&self.limits), spawner, self.shutdown.clone());
        let [proxy, authz] = &self.tls;
        [serving.clone().with_tls(proxy.clone()).with_websockets(), serving.with_tls(authz.clone())]
    }
}
