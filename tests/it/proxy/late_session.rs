//! The session comes in the first message of a WebSocket: who is let in, and that nothing passes before.

use http::Request;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::first_message::{Got, keeping};
use super::{get, in_front_of};
use crate::support::eventually;
use crate::support::gateway::{Boot, Gateway, PARTY};
use crate::support::http2::{self, Client};
use crate::support::upstream::Upstream;
use crate::support::websocket::{frame, masked, open};
use crate::support::wire::Wire;

const LATE: &str = r#"
[[routes]]
name = "all"
upstream = "{up}"
session = [{ connection_init = "/headers/Authorization", prefix = "Bearer " }]
inject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura" }]
"#;

/// An upstream that says hello at once.
async fn greeting() -> (Upstream, Got) {
    keeping(b"\x81\x05hello").await
}

fn init(headers: &Value) -> Vec<u8> {
    json!({ "type": "connection_init", "payload": { "headers": headers } }).to_string().into_bytes()
}

fn bearing(token: &str) -> Vec<u8> {
    init(&json!({ "Authorization": format!("Bearer {token}") }))
}

/// Opens a WebSocket, is let in and hears both answers.
async fn admitted(gateway: &Gateway, lines: &str) -> Wire {
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", lines).await;
    client.send(masked(0x81, &bearing(&gateway.session_token("bob")))).await;
    assert_eq!(client.frame().await.unwrap().payload, b"hello");
    assert_eq!(client.frame().await.unwrap().payload, b"ack");
    client
}

/// Fails when the flow passes on what it reads before the verdict, or the tunnel carries what the upstream says.
#[tokio::test]
async fn nothing_passes_either_way_before_the_session_is_known() {
    let (upstream, got) = greeting().await;
    let (gateway, upstream) = in_front_of(upstream, LATE).await;
    let mut client = Wire::connect(gateway.address).await;
    let token = gateway.session_token("bob");
    let strangers = format!("Authorization: Bearer {token}\r\nCookie: __session={token}; a=b\r\nOrigin: {PARTY}\r\n");
    client.open("/", &strangers).await;
    let seen = upstream.only();
    assert_eq!((seen.one("authorization"), seen.one("cookie")), (None, Some("a=b")));
    let text = init(&json!({ "AUTHORIZATION": format!("bearer {token}"), "x": 1 }));
    client.send([masked(0x89, b"ping"), masked(0x01, &text[..20])].concat()).await;
    // The gateway has read that when it answers another request, on its one thread.
    for _ in 0..3 {
        assert_eq!(Wire::connect(gateway.address).await.ask(get("/", "")).await.outcome(), (401, "session-missing"));
    }
    assert!(got.lock().unwrap().is_empty(), "{got:?}");
    assert_eq!(gateway.mints(), 0);
    client.send([masked(0x80, &text[20..]), masked(0x81, b"next")].concat()).await;
    for word in ["hello", "ack", "ack"] {
        assert_eq!(client.frame().await.unwrap().payload, word.as_bytes());
    }
    assert_eq!(gateway.mints(), 1);
    let got = got.lock().unwrap();
    assert_eq!(got.iter().map(|frame| frame.first).collect::<Vec<_>>(), [0x89, 0x81, 0x81]);
    let said: Value = serde_json::from_slice(&got[1].payload).unwrap();
    let minted = said["payload"]["headers"]["Authorization"].as_str().unwrap();
    assert!(minted.starts_with("Bearer ") && !minted.contains(&token), "{said}");
    assert_eq!(said["payload"]["headers"].as_object().unwrap().len(), 2, "{said}");
    assert_eq!(got[2].payload, b"next");
}

/// Fails without the limit on the wait in `heard`.
#[tokio::test]
async fn who_does_not_say_whose_session_it_is_is_closed_after_ten_seconds() {
    let (upstream, got) = greeting().await;
    let (gateway, _upstream) = in_front_of(upstream, LATE).await;
    for beginning in [Vec::new(), masked(0x01, b"{\"type\":"), masked(0x89, b"ping")] {
        got.lock().unwrap().clear();
        let mut client = Wire::connect(gateway.address).await;
        client.open("/", "").await;
        client.send(beginning).await;
        tokio::time::pause();
        let began = Instant::now();
        tokio::time::timeout(std::time::Duration::from_hours(1), client.wait()).await.expect("the caller is told");
        let seconds = began.elapsed().as_secs();
        tokio::time::resume();
        assert_eq!(client.closing().await, (false, 4401, "session-missing".to_owned()));
        assert!((9..=11).contains(&seconds), "{seconds}");
        eventually("the upstream is told", || !got.lock().unwrap().is_empty()).await;
        assert!(matches!(&got.lock().unwrap()[..], [only] if only.first == 0x88), "{got:?}");
    }
}

