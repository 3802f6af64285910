//! The whole process under pressure, as a machine would see it: descriptors, memory, signals, what it gives away.

use std::process::Command;
use std::time::Duration;

use http::Method;
use mintgate::commands::seal::seal;
use mintgate::emulator::Options;
use mintgate::lifecycle::Spawner;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::harness::{ALICE, Binary, World, call, client, until};
use crate::proxy::get;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

fn config(upstream: &Upstream, server: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[routes]]\nname = \"public\"\nupstream = \"{}\"\nsession = []\n",
        upstream.url()
    )
}

/// Case 14. Fails where the client of the issuer, or of an upstream, read proxies from the environment.
#[tokio::test]
async fn a_proxy_of_the_environment_hears_neither_the_secret_key_nor_a_token() {
    let world = World::new(Options::default());
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", canary.local_addr().unwrap());
    let key = world.emulator.secret_key().expose().to_owned();
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let mut vars: Vec<(&str, &str)> = names.iter().map(|name| (*name, proxy.as_str())).collect();
    vars.extend([("CLERK_SECRET_KEY", key.as_str()), ("NO_PROXY", "")]);
    let route = "[[routes]]\nname = \"all\"\nupstream = \"up\"\ninject = [{ header = \"authorization\", template = \"plain\" }]\n";
    let binary = Binary::start("proxies", &world.config("", route, false), &vars).await;
    let bearer = world.bearer(ALICE);
    let url = format!("http://{}/", binary.address);
    let answer = call(&client(false), Method::GET, &url, &[("authorization", &bearer)], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((world.script.mints(), world.seen.take().len()), (1, 1));
    let asked = tokio::time::timeout(Duration::from_millis(10), canary.accept()).await;
    assert!(asked.is_err(), "{asked:?}");
}

/// Case 26. Fails without the pause in `Acceptor::accept`, which would spin, and where a failed accept ended the worker.
#[tokio::test]
async fn without_descriptors_it_waits_and_afterwards_it_serves() {
    let upstream = Upstream::answering(OK).await;
    let binary = Binary::start_under("ulimit -n 64", "descriptors", &config(&upstream, ""), &[]).await;
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(TcpStream::connect(binary.address).await.unwrap());
    }
    let refusals = || binary.log().matches("cannot accept connections").count();
    until("descriptors run out", || refusals() > 0).await;
    let (before, began) = (refusals(), Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One line each 50 ms at most, from each of the two listeners; a busy machine makes it fewer.
    let most = usize::try_from(began.elapsed().as_millis()).unwrap() / 50 * 2 + 4;
    assert!(refusals() - before <= most, "{before} and {} more", refusals() - before);
    drop(held);
    let served = async {
        let mut client = Wire::connect(binary.address).await;
        client.ask(get("/", "")).await.status()
    };
    assert_eq!(served.await, 200, "{}", binary.log());
    assert!(!binary.log().contains("panicked"));
}

/// Case 25. Fails with a buffer for each connection that is many times what a caller needs to send for it.
#[tokio::test]
async fn a_head_that_has_not_ended_holds_less_than_a_hundred_times_itself() {
    const CALLERS: u64 = 400;
    const SENT: usize = 1000;
    let upstream = Upstream::answering(OK).await;
    let binary = Binary::start("heads", &config(&upstream, ""), &[]).await;
    let mut held = Vec::new();
    let mut resident = Vec::new();
    // The first round also fills what stays.
    for _ in 0..2 {
        for _ in 0..CALLERS {
            let mut client = Wire::connect(binary.address).await;
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "a".repeat(SENT - 30))).await;
            held.push(client);
        }
        for _ in 0..10 {
            assert_eq!(Wire::connect(binary.address).await.ask(get("/", "")).await.status(), 200);
        }
        resident.push(binary.resident_kib());
    }
    let each = resident[1].saturating_sub(resident[0]) * 1024 / CALLERS;
    assert!(each < 100 * SENT as u64, "{each} bytes for each; resident {resident:?} KiB");
}

