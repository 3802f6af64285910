//! Callers of HTTP/2 that open WebSockets and then do what no client would: each harms its own stream, or its own
//! connection, and nobody else.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::frames::{
    Arrived, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, ROOT, RST_STREAM, SETTINGS, WINDOW_UPDATE, arrived, frame,
    hello, literal,
};
use crate::harness::{Binary, until};
use crate::proxy::PUBLIC;
use crate::support::eventually;
use crate::support::gateway::{Boot, Gateway};
use crate::support::http2::{Client, empty};
use crate::support::upstream::{OK, Upstream};
use crate::support::websocket::{accept, agreeing, agreement, echo, frame as message, masked};
use crate::support::wire::Wire;

/// A stall of 13 s, which for a window is 26 s.
const STALL: &str = "write_stall_timeout = \"13s\"";

/// What came on a connection.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Head(u32, bool),
    Bytes(u32, Vec<u8>),
    Reset(u32),
    /// Why, of RFC 9113 section 7.
    Goodbye(u32),
    End,
}

/// The next thing that is about a stream or the end. Every ping is answered at once.
async fn next(client: &mut Wire) -> Came {
    while let Some(Arrived { kind, stream, payload, .. }) = arrived(client).await {
        match kind {
            RST_STREAM => return Came::Reset(stream),
            // 200 out of the static table.
            HEADERS => return Came::Head(stream, payload[0] == 0x88),
            DATA if !payload.is_empty() => return Came::Bytes(stream, payload),
            GOAWAY => return Came::Goodbye(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            _ => {}
        }
    }
    Came::End
}

/// The same, which may take some minutes of paused time.
async fn in_a_while(client: &mut Wire) -> Came {
    let end = Instant::now() + Duration::from_secs(200);
    tokio::time::timeout_at(end, async {
        client.wait().await;
        next(client).await
    })
    .await
    .expect("nothing comes")
}

/// An extended CONNECT for a WebSocket at `/`, with more fields.
fn connects(stream: u32, more: &[u8]) -> Vec<u8> {
    let head = [
        &literal(b":method", b"CONNECT")[..],
        &literal(b":protocol", b"websocket"),
        &ROOT[1..],
        &literal(b"sec-websocket-version", b"13"),
        more,
    ];
    frame(HEADERS, END_HEADERS, stream, &head.concat())
}

/// `GET` of that path.
fn asks(stream: u32, path: &[u8]) -> Vec<u8> {
    let path = [&[0x04, u8::try_from(path.len()).unwrap()][..], path].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &[&[0x82, 0x86][..], &path, &ROOT[3..]].concat())
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

/// An upstream of WebSockets that never ceases to send, and counts those of its connections that were closed.
async fn endless() -> (Upstream, Arc<AtomicUsize>) {
    let left = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&left);
    let upstream = agreeing(move |mut visit| {
        let left = Arc::clone(&count);
        async move {
            let piece = message(0x82, &vec![b'a'; 64 << 10]);
            while visit.wire.try_send(&piece).await.is_ok() {}
            left.fetch_add(1, SeqCst);
        }
    })
    .await;
    (upstream, left)
}

/// `/plain` has an upstream of its own, which answers.
async fn beside(upstream: &Upstream, tables: &str, server: &str) -> (Gateway, Upstream) {
    let plain = Upstream::answering(OK).await;
    let aside = PUBLIC.replace("\"all\"", "\"plain\"\nmatch = { path = \"/plain\" }").replace("{up}", &plain.url());
    let tables = format!("{}{aside}", tables.replace("{up}", &upstream.url()));
    (Boot::new(tables).server(server).start().await, plain)
}

/// Case 24. Fails where `Opened` has no limit: what writes on the stream waits for its window for ever.
#[tokio::test]
async fn a_websocket_whose_window_stays_closed_is_cut_and_its_neighbours_are_not() {
    for window in [0, 1000] {
        let (upstream, left) = endless().await;
        let (gateway, _plain) = beside(&upstream, PUBLIC, STALL).await;
        let mut client = with_window(&gateway, window).await;
        client.send(connects(1, b"")).await;
        assert_eq!(next(&mut client).await, Came::Head(1, true));
        tokio::time::pause();
        let began = Instant::now();
        let mut bytes = 0;
        let end = loop {
            match in_a_while(&mut client).await {
                Came::Bytes(1, got) => bytes += got.len(),
                other => break other,
            }
        };
        assert_eq!((end, bytes), (Came::Reset(1), usize::try_from(window).unwrap()));
        let seconds = began.elapsed().as_secs();
        assert!((20..40).contains(&seconds), "the limit, and 5 s for the other end: {seconds}");
        tokio::time::resume();
        eventually("the upstream's connection ends too", || left.load(SeqCst) == 1).await;
        client.send(asks(3, b"/plain")).await;
        assert_eq!(next(&mut client).await, Came::Head(3, true));
    }
}