/// What reaches the upstream is a close frame and no more, and the caller hears why.
async fn refused(gateway: &Gateway, got: &Got, message: Vec<u8>, code: u16, reason: &str) {
    got.lock().unwrap().clear();
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    client.send(message).await;
    assert_eq!(client.closing().await, (false, code, reason.to_owned()));
    eventually("the upstream is told", || !got.lock().unwrap().is_empty()).await;
    let got = got.lock().unwrap();
    assert!(matches!(&got[..], [only] if only.first == 0x88 && only.payload[..2] == [3, 0xe9]), "{reason}: {got:?}");
}

#[tokio::test]
async fn a_first_message_without_a_good_session_reaches_no_upstream() {
    let (upstream, got) = greeting().await;
    let (gateway, upstream) = in_front_of(upstream, LATE).await;
    let token = gateway.session_token("bob");
    for (message, code, reason) in [
        (masked(0x81, &init(&json!({}))), 4401, "session-missing"),
        (masked(0x81, b"{\"type\":\"subscribe\"}"), 4401, "session-missing"),
        (masked(0x81, b"[]"), 4401, "session-missing"),
        (masked(0x82, &bearing(&token)), 4401, "session-missing"),
        (masked(0x81, &init(&json!({ "Authorization": token }))), 4401, "session-invalid"),
        (masked(0x81, &init(&json!({ "Authorization": [token] }))), 4401, "credential-ambiguous"),
        (masked(0x81, &init(&json!({ "Authorization": token, "authorization": token }))), 4401, "credential-ambiguous"),
        (masked(0x81, &bearing(&format!("{token}x"))), 4401, "session-invalid"),
        (masked(0x81, &bearing("ak_1234")), 4401, "session-invalid"),
        (frame(0x81, &bearing(&token)), 1002, "a frame of a client is not masked"),
        (masked(0x81, &[b'a'; 9000].repeat(8)), 1009, "the first message is too long"),
        (masked(0x88, b"\x03\xe8bye"), 1000, ""),
    ] {
        let closes = code == 1000;
        if closes {
            let mut client = Wire::connect(gateway.address).await;
            client.open("/", "").await;
            client.send(message).await;
            assert_eq!(client.closing().await, (false, 1000, String::new()));
            continue;
        }
        refused(&gateway, &got, message, code, reason).await;
    }
    gateway.clock.step(120_000);
    refused(&gateway, &got, masked(0x81, &bearing(&token)), 4401, "session-expired").await;
    let sid = mintgate::session::SessionId::new("sess_emulator_bob").unwrap();
    gateway.revoked.revoke_session(sid, Instant::now());
    let fresh = gateway.session_token("bob");
    refused(&gateway, &got, masked(0x81, &bearing(&fresh)), 4401, "session-revoked").await;
    assert_eq!(gateway.mints(), 0);
    assert_eq!(gateway.metric("mintgate_session_verdicts_total{route=\"all\",verdict=\"revoked\"}").await, "1");
    let strict = format!("{LATE}require = {{ org_role = [\"org:nobody\"] }}\n").replace("{up}", &upstream.url());
    let gateway = Gateway::start(strict).await;
    let token = gateway.session_token("bob");
    refused(&gateway, &got, masked(0x81, &bearing(&token)), 4403, "session-forbidden").await;
}

/// A failure of the issuer's that may pass is told apart from one of the session.
#[tokio::test]
async fn a_token_that_cannot_be_minted_closes_with_what_may_help() {
    let (upstream, got) = greeting().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let boot = Boot::new(LATE.replace("{up}", &upstream.url())).issuer(nobody).clerk("timeout = \"1s\"");
    let gateway = boot.start().await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    client.send(masked(0x81, &bearing(&gateway.session_token("bob")))).await;
    let (_, code, reason) = client.closing().await;
    assert_eq!(code, 1013, "{reason}");
    assert!(reason.starts_with("issuer-"), "{reason}");
    eventually("the upstream is told", || !got.lock().unwrap().is_empty()).await;
    assert!(got.lock().unwrap().iter().all(|frame| frame.first == 0x88));
}

