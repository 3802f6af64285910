//! The sockets of the gateway: Unix, named ones, systemd's; and how long a connection may live.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Request;
use mintgate::config::validate::{self, Secrets};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::{PUBLIC, get};
use crate::support::directory::Directory;
use crate::support::eventually;
use crate::support::gateway::{Boot, Gateway};
use crate::support::http2;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// A gateway that listens on TCP and on a Unix socket called `local`.
async fn twofold(server: &str, tables: &str) -> (Gateway, Upstream, Directory) {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let listen =
        format!("\"127.0.0.1:0\", {{ name = \"local\", address = \"unix:{}\" }}", directory.path("own.sock").display());
    let boot = Boot::new(tables.replace("{up}", &upstream.url())).server(server).listen(&listen);
    (boot.start().await, upstream, directory)
}

async fn unix(directory: &Directory) -> Wire {
    Wire::over(UnixStream::connect(directory.path("own.sock")).await.unwrap())
}

#[tokio::test]
async fn a_unix_socket_is_served_like_any_other_and_removed_at_the_end() {
    let (mut gateway, upstream, directory) = twofold("", PUBLIC).await;
    let mut wire = unix(&directory).await;
    for path in ["/one", "/two"] {
        assert_eq!(
            wire.ask(get(path, "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n")).await.status(),
            200
        );
    }
    let seen = upstream.last();
    assert_eq!((seen.one("x-forwarded-for"), seen.one("x-forwarded-proto")), (None, Some("http")), "it has no address");
    assert_eq!(seen.one("forwarded"), Some("for=unknown;host=\"gateway.test\";proto=http"));
    let stream = UnixStream::connect(directory.path("own.sock")).await.unwrap();
    let request = Request::get("http://a/three").body(http2::empty()).unwrap();
    assert_eq!(http2::Client::over(stream).await.ask(request).await.status, 200);
    gateway.tell();
    gateway.ended().await;
    assert!(!directory.path("own.sock").exists());
}

#[tokio::test]
async fn a_trusted_unix_peers_words_are_kept() {
    let (gateway, upstream, directory) = twofold("trusted_proxies = [\"unix\"]", PUBLIC).await;
    let said = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n";
    assert_eq!(unix(&directory).await.ask(get("/", said)).await.status(), 200);
    let seen = upstream.last();
    assert_eq!((seen.one("x-forwarded-for"), seen.one("x-forwarded-proto")), (Some("192.0.2.1"), Some("https")));
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/", said)).await.status(), 200);
    assert_eq!(upstream.last().one("x-forwarded-proto"), Some("http"), "a TCP peer is not trusted for that");
}

#[tokio::test]
async fn a_unix_sockets_deadlines_run_too() {
    let (_gateway, _upstream, directory) = twofold("first_byte_timeout = \"5s\"", PUBLIC).await;
    tokio::time::pause();
    let (began, mut wire) = (Instant::now(), unix(&directory).await);
    assert!(wire.is_closed().await);
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn worker_threads_are_handed_unix_sockets() {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let listen = format!("\"127.0.0.1:0\", \"unix:{}\"", directory.path("own.sock").display());
    let boot = Boot::new(PUBLIC.replace("{up}", &upstream.url())).server("workers = 2").listen(&listen).threads();
    let _gateway = boot.start().await;
    for _ in 0..4 {
        assert_eq!(unix(&directory).await.ask(get("/", "")).await.status(), 200);
    }
}

#[tokio::test]
async fn a_route_is_for_the_listener_that_it_names() {
    let tables = "[[routes]]\nname = \"shared\"\nupstream = \"{up}\"\nsession = [\"bearer\"]\n\
                  [[routes]]\nname = \"local\"\nmatch = { listener = \"local\" }\nupstream = \"{up}\"\nsession = []\n\
                  [[routes]]\nname = \"inner\"\nmatch = { path = \"/inner\", listener = \"local\" }\nupstream = \"{up}\"\nsession = []\n";
    let (gateway, upstream, directory) = twofold("", tables).await;
    for path in ["/", "/inner"] {
        assert_eq!(unix(&directory).await.ask(get(path, "")).await.status(), 200, "{path}");
        assert_eq!(Wire::connect(gateway.address).await.ask(get(path, "")).await.outcome(), (401, "session-missing"));
    }
    assert_eq!(upstream.count(), 2);
}

/// An upstream that takes 20 seconds, and a gateway whose connections live that long, time paused.
async fn aged(age: &str) -> (Gateway, Upstream) {
    let slow = Upstream::scripted(|mut visit| async move {
        while visit.request().await.is_some() {
            tokio::time::sleep(Duration::from_secs(20)).await;
            visit.wire.send(OK).await;
        }
    })
    .await;
    let server = format!("max_connection_age = \"{age}\"\nidle_timeout = \"off\"");
    let gateway = Boot::new(PUBLIC.replace("{up}", &slow.url())).server(&server).start().await;
    tokio::time::pause();
    (gateway, slow)
}

#[tokio::test]
async fn an_old_connection_takes_no_further_request() {
    let (gateway, _upstream) = aged("50s").await;
    // What is under way when the age is reached finishes, and says that it was the last one.
    let mut client = Wire::connect(gateway.address).await;
    for last in [false, false, true] {
        let answer = client.ask(get("/", "")).await;
        assert_eq!((answer.status(), answer.one("connection").is_some()), (200, last));
    }
    assert!(client.is_closed().await);
    // Between two requests nothing is closed: the next one is answered, and is the last.
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/", "")).await.one("connection"), None);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(client.ask(get("/", "")).await.one("connection"), Some("close"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_old_http2_connection_finishes_what_is_under_way() {
    let (gateway, upstream) = aged("15s").await;
    let mut client = http2::Client::connect(gateway.address).await;
    let request = || Request::get("http://a/").body(http2::empty()).unwrap();
    assert_eq!(client.ask(request()).await.status, 200);
    assert!(client.send(request()).await.is_err(), "it was told to go away");
    assert_eq!(upstream.count(), 1);
}

/// The program with a listening socket as systemd passes it, under these names.
fn run(config: &Path, names: &str, listener: &UnixListener) -> Child {
    // The shell moves the socket to descriptor 3 and becomes the gateway, so that LISTEN_PID is right.
    Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" run --config \"$1\""])
        .arg(env!("CARGO_BIN_EXE_mintgate"))
        .arg(config)
        .env("LISTEN_FDNAMES", names)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The whole answer to a GET on a Unix socket.
