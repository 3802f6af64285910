//! The first message of a WebSocket gets the minted token: what reaches the upstream, and what never does.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{get, in_front_of};
use crate::support::eventually;
use crate::support::http2::{self, Client};
use crate::support::upstream::Upstream;
use crate::support::websocket::{Frame, agreeing, agreement, frame, masked, open};
use crate::support::wire::Wire;

const REWRITING: &str = r#"
[[routes]]
name = "all"
upstream = "{up}"
inject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura" }]
websocket = { rewrite_connection_init = { pointer = "/headers/Authorization", prefix = "Bearer " } }
"#;

const MANY: usize = 64 * 1024;

/// Frames that an upstream has got.
pub(super) type Got = Arc<Mutex<Vec<Frame>>>;

/// An upstream that says this at once, keeps every frame, answers each message with `ack`, and a close frame with the same.
pub(super) async fn keeping(hello: &'static [u8]) -> (Upstream, Got) {
    let got = Got::default();
    let kept = Arc::clone(&got);
    let upstream = agreeing(move |mut visit| {
        let kept = Arc::clone(&kept);
        async move {
            visit.wire.send(hello).await;
            loop {
                visit.wire.wait().await;
                let Ok(next) = visit.wire.frame().await else { return };
                let (first, payload) = (next.first, next.payload.clone());
                kept.lock().unwrap().push(next);
                match first {
                    0x81 => visit.wire.send(frame(0x81, b"ack")).await,
                    0x88 => return visit.wire.send(frame(0x88, &payload)).await,
                    _ => {}
                }
            }
        }
    })
    .await;
    (upstream, got)
}

/// What the first of these messages says under the pointer's path.
fn said(got: &Got) -> Value {
    let got = got.lock().unwrap();
    let text = got.iter().find(|frame| frame.first == 0x81).expect("a message");
    assert!(text.masked, "{text:?}");
    serde_json::from_slice(&text.payload).unwrap()
}

fn init(headers: &Value) -> Vec<u8> {
    json!({ "type": "connection_init", "payload": { "headers": headers, "n": 1 } }).to_string().into_bytes()
}

#[tokio::test]
async fn the_first_message_gets_the_token_and_loses_what_the_caller_put_there() {
    let (upstream, got) = keeping(b"").await;
    let (gateway, upstream) = in_front_of(upstream, REWRITING).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", &gateway.bearer("bob")).await;
    let spoofed = json!({ "Authorization": "Bearer spoofed", "AUTHORIZATION": "a", "authorization": "b", "x": "kept" });
    // In fragments, a ping between them, and a message behind it in the same segment.
    let text = init(&spoofed);
    let bytes = [
        masked(0x01, &text[..10]),
        masked(0x89, b"ping"),
        masked(0x00, b""),
        masked(0x80, &text[10..]),
        masked(0x81, b"{\"type\":\"subscribe\"}"),
    ];
    client.send(bytes.concat()).await;
    for _ in 0..2 {
        assert_eq!(client.frame().await.unwrap().payload, b"ack");
    }
    let token = upstream.only().one("authorization").unwrap().to_owned();
    assert_eq!(
        said(&got),
        json!({ "type": "connection_init", "payload": { "headers": { "x": "kept", "Authorization": token }, "n": 1 } })
    );
    let frames: Vec<_> = got.lock().unwrap().iter().map(|frame| frame.first).collect();
    assert_eq!(frames, [0x89, 0x81, 0x81]);
    assert_eq!(got.lock().unwrap()[2].payload, b"{\"type\":\"subscribe\"}");
    // From now on it is a tunnel like any other: fragments, and what else there is.
    client.send([masked(0x02, b"a"), masked(0x80, b"b")].concat()).await;
    client.send(masked(0x88, b"\x03\xe8bye")).await;
    assert_eq!(client.closing().await, (false, 1000, "bye".to_owned()));
    let frames: Vec<_> = got.lock().unwrap()[3..].iter().map(|frame| frame.first).collect();
    assert_eq!(frames, [0x02, 0x80, 0x88]);
    assert!(client.is_closed().await);
}

