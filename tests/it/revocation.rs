//! Who was revoked is refused by the real binary at once, whoever told it: Clerk's webhooks, as the emulator sends them,
//! the control listener, or the command. By order and by counts: what is asked after the telling was acknowledged.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::{HeaderMap, Method, StatusCode};
use mintgate::emulator::Options;
use mintgate::emulator::webhooks::{DEFAULT_WEBHOOK_SECRET, Webhook};
use mintgate::lifecycle::{Shutdown, Spawner};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{ALICE, Answer, BOB, Binary, Client, World, call, client, serve, until};
use crate::proxy::get;
use crate::support::directory::Directory;
use crate::support::eventually;
use crate::support::gateway::Boot;
use crate::support::upstream::Upstream;
use crate::support::websocket::{echo, masked};
use crate::support::wire::Wire;

const BOBS_USER: &str = "user_emulator_bob";

/// Stands between the emulator and the endpoint, which has its address only later; keeps what passed.
#[derive(Clone)]
struct Relay {
    to: Arc<Mutex<Option<String>>>,
    /// Each event with the status that answered it.
    passed: Arc<Mutex<Vec<(HeaderMap, Bytes, u16)>>>,
    client: Client,
}

/// A binary that hears the emulator's webhooks.
struct Heard {
    binary: Binary,
    world: World,
    relay: Relay,
    client: Client,
    config: PathBuf,
    _sockets: Upstream,
    shutdown: Shutdown,
}

// === impl Relay ===

impl Relay {
    async fn post(&self, headers: &HeaderMap, body: Bytes) -> u16 {
        let url = self.to.lock().unwrap().clone().unwrap();
        let lines: Vec<_> = headers.iter().filter(|(name, _)| name.as_str().starts_with("svix-")).collect();
        let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        call(&self.client, Method::POST, &url, &lines, std::str::from_utf8(&body).unwrap()).await.status
    }

    async fn pass(State(relay): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let status = relay.post(&headers, body.clone()).await;
        relay.passed.lock().unwrap().push((headers, body, status));
        StatusCode::from_u16(status).unwrap()
    }

    /// The event of this type that was acknowledged.
    async fn acknowledged(&self, kind: &str) -> (HeaderMap, Bytes) {
        let quoted = format!("\"type\":\"{kind}\"");
        let find = || {
            let passed = self.passed.lock().unwrap();
            let found = passed.iter().rfind(|(_, body, _)| String::from_utf8_lossy(body).contains(&quoted));
            found.map(|(headers, body, status)| (headers.clone(), body.clone(), *status))
        };
        until(kind, || find().is_some()).await;
        let (headers, body, status) = find().unwrap();
        assert_eq!(status, 200, "{kind}");
        (headers, body)
    }
}

// === impl Heard ===

impl Heard {
    async fn start(name: &str, admin: &str) -> Self {
        let shutdown = Shutdown::new();
        let relay = Relay { to: Arc::default(), passed: Arc::default(), client: client(false) };
        let at = serve(Router::new().fallback(Relay::pass).with_state(relay.clone()), &shutdown);
        let webhook =
            Webhook { url: format!("http://{at}/").parse().unwrap(), secret: DEFAULT_WEBHOOK_SECRET.parse().unwrap() };
        let world = World::new(Options { webhook: Some(webhook), ..Options::default() });
        let tasks = Spawner::current();
        drop(tasks.spawn(world.emulator.courier().unwrap().run(tasks.sibling())));
        let sockets = echo().await;
        let inject = "inject = [{ header = \"authorization\", prefix = \"Bearer \", template = \"custom_hasura\" }]";
        let tables = format!(
            "[webhooks]\nlisten = \"127.0.0.1:0\"\nsigning_secret = {{ env = \"SIGNING\" }}\n\
             [[routes]]\nname = \"socket\"\nmatch = {{ path = \"/socket\" }}\nupstream = \"{}\"\nsession = [\"bearer\"]\n{inject}\n\
             [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = [\"bearer\"]\n{inject}\n",
            sockets.url()
        );
        // Longer than a test waits: what ends sooner was ended.
        let text = world.config("timeout = \"10m\"", &tables, false);
        let text =
            text.replace("[admin]\n", &format!("[admin]\n{admin}\n")).replace("[server]\n", "[server]\nworkers = 2\n");
        let key = world.emulator.secret_key().expose().to_owned();
        let vars = [("CLERK_SECRET_KEY", key.as_str()), ("SIGNING", DEFAULT_WEBHOOK_SECRET)];
        let binary = Binary::start(name, &text, &vars).await;
        let endpoint = binary.said("webhooks listening").unwrap();
        *relay.to.lock().unwrap() = Some(format!("http://{endpoint}/webhooks/clerk"));
        let config = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
        Self { binary, world, relay, client: client(false), config, _sockets: sockets, shutdown }
    }

