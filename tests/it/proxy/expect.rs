//! `expect`, `vary` and `minted_session_token`: which minted token a session gets.

use serde_json::{Value, json};

use super::{get, trusting};
use crate::harness::claims;
use crate::support::gateway::Gateway;
use crate::support::issuer::{Asked, Issuer};
use crate::support::upstream::Upstream;
use crate::support::wire::{Message, Wire};

/// One route for each of the three.
const ROUTES: &str = r#"
[[routes]]
name = "expect"
match = { path = "/expect" }
upstream = "{up}"
session = ["bearer"]
on_mint_error = "pass"
inject = [{ header = "x-token", template = "t", expect = { "/org_id" = "org_id", "/meta/plan" = "/plan" } }]

[[routes]]
name = "any"
match = { path = "/any" }
upstream = "{up}"
session = ["bearer"]
inject = [{ header = "x-token", template = "t" }]

[[routes]]
name = "vary"
match = { path = "/vary" }
upstream = "{up}"
session = ["bearer"]
inject = [{ header = "x-token", template = "t", vary = ["/metadata/role"] }]

[[routes]]
name = "session"
match = { path = "/session" }
upstream = "{up}"
session = ["bearer"]
inject = [
  { header = "x-token", minted_session_token = true, expires_in = "90s", expect = { "/o/id" = "org_id" } },
  { header = "x-plain", minted_session_token = true },
]
"#;

/// Mints one after the other, and then the last one again.
fn mints(all: Vec<Value>) -> Issuer {
    Issuer::minting(move |number, _| Ok(all[number.min(all.len() - 1)].clone()))
}

fn in_org(id: &str, plan: &str) -> Value {
    json!({ "o": { "id": id, "rol": "admin" }, "plan": plan })
}

async fn ask(gateway: &Gateway, path: &str, bearer: &str) -> Message {
    Wire::connect(gateway.address).await.ask(get(path, bearer)).await
}

/// The token that the upstream saw last.
fn token(upstream: &Upstream) -> Value {
    claims(upstream.last().one("x-token").unwrap())
}

#[tokio::test]
async fn a_stale_token_is_minted_once_more_and_forced() {
    let issuer = mints(vec![
        json!({ "org_id": "org_old", "meta": { "plan": "pro" } }),
        json!({ "org_id": "org_new", "meta": { "plan": "pro" } }),
    ]);
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let bearer = issuer.bearer(&in_org("org_new", "pro"));
    let began = tokio::time::Instant::now();
    assert_eq!(ask(&gateway, "/expect", &bearer).await.outcome(), (200, ""));
    assert!(began.elapsed().as_millis() >= 1000);
    assert_eq!(token(&upstream)["org_id"], "org_new");
    let controls: Vec<_> = issuer.asked().into_iter().map(|asked| asked.cache_control).collect();
    assert_eq!(controls, [None, Some("no-cache".to_owned())]);
    // It is kept, and the stale one is not.
    assert_eq!(ask(&gateway, "/expect", &bearer).await.outcome(), (200, ""));
    assert_eq!((token(&upstream)["org_id"].as_str(), issuer.asked().len()), (Some("org_new"), 2));
}

#[tokio::test]
async fn a_token_that_stays_stale_is_session_stale_and_reaches_nobody() {
    for minted in [
        json!({ "org_id": "org_old", "meta": { "plan": "pro" } }),
        json!({ "org_id": "org_new", "meta": { "plan": "free" } }),
        json!({ "org_id": "org_new" }),
        json!({ "org_id": null, "meta": { "plan": "pro" } }),
    ] {
        let issuer = mints(vec![minted]);
        let (gateway, upstream) = trusting(&issuer, ROUTES).await;
        let bearer = issuer.bearer(&in_org("org_new", "pro"));
        // Not even `on_mint_error = "pass"` goes on without it.
        let answer = ask(&gateway, "/expect", &bearer).await;
        assert_eq!(answer.outcome(), (401, "session-stale"));
        assert_eq!(
            answer.one("www-authenticate"),
            Some("Bearer error=\"invalid_token\", error_description=\"session-stale\"")
        );
        assert_eq!((issuer.asked().len(), upstream.count()), (2, 0));
        // Who expects nothing has a key of his own, and gets what comes.
        assert_eq!(ask(&gateway, "/any", &bearer).await.outcome(), (200, ""));
        assert_eq!((issuer.asked().len(), upstream.count()), (3, 1));
    }
}

