//! TLS to upstreams: who is believed, what is presented, which version of HTTP it turns out to be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mintgate::lifecycle::Spawner;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::get;
use crate::support::authority::Authority;
use crate::support::directory::Directory;
use crate::support::doors::Door;
use crate::support::gateway::Gateway;
use crate::support::http2::{self, full, with_trailers};
use crate::support::upstream::{OK, Upstream};
use crate::support::websocket::{ACCEPT, agreement};
use crate::support::wire::Wire;

const BOTH: [&str; 2] = ["h2", "http/1.1"];
const HTTP1: [&str; 1] = ["http/1.1"];

/// What every test here has: an authority, and its certificate in a file.
struct World {
    authority: Authority,
    files: Directory,
}

impl World {
    fn new() -> Self {
        let (authority, files) = (Authority::new(), Directory::new());
        files.write("ca.pem", &authority.pem);
        Self { authority, files }
    }

    /// A door for the address 127.0.0.1 and for `api.test`.
    async fn door(&self, alpn: &[&str]) -> Door {
        Door::tls(self.authority.server(&["127.0.0.1", "api.test"], alpn)).await
    }

    /// A public route to an upstream at that address that believes the authority. `tls` and `keys` are added to it.
    async fn gateway(&self, address: SocketAddr, tls: &str, keys: &str) -> Gateway {
        self.routed(address, tls, keys, "").await
    }

    async fn routed(&self, address: SocketAddr, tls: &str, keys: &str, route: &str) -> Gateway {
        let ca = self.files.path("ca.pem");
        Gateway::start(format!(
            "[upstreams.up]\nurl = \"https://{address}\"\ntls = {{ ca_file = \"{}\"{tls} }}\n{keys}\n\n\
             [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n{route}\n",
            ca.display()
        ))
        .await
    }
}

async fn ask(gateway: &Gateway) -> (u16, String) {
    let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
    (answer.status(), answer.outcome().1.to_owned())
}

const SERVED: (u16, &str) = (200, "");
const UNREACHABLE: (u16, &str) = (502, "upstream-unreachable");

#[track_caller]
fn is(answer: &(u16, String), expected: (u16, &str)) {
    assert_eq!((answer.0, answer.1.as_str()), expected);
}

#[tokio::test]
async fn an_upstream_without_http2_is_spoken_to_in_http1() {
    let world = World::new();
    for alpn in [&HTTP1[..], &[]] {
        let upstream = Upstream::ok(world.door(alpn).await);
        let gateway = world.routed(upstream.address, "", "", "preserve_host = false").await;
        let mut client = Wire::connect(gateway.address).await;
        for method in ["GET", "POST"] {
            let body = if method == "POST" {
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
            } else {
                "TE: trailers\r\n"
            };
            let answer = client.ask(format!("{method} /a?b HTTP/1.1\r\nHost: gateway.test\r\n{body}\r\n")).await;
            assert_eq!(answer.outcome(), (200, ""));
            let (seen, own) = (upstream.last(), upstream.address.to_string());
            assert_eq!(seen.start, format!("{method} /a?b HTTP/1.1"));
            assert_eq!((seen.one("host"), seen.one("te")), (Some(own.as_str()), None));
        }
        assert_eq!(upstream.last().body, b"abc");
        assert_eq!(upstream.connections(), 1, "it is kept");
    }
}

#[tokio::test]
async fn an_upstream_with_http2_is_spoken_to_in_that() {
    let world = World::new();
    let upstream = http2::Upstream::behind(world.door(&BOTH).await, || {
        Response::new(with_trailers("answer", &[("grpc-status", "0")]))
    });
    for (route, host) in [("preserve_host = false", upstream.address.to_string()), ("", "gateway.test".to_owned())] {
        let gateway = world.routed(upstream.address, "", "", route).await;
        let mut client = Wire::connect(gateway.address).await;
        for _ in 0..3 {
            let ask = "POST /a?b HTTP/1.1\r\nHost: gateway.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\n0\r\n\r\n";
            let answer = client.ask(ask).await;
            assert_eq!((answer.outcome(), answer.text()), ((200, ""), "answer"));
            let seen = upstream.last();
            assert_eq!(seen.head.uri.to_string(), format!("https://{host}/a?b"));
            assert_eq!((&seen.body[..], seen.head.headers["te"].as_bytes()), (&b"abc"[..], &b"trailers"[..]));
            for name in ["host", "transfer-encoding", "connection"] {
                assert!(!seen.head.headers.contains_key(name), "{name}");
            }
        }
    }
    assert_eq!(upstream.connections(), 2, "one for each gateway");
}

