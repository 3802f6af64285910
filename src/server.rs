//! The workers: threads that serve data connections, each on a runtime of its own.
//!
//! A connection stays on its worker from its first byte to its last. A listener is bound once; one acceptor hands each
//! socket to the worker with the fewest connections. With one worker there is nobody to hand it to, and the worker
//! accepts in place.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::service::service_fn;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::{Limits, Listen};
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::bound::{Acceptor, Bound};
use crate::listener::connection::{Connection, Ends, Sequel};
use crate::listener::socket::{Parked, Socket};
use crate::listener::{ServeError, Serving, turn_away};
use crate::live::Live;
use crate::metrics::ListenerId;
use crate::proxy::worker::Worker;
use crate::proxy::{error, handle};
use crate::telemetry::chain;
use crate::token::Mint;
use crate::transport::tls::server::ServerTls;

/// How often idle upstream connections are looked through.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// The same during a drain, in which every connection that turns idle is closed.
const REAP_IN_DRAIN: Duration = Duration::from_millis(50);

/// Connections beyond the limit that are being told so at one time; further ones are closed without a word.
const MAX_TURNED_AWAY: usize = 64;

/// A data listener that is bound.
#[derive(Debug)]
pub struct DataListener {
    /// Its name and its place in metrics.
    pub listen: Listen,
    /// The socket.
    pub bound: Bound,
}

/// What connections are served with, the same for every worker.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Limits and deadlines.
    pub limits: Arc<Limits>,
    /// On TCP listeners.
    pub tls: Option<Live<ServerTls>>,
    /// Ends everything.
    pub shutdown: Shutdown,
}

/// What all workers share: counted per connection, never per request.
#[derive(Debug)]
struct Floor {
    open: AtomicUsize,
    turned_away: AtomicUsize,
    max_connections: usize,
    overloaded: Vec<u8>,
}

/// A thread that serves connections.
#[derive(Debug)]
struct Desk {
    connections: mpsc::UnboundedSender<Arrival>,
    load: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

/// A socket on its way to its worker.
#[derive(Debug)]
struct Arrival {
    socket: Parked,
    ends: Ends,
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    desks: Vec<Desk>,
    spawners: Vec<Spawner>,
}

/// Counts a connection for as long as it lives.
struct Counted<M: Mint> {
    floor: Arc<Floor>,
    load: Arc<AtomicUsize>,
    worker: Arc<Worker<M>>,
    listener: ListenerId,
}

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
        Ok(Self { desks: Vec::new(), spawners: vec![spawner] })
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
        if let Some(listeners) = listeners {
            let seats: Vec<_> = desks.iter().map(|desk| (desk.connections.clone(), Arc::clone(&desk.load))).collect();
            for DataListener { listen, bound } in listeners {
                drop(control.spawn(hand_out(bound.acceptor()?, listen.id, seats.clone(), terms.shutdown.clone())));
            }
        }
        Ok(Self { desks, spawners })
    }

    /// Resolves when no connection is left. Ask for it after a drain has begun.
    pub async fn idle(&self) {
        for spawner in &self.spawners {
            spawner.idle().await;
        }
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

/// One acceptor for all workers: each socket goes to the one with the fewest connections.
async fn hand_out(
    acceptor: Acceptor,
    listener: ListenerId,
    seats: Vec<(mpsc::UnboundedSender<Arrival>, Arc<AtomicUsize>)>,
    shutdown: Shutdown,
) {
    let local = acceptor.address().clone();
    let draining = shutdown.draining();
    tokio::pin!(draining);
    loop {
        let (socket, peer) = tokio::select! {
            () = &mut draining => return,
            accepted = acceptor.accept() => accepted,
        };
        let Some((desk, load)) = seats.iter().min_by_key(|(_, load)| load.load(Relaxed)) else { return };
        let socket = match socket.park() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be handed to a worker");
                continue;
            }
        };
        // Counted here, so that a burst spreads before the workers have seen any of it.
        load.fetch_add(1, Relaxed);
        if desk.send(Arrival { socket, ends: Ends { peer, local: local.clone(), listener } }).is_err() {
            load.fetch_sub(1, Relaxed);
        }
    }
}

fn serve_arrival<M: Mint>(
    arrival: Arrival,
    floor: &Arc<Floor>,
    serving: &Serving,
    worker: &Arc<Worker<M>>,
    load: &Arc<AtomicUsize>,
) {
    match arrival.socket.unpark() {
        Ok(socket) => serve(socket, arrival.ends, floor, serving, worker, load),
        Err(error) => {
            load.fetch_sub(1, Relaxed);
            tracing::warn!(%error, "a worker cannot watch a connection");
        }
    }
}

