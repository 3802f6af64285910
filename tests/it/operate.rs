//! What operates a gateway that runs: the service manager, the control listener, `health` and `wait`.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Binary, until};
use crate::proxy::get;
use crate::support::directory::Directory;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

fn config(upstream: &Upstream, admin: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n\
         [[routes]]\nname = \"all\"\nupstream = \"{}\"\nsession = []\n",
        upstream.url()
    )
}

/// What the service manager has been told since it was asked last.
fn told(manager: &UnixDatagram) -> Vec<String> {
    let (mut told, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length) = manager.recv(&mut buffer) {
        told.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    told
}

#[tokio::test]
async fn the_service_manager_hears_of_start_reloads_and_end_and_that_the_process_lives() {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let path = directory.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let vars = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "60000")];
    let mut binary = Binary::start("manager", &config(&upstream, ""), &vars).await;
    let mut heard = Vec::new();
    let mut hears = async |line: &str| {
        until(line, || {
            heard.extend(told(&manager));
            heard.iter().any(|said: &String| said.lines().any(|said| said.starts_with(line)))
        })
        .await;
        std::mem::take(&mut heard)
    };
    let first = hears("READY=1").await;
    assert!(!first.concat().contains("STOPPING"), "{first:?}");
    hears("WATCHDOG=1").await;
    binary.hang_up();
    let reloading = hears("RELOADING=1").await.concat();
    let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(since.parse::<u64>().unwrap() > 0, "{reloading}");
    if !reloading.split_once("RELOADING=1").unwrap().1.contains("READY=1") {
        hears("READY=1").await;
    }
    binary.terminate();
    hears("STOPPING=1").await;
    until("the process ends", || binary.ended().is_some()).await;
}

/// Fails where files are followed only once the keys have come, or have been waited for in vain.
#[tokio::test]
async fn who_corrects_a_file_does_not_wait_for_keys_that_do_not_come() {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let path = directory.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    // Nobody listens on port 1.
    let no_keys = config(&upstream, "").replace("session = []", "session = [\"bearer\"]")
        + "[clerk]\njwks_url = \"http://127.0.0.1:1/jwks\"\nissuer = \"https://clerk.example.com\"\n";
    let binary = Binary::start_listening("no-keys", &no_keys, &[("NOTIFY_SOCKET", path.to_str().unwrap())]).await;
    binary.hang_up();
    let mut all = String::new();
    until("it reloads", || {
        all.push_str(&told(&manager).concat());
        all.contains("RELOADING=1")
    })
    .await;
    let before = all.split("RELOADING=1").next().unwrap();
    assert!(!before.contains("READY=1"), "it has waited for the keys first: {all}");
}

/// Fails when the watchdog is told of a process whose workers stand still.
#[tokio::test]
async fn a_watchdog_hears_nothing_of_a_process_that_stands_still() {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let path = directory.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let vars = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "1")];
    let binary = Binary::start("other-watchdog", &config(&upstream, ""), &vars).await;
    let mut all = String::new();
    until("it is ready", || {
        all.push_str(&told(&manager).concat());
        all.contains("READY=1")
    })
    .await;
    assert!(!all.contains("WATCHDOG"), "the watchdog is another process's: {all}");
    drop(binary);
}

async fn asked(socket: &Path, request: &str) -> (u16, String) {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let answer = Wire::over(stream).ask(request).await;
    (answer.status(), answer.text().to_owned())
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn the_control_listener_changes_the_log_and_ends_the_process() {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let socket = directory.path("control.sock");
    let config = config(&upstream, &format!("control = \"unix:{}\"", socket.display()));
    let mut binary = Binary::start("control", &config, &[]).await;
    let debug = || binary.log().contains("\"level\":\"DEBUG\"");
    assert_eq!(Wire::connect(binary.address).await.ask(get("/", "")).await.status(), 200);
    assert!(!debug(), "{}", binary.log());
    let (status, text) = asked(&socket, &post("/log", "", "debug,mintgate=trace")).await;
    assert_eq!((status, text.as_str()), (200, "log filter: debug,mintgate=trace\n"));
    // What is no HTTP is told at this level.
    let mut wire = Wire::connect(binary.address).await;
    wire.send("no http at all\r\n\r\n").await;
    wire.until_closed().await;
    until("debug lines come", debug).await;
    let (status, text) = asked(&socket, &post("/log", "", "mintgate=loud")).await;
    assert!(status == 400 && text.starts_with("the log filter stays as it is: "), "{text}");
    assert_eq!(asked(&socket, &post("/quit", "Origin: http://localhost\r\n", "")).await.0, 403);
    assert_eq!(binary.ended(), None);
    assert_eq!(asked(&socket, &post("/quit", "", "")).await.0, 202);
    until("the process ends", || binary.ended().is_some()).await;
    assert_eq!(binary.ended().unwrap().code(), Some(0), "{}", binary.log());
    assert!(!socket.exists());
}

#[tokio::test]
async fn on_tcp_the_control_listener_asks_for_its_token() {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let token = directory.write("token", "control-canary\n");
    let admin = format!("control = \"127.0.0.1:0\"\ntoken = {{ file = \"{}\" }}", token.display());
    let mut binary = Binary::start("control-tcp", &config(&upstream, &admin), &[]).await;
    let control = binary.said("control listening").unwrap();
    for (header, status) in [
        ("", 401),
        ("Authorization: Bearer control-canarz\r\n", 401),
        ("Authorization: Bearer control-canary\r\n", 202),
    ] {
        let answer = Wire::connect(control).await.ask(post("/quit", header, "")).await;
        assert_eq!(answer.status(), status, "{header}");
    }
    until("the process ends", || binary.ended().is_some()).await;
    assert!(!binary.log().contains("control-canar"), "{}", binary.log());
}

fn mintgate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mintgate")).args(args).output().unwrap()
}

#[tokio::test]
async fn health_and_wait_tell_by_their_exit_status_whether_a_gateway_is_ready() {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let socket = directory.path("admin.sock");
    let text = config(&upstream, "")
        .replace("listen = \"127.0.0.1:0\"\n", &format!("listen = \"unix:{}\"\n", socket.display()));
    let path = directory.write("mintgate.toml", &text);
    let path = path.to_str().unwrap();
    let by_config = ["health", "--config", path];
    let code = |output: &Output| output.status.code();
    let early = mintgate(&by_config);
    assert_eq!(code(&early), Some(1));
    assert!(String::from_utf8_lossy(&early.stderr).starts_with("not ready: nobody answers at unix:"), "{early:?}");
    let late = mintgate(&["wait", "--config", path, "--timeout", "300ms"]);
    assert!(String::from_utf8_lossy(&late.stderr).starts_with("not ready after 300ms: "), "{late:?}");
    assert_eq!(code(&late), Some(1));
    let waiting = Command::new(env!("CARGO_BIN_EXE_mintgate")).args(["wait", "--config", path]).spawn().unwrap();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_mintgate")).args(["run", "--config", path]).spawn().unwrap();
    assert_eq!(code(&waiting.wait_with_output().unwrap()), Some(0));
    assert_eq!(code(&mintgate(&by_config)), Some(0));
    assert_eq!(code(&mintgate(&["health", "--url", &format!("unix:{}", socket.display())])), Some(0));
    assert_eq!(code(&mintgate(&["health", "--config", "/does/not/exist.toml"])), Some(64));
    // A bare address is no URL: the command line says what to write.
    assert_eq!(code(&mintgate(&["health", "--url", "127.0.0.1:6469"])), Some(2));
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}
