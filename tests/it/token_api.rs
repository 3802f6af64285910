//! `[token_api]`: what callers of Clerk's own API get here, what reaches the issuer, and a gateway that is the hub of
//! others.

mod hub;
mod passing;
mod stage;

use futures_util::future::join_all;
use http::{Method, header};
use mintgate::emulator::base_url;
use mintgate::metrics::{Lookup, MintResult};
use mintgate::session::{SessionId, UserId};
use tokio::time::Instant;

use self::stage::{BILLING, Stage, jwt, refused};
use crate::harness::{ALICE, BOB, Binary, claims, until};
use crate::reload::{reloaded, rewrite};

const ROUTE: &str = "[[routes]]\nname = \"r\"\nupstream = \"up\"\n\
     inject = [{ header = \"authorization\", prefix = \"Bearer \", template = \"plain\" }]\n";

/// Fails without the cache, and where a charset stands in the type.
#[tokio::test]
async fn a_hundred_calls_are_one_mint_and_one_token() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    let first = hub.token(&stage.key(), ALICE, "custom_hasura", "").await;
    assert_eq!(first.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(first.body, format!(r#"{{"object":"token","jwt":"{}"}}"#, jwt(&first)));
    assert_eq!(claims(&jwt(&first))["sub"], "user_emulator_alice");
    for body in ["", "{}", "null", r#"{"expires_in_seconds":null}"#].iter().cycle().take(99) {
        assert_eq!(hub.token(&stage.key(), ALICE, "custom_hasura", body).await.body, first.body);
    }
    let counted = (stage.mints(), hub.lookups(Lookup::Mint), hub.lookups(Lookup::Hit));
    assert_eq!(counted, (1, 1, 99));
}

/// Fails without the flight that they share.
#[tokio::test]
async fn callers_at_one_time_share_one_mint() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    stage.hold(true);
    let (key, local) = (stage.key(), format!("Bearer {BILLING}"));
    let asking = join_all((0..20).map(|number| {
        let bearer = if number % 2 == 0 { &key } else { &local };
        hub.token(bearer, ALICE, "custom_hasura", "")
    }));
    let released = async {
        until("all wait", || hub.lookups(Lookup::Hit) == 0 && stage.mints() == 1).await;
        stage.hold(false);
    };
    let (answers, ()) = futures_util::future::join(asking, released).await;
    assert!(answers.iter().all(|answer| answer.body == answers[0].body), "{answers:?}");
    assert_eq!(stage.mints(), 1);
}

/// Fails where the key of a token has no life time, no session or no template.
#[tokio::test]
async fn what_is_asked_for_is_what_is_shared() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    let key = stage.key();
    let asked = [
        (ALICE, "plain", ""),
        (ALICE, "plain", r#"{"expires_in_seconds":120}"#),
        (ALICE, "postgrest", ""),
        (BOB, "plain", ""),
    ];
    for round in [1, 2] {
        let mut tokens = Vec::new();
        for (sid, template, body) in asked {
            tokens.push(jwt(&hub.token(&key, sid, template, body).await));
        }
        let life = |token: &str| claims(token)["exp"].as_i64().unwrap() - claims(token)["iat"].as_i64().unwrap();
        assert_eq!((life(&tokens[0]), life(&tokens[1])), (60, 120));
        tokens.sort();
        tokens.dedup();
        assert_eq!((tokens.len(), stage.mints()), (4, 4), "round {round}");
    }
    // Of these no caller's configuration names one: their label is not the caller's to choose.
    let metrics = &hub.gateway.metrics;
    assert_eq!(metrics.control().mints(metrics.other_template(), MintResult::Ok).get(), 4);
}

/// The claims of a route's session are not known here, so a token of the one must not serve the other. Fails where
/// scope and user are no part of the key.
#[tokio::test]
async fn a_route_and_the_token_api_share_no_token() {
    let stage = Stage::new();
    let up = stage::echo(&stage);
    let route = format!(
        "[upstreams.up]\nurl = \"http://{up}\"\n[[routes]]\nname = \"r\"\nupstream = \"up\"\n\
         inject = [{{ header = \"authorization\", prefix = \"Bearer \", template = \"custom_hasura\" }}]\n"
    );
    let hub = stage.hub(&route).await;
    let through = hub.get("/", &stage.session(ALICE)).await.body;
    let asked = jwt(&hub.token(&stage.key(), ALICE, "custom_hasura", "").await);
    assert_ne!(through, format!("Bearer {asked}"));
    assert_eq!(stage.mints(), 2);
    for _ in 0..3 {
        assert_eq!(hub.get("/", &stage.session(ALICE)).await.body, through);
        assert_eq!(jwt(&hub.token(&stage.key(), ALICE, "custom_hasura", "").await), asked);
    }
    assert_eq!(stage.mints(), 2);
}

/// Fails where the life that a cached token has left does not count.
#[tokio::test]
async fn no_token_is_handed_out_at_the_end_of_its_life() {
    let stage = Stage::new();
    let hub = stage.hub("[cache]\nrefresh_at = \"off\"\nmin_remaining = \"10s\"\n").await;
    let key = stage.key();
    let first = jwt(&hub.token(&key, ALICE, "plain", "").await);
    stage.clock.step(44_000);
    assert_eq!(jwt(&hub.token(&key, ALICE, "plain", "").await), first);
    // Of 60 seconds less than 10 are left.
    stage.clock.step(6_001);
    assert_ne!(jwt(&hub.token(&key, ALICE, "plain", "").await), first);
    assert_eq!(stage.mints(), 2);
}

/// Fails without the bound, without the force, and where who asks by force after another takes the old token.
#[tokio::test]
async fn no_cache_is_honoured_once_in_ten_seconds_and_shared() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    let key = stage.key();
    let headers = [("authorization", key.as_str()), ("cache-control", "no-cache")];
    let target = format!("/v1/sessions/{ALICE}/tokens/plain");
    let first = jwt(&hub.token(&key, ALICE, "plain", "").await);
    stage.hold(true);
    let forced = join_all((0..5).map(|_| hub.ask(Method::POST, &target, &headers, "")));
    let others = async {
        until("the forced mint is under way", || stage.mints() == 2).await;
        // Who does not ask by force is served meanwhile.
        assert_eq!(jwt(&hub.token(&key, ALICE, "plain", "").await), first);
        stage.hold(false);
    };
    let (forced, ()) = futures_util::future::join(forced, others).await;
    let second = jwt(&forced[0]);
    assert_ne!(second, first);
    assert!(forced.iter().all(|answer| jwt(answer) == second), "{forced:?}");
    assert_eq!(jwt(&hub.ask(Method::POST, &target, &headers, "").await), second);
    assert_eq!(jwt(&hub.token(&key, ALICE, "plain", "").await), second);
    assert_eq!(stage.mints(), 2);
    // The word goes on to who may have a cache as well.
    let line = format!("POST {target}");
    let told: Vec<bool> =
        stage.seen(&line).iter().map(|seen| seen.headers.contains_key(header::CACHE_CONTROL)).collect();
    assert_eq!(told, [false, true]);
}

