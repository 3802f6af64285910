//! The limits of a pool and of connecting, over every transport where they differ.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::get;
use crate::support::authority::Authority;
use crate::support::directory::Directory;
use crate::support::doors::Door;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::http2::{self, full};
use crate::support::upstream::{OK, Upstream, Visit};
use crate::support::wire::Wire;

/// How an upstream is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Tcp,
    Unix,
    Tls,
}

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

    /// A door, and the keys of the upstream behind it.
    async fn door(&self, over: Over, alpn: &str) -> (Door, String) {
        match over {
            Over::Tcp => {
                let door = Door::tcp().await;
                let keys = format!("url = \"http://{}\"\nhttp2 = {}\n", door.address(), alpn == "h2");
                (door, keys)
            }
            Over::Unix => {
                let path = self.files.path("app.sock");
                let _ = std::fs::remove_file(&path);
                (Door::unix(&path), format!("url = \"unix:{}\"\nhttp2 = {}\n", path.display(), alpn == "h2"))
            }
            Over::Tls => {
                let door = Door::tls(self.authority.server(&["127.0.0.1"], &[alpn])).await;
                let ca = self.files.path("ca.pem");
                let keys =
                    format!("url = \"https://{}\"\ntls = {{ ca_file = \"{}\" }}\n", door.address(), ca.display());
                (door, keys)
            }
        }
    }
}

async fn to(keys: &str, pool: &str) -> Gateway {
    let route = "[[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n";
    Gateway::start(format!("[upstreams.up]\n{keys}{pool}\n\n{route}")).await
}

async fn answers(mut visit: Visit) {
    while visit.request().await.is_some() {
        visit.wire.send(OK).await;
    }
}

async fn ask(gateway: &Gateway) {
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/", "")).await.outcome(), (200, ""));
}

/// An answer whose head comes and whose end does not.
fn endless() -> Response<http2::Body> {
    let frames = futures_util::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
    Response::new(StreamBody::new(frames).boxed())
}

#[tokio::test]
async fn no_more_connections_are_kept_than_max_idle() {
    let world = World::new();
    for over in [Over::Tcp, Over::Unix, Over::Tls] {
        for (most, connections) in [(0, 3), (1, 1)] {
            let (door, keys) = world.door(over, "http/1.1").await;
            let upstream = Upstream::behind(door, answers);
            let gateway = to(&keys, &format!("pool = {{ max_idle = {most} }}")).await;
            for _ in 0..3 {
                ask(&gateway).await;
            }
            assert_eq!(upstream.connections(), connections, "{over:?} {most}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_serves_no_more() {
    let world = World::new();
    for over in [Over::Tcp, Over::Unix, Over::Tls] {
        for (seconds, connections) in [(1, 1), (10, 2)] {
            let (door, keys) = world.door(over, "http/1.1").await;
            let upstream = Upstream::behind(door, answers);
            let gateway = to(&keys, "pool = { idle_timeout = \"5s\" }").await;
            ask(&gateway).await;
            tokio::time::pause();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            ask(&gateway).await;
            tokio::time::resume();
            assert_eq!(upstream.connections(), connections, "{over:?} {seconds}");
        }
        let (door, keys) = world.door(over, "h2").await;
        let upstream = http2::Upstream::behind(door, || Response::new(full("ok")));
        let gateway = to(&keys, "pool = { idle_timeout = \"5s\" }").await;
        ask(&gateway).await;
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(30)).await;
        ask(&gateway).await;
        tokio::time::resume();
        assert_eq!(upstream.connections(), 2, "{over:?} h2");
    }
}

/// Between two looks of the reaper, which comes once a second. Fails without `is_fresh` in the pool of HTTP/1.
#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_serves_no_more_although_it_is_there() {
    let (door, keys) = World::new().door(Over::Tcp, "http/1.1").await;
    let upstream = Upstream::behind(door, answers);
    let gateway = to(&keys, "pool = { idle_timeout = \"100ms\" }").await;
    for visits in 1..=5 {
        ask(&gateway).await;
        assert_eq!(upstream.connections(), visits);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn no_more_connections_are_open_than_max_connections() {
    let world = World::new();
    for over in [Over::Tcp, Over::Unix, Over::Tls] {
        let (door, keys) = world.door(over, "http/1.1").await;
        let (go, gone) = tokio::sync::watch::channel(false);
        let upstream = Upstream::behind(door, move |mut visit| {
            let mut gone = gone.clone();
            async move {
                while visit.request().await.is_some() {
                    let _ = gone.wait_for(|gone| *gone).await;
                    visit.wire.send(OK).await;
                }
            }
        });
        let gateway = to(&keys, "pool = { max_connections = 2 }").await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            let mut client = Wire::connect(gateway.address).await;
            client.send(get("/", "")).await;
            clients.push(client);
        }
        eventually("two arrive", || upstream.count() == 2).await;
        go.send(true).unwrap();
        for client in &mut clients {
            assert_eq!(client.response().await.outcome(), (200, ""));
        }
        assert_eq!((upstream.count(), upstream.connections()), (6, 2), "{over:?}");
    }
}

#[tokio::test]
async fn another_http2_connection_is_opened_when_one_carries_max_streams() {
    let world = World::new();
    for over in [Over::Tcp, Over::Unix, Over::Tls] {
        for (pool, connections) in
            [("max_streams = 2", 3), ("max_streams = 100", 1), ("max_streams = 2, max_connections = 1", 1)]
        {
            let (door, keys) = world.door(over, "h2").await;
            let upstream = http2::Upstream::behind(door, endless);
            let gateway = to(&keys, &format!("pool = {{ {pool} }}")).await;
            let mut clients = Vec::new();
            for _ in 0..6 {
                let mut client = Wire::connect(gateway.address).await;
                client.send(get("/", "")).await;
                clients.push(client);
                // What is beyond the streams of the one connection that may be open waits.
                if pool.ends_with("_connections = 1") && clients.len() > 2 {
                    continue;
                }
                clients.last_mut().unwrap().response_head().await.unwrap();
            }
            assert_eq!(upstream.connections(), connections, "{over:?} {pool}");
        }
    }
}

#[tokio::test]
async fn connecting_takes_no_longer_than_it_may() {
    // Nobody accepts, and the kernel takes no more of them in.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let files = Directory::new();
    let path = files.path("full.sock");
    let unix = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    unix.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    unix.listen(0).unwrap();
    let (mut tcp, mut waiting) = (Vec::new(), Vec::new());
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        tcp.push(stream);
    }
    while let Ok(stream) = UnixStream::connect(&path).await {
        waiting.push(stream);
    }
    for keys in [
        format!("url = \"http://{address}\"\n"),
        format!("url = \"http://{address}\"\nhttp2 = true\n"),
        format!("url = \"https://{address}\"\n"),
        format!("url = \"unix:{}\"\n", path.display()),
    ] {
        let gateway = to(&keys, "connect_timeout = \"3s\"").await;
        tokio::time::pause();
        let began = Instant::now();
        let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
        tokio::time::resume();
        assert_eq!(answer.outcome(), (502, "upstream-unreachable"), "{keys}");
        assert_eq!(began.elapsed().as_secs(), 3, "{keys}");
    }
}