fn asked(socket: &Path, path: &str) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    answer
}

#[tokio::test]
async fn probes_and_metrics_are_served_on_sockets_of_either_kind() {
    let directory = Directory::new();
    let (passed, own, config) = (directory.path("passed.sock"), directory.path("own.sock"), directory.path("m.toml"));
    let listener = UnixListener::bind(&passed).unwrap();
    for (address, socket) in [("systemd:probes", &passed), ("unix:own.sock", &own)] {
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"{address}\"\n[[routes]]\nname = \"all\"\n\
             upstream = \"http://127.0.0.1:1\"\nsession = []\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut gateway = run(&config, "probes", &listener);
        eventually("it listens", || std::os::unix::net::UnixStream::connect(socket).is_ok()).await;
        let answers = ["/readyz", "/metrics", "/nothing"].map(|path| asked(socket, path));
        let terminated = Command::new("kill").arg(gateway.id().to_string()).status().unwrap();
        let ended = gateway.wait().unwrap();
        assert!(answers[0].starts_with("HTTP/1.1 200 "), "{address} {}", answers[0]);
        assert!(answers[1].contains("mintgate_build_info"), "{address} {}", answers[1]);
        assert!(answers[2].starts_with("HTTP/1.1 404 "), "{address} {}", answers[2]);
        assert!(terminated.success() && ended.success(), "{address} {ended}");
        assert!(passed.exists() && !own.exists(), "{address}: systemd's stays, the gateway's own goes");
    }
}

/// As systemd does it: the socket is bound by somebody else, passed as descriptor 3, and named.
#[test]
fn sockets_of_systemd_are_taken_by_their_names() {
    let (directory, path) = (Directory::new(), "/unused");
    let socket = directory.path("passed.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let config = directory.path("mintgate.toml");
    let text = |name: &str| {
        format!(
            "[server]\nlisten = [\"systemd:{name}\"]\n[[routes]]\nname = \"all\"\n\
             upstream = \"http://127.0.0.1:1\"\nsession = []\nmatch = {{ path = \"{path}\" }}\n"
        )
    };
    let run = |names: &str| run(&config, names, &listener);
    std::fs::write(&config, text("web")).unwrap();
    let mut gateway = run("web");
    let answer = asked(&socket, "/");
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("no-route"), "{answer}");
    assert!(socket.exists(), "the entry is systemd's");
    let refused = run("other").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("systemd:web") && said.contains("the names are other"),
        "{said}"
    );
}

#[tokio::test]
async fn a_gateway_does_not_take_a_socket_from_another() {
    let (_gateway, _upstream, directory) = twofold("", PUBLIC).await;
    let config = directory.path("mintgate.toml");
    let text = "[server]\nlisten = [\"unix:own.sock\"]\n[[routes]]\nname = \"all\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n";
    std::fs::write(&config, text).unwrap();
    let second = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_mintgate")).args(["run", "--config"]).arg(&config).output().unwrap()
    });
    let second = second.await.unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another process listens on this socket"), "{said}");
    assert_eq!(unix(&directory).await.ask(get("/", "")).await.status(), 200);
    eventually("the socket is still there", || directory.path("own.sock").exists()).await;
}

#[test]
fn listeners_that_cannot_be_meant_are_told() {
    let route = |matching: &str| {
        format!(
            "[[routes]]\nname = \"{}\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n{matching}\n",
            matching.len()
        )
    };
    let said = |listen: &str, routes: &str| {
        let text = format!("[server]\nlisten = [{listen}]\n{routes}");
        match validate::parse(&text, Path::new("test.toml"), &validate::Process, Secrets::Required) {
            Ok((_, warnings)) => warnings.to_string(),
            Err(problems) => problems.to_string(),
        }
    };
    let named = "{ name = \"local\", address = \"unix:a.sock\" }, \"127.0.0.1:1\"";
    let long = format!("\"unix:/{}\"", "a".repeat(107));
    for (listen, routes, expected) in [
        ("\"unix:\"", route(""), "not the path of a Unix socket"),
        ("\"unix:/run/\"", route(""), "not the path of a Unix socket"),
        (long.as_str(), route(""), "the path is too long for a Unix socket"),
        ("\"systemd:\"", route(""), "not a name of a systemd socket"),
        ("\"systemd:a:b\"", route(""), "not a name of a systemd socket"),
        ("\"unix:a.sock\", \"unix:a.sock\"", route(""), "two listeners have the same address"),
        (named, route("match = { listener = \"locla\" }"), "did you mean `local`?"),
        (
            named,
            route("match = { listener = \"local\" }") + &route("match = { listener = \"local\", path = \"/\" }"),
            "two routes match the same requests",
        ),
    ] {
        let text = said(listen, &routes);
        assert!(text.contains(expected) && text.contains("^^"), "{expected}\n{text}");
    }
    let apart =
        route("") + &route("match = { listener = \"local\" }") + &route("match = {listener = \"127.0.0.1:1\" }");
    assert_eq!(said(named, &apart), "", "on different listeners nothing overlaps");
}
