//! Where requests go: Unix sockets, several addresses of one upstream, addresses that refuse.

use std::net::SocketAddr;
use std::time::Duration;

use http::Response;
use tokio::net::TcpListener;

use super::get;
use crate::support::directory::Directory;
use crate::support::doors::Door;
use crate::support::gateway::Gateway;
use crate::support::http2::{self, full};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// A public route to the upstream `up` with these keys.
async fn to(keys: &str) -> Gateway {
    routed(keys, "").await
}

async fn routed(keys: &str, route: &str) -> Gateway {
    let route = format!("[[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n{route}");
    Gateway::start(format!("[upstreams.up]\n{keys}\n\n{route}")).await
}

fn urls(addresses: &[SocketAddr]) -> String {
    let urls: Vec<_> = addresses.iter().map(|address| format!("\"http://{address}\"")).collect();
    format!("urls = [{}]", urls.join(", "))
}

/// An address at which nobody listens; it is bound, so that nobody else gets it.
fn refusing() -> (std::net::TcpListener, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let listener: std::net::TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that takes no connection and refuses none: its backlog is full for as long as this is held.
fn deaf() -> (socket2::Socket, Vec<std::net::TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
    let held: Vec<_> = std::iter::from_fn(connect).take(16).collect();
    assert!(held.len() < 16, "the backlog is never full");
    (socket, held, address)
}

#[tokio::test]
async fn an_address_that_takes_no_connection_leaves_the_next_one_its_time() {
    let upstream = Upstream::answering(OK).await;
    let (_socket, _held, deaf) = deaf();
    // To connect may take longer than the answer, so the time of the answer is what ends the attempt.
    let keys = format!("{}\nconnect_timeout = \"30s\"\nresponse_timeout = \"6s\"", urls(&[deaf, upstream.address]));
    let gateway = to(&keys).await;
    let asks = (0..12).map(|_| async {
        let mut client = Wire::connect(gateway.address).await;
        client.ask(get("/", "")).await.outcome().0
    });
    assert_eq!(futures_util::future::join_all(asks).await, [200; 12]);
}

#[tokio::test]
async fn a_unix_socket_is_an_upstream_in_http1() {
    let directory = Directory::new();
    let path = directory.path("app.sock");
    let upstream = Upstream::ok(Door::unix(&path));
    for (preserve, host) in [("", "gateway.test"), ("preserve_host = false", "localhost")] {
        let gateway = routed(&format!("url = \"unix:{}\"", path.display()), preserve).await;
        let mut client = Wire::connect(gateway.address).await;
        for _ in 0..2 {
            assert_eq!(client.ask(get("/a?b", "")).await.outcome(), (200, ""));
        }
        let seen = upstream.last();
        assert_eq!((seen.start.as_str(), seen.one("host")), ("GET /a?b HTTP/1.1", Some(host)));
    }
    assert_eq!((upstream.count(), upstream.connections()), (4, 2), "connections are kept");
}

#[tokio::test]
async fn a_unix_socket_is_an_upstream_in_http2() {
    let directory = Directory::new();
    let path = directory.path("app.sock");
    let upstream = http2::Upstream::behind(Door::unix(&path), || Response::new(full("ok")));
    for (preserve, host) in [("", "gateway.test"), ("preserve_host = false", "localhost")] {
        let gateway = routed(&format!("url = \"unix:{}\"\nhttp2 = true", path.display()), preserve).await;
        assert_eq!(Wire::connect(gateway.address).await.ask(get("/", "")).await.outcome(), (200, ""));
        assert_eq!(upstream.last().head.uri.to_string(), format!("http://{host}/"));
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn a_route_may_name_a_unix_socket_itself() {
    let directory = Directory::new();
    let path = directory.path("app.sock");
    let upstream = Upstream::ok(Door::unix(&path));
    let route = format!("[[routes]]\nname = \"all\"\nupstream = \"unix:{}\"\nsession = []\n", path.display());
    let gateway = Gateway::start(route).await;
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/", "")).await.outcome(), (200, ""));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_unix_socket_that_is_not_there_is_unreachable() {
    let directory = Directory::new();
    let gateway = to(&format!("url = \"unix:{}\"", directory.path("none.sock").display())).await;
    let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
    assert_eq!(answer.outcome(), (502, "upstream-unreachable"));
}

#[tokio::test]
async fn requests_are_spread_over_all_addresses_by_their_load() {
    // Nobody answers, so every request stays under way and is load.
    let hold = || {
        Upstream::scripted(|mut visit| async move {
            visit.request().await;
            visit.wire.until_closed().await;
        })
    };
    let (one, two) = (hold().await, hold().await);
    let gateway = to(&urls(&[one.address, two.address])).await;
    let mut clients = Vec::new();
    for sent in 1..=20 {
        let mut client = Wire::connect(gateway.address).await;
        client.send(get("/", "")).await;
        clients.push(client);
        crate::support::eventually("it arrives", || one.count() + two.count() == sent).await;
    }
    assert_eq!((one.count(), two.count()), (10, 10), "of two the less loaded");
}

#[tokio::test]
async fn each_address_gets_its_own_host() {
    let (one, two) = (Upstream::ok(Door::tcp().await), Upstream::ok(Door::tcp().await));
    let gateway = routed(&urls(&[one.address, two.address]), "preserve_host = false").await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..40 {
        assert_eq!(client.ask(get("/", "")).await.status(), 200);
    }
    for upstream in [&one, &two] {
        let (seen, own) = (upstream.requests(), upstream.address.to_string());
        assert!(!seen.is_empty() && seen.iter().all(|request| request.one("host") == Some(own.as_str())));
        assert_eq!(upstream.connections(), 1, "each has its own pool");
    }
}

#[tokio::test]
async fn an_address_that_refuses_costs_no_request_whatever_its_method() {
    let (_bound, dead) = refusing();
    let upstream = Upstream::ok(Door::tcp().await);
    for method in ["GET", "POST", "DELETE"] {
        let gateway = to(&urls(&[dead, upstream.address])).await;
        for _ in 0..20 {
            let ask = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
            let answer = Wire::connect(gateway.address).await.ask(ask).await;
            assert_eq!(answer.outcome(), (200, ""), "{method}");
            assert_eq!(upstream.last().body, b"abc");
        }
    }
}

#[tokio::test]
async fn when_every_address_refuses_the_upstream_is_unreachable() {
    let (_one, one) = refusing();
    let (_two, two) = refusing();
    let gateway = to(&urls(&[one, two])).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..20 {
        assert_eq!(client.ask(get("/", "")).await.outcome(), (502, "upstream-unreachable"));
    }
}

#[tokio::test]
async fn an_ejected_address_is_left_alone_for_ten_seconds_and_then_tried_by_one_request() {
    let (bound, dead) = refusing();
    let alive = Upstream::ok(Door::tcp().await);
    let gateway = to(&format!("{}\npool = {{ max_idle = 0 }}", urls(&[dead, alive.address]))).await;
    let ask = async || {
        let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
        assert_eq!(answer.outcome(), (200, ""));
    };
    // Every request connects anew. Far more than the draws that five failures take: a chance of 2^-40 or so.
    tokio::time::pause();
    for _ in 0..100 {
        ask().await;
    }
    // Whoever is sent there from now on is seen.
    drop(bound);
    let revived = Upstream::ok(Door::Tcp(TcpListener::bind(dead).await.unwrap()));
    for _ in 0..50 {
        ask().await;
    }
    assert_eq!((revived.count(), alive.count()), (0, 150), "ejected");
    tokio::time::advance(Duration::from_secs(10)).await;
    ask().await;
    assert_eq!((revived.count(), alive.count()), (1, 150), "its time is over: the next request tries it");
    for _ in 0..50 {
        ask().await;
    }
    assert!(revived.count() > 1, "it has proved itself");
}

#[tokio::test]
async fn an_address_that_dies_under_kept_connections_is_left() {
    let dying = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send(OK).await;
    })
    .await;
    let alive = Upstream::ok(Door::tcp().await);
    let gateway = to(&urls(&[dying.address, alive.address])).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..50 {
        assert_eq!(client.ask(get("/", "")).await.outcome(), (200, ""));
    }
    assert!(dying.count() > 1 && alive.count() > 1);
}
