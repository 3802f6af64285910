//! Limits and deadlines, and the end of the process.
//!
//! Where a deadline is tried, time is paused after the start: it moves on only while nobody has anything to do.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{MINTING, PUBLIC, get, in_front_of};
use crate::support::eventually;
use crate::support::gateway::{Boot, Gateway};
use crate::support::http2;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// A gateway with keys of `[server]` in front of that upstream, time paused.
async fn paused(upstream: Upstream, server: &str, tables: &str) -> (Gateway, Upstream) {
    let gateway = Boot::new(tables.replace("{up}", &upstream.url())).server(server).start().await;
    tokio::time::pause();
    (gateway, upstream)
}

async fn silent() -> Upstream {
    Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.until_closed().await;
    })
    .await
}

const LIMITS: &str = "first_byte_timeout = \"5s\"\nheader_read_timeout = \"7s\"\nidle_timeout = \"9s\"\n\
                      body_progress_timeout = \"11s\"\nwrite_stall_timeout = \"13s\"";

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let (gateway, _upstream) = paused(Upstream::answering(OK).await, LIMITS, PUBLIC).await;
    let began = Instant::now();
    assert!(Wire::connect(gateway.address).await.is_closed().await);
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn a_head_that_drips_is_cut_from_its_first_byte_on() {
    for start in ["G", "GET / HTTP/1.1\r\nx: ", "PRI * HTTP/2.0\r\n"] {
        let (gateway, upstream) = paused(Upstream::answering(OK).await, LIMITS, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        let began = Instant::now();
        client.send(start).await;
        let mut closed = false;
        for _ in 0..20 {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                rest = client.until_closed() => {
                    closed = rest.is_empty() || rest.starts_with(b"HTTP/1.1 4");
                    break;
                }
            }
            if start != "PRI * HTTP/2.0\r\n" {
                client.send("a").await;
            }
        }
        assert!(closed && began.elapsed().as_secs() <= 8, "{start:?} {:?}", began.elapsed());
        assert_eq!(upstream.count(), 0);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let slow = Upstream::scripted(|mut visit| async move {
        while visit.request().await.is_some() {
            tokio::time::sleep(Duration::from_secs(20)).await;
            visit.wire.send(OK).await;
        }
    })
    .await;
    let (gateway, _upstream) = paused(slow, LIMITS, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/", "")).await.status(), 200);
    let idle = Instant::now();
    assert!(client.is_closed().await);
    assert_eq!(idle.elapsed().as_secs(), 9);
    let mut client = http2::Client::connect(gateway.address).await;
    let request = || http::Request::get("http://a/").body(http2::empty()).unwrap();
    assert_eq!(client.ask(request()).await.status, 200);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(client.send(request()).await.is_err());
}

/// Begins HTTP/2, and never says that it has heard of the end.
const DEAF: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn an_http2_peer_that_was_told_to_go_and_stays_is_cut_off() {
    for drains in [false, true] {
        let age = if drains { "\ndrain_timeout = \"60s\"" } else { "\nmax_connection_age = \"2s\"" };
        let (mut gateway, _upstream) = paused(Upstream::answering(OK).await, &format!("{LIMITS}{age}"), PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        client.send(DEAF).await;
        client.wait().await;
        if drains {
            gateway.tell();
        }
        let mut closed = false;
        // 5 s without a request, 5 s of grace; the pings would find nothing before 23 s. Time is pushed, since a
        // connection that spins leaves it no moment to pass in.
        for _ in 0..15 {
            tokio::time::advance(Duration::from_secs(1)).await;
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            closed |= client.until_closed().now_or_never().is_some();
        }
        assert!(closed, "drains: {drains}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_request_body_that_stands_still_is_408() {
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let (gateway, _upstream) = paused(silent().await, LIMITS, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        let began = Instant::now();
        let answer = client.ask(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        assert_eq!((answer.outcome(), began.elapsed().as_secs()), ((408, "request-timeout"), 11));
        assert!(client.is_closed().await);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_request_body_that_breaks_off_reaches_no_one_as_whole() {
    let (gateway, upstream) = in_front_of(silent().await, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    eventually("the upstream is called", || upstream.connections() == 1).await;
    drop(client);
    eventually("the upstream sees the end", || upstream.count() == 1).await;
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| upstream.requests()));
    assert!(read.is_err(), "cut, and not a whole request");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_504() {
    let tables = "[upstreams.up]\nurl = \"{up}\"\nresponse_timeout = \"3s\"\n[[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n";
    let (gateway, _upstream) = paused(silent().await, LIMITS, tables).await;
    let began = Instant::now();
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/", "")).await.outcome(), (504, "upstream-timeout"));
    assert_eq!(began.elapsed().as_secs(), 3);
    let mut client = http2::Client::connect(gateway.address).await;
    let answer = client.ask(http::Request::get("http://a/").body(http2::empty()).unwrap()).await;
    assert_eq!(answer.outcome(), (504, "upstream-timeout"));
}

#[tokio::test]
async fn a_routes_time_covers_the_whole_request() {
    let tables = format!("{PUBLIC}timeout = \"4s\"\n");
    let (gateway, _upstream) = paused(silent().await, LIMITS, &tables).await;
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/", "")).await.outcome(), (504, "upstream-timeout"));
    tokio::time::resume();
    let stuck = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
        visit.wire.until_closed().await;
    })
    .await;
    let (gateway, _upstream) = paused(stuck, LIMITS, &tables).await;
    let mut client = Wire::connect(gateway.address).await;
    let began = Instant::now();
    client.send(get("/", "")).await;
    assert!(client.response_to("GET").await.is_err());
    assert_eq!(began.elapsed().as_secs(), 4);
}

#[tokio::test]
async fn a_caller_that_takes_no_bytes_is_given_up() {
    const LENGTH: usize = 256 << 20;
    let endless = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
        let block = vec![0; 1 << 20];
        for _ in 0..LENGTH >> 20 {
            visit.wire.send(&block).await;
        }
    })
    .await;
    let (gateway, _upstream) = paused(endless, LIMITS, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send(get("/", "")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(client.until_closed().await.len() < LENGTH);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let upstream = Upstream::answering(OK).await;
    let boot = Boot::new(PUBLIC.replace("{up}", &upstream.url())).server("max_connections = 1");
    let gateway = boot.start().await;
    let mut first = Wire::connect(gateway.address).await;
    assert_eq!(first.ask(get("/", "")).await.status(), 200);
    let mut second = Wire::connect(gateway.address).await;
    let answer = second.ask(get("/", "")).await;
    assert_eq!(answer.outcome(), (503, "overloaded"));
    assert_eq!((answer.one("retry-after"), answer.one("connection")), (Some("1"), Some("close")));
    assert_eq!(answer.one("content-type"), Some("application/problem+json"));
    assert!(second.is_closed().await);
    assert_eq!(first.ask(get("/", "")).await.status(), 200);
    drop(first);
    for _ in 0..500 {
        if Wire::connect(gateway.address).await.ask(get("/", "")).await.status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place of a connection that has ended is never free again");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let upstream = Upstream::answering(OK).await;
    let boot = Boot::new(PUBLIC.replace("{up}", &upstream.url()))
        .server("request_body_limit = \"10\"\nmax_uri_bytes = \"1KiB\"\nmax_header_bytes = \"8KiB\"");
    let gateway = boot.start().await;
    let ask = async |request: String| {
        let answer = Wire::connect(gateway.address).await.ask(request).await;
        (answer.status(), answer.one("x-mintgate-error").unwrap_or_default().to_owned())
    };
    let large = (413, "body-too-large".to_owned());
    assert_eq!(ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n".to_owned()).await, large);
    assert_eq!(upstream.count(), 0);
    let chunked =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\naaaaaa\r\n6\r\naaaaaa\r\n0\r\n\r\n";
    assert_eq!(ask(chunked.to_owned()).await, large);
    assert_eq!(ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\naaaaaaaaaa".to_owned()).await.0, 200);
    assert_eq!(ask(get(&format!("/{}", "a".repeat(1024)), "")).await, (414, "uri-too-long".to_owned()));
    assert_eq!(ask(get(&format!("/{}", "a".repeat(1023)), "")).await.0, 200);
    assert_eq!(ask(get("/", &format!("x: {}\r\n", "a".repeat(20_000)))).await.0, 431);
    assert_eq!(ask(get("/", &"x: a\r\n".repeat(101))).await.0, 431);
}

/// A caller that sends all of its body before it looks for the answer must find it, and not a reset.
#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let upstream = Upstream::scripted(|mut visit| async move {
        // It answers at the head, and the body is on its way.
        let _ = visit.wire.response_head().await;
        visit.wire.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
        visit.wire.until_closed().await;
    })
    .await;
    let tables = format!("{PUBLIC}match = {{ path = \"/public\" }}\n[[routes]]\nname = \"b\"\nupstream = \"{{up}}\"\n");
    let (gateway, _upstream) = in_front_of(upstream, &tables).await;
    let body = vec![b'a'; 12 << 20];
    for (path, outcome) in [("/", (401, "session-missing")), ("/nowhere/../x", (400, "request-malformed"))] {
        for framing in [
            format!("Content-Length: {}\r\n\r\n", body.len()),
            "Transfer-Encoding: chunked\r\n\r\nc00000\r\n".to_owned(),
        ] {
            let mut client = Wire::connect(gateway.address).await;
            client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}")).await;
            // A caller that meets a reset here does not look for an answer.
            assert!(client.try_send(&body).await.is_ok(), "{path} {framing}");
            assert_eq!(client.response().await.outcome(), outcome, "{path}");
            client.until_closed().await;
        }
    }
    let mut client = Wire::connect(gateway.address).await;
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "a".repeat(4 << 20));
    assert!(client.try_send(endless).await.is_ok());
    assert_eq!(client.response_to("GET").await.unwrap().status(), 431);
}

#[tokio::test]
async fn nobody_lingers_for_ever_after_a_refusal() {
    let (gateway, _upstream) = paused(Upstream::answering(OK).await, LIMITS, MINTING).await;
    let mut client = Wire::connect(gateway.address).await;
    let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
    assert_eq!(answer.outcome(), (401, "session-missing"));
    let began = Instant::now();
    assert!(client.is_closed().await);
    assert_eq!(began.elapsed().as_secs(), 0, "our side is closed at once");
    // What the caller sends on is taken for a while; after that nobody is there.
    let mut refused = None;
    for second in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if client.try_send("a").await.is_err() {
            refused = Some(second);
            break;
        }
    }
    assert!(refused.is_some_and(|second| (4..8).contains(&second)), "{refused:?}");
}

#[tokio::test]
async fn http2_that_asks_for_nothing_is_closed_like_any_silent_connection() {
    let (gateway, _upstream) = paused(Upstream::answering(OK).await, LIMITS, PUBLIC).await;
    let mut client = http2::Client::connect(gateway.address).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(client.send(http::Request::get("http://a/").body(http2::empty()).unwrap()).await.is_err());
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_begins_nothing() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            while let Some(request) = visit.request().await {
                if request.start.contains("/slow") {
                    let _ = gone.wait_for(|gone| *gone).await;
                }
                visit.wire.send(OK).await;
            }
        }
    })
    .await;
    let (mut gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut idle = Wire::connect(gateway.address).await;
    idle.ask(get("/", "")).await;
    let (mut fresh, mut busy) = (Wire::connect(gateway.address).await, Wire::connect(gateway.address).await);
    busy.send(get("/slow", "")).await;
    upstream.received(2).await;
    gateway.tell();
    assert!(idle.is_closed().await && fresh.is_closed().await);
    assert!(gateway.readiness.ready().is_err());
    eventually("nothing listens", || std::net::TcpStream::connect(gateway.address).is_err()).await;
    go.send(true).unwrap();
    let answer = busy.response().await;
    assert_eq!((answer.text(), answer.one("connection")), ("ok", Some("close")));
    assert!(busy.is_closed().await);
    gateway.ended().await;
}

/// To close a connection at once because nothing is under way on it would lose what its caller is just sending. Fails without
/// the wait of `LEAVE` in `drive`, and without the one in `serve`.
#[tokio::test]
async fn a_request_that_is_on_its_way_when_a_drain_begins_is_served() {
    let (mut gateway, _upstream) = paused(Upstream::answering(OK).await, "", PUBLIC).await;
    let (mut used, mut idle) = (Wire::connect(gateway.address).await, Wire::connect(gateway.address).await);
    used.ask(get("/", "")).await;
    idle.ask(get("/", "")).await;
    let mut fresh = Wire::connect(gateway.address).await;
    let mut modern = http2::Client::connect(gateway.address).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    gateway.tell();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(gateway.readiness.ready().is_err());
    for wire in [&mut used, &mut fresh] {
        let answer = wire.ask(get("/", "")).await;
        assert_eq!((answer.text(), answer.one("connection")), ("ok", Some("close")));
        assert!(wire.is_closed().await);
    }
    assert_eq!(modern.ask(http::Request::get("http://a/").body(http2::empty()).unwrap()).await.status, 200);
    assert!(idle.is_closed().await);
    gateway.ended().await;
}

#[tokio::test]
async fn a_drain_ends_when_its_time_is_over() {
    let (mut gateway, _upstream) = paused(silent().await, "drain_timeout = \"5s\"\ndrain_delay = \"2s\"", PUBLIC).await;
    let mut busy = Wire::connect(gateway.address).await;
    busy.send(get("/", "")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    gateway.tell();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut late = Wire::connect(gateway.address).await;
    late.send(get("/", "")).await;
    gateway.ended().await;
    assert_eq!(began.elapsed().as_secs(), 7, "served on for the delay, then drained");
}
