//! What an idle WebSocket costs the real binary, on a connection of its own and on a stream of HTTP/2.
//!
//! `MINTGATE_WEBSOCKETS=1000` opens so many instead, and so many again; the bytes that each took are printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http_body_util::BodyExt;

use crate::harness::{Binary, until};
use crate::support::http2::{Client, empty};
use crate::support::websocket::{agreeing, masked};
use crate::support::wire::Wire;

/// Bytes that an idle WebSocket may take: two sockets, a task, and no buffer.
const EACH: u64 = 6 * 1024;

/// Those on one connection of HTTP/2; 200 would be the most.
const SHARING: u64 = 100;

/// What a browser sends with a handshake.
const HEADERS: [(&str, &str); 2] = [("cookie", "theme=dark"), ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)")];

#[tokio::test]
async fn an_idle_websocket_holds_no_buffer() {
    let headers = HEADERS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    holds_no_buffer("websockets", async |binary, open, count| {
        for _ in 0..count {
            let mut client = Wire::connect(binary.address).await;
            client.open("/socket", &headers).await;
            open.push(client);
        }
    })
    .await;
}

#[tokio::test]
async fn an_idle_websocket_on_a_stream_holds_no_buffer() {
    let mut clients = Vec::new();
    holds_no_buffer("websockets-on-streams", async |binary, open, count| {
        for number in 0..count {
            if number % SHARING == 0 {
                let mut client = Client::connect(binary.address).await;
                // Until its settings have come.
                let odd = http::Request::get("http://gateway.test/a//b").body(empty()).unwrap();
                client.send(odd).await.unwrap().into_body().collect().await.unwrap();
                clients.push(client);
            }
            open.push(clients.last_mut().unwrap().open("/socket", &HEADERS).await.1);
        }
    })
    .await;
}

/// Opens so many three times, and compares what the binary holds.
#[expect(clippy::disallowed_methods, reason = "how many are opened is said from outside")]
#[expect(clippy::print_stderr, reason = "what was measured")]
async fn holds_no_buffer(name: &str, mut opens: impl AsyncFnMut(&Binary, &mut Vec<Wire>, u64)) {
    let count: u64 = std::env::var("MINTGATE_WEBSOCKETS").map_or(300, |count| count.parse().unwrap());
    let ended = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&ended);
    let upstream = agreeing(move |mut visit| {
        let counted = Arc::clone(&counted);
        async move {
            // One frame each way, so that whatever is needed to pass it has been needed.
            let Ok(frame) = visit.wire.frame().await else { return };
            visit.wire.send(crate::support::websocket::frame(frame.first, &frame.payload)).await;
            visit.wire.wait().await;
            counted.fetch_add(1, SeqCst);
        }
    })
    .await;
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[routes]]\nname = \"public\"\nupstream = \"{}\"\nsession = []\n",
        upstream.url()
    );
    let binary = Binary::start(name, &config, &[]).await;
    let mut open = Vec::new();
    let mut resident = Vec::new();
    // The first round also fills what stays: tables of the runtime, free lists of the allocator.
    for _ in 0..3 {
        let before = open.len();
        opens(&binary, &mut open, count).await;
        for client in &mut open[before..] {
            client.send(masked(0x82, &[1; 2000])).await;
            assert_eq!(client.frame().await.unwrap().payload.len(), 2000);
        }
        resident.push(binary.resident_kib());
    }
    let each = resident.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) * 1024 / count);
    let each: Vec<u64> = each.collect();
    eprintln!("{count} more, twice: {each:?} bytes each; resident {resident:?} KiB");
    assert!(*each.iter().min().unwrap() < EACH, "{each:?} bytes for each idle WebSocket");
    let count = open.len();
    drop(open);
    until("everything is closed", || ended.load(SeqCst) == count).await;
}