/// Fails without the look at the bearer, at `Origin`, and at the templates of a caller.
#[tokio::test]
async fn who_may_not_ask_is_told_so_and_nothing_reaches_the_issuer() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    let (key, local) = (stage.key(), format!("Bearer {BILLING}"));
    let mint = format!("/v1/sessions/{ALICE}/tokens/custom_hasura");
    let before = stage.reached().len();
    for (headers, expected) in [
        (&[][..], (401, "authentication_invalid")),
        (&[("authorization", "Basic YTpi")], (401, "authorization_header_format_invalid")),
        (&[("authorization", BILLING)], (401, "authorization_header_format_invalid")),
        (&[("authorization", "Bearer ")], (401, "authorization_header_format_invalid")),
        (&[("authorization", &key), ("authorization", &key)], (401, "authorization_header_format_invalid")),
        (&[("authorization", &key[..key.len() - 1])], (401, "clerk_key_invalid")),
        (&[("authorization", "Bearer sk_test_other")], (401, "clerk_key_invalid")),
        (&[("authorization", &key), ("origin", "http://127.0.0.1")], (403, "authorization_invalid")),
        (&[("authorization", &local), ("origin", "null")], (403, "authorization_invalid")),
    ] {
        let answer = hub.ask(Method::POST, &mint, headers, "").await;
        assert_eq!(refused(&answer), (expected.0, expected.1.to_owned()), "{headers:?}");
        assert_eq!(answer.headers.contains_key(header::WWW_AUTHENTICATE), expected.0 == 401);
    }
    let not_its = |status, code: &str| (status, code.to_owned());
    for (method, target, expected) in [
        (Method::POST, "/v1/sessions/sess_emulator_alice/tokens/plain", not_its(404, "resource_not_found")),
        (Method::POST, "/v1/sessions/sess_emulator_alice/tokens", not_its(403, "authorization_invalid")),
        (Method::POST, "/v1/sessions/sess_emulator_alice/revoke", not_its(403, "authorization_invalid")),
        (Method::GET, "/v1/sessions", not_its(403, "authorization_invalid")),
        (Method::GET, "/v1/users", not_its(403, "authorization_invalid")),
        (Method::GET, "/v1/jwt_templates", not_its(403, "authorization_invalid")),
        (Method::POST, "/v1/jwks", not_its(403, "authorization_invalid")),
        (Method::GET, "/", not_its(403, "authorization_invalid")),
        (Method::GET, "/v1/sessions/sess_emulator_alice/", not_its(403, "authorization_invalid")),
    ] {
        let answer = hub.ask(method, target, &[("authorization", &local)], "").await;
        assert_eq!(refused(&answer), expected, "{target}");
    }
    let unknown = hub.token(&local, ALICE, "custom_hasura", r#"{"organization_id":"org_1"}"#).await;
    assert_eq!(refused(&unknown), (422, "form_param_unknown".to_owned()));
    assert_eq!(stage.reached().len(), before);
    // And what it may.
    jwt(&hub.token(&local, ALICE, "custom_hasura", "").await);
    let session = hub.ask(Method::GET, &format!("/v1/sessions/{ALICE}"), &[("authorization", &local)], "").await;
    assert!(session.status == 200 && session.body.contains("user_emulator_alice"), "{session:?}");
    let keys = hub.ask(Method::GET, "/v1/jwks", &[("authorization", &local)], "").await;
    assert!(keys.status == 200 && keys.body.contains("\"kid\""), "{keys:?}");
    for seen in &stage.reached()[before..] {
        assert_eq!(seen.headers[header::AUTHORIZATION], key.as_str(), "{seen:?}");
    }
}

