//! Both versions of HTTP on both sides: bodies, trailers, interim answers, rewriting.

use http::Response;

use super::{PUBLIC, behind, get, in_front_of};
use crate::support::gateway::{Boot, Gateway};
use crate::support::http2::{self, full, with_trailers};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// A public route to an upstream that speaks HTTP/2.
async fn before_h2(upstream: &http2::Upstream, more: &str) -> Gateway {
    let tables = format!(
        "[upstreams.up]\nurl = \"{}\"\nhttp2 = true\n\n[[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n{more}",
        upstream.url()
    );
    Gateway::start(tables).await
}

/// A megabyte in which every position can be told from the next.
fn big() -> Vec<u8> {
    (0..1_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test]
async fn bodies_pass_whole_with_either_framing() {
    let body = big();
    let chunked = {
        let mut text = Vec::new();
        for part in body.chunks(70_001) {
            text.extend_from_slice(format!("{:X};ext=1\r\n", part.len()).as_bytes());
            text.extend_from_slice(part);
            text.extend_from_slice(b"\r\n");
        }
        [&text[..], b"0\r\n\r\n"].concat()
    };
    let length = [format!("content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let coded = [&b"transfer-encoding: chunked\r\n\r\n"[..], &chunked].concat();
    for (up, down) in [(&length, &coded), (&coded, &length), (&length, &length), (&coded, &coded)] {
        let answer = [b"HTTP/1.1 200 OK\r\n", &down[..]].concat();
        let (gateway, upstream) = in_front_of(
            Upstream::scripted(move |mut visit| {
                let answer = answer.clone();
                async move {
                    while let Some(request) = visit.wire.request().await.unwrap() {
                        let sum = format!("{}", request.body.len());
                        assert_eq!(sum, "1000000");
                        visit.wire.send(&answer).await;
                    }
                }
            })
            .await,
            PUBLIC,
        )
        .await;
        let mut client = Wire::connect(gateway.address).await;
        for _ in 0..2 {
            let answer = client.ask([b"PUT /x HTTP/1.1\r\nHost: a\r\n", &up[..]].concat()).await;
            assert!(answer.status() == 200 && answer.body == body);
        }
        assert_eq!(upstream.connections(), 1);
    }
}

#[tokio::test]
async fn the_upstream_gets_the_framing_that_the_caller_chose() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    let seen = upstream.last();
    assert_eq!((seen.one("content-length"), &seen.body[..]), (Some("3"), &b"abc"[..]));
    client.ask("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let seen = upstream.last();
    assert_eq!((seen.one("transfer-encoding"), &seen.body[..]), (Some("chunked"), &b"abc"[..]));
    client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((upstream.last().one("content-length"), upstream.last().one("transfer-encoding")), (Some("0"), None));
    client.ask(get("/", "")).await;
    let seen = upstream.last();
    assert_eq!((seen.one("content-length"), seen.one("transfer-encoding")), (None, None));
    client.ask("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(upstream.last().body, b"abc");
}

#[tokio::test]
async fn trailers_pass_both_ways_on_http1() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\
                  x-mintgate-error: forged\r\n\r\n";
    let (gateway, upstream) = in_front_of(Upstream::answering(answer).await, PUBLIC).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-up\r\n\r\n\
                   2\r\nhi\r\n0\r\nx-up: 8\r\n\r\n";
    let answer = Wire::connect(gateway.address).await.ask(request).await;
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    assert_eq!(upstream.only().trailers, [("x-up".to_owned(), "8".to_owned())]);
}

#[tokio::test]
async fn http2_passes_to_http2_with_trailers_and_te() {
    let upstream = http2::Upstream::answering(|| {
        Response::new(with_trailers("answer", &[("grpc-status", "0"), ("x-mintgate-x", "forged")]))
    })
    .await;
    let gateway = before_h2(&upstream, "").await;
    let mut client = http2::Client::connect(gateway.address).await;
    let request = http::Request::post("http://caller.test/svc/Method?q=1").header("te", "trailers");
    let answer =
        client.ask(request.body(with_trailers("request", &[("x-up", "1"), ("x-real-ip", "1")])).unwrap()).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"answer"[..]));
    assert_eq!(answer.trailers.len(), 1);
    assert_eq!(answer.trailers["grpc-status"], "0");
    let seen = upstream.last();
    assert_eq!((seen.head.uri.path(), seen.head.uri.query()), ("/svc/Method", Some("q=1")));
    assert_eq!(
        (&seen.head.headers["te"], &seen.body[..]),
        (&http::HeaderValue::from_static("trailers"), &b"request"[..])
    );
    assert_eq!((seen.trailers.len(), seen.trailers.get("x-up").is_some()), (1, true));
    assert_eq!(seen.head.uri.authority().unwrap().as_str(), "caller.test", "loopback keeps the host");
}

#[tokio::test]
async fn http1_passes_to_http2_and_te_is_told() {
    let upstream = http2::Upstream::answering(|| Response::new(with_trailers("ok", &[("x-sum", "7")]))).await;
    let gateway = before_h2(&upstream, "preserve_host = false\n").await;
    let mut client = Wire::connect(gateway.address).await;
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    let answer = client.ask(request).await;
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    let seen = upstream.last();
    assert_eq!(&seen.body[..], b"abc");
    assert_eq!(seen.head.headers["te"], "trailers");
    for name in ["connection", "transfer-encoding", "host"] {
        assert!(!seen.head.headers.contains_key(name), "{name}");
    }
    assert_eq!(seen.head.uri.authority().unwrap().as_str(), upstream.address.to_string());
    client.ask(get("/", "")).await;
    assert!(!upstream.last().head.headers.contains_key("te"));
}

/// Fails when what an answer's `Connection` names is left there.
#[tokio::test]
async fn http2_passes_to_http1() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-hop\r\nx-hop: 1\r\n\
                  keep-alive: timeout=5\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let (gateway, upstream) = in_front_of(Upstream::answering(answer).await, PUBLIC).await;
    let mut client = http2::Client::connect(gateway.address).await;
    let request = http::Request::post("http://caller.test/x?y").header("cookie", "a=1").header("cookie", "b=2");
    let answer = client.ask(request.body(full("body")).unwrap()).await;
    assert_eq!((answer.status, &answer.body[..], answer.trailers["x-sum"].as_bytes()), (200, &b"ok"[..], &b"7"[..]));
    assert!(!answer.headers.contains_key("x-hop") && !answer.headers.contains_key("keep-alive"));
    let seen = upstream.only();
    assert_eq!(
        (seen.start.as_str(), seen.one("host"), &seen.body[..]),
        ("POST /x?y HTTP/1.1", Some("caller.test"), &b"body"[..])
    );
    assert_eq!(seen.all("cookie").join("; "), "a=1; b=2");
}

