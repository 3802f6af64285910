//! One gateway takes over from another on a socket that somebody else holds, as systemd does when a service is restarted.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mintgate::lifecycle::Spawner;
use tokio::net::UnixStream;

use crate::proxy::get;
use crate::support::directory::Directory;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;
use crate::support::{eventually, eventually_async};

const HANDOVERS: usize = 4;

/// The binary with that listener as its descriptor 3; its admin listener is `NUMBER.sock`.
struct Gateway {
    child: Child,
    admin: std::path::PathBuf,
}

impl Gateway {
    async fn start(directory: &Directory, number: usize, upstream: &Upstream, listener: &TcpListener) -> Self {
        let admin = directory.path(&format!("{number}.sock"));
        let text = format!(
            "[server]\nlisten = [\"systemd:web\"]\nworkers = 2\n[admin]\nlisten = \"unix:{}\"\n\
             [[routes]]\nname = \"all\"\nupstream = \"{}\"\nsession = []\n",
            admin.display(),
            upstream.url()
        );
        let config = directory.write(&format!("{number}.toml"), text);
        // The shell moves the socket to descriptor 3 and becomes the gateway, so that LISTEN_PID is right.
        let child = Command::new("sh")
            .args(["-c", "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" run --config \"$1\""])
            .arg(env!("CARGO_BIN_EXE_mintgate"))
            .arg(config)
            .env("LISTEN_FDNAMES", "web")
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Self { child, admin };
        eventually_async("it is ready", async || is_ready(&gateway.admin).await).await;
        gateway
    }

    /// Tells it to end, and waits for that.
    async fn end(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        eventually("it ends", || self.child.try_wait().unwrap().is_some()).await;
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

async fn is_ready(admin: &Path) -> bool {
    let Ok(stream) = UnixStream::connect(admin).await else { return false };
    Wire::over(stream).ask("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.status() == 200
}

/// Asks until it is told to stop: on one connection for as long as that is kept, or on a new one each time. Whatever is not
/// answered by the upstream ends the test.
async fn call(address: std::net::SocketAddr, keep: bool, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    let header = if keep { "" } else { "Connection: close\r\n" };
    while !stop.load(Ordering::SeqCst) {
        let mut wire = Wire::connect(address).await;
        loop {
            // A caller that never rests meets no connection that turns idle just when it is closed.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..8))).await;
            let answer = wire.ask(get("/", header)).await;
            assert_eq!(answer.outcome(), (200, ""));
            answered.fetch_add(1, Ordering::SeqCst);
            if answer.one("connection") == Some("close") || stop.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}

/// No connection is refused or reset, and no request is lost, while gateways follow each other under load. Fails without
/// `LEAVE` in the listener.
#[tokio::test]
async fn an_upgrade_under_load_loses_nothing() {
    let (upstream, directory) = (Upstream::answering(OK).await, Directory::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = Gateway::start(&directory, 0, &upstream, &listener).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..12)
        .map(|caller| {
            Spawner::current().spawn(call(address, caller % 2 == 0, Arc::clone(&stop), Arc::clone(&answered)))
        })
        .collect();
    for number in 1..=HANDOVERS {
        let seen = answered.load(Ordering::SeqCst);
        eventually("the first one serves", || answered.load(Ordering::SeqCst) > seen + 100).await;
        let next = Gateway::start(&directory, number, &upstream, &listener).await;
        std::mem::replace(&mut serving, next).end().await;
        let seen = answered.load(Ordering::SeqCst);
        eventually("the next one serves", || answered.load(Ordering::SeqCst) > seen + 100).await;
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    serving.end().await;
    assert!(answered.load(Ordering::SeqCst) > 200 * HANDOVERS);
}
