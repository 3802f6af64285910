//! Requests that two readers could read differently: refused, or made one thing before they are sent on.

use super::{MINTING, PUBLIC, behind, get, in_front_of};
use crate::support::http2;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_400() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let chunked = "\r\n1\r\na\r\n0\r\n\r\n";
    for request in [
        // Transfer codings.
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n{chunked}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n{chunked}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n{chunked}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n{chunked}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n{chunked}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n{chunked}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n{chunked}"),
        format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{chunked}"),
        // Lengths.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na".to_owned(),
        // Hosts.
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a/x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a:port\r\n\r\n".to_owned(),
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(),
        "GET http://a/ HTTP/1.1\r\n\r\n".to_owned(),
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http://u:p@a/ HTTP/1.1\r\nHost: u:p@a\r\n\r\n".to_owned(),
        // Targets.
        "GET gopher://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET foo HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(),
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        // Lines.
        "GET / HTTP/1.1\r\nHost: a\r\n x: folded\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nx y: 1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nx: a\0b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nx: a\rb\r\n\r\n".to_owned(),
    ] {
        let mut client = Wire::connect(gateway.address).await;
        assert_eq!(client.ask(&request).await.status(), 400, "{request:?}");
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn odd_paths_are_400_whatever_the_route() {
    let (gateway, upstream) = behind(MINTING).await;
    let bearer = gateway.bearer("bob");
    for path in [
        "/a/../b",
        "/a/./b",
        "/..",
        "//",
        "/a//b",
        "/a\\b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/%2e%2e/b",
        "/.%2e/b",
        "/..;/b",
        "/..;x=1/b",
        "/a%00b",
        "/%ff",
        "/%c0%af",
        "/%252e%252e/b",
        "/%252f",
        "/a%0d%0ab",
        "/%zz",
        "/%2",
    ] {
        let answer = Wire::connect(gateway.address).await.ask(get(path, &bearer)).await;
        assert_eq!(answer.status(), 400, "{path}");
        let absolute = format!("GET http://a{path} HTTP/1.1\r\nHost: a\r\n{bearer}\r\n");
        assert_eq!(Wire::connect(gateway.address).await.ask(absolute).await.status(), 400, "{path}");
    }
    assert_eq!((upstream.count(), gateway.mints()), (0, 0));
}

#[tokio::test]
async fn another_reading_of_a_path_never_leads_past_a_routes_rules() {
    let tables = r#"
[[routes]]
name = "public"
match = { path = "/" }
upstream = "{up}"
session = []

[[routes]]
name = "admin"
match = { path = "/admin" }
upstream = "{up}"
"#;
    let (gateway, upstream) = behind(tables).await;
    for path in ["/%61dmin", "/admin;x", "/%61dmin/x", "/admin%3bx", "/%2561dmin", "/x/../admin", "/adm%69n;y/z"] {
        let answer = Wire::connect(gateway.address).await.ask(get(path, "")).await;
        assert!(matches!(answer.status(), 400 | 401), "{path}: {}", answer.start);
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/administrator", "")).await.status(), 200);
}

#[tokio::test]
async fn connect_is_405() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").await;
    assert_eq!(client.response().await.outcome(), (405, "method-not-allowed"));
    let mut client = http2::Client::connect(gateway.address).await;
    let request = http::Request::builder().method("CONNECT").uri("a:443").body(http2::empty()).unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.status(), 405);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn http2_hosts_that_differ_are_400() {
    let (gateway, upstream) = behind(PUBLIC).await;
    for (authority, host) in [("a.test", "b.test"), ("u@a.test", ""), ("a.test", "a.test:1")] {
        let mut client = http2::Client::connect(gateway.address).await;
        let mut request = http::Request::get(format!("http://{authority}/"));
        if !host.is_empty() {
            request = request.header("host", host);
        }
        // h2 itself refuses some of these by a reset.
        if let Ok(answer) = client.send(request.body(http2::empty()).unwrap()).await {
            assert_eq!(answer.status(), 400, "{authority} {host}");
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_length_beside_chunked_is_neutralised_and_the_connection_closes() {
    let (gateway, upstream) = behind(PUBLIC).await;
    for lines in
        ["Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"]
    {
        let before = upstream.count();
        let mut client = Wire::connect(gateway.address).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n0\r\n\r\n{smuggled}")).await;
        let answer = client.response().await;
        assert!(matches!(answer.status(), 200 | 400), "{}", answer.start);
        assert!(client.is_closed().await, "{lines}");
        for request in &upstream.requests()[before..] {
            assert!(request.start == "POST / HTTP/1.1" && request.body.is_empty(), "{request:?}");
            assert!(request.all("content-length").len() + request.all("transfer-encoding").len() <= 1);
        }
    }
}

#[tokio::test]
async fn what_is_sent_on_is_canonical() {
    let (gateway, upstream) = behind(PUBLIC).await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0003;x=\"y\"\r\nabc\r\n000\r\n\r\n",
        "POST /#fragment HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let before = upstream.count();
        let answer = Wire::connect(gateway.address).await.ask(request).await;
        assert!(matches!(answer.status(), 200 | 400), "{request:?}: {}", answer.start);
        if answer.status() == 200 {
            // The upstream's reader takes canonical framing only.
            let seen = &upstream.requests()[before];
            assert_eq!((seen.start.as_str(), &seen.body[..]), ("POST / HTTP/1.1", &b"abc"[..]), "{request:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_upgrade_is_not_passed_and_not_believed() {
    let upstream = Upstream::scripted(|mut visit| async move {
        while let Some(request) = visit.request().await {
            let switching = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nsecret";
            let answer = if request.start.contains("/switch") { switching } else { crate::support::upstream::OK };
            visit.wire.send(answer).await;
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n";
    for (path, headers) in [("/switch", ""), ("/switch", upgrade)] {
        let mut client = Wire::connect(gateway.address).await;
        assert_eq!(client.ask(get(path, headers)).await.outcome(), (502, "upstream-broken"));
        let seen = upstream.last();
        assert_eq!((seen.one("upgrade"), seen.one("connection")), (None, None));
        assert_eq!(client.ask(get("/", "")).await.text(), "ok");
    }
    assert_eq!(upstream.connections(), 3, "a connection that switched serves nothing more; the last one is kept");
}

#[tokio::test]
async fn after_an_ambiguous_head_nothing_more_is_read_from_the_connection() {
    for coding in [",chunked", "gzip, chunked", "chunked, chunked"] {
        let (gateway, upstream) = behind(PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let ask = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n{smuggled}");
        let answer = client.ask(ask).await;
        assert_eq!(
            (answer.outcome(), answer.one("connection")),
            ((400, "request-malformed"), Some("close")),
            "{coding}"
        );
        assert!(client.is_closed().await);
        assert_eq!(upstream.count(), 0, "{coding}");
    }
}