    async fn get(&self, bearer: &str) -> Answer {
        let url = format!("http://{}/", self.binary.address);
        call(&self.client, Method::GET, &url, &[("authorization", bearer)], "").await
    }

    /// The status and the code.
    async fn outcome(&self, bearer: &str) -> (u16, String) {
        let answer = self.get(bearer).await;
        (answer.status, answer.code().to_owned())
    }

    async fn open(&self, bearer: &str) -> Wire {
        let mut socket = Wire::connect(self.binary.address).await;
        socket.open("/socket", &format!("Authorization: {bearer}\r\n")).await;
        echoes(&mut socket).await;
        socket
    }

    /// What the emulator's helpers are told.
    async fn tell(&self, method: Method, path: &str, body: &Value) {
        let url = format!("http://{}/_emulator{path}", self.world.emulator_at);
        let answer = call(&self.client, method, &url, &[("content-type", "application/json")], &body.to_string()).await;
        assert!(answer.status < 300, "{path}: {answer:?}");
    }

    async fn metric(&self, name: &str) -> String {
        let url = format!("http://{}/metrics", self.binary.admin);
        let scrape = call(&self.client, Method::GET, &url, &[], "").await.body;
        let found = scrape.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()));
        found.unwrap_or_else(|| panic!("{name}\n{scrape}"))
    }

    /// What `mintgate` says with this configuration.
    fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = mintgate(&[args, &["--config", self.config.to_str().unwrap()]].concat());
        (output.status.code(), said(&output))
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn mintgate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mintgate")).args(args).output().unwrap()
}

/// Both streams.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn echoes(socket: &mut Wire) {
    socket.send(masked(0x81, b"there?")).await;
    assert_eq!(socket.frame().await.unwrap().payload, b"there?");
}

/// That a WebSocket is closed as revoked ones are.
async fn is_ended(socket: &mut Wire) {
    let (_, code, reason) = socket.closing().await;
    assert_eq!((code, reason.as_str()), (4403, "session revoked"));
    socket.send(masked(0x88, &code.to_be_bytes())).await;
    assert!(socket.is_closed().await);
}

/// Fails without the tombstone (200), and without the purge (the scrape). The sweep of the tunnels would close the WebSockets a
/// second later too: that every worker is told at once, the counts of the other tests show.
#[tokio::test]
async fn a_webhook_ends_a_session_on_http_and_on_an_open_websocket() {
    let heard = Heard::start("webhook-revoked", "").await;
    let (alice, bob) = (heard.world.bearer(ALICE), heard.world.bearer(BOB));
    let (mut hers, mut his) = (heard.open(&alice).await, heard.open(&bob).await);
    let mut more = Vec::new();
    for _ in 0..3 {
        assert_eq!(heard.get(&bob).await.status, 200);
        // On both workers.
        more.push(heard.open(&bob).await);
    }
    assert_eq!(
        (heard.world.script.mints(), heard.metric("mintgate_cache_entries{cache=\"tokens\"}").await),
        (2, "2".to_owned())
    );
    assert_eq!(heard.world.api(&heard.client, &format!("/v1/sessions/{BOB}/revoke"), &json!({})).await.status, 200);
    let (headers, body) = heard.relay.acknowledged("session.revoked").await;
    // The session token is alive for most of a minute yet.
    assert_eq!(heard.outcome(&bob).await, (401, "session-revoked".to_owned()));
    is_ended(&mut his).await;
    for mut socket in more {
        is_ended(&mut socket).await;
    }
    echoes(&mut hers).await;
    assert_eq!(heard.outcome(&alice).await.0, 200);
    assert_eq!(heard.world.script.mints(), 2, "nothing was minted for it");
    for (name, value) in [
        ("mintgate_cache_entries{cache=\"tokens\"}", "1"),
        ("mintgate_tombstones", "1"),
        ("mintgate_webhook_events_total{type=\"session.revoked\",result=\"revoked\"}", "1"),
    ] {
        assert_eq!(heard.metric(name).await, value, "{name}");
    }
    // Sent again it does nothing; changed, it is nobody's.
    assert_eq!(heard.relay.post(&headers, body.clone()).await, 200);
    let forged = String::from_utf8(body.to_vec()).unwrap().replace(BOB, ALICE);
    assert_eq!(heard.relay.post(&headers, Bytes::from(forged)).await, 401);
    assert_eq!(heard.outcome(&alice).await.0, 200);
    for (name, value) in [
        ("mintgate_webhook_events_total{type=\"session.revoked\",result=\"repeated\"}", "1"),
        ("mintgate_webhook_events_total{type=\"other\",result=\"refused\"}", "1"),
    ] {
        assert_eq!(heard.metric(name).await, value, "{name}");
    }
    // A body holds whole users.
    let user = serde_json::from_slice::<Value>(&body).unwrap()["data"]["user"].clone();
    let email = user["email_addresses"][0]["email_address"].as_str().unwrap().to_owned();
    assert!(!heard.binary.log().contains(&email) && !heard.binary.log().contains("private_metadata"));
}

