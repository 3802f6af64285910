//! What a caller makes the gateway hold by sending something and then nothing, or by taking nothing. A head that has not
//! ended is among the hostile processes.
//!
//! With `MINTGATE_MEMORY` it prints what was measured.

use std::future::Future;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mintgate::lifecycle::Spawner;
use tokio::task::JoinHandle;

use crate::harness::Binary;
use crate::support::http2;
use crate::support::upstream::{OK, Upstream};
use crate::support::websocket::{HANDSHAKE, accept, agreement};
use crate::support::wire::Wire;

/// Callers of one kind.
const CALLERS: usize = 200;

/// Bytes that each sends, about.
const SENT: usize = 1000;

/// Requests on each HTTP/2 connection.
const STREAMS: usize = 50;

/// Bytes of an answer that nobody takes: more than the kernel takes on its way.
const ANSWER: usize = 32 << 20;

/// Ends what it stands for when it is dropped.
struct Held(JoinHandle<()>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An upstream that says nothing, or agrees to a WebSocket and then says nothing.
async fn silent() -> Upstream {
    Upstream::scripted(|mut visit| async move {
        // Of half a body this never returns.
        let Ok(Some(request)) = visit.wire.request().await else { return };
        if request.start.starts_with("GET /ok") {
            visit.wire.send(OK).await;
        }
        if let Some(key) = request.one("sec-websocket-key") {
            visit.wire.send(agreement(&accept(key))).await;
        }
        let _ = visit.wire.until_closed().await;
    })
    .await
}

/// An upstream whose answers are large.
async fn generous() -> Upstream {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER}\r\n\r\n");
    Upstream::answering([head.as_bytes(), &vec![b'a'; ANSWER]].concat()).await
}

async fn binary(name: &str, upstream: &str, http2: bool) -> Binary {
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [upstreams.up]\nurl = \"{upstream}\"\nhttp2 = {http2}\n\
         [[routes]]\nname = \"public\"\nupstream = \"up\"\nsession = []\n"
    );
    Binary::start(name, &config, &[]).await
}

/// Bytes that each of `count` takes. The first half also fills what stays.
#[expect(clippy::disallowed_methods, reason = "that it is to be printed is said from outside")]
#[expect(clippy::print_stderr, reason = "what was measured")]
async fn each<K, F: Future<Output = K>>(what: &str, binary: &Binary, count: usize, open: impl Fn() -> F) -> u64 {
    let (mut kept, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        for _ in 0..count {
            kept.push(open().await);
        }
        // What has been sent is read by and by: until the memory stays as it is.
        let mut last = 0;
        for _ in 0..40 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let now = binary.resident_kib();
            if now == last {
                break;
            }
            last = now;
        }
        resident.push(last);
    }
    let each = resident[1].saturating_sub(resident[0]) * 1024 / count as u64;
    if std::env::var("MINTGATE_MEMORY").is_ok() {
        eprintln!("| {what} | {each} |");
    }
    each
}

/// So many requests at once on an HTTP/2 connection of their own, until they are dropped.
async fn streams(binary: &Binary, path: &str, half_body: bool) -> Vec<Held> {
    let (client, tasks) = (http2::Client::connect(binary.address).await, Spawner::current());
    let url = format!("http://{}{path}", binary.address);
    let mut held = Vec::new();
    for _ in 0..STREAMS {
        let (mut client, url) = (client.clone(), url.clone());
        held.push(Held(tasks.spawn(async move {
            let body = if half_body {
                let half = futures_util::stream::iter([Ok(Frame::data(Bytes::from(vec![b'b'; SENT])))]);
                BodyExt::boxed(StreamBody::new(half.chain(futures_util::stream::pending())))
            } else {
                http2::empty()
            };
            let method = if half_body { "POST" } else { "GET" };
            let _answer = client.send(Request::builder().method(method).uri(url).body(body).unwrap()).await;
            std::future::pending::<()>().await;
        })));
    }
    held
}

/// Case 25, over HTTP/1.1, over HTTP/2 and on a WebSocket. Fails with buffers for each request that are many times what
/// a caller needs to send for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_body_and_half_a_frame_hold_less_than_a_hundred_times_themselves() {
    let upstream = silent().await;
    let filling = "b".repeat(SENT);
    let mut found = Vec::new();
    let http1 = binary("half-body", &upstream.url(), false).await;
    let half = || async {
        let mut caller = Wire::connect(http1.address).await;
        caller.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{filling}")).await;
        caller
    };
    found.push(each("half a body, HTTP/1.1", &http1, CALLERS, half).await);
    let socket = binary("half-frame", &upstream.url(), false).await;
    let half = || async {
        let mut caller = Wire::connect(socket.address).await;
        let answer = caller.ask(format!("GET /ws HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n")).await;
        assert_eq!(answer.status(), 101);
        // A frame of a million bytes has begun.
        caller.send([&[0x82, 0xff, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 1, 2, 3, 4], filling.as_bytes()].concat()).await;
        caller
    };
    found.push(each("half a frame, WebSocket", &socket, CALLERS, half).await);
    let http2 = binary("half-stream", &upstream.url(), false).await;
    let connections = CALLERS / STREAMS;
    let of_connection =
        each("half a body, HTTP/2 (of a connection)", &http2, connections, || streams(&http2, "/", true));
    found.push(of_connection.await / STREAMS as u64);
    assert!(found.iter().all(|each| *each < 100 * SENT as u64), "{found:?} bytes for {SENT}");
}

/// The most that a request which waits for its upstream may hold, however little was sent for it.
const WAITING: u64 = 32 * 1024;

/// The most that an answer may hold of which nothing is taken: buffers of HTTP/1.1, or the window of a stream.
const UNTAKEN: u64 = 320 * 1024;
const UNTAKEN_HTTP2: u64 = 640 * 1024;

/// Case 25. A request of a few bytes holds a bounded amount while it waits, and while its answer waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_holds_a_bounded_amount() {
    let (upstream, answering) = (silent().await, generous().await);
    let http2 = binary("waiting", &upstream.url(), false).await;
    let connections = CALLERS / STREAMS;
    let waiting = each("waiting, HTTP/2 (of a connection)", &http2, connections, || streams(&http2, "/", false)).await;
    let waiting = waiting / STREAMS as u64;
    assert!(waiting < WAITING, "{waiting} bytes for each that waits");
    let http1 = binary("untaken", &answering.url(), false).await;
    let asked = || async {
        let mut caller = Wire::connect(http1.address).await;
        caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        caller
    };
    let untaken = each("an answer that is not taken, HTTP/1.1", &http1, CALLERS / 10, asked).await;
    assert!(untaken < UNTAKEN, "{untaken} bytes of an answer");
    let http2 = binary("untaken-streams", &answering.url(), false).await;
    let untaken =
        each("answers that are not taken, HTTP/2 (of a connection)", &http2, 1, || streams(&http2, "/", false));
    let untaken = untaken.await / STREAMS as u64;
    assert!(untaken < UNTAKEN, "{untaken} bytes of an answer on a stream");
    let body = Bytes::from(vec![b'a'; ANSWER]);
    let body = http2::Upstream::answering(move || http::Response::new(http2::full(body.clone()))).await;
    let both = binary("untaken-both", &body.url(), true).await;
    let untaken = each("answers that are not taken, HTTP/2 on both sides (of a connection)", &both, 1, || {
        streams(&both, "/", false)
    });
    let untaken = untaken.await / STREAMS as u64;
    assert!(untaken < UNTAKEN_HTTP2, "{untaken} bytes of an answer on a stream");
}
