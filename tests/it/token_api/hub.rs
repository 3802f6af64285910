//! One gateway holds the secret key; others stand behind its token API and hold a bearer of theirs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, header};
use mintgate::emulator::base_url;
use mintgate::metrics::Lookup;
use mintgate::session::SessionId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::stage::{BILLING, Served, Stage, echo, jwt};
use crate::harness::{ALICE, BOB, claims, serve};
use crate::support::directory::Directory;
use crate::support::tls::Authority;

fn route(path: &str, source: &str) -> String {
    let name = path.trim_start_matches('/');
    format!(
        "[[routes]]\nname = \"{name}\"\nupstream = \"up\"\nmatch = {{ path = \"{path}\" }}\n\
         inject = [{{ header = \"authorization\", prefix = \"Bearer \", {source} }}]\n"
    )
}

fn minting() -> String {
    route("/rows", "template = \"custom_hasura\"")
}

/// Fails without any part of the hub: its keys, its tokens, its cache.
#[tokio::test]
async fn two_sidecars_share_a_mint_and_never_hold_the_key() {
    let stage = Stage::new();
    let (hub, up) = (stage.hub("").await, echo(&stage));
    let sidecars = [stage.sidecar(&hub, up, &minting()).await, stage.sidecar(&hub, up, &minting()).await];
    let mut tokens = Vec::new();
    for sidecar in &sidecars {
        for _ in 0..3 {
            let answer = sidecar.get("/rows", &stage.session(ALICE)).await;
            assert_eq!((answer.status, answer.code()), (200, ""), "{answer:?}");
            tokens.push(answer.body);
        }
    }
    tokens.dedup();
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    assert_eq!(claims(&tokens[0])["sub"], "user_emulator_alice");
    assert_eq!((stage.mints(), hub.lookups(Lookup::Mint), hub.lookups(Lookup::Hit)), (1, 1, 1));
    // What reached the issuer carried the one key, and the sidecars' bearer nowhere.
    for seen in stage.seen("") {
        assert_eq!(seen.headers[header::AUTHORIZATION], stage.key().as_str(), "{seen:?}");
    }
}

/// `template-unknown`: to a sidecar there is no such template. And a session token, which no caller may have, is
/// `issuer-refused`; neither is the user's fault.
#[tokio::test]
async fn what_a_sidecar_may_not_have_is_never_the_users_fault() {
    let stage = Stage::new();
    let (hub, up) = (stage.hub("").await, echo(&stage));
    let routes = [minting(), route("/other", "template = \"plain\""), route("/session", "minted_session_token = true")];
    let sidecar = stage.sidecar(&hub, up, &routes.concat()).await;
    for (path, expected) in [("/other", (502, "template-unknown")), ("/session", (502, "issuer-refused"))] {
        for _ in 0..2 {
            let answer = sidecar.get(path, &stage.session(ALICE)).await;
            assert_eq!((answer.status, answer.code()), expected, "{path}");
        }
    }
    assert!(stage.seen("POST").is_empty());
    assert_eq!(sidecar.get("/rows", &stage.session(ALICE)).await.status, 200);
    let revoked = &hub.gateway.sessions.revoked;
    revoked.revoke_session(SessionId::new(BOB).unwrap(), Instant::now());
    let answer = sidecar.get("/rows", &stage.session(BOB)).await;
    assert_eq!((answer.status, answer.code()), (401, "session-ended"));
}

/// Fails where the wait that the hub names is not the sidecar's.
#[tokio::test]
async fn the_hubs_wait_is_the_sidecars() {
    let stage = Stage::new();
    let (hub, up) = (stage.hub("").await, echo(&stage));
    let sidecar = stage.sidecar(&hub, up, &minting()).await;
    stage.refuse(Some((429, "40")));
    let waits = async |sidecar: &Served, sid: &str| -> u64 {
        let answer = sidecar.get("/rows", &stage.session(sid)).await;
        assert_eq!((answer.status, answer.code()), (503, "issuer-throttled"), "{answer:?}");
        answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap()
    };
    let first = waits(&sidecar, ALICE).await;
    assert!((35..=40).contains(&first), "{first}");
    let asked = hub.lookups(Lookup::Mint);
    let second = waits(&sidecar, BOB).await;
    assert!(second <= first, "{second}");
    assert_eq!((stage.mints(), hub.lookups(Lookup::Mint)), (1, asked), "nobody asks during a pause");
}