#[tokio::test]
async fn what_changes_a_user_costs_one_mint_and_a_banned_one_is_refused_until_he_is_not() {
    let heard = Heard::start("webhook-users", "").await;
    let bob = heard.world.bearer(BOB);
    let user = format!("/users/{BOBS_USER}");
    for _ in 0..2 {
        assert_eq!(heard.get(&bob).await.status, 200);
    }
    assert_eq!(heard.world.script.mints(), 1);
    heard.tell(Method::PATCH, &user, &json!({ "first_name": "Robert" })).await;
    heard.relay.acknowledged("user.updated").await;
    for _ in 0..2 {
        assert_eq!(heard.get(&bob).await.status, 200);
    }
    assert_eq!(heard.world.script.mints(), 2);
    let mut socket = heard.open(&bob).await;
    heard.tell(Method::PATCH, &user, &json!({ "banned": true })).await;
    until("the ban is heard", || heard.relay.passed.lock().unwrap().len() == 2).await;
    assert_eq!(heard.outcome(&bob).await, (401, "session-revoked".to_owned()));
    is_ended(&mut socket).await;
    heard.tell(Method::PATCH, &user, &json!({ "banned": false })).await;
    until("its end is heard", || heard.relay.passed.lock().unwrap().len() == 3).await;
    assert_eq!(heard.get(&bob).await.status, 200);
    heard.tell(Method::DELETE, &user, &json!({})).await;
    heard.relay.acknowledged("user.deleted").await;
    assert_eq!(heard.outcome(&bob).await, (401, "session-revoked".to_owned()));
}

/// Fails where the purge tells nobody who waits for what is under way: the request would wait for as long as the issuer.
#[tokio::test]
async fn a_mint_under_way_is_given_to_nobody() {
    let directory = Directory::new();
    let control = format!("control = \"unix:{}\"", directory.path("control.sock").display());
    let heard = Heard::start("revoked-mint", &control).await;
    let bob = heard.world.bearer(BOB);
    heard.world.script.hold(true);
    let asked = Spawner::current().spawn({
        let (client, bob, url) = (heard.client.clone(), bob.clone(), format!("http://{}/", heard.binary.address));
        async move { call(&client, Method::GET, &url, &[("authorization", &bob)], "").await }
    });
    until("the mint is under way", || heard.world.script.mints() == 1).await;
    let (code, said) = heard.command(&["revoke", "--session", BOB]);
    assert_eq!((code, said.as_str()), (Some(0), "revoked: 0 tokens forgotten, 0 WebSockets closed\n"));
    let answer = asked.await.unwrap();
    assert_eq!((answer.status, answer.code()), (401, "session-revoked"), "while the issuer holds it back");
    heard.world.script.hold(false);
    assert_eq!(heard.outcome(&bob).await, (401, "session-revoked".to_owned()));
    assert_eq!((heard.world.script.mints(), heard.world.seen.take().len()), (1, 0));
}

