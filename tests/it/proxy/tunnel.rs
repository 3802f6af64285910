//! Open WebSockets: what passes, and how they end.

use std::time::Duration;

use tokio::time::Instant;

use super::{PUBLIC, get, in_front_of};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::{OK, Upstream, Visit};
use crate::support::websocket::{agreeing, echo, frame, masked};
use crate::support::wire::Wire;

/// A public route with this `websocket`.
fn socket(rule: &str) -> String {
    format!("{PUBLIC}websocket = {rule}\n")
}

/// An upstream that tells through its last frame how it was closed.
async fn closed_as_told(mut visit: Visit, close: &std::sync::Mutex<Option<(bool, u16, String)>>) {
    visit.wire.wait().await;
    let told = visit.wire.closing().await;
    visit.wire.send(frame(0x88, &told.1.to_be_bytes())).await;
    *close.lock().unwrap() = Some(told);
    assert!(visit.wire.is_closed().await);
}

/// Opens a WebSocket, lets `end` bring its end about, and returns the code, the reason and the seconds after which the
/// caller was told. Both ends must hear the same.
async fn ended(tables: &str, bearer: bool, end: impl AsyncFnOnce(&mut Gateway)) -> (u16, String, u64) {
    ended_as(tables, bearer, "", end).await
}

/// The same with these header lines in the handshake.
async fn ended_as(tables: &str, bearer: bool, lines: &str, end: impl AsyncFnOnce(&mut Gateway)) -> (u16, String, u64) {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(None));
    let there = std::sync::Arc::clone(&heard);
    let upstream = agreeing(move |visit| {
        let there = std::sync::Arc::clone(&there);
        async move { closed_as_told(visit, &there).await }
    })
    .await;
    let (mut gateway, _upstream) = in_front_of(upstream, tables).await;
    let bearer = if bearer { gateway.bearer("bob") } else { String::new() };
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", &format!("{bearer}{lines}")).await;
    tokio::time::pause();
    let began = Instant::now();
    end(&mut gateway).await;
    tokio::time::timeout(Duration::from_hours(2), client.wait()).await.expect("the caller is told");
    let (masked_, code, reason) = client.closing().await;
    let seconds = began.elapsed().as_secs();
    assert!(!masked_);
    client.send(masked(0x88, &code.to_be_bytes())).await;
    assert!(client.is_closed().await);
    eventually("the upstream is told", || heard.lock().unwrap().is_some()).await;
    assert_eq!(heard.lock().unwrap().take(), Some((true, code, reason.clone())), "masked, and the same");
    tokio::time::resume();
    (code, reason, seconds)
}

fn minting(rule: &str) -> String {
    format!(
        "{}websocket = {rule}\n",
        super::MINTING.replace("custom_hasura\"", "custom_hasura\", expires_in = \"90s\"")
    )
}

