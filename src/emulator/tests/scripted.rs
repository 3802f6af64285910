//! Scripted faults over a real socket: what the caller of a broken issuer sees.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::lifecycle::{Shutdown, Spawner};
use crate::surface::Surface;

/// An emulator on a socket.
struct Served {
    at: SocketAddr,
    shutdown: Shutdown,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn served() -> Served {
    let shutdown = Shutdown::new();
    let surface = Surface::bind("127.0.0.1:0".parse().unwrap(), emulator().router()).unwrap();
    let (at, tasks, until) = (surface.address(), Spawner::current(), shutdown.stopped());
    drop(Spawner::current().spawn(surface.run(tasks, shutdown.clone(), until)));
    Served { at, shutdown }
}

fn head(method: &str, target: &str, length: usize) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {DEFAULT_SECRET_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Everything that comes back for one request, to the end of the connection.
async fn raw(at: SocketAddr, method: &str, target: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = head(method, target, body.len()) + body;
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut out, mut buffer) = (Vec::new(), [0; 8192]);
    // An endless answer is read in part.
    while out.len() < 256 * 1024 {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => out.extend_from_slice(&buffer[..read]),
        }
    }
    String::from_utf8(out).unwrap()
}

async fn mint_with(fault: &str) -> String {
    let served = served();
    let given = raw(served.at, "POST", "/_emulator/faults", fault).await;
    assert!(given.starts_with("HTTP/1.1 200 "), "{given}");
    let broken = raw(served.at, "POST", &format!("/v1/sessions/{ALICE}/tokens/plain"), "").await;
    let other = raw(served.at, "POST", &format!("/v1/sessions/{BOB}/tokens/plain"), "").await;
    assert!(other.starts_with("HTTP/1.1 200 "), "the fault is over: {other}");
    broken
}

/// Fails where the connection ends at once: that is a reset, for which one of the SDKs tries again, and for this it does not.
#[tokio::test]
async fn a_reset_waits_for_a_body_that_is_written_after_its_head() {
    let served = served();
    raw(served.at, "POST", "/_emulator/faults", r#"{"endpoint":"mint","reset":true}"#).await;
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    let head = head("POST", &format!("/v1/sessions/{ALICE}/tokens/plain"), 2);
    stream.write_all(head.as_bytes()).await.unwrap();
    // A slower machine may see nothing in this time; then it shows less, and fails nothing.
    let early = tokio::time::timeout(Duration::from_millis(200), stream.readable()).await;
    assert!(early.is_err(), "it ends before its request does");
    stream.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "", "an orderly end");
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn a_status_is_an_error_in_clerks_shape() {
    let answer = mint_with(r#"{"endpoint":"mint","status":503,"retry_after":7,"times":1}"#).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 7\r\n"), "{answer}");
    let error: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(error["errors"][0]["code"], "service_unavailable");
    assert!(error["errors"][0]["long_message"].is_string() && error["clerk_trace_id"].is_string());
    let answer = mint_with(r#"{"template":"plain","status":418,"code":"teapot","times":1}"#).await;
    assert!(answer.starts_with("HTTP/1.1 418 ") && answer.contains(r#""code":"teapot""#), "{answer}");
}

#[tokio::test]
async fn a_reset_is_no_answer_at_all() {
    assert_eq!(mint_with(r#"{"endpoint":"template_token","reset":true,"times":1}"#).await, "");
}

#[tokio::test]
async fn malformed_answers_are_malformed() {
    let with = async |how: &str| mint_with(&format!(r#"{{"malformed":"{how}","times":1}}"#)).await;
    let json = |answer: &str| serde_json::from_str::<Value>(body(answer));
    let answer = with("truncated").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && json(&answer).is_err(), "{answer}");
    let length = |answer: &str| -> usize {
        let (_, rest) = answer.split_once("content-length: ").unwrap();
        rest.split_once("\r\n").unwrap().0.parse().unwrap()
    };
    assert_eq!(length(&answer), body(&answer).len(), "the framing is good");
    let answer = with("cut").await;
    assert_eq!(body(&answer).len(), length(&answer) / 2, "the framing is not: {answer}");
    assert!(with("not_json").await.contains("<!doctype html>"));
    let answer = with("content_type").await;
    assert!(answer.contains("content-type: text/plain\r\n") && json(&answer).unwrap()["jwt"].is_string());
    assert_eq!(json(&with("no_jwt").await).unwrap(), json!({"object": "token"}));
    let answer = with("empty").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && body(&answer).is_empty());
    assert!(with("endless").await.len() >= 256 * 1024);
}

#[tokio::test(start_paused = true)]
async fn a_delay_delays_and_a_hang_never_ends() {
    let emulator = emulator();
    let give = async |fault: &str| {
        let request = builder(Method::POST, "/_emulator/faults").header("content-type", "application/json");
        send(&emulator, request.body(Body::from(fault.to_owned())).unwrap()).await
    };
    give(r#"{"endpoint":"session_token","delay_ms":1500,"times":1}"#).await;
    let began = tokio::time::Instant::now();
    assert_eq!(mint(&emulator, ALICE, "", "").await.status, 200);
    assert_eq!(began.elapsed(), Duration::from_millis(1500));
    give(r#"{"endpoint":"jwks","hang":true}"#).await;
    let keys = call(&emulator, Method::GET, "/v1/jwks", "");
    assert!(tokio::time::timeout(Duration::from_hours(1), keys).await.is_err());
    let list = send(&emulator, builder(Method::GET, "/_emulator/faults").body(Body::empty()).unwrap()).await.body;
    assert_eq!((&list["faults"][0]["left"], &list["faults"][1]["hits"]), (&json!(0), &json!(1)));
    let clear = send(&emulator, builder(Method::DELETE, "/_emulator/faults").body(Body::empty()).unwrap()).await;
    assert_eq!(clear.body, json!({"faults": []}));
    assert_eq!(call(&emulator, Method::GET, "/v1/jwks", "").await.status, 200);
    let (status, code, long) = error(&give(r#"{"endpoint":"mints","hang":true}"#).await);
    assert_eq!((status, &*code), (422, "form_param_value_invalid"));
    assert!(long.contains("template_token"), "{long}");
}
