//! One gateway holds the secret key; others stand behind its token API and hold a bearer of theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{Method, header};
use mintgate::emulator::base_url;
use mintgate::metrics::Lookup;
use mintgate::session::SessionId;
use tokio::time::Instant;

use super::stage::{BILLING, Served, Stage, echo, jwt};
use crate::harness::{ALICE, BOB, claims, serve};

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

/// A token that the hub has had for a while has less life left than it was minted with. Fails where a life is counted
/// from its arrival.
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
    let clock = stage.clock.clone();
    let mints = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&mints);
    let answer = move |request: Request| {
        let (clock, counted) = (clock.clone(), Arc::clone(&counted));
        async move { skewed(&request, clock.wall().as_seconds() + ahead, &counted) }
    };
    let issuer = serve(Router::new().fallback(answer), &stage.shutdown);
    let hub = stage.hub_of(&base_url(issuer), "30s", "").await;
    let pinned = format!("jwt_key = {{ file = {:?} }}", pem(&stage));
    let up = echo(&stage);
    let text = format!(
        "[clerk]\nsecret_key = {{ env = \"KEY\" }}\n{pinned}\napi_url = \"{}\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n\
         [upstreams.up]\nurl = \"http://{up}\"\n{}",
        base_url(hub.api()),
        minting()
    );
    let sidecar = stage.boot(&text, BILLING).await;
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
    let date = i64::try_from(date.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert!((date - stage.clock.wall().as_seconds() - ahead).abs() <= 3, "{date}");
}

/// A token of a minute and its time.
fn skewed(request: &Request, now: i64, mints: &AtomicUsize) -> Response {
    use base64::Engine as _;
    let part = |value: &serde_json::Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    if request.uri().path().contains("/tokens/") {
        mints.fetch_add(1, SeqCst);
    }
    let claims = serde_json::json!({ "iat": now, "exp": now + 60 });
    let jwt = format!("{}.{}.c2ln", part(&serde_json::json!({ "alg": "HS256" })), part(&claims));
    let mut answer = axum::Json(serde_json::json!({ "object": "token", "jwt": jwt })).into_response();
    let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(now).unwrap());
    answer.headers_mut().insert(header::DATE, httpdate::fmt_http_date(date).parse().unwrap());
    answer
}

/// The emulator's public key in a file.
fn pem(stage: &Stage) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("token-api-hub.pem");
    std::fs::write(&path, stage.emulator.jwt_key().unwrap()).unwrap();
    path
}