/// Fails when the flow passes on what it reads before the message is whole.
#[tokio::test]
async fn a_first_message_that_is_none_reaches_no_upstream_and_its_sender_is_told() {
    let spoofed = init(&json!({ "Authorization": "Bearer spoofed" }));
    let long = [b"{\"type\":\"connection_init\",\"x\":\"".as_slice(), &vec![b'a'; MANY], b"\"}"].concat();
    let twice = br#"{"type":"connection_init","payload":{"headers":{}},"payload":{"headers":{"Authorization":"a"}}}"#;
    let compressed = { masked(0xc1, &spoofed) };
    for (bytes, code, reason) in [
        (masked(0x81, b"{\"type\":\"subscribe\"}"), 4400, "is not connection_init"),
        (masked(0x81, b"not JSON"), 4400, "not one JSON object"),
        (masked(0x81, twice), 4400, "not one JSON object"),
        (masked(0x81, br#"{"type":"connection_init","payload":{"headers":[]}}"#), 4400, "payload"),
        (masked(0x82, &spoofed), 4400, "is not connection_init"),
        (masked(0x81, b"\xff"), 1007, "UTF-8"),
        (masked(0x81, &long), 1009, "too long"),
        (frame(0x81, &spoofed), 1002, "not masked"),
        (compressed, 1002, "reserved bit"),
        (masked(0x80, &spoofed), 1002, "continues nothing"),
        (masked(0x83, &spoofed), 1002, "opcode"),
        ([masked(0x01, &spoofed[..5]), masked(0x81, &spoofed)].concat(), 1002, "within another"),
    ] {
        let (upstream, got) = keeping(b"").await;
        let (gateway, _upstream) = in_front_of(upstream, REWRITING).await;
        let mut client = Wire::connect(gateway.address).await;
        client.open("/", &gateway.bearer("bob")).await;
        client.send(bytes).await;
        let (is_masked, said, why) = client.closing().await;
        assert!(!is_masked && said == code && why.contains(reason), "{code} {reason}: {said} {why}");
        client.send(masked(0x88, &code.to_be_bytes())).await;
        assert!(client.is_closed().await, "{reason}");
        eventually("the upstream is told", || !got.lock().unwrap().is_empty()).await;
        let got = got.lock().unwrap();
        assert!(
            matches!(&got[..], [only] if only.first == 0x88 && only.masked && only.payload[..2] == [3, 0xe9]),
            "{got:?}"
        );
    }
}

/// Who says nothing is as idle as on every other route; a farewell passes, and nothing after it.
#[tokio::test]
async fn a_caller_that_closes_before_its_first_message_is_heard() {
    let (upstream, got) = keeping(b"").await;
    let (gateway, _upstream) = in_front_of(upstream, REWRITING).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", &gateway.bearer("bob")).await;
    let text = init(&json!({}));
    client.send([masked(0x01, &text[..9]), masked(0x88, b"\x03\xe8"), masked(0x80, &text[9..])].concat()).await;
    assert_eq!(client.closing().await, (false, 1000, String::new()));
    assert!(client.is_closed().await);
    assert!(matches!(&got.lock().unwrap()[..], [only] if only.first == 0x88));
}

/// Fails when the value of the upgrade's header is put into the message, whatever has become of it.
#[tokio::test]
async fn a_token_that_has_died_before_the_first_message_is_minted_anew() {
    let (upstream, got) = keeping(b"").await;
    let (gateway, upstream) = in_front_of(upstream, REWRITING).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", &gateway.bearer("bob")).await;
    let first = upstream.only().one("authorization").unwrap().to_owned();
    assert_eq!(gateway.mints(), 1);
    gateway.clock.step(3_600_000);
    client.send(masked(0x81, &init(&json!({})))).await;
    assert_eq!(client.frame().await.unwrap().payload, b"ack");
    let second = said(&got)["payload"]["headers"]["Authorization"].as_str().unwrap().to_owned();
    assert_eq!(gateway.mints(), 2);
    assert!(second.starts_with("Bearer ") && second != first);
}

#[tokio::test]
async fn where_there_is_no_session_the_message_goes_without_a_token_and_without_a_spoofed_one() {
    let (upstream, got) = keeping(b"").await;
    let (gateway, upstream) = in_front_of(upstream, &format!("{REWRITING}on_no_session = \"pass\"\n")).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    assert_eq!(upstream.only().one("authorization"), None);
    client.send(masked(0x81, &init(&json!({ "authorization": "Bearer spoofed" })))).await;
    assert_eq!(client.frame().await.unwrap().payload, b"ack");
    assert_eq!(said(&got), json!({ "type": "connection_init", "payload": { "headers": {}, "n": 1 } }));
}

/// Fails when the offer stays in the upgrade, or the upstream's agreement to what nobody offered is believed.
#[tokio::test]
async fn no_extension_is_agreed_to_where_the_first_message_is_read() {
    let (upstream, _) = keeping(b"").await;
    let (gateway, upstream) = in_front_of(upstream, REWRITING).await;
    let mut client = Wire::connect(gateway.address).await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let answer = client.open("/", &format!("{offer}{}", gateway.bearer("bob"))).await;
    assert_eq!(answer.one("sec-websocket-extensions"), None);
    assert_eq!(upstream.only().one("sec-websocket-extensions"), None);
    let extension = "sec-websocket-extensions: permessage-deflate\r\n\r\n";
    let unasked = agreement(crate::support::websocket::ACCEPT).replace("\r\n\r\n", &format!("\r\n{extension}"));
    let (gateway, _upstream) = in_front_of(Upstream::answering(unasked).await, REWRITING).await;
    let answer = Wire::connect(gateway.address).await.ask(open("/", &gateway.bearer("bob"))).await;
    assert_eq!(answer.outcome(), (502, "upstream-broken"));
}

#[tokio::test]
async fn the_first_message_of_a_stream_gets_the_token_too() {
    let (upstream, got) = keeping(b"").await;
    let (gateway, upstream) = in_front_of(upstream, REWRITING).await;
    let mut client = Client::connect(gateway.address).await;
    let nowhere = http::Request::get("http://gateway.test/nowhere/../x").body(http2::empty()).unwrap();
    assert_eq!(client.ask(nowhere).await.status, 400);
    let bearer = format!("Bearer {}", gateway.session_token("bob"));
    let offered = [("authorization", bearer.as_str()), ("sec-websocket-extensions", "permessage-deflate")];
    let (answer, mut socket) = client.open("/", &offered).await;
    assert!(!answer.contains_key("sec-websocket-extensions"));
    let text = init(&json!({ "authorization": "spoofed" }));
    for byte in masked(0x81, &text) {
        socket.send([byte]).await;
    }
    assert_eq!(socket.frame().await.unwrap().payload, b"ack");
    let token = upstream.only().one("authorization").unwrap().to_owned();
    assert_eq!(said(&got)["payload"]["headers"], json!({ "Authorization": token }));
    let (_, mut second) = client.open("/", &[("authorization", &bearer)]).await;
    second.send(masked(0x81, b"{}")).await;
    assert_eq!(second.closing().await.1, 4400);
}

/// What ends an upgrade with an error ends the message with that error's code.
#[tokio::test]
async fn a_first_message_without_its_token_closes_as_the_error_says() {
    let (upstream, got) = keeping(b"").await;
    let (gateway, _upstream) = in_front_of(upstream, REWRITING).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", &gateway.bearer("bob")).await;
    let revoke = format!(
        "POST /v1/sessions/sess_emulator_bob/revoke HTTP/1.1\r\nHost: issuer.test\r\nAuthorization: Bearer {}\r\ncontent-length: 0\r\n\r\n",
        gateway.emulator.secret_key().expose()
    );
    assert_eq!(Wire::connect(gateway.issuer).await.ask(revoke).await.status(), 200);
    gateway.clock.step(3_600_000);
    client.send(masked(0x81, &init(&json!({ "Authorization": "Bearer spoofed" })))).await;
    assert_eq!(client.closing().await, (false, 4401, "session-ended".to_owned()));
    assert!(got.lock().unwrap().iter().all(|frame| frame.first == 0x88));
    let plain = Wire::connect(gateway.address).await.ask(get("/", "")).await;
    assert_eq!(plain.outcome(), (401, "session-missing"));
}