#[tokio::test]
async fn grpc_over_negotiated_http2_keeps_te_and_trailers() {
    let world = World::new();
    let upstream = http2::Upstream::behind(world.door(&BOTH).await, || {
        Response::new(with_trailers("", &[("grpc-status", "0"), ("grpc-message", "fine")]))
    });
    let gateway = world.gateway(upstream.address, "", "http2 = true").await;
    let mut client = http2::Client::connect(gateway.address).await;
    for _ in 0..2 {
        let request = http::Request::post("http://a/svc/Method").header("te", "trailers");
        let request = request.header("content-type", "application/grpc").body(full("message")).unwrap();
        let answer = client.ask(request).await;
        assert_eq!((answer.status, answer.trailers["grpc-message"].as_bytes()), (200, &b"fine"[..]));
        assert_eq!(upstream.last().head.headers["te"], "trailers");
    }
}

#[tokio::test]
async fn a_burst_of_first_requests_shares_one_http2_connection() {
    let world = World::new();
    let upstream = http2::Upstream::behind(world.door(&BOTH).await, || Response::new(full("ok")));
    let gateway = world.gateway(upstream.address, "", "").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Wire::connect(gateway.address).await;
        client.send(get("/", "")).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.response().await.outcome(), (200, ""));
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn http2_alone_is_spoken_where_it_is_asked_for() {
    let world = World::new();
    for alpn in [&HTTP1[..], &[]] {
        let upstream = Upstream::ok(world.door(alpn).await);
        let gateway = world.gateway(upstream.address, "", "http2 = true").await;
        is(&ask(&gateway).await, UNREACHABLE);
        assert_eq!(upstream.count(), 0);
    }
}

#[tokio::test]
async fn another_name_or_another_authority_is_not_believed() {
    let world = World::new();
    let stranger = Authority::new();
    for (server, tls) in [
        (world.authority.server(&["other.test", "127.0.0.2"], &BOTH), ""),
        (world.authority.server(&["127.0.0.1"], &BOTH), ", server_name = \"api.test\""),
        (stranger.server(&["127.0.0.1", "api.test"], &BOTH), ""),
        (stranger.server(&["127.0.0.1", "api.test"], &BOTH), ", server_name = \"api.test\""),
    ] {
        let upstream = Upstream::ok(Door::tls(server).await);
        let gateway = world.gateway(upstream.address, tls, "").await;
        is(&ask(&gateway).await, UNREACHABLE);
        assert_eq!(upstream.count(), 0);
    }
}

