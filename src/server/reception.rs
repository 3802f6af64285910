//! From a listener to a worker: who accepts, who gets the connection, and who is turned away.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::FutureExt as _;
use hyper::service::service_fn;
use tokio::sync::mpsc;

use crate::address::PeerAddress;
use crate::authz;
use crate::config::{Limits, Listen};
use crate::lifecycle::Shutdown;
use crate::listener::bound::{Acceptor, Bound};
use crate::listener::connection::{Connection, Ends};
use crate::listener::sequel::Sequel;
use crate::listener::socket::{Parked, Socket};
use crate::listener::{ServeError, Serving, turn_away};
use crate::metrics::ListenerId;
use crate::proxy::worker::Worker;
use crate::proxy::{error, handle};
use crate::telemetry::chain;
use crate::token::Mint;

/// Connections beyond the limit that are being told so at one time; further ones are closed without a word.
const MAX_TURNED_AWAY: usize = 64;

/// A data listener that is bound.
#[derive(Debug)]
pub struct DataListener {
    /// Its name and its place in metrics.
    pub listen: Listen,
    /// What is behind it.
    pub door: Door,
    /// The socket.
    pub bound: Bound,
}

/// What a connection is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Requests that are forwarded.
    Proxy,
    /// Questions of proxies that forward by themselves.
    Authz,
}

/// What connections are served with, for each [`Door`].
pub(super) type Doors = [Serving; 2];

/// What all workers share: counted per connection, never per request.
#[derive(Debug)]
pub(super) struct Floor {
    open: AtomicUsize,
    turned_away: AtomicUsize,
    max_connections: usize,
    overloaded: Vec<u8>,
}

/// A socket on its way to its worker.
#[derive(Debug)]
pub(super) struct Arrival {
    socket: Parked,
    ends: Ends,
    door: Door,
}

/// Where a socket goes.
pub(super) type Seat = (mpsc::UnboundedSender<Arrival>, Arc<AtomicUsize>);

/// Counts a connection for as long as it lives.
struct Counted<M: Mint> {
    floor: Arc<Floor>,
    load: Arc<AtomicUsize>,
    worker: Arc<Worker<M>>,
    listener: ListenerId,
}

// === impl Floor ===

impl Floor {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
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

/// One acceptor for all workers: each socket goes to the one with the fewest connections.
pub(super) async fn hand_out(
    acceptor: Acceptor,
    listener: ListenerId,
    door: Door,
    seats: Vec<Seat>,
    shutdown: Shutdown,
) {
    let local = acceptor.address().clone();
    let draining = shutdown.draining();
    tokio::pin!(draining);
    let hand = |socket: io::Result<Parked>, peer| {
        let Some((desk, load)) = seats.iter().min_by_key(|(_, load)| load.load(Relaxed)) else { return };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be handed to a worker");
                return;
            }
        };
        // Counted here, so that a burst spreads before the workers have seen any of it.
        load.fetch_add(1, Relaxed);
        if desk.send(Arrival { socket, ends: Ends { peer, local: local.clone(), listener }, door }).is_err() {
            load.fetch_sub(1, Relaxed);
        }
    };
    loop {
        let (socket, peer) = tokio::select! {
            () = &mut draining => break,
            accepted = acceptor.accept() => accepted,
        };
        hand(socket.park(), peer);
    }
    for (socket, peer) in rest(acceptor) {
        hand(Ok(socket), peer);
    }
}

/// Who is connected already when a listener ends.
fn rest(acceptor: Acceptor) -> Vec<(Parked, PeerAddress)> {
    acceptor.rest().unwrap_or_else(|error| {
        tracing::warn!(%error, "connections that nobody had accepted yet are lost");
        Vec::new()
    })
}

pub(super) fn serve_arrival<M: Mint>(
    arrival: Arrival,
    floor: &Arc<Floor>,
    doors: &Doors,
    worker: &Arc<Worker<M>>,
    load: &Arc<AtomicUsize>,
) {
    match arrival.socket.unpark() {
        Ok(socket) => serve(socket, arrival.ends, arrival.door, floor, doors, worker, load),
        Err(error) => {
            load.fetch_sub(1, Relaxed);
            tracing::warn!(%error, "a worker cannot watch a connection");
        }
    }
}

pub(super) fn accept_in_place<M: Mint>(
    listeners: Vec<DataListener>,
    floor: &Arc<Floor>,
    doors: &Doors,
    worker: &Arc<Worker<M>>,
    load: &Arc<AtomicUsize>,
) -> io::Result<()> {
    for DataListener { listen, door, bound } in listeners {
        let acceptor = bound.acceptor()?;
        let (floor, doors, worker, load) = (Arc::clone(floor), doors.clone(), Arc::clone(worker), Arc::clone(load));
        let Serving { spawner, shutdown, .. } = doors[door as usize].clone();
        drop(spawner.spawn(async move {
            let local = acceptor.address().clone();
            let ends = |peer| Ends { peer, local: local.clone(), listener: listen.id };
            let draining = shutdown.draining();
            tokio::pin!(draining);
            loop {
                tokio::select! {
                    () = &mut draining => break,
                    (socket, peer) = acceptor.accept() => {
                        load.fetch_add(1, Relaxed);
                        serve(socket, ends(peer), door, &floor, &doors, &worker, &load);
                    }
                }
            }
            for (socket, peer) in rest(acceptor) {
                load.fetch_add(1, Relaxed);
                serve_arrival(Arrival { socket, ends: ends(peer), door }, &floor, &doors, &worker, &load);
            }
        }));
    }
    Ok(())
}

fn serve<M: Mint>(
    socket: Socket,
    ends: Ends,
    door: Door,
    floor: &Arc<Floor>,
    doors: &Doors,
    worker: &Arc<Worker<M>>,
    load: &Arc<AtomicUsize>,
) {
    let serving = &doors[door as usize];
    let counted = Counted::new(floor, load, worker, ends.listener);
    if floor.open.load(Relaxed) > floor.max_connections {
        turn_one_away(socket, floor, serving, counted);
        return;
    }
    let serving_here = serving.clone();
    drop(serving.spawner.spawn(async move {
        let peer = ends.peer;
        let (served, sequel) = serve_one(&serving_here, socket, ends, door, &counted.worker).await;
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
    door: Door,
    worker: &Arc<Worker<M>>,
) -> (Result<(), ServeError>, Option<Sequel>) {
    let stream = match serving.open(socket).await {
        Ok(Some(stream)) => stream,
        opened => return (opened.map(drop), None),
    };
    let connection = Arc::new(Connection::new(ends, stream.secured(), &serving.limits));
    let (worker, on) = (Arc::clone(worker), Arc::clone(&connection));
    if door == Door::Authz {
        let service = service_fn(move |question| {
            authz::handle(Arc::clone(&worker), Arc::clone(&on), question).map(Ok::<_, Infallible>)
        });
        // Boxed, so that it makes the future of no other connection larger.
        return (Box::pin(serving.serve(stream, connection, service)).await, None);
    }
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