/// A token that the hub has had for a while has less life left than it was minted with. Fails where its end on the wall clock
/// does not count; that its age does on the other clock is `a_token_that_has_aged_in_a_hub_lives_for_what_is_left`.
#[tokio::test]
async fn a_token_that_has_aged_in_the_hub_dies_in_time_at_the_sidecar() {
    let stage = Stage::new();
    let off = "[cache]\nrefresh_at = \"off\"\n";
    let (hub, up) = (stage.hub(off).await, echo(&stage));
    let sidecar = stage.sidecar(&hub, up, &format!("{off}{}", minting())).await;
    let first = jwt(&hub.token(&stage.key(), ALICE, "custom_hasura", "").await);
    stage.clock.step(40_000);
    let rows = async || sidecar.get("/rows", &stage.session(ALICE)).await.body;
    assert_eq!(rows().await, format!("Bearer {first}"));
    // 20 s were left; of them a quarter is kept back.
    stage.clock.step(10_000);
    assert_eq!(rows().await, format!("Bearer {first}"));
    assert_eq!(hub.lookups(Lookup::Hit), 1);
    stage.clock.step(5_100);
    let next = rows().await;
    assert_ne!(next, format!("Bearer {first}"));
    assert_eq!(stage.mints(), 2);
}

/// The hub's own clock may be wrong: what a sidecar corrects its clock by is the issuer's. Fails where the hub's answers
/// tell the hub's time.
#[tokio::test]
async fn a_sidecar_goes_by_the_issuers_time_and_not_the_hubs() {
    let stage = Stage::new();
    // An issuer whose clock is ten minutes ahead.
    let ahead = 600;
    let (issuer, mints) = minter(&stage, ahead, |_| json!({}));
    let hub = stage.hub_of(&base_url(issuer), "30s", "").await;
    let sidecar = pinned_sidecar(&stage, &hub, "time", &minting()).await;
    for _ in 0..3 {
        let answer = sidecar.get("/rows", &stage.session(ALICE)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // Out of the cache of both: to neither it was dead on arrival, nor alive ten minutes too long.
    assert_eq!(mints.load(SeqCst), 1);
    let offset = sidecar.gateway.metrics.control().issuer_clock_offset_ms.get();
    assert!((598_000..=602_000).contains(&offset), "{offset}");
    // What is refused here without asking the issuer tells the same time.
    let answer = hub.ask(Method::GET, "/v1/users", &[("authorization", &format!("Bearer {BILLING}"))], "").await;
    let date = httpdate::parse_http_date(answer.headers[header::DATE].to_str().unwrap()).unwrap();
    let date = i64::try_from(date.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert!((date - stage.clock.wall().as_seconds() - ahead).abs() <= 3, "{date}");
}

/// Fails where the hub answers a forced mint from its cache, or the sidecar does not say that it is one.
#[tokio::test]
async fn a_token_that_contradicts_the_session_is_minted_anew_through_the_hub() {
    let stage = Stage::new();
    // The issuer hears late of a changed organization.
    let org = |number| json!({ "org_id": if number == 0 { "org_before" } else { "org_emulator_acme" } });
    let (issuer, mints) = minter(&stage, 0, org);
    let hub = stage.hub_of(&base_url(issuer), "30s", "").await;
    let local = format!("Bearer {BILLING}");
    assert_eq!(claims(&jwt(&hub.token(&local, ALICE, "custom_hasura", "").await))["org_id"], "org_before");
    let expecting = route("/rows", "template = \"custom_hasura\", expect = { \"/org_id\" = \"org_id\" }");
    let sidecar = pinned_sidecar(&stage, &hub, "expect", &expecting).await;
    for _ in 0..2 {
        let answer = sidecar.get("/rows", &stage.session(ALICE)).await;
        assert_eq!((answer.status, answer.code()), (200, ""), "{answer:?}");
        assert_eq!(claims(&answer.body)["org_id"], "org_emulator_acme");
    }
    assert_eq!(mints.load(SeqCst), 2);
}

/// As on another machine: in clear text the hub would not be started there. Over HTTP/2, which both offer.
#[tokio::test]
async fn a_hub_is_reached_over_tls() {
    let stage = Stage::new();
    let (files, authority) = (Directory::new(), Authority::new());
    let identity = authority.identity(&["localhost"]);
    for (name, text) in [("cert.pem", &identity.cert), ("key.pem", &identity.key), ("ca.pem", &authority.pem)] {
        files.write(name, text);
    }
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| files.path(name));
    let hub = stage.hub_with(&format!("tls = {{ cert = {cert:?}, key = {key:?} }}\n")).await;
    let up = echo(&stage);
    let text = format!(
        "[clerk]\nsecret_key = {{ env = \"KEY\" }}\nca_file = {ca:?}\napi_url = \"https://localhost:{}\"\n\
         [server]\nlisten = [\"127.0.0.1:0\"]\n[upstreams.up]\nurl = \"http://{up}\"\n{}",
        hub.api().port(),
        minting()
    );
    let sidecar = stage.boot(&text, BILLING).await;
    let first = sidecar.get("/rows", &stage.session(ALICE)).await;
    assert_eq!((first.status, first.code()), (200, ""), "{first:?}");
    assert_eq!(claims(&first.body)["sub"], "user_emulator_alice");
    // The key's holder's calls pass there as well.
    let mut stream = authority.client(&["h2"], None).connect(hub.api(), "localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = h2::client::handshake(&mut stream).await.unwrap();
    let request = http::Request::get(format!("https://localhost/v1/sessions/{ALICE}"));
    let request = request.header("authorization", stage.key()).body(()).unwrap();
    let asking = async {
        let answer = sender.send_request(request, true).unwrap().0.await.unwrap();
        drop(sender);
        answer.status()
    };
    let (status, _) = tokio::join!(asking, connection);
    assert_eq!(status, 200);
}

/// An issuer whose clock is so many seconds ahead. Its tokens live for a minute and have these claims; counted.
fn minter(stage: &Stage, ahead: i64, claims: fn(usize) -> Value) -> (SocketAddr, Arc<AtomicUsize>) {
    let (mints, clock) = (Arc::new(AtomicUsize::new(0)), stage.clock.clone());
    let counted = Arc::clone(&mints);
    let answer = move |request: Request| {
        let (now, minting) = (clock.wall().as_seconds() + ahead, request.uri().path().contains("/tokens/"));
        let number = if minting { counted.fetch_add(1, SeqCst) } else { 0 };
        async move { minted(now, claims(number)) }
    };
    (serve(Router::new().fallback(answer), &stage.shutdown), mints)
}

fn minted(now: i64, mut claims: Value) -> Response {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    claims["iat"] = json!(now);
    claims["exp"] = json!(now + 60);
    let jwt = format!("{}.{}.c2ln", part(&json!({ "alg": "HS256" })), part(&claims));
    let mut answer = axum::Json(json!({ "object": "token", "jwt": jwt })).into_response();
    let date = UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap());
    answer.headers_mut().insert(header::DATE, httpdate::fmt_http_date(date).parse().unwrap());
    answer
}

/// A sidecar that verifies the emulator's sessions by its public key, in a file of this name.
async fn pinned_sidecar(stage: &Stage, hub: &Served, name: &str, routes: &str) -> Served {
    let pem = format!("{}/token-api-{name}.pem", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&pem, stage.emulator.jwt_key().unwrap()).unwrap();
    let text = format!(
        "[clerk]\nsecret_key = {{ env = \"KEY\" }}\njwt_key = {{ file = \"{pem}\" }}\napi_url = \"{}\"\n\
         [server]\nlisten = [\"127.0.0.1:0\"]\n[upstreams.up]\nurl = \"http://{}\"\n{routes}",
        base_url(hub.api()),
        echo(stage)
    );
    stage.boot(&text, BILLING).await
}

/// Who is behind a hub may not ask for all templates: that is no reason to doubt the configuration. Fails where a hub is
/// asked as Clerk is.
#[tokio::test]
async fn check_online_knows_a_hub() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    let files = Directory::new();
    files.write(
        "mintgate.toml",
        format!(
            "[clerk]\nsecret_key = {{ env = \"KEY\" }}\npublishable_key = \"{}\"\nauthorized_parties = [\"https://app.example.com\"]\n\
             api_url = \"{}\"\n[upstreams.up]\nurl = \"http://127.0.0.1:1\"\n{}",
            stage.emulator.publishable_key(),
            base_url(hub.api()),
            minting()
        ),
    );
    let path = files.path("mintgate.toml");
    let asked = |key: &'static str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mintgate"));
        command.args(["check", "--online", "--config"]).arg(&path).env("KEY", key);
        // The hub runs on this thread's runtime.
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let said = asked(BILLING).await.unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(0), "{text}");
    assert!(text.contains("is accepted by") && text.contains("is a hub and tells no templates"), "{text}");
    assert_eq!(asked("another-bearer").await.unwrap().status.code(), Some(1));
}
