//! What is not a template's token: passed on with the caller's own key, as it comes.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, Method, header};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use mintgate::emulator::base_url;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::stage::{Stage, jwt, refused};
use crate::harness::{ALICE, serve};

/// The request line, the headers and the body of what was passed on.
type Kept = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// The SDKs' calls beside the minting of templates' tokens.
#[tokio::test]
async fn what_is_no_templates_token_is_the_issuers_to_answer_each_time() {
    let stage = Stage::new();
    let hub = stage.hub("").await;
    let key = stage.key();
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let session = format!("/v1/sessions/{ALICE}");
    for round in 1..=3 {
        let answer = hub.ask(Method::GET, &session, &headers, "").await;
        let read: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &read["user_id"]), (200, &json!("user_emulator_alice")));
        let listed = hub.ask(Method::GET, "/v1/sessions?limit=1&user_id=user_emulator_bob", &headers, "").await;
        assert!(listed.status == 200 && !listed.body.contains("alice"), "{listed:?}");
        jwt(&hub.ask(Method::POST, &format!("{session}/tokens"), &headers, r#"{"expires_in_seconds":90}"#).await);
        // Nobody here knows what it would do to a token.
        let odd = hub.token(&key, ALICE, "plain", r#"{"expires_in_seconds":90,"organization_id":"org_1"}"#).await;
        assert_eq!(refused(&odd), (422, "form_param_unknown".to_owned()));
        let missing = hub.ask(Method::GET, "/nothing", &headers, "").await;
        assert_eq!(missing.status, 404);
        let counts = ["GET /v1/sessions/", "GET /v1/sessions?", "POST /v1/sessions/", "GET /nothing"]
            .map(|of| stage.seen(of).len());
        assert_eq!(counts, [round, round, 2 * round, round]);
    }
}

/// Fails where a hop's own headers are passed on, a redirect is followed, or the key is another one.
#[tokio::test]
async fn a_call_is_passed_on_as_it_is_without_what_is_the_connections() {
    let (seen, stage) = (Kept::default(), Stage::new());
    let keep = async |State(seen): State<Kept>, request: Request| {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        seen.lock().unwrap().push((format!("{} {}", head.method, head.uri), head.headers, body));
        let answer = Response::builder().status(307).header("location", "http://127.0.0.1:1/elsewhere");
        let answer = answer.header("connection", "x-hop").header("x-hop", "1").header("x-kept", "2");
        answer.header("x-mintgate-error", "forged").body(Body::from("moved")).unwrap()
    };
    let issuer = serve(Router::new().fallback(keep).with_state(Arc::clone(&seen)), &stage.shutdown);
    let hub = stage.hub_of(&format!("http://{issuer}/base"), "30s", "").await;
    let key = stage.key();
    let headers = [
        ("authorization", key.as_str()),
        ("connection", "keep-alive, X-Private"),
        ("x-private", "1"),
        ("te", "trailers"),
        ("keep-alive", "timeout=5"),
        ("clerk-api-version", "2025-11-10"),
        ("x-clerk-sdk", "python/7.0.0"),
    ];
    let answer = hub.ask(Method::PATCH, "/v1/users/u%5F1?a=%20b&a=c", &headers, "{\"a\":1}").await;
    assert_eq!((answer.status, answer.body.as_str()), (307, "moved"));
    assert_eq!(
        (&answer.headers["location"], &answer.headers["x-kept"]),
        (&"http://127.0.0.1:1/elsewhere".parse().unwrap(), &"2".parse().unwrap())
    );
    assert!(!answer.headers.contains_key("x-hop") && answer.code().is_empty(), "{answer:?}");
    let seen: Vec<_> = seen.lock().unwrap().iter().filter(|(line, ..)| !line.ends_with("/jwks")).cloned().collect();
    let [(line, headers, body)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((line.as_str(), &body[..]), ("PATCH /base/v1/users/u%5F1?a=%20b&a=c", &b"{\"a\":1}"[..]));
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "clerk-api-version", "content-length", "host", "x-clerk-sdk"]);
    assert_eq!(
        (&headers[header::AUTHORIZATION], &headers[header::HOST]),
        (&key.parse().unwrap(), &issuer.to_string().parse().unwrap())
    );
}