/// Fails when the tunnel keeps the member that it had before the session was known.
#[tokio::test]
async fn the_session_that_came_late_ends_its_websocket() {
    let revoke = async |gateway: &Gateway| {
        let sid = mintgate::session::SessionId::new("sess_emulator_bob").unwrap();
        gateway.revoked.revoke_session(sid, Instant::now());
    };
    let (upstream, _) = greeting().await;
    let (gateway, _upstream) = in_front_of(upstream, LATE).await;
    let mut client = admitted(&gateway, "").await;
    revoke(&gateway).await;
    assert_eq!(client.closing().await, (false, 4403, "session revoked".to_owned()));
    let graphql = "Sec-WebSocket-Protocol: graphql-transport-ws\r\n";
    for (rule, lines, code, reason) in [
        ("token", "", 4401, "token expired"),
        ("session", "", 4401, "session expired"),
        ("token", graphql, 3000, "token expired"),
    ] {
        let (upstream, _) = greeting().await;
        let rules = format!("{LATE}websocket = {{ close_at = \"{rule}\" }}\n");
        let (gateway, _upstream) = in_front_of(upstream, &rules).await;
        let token = gateway.session_token("bob");
        let mut client = admitted(&gateway, lines).await;
        gateway.clock.step(600_000);
        assert_eq!(client.closing().await, (false, code, reason.to_owned()));
        // Who comes with a token that has expired hears the same.
        let mut late = Wire::connect(gateway.address).await;
        late.open("/", lines).await;
        late.send(masked(0x81, &bearing(&token))).await;
        assert_eq!(late.closing().await, (false, code, "session-expired".to_owned()));
    }
}

/// Fails when `later` lets a request pass that asks for no WebSocket, or does not look at `Origin`.
#[tokio::test]
async fn such_a_route_takes_websockets_alone_and_pages_only_where_they_are_trusted() {
    let (upstream, _) = greeting().await;
    let (gateway, upstream) = in_front_of(upstream, LATE).await;
    let bearer = gateway.bearer("bob");
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: gateway.test\r\nAccess-Control-Request-Method: GET\r\nOrigin: https://a.example\r\n\r\n";
    for request in [
        get("/", &bearer),
        get("/", &bearer).replace("GET", "POST"),
        preflight.to_owned(),
        open("/", &bearer).replace("Version: 13", "Version: 8"),
        open("/", &bearer).replace("websocket", "h2c"),
    ] {
        let answer = Wire::connect(gateway.address).await.ask(request.clone()).await;
        assert_eq!(answer.outcome(), (401, "session-missing"), "{request}");
    }
    for origin in ["https://evil.example", "null"] {
        let answer = Wire::connect(gateway.address).await.ask(open("/", &format!("Origin: {origin}\r\n"))).await;
        assert_eq!(answer.outcome(), (403, "origin-forbidden"), "{origin}");
    }
    assert_eq!(upstream.count(), 0);
    for origin in [format!("Origin: {PARTY}\r\n"), "Origin: http://gateway.test\r\n".to_owned(), String::new()] {
        Wire::connect(gateway.address).await.open("/", &origin).await;
    }
}

#[tokio::test]
async fn a_session_comes_late_on_a_stream_too() {
    let (upstream, got) = greeting().await;
    let (gateway, _upstream) = in_front_of(upstream, LATE).await;
    let mut client = Client::connect(gateway.address).await;
    let nowhere = Request::get("http://gateway.test/nowhere/../x").body(http2::empty()).unwrap();
    assert_eq!(client.ask(nowhere).await.status, 400);
    let (_, mut good) = client.open("/", &[("origin", PARTY)]).await;
    let (_, mut bad) = client.open("/", &[]).await;
    bad.send(masked(0x81, &bearing("nonsense"))).await;
    assert_eq!(bad.closing().await, (false, 4401, "session-invalid".to_owned()));
    good.send(masked(0x81, &bearing(&gateway.session_token("bob")))).await;
    assert_eq!(good.frame().await.unwrap().payload, b"hello");
    assert_eq!(good.frame().await.unwrap().payload, b"ack");
    let texts = got.lock().unwrap().iter().filter(|frame| frame.first == 0x81).count();
    assert_eq!(texts, 1);
    let plain = Request::get("http://gateway.test/").body(http2::empty()).unwrap();
    assert_eq!(client.ask(plain).await.outcome(), (401, "session-missing"));
}
