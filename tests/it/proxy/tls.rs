//! TLS on the data listener, and what a connection's ends mean for a request.

use std::time::Duration;

use http::Request;
use mintgate::config::validate::{self, Secrets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{PUBLIC, get};
use crate::support::directory::Directory;
use crate::support::eventually;
use crate::support::gateway::{Boot, Gateway};
use crate::support::http2;
use crate::support::tls::{Authority, Client, Identity};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// A gateway with TLS for `a.test` and `b.test`, and everything around it.
pub(super) struct Secure {
    pub(super) gateway: Gateway,
    pub(super) upstream: Upstream,
    authority: Authority,
    directory: Directory,
}

impl Secure {
    async fn start(tls: &str, server: &str, tables: &str) -> Self {
        Self::before(Upstream::answering(OK).await, tls, server, tables).await
    }

    /// The same, before that upstream.
    pub(super) async fn before(upstream: Upstream, tls: &str, server: &str, tables: &str) -> Self {
        let (authority, directory) = (Authority::new(), Directory::new());
        let secure = authority.identity(&["a.test", "b.test"]);
        let directory = write(directory, &secure);
        std::fs::write(directory.path("ca.pem"), &authority.pem).unwrap();
        let at = directory.path("").display().to_string();
        let server =
            format!("tls = {{ cert = \"{at}cert.pem\", key = \"{at}key.pem\"{} }}\n{server}", tls.replace("{at}", &at));
        let gateway = Boot::new(tables.replace("{up}", &upstream.url())).server(&server).start().await;
        Self { gateway, upstream, authority, directory }
    }

    fn client(&self, alpn: &[&str]) -> Client {
        self.authority.client(alpn, None)
    }

    pub(super) async fn wire(&self, name: &str) -> Wire {
        Wire::over(self.client(&["http/1.1"]).connect(self.gateway.address, name).await.unwrap())
    }

    async fn http2(&self, name: &str) -> http2::Client {
        http2::Client::over(self.client(&["h2"]).connect(self.gateway.address, name).await.unwrap()).await
    }
}

fn write(directory: Directory, identity: &Identity) -> Directory {
    std::fs::write(directory.path("cert.pem"), &identity.cert).unwrap();
    std::fs::write(directory.path("key.pem"), &identity.key).unwrap();
    directory
}

fn ask(host: &str, path: &str) -> Request<http2::Body> {
    Request::get(format!("https://{host}{path}")).body(http2::empty()).unwrap()
}

#[tokio::test]
async fn both_protocols_are_served_and_the_upstream_hears_https() {
    let secure = Secure::start("", "", PUBLIC).await;
    let answer = secure.wire("a.test").await.ask("GET /one HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    let answer = secure.http2("a.test").await.ask(ask("a.test", "/two")).await;
    assert_eq!(answer.outcome(), (200, ""));
    for request in secure.upstream.requests() {
        assert_eq!(request.one("x-forwarded-proto"), Some("https"), "{}", request.start);
        assert!(request.one("forwarded").unwrap().ends_with(";proto=https"), "{:?}", request.one("forwarded"));
    }
}

#[tokio::test]
async fn alpn_decides() {
    let secure = Secure::start("", "", PUBLIC).await;
    for (offered, settled) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = secure.client(offered).connect(secure.gateway.address, "a.test").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), settled, "{offered:?}");
    }
    // What is spoken afterwards is what was settled.
    let stream = secure.client(&["http/1.1"]).connect(secure.gateway.address, "a.test").await.unwrap();
    let mut wire = Wire::over(stream);
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!wire.until_closed().await.starts_with(&[0, 0]), "settings of HTTP/2");
    assert!(secure.client(&["spdy/3"]).connect(secure.gateway.address, "a.test").await.is_err());
}

#[tokio::test]
async fn a_session_is_resumed() {
    let secure = Secure::start("", "", PUBLIC).await;
    let client = secure.client(&["http/1.1"]);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = client.connect(secure.gateway.address, "a.test").await.unwrap();
        stream.write_all(get("/", "").replace("gateway.test", "a.test").as_bytes()).await.unwrap();
        // The tickets come with the first bytes.
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
}

#[tokio::test]
async fn a_request_for_a_name_that_the_certificate_does_not_cover_is_421() {
    let secure = Secure::start("", "", PUBLIC).await;
    let mut client = secure.http2("a.test").await;
    let misdirected = (421, "misdirected");
    for (host, outcome) in [
        ("a.test", (200, "")),
        ("A.test:443", (200, "")),
        ("b.test", (200, "")),
        ("c.test", misdirected),
        ("127.0.0.1", misdirected),
        ("xa.test", misdirected),
    ] {
        assert_eq!(client.ask(ask(host, "/")).await.outcome(), outcome, "{host}");
    }
    let cleartext = Request::get("http://a.test/").body(http2::empty()).unwrap();
    assert_eq!(client.ask(cleartext).await.outcome(), misdirected, "http: is not what this connection vouches for");
    assert_eq!(secure.wire("a.test").await.ask(get("/", "")).await.outcome(), misdirected);
    assert_eq!(secure.upstream.count(), 3);
}

