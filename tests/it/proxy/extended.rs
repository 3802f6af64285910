//! WebSockets on streams of HTTP/2 (RFC 8441): what opens one, what does not, and how they end beside other streams.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{MINTING, PUBLIC};
use crate::support::eventually;
use crate::support::gateway::{Gateway, PARTY};
use crate::support::http2::{self, Answer, Client, empty};
use crate::support::upstream::{OK, Upstream};
use crate::support::websocket::{ACCEPT, agreeing, agreement, echo, frame, masked};

/// A gateway in front of an upstream of WebSockets and, at `/plain`, one that answers once it is let; a connection to it,
/// and what lets that upstream answer.
struct Stage {
    gateway: Gateway,
    upstream: Upstream,
    plain: Upstream,
    client: Client,
    go: watch::Sender<bool>,
}

impl Stage {
    /// In the tables `{up}` is the upstream of WebSockets.
    async fn new(upstream: Upstream, tables: &str) -> Self {
        let (plain, go) = Upstream::holding().await;
        let aside = PUBLIC.replace("\"all\"", "\"plain\"\nmatch = { path = \"/plain\" }");
        let tables = format!("{}{}", tables.replace("{up}", &upstream.url()), aside.replace("{up}", &plain.url()));
        let gateway = Gateway::start(tables).await;
        let client = connected(&gateway).await;
        Self { gateway, upstream, plain, client, go }
    }

    /// `Authorization`.
    fn bearer(&self) -> String {
        format!("Bearer {}", self.gateway.session_token("bob"))
    }
}

/// A connection whose settings have come: nobody may ask for a WebSocket before.
async fn connected(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.address).await;
    assert_eq!(client.ask(get("/nowhere/../x")).await.status, 400);
    client
}

fn get(path: &str) -> http::Request<http2::Body> {
    http::Request::get(format!("http://gateway.test{path}")).body(empty()).unwrap()
}

