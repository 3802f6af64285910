//! HTTP/2 callers that make the gateway work for nothing: each ends its own connection and costs nobody else anything.

use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, HEADERS, PING, ROOT, RST_STREAM, SETTINGS, WINDOW_UPDATE, fate,
    fate_of, frame, hello, indexed, literal,
};
use crate::harness::Binary;
use crate::proxy::{PUBLIC, behind, get};
use crate::support::PATIENCE;
use crate::support::gateway::Gateway;
use crate::support::http2;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// Requests of one connection of which a bounded part is enough to end it.
const STREAMS: u32 = 10_000;

async fn others_are_served(gateway: &Gateway) {
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/", "")).await.outcome(), (200, ""));
}

/// Sends requests with that frame after each, and a good one after all of them, which must find nobody there.
async fn flood(gateway: &Gateway, mut each: impl FnMut(u32) -> Vec<u8>) {
    let mut client = Wire::connect(gateway.address).await;
    let mut bytes = hello();
    for number in 0..STREAMS {
        let stream = 2 * number + 1;
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, ROOT));
        bytes.extend(each(stream));
    }
    let last = 2 * STREAMS + 1;
    bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, last, ROOT));
    client.send(bytes).await;
    assert_eq!(fate_of(&mut client, last).await, Fate::Gone);
}

/// Case 23, CVE-2023-44487. Fails without `max_pending_accept_reset_streams` (with any number in its place).
#[tokio::test]
async fn rapid_resets_end_their_connection() {
    let (gateway, upstream) = behind(PUBLIC).await;
    flood(&gateway, |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
    assert!(upstream.connections() < 500, "{}", upstream.connections());
    others_are_served(&gateway).await;
}

/// Case 23, CVE-2025-8671 (MadeYouReset): the caller makes the gateway reset its own streams. Fails without
/// `max_local_error_reset_streams`.
#[tokio::test]
async fn resets_that_the_caller_provokes_end_the_connection() {
    let (gateway, upstream) = behind(PUBLIC).await;
    // More window than there may be is the stream's error, not the connection's.
    flood(&gateway, |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())).await;
    assert!(upstream.connections() < 2000, "{}", upstream.connections());
    others_are_served(&gateway).await;
}

/// Case 23, RUSTSEC-2024-0332. Fails without `max_header_list_size`, out of which h2 makes its limit of frames.
#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send([hello(), frame(HEADERS, END_STREAM, 1, ROOT)].concat()).await;
    for number in 0..1000 {
        let field = literal(format!("x-{number}").as_bytes(), b"");
        if client.try_send(frame(CONTINUATION, 0, 1, &field)).await.is_err() {
            break;
        }
    }
    client.send(frame(CONTINUATION, END_HEADERS, 1, b"")).await;
    assert_eq!(fate(&mut client).await, Fate::Gone);
    assert_eq!(upstream.count(), 0);
    others_are_served(&gateway).await;
}

/// Cases 23 and 25: a head of 5 KB that is 4 MB when it is unpacked. Fails without `max_header_list_size` together with
/// both checks of a head's bytes in `proxy::request`.
#[tokio::test]
async fn a_head_that_is_small_only_until_it_is_unpacked_is_refused() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    // 0xbe is the first entry of the dynamic table.
    let packed = [ROOT, &indexed(b"x-big", &[b'a'; 4000]), &[0xbe; 1000]].concat();
    client.send([hello(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &packed)].concat()).await;
    assert!(fate(&mut client).await != Fate::Ok);
    assert_eq!(upstream.count(), 0);
    others_are_served(&gateway).await;
}

/// Case 23, RUSTSEC-2026-0258. The defence is in h2, from 0.4.16 on; with an older one the connection stays open.
#[tokio::test]
async fn empty_frames_of_a_body_end_the_connection() {
    let (gateway, _upstream) = behind(PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send([hello(), frame(HEADERS, END_HEADERS, 1, ROOT)].concat()).await;
    client.send(frame(DATA, 0, 1, b"").repeat(100_000)).await;
    client.send(frame(DATA, END_STREAM, 1, b"")).await;
    assert_eq!(fate(&mut client).await, Fate::Gone);
    others_are_served(&gateway).await;
}

/// Case 23, h2#856: requests that are cancelled end nothing that others have on the same connection of the upstream, which
/// is replaced before they could. Fails without the count of `cancelled` in `pool::http2`: then none is replaced.
#[tokio::test]
async fn requests_that_are_cancelled_cost_nobody_else_the_upstreams_connection() {
    const CANCELLED: usize = 3000;
    let (release, released) = tokio::sync::watch::channel(false);
    let upstream = http2::Upstream::answering(move || {
        let mut released = released.clone();
        let late = async move {
            let _ = released.wait_for(|released| *released).await;
            Ok(http_body::Frame::data(bytes::Bytes::from_static(b"late")))
        };
        http::Response::new(StreamBody::new(futures_util::stream::once(Box::pin(late))).boxed())
    })
    .await;
    let tables = format!(
        "[upstreams.up]\nurl = \"{}\"\nhttp2 = true\n\n[[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n",
        upstream.url()
    );
    let gateway = Gateway::start(tables).await;
    let request = || http::Request::get("http://a/").body(http2::empty()).unwrap();
    let (mut patient, mut fickle) =
        (http2::Client::connect(gateway.address).await, http2::Client::connect(gateway.address).await);
    let waiting = patient.send(request()).await.unwrap();
    for _ in 0..CANCELLED {
        drop(fickle.send(request()).await.unwrap());
    }
    release.send(true).unwrap();
    let body = tokio::time::timeout(PATIENCE, waiting.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(&*body.to_bytes(), b"late");
    assert!((2..10).contains(&upstream.connections()), "{}", upstream.connections());
    assert_eq!(fickle.ask(request()).await.status, 200);
}

/// Case 23: what is asked for and costs an answer is answered, and nothing of it is gathered.
#[tokio::test]
async fn floods_of_control_frames_take_no_memory() {
    const GROWTH_KIB: u64 = 16 * 1024;
    const FRAMES: usize = 200_000;
    let upstream = Upstream::answering(OK).await;
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[routes]]\nname = \"public\"\nupstream = \"{}\"\nsession = []\n",
        upstream.url()
    );
    let binary = Binary::start("floods", &config, &[]).await;
    let before = binary.resident_kib();
    for flood in [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        frame(WINDOW_UPDATE, 0, 0, &0_u32.to_be_bytes()),
        // PRIORITY, of streams that there are not.
        frame(2, 0, 7, &[0, 0, 0, 3, 1]),
    ] {
        let (mut answers, mut say) = TcpStream::connect(binary.address).await.unwrap().into_split();
        let flood = async {
            // It may be cut off, which is as good.
            let _ = say.write_all(&[hello(), flood.repeat(FRAMES)].concat()).await;
            drop(say);
        };
        let read = async {
            let mut scratch = vec![0; 8192];
            while answers.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
        };
        tokio::time::timeout(PATIENCE, async { tokio::join!(flood, read) }).await.unwrap();
    }
    let grown = binary.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    assert_eq!(Wire::connect(binary.address).await.ask(get("/", "")).await.status(), 200);
}