/// Fails where a path is passed on before it is looked at.
#[tokio::test]
async fn a_path_that_can_be_read_in_two_ways_goes_nowhere() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    let before = stage.reached().len();
    for target in [
        "/v1/../v1/users",
        "/v1/%2e%2e/users",
        "/v1//users",
        "/v1/sessions/a%2ftokens/t",
        "/v1/sessions/a/tokens/..%5c",
        "/v1/sessions/a/tokens/..;/t",
        "/v1/sessions/a/tokens/%252e%252e",
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = hub.ask(method, target, &[("authorization", &stage.key())], "").await;
            assert_eq!(refused(&answer), (400, "malformed_request_parameters".to_owned()), "{target}");
        }
    }
    let long = "x".repeat(70 * 1024);
    let answer = hub.token(&stage.key(), ALICE, "plain", &format!(r#"{{"expires_in_seconds":"{long}"}}"#)).await;
    assert_eq!(refused(&answer), (413, "request_body_too_large".to_owned()));
    assert_eq!(stage.reached().len(), before);
}

/// What a default client of the official Python SDK takes as a reason to ask for an hour is never said.
#[tokio::test]
async fn an_issuer_that_fails_is_told_as_429_or_as_what_is_final() {
    let stage = Stage::new();
    let key = stage.key();
    for (status, wait, sid, expected, told) in [
        (429, "7", "sess_1", (429, "too_many_requests"), "issuer-throttled"),
        (401, "", "sess_2", (401, "clerk_key_invalid"), "issuer-rejected-key"),
        (402, "", "sess_3", (402, "bad_request"), "issuer-refused"),
        (302, "", "sess_4", (400, "bad_request"), "issuer-refused"),
    ] {
        // Each on a gateway of its own: the pause after a 429 is everybody's.
        let hub = stage.hub("").await;
        stage.refuse(Some((status, wait)));
        let answer = hub.token(&key, sid, "plain", "").await;
        assert_eq!(refused(&answer), (expected.0, expected.1.to_owned()), "{status}");
        assert_eq!(answer.code(), told);
        let waits = answer.headers.get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
        assert_eq!(waits, (status == 429).then_some(wait), "{status}");
    }
    let hub = stage.hub_of(&base_url(stage.issuer), "1s", "").await;
    stage.refuse(Some((503, "")));
    let answer = hub.token(&key, ALICE, "plain", "").await;
    assert_eq!(refused(&answer), (429, "service_unavailable".to_owned()));
    assert!(answer.headers.contains_key(header::RETRY_AFTER), "{answer:?}");
    // Which of them, the deadline decides: whether it passes during an attempt or between two.
    assert!(["issuer-unavailable", "issuer-timeout"].contains(&answer.code()), "{answer:?}");
    stage.refuse(None);
    for (sid, template, text) in [
        ("sess_none", "plain", "No session was found with id sess_none"),
        (ALICE, "none", "No JWT template exists with name: none"),
        (ALICE, "a%20b", "No JWT template exists with name: a b"),
    ] {
        let hub = stage.hub("").await;
        let answer = hub.token(&key, sid, template, "").await;
        assert_eq!(refused(&answer), (404, "resource_not_found".to_owned()));
        assert!(answer.body.contains(&format!("\"{text}\"")), "{answer:?}");
    }
}

/// Fails without the look at the tombstones, and without the purge after a revocation that was passed on.
#[tokio::test]
async fn a_revoked_session_has_no_tokens_any_more() {
    let stage = Stage::new();
    let up = stage::echo(&stage);
    let route = format!("[upstreams.up]\nurl = \"http://{up}\"\n[[routes]]\nname = \"r\"\nupstream = \"up\"\n");
    let hub = stage.hub(&route).await;
    let session = stage.session(BOB);
    assert_eq!(hub.get("/", &session).await.status, 200);
    let (key, local) = (stage.key(), format!("Bearer {BILLING}"));
    jwt(&hub.token(&key, ALICE, "custom_hasura", "").await);
    jwt(&hub.token(&key, BOB, "custom_hasura", "").await);
    hub.gateway.sessions.revoked.revoke_session(SessionId::new(ALICE).unwrap(), Instant::now());
    let revoke = format!("/v1/sessions/{BOB}/revoke");
    let answer = hub.ask(Method::POST, &revoke, &[("authorization", &key)], "").await;
    assert!(answer.status == 200 && answer.body.contains("\"revoked\""), "{answer:?}");
    // Nor does a route take it any more.
    let through = hub.get("/", &session).await;
    assert_eq!((through.status, through.code()), (401, "session-revoked"));
    for sid in [ALICE, BOB] {
        for (bearer, target) in [(&key, "tokens/custom_hasura"), (&local, "tokens/custom_hasura"), (&key, "tokens")] {
            let target = format!("/v1/sessions/{sid}/{target}");
            let answer = hub.ask(Method::POST, &target, &[("authorization", bearer)], "").await;
            assert_eq!(refused(&answer), (404, "resource_not_found".to_owned()), "{target}");
            assert!(answer.body.contains(&format!("No session was found with id {sid}")), "{answer:?}");
        }
    }
    assert_eq!((stage.mints(), stage.seen("POST /v1/sessions/").len()), (2, 3));
}

/// A session's id does not say whose it is; its token does. Fails without the look into it.
#[tokio::test]
async fn a_revoked_users_sessions_have_no_tokens_any_more() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    let key = stage.key();
    jwt(&hub.token(&key, ALICE, "custom_hasura", "").await);
    hub.gateway.sessions.revoked.revoke_user(UserId::new("user_emulator_alice").unwrap(), Instant::now());
    for template in ["custom_hasura", "plain"] {
        let answer = hub.token(&key, ALICE, template, "").await;
        assert_eq!(refused(&answer), (404, "resource_not_found".to_owned()));
    }
    jwt(&hub.token(&key, BOB, "custom_hasura", "").await);
}

