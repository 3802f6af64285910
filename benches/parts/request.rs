//! A whole request: its decision alone, and all of it with HTTP on both sides.
//!
//! The caller's connection is a pipe in memory, the upstream's a Unix socket whose other end is served by the same
//! thread: what is measured is the gateway, hyper on its two sides, two system calls to the upstream and two of the
//! upstream's own.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::Criterion;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{Request, header};
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mintgate::lifecycle::Spawner;
use mintgate::proxy::handle;
use mintgate::proxy::worker::Worker;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::{UnixListener, UnixStream};

use crate::world::{Dice, Forge, HEADERS, MINTED, Room, World, connection, request, write};

const CALLERS: usize = 1000;

/// What the upstream answers.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"hello\":\"you\"}";

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    let world = World::new(Room::default());
    world.populate(CALLERS);
    let mut decisions = Decisions::new(&world, Arc::clone(&world.worker));
    let mut dice = Dice::new(3);
    group.bench_function("decide", |bencher| bencher.iter(|| decisions.next(dice.roll(CALLERS))));
    let mut whole = Whole::new(&world);
    group.bench_function("whole", |bencher| bencher.iter(|| whole.ask(&world, dice.roll(CALLERS))));
    group.finish();
}

/// Steps 4 to 7 of one worker, one request after the other.
pub(crate) struct Decisions<'a> {
    world: &'a World,
    worker: Arc<Worker<Forge>>,
    credential: String,
    request: Request<Empty<Bytes>>,
    parts: Parts,
}

/// A caller's connection that is kept alive.
pub(crate) struct Whole {
    caller: DuplexStream,
    credential: String,
    head: String,
    buffer: Vec<u8>,
}

// === impl Decisions ===

impl<'a> Decisions<'a> {
    pub(crate) fn new(world: &'a World, worker: Arc<Worker<Forge>>) -> Self {
        let credential = world.credential();
        let (parts, _) = request(&credential).into_parts();
        let request = request(&credential);
        Self { world, worker, credential, request, parts }
    }

    /// Decides about a caller's request. Writing its credential into the head is part of what is measured.
    pub(crate) fn next(&mut self, caller: usize) {
        write(&mut self.credential, caller);
        let bearer = format!("Bearer {}", self.credential);
        self.parts.headers.insert(header::AUTHORIZATION, bearer.try_into().unwrap());
        let (gateway, worker) = (&self.world.gateway, &self.worker);
        let decided = self.world.decide(worker, gateway, &self.request, &self.parts).now_or_never().unwrap();
        assert_eq!(decided.injected.len(), 2);
        black_box(decided);
    }
}

// === impl Whole ===

impl Whole {
    /// Begins to serve both sides on the world's runtime.
    pub(crate) fn new(world: &World) -> Self {
        let (caller, served) = tokio::io::duplex(64 * 1024);
        let _inside = world.runtime.enter();
        let spawner = Spawner::current();
        serve_upstream(world, &spawner);
        let (worker, on) = (Arc::clone(&world.worker), connection(&world.config));
        let service =
            service_fn(move |request| handle(Arc::clone(&worker), Arc::clone(&on), request).map(Ok::<_, Infallible>));
        let serving = http1::Builder::new().max_buf_size(32 * 1024).serve_connection(TokioIo::new(served), service);
        drop(spawner.spawn(async move { drop(serving.await) }));
        Self { caller, credential: world.credential(), head: head(), buffer: vec![0; 16 * 1024] }
    }

    /// One request and its answer.
    pub(crate) fn ask(&mut self, world: &World, caller: usize) {
        let Self { caller: stream, credential, head, buffer } = self;
        write(credential, caller);
        world.runtime.block_on(async {
            let begin = head.len();
            head.push_str(credential);
            head.push_str("\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            head.truncate(begin);
            let mut filled = 0;
            while !buffer[..filled].ends_with(b"}") {
                filled += stream.read(&mut buffer[filled..]).await.unwrap();
            }
            assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
        });
    }
}

/// A request up to its credential.
pub(crate) fn head() -> String {
    let lines = HEADERS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    format!("GET /r0/todos?limit=20 HTTP/1.1\r\n{lines}authorization: Bearer ")
}

/// Serves the world's upstream. Called inside its runtime.
pub(crate) fn serve_upstream(world: &World, spawner: &Spawner) {
    let (listener, each) = (UnixListener::bind(world.upstream()).unwrap(), spawner.clone());
    drop(spawner.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(each.spawn(answer(stream)));
        }
    }));
}

/// Answers every request on a connection; one that does not carry the minted token is not answered well.
async fn answer(mut stream: UnixStream) {
    let (mut buffer, mut filled, mut minted) = (vec![0; 16 * 1024], 0, false);
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(read) if read > 0 => filled += read,
            _ => return,
        }
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            // The first one speaks for all: to look costs more than to answer.
            minted = minted || buffer[..filled].windows(MINTED.len()).any(|part| part == MINTED.as_bytes());
            let answer = if minted { ANSWER } else { b"HTTP/1.1 400 No\r\ncontent-length: 1\r\n\r\n}" };
            if stream.write_all(answer).await.is_err() {
                return;
            }
            filled = 0;
        }
    }
}