/// Case 24. Fails where `Opened` forgets that something was taken, and cuts the caller all the same.
#[tokio::test]
async fn a_websocket_whose_window_opens_now_and_then_goes_on() {
    let (upstream, _left) = endless().await;
    let (gateway, _plain) = beside(&upstream, PUBLIC, STALL).await;
    let mut client = with_window(&gateway, 0).await;
    client.send(connects(1, b"")).await;
    assert_eq!(next(&mut client).await, Came::Head(1, true));
    tokio::time::pause();
    for _ in 0..6 {
        let quiet = tokio::time::timeout(Duration::from_secs(20), next(&mut client)).await;
        assert!(quiet.is_err(), "{quiet:?}");
        client.send(frame(WINDOW_UPDATE, 0, 1, &(64_u32 << 10).to_be_bytes())).await;
        let mut left = 64 << 10;
        while left > 0 {
            match in_a_while(&mut client).await {
                Came::Bytes(1, got) => left -= got.len(),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Case 24. Eight streams on which half a MiB waits hold up whatever else their connection sends. Fails where the upstream's
/// end has no limit of its own.
#[tokio::test]
async fn an_upstream_that_takes_nothing_ends_its_websocket_on_a_stream() {
    let upstream = agreeing(|visit| async move {
        std::future::pending::<()>().await;
        drop(visit);
    })
    .await;
    let (gateway, _plain) = beside(&upstream, PUBLIC, STALL).await;
    let mut client = Client::connect(gateway.address).await;
    let plain = || http::Request::get("http://gateway.test/plain").body(empty()).unwrap();
    assert_eq!(client.ask(plain()).await.status, 200);
    let (_, mut socket) = client.open("/", &[]).await;
    let much = masked(0x82, &vec![1; 64 << 20]);
    tokio::time::pause();
    let began = Instant::now();
    // What is still on its way then is thrown away; without a limit nothing of this would come back.
    let _ = socket.try_send(&much).await;
    assert!(socket.is_closed().await);
    let seconds = began.elapsed().as_secs();
    assert!((26..40).contains(&seconds), "{seconds}");
    assert_eq!(client.ask(plain()).await.status, 200);
}

/// Case 24. A close frame that cannot be delivered does not keep what it closes: the upstream is told, and the stream is
/// reset. Fails where the writing half is a task of its own (`Turned`): the stream stays for as long as its connection.
#[tokio::test]
async fn a_caller_that_takes_no_close_frame_is_cut_all_the_same() {
    let told = Arc::new(Mutex::new(None));
    let there = Arc::clone(&told);
    let upstream = agreeing(move |mut visit| {
        let there = Arc::clone(&there);
        async move {
            visit.wire.wait().await;
            *there.lock().unwrap() = Some(visit.wire.closing().await.1);
            visit.wire.send(message(0x88, b"\x03\xe9")).await;
        }
    })
    .await;
    let rule = format!("{PUBLIC}websocket = {{ max_lifetime = \"3s\" }}\n");
    let (gateway, _plain) = beside(&upstream, &rule, "").await;
    let mut client = with_window(&gateway, 0).await;
    client.send(connects(1, b"")).await;
    assert_eq!(next(&mut client).await, Came::Head(1, true));
    tokio::time::pause();
    let began = Instant::now();
    assert_eq!(in_a_while(&mut client).await, Came::Reset(1));
    let seconds = began.elapsed().as_secs();
    assert!((7..=11).contains(&seconds), "at 3 s it is told, and has 5: {seconds}");
    assert_eq!(told.lock().unwrap().take(), Some(1001));
    tokio::time::resume();
    client.send(asks(3, b"/plain")).await;
    assert_eq!(next(&mut client).await, Came::Head(3, true));
}

/// Case 40. Fails where the writing half outlives its tunnel: the drain waits for it until its own time is over.
#[tokio::test]
async fn a_drain_does_not_wait_for_a_stream_whose_window_stays_closed() {
    let upstream = echo().await;
    let (mut gateway, _plain) = beside(&upstream, PUBLIC, "").await;
    let mut client = with_window(&gateway, 0).await;
    client.send(connects(1, b"")).await;
    assert_eq!(next(&mut client).await, Came::Head(1, true));
    tokio::time::pause();
    let began = Instant::now();
    gateway.tell();
    // Its pings are answered: a drain waits for that too.
    let listening = async { while in_a_while(&mut client).await != Came::End {} };
    tokio::join!(gateway.ended(), listening);
    let waited = began.elapsed().as_secs();
    assert!((4..=7).contains(&waited), "as long as a close frame may go unanswered, not the whole drain: {waited}");
}

/// Case 19. A reset is what a closed browser tab sends: the upstream's connection ends without a close frame that nobody has
/// sent, and the record says that it was cut. Fails without the question in `Opened::poll_read`: hyper calls it an end.
#[tokio::test]
async fn a_stream_that_is_reset_is_a_connection_that_broke() {
    let heard = Arc::new(Mutex::new(None));
    let there = Arc::clone(&heard);
    let upstream = agreeing(move |mut visit| {
        let there = Arc::clone(&there);
        async move {
            assert_eq!(visit.wire.frame().await.unwrap().payload, b"hi");
            visit.wire.send(message(0x81, b"ho")).await;
            *there.lock().unwrap() = Some(visit.wire.until_closed().await);
            // Its own half stays open: nothing but the reset says how this ended.
            std::future::pending::<()>().await;
        }
    })
    .await;
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [log]\naccess = \"all\"\nformat = \"json\"\n{}",
        PUBLIC.replace("{up}", &upstream.url())
    );
    let binary = Binary::start("reset", &config, &[]).await;
    let mut client = Wire::connect(binary.address).await;
    client.send([hello(), connects(1, b"")].concat()).await;
    assert_eq!(next(&mut client).await, Came::Head(1, true));
    client.send(frame(DATA, 0, 1, &masked(0x81, b"hi"))).await;
    assert_eq!(next(&mut client).await, Came::Bytes(1, message(0x81, b"ho")));
    client.send(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await;
    until("the upstream's connection ends", || heard.lock().unwrap().is_some()).await;
    assert_eq!(heard.lock().unwrap().as_deref(), Some(&b""[..]), "and no frame comes before that");
    until("it is logged", || binary.log().contains("\"body\":")).await;
    assert!(binary.log().contains("\"body\":\"cut\""), "{}", binary.log());
}

/// Case 19. Nothing that comes early leaves the stream before the upstream has agreed, and what was sent for a WebSocket
/// that is refused is nobody's.
#[tokio::test]
async fn what_a_stream_sends_too_early_waits_for_the_101_and_is_nobodys_without_one() {
    for agrees in [true, false] {
        let heard = Arc::new(Mutex::new(None));
        let there = Arc::clone(&heard);
        let (go, gone) = tokio::sync::watch::channel(false);
        let upstream = Upstream::scripted(move |mut visit| {
            let (there, mut gone) = (Arc::clone(&there), gone.clone());
            async move {
                let request = visit.request().await.unwrap();
                let early = tokio::time::timeout(Duration::from_millis(100), visit.wire.wait()).await;
                assert!(early.is_err(), "something comes before the 101");
                gone.wait_for(|gone| *gone).await.unwrap();
                if agrees {
                    visit.wire.send(agreement(&accept(request.one("sec-websocket-key").unwrap()))).await;
                    *there.lock().unwrap() = Some(visit.wire.frame().await.unwrap().payload);
                    visit.wire.until_closed().await;
                } else {
                    visit.wire.send("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").await;
                    let rest = visit.wire.until_closed().await;
                    *there.lock().unwrap() = Some(rest);
                }
            }
        })
        .await;
        let (gateway, plain) = beside(&upstream, PUBLIC, "").await;
        let mut client = Wire::connect(gateway.address).await;
        client.send([hello(), connects(1, b""), frame(DATA, 0, 1, &masked(0x81, b"early"))].concat()).await;
        upstream.received(1).await;
        go.send(true).unwrap();
        assert_eq!(next(&mut client).await, Came::Head(1, agrees));
        eventually("the upstream has heard", || heard.lock().unwrap().is_some()).await;
        let expected = if agrees { &b"early"[..] } else { b"" };
        assert_eq!(heard.lock().unwrap().as_deref(), Some(expected));
        assert_eq!(plain.count(), 0);
        client.send(asks(3, b"/plain")).await;
        loop {
            match next(&mut client).await {
                Came::Head(3, true) => break,
                Came::Reset(1) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Case 13. hyper ends the whole connection at a CONNECT that announces a body, before anybody here hears of it. That costs
/// its caller what else is on it, and nobody else anything. Fails where a tunnel does not end with its connection.
#[tokio::test]
async fn a_connect_with_a_length_harms_its_own_connection_alone() {
    let ended = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&ended);
    let upstream = agreeing(move |mut visit| {
        let ended = Arc::clone(&count);
        async move {
            while let Ok(got) = visit.wire.frame().await {
                visit.wire.send(message(got.first, &got.payload)).await;
            }
            ended.fetch_add(1, SeqCst);
        }
    })
    .await;
    let (gateway, _plain) = beside(&upstream, PUBLIC, "").await;
    let (mut harmed, mut other) = (Wire::connect(gateway.address).await, Wire::connect(gateway.address).await);
    for client in [&mut harmed, &mut other] {
        client.send([hello(), connects(1, b"")].concat()).await;
        assert_eq!(next(client).await, Came::Head(1, true));
    }
    harmed.send(connects(3, &literal(b"content-length", b"5"))).await;
    loop {
        match next(&mut harmed).await {
            Came::End => break,
            Came::Head(3, _) => panic!("answered: then there is nothing to be harmed by"),
            _ => {}
        }
    }
    eventually("its WebSocket ends", || ended.load(SeqCst) == 1).await;
    other.send(frame(DATA, 0, 1, &masked(0x81, b"still"))).await;
    assert_eq!(next(&mut other).await, Came::Bytes(1, message(0x81, b"still")));
    other.send(asks(3, b"/plain")).await;
    assert_eq!(next(&mut other).await, Came::Head(3, true));
    assert_eq!(ended.load(SeqCst), 1);
}

/// Case 23: frames on streams that are over count against their connection until h2 ends it with all that is under way. It
/// is told to go before. Fails without the word on what is left in `Finish::tunnel_ends` (WebSockets that ended unheard) and
/// in `switch::refuse` (those that were refused).
#[tokio::test]
async fn frames_for_websockets_that_are_over_cost_nobody_an_answer() {
    /// More streams than h2 remembers when they are over.
    const STREAMS: u32 = 60;
    for refused in [true, false] {
        let (go, gone) = tokio::sync::watch::channel(false);
        let upstream = Upstream::scripted(move |mut visit| {
            let mut gone = gone.clone();
            async move {
                let Some(request) = visit.request().await else { return };
                match request.one("sec-websocket-key") {
                    Some(_) if refused => visit.wire.send("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").await,
                    // And nothing more: the caller does not follow.
                    Some(key) => visit.wire.send(agreement(&accept(key))).await,
                    None => {
                        gone.wait_for(|gone| *gone).await.unwrap();
                        visit.wire.send(OK).await;
                    }
                }
            }
        })
        .await;
        let gateway = Gateway::start(PUBLIC.replace("{up}", &upstream.url())).await;
        let mut client = Wire::connect(gateway.address).await;
        client.send([hello(), asks(1, b"/")].concat()).await;
        upstream.received(1).await;
        let mut told = None;
        let mut over = 0;
        for number in 1..=STREAMS {
            client.send(connects(2 * number + 1, b"")).await;
        }
        tokio::time::pause();
        while over < STREAMS && told.is_none() {
            match in_a_while(&mut client).await {
                Came::Reset(_) => over += 1,
                Came::Goodbye(why) => told = Some(why),
                Came::Head(..) | Came::Bytes(..) => {}
                Came::End => panic!("the connection ends without a word"),
            }
        }
        // Time for h2 to forget them, and not enough for a ping to go unanswered.
        tokio::time::sleep(Duration::from_secs(10)).await;
        tokio::time::resume();
        for number in 1..=STREAMS {
            client.send(frame(DATA, 0, 2 * number + 1, b"x").repeat(16)).await;
            if told.is_some() {
                break;
            }
        }
        go.send(true).unwrap();
        loop {
            match next(&mut client).await {
                Came::Head(1, true) => break,
                Came::Goodbye(why) => told = told.or(Some(why)),
                Came::End => panic!("what was under way is lost: {told:?}"),
                _ => {}
            }
        }
        assert_eq!(told, Some(0), "GOAWAY without an error: {refused}");
    }
}