#[tokio::test]
async fn head_204_and_304_have_no_body() {
    for (method, answer, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 5\r\n\r\n", 304),
    ] {
        let (gateway, upstream) = in_front_of(Upstream::answering(answer).await, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        for _ in 0..2 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let answer = client.response_to(method).await.unwrap();
            assert_eq!(answer.status(), status);
        }
        assert_eq!((upstream.count(), upstream.connections()), (2, 1), "{method} {status}");
        let mut client = http2::Client::connect(gateway.address).await;
        let answer =
            client.ask(http::Request::builder().method(method).uri("http://a/").body(http2::empty()).unwrap()).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
}

#[tokio::test]
async fn our_own_answer_to_head_has_no_body() {
    let (gateway, _upstream) = behind(&PUBLIC.replace("session = []", "")).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response_to("HEAD").await.unwrap().outcome(), (401, "session-missing"));
    }
}

/// Fails when `Expect` reaches the upstream.
#[tokio::test]
async fn continue_is_sent_when_the_body_is_wanted_and_never_to_a_refused_request() {
    let (gateway, upstream) = behind(&PUBLIC.replace("session = []", "")).await;
    let ask = |headers: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n{headers}\r\n")
    };
    let mut client = Wire::connect(gateway.address).await;
    client.send(ask("")).await;
    assert_eq!(client.response().await.outcome(), (401, "session-missing"));
    assert!(client.is_closed().await, "nobody can tell whether the body still comes");
    let mut client = Wire::connect(gateway.address).await;
    client.send(ask(&gateway.bearer("bob"))).await;
    assert_eq!(client.response().await.status(), 100);
    assert_eq!(client.ask("abc").await.status(), 200);
    let seen = upstream.only();
    assert_eq!((seen.one("expect"), &seen.body[..]), (None, &b"abc"[..]));
}

