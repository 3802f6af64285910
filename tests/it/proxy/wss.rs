//! WebSockets through a listener that speaks TLS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::PUBLIC;
use super::tls::Secure;
use crate::support::eventually;
use crate::support::upstream::Upstream;
use crate::support::websocket::{HANDSHAKE, agreeing, echo, frame, masked};
use crate::support::wire::Wire;

async fn before(upstream: Upstream, server: &str, tables: &str) -> Secure {
    Secure::before(upstream, "", server, tables).await
}

async fn open(secure: &Secure, headers: &str) -> Wire {
    let mut client = secure.wire("a.test").await;
    let answer = client.ask(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}{headers}\r\n")).await;
    assert_eq!(answer.status(), 101, "{answer:?}");
    client
}

#[tokio::test]
async fn frames_of_every_size_pass_both_ways_and_the_close_is_clean() {
    let secure = before(echo().await, "", PUBLIC).await;
    let mut client = open(&secure, "").await;
    assert_eq!(secure.upstream.only().one("x-forwarded-proto"), Some("https"));
    for length in [0, 1, 125, 126, 16_384, 16_385, 65_536, 1_000_000] {
        let payload = vec![9; length];
        // What is sent is echoed only when it has come whole: neither side waits for the other here.
        client.send(masked(0x82, &payload)).await;
        assert!(client.frame().await.unwrap().payload == payload, "{length}");
    }
    client.send(masked(0x88, b"\x03\xe8bye")).await;
    assert_eq!(client.closing().await, (false, 1000, "bye".to_owned()));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_page_of_the_connections_own_origin_may_open_one_with_a_cookie() {
    let tables = "[[routes]]\nname = \"all\"\nupstream = \"{up}\"\nsession = [\"cookie\"]\n";
    let secure = before(echo().await, "", tables).await;
    let cookie = format!("Cookie: __client_uat=1; __session={}\r\n", secure.gateway.session_token("bob"));
    open(&secure, &format!("{cookie}Origin: https://a.test\r\n")).await;
    for origin in ["", "Origin: http://a.test\r\n"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}{cookie}{origin}\r\n");
        assert_eq!(secure.wire("a.test").await.ask(request).await.outcome(), (403, "origin-forbidden"), "{origin}");
    }
}

#[tokio::test]
async fn a_drain_says_goodbye_inside_tls() {
    let mut secure = before(echo().await, "", PUBLIC).await;
    let (mut polite, mut deaf) = (open(&secure, "").await, open(&secure, "").await);
    secure.gateway.tell();
    assert_eq!(polite.closing().await.1, 1001);
    polite.send(masked(0x88, b"\x03\xe9")).await;
    assert!(polite.is_closed().await);
    tokio::time::pause();
    secure.gateway.ended().await;
    assert_eq!(deaf.closing().await.1, 1001);
    assert!(deaf.is_closed().await);
}

#[tokio::test]
async fn a_caller_that_has_said_its_last_still_hears_the_upstream() {
    let heard = Arc::<Mutex<Option<Vec<u8>>>>::default();
    let there = Arc::clone(&heard);
    let upstream = agreeing(move |mut visit| {
        let there = Arc::clone(&there);
        async move {
            let all = visit.wire.until_closed().await;
            *there.lock().unwrap() = Some(all);
            visit.wire.send(frame(0x82, &vec![7; 500_000])).await;
        }
    })
    .await;
    let secure = before(upstream, "", PUBLIC).await;
    let (mut client, sent) = (open(&secure, "").await, masked(0x82, &vec![5; 500_000]));
    client.send(&sent).await;
    // Half of the connection: TLS's close_notify, and TCP's end.
    client.finish().await;
    eventually("the upstream hears the end", || heard.lock().unwrap().is_some()).await;
    assert!(heard.lock().unwrap().take().unwrap() == sent);
    assert!(client.frame().await.unwrap().payload == vec![7; 500_000]);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn the_limits_of_connections_do_not_end_one() {
    let limits = "max_connection_age = \"10s\"\nidle_timeout = \"9s\"\nfirst_byte_timeout = \"5s\"";
    let secure = before(echo().await, limits, PUBLIC).await;
    let mut client = open(&secure, "").await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_hours(2)).await;
    client.send(masked(0x81, b"still")).await;
    assert_eq!(client.frame().await.unwrap().payload, b"still");
}