#[tokio::test]
async fn without_a_file_of_authorities_the_machines_own_are_believed_and_no_others() {
    let world = World::new();
    let upstream = Upstream::ok(world.door(&BOTH).await);
    let gateway = Gateway::start(format!(
        "[[routes]]\nname = \"all\"\nupstream = \"https://{}\"\nsession = []\n",
        upstream.address
    ))
    .await;
    is(&ask(&gateway).await, UNREACHABLE);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn the_name_that_is_configured_is_asked_for_and_an_address_asks_for_none() {
    let world = World::new();
    for (tls, name) in [(", server_name = \"api.test\"", Some("api.test")), ("", None)] {
        let door = world.door(&HTTP1).await;
        let handshakes = door.handshakes();
        let upstream = Upstream::ok(door);
        let gateway = world.gateway(upstream.address, tls, "").await;
        is(&ask(&gateway).await, SERVED);
        assert_eq!(handshakes.all()[0].name.as_deref(), name);
    }
}

#[tokio::test]
async fn a_session_is_resumed() {
    let world = World::new();
    let door = world.door(&HTTP1).await;
    let handshakes = door.handshakes();
    let upstream = Upstream::ok(door);
    let gateway = world.gateway(upstream.address, "", "pool = { max_idle = 0 }").await;
    for _ in 0..2 {
        is(&ask(&gateway).await, SERVED);
    }
    let resumed: Vec<_> = handshakes.all().iter().map(|shaken| shaken.resumed).collect();
    assert_eq!(resumed, [false, true]);
}

/// A door that lets in clients of an authority alone.
async fn guarded(world: &World, clients: &Authority) -> Door {
    Door::tls(world.authority.server_for(&["127.0.0.1"], &HTTP1, Some(clients))).await
}

#[tokio::test]
async fn a_client_certificate_is_given_to_an_upstream_that_demands_one() {
    let (world, clients) = (World::new(), Authority::new());
    let own = clients.certify(&["gateway.test"]);
    let cert = world.files.write("client.pem", &own.cert);
    let key = world.files.write("client.key", &own.key);
    let door = guarded(&world, &clients).await;
    let handshakes = door.handshakes();
    let upstream = Upstream::ok(door);
    let gateway = world.gateway(upstream.address, "", "").await;
    let refused = ask(&gateway).await;
    // With TLS 1.3 the refusal comes after our end of the handshake, so it may look like a broken connection.
    assert!(refused.0 == 502 && upstream.count() == 0, "{refused:?}");
    let tls = format!(", client_cert = \"{}\", client_key = \"{}\"", cert.display(), key.display());
    let gateway = world.gateway(upstream.address, &tls, "").await;
    is(&ask(&gateway).await, SERVED);
    assert_eq!(handshakes.all()[0].certificate, Some(own.der()));
}

#[tokio::test]
async fn a_client_certificate_that_changes_is_presented_from_then_on_and_a_broken_one_is_not() {
    let (world, clients) = (World::new(), Authority::new());
    let (old, new) = (clients.certify(&["old.test"]), clients.certify(&["new.test"]));
    let cert = world.files.write("client.pem", &old.cert);
    let key = world.files.write("client.key", &old.key);
    let door = guarded(&world, &clients).await;
    let handshakes = door.handshakes();
    let upstream = Upstream::ok(door);
    let tls = format!(", client_cert = \"{}\", client_key = \"{}\"", cert.display(), key.display());
    let gateway = world.gateway(upstream.address, &tls, "pool = { max_idle = 0 }").await;
    let presented = async || {
        is(&ask(&gateway).await, SERVED);
        handshakes.all().pop().unwrap().certificate.unwrap()
    };
    assert_eq!(presented().await, old.der());
    tokio::time::pause();
    // Half of the pair: it cannot be used, and the old pair stays.
    world.files.write("client.pem", &new.cert);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(presented().await, old.der());
    world.files.write("client.key", &new.key);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if presented().await == new.der() {
            return;
        }
    }
    panic!("the new certificate is never presented");
}

#[tokio::test]
async fn an_authority_that_is_taken_back_is_believed_no_more() {
    let world = World::new();
    let upstream = Upstream::ok(world.door(&HTTP1).await);
    let gateway = world.gateway(upstream.address, "", "pool = { max_idle = 0 }").await;
    is(&ask(&gateway).await, SERVED);
    world.files.write("ca.pem", Authority::new().pem);
    tokio::time::pause();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if ask(&gateway).await.0 == 502 {
            return;
        }
    }
    panic!("a session of the old authority is resumed for ever");
}

#[tokio::test]
async fn a_get_that_meets_a_dying_tls_connection_is_served_by_another() {
    let world = World::new();
    let upstream = Upstream::behind(world.door(&HTTP1).await, |mut visit| async move {
        while visit.request().await.is_some() {
            visit.wire.send(OK).await;
            if visit.number == 0 {
                visit.request().await;
                return;
            }
        }
    });
    let gateway = world.gateway(upstream.address, "", "").await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        assert_eq!(client.ask(get("/", "")).await.outcome(), (200, ""));
    }
    let requests = upstream.requests();
    assert_eq!((requests.len(), upstream.connections()), (3, 2));
    assert_eq!(requests[1].raw, requests[2].raw, "the same bytes once more");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(client.ask(post).await.outcome(), (200, ""));
}

/// The upstream changes its mind between two connections: first `http/1.1`, whose second request meets a dying
/// connection, then `h2`.
#[tokio::test]
async fn a_request_that_is_sent_again_speaks_what_the_next_connection_speaks() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = |alpn: &[&str]| TlsAcceptor::from(Arc::new(world.authority.server(&["127.0.0.1"], alpn)));
    let (old, new) = (acceptor(&HTTP1), acceptor(&BOTH));
    let (tell, told) = tokio::sync::oneshot::channel();
    drop(Spawner::current().spawn(async move {
        let mut wire = Wire::over(old.accept(listener.accept().await.unwrap().0).await.unwrap());
        wire.request().await.unwrap();
        wire.send(OK).await;
        wire.request().await.unwrap();
        drop(wire);
        let stream = new.accept(listener.accept().await.unwrap().0).await.unwrap();
        let tell = std::sync::Mutex::new(Some(tell));
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let head = request.into_parts().0;
            let _ = tell.lock().unwrap().take().unwrap().send(head);
            async move { hyper::Result::Ok(Response::new(full("new"))) }
        });
        let _ = Builder::new(Spawner::current()).serve_connection(TokioIo::new(stream), service).await;
    }));
    let gateway = world.gateway(address, "", "").await;
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/1", "")).await.text(), "ok");
    let answer = client.ask(get("/2?x", "TE: trailers\r\nx-kept: 1\r\n")).await;
    assert_eq!((answer.outcome(), answer.text()), ((200, ""), "new"));
    let seen = told.await.unwrap();
    assert_eq!((seen.uri.to_string().as_str(), seen.version), ("https://gateway.test/2?x", http::Version::HTTP_2));
    assert_eq!((&seen.headers["te"], &seen.headers["x-kept"]), (&"trailers".parse().unwrap(), &"1".parse().unwrap()));
    assert!(!seen.headers.contains_key("host"));
}

