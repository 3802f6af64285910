//! The API as a caller sees it: answers, tokens and errors.

mod fidelity;
mod hooks;
mod scripted;

use axum::body::Body;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{Method, Request, request};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::clock::Wall;

const ALICE: &str = "sess_emulator_alice";
const BOB: &str = "sess_emulator_bob";

fn emulator() -> Emulator {
    Emulator::new(Options::default(), Clock::following(Wall::from_seconds(1_800_000_000))).unwrap()
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Value,
}

async fn send(emulator: &Emulator, request: Request<Body>) -> Answer {
    let (parts, body) = emulator.router().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = || Value::from(String::from_utf8_lossy(&bytes).into_owned());
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn builder(method: Method, target: &str) -> request::Builder {
    Request::builder().method(method).uri(target)
}

async fn call(emulator: &Emulator, method: Method, target: &str, body: &str) -> Answer {
    let request = builder(method, target)
        .header("authorization", format!("Bearer {DEFAULT_SECRET_KEY}"))
        .header("content-type", "application/json");
    send(emulator, request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn mint(emulator: &Emulator, session: &str, template: &str, body: &str) -> Answer {
    call(emulator, Method::POST, &format!("/v1/sessions/{session}/tokens{template}"), body).await
}

/// Header and claims of a token.
fn read(token: &Value) -> (Value, Value) {
    let parts: Vec<Value> = token
        .as_str()
        .unwrap()
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    (parts[0].clone(), parts[1].clone())
}

/// The one error of an answer, in Clerk's shape.
fn error(answer: &Answer) -> (u16, String, String) {
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    assert_eq!(answer.body["clerk_trace_id"].as_str().map(str::len), Some(16));
    let error = &answer.body["errors"][0];
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    assert!(!text("message").is_empty());
    (answer.status, text("code"), text("long_message"))
}

#[tokio::test]
async fn a_template_token_has_the_templates_claims_and_no_session() {
    let emulator = emulator();
    let answer = mint(&emulator, ALICE, "/custom_hasura", "").await;
    assert_eq!((answer.status, &answer.headers[CONTENT_TYPE]), (200, &"application/json".parse().unwrap()));
    assert_eq!(answer.body["object"], "token");
    let (header, mut claims) = read(&answer.body["jwt"]);
    assert_eq!(header, json!({"alg": "RS256", "cat": "cl_B7d4PD222AAA", "kid": emulator.key_id(), "typ": "JWT"}));
    claims["jti"] = json!("");
    assert_eq!(
        claims,
        json!({
            "exp": 1_800_000_060, "iat": 1_800_000_000, "iss": emulator.issuer(), "jti": "", "nbf": 1_799_999_995,
            "sub": "user_emulator_alice",
            "https://hasura.io/jwt/claims": {
                "x-hasura-allowed-roles": ["user", "admin"],
                "x-hasura-default-role": "admin",
                "x-hasura-user-id": "user_emulator_alice",
                "x-hasura-org-id": "org_emulator_acme",
            },
        })
    );
}

#[tokio::test]
async fn a_session_token_names_its_session_and_organization() {
    let emulator = emulator();
    let (header, claims) = read(&mint(&emulator, ALICE, "", "null").await.body["jwt"]);
    assert_eq!((&header["cat"], &header["kid"]), (&json!("cl_B7d4PD111AAA"), &json!(emulator.key_id())));
    assert_eq!((&claims["sid"], &claims["v"], &claims["sts"]), (&json!(ALICE), &json!(2), &json!("active")));
    assert_eq!((&claims["o"]["rol"], &claims["o"]["id"]), (&json!("admin"), &json!("org_emulator_acme")));
    let (_, claims) = read(&mint(&emulator, BOB, "", r#"{"expires_in_seconds":300}"#).await.body["jwt"]);
    assert_eq!((claims.get("o"), &claims["exp"]), (None, &json!(1_800_000_300)));
    assert_ne!(claims["jti"], read(&mint(&emulator, BOB, "", "{}").await.body["jwt"]).1["jti"], "no token twice");
}

#[tokio::test]
async fn refusals_are_in_clerks_words() {
    let emulator = emulator();
    let not_found = "resource_not_found".to_owned();
    for (session, template, body, expected) in [
        ("sess_none", "/plain", "", (404, &*not_found, "No session was found with id sess_none")),
        ("sess_none", "", "", (404, &*not_found, "No session was found with id sess_none")),
        (ALICE, "/none", "", (404, &*not_found, "No JWT template exists with name: none")),
        (ALICE, "/a%2Fb", "", (404, &*not_found, "No JWT template exists with name: a/b")),
        (
            ALICE,
            "/plain",
            r#"{"expires_in_seconds":29}"#,
            (422, "form_param_value_invalid", "expires_in_seconds is invalid"),
        ),
        (ALICE, "/plain", r#"{"x":1}"#, (422, "form_param_unknown", "x is not a valid parameter for this request.")),
    ] {
        let answer = mint(&emulator, session, template, body).await;
        let (status, code, long) = error(&answer);
        assert_eq!((status, &*code, &*long), expected, "{session} {template} {body}");
    }
    assert_eq!(error(&mint(&emulator, ALICE, "/plain", "{").await).1, "request_body_invalid");
    let long = format!("\"{}\"", "x".repeat(MAX_BODY));
    assert_eq!(error(&mint(&emulator, ALICE, "/plain", &long).await).0, 413);
    assert_eq!(error(&call(&emulator, Method::GET, "/v1/nothing", "").await).0, 404);
    assert_eq!(error(&call(&emulator, Method::PUT, "/v1/sessions", "").await).0, 405);
}

#[tokio::test]
async fn only_the_secret_key_opens_the_api() {
    let emulator = emulator();
    for (presented, code) in [
        (None, "authentication_invalid"),
        (Some("Bearer sk_test_other"), "clerk_key_invalid"),
        (Some("Bearer sk_test_emulato"), "clerk_key_invalid"),
        (Some("Basic c2s6"), "authorization_header_format_invalid"),
        (Some("sk_test_emulator"), "authorization_header_format_invalid"),
        (Some(""), "authorization_header_format_invalid"),
    ] {
        for target in ["/v1/jwks", "/v1/sessions", "/v1/nothing"] {
            let mut request = builder(Method::GET, target);
            if let Some(presented) = presented {
                request = request.header("authorization", presented);
            }
            let answer = send(&emulator, request.body(Body::empty()).unwrap()).await;
            let (status, found, _) = error(&answer);
            assert_eq!((status, &*found), (401, code), "{presented:?} {target}");
        }
    }
    let public = builder(Method::GET, "/.well-known/jwks.json").body(Body::empty()).unwrap();
    assert_eq!(send(&emulator, public).await.body["keys"][0]["kid"], emulator.key_id());
}

#[tokio::test]
async fn a_revoked_session_mints_nothing() {
    let emulator = emulator();
    let revoked = call(&emulator, Method::POST, &format!("/v1/sessions/{BOB}/revoke"), "").await;
    assert_eq!((revoked.status, &revoked.body["status"]), (200, &json!("revoked")));
    assert_eq!(error(&mint(&emulator, BOB, "/plain", "").await).0, 404);
    assert_eq!(error(&mint(&emulator, BOB, "", "").await).0, 404);
    assert!(matches!(emulator.session_token(BOB), Err(ApiError::SessionNotFound(_))));
    assert_eq!(mint(&emulator, ALICE, "", "").await.status, 200);
    let list = call(&emulator, Method::GET, "/v1/sessions?status=active&paginated=true", "").await;
    assert_eq!((&list.body["total_count"], &list.body["data"][0]["id"]), (&json!(1), &json!(ALICE)));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_by_age() {
    let emulator = emulator();
    tokio::time::advance(std::time::Duration::from_hours(7 * 24)).await;
    assert_eq!(error(&mint(&emulator, ALICE, "", "").await).0, 404);
    assert_eq!(call(&emulator, Method::GET, &format!("/v1/sessions/{ALICE}"), "").await.body["status"], "expired");
}

#[tokio::test(start_paused = true)]
async fn beyond_the_rate_limit_the_answer_says_when_to_come_back() {
    let emulator = emulator();
    for _ in 0..100 {
        assert_eq!(call(&emulator, Method::GET, "/v1/sessions", "").await.status, 200);
    }
    let refused = mint(&emulator, ALICE, "", "").await;
    assert_eq!(
        (error(&refused).1.as_str(), &refused.headers[RETRY_AFTER]),
        ("too_many_requests", &"10".parse().unwrap())
    );
    assert_eq!(call(&emulator, Method::GET, "/v1/jwks", "").await.status, 200);
    assert_eq!(emulator.state()["calls"], json!({"requests": 101, "throttled": 1, "jwks": 1, "mints": 0}));
    tokio::time::advance(RateLimit::WINDOW).await;
    assert_eq!(mint(&emulator, ALICE, "", "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_begun_for_a_user_in_its_organization() {
    let emulator = emulator();
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    let body = r#"{"user_id":"user_emulator_alice","active_organization_id":"org_emulator_acme"}"#;
    let begun = call(&emulator, Method::POST, "/v1/sessions", body).await;
    assert_eq!(begun.body["status"], "active");
    let list = call(&emulator, Method::GET, "/v1/sessions?limit=1", "").await;
    assert_eq!(list.body[0]["id"], begun.body["id"], "the newest first");
    let (_, claims) = read(&mint(&emulator, begun.body["id"].as_str().unwrap(), "", "").await.body["jwt"]);
    assert_eq!((&claims["sid"], &claims["o"]["slg"]), (&begun.body["id"], &json!("acme")));
    for (body, status) in [
        (r#"{"user_id":"user_none"}"#, 404),
        (r#"{"user_id":"user_emulator_bob","active_organization_id":"org_emulator_acme"}"#, 404),
        ("{}", 422),
    ] {
        assert_eq!(error(&call(&emulator, Method::POST, "/v1/sessions", body).await).0, status, "{body}");
    }
    let options = Options { secret_key: "sk_live_1".parse().unwrap(), ..Options::default() };
    let live = Emulator::new(options, Clock::system()).unwrap();
    assert!(live.publishable_key().starts_with("pk_live_"));
    let request = builder(Method::POST, "/v1/sessions").header("authorization", "Bearer sk_live_1");
    let refused = send(&live, request.body(Body::empty()).unwrap()).await;
    assert_eq!(error(&refused).1, "request_invalid_for_environment");
}

#[tokio::test]
async fn templates_are_made_changed_and_removed() {
    let emulator = emulator();
    let body = r#"{"name":"mine","claims":{"who":"{{user.full_name}}"},"lifetime":90,"allowed_clock_skew":0}"#;
    let made = call(&emulator, Method::POST, "/v1/jwt_templates", body).await;
    let path = format!("/v1/jwt_templates/{}", made.body["id"].as_str().unwrap());
    let (_, claims) = read(&mint(&emulator, ALICE, "/mine", "").await.body["jwt"]);
    assert_eq!(
        (&claims["who"], &claims["exp"], &claims["nbf"]),
        (&json!("Alice Adams"), &json!(1_800_000_090), &json!(1_800_000_000))
    );
    assert_eq!(error(&call(&emulator, Method::POST, "/v1/jwt_templates", body).await).1, "form_identifier_exists");

    let shared =
        r#"{"name":"mine","claims":{},"custom_signing_key":true,"signing_algorithm":"HS256","signing_key":"canary"}"#;
    let changed = call(&emulator, Method::PATCH, &path, shared).await;
    assert_eq!(
        (&changed.body["signing_algorithm"], &changed.body["custom_signing_key"]),
        (&json!("HS256"), &json!(true))
    );
    assert!(!changed.body.to_string().contains("canary"));
    let (header, _) = read(&mint(&emulator, ALICE, "/mine", "").await.body["jwt"]);
    assert_eq!(header["alg"], "HS256");

    for (body, code) in [
        (r#"{"name":"mine","claims":{"sid":"x"}}"#, "jwt_template_reserved_claim"),
        (r#"{"name":"mine","claims":{},"lifetime":29}"#, "form_param_value_invalid"),
        (r#"{"name":"mine","claims":{},"allowed_clock_skew":301}"#, "form_param_value_invalid"),
        (r#"{"name":"plain","claims":{}}"#, "form_identifier_exists"),
        (
            r#"{"name":"mine","claims":{},"custom_signing_key":true,"signing_algorithm":"ES256"}"#,
            "form_param_value_invalid",
        ),
        (r#"{"name":"mine","claims":{},"signing_algorithm":"RS256"}"#, "form_param_value_invalid"),
        (r#"{"name":"mine","claims":[]}"#, "form_param_type_invalid"),
        (r#"{"name":"mine"}"#, "form_param_missing"),
        (r#"{"claims":{}}"#, "form_param_missing"),
    ] {
        assert_eq!(error(&call(&emulator, Method::PATCH, &path, body).await).1, code, "{body}");
    }
    assert_eq!(call(&emulator, Method::DELETE, &path, "").await.body["deleted"], true);
    assert_eq!(
        error(&call(&emulator, Method::GET, &path, "").await).2,
        format!("No JWT template exists with id: {}", made.body["id"].as_str().unwrap())
    );
    emulator.ensure_template("fresh").unwrap();
    emulator.ensure_template("fresh").unwrap();
    assert_eq!(mint(&emulator, ALICE, "/fresh", "").await.status, 200);
}

#[tokio::test]
async fn the_helpers_need_no_key_and_count_apart() {
    let emulator = emulator();
    mint(&emulator, ALICE, "/plain", "").await;
    mint(&emulator, ALICE, "", "").await;
    let target = format!("/_emulator/token?session={ALICE}&azp=https://app.example.com");
    let answer = send(&emulator, builder(Method::GET, &target).body(Body::empty()).unwrap()).await;
    assert!(answer.headers[CONTENT_TYPE].to_str().unwrap().starts_with("text/plain"));
    let (_, claims) = read(&answer.body);
    assert_eq!((&claims["sid"], &claims["azp"]), (&json!(ALICE), &json!("https://app.example.com")));
    let state = send(&emulator, builder(Method::GET, "/_emulator/state").body(Body::empty()).unwrap()).await.body;
    assert_eq!(state["sessions"][0]["mints"], json!({"session": 1, "templates": {"plain": 1}}));
    assert_eq!(state["calls"]["mints"], 2);
    let bare = builder(Method::GET, "/_emulator/token").body(Body::empty()).unwrap();
    assert_eq!(error(&send(&emulator, bare).await).0, 422);
}

#[tokio::test(start_paused = true)]
async fn the_date_is_the_emulators_own() {
    let clock = Clock::following(Wall::from_seconds(1_800_000_000));
    let emulator = Emulator::new(Options::default(), clock.clone()).unwrap();
    clock.step(3_600_000);
    let answer = call(&emulator, Method::GET, "/v1/jwks", "").await;
    assert_eq!(answer.headers[DATE], "Fri, 15 Jan 2027 09:00:00 GMT");
}

#[test]
fn secret_keys_are_of_clerks_shape() {
    for bad in ["", "sk_test_", "sk_test_a b", "pk_test_x", "sk_test_é", "xsk_test_a"] {
        assert_eq!(bad.parse::<SecretKey>(), Err(BadSecretKey), "{bad:?}");
    }
    assert_eq!(DEFAULT_SECRET_KEY.parse::<SecretKey>(), Ok(SecretKey::default()));
}

#[tokio::test]
async fn the_line_to_paste_fetches_its_token() {
    let line = emulator().curl("0.0.0.0:6470".parse().unwrap(), "http://127.0.0.1:6468/x", ALICE);
    assert_eq!(
        line,
        "curl -s 'http://127.0.0.1:6468/x' -H \"Authorization: Bearer $(curl -s \
         'http://127.0.0.1:6470/_emulator/token?session=sess_emulator_alice')\""
    );
}