#[tokio::test]
async fn the_cookie_guard_takes_the_connections_own_scheme() {
    let tables = "[[routes]]\nname = \"all\"\nupstream = \"{up}\"\nsession = [\"cookie\"]\n";
    let secure = Secure::start("", "", tables).await;
    let (token, now) = (secure.gateway.session_token("alice"), secure.gateway.clock.wall().as_seconds() - 60);
    for (origin, status) in [("https://a.test", 200), ("http://a.test", 403)] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nCookie: __session={token}; __client_uat={now}\r\nOrigin: {origin}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        assert_eq!(secure.wire("a.test").await.ask(request).await.status(), status, "{origin}");
    }
}

#[tokio::test]
async fn a_certificate_that_changes_is_presented_and_nobody_is_cut_off() {
    let secure = Secure::start("", "", PUBLIC).await;
    let mut old = secure.wire("a.test").await;
    assert_eq!(old.ask(get("/", "").replace("gateway.test", "a.test")).await.status(), 200);
    // Half a change: the certificate alone. It must not be used.
    let next = secure.authority.identity(&["next.test"]);
    std::fs::write(secure.directory.path("cert.pem"), &next.cert).unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(20)).await;
    tokio::time::resume();
    assert!(secure.client(&[]).connect(secure.gateway.address, "a.test").await.is_ok());
    std::fs::write(secure.directory.path("key.pem"), &next.key).unwrap();
    let mut seen = false;
    for _ in 0..200 {
        seen = secure.client(&[]).connect(secure.gateway.address, "next.test").await.is_ok();
        if seen {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(seen, "the new certificate is never presented");
    assert_eq!(old.ask(get("/", "").replace("gateway.test", "a.test")).await.status(), 200);
}

#[tokio::test]
async fn client_certificates_are_asked_for_as_configured() {
    let stranger = Authority::new();
    for (mode, without, with_foreign) in [("optional", true, false), ("required", false, false)] {
        let tls = format!(", client_ca = \"{{at}}ca.pem\", client_auth = \"{mode}\"");
        let secure = Secure::start(&tls, "", PUBLIC).await;
        let good = secure.authority.identity(&["client.test"]);
        let foreign = stranger.identity(&["client.test"]);
        for (identity, passes) in [(None, without), (Some(&good), true), (Some(&foreign), with_foreign)] {
            let client = secure.authority.client(&["http/1.1"], identity);
            // With TLS 1.3 a client learns of its refusal when it reads.
            let served = match client.connect(secure.gateway.address, "a.test").await {
                Err(_) => false,
                Ok(stream) => {
                    let mut wire = Wire::over(stream);
                    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                    wire.response_to("GET").await.is_ok_and(|answer| answer.status() == 200)
                }
            };
            assert_eq!(served, passes, "{mode} {}", identity.is_some());
        }
    }
}

const LIMITS: &str = "first_byte_timeout = \"5s\"\nheader_read_timeout = \"7s\"\nidle_timeout = \"9s\"\n\
                      body_progress_timeout = \"11s\"\nwrite_stall_timeout = \"13s\"";

#[tokio::test]
async fn a_handshake_has_its_time() {
    let secure = Secure::start("", LIMITS, PUBLIC).await;
    tokio::time::pause();
    for (said, seconds) in [(&b""[..], 5), (b"\x16", 7), (b"\x16\x03\x01\x02", 7)] {
        let mut stream = TcpStream::connect(secure.gateway.address).await.unwrap();
        let began = Instant::now();
        stream.write_all(said).await.unwrap();
        assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
        assert_eq!(began.elapsed().as_secs(), seconds, "{said:?}");
    }
}

#[tokio::test]
async fn cleartext_on_a_tls_listener_reaches_nobody() {
    let secure = Secure::start("", "", PUBLIC).await;
    let mut wire = Wire::connect(secure.gateway.address).await;
    wire.send(get("/", "")).await;
    let rest = wire.until_closed().await;
    assert!(!rest.starts_with(b"HTTP/"), "{rest:?}");
    assert_eq!(secure.upstream.count(), 0);
    assert_eq!(secure.gateway.metric("mintgate_tls_handshake_errors_total").await, "1");
    // Who says nothing is no fault of anybody's.
    let mut probe = Wire::connect(secure.gateway.address).await;
    probe.finish().await;
    assert!(probe.until_closed().await.is_empty());
    assert_eq!(secure.gateway.metric("mintgate_tls_handshake_errors_total").await, "1");
}

#[tokio::test]
async fn the_limits_hold_over_tls() {
    let secure = Secure::start("", LIMITS, PUBLIC).await;
    tokio::time::pause();
    let mut silent = secure.wire("a.test").await;
    let began = Instant::now();
    assert!(silent.is_closed().await);
    assert_eq!(began.elapsed().as_secs(), 5);
    let mut slow = secure.wire("a.test").await;
    let began = Instant::now();
    slow.send("GET / HTTP/1.1\r\nHost").await;
    slow.until_closed().await;
    assert_eq!(began.elapsed().as_secs(), 7);
    let mut idle = secure.wire("a.test").await;
    assert_eq!(idle.ask(get("/", "").replace("gateway.test", "a.test")).await.status(), 200);
    let began = Instant::now();
    assert!(idle.is_closed().await);
    assert_eq!(began.elapsed().as_secs(), 9);
    let mut stuck = secure.wire("a.test").await;
    let began = Instant::now();
    let answer = stuck.ask("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!((answer.outcome(), began.elapsed().as_secs()), ((408, "request-timeout"), 11));
}

/// A request of HTTP/2 from somebody whose windows are as large as they can be.
fn wide_open(authority: &[u8]) -> Vec<u8> {
    let length = u8::try_from(authority.len()).unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff]);
    bytes.extend([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0, 0]);
    // GET, https, /, and the authority.
    bytes.extend([0, 0, 5 + length, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84, 0x41, length]);
    bytes.extend(authority);
    bytes
}