/// On both ways, and though the mint began before and was not ended with the session. Fails without the look after the
/// wait of either.
#[tokio::test]
async fn a_session_that_is_revoked_while_its_token_is_minted_gets_none() {
    let stage = Stage::new();
    let up = stage::echo(&stage);
    let hub = stage.hub(&format!("[upstreams.up]\nurl = \"http://{up}\"\n{ROUTE}")).await;
    let (key, session) = (stage.key(), stage.session(ALICE));
    // A connection is ready then: who waits for one is looked at once more after that.
    assert_eq!(hub.get("/", &stage.session(BOB)).await.status, 200);
    stage.hold(true);
    let asked = futures_util::future::join(hub.token(&key, ALICE, "custom_hasura", ""), hub.get("/", &session));
    let revoked = async {
        until("both mints are under way", || stage.mints() == 3).await;
        hub.gateway.sessions.revoked.revoke_session(SessionId::new(ALICE).unwrap(), Instant::now());
        stage.hold(false);
    };
    let ((answer, through), ()) = futures_util::future::join(asked, revoked).await;
    assert_eq!(refused(&answer), (404, "resource_not_found".to_owned()));
    assert_eq!((through.status, through.code()), (401, "session-revoked"));
}

/// Clerk is a third party: where requests are traced, their upstream hears of it and the issuer does not. Fails where a mint
/// carries the context.
#[tokio::test]
async fn the_issuer_is_told_of_no_trace() {
    let stage = Stage::new();
    let up = stage::echo_of(&stage, http::HeaderName::from_static("traceparent"));
    let traces = "[traces]\nendpoint = \"http://127.0.0.1:1\"\nprotocol = \"http\"\nsample = 1.0\n";
    let hub = stage.hub(&format!("{traces}[upstreams.up]\nurl = \"http://{up}\"\n{ROUTE}")).await;
    let told = hub.get("/", &stage.session(ALICE)).await;
    assert!(told.status == 200 && told.body.starts_with("00-") && told.body.ends_with("-01"), "{told:?}");
    let asked = stage.seen("");
    assert!(stage.mints() == 1 && asked.len() >= 2, "the keys and a mint: {}", asked.len());
    for name in ["traceparent", "tracestate"] {
        assert!(asked.iter().all(|seen| !seen.headers.contains_key(name)), "{name}");
    }
}