#[tokio::test]
async fn nobody_gets_a_token_that_another_plan_or_organization_made() {
    // The issuer's record follows the calls: first one organization, then the other.
    let issuer = mints(vec![
        json!({ "org_id": "org_1", "meta": { "plan": "pro" } }),
        json!({ "org_id": "org_1", "meta": { "plan": "free" } }),
        json!({ "org_id": "org_2", "meta": { "plan": "free" } }),
    ]);
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    for (org, plan) in [("org_1", "pro"), ("org_1", "free"), ("org_2", "free"), ("org_1", "pro")] {
        assert_eq!(ask(&gateway, "/expect", &issuer.bearer(&in_org(org, plan))).await.outcome(), (200, ""));
        let token = token(&upstream);
        assert_eq!((&token["org_id"], &token["meta"]["plan"]), (&json!(org), &json!(plan)));
    }
    assert_eq!(issuer.asked().len(), 3, "each was kept");
}

#[tokio::test]
async fn a_session_without_the_value_expects_a_token_without_it() {
    let issuer = mints(vec![json!({ "org_id": null }), json!({ "org_id": "org_1" })]);
    let (gateway, _upstream) = trusting(&issuer, ROUTES).await;
    let personal = issuer.bearer(&json!({}));
    assert_eq!(ask(&gateway, "/expect", &personal).await.outcome(), (200, ""));
    let other = issuer.bearer(&json!({ "sid": "sess_2" }));
    assert_eq!(ask(&gateway, "/expect", &other).await.outcome(), (401, "session-stale"));
}

#[tokio::test]
async fn a_varied_claim_has_its_own_token() {
    let issuer = Issuer::minting(|number, _| Ok(json!({ "number": number })));
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let mut seen = Vec::new();
    let roles = [json!("a"), json!("b"), json!(null), json!(1), json!("1")];
    for role in roles.iter().chain(&roles) {
        let claims = if role.is_null() { json!({ "metadata": {} }) } else { json!({ "metadata": { "role": role } }) };
        assert_eq!(ask(&gateway, "/vary", &issuer.bearer(&claims)).await.outcome(), (200, ""));
        seen.push(token(&upstream)["number"].as_u64().unwrap());
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    // Another claim does not key it; and without `vary` nothing of the metadata does.
    let other = issuer.bearer(&json!({ "metadata": { "role": "a", "theme": "dark" } }));
    assert_eq!(ask(&gateway, "/vary", &other).await.outcome(), (200, ""));
    assert_eq!(token(&upstream)["number"], 0);
    for role in ["a", "b"] {
        ask(&gateway, "/any", &issuer.bearer(&json!({ "metadata": { "role": role } }))).await;
        assert_eq!(token(&upstream)["number"], 5);
    }
}

#[tokio::test]
async fn a_session_token_is_minted_and_kept_like_any_other() {
    let issuer = Issuer::minting(|_, asked: &Asked| {
        Ok(json!({ "sid": "sess_1", "sub": "user_1", "o": { "id": "org_1" }, "asked": asked.body }))
    });
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    for _ in 0..2 {
        assert_eq!(ask(&gateway, "/session", &issuer.bearer(&in_org("org_1", "pro"))).await.outcome(), (200, ""));
        assert_eq!(token(&upstream)["asked"], r#"{"expires_in_seconds":90}"#);
        assert_eq!(claims(upstream.last().one("x-plain").unwrap())["asked"], "{}");
    }
    let asked = issuer.asked();
    assert_eq!(asked.len(), 2, "each once: {asked:?}");
    assert!(asked.iter().all(|asked| asked.path == "/v1/sessions/sess_1/tokens"), "{asked:?}");
    let metrics = Wire::connect(gateway.admin).await.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let line = "mintgate_mints_total{template=\"(session)\",result=\"ok\"} 2";
    assert!(metrics.text().lines().any(|own| own == line), "{}", metrics.text());
}

#[tokio::test]
async fn a_session_token_of_another_session_is_refused() {
    let issuer = Issuer::minting(|_, _| Ok(json!({ "sid": "sess_2", "o": { "id": "org_1" } })));
    let route = ROUTES.replace("  { header = \"x-plain\", minted_session_token = true },\n", "");
    let (gateway, upstream) = trusting(&issuer, &route).await;
    let answer = ask(&gateway, "/session", &issuer.bearer(&in_org("org_1", "pro"))).await;
    assert_eq!((answer.outcome(), upstream.count()), ((502, "issuer-malformed"), 0));
}