#[tokio::test]
async fn the_commands_revoke_and_purge_what_they_are_told() {
    let directory = Directory::new();
    let token = directory.write("token", "control-canary\n");
    let admin = format!("control = \"127.0.0.1:0\"\ntoken = {{ file = {token:?} }}");
    let heard = Heard::start("commands", &admin).await;
    let (alice, bob) = (heard.world.bearer(ALICE), heard.world.bearer(BOB));
    let url = format!("http://{}", heard.binary.said("control listening").unwrap());
    let shown = format!("@{}", token.display());
    let tell = |args: &[&str]| {
        let output = mintgate(&[args, &["--url", &url, "--token", &shown]].concat());
        (output.status.code(), said(&output))
    };
    let both = async || [heard.outcome(&alice).await.0, heard.outcome(&bob).await.0];
    let mut minted = 2;
    assert_eq!((both().await, heard.world.script.mints()), ([200; 2], minted));
    for (args, says, again) in [
        (&["purge", "--session", BOB][..], "purged: 1 tokens forgotten\n", 1),
        (&["purge", "--user", BOBS_USER], "purged: 1 tokens forgotten\n", 1),
        (&["purge", "--user", "user_nobody"], "purged: 0 tokens forgotten\n", 0),
        (&["purge", "--all"], "purged: 2 tokens forgotten\n", 2),
    ] {
        assert_eq!(tell(args), (Some(0), says.to_owned()), "{args:?}");
        minted += again;
        assert_eq!((both().await, heard.world.script.mints()), ([200; 2], minted), "{args:?}");
    }
    let mut socket = heard.open(&bob).await;
    let (code, says) = tell(&["revoke", "--user", BOBS_USER]);
    assert_eq!((code, says.as_str()), (Some(0), "revoked: 1 tokens forgotten, 1 WebSockets closed\n"));
    assert_eq!((both().await, heard.world.script.mints()), ([200, 401], minted));
    is_ended(&mut socket).await;
    // Not what anybody could mean, nobody's word, and nobody there.
    for (args, code, says) in [
        (&["revoke", "--all"][..], 2, "there is no option --all here"),
        (&["revoke"], 2, "--session"),
        (&["purge", "--all", "--session", "a"], 2, "--all"),
        (&["revoke", "--session", "a/b", "--url", &url, "--token", &shown], 1, "not the id of a session"),
        (&["revoke", "--session", "a", "--url", &url], 1, "401"),
        (&["revoke", "--session", "a", "--url", &url, "--token", "control-canary"], 64, "never the token itself"),
        (&["revoke", "--session", "a", "--url", "http://127.0.0.1:1"], 1, "nobody answers at"),
    ] {
        let output = mintgate(args);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?} {text}");
        assert!(text.contains(says) && !text.contains("canary"), "{args:?} {text}");
    }
    assert!(!heard.binary.log().contains("canary"));
    assert_eq!(both().await, [200, 401]);
}

/// Fails without the second look at the tombstones, in `Waiting::lease`.
#[tokio::test]
async fn who_is_revoked_while_he_waits_for_a_connection_is_not_sent() {
    let (upstream, go) = Upstream::holding().await;
    let tables = format!(
        "[upstreams.up]\nurl = \"{}\"\npool = {{ max_connections = 1 }}\n[[routes]]\nname = \"all\"\nupstream = \"up\"\n\
         inject = [{{ header = \"authorization\", prefix = \"Bearer \", template = \"custom_hasura\" }}]\n",
        upstream.url()
    );
    let gateway = Boot::new(tables).start().await;
    let mut first = Wire::connect(gateway.address).await;
    first.send(get("/", &gateway.bearer("alice"))).await;
    upstream.received(1).await;
    let mut second = Wire::connect(gateway.address).await;
    second.send(get("/", &gateway.bearer("bob"))).await;
    eventually("it has its token", || gateway.mints() == 2).await;
    let sid = mintgate::session::SessionId::new(BOB).unwrap();
    gateway.revoked.revoke_session(sid, Instant::now());
    go.send(true).unwrap();
    assert_eq!(first.response().await.status(), 200);
    assert_eq!(second.response().await.outcome(), (401, "session-revoked"));
    assert_eq!(upstream.count(), 1);
}
