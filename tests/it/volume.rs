//! Much data through the real binary: nothing is gathered, nothing is held back.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use mintgate::emulator::echo;
use mintgate::lifecycle::Shutdown;
use tokio::sync::mpsc;

use crate::harness::{Binary, serve};

const GIB: u64 = 1 << 30;
/// How much memory may come on top while a GiB passes.
const GROWTH_KIB: u64 = 64 * 1024;
const EVENTS: usize = 10_000;
/// The upstream sends no more than so many events before the caller has read them.
const BATCH: usize = 100;
/// Only a hang takes so long.
const PATIENCE: Duration = Duration::from_mins(5);

fn config(upstream: std::net::SocketAddr, http2: bool) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [upstreams.up]\nurl = \"http://{upstream}\"\nhttp2 = {http2}\n\
         [[routes]]\nname = \"public\"\nupstream = \"up\"\nsession = []\n"
    )
}

/// A body of so many bytes, made while it is sent.
fn zeros(bytes: u64) -> Body {
    let chunk = Bytes::from(vec![0; 64 * 1024]);
    let count = bytes / chunk.len() as u64;
    let chunks = futures_util::stream::iter((0..count).map(move |_| Ok::<_, Infallible>(Frame::data(chunk.clone()))));
    Body::new(StreamBody::new(chunks))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_each_way_takes_no_memory() {
    let shutdown = Shutdown::new();
    let upstream = serve(echo::router(), &shutdown);
    let binary = Binary::start("volume", &config(upstream, false), &[]).await;
    let client = legacy::Client::builder(TokioExecutor::new()).build_http::<Body>();
    let url = |path: &str| format!("http://{}{path}", binary.address);
    let transfers = async {
        let small = Request::post(url("/drain")).body(zeros(1 << 20)).unwrap();
        assert_eq!(client.request(small).await.unwrap().status(), 200);
        let before = binary.peak_kib();

        let up = Request::post(url("/drain")).body(zeros(GIB)).unwrap();
        let answer = client.request(up).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&*answer, format!("{{\"bytes\":{GIB}}}").as_bytes());

        let down = Request::get(url(&format!("/bytes?n={GIB}"))).body(Body::empty()).unwrap();
        let (mut body, mut read) = (client.request(down).await.unwrap().into_body(), 0);
        while let Some(frame) = body.frame().await {
            read += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
        }
        assert_eq!(read, GIB);
        let grown = binary.peak_kib() - before;
        assert!(grown < GROWTH_KIB, "{grown} KiB more");
    };
    assert!(tokio::time::timeout(PATIENCE, transfers).await.is_ok());
    shutdown.stop();
}

/// Whoever gathers events in front of the caller never sees the next batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_pass_in_order_and_none_is_held_back() {
    let shutdown = Shutdown::new();
    for http2 in [false, true] {
        let (ack, acks) = mpsc::unbounded_channel::<()>();
        let acks = std::sync::Arc::new(tokio::sync::Mutex::new(acks));
        let events = move || async move {
            let events = futures_util::stream::unfold((0, acks.lock_owned().await), |(next, mut acks)| async move {
                if next > 0 && next % BATCH == 0 {
                    acks.recv().await?;
                }
                let event = Frame::data(Bytes::from(format!("data: {next}\n\n")));
                (next < EVENTS).then(|| (Ok::<_, Infallible>(event), (next + 1, acks)))
            });
            ([("content-type", "text/event-stream")], Body::new(StreamBody::new(events)))
        };
        let upstream = serve(Router::new().route("/events", get(events)), &shutdown);
        let binary = Binary::start(&format!("events-{http2}"), &config(upstream, http2), &[]).await;
        let client = legacy::Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Body>();
        let request = Request::get(format!("http://{}/events", binary.address)).body(Body::empty()).unwrap();
        let reading = async {
            let mut body = client.request(request).await.unwrap().into_body();
            let (mut text, mut next) = (String::new(), 0);
            while let Some(frame) = body.frame().await {
                text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
                while let Some((event, rest)) = text.split_once("\n\n") {
                    assert_eq!(event, format!("data: {next}"));
                    next += 1;
                    if next % BATCH == 0 {
                        // After the last batch nobody listens any more.
                        let _ = ack.send(());
                    }
                    text = rest.to_owned();
                }
            }
            assert_eq!((next, text.as_str()), (EVENTS, ""));
        };
        assert!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "events were held back");
    }
    shutdown.stop();
}
