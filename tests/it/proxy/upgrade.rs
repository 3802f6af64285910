//! Which requests become WebSockets, and what is left of those that do not.

use std::time::Duration;

use super::{MINTING, PUBLIC, get, in_front_of};
use crate::support::eventually;
use crate::support::gateway::PARTY;
use crate::support::upstream::{OK, Upstream};
use crate::support::websocket::{ACCEPT, HANDSHAKE, agreeing, agreement, echo, frame, masked, open};
use crate::support::wire::Wire;

#[tokio::test]
async fn a_websocket_gets_its_token_and_passes_both_ways() {
    let (gateway, upstream) = in_front_of(echo().await, MINTING).await;
    let mut client = Wire::connect(gateway.address).await;
    let offers = "Sec-WebSocket-Protocol: graphql-transport-ws\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                  Origin: https://elsewhere.example\r\n";
    let answer = client.open("/v1/graphql?a=b", &format!("{offers}{}", gateway.bearer("bob"))).await;
    assert_eq!(answer.one("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!((answer.one("connection"), answer.one("upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!((answer.one("content-length"), answer.one("transfer-encoding")), (None, None));
    let seen = upstream.only();
    assert_eq!(seen.start, "GET /v1/graphql?a=b HTTP/1.1");
    assert_eq!((seen.one("connection"), seen.one("upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!(seen.one("sec-websocket-protocol"), Some("graphql-transport-ws"));
    assert_eq!(seen.one("sec-websocket-extensions"), Some("permessage-deflate"));
    let token = seen.one("authorization").unwrap();
    assert!(token.starts_with("Bearer ") && !gateway.bearer("bob").contains(token));
    for length in [0, 5, 125, 126, 65_535, 65_536, 300_000] {
        let payload = vec![9; length];
        client.send(masked(0x82, &payload)).await;
        assert!(client.frame().await.unwrap().payload == payload, "{length}");
    }
    client.send(masked(0x88, b"\x03\xe8bye")).await;
    assert_eq!(client.closing().await, (false, 1000, "bye".to_owned()));
    assert!(client.is_closed().await);
}

/// Fails when `Protocol::of` looks neither at the method nor for a body, and when a refused handshake leaves the
/// connection open.
#[tokio::test]
async fn only_a_valid_handshake_is_an_upgrade() {
    let tables = format!(
        "{PUBLIC}[[routes]]\nname = \"off\"\nmatch = {{ path = \"/off\" }}\nupstream = \"{{up}}\"\nsession = []\nwebsocket = false\n"
    );
    let good = open("/", "");
    let cases = [
        good.replace("GET", "POST"),
        good.replace("HTTP/1.1\r\n", "HTTP/1.1\r\nContent-Length: 2\r\n") + "hi",
        good.replace("Version: 13", "Version: 8"),
        good.replace("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"),
        good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        good.replace(
            "dGhlIHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        good.replace("Connection: Upgrade", "Connection: keep-alive"),
        open("/off", ""),
    ];
    for case in cases {
        let (gateway, upstream) = in_front_of(Upstream::answering(OK).await, &tables).await;
        let mut client = Wire::connect(gateway.address).await;
        let answer = client.ask(case.clone() + &get("/smuggled", "")).await;
        assert_eq!((answer.status(), answer.one("connection")), (200, Some("close")), "{case}");
        assert!(client.is_closed().await, "{case}");
        let seen = upstream.only();
        assert_eq!((seen.one("upgrade"), seen.one("connection")), (None, None), "{case}");
    }
}

#[tokio::test]
async fn another_protocol_is_no_more_than_a_header_to_be_removed() {
    let (gateway, upstream) = in_front_of(Upstream::answering(OK).await, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    for protocol in ["h2c", "TLS/1.0", "websockets", ""] {
        let headers =
            format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n");
        let answer = client.ask(get("/", &headers)).await;
        assert_eq!((answer.status(), answer.one("connection")), (200, None), "{protocol}");
        let seen = upstream.last();
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(seen.one(name), None, "{protocol} {name}");
        }
    }
    assert_eq!(upstream.connections(), 1, "both connections stay");
}

/// Fails when an upgrade is asked for on a shared connection.
#[tokio::test]
async fn what_the_caller_sends_too_early_waits_for_the_101() {
    let upstream = agreeing(|mut visit| async move {
        assert_eq!(visit.wire.frame().await.unwrap().payload, b"early");
        visit.wire.send(frame(0x81, b"seen")).await;
        visit.wire.until_closed().await;
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send([open("/", "").as_bytes(), &masked(0x81, b"early")].concat()).await;
    assert_eq!(client.response().await.status(), 101);
    assert_eq!(client.frame().await.unwrap().payload, b"seen");
}

/// Case 19. Fails when a connection of an upgrade's own (`Want::Own`) goes back to the pool.
#[tokio::test]
async fn a_refused_upgrade_ends_with_its_answer_and_smuggles_nothing() {
    for status in ["200 OK", "401 Unauthorized", "426 Upgrade Required"] {
        let after = std::sync::Arc::new(std::sync::Mutex::new(None));
        let kept = std::sync::Arc::clone(&after);
        let upstream = Upstream::scripted(move |mut visit| {
            let kept = std::sync::Arc::clone(&kept);
            async move {
                visit.request().await;
                let answer = format!(
                    "HTTP/1.1 {status}\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nno"
                );
                visit.wire.send(answer).await;
                let rest = visit.wire.until_closed().await;
                *kept.lock().unwrap() = Some(rest);
            }
        })
        .await;
        let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        client.send(open("/", "") + &get("/smuggled", "")).await;
        let answer = client.response().await;
        assert_eq!((answer.status().to_string(), answer.text()), (status[..3].to_owned(), "no"));
        assert_eq!((answer.one("connection"), answer.one("upgrade")), (Some("close"), None));
        assert!(client.is_closed().await, "{status}");
        assert_eq!(upstream.count(), 1);
        let next = Wire::connect(gateway.address).await.ask(get("/next", "")).await;
        assert_eq!((next.text(), upstream.connections()), ("no", 2), "that connection serves nobody else");
        eventually("the upstream's connection goes", || after.lock().unwrap().is_some()).await;
        assert_eq!(after.lock().unwrap().as_deref(), Some(&b""[..]), "nothing after the head reached the upstream");
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_goes_on_sending() {
    let (gateway, _upstream) = in_front_of(Upstream::answering(OK).await, MINTING).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send(open("/", "")).await;
    client.send(masked(0x82, &vec![0; 100_000])).await;
    let answer = client.response().await;
    assert_eq!((answer.outcome(), answer.one("connection")), ((401, "session-missing"), Some("close")));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_101_that_does_not_agree_is_upstream_broken() {
    let good = agreement(ACCEPT);
    let cases = [
        agreement("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        good.replace("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", ""),
        good.replace("upgrade: WebSocket\r\n", ""),
        good.replace("upgrade: WebSocket\r\n", "upgrade: h2c\r\n"),
        good.replace("connection: upgrade\r\n", ""),
    ];
    for case in cases {
        let reply = case.clone();
        let upstream = Upstream::scripted(move |mut visit| {
            let reply = reply.clone();
            async move {
                visit.request().await;
                visit.wire.send(reply).await;
                assert!(visit.wire.is_closed().await, "nothing is tunnelled");
            }
        })
        .await;
        let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        client.send([open("/", "").as_bytes(), &masked(0x81, b"early")].concat()).await;
        let answer = client.response().await;
        assert_eq!((answer.outcome(), answer.one("connection")), ((502, "upstream-broken"), Some("close")), "{case}");
        assert!(client.is_closed().await);
        assert_eq!(upstream.connections(), 1, "never asked twice");
    }
}

/// Fails when `Exchange::accept` passes a 101 on.
#[tokio::test]
async fn a_101_that_nobody_asked_for_is_upstream_broken() {
    let (gateway, _upstream) = in_front_of(Upstream::answering(agreement(ACCEPT)).await, PUBLIC).await;
    for request in [get("/", ""), open("/", "").replace("GET", "POST")] {
        let answer = Wire::connect(gateway.address).await.ask(request).await;
        assert_eq!(answer.outcome(), (502, "upstream-broken"));
    }
}

#[tokio::test]
async fn what_connection_names_cannot_take_the_handshake_away() {
    let (gateway, upstream) = in_front_of(echo().await, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    let headers = "Connection: Sec-WebSocket-Key, Sec-WebSocket-Version, X-Mine\r\nX-Mine: 1\r\nX-User: kept\r\n";
    client.open("/", headers).await;
    let seen = upstream.only();
    assert_eq!((seen.one("x-mine"), seen.one("x-user")), (None, Some("kept")));
    assert_eq!(seen.one("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    let doomed = open("/", "").replace("Connection: Upgrade", "Connection: Upgrade, Authorization");
    assert_eq!(Wire::connect(gateway.address).await.ask(doomed).await.outcome(), (400, "request-malformed"));
}

#[tokio::test]
async fn a_cookie_opens_a_websocket_for_a_trusted_page_only() {
    let (gateway, upstream) = in_front_of(echo().await, MINTING).await;
    let cookie = format!("Cookie: __client_uat=1; __session={}\r\n", gateway.session_token("bob"));
    for origin in ["", "Origin: https://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        let mut client = Wire::connect(gateway.address).await;
        let answer = client.ask(open("/", &format!("{cookie}{origin}"))).await;
        assert_eq!(answer.outcome(), (403, "origin-forbidden"), "{origin}");
        assert!(client.is_closed().await);
    }
    assert_eq!(upstream.count(), 0);
    for origin in [format!("Origin: {PARTY}\r\n"), "Origin: http://gateway.test\r\n".to_owned()] {
        Wire::connect(gateway.address).await.open("/", &format!("{cookie}{origin}")).await;
    }
    assert_eq!(upstream.last().one("cookie"), None);
}

#[tokio::test]
async fn the_cookie_guard_asks_for_an_origin_where_a_websocket_is_wished_for() {
    let (gateway, upstream) = in_front_of(Upstream::answering(OK).await, MINTING).await;
    let cookie = format!("Cookie: __client_uat=1; __session={}\r\n", gateway.session_token("bob"));
    let wishes =
        |upgrade: &str| format!("Connection: Upgrade, HTTP2-Settings\r\n{upgrade}HTTP2-Settings: AAMAAABk\r\n");
    // What Java's client offers with each plain request; it is not granted.
    let offers = [
        "Upgrade: h2c\r\n",
        "Upgrade: h2c, TLS/1.0\r\n",
        "Upgrade: websockets\r\n",
        "Upgrade:\r\n",
        "Upgrade: h2c/websocket\r\n",
    ];
    let mut client = Wire::connect(gateway.address).await;
    for offer in offers {
        let headers = format!("{}{cookie}", wishes(offer));
        assert_eq!(client.ask(get("/", &headers)).await.outcome(), (200, ""), "{offer}");
        assert_eq!(upstream.last().one("upgrade"), None, "{offer}");
        let post = get("/", &headers).replacen("GET", "POST", 1);
        let answer = Wire::connect(gateway.address).await.ask(post).await;
        assert_eq!(answer.outcome(), (403, "origin-forbidden"), "a POST needs one all the same");
    }
    let forwarded = upstream.count();
    let sockets = [
        "Upgrade: websocket\r\n",
        "Upgrade: h2c, WebSocket\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket/13\r\n",
        "Upgrade: ,websocket,\r\n",
    ];
    for upgrade in sockets {
        for method in ["GET", "HEAD", "OPTIONS"] {
            // Not one of them is a valid handshake: there is no key.
            let request = get("/", &format!("{}{cookie}", wishes(upgrade))).replacen("GET", method, 1);
            let mut client = Wire::connect(gateway.address).await;
            client.send(request).await;
            let answer = client.response_to(method).await.unwrap();
            assert_eq!(answer.outcome(), (403, "origin-forbidden"), "{method} {upgrade}");
            assert_eq!(answer.one("connection"), Some("close"));
        }
    }
    assert_eq!(upstream.count(), forwarded);
    let trusted = format!("{}{cookie}Origin: {PARTY}\r\n", wishes("Upgrade: websocket\r\n"));
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/", &trusted)).await.outcome(), (200, ""));
}

#[tokio::test]
async fn a_websocket_has_a_connection_of_its_own() {
    let upstream = Upstream::scripted(|mut visit| async move {
        while let Some(request) = visit.request().await {
            if request.one("upgrade").is_some() {
                visit.wire.send(agreement(ACCEPT)).await;
                visit.wire.until_closed().await;
                return;
            }
            visit.wire.send(OK).await;
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut other = Wire::connect(gateway.address).await;
    other.ask(get("/", "")).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    other.ask(get("/", "")).await;
    assert_eq!(upstream.connections(), 2, "one for requests, one for the tunnel");
    client.finish().await;
    assert!(client.is_closed().await);
    other.ask(get("/", "")).await;
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_http2_upstream_is_asked_in_http1() {
    let tables =
        "[upstreams.up]\nurl = \"{up}\"\nhttp2 = true\n[[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n";
    let (gateway, upstream) = in_front_of(echo().await, tables).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/x", "").await;
    client.send(masked(0x81, b"hi")).await;
    assert_eq!(client.frame().await.unwrap().payload, b"hi");
    assert_eq!(upstream.only().start, "GET /x HTTP/1.1");
}

#[tokio::test]
async fn tunnels_count_among_the_upstreams_connections() {
    let tables = "[upstreams.up]\nurl = \"{up}\"\nresponse_timeout = \"3s\"\npool = { max_connections = 1 }\n\
                  [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n";
    let upstream = Upstream::scripted(|mut visit| async move {
        while let Some(request) = visit.request().await {
            if request.one("upgrade").is_some() {
                visit.wire.send(agreement(ACCEPT)).await;
                visit.wire.until_closed().await;
                return;
            }
            visit.wire.send(OK).await;
        }
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, tables).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    tokio::time::pause();
    let mut other = Wire::connect(gateway.address).await;
    assert_eq!(other.ask(get("/", "")).await.outcome(), (504, "upstream-timeout"));
    tokio::time::resume();
    drop(client);
    for _ in 0..100 {
        if other.ask(get("/", "")).await.status() == 200 {
            return;
        }
    }
    panic!("the place was never given back");
}

#[tokio::test]
async fn a_routes_timeout_covers_only_the_head() {
    let tables = PUBLIC.replace("session = []", "session = []\ntimeout = \"3s\"");
    let slow = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.until_closed().await;
    })
    .await;
    let (gateway, _upstream) = in_front_of(slow, &tables).await;
    tokio::time::pause();
    let answer = Wire::connect(gateway.address).await.ask(open("/", "")).await;
    assert_eq!(answer.outcome(), (504, "upstream-timeout"));
    tokio::time::resume();
    let (gateway, _upstream) = in_front_of(echo().await, &tables).await;
    let mut client = Wire::connect(gateway.address).await;
    client.open("/", "").await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_hours(24)).await;
    client.send(masked(0x81, b"still")).await;
    assert_eq!(client.frame().await.unwrap().payload, b"still", "an idle tunnel has no limit");
}

#[tokio::test]
async fn head_names_need_not_be_written_as_browsers_do() {
    let (gateway, _upstream) = in_front_of(echo().await, PUBLIC).await;
    let odd = HANDSHAKE
        .replace("Connection: Upgrade", "connection: foo\r\nConnection: keep-alive, UPGRADE")
        .replace("websocket", "h2c, WebSocket");
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{odd}\r\n");
    assert_eq!(Wire::connect(gateway.address).await.ask(request).await.status(), 101);
}