#[tokio::test]
async fn another_expectation_is_417() {
    let (gateway, upstream) = behind(PUBLIC).await;
    for value in ["200-ok", "100-continue, x", "x"] {
        let answer = Wire::connect(gateway.address).await.ask(get("/", &format!("Expect: {value}\r\n"))).await;
        assert_eq!(answer.outcome(), (417, "expectation-failed"), "{value}");
    }
    let two = get("/", "Expect: 100-continue\r\nExpect: 200-ok\r\n");
    assert_eq!(Wire::connect(gateway.address).await.ask(two).await.outcome(), (417, "expectation-failed"));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn interim_answers_of_the_upstream_are_dropped() {
    let answer = format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{OK}");
    let (gateway, upstream) = in_front_of(Upstream::answering(answer).await, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        assert_eq!(client.ask(get("/", "")).await.status(), 200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_absolute_target_is_routed_by_its_own_authority() {
    let tables = r#"
[[routes]]
name = "one"
match = { host = "one.test" }
upstream = "{up}"
rewrite_prefix = "/"
session = []
"#;
    let (gateway, upstream) = behind(&tables.replace("rewrite_prefix = \"/\"\n", "")).await;
    let mut client = Wire::connect(gateway.address).await;
    let answer = client.ask("GET http://one.test/x?y HTTP/1.1\r\nHost: one.test\r\n\r\n").await;
    assert_eq!(answer.outcome(), (200, ""));
    let seen = upstream.only();
    assert_eq!((seen.start.as_str(), seen.one("host")), ("GET /x?y HTTP/1.1", Some("one.test")));
    let answer = client.ask("GET http://two.test/ HTTP/1.1\r\nHost: two.test\r\n\r\n").await;
    assert_eq!(answer.outcome(), (404, "no-route"));
    let answer = client.ask("GET http://one.test HTTP/1.1\r\nHost: one.test\r\n\r\n").await;
    assert_eq!((answer.status(), upstream.last().start.as_str()), (200, "GET / HTTP/1.1"));
}

#[tokio::test]
async fn events_are_not_held_back() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            visit.request().await;
            visit
                .wire
                .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            visit.wire.send("9\r\ndata: 1\n\n\r\n").await;
            gone.changed().await.unwrap();
            visit.wire.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send(get("/events", "")).await;
    assert_eq!(client.response_head().await.unwrap().status(), 200);
    assert_eq!(client.chunk().await.unwrap(), b"data: 1\n\n");
    go.send(true).unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"data: 2\n\n");
    assert_eq!(client.chunk().await.unwrap(), b"");
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_passes() {
    let upstream = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.1 200 OK\r\n\r\nto the end").await;
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        assert_eq!(client.ask(get("/", "")).await.text(), "to the end");
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn prefixes_are_stripped_and_rewritten_and_the_query_stays() {
    let tables = r#"
[[routes]]
name = "strip"
match = { path = "/v1" }
upstream = "{up}"
session = []
strip_prefix = "/v1"

[[routes]]
name = "rewrite"
match = { path = "/old" }
upstream = "{up}"
session = []
rewrite_prefix = "/new"
"#;
    let (gateway, upstream) = behind(tables).await;
    let mut client = Wire::connect(gateway.address).await;
    for (target, sent) in [
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v1/a%20b?x=/v1&y", "/a%20b?x=/v1&y"),
        ("/v1?", "/?"),
        ("/old/a", "/new/a"),
        ("/old?x", "/new?x"),
        ("/v1/a;b=c", "/a;b=c"),
    ] {
        assert_eq!(client.ask(get(target, "")).await.outcome(), (200, ""), "{target}");
        assert_eq!(upstream.last().start, format!("GET {sent} HTTP/1.1"));
    }
}

#[tokio::test]
async fn the_host_is_the_upstreams_own_unless_it_is_kept() {
    for (preserve, kept) in [("preserve_host = true", true), ("preserve_host = false", false), ("", true)] {
        let (gateway, upstream) = behind(&format!("{PUBLIC}{preserve}\n")).await;
        Wire::connect(gateway.address).await.ask(get("/", "")).await;
        let own = upstream.address.to_string();
        assert_eq!(upstream.only().one("host"), Some(if kept { "gateway.test" } else { own.as_str() }), "{preserve}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send([get("/1", ""), get("/2", ""), get("/3", "")].concat()).await;
    for _ in 0..3 {
        assert_eq!(client.response().await.status(), 200);
    }
    let paths: Vec<_> = upstream.requests().into_iter().map(|request| request.start).collect();
    assert_eq!(paths, ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /3 HTTP/1.1"]);
}

#[tokio::test]
async fn http10_is_answered_and_closed() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (gateway, upstream) = in_front_of(Upstream::answering(answer).await, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!((answer.text(), answer.one("transfer-encoding")), ("ok", None));
    assert!(client.is_closed().await);
    assert!(upstream.only().start.ends_with(" HTTP/1.1"));
}

#[tokio::test]
async fn a_head_beyond_the_upstreams_budget_is_not_sent() {
    let upstream = Upstream::answering(OK).await;
    let gateway = Boot::new(format!(
        "[upstreams.up]\nurl = \"{}\"\nmax_header_bytes = \"1KiB\"\n[[routes]]\nname = \"a\"\nupstream = \"up\"\nsession = []\n",
        upstream.url()
    ))
    .start()
    .await;
    let long = format!("x-long: {}\r\n", "a".repeat(1100));
    let answer = Wire::connect(gateway.address).await.ask(get("/", &long)).await;
    assert_eq!((answer.outcome(), upstream.count()), ((431, "headers-too-large"), 0));
}

#[tokio::test]
async fn a_token_that_makes_the_head_too_large_is_not_the_callers_fault() {
    let upstream = Upstream::answering(OK).await;
    let gateway = Boot::new(format!(
        "[upstreams.up]\nurl = \"{}\"\nmax_header_bytes = \"1KiB\"\n[[routes]]\nname = \"a\"\nupstream = \"up\"\n\
         inject = [{{ header = \"authorization\", prefix = \"Bearer \", template = \"custom_hasura\" }}]\n",
        upstream.url()
    ))
    .start()
    .await;
    let long = format!("{}x-long: {}\r\n", gateway.bearer("alice"), "a".repeat(300));
    let answer = Wire::connect(gateway.address).await.ask(get("/", &long)).await;
    assert_eq!((answer.outcome(), upstream.count()), ((502, "token-unfit"), 0));
}

#[tokio::test]
async fn a_chunked_body_of_a_get_is_not_lost() {
    for method in ["GET", "HEAD", "OPTIONS", "POST"] {
        let (gateway, upstream) = behind(PUBLIC).await;
        let ask =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let mut client = Wire::connect(gateway.address).await;
        client.send(&ask).await;
        upstream.received(1).await;
        assert_eq!(upstream.only().body, b"hello", "{method}");
    }
}

/// Fails without `is_framed_once`.
#[tokio::test]
async fn an_answer_that_is_framed_twice_is_refused_and_its_connection_not_reused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let (gateway, upstream) = in_front_of(Upstream::answering(answer).await, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        for _ in 0..2 {
            assert_eq!(client.ask(get("/", "")).await.outcome(), (502, "upstream-broken"), "{answer}");
        }
        assert_eq!(upstream.connections(), 2);
    }
}

#[tokio::test]
async fn an_old_upstream_does_not_make_the_gateway_old() {
    let old = Upstream::answering("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let (gateway, _upstream) = in_front_of(old, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        let answer = client.ask(get("/", "")).await;
        assert!(answer.start.starts_with("HTTP/1.1 200"), "{}", answer.start);
    }
}

#[tokio::test]
async fn trace_is_refused_since_it_would_show_what_is_injected() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let answer = Wire::connect(gateway.address).await.ask("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.outcome(), upstream.count()), ((405, "method-not-allowed"), 0));
}

/// Fails for `x-hop` when what an answer's `Connection` names is left there. The length is written anew in any case.
#[tokio::test]
async fn an_answers_connection_takes_its_own_headers_away_and_not_the_messages() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: x-hop, content-length, content-type\r\n\
                  x-hop: 1\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
    let (gateway, _upstream) = in_front_of(Upstream::answering(answer).await, PUBLIC).await;
    let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
    let seen = ["x-hop", "content-length", "content-type"].map(|name| answer.one(name));
    assert_eq!((answer.text(), seen), ("ok", [None, Some("2"), Some("text/plain")]));
}
