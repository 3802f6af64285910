//! HTTP/2 callers that ask for much and take none of it, while their connection answers every ping.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use tokio::time::Instant;

use super::frames::{
    Arrived, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, ROOT, RST_STREAM, SETTINGS, WINDOW_UPDATE, arrived, frame,
};
use crate::proxy::PUBLIC;
use crate::support::eventually;
use crate::support::gateway::{Boot, Gateway};
use crate::support::http2;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// A stall of 13 s, which for a window is 26 s.
const STALL: &str = "write_stall_timeout = \"13s\"";

/// What came on a connection.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Reset(u32),
    Head(u32),
    Bytes(u32, usize),
    End,
}

/// An upstream whose answers have no end; the second number counts those of its connections that were closed.
async fn endless() -> (Upstream, Arc<AtomicUsize>) {
    let left = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&left);
    let upstream = Upstream::scripted(move |mut visit| {
        let left = Arc::clone(&count);
        async move {
            while let Some(request) = visit.request().await {
                if request.start.contains("/short") {
                    visit.wire.send(OK).await;
                    continue;
                }
                visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
                let piece = vec![b'a'; 64 << 10];
                let sending = async { while visit.wire.try_send(&piece).await.is_ok() {} };
                sending.await;
                break;
            }
            left.fetch_add(1, SeqCst);
        }
    })
    .await;
    (upstream, left)
}

/// A connection whose streams begin with a window of so many bytes.
async fn with_window(gateway: &Gateway, bytes: u32) -> Wire {
    let mut client = Wire::connect(gateway.address).await;
    let settings = [&[0, 4][..], &bytes.to_be_bytes()].concat();
    client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &settings)].concat()).await;
    // The connection's own window is no limit here.
    client.send(frame(WINDOW_UPDATE, 0, 0, &0x3fff_ffff_u32.to_be_bytes())).await;
    client
}

/// `GET /` or, with a path, that.
fn asks(stream: u32, path: &[u8]) -> Vec<u8> {
    // `:path` as a literal that is not indexed.
    let path = [&[0x04, u8::try_from(path.len()).unwrap()][..], path].concat();
    let head = [&[0x82, 0x86][..], &path, &ROOT[3..]].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)
}

/// The next thing that is about a stream, and that comes within 200 s. Every ping is answered at once.
async fn next(client: &mut Wire) -> Came {
    tokio::time::timeout(Duration::from_secs(200), within(client)).await.expect("nothing comes")
}

async fn within(client: &mut Wire) -> Came {
    while let Some(Arrived { kind, stream, payload, .. }) = arrived(client).await {
        match kind {
            RST_STREAM => return Came::Reset(stream),
            HEADERS => return Came::Head(stream),
            DATA => return Came::Bytes(stream, payload.len()),
            GOAWAY => return Came::End,
            _ => {}
        }
    }
    Came::End
}

async fn paused(tables: &str, upstream: &Upstream) -> Gateway {
    let gateway = Boot::new(tables.replace("{up}", &upstream.url())).server(STALL).start().await;
    tokio::time::pause();
    gateway
}

/// Case 24. Fails where streams are spawned without `listener::streams`: nothing else looks at one that waits for its
/// window, and it lives for as long as its connection answers pings.
#[tokio::test]
async fn a_stream_whose_window_stays_closed_is_cut_and_its_neighbours_are_not() {
    for window in [0, 1, 1000] {
        let (upstream, left) = endless().await;
        let gateway = paused(PUBLIC, &upstream).await;
        let mut client = with_window(&gateway, window).await;
        client.send(asks(1, b"/")).await;
        let began = Instant::now();
        assert_eq!(next(&mut client).await, Came::Head(1));
        let mut bytes = 0;
        let end = loop {
            match next(&mut client).await {
                Came::Bytes(1, length) => bytes += length,
                other => break other,
            }
        };
        assert_eq!(end, Came::Reset(1), "{window}");
        assert!((26..29).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert_eq!(bytes, usize::try_from(window).unwrap());
        tokio::time::resume();
        eventually("the upstream's exchange ends too", || left.load(SeqCst) == 1).await;
        // Whoever shares the connection goes on.
        client.send(asks(3, b"/short")).await;
        assert_eq!(next(&mut client).await, Came::Head(3));
    }
}

/// Case 24. Fails where a stream that is given some window in time is cut all the same: where its end were not put off by
/// each frame that goes.
#[tokio::test]
async fn a_stream_whose_window_opens_now_and_then_goes_on() {
    // From an upstream of HTTP/2 the next frame is there already, and nothing else is waited for in between.
    let upstream = http2::Upstream::answering(|| {
        let frames = (0..1000).map(|_| Ok(http_body::Frame::data(bytes::Bytes::from_static(&[b'a'; 16 << 10]))));
        http::Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed())
    })
    .await;
    let tables =
        format!("[upstreams.up]\nurl = \"{}\"\nhttp2 = true\n{}", upstream.url(), PUBLIC.replace("{up}", "up"));
    let gateway = Boot::new(tables).server(STALL).start().await;
    tokio::time::pause();
    let mut client = with_window(&gateway, 0).await;
    client.send(asks(1, b"/")).await;
    assert_eq!(next(&mut client).await, Came::Head(1));
    for _ in 0..6 {
        let taken = tokio::time::timeout(Duration::from_secs(20), within(&mut client)).await;
        assert!(taken.is_err(), "{taken:?}");
        client.send(frame(WINDOW_UPDATE, 0, 1, &(64_u32 << 10).to_be_bytes())).await;
        let mut left = 64 << 10;
        while left > 0 {
            match next(&mut client).await {
                Came::Bytes(1, length) => left -= length,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Case 24. Fails where the time that waiting for the upstream takes counts as the caller's.
#[tokio::test]
async fn a_stream_that_waits_for_its_upstream_is_not_cut() {
    let upstream = Upstream::scripted(|mut visit| async move {
        while visit.request().await.is_some() {
            visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nabcd").await;
            tokio::time::sleep(Duration::from_secs(100)).await;
            visit.wire.send("efgh").await;
        }
    })
    .await;
    let gateway = paused(PUBLIC, &upstream).await;
    let mut client = with_window(&gateway, 0).await;
    client.send(asks(1, b"/")).await;
    assert_eq!(next(&mut client).await, Came::Head(1));
    // It was the caller's turn before.
    let taken = tokio::time::timeout(Duration::from_secs(5), within(&mut client)).await;
    assert!(taken.is_err(), "{taken:?}");
    client.send(frame(WINDOW_UPDATE, 0, 1, &100_u32.to_be_bytes())).await;
    assert_eq!(next(&mut client).await, Came::Bytes(1, 4));
    assert_eq!(next(&mut client).await, Came::Bytes(1, 4));
}

/// Case 24. Fails where the end of the route's time is looked at by the body alone, which nobody asks.
#[tokio::test]
async fn a_routes_time_ends_a_stream_whose_window_stays_closed() {
    let (upstream, left) = endless().await;
    let gateway = paused(&format!("{PUBLIC}timeout = \"4s\"\n"), &upstream).await;
    let mut client = with_window(&gateway, 10).await;
    let began = Instant::now();
    client.send(asks(1, b"/")).await;
    assert_eq!(next(&mut client).await, Came::Head(1));
    assert_eq!(next(&mut client).await, Came::Bytes(1, 10));
    assert_eq!(next(&mut client).await, Came::Reset(1));
    assert_eq!(began.elapsed().as_secs(), 4);
    tokio::time::resume();
    eventually("the upstream's exchange ends too", || left.load(SeqCst) == 1).await;
}
