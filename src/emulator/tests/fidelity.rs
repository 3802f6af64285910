//! Versions, states, lists and the refresh endpoint, as the contract has them.

use super::*;
use crate::emulator::version::TokenVersion;

/// A call of a helper: no key.
async fn help(emulator: &Emulator, method: Method, target: &str, body: &str) -> Answer {
    let request = builder(method, target).header("content-type", "application/json");
    send(emulator, request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn versioned(emulator: &Emulator, version: Option<&str>, query: &str, template: &str) -> Answer {
    let target = format!("/v1/sessions/{ALICE}/tokens{template}{query}");
    let mut request = builder(Method::POST, &target).header("authorization", format!("Bearer {DEFAULT_SECRET_KEY}"));
    if let Some(version) = version {
        request = request.header("Clerk-API-Version", version);
    }
    send(emulator, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_apis_version_chooses_the_session_tokens_claims() {
    let emulator = emulator();
    for (version, query, second) in [
        (None, "", true),
        (Some("2025-03-12"), "", false),
        (Some("2025-04-10"), "", true),
        (None, "?__clerk_api_version=2021-02-05", false),
    ] {
        let (_, claims) = read(&versioned(&emulator, version, query, "").await.body["jwt"]);
        assert_eq!(claims.get("v").is_some(), second, "{version:?} {query}");
        assert_eq!(claims["org_id"] == "org_emulator_acme", !second);
        assert_eq!(claims["o"]["id"] == "org_emulator_acme", second);
    }
    assert_eq!(versioned(&emulator, Some("2021-02-05"), "", "/plain").await.status, 200);
    for (version, query) in [
        (Some("2025-01-01"), ""),
        (None, "?__clerk_api_version=x"),
        (Some("2026-05-12"), "?__clerk_api_version=2026-05-12"),
    ] {
        let refused = error(&versioned(&emulator, version, query, "/plain").await);
        assert_eq!((refused.0, &*refused.1), (400, "api_version_invalid"), "{version:?} {query}");
    }
    let helper = format!("/_emulator/token?session={ALICE}&v=1");
    let (_, claims) = read(&help(&emulator, Method::GET, &helper, "").await.body);
    assert_eq!((claims.get("v"), &claims["org_role"]), (None, &json!("org:admin")));
    assert!(emulator.instance.token_version == TokenVersion::V2);
}

#[tokio::test]
async fn a_pending_session_is_signed_in_and_says_so() {
    let emulator = emulator();
    let target = format!("/_emulator/sessions/{ALICE}");
    let change = r#"{"status":"pending","tasks":["choose-organization"]}"#;
    let shown = help(&emulator, Method::PATCH, &target, change).await.body;
    assert_eq!((&shown["status"], &shown["tasks"]), (&json!("pending"), &json!([{"key": "choose-organization"}])));
    let (_, claims) = read(&mint(&emulator, ALICE, "", "").await.body["jwt"]);
    assert_eq!(claims["sts"], "pending");
    let (_, claims) = read(&mint(&emulator, ALICE, "/plain", "").await.body["jwt"]);
    assert_eq!(claims.get("sts"), None, "a template token hides it");
    help(&emulator, Method::PATCH, &target, r#"{"status":"active"}"#).await;
    let (_, claims) = read(&mint(&emulator, ALICE, "", "").await.body["jwt"]);
    assert_eq!(claims["sts"], "active");
}

#[tokio::test]
async fn only_sessions_that_are_signed_in_mint_and_lists_know_every_state() {
    let emulator = emulator();
    let target = format!("/_emulator/sessions/{BOB}");
    for status in ["ended", "removed", "revoked", "expired", "abandoned", "replaced"] {
        let change = format!(r#"{{"status":"{status}"}}"#);
        assert_eq!(help(&emulator, Method::PATCH, &target, &change).await.body["status"], status);
        for template in ["", "/plain"] {
            assert_eq!(error(&mint(&emulator, BOB, template, "").await).0, 404, "{status}");
        }
        let list = call(&emulator, Method::GET, &format!("/v1/sessions?status={status}"), "").await;
        assert_eq!((list.body.as_array().unwrap().len(), &list.body[0]["id"]), (1, &json!(BOB)), "{status}");
        let revoked = call(&emulator, Method::POST, &format!("/v1/sessions/{BOB}/revoke"), "").await;
        assert_eq!((revoked.status, &revoked.body["status"]), (200, &json!(status)), "one that has ended stays so");
    }
    help(&emulator, Method::PATCH, &target, r#"{"status":"active"}"#).await;
    assert_eq!(mint(&emulator, BOB, "", "").await.status, 200);
    assert_eq!(error(&help(&emulator, Method::PATCH, &target, r#"{"status":"lost"}"#).await).0, 422);
    assert_eq!(error(&help(&emulator, Method::PATCH, "/_emulator/sessions/none", "{}").await).0, 404);
}

#[tokio::test]
async fn lists_have_pages_and_refuse_bad_parameters() {
    let emulator = emulator();
    for _ in 0..12 {
        call(&emulator, Method::POST, "/v1/sessions", r#"{"user_id":"user_emulator_bob"}"#).await;
    }
    let list = |query: &'static str| {
        let emulator = &emulator;
        async move { call(emulator, Method::GET, &format!("/v1/sessions?{query}"), "").await }
    };
    assert_eq!(list("").await.body.as_array().unwrap().len(), 10);
    assert_eq!(list("limit=500").await.body.as_array().unwrap().len(), 14);
    let page = list("paginated=true&limit=5&offset=12").await.body;
    assert_eq!((page["data"].as_array().unwrap().len(), &page["total_count"]), (2, &json!(14)));
    assert_eq!(list("user_id=user_emulator_alice").await.body.as_array().unwrap().len(), 1);
    assert_eq!(list("client_id=client_emulator_alice&status=active").await.body[0]["id"], ALICE);
    assert_eq!(list("user_id=nobody").await.body, json!([]));
    for bad in ["limit=0", "limit=501", "limit=x", "offset=-1", "status=pending", "status=x", "paginated=x"] {
        assert_eq!(error(&list(bad).await).0, 422, "{bad}");
    }
}

#[tokio::test]
async fn an_impersonated_session_has_an_actor_and_another_organization_can_be_chosen() {
    let emulator = emulator();
    let target = format!("/_emulator/sessions/{ALICE}");
    let actor = json!({"iss": "https://dashboard.clerk.com", "sid": "sess_x", "sub": "user_admin"});
    let change = json!({"actor": actor, "active_organization_id": null}).to_string();
    assert_eq!(help(&emulator, Method::PATCH, &target, &change).await.body["actor"], actor);
    let (_, claims) = read(&mint(&emulator, ALICE, "", "").await.body["jwt"]);
    assert_eq!((&claims["act"], claims.get("o")), (&actor, None));
    let (_, claims) = read(&mint(&emulator, ALICE, "/plain", "").await.body["jwt"]);
    assert_eq!((claims.get("act"), &claims["org_id"]), (None, &Value::Null));
    let back = r#"{"actor":null,"active_organization_id":"org_emulator_acme"}"#;
    assert_eq!(help(&emulator, Method::PATCH, &target, back).await.body["actor"], Value::Null);
    let (_, claims) = read(&mint(&emulator, ALICE, "/plain", "").await.body["jwt"]);
    assert_eq!(claims["org_role"], "org:admin");
    let wrong = r#"{"active_organization_id":"org_none"}"#;
    assert_eq!(error(&help(&emulator, Method::PATCH, &target, wrong).await).0, 404);
}

#[tokio::test]
async fn a_refresh_is_refused_as_an_sdk_expects() {
    let emulator = emulator();
    let target = format!("/v1/sessions/{ALICE}/refresh");
    let whole = r#"{"expired_token":"a","refresh_token":"b","request_origin":"c","format":"token"}"#;
    assert_eq!(error(&call(&emulator, Method::POST, &target, whole).await).0, 401);
    assert_eq!(error(&call(&emulator, Method::POST, &target, "{}").await).0, 400);
}

#[tokio::test]
async fn a_production_key_gets_no_session_but_from_the_helper() {
    let options = Options { secret_key: "sk_live_1".parse().unwrap(), ..Options::default() };
    let live = Emulator::new(options, Clock::system()).unwrap();
    let begun = help(&live, Method::POST, "/_emulator/sessions", r#"{"user_id":"user_emulator_bob"}"#).await;
    assert_eq!((begun.status, &begun.body["status"]), (200, &json!("active")));
}

#[tokio::test]
async fn users_and_memberships_change_what_tokens_say() {
    let emulator = emulator();
    let change = r#"{"public_metadata":{"role":"owner"},"last_name":null}"#;
    let user = help(&emulator, Method::PATCH, "/_emulator/users/user_emulator_alice", change).await.body;
    assert_eq!((&user["public_metadata"]["role"], &user["last_name"]), (&json!("owner"), &Value::Null));
    let (_, claims) = read(&mint(&emulator, ALICE, "/plain", "").await.body["jwt"]);
    assert_eq!((&claims["metadata"]["role"], &claims["name"]), (&json!("owner"), &json!("Alice")));
    let place = "/_emulator/organizations/org_emulator_acme/memberships/user_emulator_alice";
    help(&emulator, Method::PUT, place, r#"{"role":"org:member","permissions":[]}"#).await;
    let (_, claims) = read(&mint(&emulator, ALICE, "", "").await.body["jwt"]);
    assert_eq!((&claims["o"]["rol"], claims["o"].get("per")), (&json!("member"), None));
    help(&emulator, Method::DELETE, place, "").await;
    assert_eq!(read(&mint(&emulator, ALICE, "", "").await.body["jwt"]).1.get("o"), None);
    assert_eq!(error(&help(&emulator, Method::DELETE, place, "").await).0, 404);
    let removed = help(&emulator, Method::DELETE, "/_emulator/users/user_emulator_alice", "").await.body;
    assert_eq!(removed, json!({"object": "user", "id": "user_emulator_alice", "deleted": true, "external_id": "1"}));
    assert_eq!(error(&mint(&emulator, ALICE, "", "").await).0, 404);
}

/// No file, no variable.
struct Nothing;

impl crate::config::validate::Environment for Nothing {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn read(&self, _: &std::path::Path) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn exists(&self, _: &std::path::Path) -> bool {
        false
    }
}

#[tokio::test]
async fn the_template_of_the_session_token_is_used_hidden_and_kept() {
    let text = "session_token_version = 1\nauthorized_party = \"http://localhost:3000\"\n\
                [session_token]\nclaims = { plan = \"{{user.public_metadata.plan || 'free'}}\" }\n\
                [[users]]\nid = \"u\"\n[[sessions]]\nid = \"s\"\nuser = \"u\"";
    let wall = Wall::from_seconds(1_800_000_000);
    let (seed, _) = Seed::parse(text, std::path::Path::new("seed.toml"), &Nothing, wall).unwrap();
    let emulator = Emulator::new(Options { seed: Some(seed), ..Options::default() }, Clock::following(wall)).unwrap();
    let (_, claims) = read(&mint(&emulator, "s", "", "").await.body["jwt"]);
    assert_eq!((&claims["plan"], &claims["azp"]), (&json!("free"), &json!("http://localhost:3000")));
    assert_eq!((claims.get("v"), claims.get("jti")), (None, None), "version 1 when the call names none");
    let path = "/v1/jwt_templates/jtmp_emulator_session_token";
    assert_eq!(call(&emulator, Method::GET, path, "").await.status, 200);
    assert_eq!(call(&emulator, Method::GET, "/v1/jwt_templates", "").await.body, json!([]));
    let (status, code, _) = error(&call(&emulator, Method::DELETE, path, "").await);
    assert_eq!((status, &*code), (403, "session_token_jwt_template"));
    let change = r#"{"name":"session_token","claims":{"plan":"gold"}}"#;
    assert_eq!(call(&emulator, Method::PATCH, path, change).await.status, 200);
    let (_, claims) = read(&mint(&emulator, "s", "", "").await.body["jwt"]);
    assert_eq!(claims["plan"], "gold");
}

#[tokio::test]
async fn calls_that_are_no_calls_are_refused_in_clerks_shape() {
    let emulator = emulator();
    let target = format!("/v1/sessions/{ALICE}/tokens/plain");
    let typed = |kind: &str, body: &'static str| {
        let request = builder(Method::POST, &target).header("authorization", format!("Bearer {DEFAULT_SECRET_KEY}"));
        request.header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let refused = error(&send(&emulator, typed("text/plain", "{}")).await);
    assert_eq!((refused.0, &*refused.1), (415, "unsupported_content_type"));
    assert!(refused.2.contains("text/plain"), "{}", refused.2);
    assert_eq!(send(&emulator, typed("application/json; charset=utf-8", "{}")).await.status, 200);
    assert_eq!(send(&emulator, typed("text/plain", "")).await.status, 200, "what is not there has no type");
    assert_eq!(error(&call(&emulator, Method::GET, &target, "").await).0, 405);
    assert_eq!(error(&help(&emulator, Method::DELETE, "/_emulator/token", "").await).0, 405);
    assert_eq!(error(&help(&emulator, Method::GET, "/_emulator/nothing", "").await).0, 404);
    for (body, code) in [
        ("[]", "request_body_invalid"),
        (r#"{"expires_in_seconds":"60"}"#, "form_param_type_invalid"),
        (r#"{"expires_in_seconds":315360001}"#, "form_param_value_invalid"),
    ] {
        assert_eq!(error(&call(&emulator, Method::POST, &target, body).await).1, code, "{body}");
    }
}

/// Fails when the old key goes on signing, leaves the JWKS with the rotation, or stays after it was retired.
#[tokio::test]
async fn a_rotated_key_is_shown_until_it_is_retired_and_signs_nothing() {
    let emulator = emulator();
    let old = emulator.key_id();
    let shown = |answer: Answer| answer.body["keys"].as_array().unwrap().clone();
    let rotated = shown(help(&emulator, Method::POST, "/_emulator/keys", "").await);
    let new = emulator.key_id();
    assert_ne!(old, new);
    assert_eq!(rotated, [&*new, &*old], "the one that signs is first");
    for template in ["", "/plain"] {
        let (header, _) = read(&mint(&emulator, ALICE, template, "").await.body["jwt"]);
        assert_eq!(header["kid"], new);
    }
    let jwks = async || shown(help(&emulator, Method::GET, "/.well-known/jwks.json", "").await);
    let both = jwks().await;
    assert_eq!(both.iter().map(|key| &key["kid"]).collect::<Vec<_>>(), [&*new, &*old]);
    assert_ne!(both[0]["n"], both[1]["n"]);
    assert_eq!(shown(help(&emulator, Method::DELETE, &format!("/_emulator/keys/{old}"), "").await), [&*new]);
    assert_eq!(jwks().await, both[..1]);
    for (kid, why) in [(&old, "no key has it"), (&new, "this one signs")] {
        let refused = help(&emulator, Method::DELETE, &format!("/_emulator/keys/{kid}"), "").await;
        assert!(refused.status == 422 && error(&refused).2.contains(why), "{kid}: {:?}", refused.body);
    }
}
