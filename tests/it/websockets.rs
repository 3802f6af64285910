//! What an idle WebSocket costs the real binary.
//!
//! `MINTGATE_WEBSOCKETS=1000` opens so many instead, and so many again; the bytes that each took are printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::harness::{Binary, until};
use crate::support::websocket::{agreeing, masked};
use crate::support::wire::Wire;

/// Bytes that an idle WebSocket may take: two sockets, a task, and no buffer.
const EACH: u64 = 6 * 1024;

#[expect(clippy::disallowed_methods, reason = "how many are opened is said from outside")]
#[expect(clippy::print_stderr, reason = "what was measured")]
#[tokio::test]
async fn an_idle_websocket_holds_no_buffer() {
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
    let binary = Binary::start("websockets", &config, &[]).await;
    let mut open = Vec::new();
    let mut resident = Vec::new();
    // The first round also fills what stays: tables of the runtime, free lists of the allocator.
    for _ in 0..3 {
        for _ in 0..count {
            let mut client = Wire::connect(binary.address).await;
            client.open("/socket", "Cookie: theme=dark\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n").await;
            client.send(masked(0x82, &[1; 2000])).await;
            assert_eq!(client.frame().await.unwrap().payload.len(), 2000);
            open.push(client);
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
