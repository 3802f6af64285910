//! A JWKS that does not come, through the real gateway: at start it is asked for again, later the known keys serve on.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpListener;

use super::{MINTING, get};
use crate::support::eventually_async;
use crate::support::faults::End::{Closes, Hangs, Resets, Stays};
use crate::support::faults::Fault::{self, Accepted, Asked, Cut, CutBody, Drips, Endless, Refused, Says};
use crate::support::faults::Proxy;
use crate::support::gateway::{Boot, Gateway};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// Keys that verify nobody of the emulator's, and other bodies that are no JWKS.
fn bodies() -> Vec<(&'static str, String)> {
    vec![
        ("nothing", String::new()),
        ("an error", json!({ "errors": [{ "message": "no", "code": "c" }] }).to_string()),
        ("no keys", json!({ "keys": [] }).to_string()),
        ("no usable key", json!({ "keys": [{ "kty": "oct", "kid": "a", "k": "c2VjcmV0" }] }).to_string()),
        ("half", r#"{"keys":[{"kty":"RSA","use":"si"#.to_owned()),
        ("HTML", "<html>".to_owned()),
    ]
}

fn faults() -> Vec<(String, Fault)> {
    let head = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n").into_bytes()
    };
    let mut faults: Vec<(String, Fault)> = [
        Accepted(Resets),
        Accepted(Closes),
        Accepted(Hangs),
        Asked(Resets),
        Asked(Closes),
        Asked(Hangs),
        Cut(5, Resets),
        Cut(40, Closes),
        CutBody(0, Resets),
        CutBody(100, Closes),
        CutBody(100, Hangs),
        Drips(head("200 OK", 1000), Duration::from_millis(100)),
        Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        Says(head("200 OK", 1024 * 1024 + 1), Hangs),
        Says(head("500 Internal Server Error", 0), Stays),
        Says(head("404 Not Found", 0), Stays),
    ]
    .into_iter()
    .map(|fault| (format!("{fault:?}"), fault))
    .collect();
    for (name, body) in bodies() {
        faults.push((name.to_owned(), Says([head("200 OK", body.len()), body.into_bytes()].concat(), Stays)));
    }
    faults
}

async fn fetches(gateway: &Gateway, result: &str) -> u64 {
    let name = format!("mintgate_jwks_fetches_total{{result=\"{result}\"}}");
    gateway.metric(&name).await.parse().unwrap()
}

async fn serves(gateway: &Gateway, name: &str) {
    let answer = Wire::connect(gateway.address).await.ask(get("/", &gateway.bearer("alice"))).await;
    assert_eq!(answer.outcome(), (200, ""), "{name}");
}

/// The fault is met by the first download, and again by those that come while the gateway serves.
async fn trial(name: &str, fault: Fault) {
    let upstream = Upstream::answering(OK).await;
    let proxy = Arc::<OnceLock<Proxy>>::default();
    let there = Arc::clone(&proxy);
    let first = fault.clone();
    let boot = Boot::new(MINTING.replace("{up}", &upstream.url())).beside(move |emulator| {
        let proxy = Proxy::before(emulator);
        if !matches!(first, Refused) {
            proxy.once(first);
        }
        let url = proxy.url();
        assert!(there.set(proxy).is_ok());
        format!("timeout = \"2s\"\njwks_refresh = \"1s\"\njwks_url = \"{url}/.well-known/jwks.json\"")
    });
    let gateway = boot.start().await;
    let proxy = proxy.get().unwrap();
    let failed = fetches(&gateway, "failed").await;
    assert!(failed >= 1 || matches!(fault, Refused), "{name}: it was met");
    serves(&gateway, name).await;

    proxy.set(fault).await;
    eventually_async("a download fails", async || fetches(&gateway, "failed").await > failed).await;
    serves(&gateway, name).await;
    assert!(gateway.readiness.ready().is_ok(), "{name}");

    proxy.set(Fault::None).await;
    let good = fetches(&gateway, "ok").await;
    eventually_async("a download succeeds", async || fetches(&gateway, "ok").await > good).await;
    serves(&gateway, name).await;
}

#[tokio::test]
async fn a_jwks_that_does_not_come_is_asked_for_again_and_the_known_keys_serve_on() {
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = canary.local_addr().unwrap();
    let mut faults = faults();
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: http://{there}/\r\ncontent-length: 0\r\n\r\n");
    faults.push(("a redirect".to_owned(), Says(redirect.into_bytes(), Stays)));
    faults.push(("nobody listens".to_owned(), Refused));
    for some in faults.chunks(8) {
        join_all(some.iter().map(|(name, fault)| trial(name, fault.clone()))).await;
    }
    let followed = tokio::time::timeout(Duration::from_millis(10), canary.accept()).await;
    assert!(followed.is_err(), "a redirect was followed: {followed:?}");
}
