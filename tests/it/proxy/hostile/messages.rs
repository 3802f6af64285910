//! Messages that want to be taken for two, or to bring something with them: requests on their way up, answers on their
//! way down.

use super::frames::{END_HEADERS, END_STREAM, Fate, HEADERS, ROOT, fate, frame, hello, literal};
use crate::proxy::{PUBLIC, behind, get, in_front_of};
use crate::support::gateway::Gateway;
use crate::support::http2;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

const PROTECTED: &str = r#"
[[routes]]
name = "public"
match = { path = "/public" }
upstream = "{up}"
session = []

[[routes]]
name = "all"
match = { path = "/private" }
upstream = "{up}"
"#;

/// Case 18, CVE-2025-4366. Fails where what is left of a refused request's body were read as the next request: without
/// hyper's reading of a body to its end, or its close, before it reads on.
#[tokio::test]
async fn what_follows_an_early_refusal_is_body_and_no_request() {
    let smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len());
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    for (path, status) in [("/private", 401), ("/nowhere", 404), ("/private/../x", 400), ("/private%00", 400)] {
        for framing in [&length, &chunked] {
            for pause in [false, true] {
                let (gateway, upstream) = behind(PROTECTED).await;
                let mut client = Wire::connect(gateway.address).await;
                let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n");
                let (first, rest) = framing.split_at(framing.find("\r\n\r\n").unwrap() + 4);
                if pause {
                    client.send(head + first).await;
                    assert_eq!(client.response().await.status(), status, "{path}");
                    client.send(rest).await;
                } else {
                    client.send(head + framing).await;
                    assert_eq!(client.response().await.status(), status, "{path}");
                }
                client.send(get("/public/own", "Connection: close\r\n")).await;
                let more = String::from_utf8_lossy(&client.until_closed().await).into_owned();
                // Either the connection is over, or the next request is answered, and nothing beside it.
                assert!(more.is_empty() || more.matches("HTTP/1.1 ").count() == 1, "{path} {more}");
                let seen: Vec<String> = upstream.requests().into_iter().map(|request| request.start).collect();
                assert!(seen.iter().all(|start| start == "GET /public/own HTTP/1.1"), "{path} {seen:?}");
            }
        }
    }
}

/// Case 21. Fails where a field that HTTP/1 could not carry were let through: h2 and the type of a header's value keep
/// line ends out of it, and the cleaning takes framing and hop-by-hop fields away.
#[tokio::test]
async fn no_http2_field_becomes_a_line_of_http1() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let fields: [(&[u8], &[u8]); 23] = [
        (b"x", b"a\r\nx-injected: 1"),
        (b"x", b"a\nx-injected: 1"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x\r\nx-injected", b"1"),
        (b"x: y\r\nx-injected", b"1"),
        (b"x y", b"1"),
        (b"x:", b"1"),
        (b"", b"1"),
        (b"X-Upper", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer_encoding", b"chunked"),
        (b"connection", b"close"),
        (b"connection", b"x-user-id"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"te", b"trailers"),
        (b"content-length", b"5"),
        (b"content-length", b"+0"),
        (b"content_length", b"5"),
        (b"x", b" \t a \t "),
    ];
    for (name, value) in fields {
        let before = upstream.count();
        let mut client = Wire::connect(gateway.address).await;
        let head = [ROOT, &literal(name, value), &literal(b"x-last", b"1")].concat();
        client.send([hello(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)].concat()).await;
        let shown = format!("{:?}: {:?}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        if fate(&mut client).await != Fate::Ok {
            assert_eq!(upstream.count(), before, "{shown}");
            continue;
        }
        // What passes is strict HTTP, which reading it has proved.
        let seen = upstream.last();
        assert_eq!(seen.one("x-last"), Some("1"), "{shown}");
        for gone in ["x-injected", "transfer-encoding", "transfer_encoding", "content_length", "connection", "te"] {
            assert_eq!(seen.one(gone), None, "{shown}");
        }
        assert!(seen.one("x").is_none_or(|x| x == "a") && seen.body.is_empty(), "{shown}: {seen:?}");
    }
    // The methods and the paths.
    for (name, value) in [
        (&b":method"[..], &b"GET / HTTP/1.1\r\nx: "[..]),
        (b":method", b"GET /admin"),
        (b":path", b"/ HTTP/1.1\r\nx-injected: 1"),
        (b":path", b"/a b"),
        (b":path", b"/a\tb"),
        (b":authority", b"a\r\nx-injected: 1"),
        (b":authority", b"a b"),
    ] {
        let before = upstream.count();
        let mut head = Vec::new();
        for (own, plain) in
            [(&b":method"[..], &b"GET"[..]), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        {
            head.extend(literal(own, if own == name { value } else { plain }));
        }
        let mut client = Wire::connect(gateway.address).await;
        client.send([hello(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)].concat()).await;
        assert!(
            fate(&mut client).await != Fate::Ok && upstream.count() == before,
            "{:?}",
            String::from_utf8_lossy(value)
        );
    }
}

/// Case 5 on the way down. Fails without `clean_trailers` on answers, and with fewer names in `Plans::response_trailers`.
/// What means a connection h2 and hyper take from nobody.
#[tokio::test]
async fn trailers_of_an_answer_say_nothing_of_framing_or_in_our_name() {
    let trailers = [
        ("grpc-status", "0"),
        ("x-mintgate-error", "session-missing"),
        ("x_mintgate_error", "session-missing"),
        ("content-length", "5"),
        ("content_length", "5"),
        ("content-type", "text/html"),
        ("set-cookie", "a=b"),
        ("authorization", "Bearer x"),
    ];
    let upstream = http2::Upstream::answering(move || http::Response::new(http2::with_trailers("ok", &trailers))).await;
    let tables = format!(
        "[upstreams.up]\nurl = \"{}\"\nhttp2 = true\n\n[[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n",
        upstream.url()
    );
    let gateway = Gateway::start(tables).await;
    let mut client = http2::Client::connect(gateway.address).await;
    let answer = client.ask(http::Request::get("http://a/").body(http2::empty()).unwrap()).await;
    let names: Vec<&str> = answer.trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!((answer.status, names), (200, vec!["grpc-status"]));
}

/// Case 22. Fails without `response_timeout`, which runs to the answer itself, not to an interim one.
#[tokio::test]
async fn an_upstream_that_only_ever_announces_an_answer_is_given_up() {
    let upstream = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        while visit.wire.try_send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let tables = "[upstreams.up]\nurl = \"{up}\"\nresponse_timeout = \"1s\"\n\
                  [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n";
    let (gateway, upstream) = in_front_of(upstream, tables).await;
    for _ in 0..2 {
        let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
        assert_eq!(answer.outcome(), (504, "upstream-timeout"));
    }
    assert_eq!(upstream.connections(), 2, "no such connection is used again");
}

/// Case 22. Fails without `MAX_BUFFER` of an upstream's connection.
#[tokio::test]
async fn an_answer_with_an_oversized_head_is_broken() {
    for head in [
        format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\nok", "a".repeat(300_000)),
        format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", "x: a\r\n".repeat(20_000)),
    ] {
        let upstream = Upstream::scripted(move |mut visit| {
            let head = head.clone();
            async move {
                while visit.request().await.is_some() {
                    visit.wire.send(if visit.number == 0 { &head } else { OK }).await;
                }
            }
        })
        .await;
        let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        assert_eq!(client.ask(get("/", "")).await.outcome(), (502, "upstream-broken"));
        assert_eq!(client.ask(get("/", "")).await.text(), "ok");
        assert_eq!(upstream.connections(), 2);
    }
}