/// Set for the process that seals itself: a run of this same test.
const WATCHED: &str = "MINTGATE_TEST_SEALED";

/// Before a command: root lays down its capabilities, by which it may read anything, and also whatever has fewer of them.
#[cfg(target_os = "linux")]
fn without_rights() -> &'static str {
    if rustix::process::getuid().is_root() { "setpriv --bounding-set -all --inh-caps -all" } else { "env" }
}

/// Case 39. Fails where `seal` does not say that the process is not dumpable, or `run` does not call it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_other_process_of_its_user_reads_its_environment_or_where_its_memory_is() {
    let (upstream, before) = (Upstream::answering(OK).await, without_rights());
    let line = format!("exec {before} \"$0\" \"$@\"");
    let binary = Binary::start_under(&line, "unreadable", &config(&upstream, ""), &[("CANARY", "canary")]).await;
    let mut open = Command::new("sh").args(["-c", &format!("exec {before} sleep 60")]).spawn().unwrap();
    let read = |process: u32, file: &str| {
        let line = format!("exec {before} cat /proc/{process}/{file}");
        Command::new("sh").args(["-c", &line]).output().unwrap()
    };
    for file in ["environ", "maps", "auxv"] {
        // Until `sleep` is what it is going to be, it may have more rights than who reads.
        until("any process can be read: else the test is none", || read(open.id(), file).status.success()).await;
        let output = read(binary.id(), file);
        assert!(!output.status.success() && output.stdout.is_empty(), "{file}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("denied"), "{file}: {output:?}");
    }
    open.kill().unwrap();
    open.wait().unwrap();
}

/// Case 39. Fails without `seal`, or where `run` does not call it.
#[tokio::test]
async fn nothing_of_its_memory_can_be_dumped() {
    if std::env::var_os(WATCHED).is_some() {
        seal().unwrap();
        let core = rustix::process::getrlimit(rustix::process::Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::process::dumpable_behavior(), Ok(rustix::process::DumpableBehavior::NotDumpable));
        return;
    }
    let me = std::env::current_exe().unwrap();
    let name = "proxy::hostile::process::nothing_of_its_memory_can_be_dumped";
    let out = Command::new(me).args(["--exact", name]).env(WATCHED, "1").output().unwrap();
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("1 passed"), "{out:?}");
    let upstream = Upstream::answering(OK).await;
    let binary = Binary::start("sealed", &config(&upstream, ""), &[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", binary.id())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
}

/// Case 40. Fails without the second wait for a signal in `run`. Nothing else ends the request: neither its upstream's time
/// nor the drain's.
#[tokio::test]
async fn a_second_signal_ends_what_a_first_one_lets_finish() {
    let silent = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.wait().await;
    })
    .await;
    let (url, patient) = (silent.url(), "response_timeout = \"0\"");
    let named = config(&silent, "drain_timeout = \"10m\"").replace(&format!("\"{url}\""), "\"silent\"");
    let config = format!("{named}[upstreams.silent]\nurl = \"{url}\"\n{patient}\n");
    let mut binary = Binary::start("signals", &config, &[]).await;
    let mut busy = Wire::connect(binary.address).await;
    busy.send(get("/", "")).await;
    silent.received(1).await;
    binary.terminate();
    until("the first signal is heard", || binary.log().contains("a second signal ends at once")).await;
    let (tasks, address) = (Spawner::current(), binary.admin);
    let ready = tasks.spawn(async move {
        call(&client(false), Method::GET, &format!("http://{address}/readyz"), &[], "").await.status
    });
    assert_eq!(ready.await.unwrap(), 503);
    assert_eq!(binary.ended(), None, "the request is under way");
    binary.terminate();
    until("the process ends", || binary.ended().is_some()).await;
    assert_eq!(binary.ended().unwrap().code(), Some(0), "{}", binary.log());
    until("it was the second signal", || binary.log().contains("told to stop at once")).await;
}
