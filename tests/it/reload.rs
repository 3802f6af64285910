//! Configurations that change under a real binary that serves: what is good is used and loses nobody, what is bad changes
//! nothing.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use mintgate::emulator::Options;
use mintgate::lifecycle::Spawner;

use crate::harness::{ALICE, Binary, PATIENCE, World, call, client, until};
use crate::proxy::get;
use crate::support::directory::Directory;
use crate::support::tls::Authority;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// A public route at `path`, with more keys of `[server]`.
pub(crate) fn public(upstream: &Upstream, path: &str, server: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 2\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[routes]]\nname = \"{path}\"\nmatch = {{ path = \"/{path}\" }}\nupstream = \"{}\"\nsession = []\n",
        upstream.url()
    )
}

/// Writes another configuration in place of the one with which the binary of this name was started.
pub(crate) fn rewrite(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

async fn status(binary: &Binary, path: &str) -> u16 {
    Wire::connect(binary.address).await.ask(get(path, "")).await.status()
}

async fn metric(binary: &Binary, name: &str) -> Option<String> {
    let scrape = call(&client(false), Method::GET, &format!("http://{}/metrics", binary.admin), &[], "").await;
    scrape.body.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
}

pub(crate) async fn reloaded(binary: &Binary, times: usize) {
    until("it is reloaded", || binary.log().matches("\"message\":\"reloaded").count() >= times).await;
}

#[tokio::test]
async fn a_changed_configuration_is_used_and_no_request_is_lost() {
    let upstream = Upstream::answering(OK).await;
    let both = |path: &str| {
        let always = format!(
            "[[routes]]\nname = \"always\"\nmatch = {{ path = \"/always\" }}\nupstream = \"{}\"\nsession = []\n",
            upstream.url()
        );
        format!("{}{always}", public(&upstream, path, ""))
    };
    let binary = Binary::start("reload-live", &both("one"), &[]).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, asked, address) = (Arc::clone(&stop), Arc::clone(&asked), binary.address);
            Spawner::current().spawn(async move {
                let mut wire = Wire::connect(address).await;
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(wire.ask(get("/always", "")).await.outcome(), (200, ""));
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for (reload, path) in ["two", "three", "four"].into_iter().enumerate() {
        rewrite("reload-live", &both(path));
        reloaded(&binary, reload + 1).await;
        assert_eq!((status(&binary, &format!("/{path}")).await, status(&binary, "/one").await), (200, 404), "{path}");
    }
    let before = asked.load(Ordering::SeqCst);
    until("requests go on", || asked.load(Ordering::SeqCst) > before + 10).await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    let asked = asked.load(Ordering::SeqCst).to_string();
    assert_eq!(
        metric(&binary, "mintgate_requests_total{route=\"always\",status=\"2xx\",code=\"\"}").await,
        Some(asked)
    );
    assert_eq!(metric(&binary, "mintgate_config_reloads_total{result=\"ok\"}").await.as_deref(), Some("3"));
    assert_eq!(
        metric(&binary, "mintgate_requests_total{route=\"two\",status=\"2xx\",code=\"\"}").await.as_deref(),
        Some("1")
    );
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing_and_is_told_like_check_does() {
    let upstream = Upstream::answering(OK).await;
    let good = public(&upstream, "one", "");
    let binary = Binary::start("reload-bad", &good, &[]).await;
    rewrite("reload-bad", &good.replace("session = []", "sesion = []"));
    until("it is told", || binary.log().contains("not reloaded")).await;
    let log = binary.log();
    assert!(log.contains("sesion") && log.contains("did you mean") && log.contains("reload-bad.toml"), "{log}");
    assert_eq!(status(&binary, "/one").await, 200);
    assert_eq!(metric(&binary, "mintgate_config_last_reload_successful").await.as_deref(), Some("0"));
    assert_eq!(metric(&binary, "mintgate_config_reloads_total{result=\"failed\"}").await.as_deref(), Some("1"));
    rewrite("reload-bad", &public(&upstream, "two", ""));
    reloaded(&binary, 1).await;
    assert_eq!((status(&binary, "/two").await, status(&binary, "/one").await), (200, 404));
    assert_eq!(metric(&binary, "mintgate_config_last_reload_successful").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_used() {
    let upstream = Upstream::answering(OK).await;
    let binary = Binary::start("reload-restart", &public(&upstream, "one", ""), &[]).await;
    let changed = public(&upstream, "two", "idle_timeout = \"10s\"").replace("workers = 2", "workers = 3");
    rewrite("reload-restart", &changed);
    reloaded(&binary, 1).await;
    assert!(binary.log().contains("server.workers, server.idle_timeout"), "{}", binary.log());
    assert_eq!(status(&binary, "/two").await, 200);
    // Routes may name a listener, so that none of this can be used.
    let moved = public(&upstream, "three", "").replace("\"127.0.0.1:0\"]", "\"127.0.0.1:0\", \"127.0.0.1:0\"]");
    rewrite(
        "reload-restart",
        &moved.replacen("\"127.0.0.1:0\", ", "{ name = \"second\", address = \"127.0.0.1:0\" }, ", 1),
    );
    until("it is told", || binary.log().contains("a change of server.listen needs a restart")).await;
    assert_eq!((status(&binary, "/three").await, status(&binary, "/two").await), (404, 200));
}

#[tokio::test]
async fn a_secret_that_is_swapped_as_kubernetes_does_is_used_and_tokens_outlive_it() {
    let world = World::new(Options::default());
    let (files, name) = (Directory::new(), "reload-secret");
    let versions = ["wrong", "right"].map(|version| {
        let folder = files.path(version);
        std::fs::create_dir(&folder).unwrap();
        let key = if version == "right" { world.emulator.secret_key().expose() } else { "sk_test_old" };
        std::fs::write(folder.join("key"), key).unwrap();
        folder
    });
    symlink(&versions[1], files.path("..data")).unwrap();
    symlink("..data/key", files.path("key")).unwrap();
    files.write("jwt.pem", world.emulator.jwt_key().unwrap());
    let swap = |to: &Path| {
        symlink(to, files.path("..next")).unwrap();
        std::fs::rename(files.path("..next"), files.path("..data")).unwrap();
    };
    let pinned = format!("jwt_key = {{ file = {:?} }}", files.path("jwt.pem"));
    let route = "[[routes]]\nname = \"all\"\nupstream = \"up\"\ninject = [{ header = \"authorization\", template = \"plain\" }]\n";
    let text = world
        .config(&pinned, route, false)
        .replace("env = \"CLERK_SECRET_KEY\"", &format!("file = {:?}", files.path("key")));
    let binary = Binary::start(name, &text, &[]).await;
    let ask = async |session: &str| {
        let url = format!("http://{}/", binary.address);
        let answer = call(&client(false), Method::GET, &url, &[("authorization", &world.bearer(session))], "").await;
        (answer.status, answer.code().to_owned())
    };
    let outside = client(false);
    let fresh = async || world.begin_session(&outside, "user_emulator_alice").await;
    assert_eq!(ask(ALICE).await, (200, String::new()));
    swap(&versions[0]);
    reloaded(&binary, 1).await;
    assert_eq!(ask(&fresh().await).await, (502, "issuer-rejected-key".to_owned()), "the other key is in use");
    assert_eq!(ask(ALICE).await, (200, String::new()), "what was minted before serves on");
    swap(&versions[1]);
    reloaded(&binary, 2).await;
    assert_eq!(ask(&fresh().await).await, (200, String::new()));
    assert_eq!(metric(&binary, "mintgate_issuer_key_rejected").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn connections_to_an_upstream_that_did_not_change_are_kept() {
    let upstream = Upstream::answering(OK).await;
    let text = |path: &str| {
        public(&upstream, path, "")
            .replace("workers = 2", "workers = 1")
            .replace(&format!("upstream = \"{}\"", upstream.url()), "upstream = \"up\"")
            + &format!("[upstreams.up]\nurl = \"{}\"\npool = {{ idle_timeout = \"60s\" }}\n", upstream.url())
    };
    let binary = Binary::start("reload-pool", &text("one"), &[]).await;
    assert_eq!(status(&binary, "/one").await, 200);
    rewrite("reload-pool", &text("two"));
    reloaded(&binary, 1).await;
    assert_eq!(status(&binary, "/two").await, 200);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn sighup_reads_the_configuration_at_once() {
    let upstream = Upstream::answering(OK).await;
    let binary = Binary::start("reload-hup", &public(&upstream, "one", ""), &[]).await;
    // Nothing has changed, so that only the signal can have brought it.
    tokio::time::sleep(Duration::from_millis(10)).await;
    binary.hang_up();
    reloaded(&binary, 1).await;
    assert_eq!(status(&binary, "/one").await, 200);
}

/// Fails where certificates are read with the configuration alone, or where files that another configuration names are
/// not looked at.
#[tokio::test]
async fn a_certificate_is_renewed_whatever_state_the_configuration_is_in() {
    let (upstream, files) = (Upstream::answering(OK).await, Directory::new());
    let [old, new, moved, last] = std::array::from_fn(|_| Authority::new());
    let text = |name: &str| {
        let (cert, key) = (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key")));
        public(&upstream, "one", &format!("tls = {{ cert = {cert:?}, key = {key:?} }}"))
    };
    old.put(&files, "first");
    let binary = Binary::start("reload-tls", &text("first"), &[]).await;
    let shown = async |authority: &Authority| {
        let waited = tokio::time::timeout(PATIENCE, async {
            while authority.client(&[], None).connect(binary.address, "localhost").await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(waited.await.is_ok(), "never shown\n{}", binary.log());
    };
    shown(&old).await;
    rewrite("reload-tls", "no configuration");
    until("it is told", || binary.log().contains("not reloaded")).await;
    new.put(&files, "first");
    shown(&new).await;
    moved.put(&files, "second");
    rewrite("reload-tls", &text("second"));
    shown(&moved).await;
    last.put(&files, "second");
    shown(&last).await;
}