/// Fails where callers or the mint are those of the first configuration.
#[tokio::test]
async fn a_rotated_key_and_changed_callers_count_at_once() {
    let stage = Stage::new();
    let text = |caller: &str, key: &str| {
        format!(
            "[clerk]\nsecret_key = {{ env = \"{key}\" }}\napi_url = \"http://{}\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[token_api]\nlisten = \"127.0.0.1:0\"\n\
             callers = [{{ name = \"a\", token = {{ env = \"{caller}\" }}, templates = [\"plain\"] }}]\n",
            stage.issuer
        )
    };
    let secret = stage.emulator.secret_key().expose().to_owned();
    let vars =
        [("OLD", "sk_test_old"), ("NEW", secret.as_str()), ("CALLER", "first-caller"), ("SECOND", "second-caller")];
    let binary = Binary::start("token-api-rotated", &text("CALLER", "OLD"), &vars).await;
    let api = binary.said("token API listening").unwrap();
    let ask = async |bearer: &str, sid: &str| {
        let url = format!("http://{api}/v1/sessions/{sid}/tokens/plain");
        let headers = [("authorization", bearer)];
        crate::harness::call(&stage.client, Method::POST, &url, &headers, "").await.status
    };
    assert_eq!(ask("Bearer sk_test_old", ALICE).await, 401);
    assert_eq!(ask("Bearer first-caller", ALICE).await, 401);
    rewrite("token-api-rotated", &text("SECOND", "NEW"));
    reloaded(&binary, 1).await;
    assert_eq!(ask("Bearer second-caller", ALICE).await, 200);
    assert_eq!(ask(&stage.key(), ALICE).await, 200);
    let mints = stage.mints();
    for bearer in ["Bearer sk_test_old", "Bearer first-caller"] {
        assert_eq!(ask(bearer, BOB).await, 401);
    }
    assert_eq!(stage.mints(), mints);
}