#[tokio::test]
async fn a_stream_becomes_a_websocket_with_its_token_and_its_neighbours_are_served() {
    let mut stage = Stage::new(echo().await, MINTING).await;
    stage.go.send(true).unwrap();
    let bearer = stage.bearer();
    let headers = [
        ("authorization", bearer.as_str()),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "graphql-transport-ws"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("origin", "https://elsewhere.example"),
    ];
    let (answer, mut socket) = stage.client.open("/v1/graphql?a=b", &headers).await;
    for gone in ["sec-websocket-accept", "connection", "upgrade", "content-length"] {
        assert!(!answer.contains_key(gone), "{gone}: {answer:?}");
    }
    let seen = stage.upstream.only();
    assert_eq!(seen.start, "GET /v1/graphql?a=b HTTP/1.1");
    assert_eq!((seen.one("connection"), seen.one("upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!((seen.one("host"), seen.one("sec-websocket-version")), (Some("gateway.test"), Some("13")));
    assert_eq!(seen.one("sec-websocket-protocol"), Some("graphql-transport-ws"));
    assert_eq!(seen.one("sec-websocket-extensions"), Some("permessage-deflate"));
    let key = seen.one("sec-websocket-key").unwrap();
    assert!(key.len() == 24 && key != "dGhlIHNhbXBsZSBub25jZQ==", "one of our own: {key}");
    let token = seen.one("authorization").unwrap();
    assert!(token.starts_with("Bearer ") && token != stage.bearer());
    for length in [0, 5, 125, 126, 65_535, 65_536, 1_000_000] {
        let payload = vec![9; length];
        socket.send(masked(0x82, &payload)).await;
        assert!(socket.frame().await.unwrap().payload == payload, "{length}");
        assert_eq!(stage.client.ask(get("/plain")).await.outcome(), (200, ""));
    }
    assert_eq!(stage.gateway.metric("mintgate_websockets{route=\"all\"}").await, "1");
    let (_, mut second) = stage.client.open("/", &[("authorization", &stage.bearer())]).await;
    let keys: Vec<_> =
        stage.upstream.requests().iter().map(|seen| seen.one("sec-websocket-key").map(str::to_owned)).collect();
    assert_ne!(keys[0], keys[1]);
    socket.send(masked(0x88, b"\x03\xe8bye")).await;
    assert_eq!(socket.closing().await, (false, 1000, "bye".to_owned()));
    assert!(socket.is_closed().await);
    second.send(masked(0x81, b"still")).await;
    assert_eq!(second.frame().await.unwrap().payload, b"still");
    assert_eq!(stage.client.ask(get("/plain")).await.outcome(), (200, ""));
}

/// Opens a WebSocket beside a request that waits, lets `end` bring its end about, and returns the code, the reason and the
/// seconds after which the caller was told. The upstream must hear the same, and the request must be answered.
async fn ended(tables: &str, end: impl AsyncFnOnce(&mut Gateway)) -> (u16, String, u64) {
    let heard = Arc::new(Mutex::new(None));
    let there = Arc::clone(&heard);
    let upstream = agreeing(move |mut visit| {
        let there = Arc::clone(&there);
        async move {
            visit.wire.wait().await;
            let told = visit.wire.closing().await;
            visit.wire.send(frame(0x88, &told.1.to_be_bytes())).await;
            assert!(visit.wire.is_closed().await);
            *there.lock().unwrap() = Some(told);
        }
    })
    .await;
    let mut stage = Stage::new(upstream, tables).await;
    let bearer = stage.bearer();
    let (_, mut socket) = stage.client.open("/", &[("authorization", &bearer)]).await;
    let mut neighbour = stage.client.clone();
    let plain = async move { Answer::whole(neighbour.send(get("/plain")).await.unwrap()).await };
    let ending = async {
        stage.plain.received(1).await;
        tokio::time::pause();
        let began = Instant::now();
        end(&mut stage.gateway).await;
        tokio::time::timeout(Duration::from_hours(2), socket.wait()).await.expect("the caller is told");
        let (masked_, code, reason) = socket.closing().await;
        let seconds = began.elapsed().as_secs();
        assert!(!masked_);
        socket.send(masked(0x88, &code.to_be_bytes())).await;
        assert!(socket.is_closed().await);
        drop(socket);
        tokio::time::resume();
        eventually("the upstream is told", || heard.lock().unwrap().is_some()).await;
        assert_eq!(heard.lock().unwrap().take(), Some((true, code, reason.clone())), "masked, and the same");
        stage.go.send(true).unwrap();
        (code, reason, seconds)
    };
    let (answer, ended) = tokio::join!(plain, ending);
    assert_eq!(answer.outcome(), (200, ""), "another stream goes on");
    ended
}

fn minting(rule: &str) -> String {
    format!("{MINTING}websocket = {rule}\n")
}

#[tokio::test]
async fn a_websocket_on_a_stream_ends_with_its_token_and_its_neighbours_do_not() {
    // The request beside it waits for less than the token lives: the clock is set forward.
    let set = async |gateway: &mut Gateway| gateway.clock.step(120_000);
    let (code, reason, seconds) = ended(&minting("{ close_at = \"token\" }"), set).await;
    assert_eq!((code, reason.as_str()), (4401, "token expired"));
    assert!(seconds <= 2, "{seconds}");
}

#[tokio::test]
async fn a_revocation_ends_a_websocket_on_a_stream_and_not_its_neighbours() {
    let revoke = async |gateway: &mut Gateway| {
        let sid = mintgate::session::SessionId::new("sess_emulator_bob").unwrap();
        gateway.revoked.revoke_session(sid, Instant::now());
    };
    let (code, reason, seconds) = ended(&minting("true"), revoke).await;
    assert_eq!((code, reason.as_str()), (4403, "session revoked"));
    assert!(seconds <= 2, "{seconds}");
}

#[tokio::test]
async fn a_drain_says_goodbye_on_a_stream_and_finishes_its_neighbours() {
    let (code, _, seconds) = ended(&minting("true"), async |gateway| gateway.tell()).await;
    assert_eq!(code, 1001);
    assert!(seconds <= 1, "{seconds}");
}

/// A page of any site can open a WebSocket, over whatever version of HTTP its browser has a connection.
#[tokio::test]
async fn a_cookie_opens_a_websocket_on_a_stream_for_a_trusted_page_only() {
    let mut stage = Stage::new(echo().await, MINTING).await;
    let cookie = format!("__client_uat=1; __session={}", stage.gateway.session_token("bob"));
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let answer = Answer::whole(stage.client.connect_as("websocket", "/", &headers).await).await;
        assert_eq!(answer.outcome(), (403, "origin-forbidden"), "{origin:?}");
    }
    assert_eq!(stage.upstream.count(), 0);
    for origin in [PARTY, "http://gateway.test"] {
        stage.client.open("/", &[("cookie", &cookie), ("origin", origin)]).await;
    }
    assert_eq!(stage.upstream.last().one("cookie"), None);
}

#[tokio::test]
async fn what_the_upstream_says_instead_of_101_passes_where_it_is_no_success() {
    for (said, status) in [("403 Forbidden", 403), ("302 Found", 302), ("426 Upgrade Required", 426), ("500 Oh", 500)] {
        let answer = format!("HTTP/1.1 {said}\r\ncontent-length: 2\r\nx-mine: 1\r\n\r\nno");
        let mut stage = Stage::new(Upstream::answering(answer).await, PUBLIC).await;
        let answer = Answer::whole(stage.client.connect_as("websocket", "/", &[]).await).await;
        assert_eq!((answer.outcome(), &answer.body[..]), ((status, ""), &b"no"[..]));
        assert_eq!(answer.headers["x-mine"], "1");
        stage.go.send(true).unwrap();
        assert_eq!(stage.client.ask(get("/plain")).await.outcome(), (200, ""));
    }
}

/// A caller takes every success for its WebSocket. Fails without the look at the success in `Handshake::is_agreed`.
#[tokio::test]
async fn no_answer_but_the_right_101_opens_a_stream() {
    let good = agreement(ACCEPT);
    for said in [
        OK.to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n".to_owned(),
        // It answers the key of the RFC's example, and not ours.
        good.clone(),
        good.replace("upgrade: WebSocket\r\n", "upgrade: h2c\r\n"),
    ] {
        let mut stage = Stage::new(Upstream::answering(said.clone()).await, PUBLIC).await;
        let answer = Answer::whole(stage.client.connect_as("websocket", "/", &[]).await).await;
        assert_eq!(answer.outcome(), (502, "upstream-broken"), "{said}");
        assert_eq!(stage.upstream.connections(), 1, "never asked twice");
    }
}

/// Fails when such a request is forwarded as an ordinary one, as it is over HTTP/1.1, and for gRPC when errors of a CONNECT
/// are gRPC's: those come with 200.
#[tokio::test]
async fn what_is_no_websocket_opens_no_stream() {
    let tables = format!(
        "{MINTING}[[routes]]\nname = \"off\"\nmatch = {{ path = \"/off\" }}\nupstream = \"{{up}}\"\nsession = []\nwebsocket = false\n\
         [[routes]]\nname = \"on\"\nmatch = {{ path = \"/on\" }}\nupstream = \"{{up}}\"\nsession = []\n"
    );
    let mut stage = Stage::new(Upstream::answering(OK).await, &tables).await;
    let grpc = ("content-type", "application/grpc");
    for (protocol, path, headers, outcome) in [
        ("websocket", "/off", &[][..], (501, "protocol-unsupported")),
        ("connect-udp", "/on", &[], (501, "protocol-unsupported")),
        ("connect-udp", "/on", &[grpc], (501, "protocol-unsupported")),
        ("websocket/13", "/on", &[], (501, "protocol-unsupported")),
        ("websocket", "/on", &[("sec-websocket-version", "12")], (400, "request-malformed")),
        ("websocket", "/on", &[("sec-websocket-version", "8, 13")], (400, "request-malformed")),
        ("websocket", "/", &[], (401, "session-missing")),
        ("websocket", "/", &[grpc], (401, "session-missing")),
        ("websocket", "/on/../x", &[], (400, "request-malformed")),
    ] {
        let answer = Answer::whole(stage.client.connect_as(protocol, path, headers).await).await;
        assert_eq!(answer.outcome(), outcome, "{protocol} {path} {headers:?}");
    }
    for headers in [vec![], vec![grpc]] {
        let mut plain = http::Request::connect("gateway.test:80");
        for (name, value) in headers {
            plain = plain.header(name, value);
        }
        assert_eq!(stage.client.ask(plain.body(empty()).unwrap()).await.outcome(), (405, "method-not-allowed"));
    }
    assert_eq!(stage.upstream.count(), 0);
    stage.go.send(true).unwrap();
    assert_eq!(stage.client.ask(get("/plain")).await.outcome(), (200, ""), "and the connection stays");
}

/// Only the proxy's door offers them. Fails where `with_websockets` is every door's.
#[tokio::test]
async fn no_other_door_offers_websockets_over_http2() {
    let gateway = Gateway::start("[authz]\nlisten = \"127.0.0.1:0\"\n[[routes]]\nname = \"all\"\nsession = []\n").await;
    for door in [gateway.authz.unwrap(), gateway.admin] {
        let mut client = Client::connect(door).await;
        let status = client.ask(get("/")).await.status;
        let extended = http::Request::connect("http://gateway.test/")
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .body(empty())
            .unwrap();
        assert!(client.send(extended).await.is_err(), "{door} offers RFC 8441, and says {status}");
    }
}