#[tokio::test]
async fn a_websocket_ends_with_the_token_that_it_was_given() {
    let (code, reason, seconds) = ended(&minting("{ close_at = \"token\" }"), true, async |_| {}).await;
    assert_eq!((code, reason.as_str()), (4401, "token expired"));
    assert!((88..=91).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_websocket_ends_with_the_session_token_that_stands_in_for_a_minted_one() {
    let tables = minting("{ close_at = \"token\" }\non_mint_error = \"session\"").replace("custom_hasura", "nowhere");
    let (code, reason, seconds) = ended(&tables, true, async |_| {}).await;
    assert_eq!((code, reason.as_str()), (4401, "token expired"));
    assert!((58..=61).contains(&seconds), "the upstream has a token of a minute: {seconds}");
}

#[tokio::test]
async fn a_websocket_ends_with_its_session_token() {
    let (code, reason, seconds) = ended(&minting("{ close_at = \"session\" }"), true, async |_| {}).await;
    assert_eq!((code, reason.as_str()), (4401, "session expired"));
    assert!((63..=66).contains(&seconds), "a minute and the tolerance of the check: {seconds}");
}

/// Fails without the dialect of `graphql-transport-ws`: `graphql-ws`, Apollo's and urql's client among its users, counts
/// 4401 among its own fatal codes and never connects again, whatever its options say.
#[tokio::test]
async fn a_graphql_client_is_told_of_an_expiry_in_a_way_that_lets_it_come_back() {
    for (offered, told) in [("graphql-transport-ws", 3000), ("graphql-ws", 4401)] {
        let lines = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        for (close_at, reason_) in [("token", "token expired"), ("session", "session expired")] {
            let tables = minting(&format!("{{ close_at = \"{close_at}\" }}"));
            let (code, reason, _) = ended_as(&tables, true, &lines, async |_| {}).await;
            assert_eq!((code, reason.as_str()), (told, reason_), "{offered}");
        }
        let revoke = async |gateway: &mut Gateway| {
            let sid = mintgate::session::SessionId::new("sess_emulator_bob").unwrap();
            gateway.revoked.revoke_session(sid, Instant::now());
        };
        assert_eq!(ended_as(&minting("true"), true, &lines, revoke).await.0, 4403, "{offered}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_forward_is_noticed() {
    let set = async |gateway: &mut Gateway| gateway.clock.step(120_000);
    let (code, _, seconds) = ended(&minting("{ close_at = \"token\" }"), true, set).await;
    assert_eq!(code, 4401);
    assert!(seconds <= 2, "{seconds}");
}

#[tokio::test]
async fn a_revocation_always_ends_a_websocket() {
    for rule in ["true", "{ close_at = \"never\" }"] {
        let revoke = async |gateway: &mut Gateway| {
            let sid = mintgate::session::SessionId::new("sess_emulator_bob").unwrap();
            gateway.revoked.revoke_session(sid, Instant::now());
        };
        let (code, reason, seconds) = ended(&minting(rule), true, revoke).await;
        assert_eq!((code, reason.as_str()), (4403, "session revoked"));
        assert!(seconds <= 2, "{seconds}");
    }
}

#[tokio::test]
async fn a_websocket_may_have_an_age_limit() {
    let (code, _, seconds) = ended(&socket("{ max_lifetime = \"1h\" }"), false, async |_| {}).await;
    assert_eq!(code, 1001);
    assert!((3599..=3601).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_drain_says_goodbye_and_waits_for_the_answer() {
    let (code, _, seconds) = ended(&socket("true"), false, async |gateway| gateway.tell()).await;
    assert_eq!(code, 1001);
    assert!(seconds <= 1, "{seconds}");
}

#[tokio::test]
async fn a_drain_is_over_when_the_last_websocket_is() {
    let (mut gateway, _upstream) = in_front_of(echo().await, PUBLIC).await;
    let (mut polite, mut deaf) = (Wire::connect(gateway.address).await, Wire::connect(gateway.address).await);
    polite.open("/", "").await;
    deaf.open("/", "").await;
    tokio::time::pause();
    let began = Instant::now();
    gateway.tell();
    assert_eq!(polite.closing().await.1, 1001);
    polite.send(masked(0x88, b"\x03\xe9")).await;
    assert!(polite.is_closed().await);
    gateway.ended().await;
    let waited = began.elapsed().as_secs();
    assert!((4..=7).contains(&waited), "as long as a close frame may go unanswered, not the whole drain: {waited}");
    assert_eq!(deaf.closing().await.1, 1001);
}

#[tokio::test]
async fn a_close_waits_for_the_border_of_the_frame_under_way() {
    let upstream = agreeing(|mut visit| async move {
        let (first, second) = (frame(0x02, &vec![7; 200_000]), frame(0x82, b"too late"));
        visit.wire.send(&first[..100_000]).await;
        // The age limit passes here, in the middle of the frame.
        tokio::time::sleep(Duration::from_secs(12)).await;
        visit.wire.send([&first[100_000..], &second].concat()).await;
        assert_eq!(visit.wire.closing().await.1, 1001);
        visit.wire.send(frame(0x88, b"\x03\xe9")).await;
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, &socket("{ max_lifetime = \"10s\" }")).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    tokio::time::pause();
    let whole = client.frame().await.unwrap();
    assert!(whole.first == 0x02 && whole.payload == vec![7; 200_000]);
    assert_eq!(client.closing().await.1, 1001, "at the border, and nothing in between");
    client.send(masked(0x88, b"\x03\xe9")).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_frame_that_nobody_can_read_passes_and_a_close_can_only_cut() {
    let odd = [&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 1][..], b"whatever follows"].concat();
    let sent = odd.clone();
    let upstream = agreeing(move |mut visit| {
        let sent = sent.clone();
        async move {
            visit.wire.send(&sent).await;
            visit.wire.until_closed().await;
        }
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, &socket("{ max_lifetime = \"10s\" }")).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    assert_eq!(client.take(odd.len()).await.unwrap(), odd);
    tokio::time::pause();
    assert!(client.is_closed().await, "no close frame, where it would be read as a payload");
}

#[tokio::test]
async fn after_an_ends_own_close_frame_it_hears_no_other() {
    let upstream = agreeing(|mut visit| async move {
        visit.wire.send(frame(0x88, b"\x03\xe8")).await;
        visit.wire.until_closed().await;
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, &socket("{ max_lifetime = \"3s\" }")).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    tokio::time::pause();
    assert_eq!(client.closing().await.1, 1000);
    assert!(client.is_closed().await, "one close frame, not two");
}

#[tokio::test]
async fn what_is_in_flight_arrives_before_the_end() {
    let big = frame(0x82, &vec![5; 3_000_000]);
    let sent = big.clone();
    let upstream = agreeing(move |mut visit| {
        let sent = sent.clone();
        async move { visit.wire.send(&sent).await }
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    assert!(client.until_closed().await == big);
    let got = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let there = std::sync::Arc::clone(&got);
    let upstream = agreeing(move |mut visit| {
        let there = std::sync::Arc::clone(&there);
        async move {
            let all = visit.wire.until_closed().await;
            *there.lock().unwrap() = all;
        }
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    client.send(&big).await;
    client.finish().await;
    assert!(client.is_closed().await);
    assert!(*got.lock().unwrap() == big);
}

#[tokio::test]
async fn an_end_that_does_not_follow_the_other_is_cut_off() {
    let (gateway, _upstream) = in_front_of(agreeing(|_| async {}).await, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    assert!(client.is_closed().await, "the upstream has ended");
    tokio::time::pause();
    let began = Instant::now();
    for _ in 0..200 {
        if gateway.metric("mintgate_websockets{route=\"all\"}").await == "0" {
            assert!(began.elapsed() <= Duration::from_secs(20));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it is still open");
}

#[tokio::test]
async fn an_open_websocket_is_counted_until_it_ends() {
    let (gateway, _upstream) = in_front_of(echo().await, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    assert_eq!(gateway.metric("mintgate_websockets{route=\"all\"}").await, "1");
    assert_eq!(gateway.metric("mintgate_connections{listener=\"127.0.0.1:0\"}").await, "1");
    client.send(masked(0x88, b"\x03\xe8")).await;
    client.until_closed().await;
    drop(client);
    for _ in 0..500 {
        if gateway.metric("mintgate_websockets{route=\"all\"}").await == "0" {
            assert_eq!(gateway.metric("mintgate_connections{listener=\"127.0.0.1:0\"}").await, "0");
            let line = "mintgate_requests_total{route=\"all\",status=\"1xx\",code=\"\"}";
            assert_eq!(gateway.metric(line).await, "1");
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it is still counted");
}

#[tokio::test]
async fn open_websockets_count_among_the_connections() {
    let gateway = crate::support::gateway::Boot::new(PUBLIC.replace("{up}", &echo().await.url()))
        .server("max_connections = 1")
        .start()
        .await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
    assert_eq!(answer.outcome(), (503, "overloaded"));
    client.send(masked(0x81, b"still")).await;
    assert_eq!(client.frame().await.unwrap().payload, b"still");
}

#[tokio::test]
async fn the_limits_of_connections_do_not_end_a_websocket() {
    let limits = "max_connection_age = \"10s\"\nidle_timeout = \"9s\"\nfirst_byte_timeout = \"5s\"\n\
                  header_read_timeout = \"5s\"\nbody_progress_timeout = \"5s\"\nwrite_stall_timeout = \"5s\"";
    let tables = PUBLIC.replace("{up}", &echo().await.url());
    let gateway = crate::support::gateway::Boot::new(tables).server(limits).start().await;
    let (mut client, mut silent) = (Wire::connect(gateway.address).await, Wire::connect(gateway.address).await);
    client.open("/", "").await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert!(silent.is_closed().await, "these limits do hold");
    client.send(masked(0x81, b"still")).await;
    assert_eq!(client.frame().await.unwrap().payload, b"still");
}

#[tokio::test]
async fn a_caller_that_takes_nothing_stops_the_upstream() {
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let there = std::sync::Arc::clone(&written);
    let upstream = agreeing(move |mut visit| {
        let there = std::sync::Arc::clone(&there);
        async move {
            for _ in 0..256 {
                visit.wire.send(frame(0x82, &vec![3; 1 << 20])).await;
                there.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            visit.wire.until_closed().await;
        }
    })
    .await;
    let tables = PUBLIC.replace("{up}", &upstream.url());
    let gateway = crate::support::gateway::Boot::new(tables).server("write_stall_timeout = \"40s\"").start().await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    tokio::time::pause();
    // Time moves on only when nobody has anything left to do: everything that the sockets take is in them by then.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let stopped = written.load(std::sync::atomic::Ordering::SeqCst);
    assert!(stopped < 64, "{stopped} MiB went into a tunnel that nobody reads");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let got = client.until_closed().await.len();
    assert!(got < 64 << 20, "a stalled caller is cut off: {got}");
}

#[tokio::test]
async fn a_websocket_opened_on_a_worker_thread_works_alike() {
    let upstream = Upstream::scripted(|mut visit| async move {
        while visit.request().await.is_some() {
            visit.wire.send(OK).await;
        }
    })
    .await;
    let tables = format!(
        "{}[[routes]]\nname = \"ws\"\nmatch = {{ path = \"/ws\" }}\nupstream = \"{}\"\nsession = []\n",
        PUBLIC.replace("{up}", &upstream.url()),
        echo().await.url()
    );
    let gateway = crate::support::gateway::Boot::new(tables).server("workers = 2").threads().start().await;
    for _ in 0..4 {
        let mut client = Wire::connect(gateway.address).await;
        client.ask(get("/", "")).await;
        client.open("/ws", "").await;
        client.send(masked(0x81, b"hi")).await;
        assert_eq!(client.frame().await.unwrap().payload, b"hi");
    }
}