/// Each side waits for what the other has sent: it would wait for ever where a body was read whole before it is passed on.
#[tokio::test]
async fn both_bodies_stream() {
    let stage = Stage::new();
    let mirror = async |request: Request| Response::new(request.into_body());
    let issuer = serve(Router::new().fallback(mirror), &stage.shutdown);
    let hub = stage.hub_of(&format!("http://{issuer}"), "30s", "").await;
    let (sending, parts) = mpsc::channel::<Bytes>(1);
    let body = futures_util::stream::unfold(parts, async |mut parts| {
        parts.recv().await.map(|part| (Ok::<_, Infallible>(Frame::data(part)), parts))
    });
    let body = http_body_util::StreamBody::new(body.boxed());
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request = http::Request::post(format!("http://{}/v1/files", hub.api()));
    let request = request.header("authorization", stage.key()).body(body).unwrap();
    sending.send(Bytes::from_static(b"one")).await.unwrap();
    let exchange = async {
        let mut answer = client.request(request).await.unwrap().into_body();
        for part in ["one", "two", "three"] {
            let got = answer.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(got, part);
            let next = if part == "one" { "two" } else { "three" };
            if part != "three" {
                sending.send(Bytes::from_static(next.as_bytes())).await.unwrap();
            }
        }
        drop(sending);
        assert!(answer.frame().await.is_none());
    };
    tokio::time::timeout(crate::harness::PATIENCE, exchange).await.unwrap();
}

/// The issuer counts them, so what is left for mints is less; and none waits for it. Fails where a call that is passed on
/// takes no unit, or stands in line for one.
#[tokio::test]
async fn calls_that_are_passed_on_count_and_are_never_held_up() {
    let stage = Stage::new();
    let budget = "[clerk.budget]\nrequests = 10\nper = \"1h\"\nshare = 1.0\nreserve = 0.0\n";
    let hub = stage.hub_of(&base_url(stage.issuer), "1s", budget).await;
    let key = stage.key();
    let headers = [("authorization", key.as_str())];
    for _ in 0..12 {
        let answer = hub.ask(Method::GET, &format!("/v1/sessions/{ALICE}"), &headers, "").await;
        assert_eq!(answer.status, 200);
    }
    for _ in 0..3 {
        assert_eq!(hub.ask(Method::GET, "/v1/jwks", &headers, "").await.status, 200);
    }
    assert_eq!(refused(&hub.token(&key, ALICE, "plain", "").await).0, 429);
    assert_eq!(stage.mints(), 0);
    let local = format!("Bearer {}", super::stage::BILLING);
    let answer = hub.ask(Method::GET, &format!("/v1/sessions/{ALICE}"), &[("authorization", &local)], "").await;
    assert_eq!(refused(&answer), (429, "too_many_requests".to_owned()));
}

#[tokio::test]
async fn an_issuer_that_is_not_there_is_no_5xx_unless_it_may_have_heard() {
    let stage = Stage::new();
    let broken = serve(Router::new().fallback(async || -> String { panic!("the connection ends") }), &stage.shutdown);
    for (issuer, expected) in [
        ("http://127.0.0.1:1".to_owned(), (429, "service_unavailable")),
        (format!("http://{broken}"), (502, "bad_gateway")),
    ] {
        let hub = stage.hub_of(&issuer, "1s", "").await;
        let local = format!("Bearer {}", super::stage::BILLING);
        for (bearer, target) in [(&stage.key(), "/v1/users"), (&local, "/v1/jwks")] {
            let answer = hub.ask(Method::GET, target, &[("authorization", bearer)], "").await;
            assert_eq!(refused(&answer), (expected.0, expected.1.to_owned()), "{issuer} {target}");
        }
    }
}