#[tokio::test]
async fn a_caller_that_takes_no_bytes_is_given_up_over_tls_in_either_protocol() {
    const LENGTH: usize = 256 << 20;
    for alpn in ["http/1.1", "h2"] {
        let cut = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let there = std::sync::Arc::clone(&cut);
        let endless = Upstream::scripted(move |mut visit| {
            let there = std::sync::Arc::clone(&there);
            async move {
                visit.request().await;
                visit.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
                let block = vec![0; 1 << 20];
                for _ in 0..LENGTH >> 20 {
                    if visit.wire.try_send(&block).await.is_err() {
                        there.store(true, std::sync::atomic::Ordering::SeqCst);
                        return;
                    }
                }
            }
        })
        .await;
        let secure = Secure::before(endless, "", LIMITS, PUBLIC).await;
        let stream = secure.client(&[alpn]).connect(secure.gateway.address, "a.test").await.unwrap();
        tokio::time::pause();
        let mut client = Wire::over(stream);
        let request = get("/", "").replace("gateway.test", "a.test").into_bytes();
        client.send(if alpn == "h2" { wide_open(b"a.test") } else { request }).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        eventually("the upstream is let go", || cut.load(std::sync::atomic::Ordering::SeqCst)).await;
        let got = client.until_closed().await.len();
        assert!(got > 0 && got < LENGTH, "{alpn} {got}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_over_tls_and_http2() {
    let limits = "request_body_limit = \"10\"\nmax_uri_bytes = \"1KiB\"\nmax_header_bytes = \"8KiB\"";
    let secure = Secure::start("", limits, PUBLIC).await;
    let https = http2::Client::over(secure.client(&["h2"]).connect(secure.gateway.address, "a.test").await.unwrap());
    let mut https = https.await;
    let long = |length: usize| format!("/{}", "a".repeat(length));
    let post = |body: http2::Body| Request::post("https://a.test/").body(body).unwrap();
    let header =
        |length: usize| Request::get("https://a.test/").header("x", "a".repeat(length)).body(http2::empty()).unwrap();
    let cases = [
        (ask("a.test", &long(1024)), (414, "uri-too-long")),
        (ask("a.test", &long(1023)), (200, "")),
        (post(http2::full("aaaaaaaaaaa")), (413, "body-too-large")),
        // The same without a word on its length.
        (post(http2::with_trailers("aaaaaaaaaaa", &[("x-end", "1")])), (413, "body-too-large")),
        (post(http2::full("aaaaaaaaaa")), (200, "")),
        (header(9000), (431, "headers-too-large")),
        (header(7000), (200, "")),
    ];
    for (number, (request, outcome)) in cases.into_iter().enumerate() {
        let answer = https.ask(request).await;
        assert_eq!((answer.status, outcome), (outcome.0, outcome), "{number} {:?}", answer.headers);
    }
    let ask = async |request: String| {
        let answer = secure.wire("a.test").await.ask(request).await;
        (answer.status(), answer.one("x-mintgate-error").unwrap_or_default().to_owned())
    };
    let get = |path: &str, headers: &str| get(path, headers).replace("gateway.test", "a.test");
    assert_eq!(ask(get(&long(1024), "")).await, (414, "uri-too-long".to_owned()));
    assert_eq!(ask(get("/", &format!("x: {}\r\n", "a".repeat(20_000)))).await.0, 431);
    let large = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\n".to_owned();
    assert_eq!(ask(large).await, (413, "body-too-large".to_owned()));
}

#[tokio::test]
async fn too_many_tls_connections_are_told_so_inside_tls() {
    let secure = Secure::start("", "max_connections = 1", PUBLIC).await;
    let mut first = secure.wire("a.test").await;
    let request = get("/", "").replace("gateway.test", "a.test");
    assert_eq!(first.ask(&request).await.status(), 200);
    assert_eq!(secure.wire("a.test").await.ask(&request).await.outcome(), (503, "overloaded"));
}

#[tokio::test]
async fn a_drain_ends_tls_connections_too() {
    let mut secure = Secure::start("", "", PUBLIC).await;
    let (mut fresh, mut idle) = (secure.wire("a.test").await, secure.wire("a.test").await);
    let mut http2 = secure.http2("a.test").await;
    assert_eq!(http2.ask(ask("a.test", "/")).await.status, 200);
    assert_eq!(idle.ask(get("/", "").replace("gateway.test", "a.test")).await.status(), 200);
    let raw = TcpStream::connect(secure.gateway.address).await.unwrap();
    secure.gateway.tell();
    assert!(fresh.is_closed().await && idle.is_closed().await);
    eventually("nothing listens", || std::net::TcpStream::connect(secure.gateway.address).is_err()).await;
    assert!(http2.send(ask("a.test", "/")).await.is_err());
    secure.gateway.ended().await;
    drop(raw);
}

#[test]
fn files_that_cannot_serve_are_told_before_anything_starts() {
    let (authority, directory) = (Authority::new(), Directory::new());
    let (good, other, expired) =
        (authority.identity(&["a.test"]), authority.identity(&["a.test"]), authority.expired(&["a.test"]));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let said = |cert: Option<&str>, key: Option<&str>, more: &str| {
        for (name, text) in [("cert.pem", cert), ("key.pem", key)] {
            let _ = std::fs::remove_file(directory.path(name));
            if let Some(text) = text {
                std::fs::write(directory.path(name), text).unwrap();
            }
        }
        let config = directory.path("mintgate.toml");
        let text = format!(
            "[server]\ntls = {{ cert = \"cert.pem\", key = \"key.pem\"{more} }}\n[[routes]]\nname = \"all\"\n\
             upstream = \"http://127.0.0.1:1\"\nsession = []\n"
        );
        std::fs::write(&config, text).unwrap();
        let load = |secrets| match validate::load(&config, &validate::Process, secrets) {
            Ok((_, warnings)) => (true, warnings.to_string()),
            Err(problems) => (false, problems.to_string()),
        };
        [load(Secrets::Optional), load(Secrets::Required)]
    };
    let (cert, key) = (Some(good.cert.as_str()), Some(good.key.as_str()));
    for (cert, key, more, expected) in [
        (None, key, "", "cannot read the file"),
        (Some("nothing"), key, "", "holds no certificate in PEM"),
        (Some(broken), key, "", "certificate"),
        (cert, Some(encrypted), "", "the private key is encrypted"),
        (cert, Some(other.key.as_str()), "", "the private key is not the one of the certificate"),
        (cert, key, ", client_auth = \"required\"", "client certificates need a `client_ca`"),
        (cert, key, ", client_ca = \"cert.pem\"", "no client is asked for a certificate"),
        (cert, key, ", client_ca = \"key.pem\", client_auth = \"required\"", "holds no certificate in PEM"),
    ] {
        for (good, text) in said(cert, key, more) {
            assert!(!good && text.contains(expected) && text.contains("^^"), "{expected}\n{text}");
        }
    }
    for (good, text) in said(Some(&expired.cert), Some(&expired.key), "") {
        assert!(good && text.contains("the certificate has expired"), "a warning: {text}");
    }
    let [check, run] = said(cert, None, "");
    assert!(check.0 && check.1.contains("`run` needs it"), "{}", check.1);
    assert!(!run.0 && run.1.contains("cannot read the file"), "{}", run.1);
    for (good, text) in said(cert, key, "") {
        assert!(good && text.is_empty(), "{text}");
    }
}