fn accept_in_place<M: Mint>(
    listeners: Vec<DataListener>,
    floor: &Arc<Floor>,
    serving: &Serving,
    worker: &Arc<Worker<M>>,
    load: &Arc<AtomicUsize>,
) -> io::Result<()> {
    for DataListener { listen, bound } in listeners {
        let acceptor = bound.acceptor()?;
        let (floor, serving, worker, load) = (Arc::clone(floor), serving.clone(), Arc::clone(worker), Arc::clone(load));
        let spawner = serving.spawner.clone();
        drop(spawner.spawn(async move {
            let local = acceptor.address().clone();
            let draining = serving.shutdown.draining();
            tokio::pin!(draining);
            loop {
                tokio::select! {
                    () = &mut draining => return,
                    (socket, peer) = acceptor.accept() => {
                        load.fetch_add(1, Relaxed);
                        let ends = Ends { peer, local: local.clone(), listener: listen.id };
                        serve(socket, ends, &floor, &serving, &worker, &load);
                    }
                }
            }
        }));
    }
    Ok(())
}

fn serve<M: Mint>(
    socket: Socket,
    ends: Ends,
    floor: &Arc<Floor>,
    serving: &Serving,
    worker: &Arc<Worker<M>>,
    load: &Arc<AtomicUsize>,
) {
    let counted = Counted::new(floor, load, worker, ends.listener);
    if floor.open.load(Relaxed) > floor.max_connections {
        turn_one_away(socket, floor, serving, counted);
        return;
    }
    let serving_here = serving.clone();
    drop(serving.spawner.spawn(async move {
        let peer = ends.peer;
        let (served, sequel) = serve_one(&serving_here, socket, ends, &counted.worker).await;
        match served {
            Ok(()) => {}
            Err(ServeError::Parse(error)) => {
                counted.worker.shard().parse_errors().bump();
                tracing::debug!(%peer, %error, "not a valid HTTP request");
            }
            Err(ServeError::Handshake(error)) => serving_here.shaken_off(&error, peer, counted.worker.shard()),
            Err(error) => tracing::debug!(%peer, error = chain(&error), "downstream connection ended"),
        }
        // A task of its own, so that an open WebSocket does not keep the memory that HTTP needed.
        if let Some(Sequel(sequel)) = sequel {
            drop(serving_here.spawner.spawn(async move {
                sequel.await;
                drop(counted);
            }));
        }
    }));
}

async fn serve_one<M: Mint>(
    serving: &Serving,
    socket: Socket,
    ends: Ends,
    worker: &Arc<Worker<M>>,
) -> (Result<(), ServeError>, Option<Sequel>) {
    let stream = match serving.open(socket).await {
        Ok(Some(stream)) => stream,
        opened => return (opened.map(drop), None),
    };
    let connection = Arc::new(Connection::new(ends, stream.secured(), &serving.limits));
    let (worker, on) = (Arc::clone(worker), Arc::clone(&connection));
    // A closure, so that the future of a request has no box of its own: hyper keeps it in the connection's.
    let service =
        service_fn(move |request| handle(Arc::clone(&worker), Arc::clone(&on), request).map(Ok::<_, Infallible>));
    let served = serving.serve(stream, Arc::clone(&connection), service).await;
    (served, connection.take_sequel())
}

fn turn_one_away<M: Mint>(socket: Socket, floor: &Arc<Floor>, serving: &Serving, counted: Counted<M>) {
    if floor.turned_away.fetch_add(1, Relaxed) >= MAX_TURNED_AWAY {
        floor.turned_away.fetch_sub(1, Relaxed);
        return;
    }
    let (floor, serving_here) = (Arc::clone(floor), serving.clone());
    drop(serving.spawner.spawn(async move {
        turn_away(&serving_here, socket, &floor.overloaded).await;
        floor.turned_away.fetch_sub(1, Relaxed);
        counted.worker.overloaded();
    }));
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

// === impl Terms ===

impl Terms {
    fn serving(&self, spawner: Spawner) -> Serving {
        Serving::new(Arc::clone(&self.limits), spawner, self.shutdown.clone()).with_tls(self.tls.clone())
    }
}

// === impl Floor ===

impl Floor {
    fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            turned_away: AtomicUsize::new(0),
            max_connections: limits.max_connections,
            overloaded: error::overloaded(),
        })
    }
}

// === impl Counted ===

impl<M: Mint> Counted<M> {
    /// The caller has counted the connection in `load` already.
    fn new(floor: &Arc<Floor>, load: &Arc<AtomicUsize>, worker: &Arc<Worker<M>>, listener: ListenerId) -> Self {
        floor.open.fetch_add(1, Relaxed);
        worker.shard().connections(listener).add(1);
        Self { floor: Arc::clone(floor), load: Arc::clone(load), worker: Arc::clone(worker), listener }
    }
}

impl<M: Mint> Drop for Counted<M> {
    fn drop(&mut self) {
        self.floor.open.fetch_sub(1, Relaxed);
        self.load.fetch_sub(1, Relaxed);
        self.worker.shard().connections(self.listener).add(-1);
    }
}