/// The other way round: a stream that is refused unseen on `h2`, and then `http/1.1`.
#[tokio::test]
async fn a_refused_stream_is_sent_again_in_http1_where_that_is_spoken_next() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = |alpn: &[&str]| TlsAcceptor::from(Arc::new(world.authority.server(&["127.0.0.1"], alpn)));
    let (old, new) = (acceptor(&BOTH), acceptor(&HTTP1));
    let (tell, told) = tokio::sync::oneshot::channel();
    drop(Spawner::current().spawn(async move {
        let stream = old.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        drop(Spawner::current().spawn(async move { while connection.accept().await.is_some() {} }));
        let mut wire = Wire::over(new.accept(listener.accept().await.unwrap().0).await.unwrap());
        let _ = tell.send(wire.request().await.unwrap().unwrap());
        wire.send(OK).await;
        wire.until_closed().await;
    }));
    let gateway = world.routed(address, "", "", "preserve_host = true").await;
    let answer = Wire::connect(gateway.address).await.ask(get("/2?x", "TE: trailers\r\n")).await;
    assert_eq!((answer.outcome(), answer.text()), ((200, ""), "ok"));
    let seen = told.await.unwrap();
    assert_eq!((seen.start.as_str(), seen.one("host")), ("GET /2?x HTTP/1.1", Some("gateway.test")));
    assert_eq!((seen.one("te"), seen.one("transfer-encoding")), (None, None));
}

#[tokio::test]
async fn the_handshake_is_part_of_the_time_for_connecting() {
    let world = World::new();
    let silent = Upstream::scripted(|mut visit| async move {
        visit.wire.until_closed().await;
    })
    .await;
    let gateway = world.gateway(silent.address, "", "connect_timeout = \"3s\"").await;
    tokio::time::pause();
    let began = Instant::now();
    is(&ask(&gateway).await, UNREACHABLE);
    assert_eq!(began.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_unreachable() {
    let world = World::new();
    let plain = Upstream::scripted(|mut visit| async move {
        visit.wire.send("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
    })
    .await;
    let gateway = world.gateway(plain.address, "", "").await;
    is(&ask(&gateway).await, UNREACHABLE);
}

#[tokio::test]
async fn several_addresses_are_each_verified_and_one_that_is_not_believed_leads_to_another() {
    let world = World::new();
    let good = Upstream::ok(world.door(&HTTP1).await);
    let bad = Upstream::ok(Door::tls(Authority::new().server(&["127.0.0.1"], &HTTP1)).await);
    let gateway = Gateway::start(format!(
        "[upstreams.up]\nurls = [\"https://{}\", \"https://{}\"]\ntls = {{ ca_file = \"{}\" }}\n\n\
         [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n",
        bad.address,
        good.address,
        world.files.path("ca.pem").display()
    ))
    .await;
    for _ in 0..20 {
        is(&ask(&gateway).await, SERVED);
    }
    assert_eq!((good.count(), bad.count()), (20, 0));
}

#[tokio::test]
async fn a_websocket_is_offered_http1_alone_where_both_are_spoken() {
    let world = World::new();
    let upstream = Upstream::behind(world.door(&BOTH).await, |mut visit| async move {
        visit.request().await;
        visit.wire.send(agreement(ACCEPT)).await;
        visit.wire.until_closed().await;
    });
    let gateway = world.gateway(upstream.address, "", "").await;
    let mut client = Wire::connect(gateway.address).await;
    let answer = client.open("/ws", "").await;
    assert_eq!((answer.status(), upstream.only().start.as_str()), (101, "GET /ws HTTP/1.1"));
}
