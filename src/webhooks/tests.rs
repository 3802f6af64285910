//! The endpoint as Svix meets it, with what it does seen from behind.

use aws_lc_rs::hmac;
use axum::body::Body;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::address::ListenAddress;
use crate::clock::Wall;
use crate::config::Way;
use crate::metrics::{Metrics, Names};
use crate::revocation::testing::{self, Told};
use crate::secret::Secret;
use crate::session::{SessionId, UserId};

const KEY: &[u8] = b"a key of twenty-four byt";
const NOW: i64 = 1_800_000_000;

struct World {
    router: Router,
    revocation: Revocation,
    told: Told,
    ledger: Arc<Ledger>,
    config: Live<Webhooks>,
}

fn secret(key: &[u8]) -> Secret {
    Secret::new(format!("whsec_{}", BASE64_STANDARD.encode(key)))
}

fn webhooks(path: &str, keys: &[&[u8]]) -> Webhooks {
    let way = Way { listen: ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()), tls: None };
    Webhooks { way, path: path.to_owned(), signing_secrets: keys.iter().map(|key| secret(key)).collect() }
}

fn world() -> World {
    let clock = Clock::following(Wall::from_seconds(NOW));
    let (revocation, told) = testing::revocation(clock.clone());
    let ledger = Arc::new(Ledger::new(Arc::new(Metrics::new(Names::default()))));
    let config = Live::new(webhooks("/webhooks/clerk", &[KEY]));
    let endpoint =
        Endpoint { config: config.clone(), revocation: revocation.clone(), clock, ledger: Arc::clone(&ledger) };
    World { router: endpoint.router(), revocation, told, ledger, config }
}

fn event(kind: &str, data: &Value) -> String {
    json!({ "object": "event", "type": kind, "data": data }).to_string()
}

/// A request that Svix would send.
fn signed(id: &str, body: &str) -> http::request::Builder {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), format!("{id}.{NOW}.{body}").as_bytes());
    http::Request::post("/webhooks/clerk")
        .header("svix-id", id)
        .header("svix-timestamp", NOW)
        .header("svix-signature", format!("v1,{}", BASE64_STANDARD.encode(tag)))
}

impl World {
    async fn ask(&self, request: http::request::Builder, body: impl Into<Body>) -> u16 {
        let answer = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        drop(answer.into_body().collect().await.unwrap());
        status
    }

    /// The status of the answer to an event.
    async fn send(&self, id: &str, kind: &str, data: &Value) -> u16 {
        let body = event(kind, data);
        self.ask(signed(id, &body), body).await
    }

    fn count(&self, kind: WebhookType, result: WebhookResult) -> u64 {
        self.ledger.common().webhook_events(kind, result).get()
    }

    fn refuses(&self, sid: &str, sub: &str) -> bool {
        let (sid, sub) = (SessionId::new(sid).unwrap(), UserId::new(sub).unwrap());
        self.revocation.revoked.refuses(&sid, Some(&sub), Instant::now())
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_is_refused_and_its_sockets_are_told() {
    let world = world();
    assert_eq!(world.send("msg_1", "session.revoked", &json!({ "id": "sess_1", "user_id": "user_1" })).await, 200);
    assert!(world.refuses("sess_1", "user_1") && !world.refuses("sess_2", "user_1"));
    assert_eq!(*world.told.lock().unwrap(), ["sess_1 4403"]);
    assert_eq!(world.count(WebhookType::SessionRevoked, WebhookResult::Revoked), 1);
}

#[tokio::test(start_paused = true)]
async fn a_banned_user_is_refused_until_he_is_not() {
    let world = world();
    let user = |banned: bool, updated_at: i64| json!({ "id": "user_1", "banned": banned, "locked": false, "updated_at": updated_at });
    assert_eq!(world.send("msg_1", "user.updated", &user(true, 10)).await, 200);
    assert!(world.refuses("sess_1", "user_1") && *world.told.lock().unwrap() == ["user_1 4403"]);
    assert_eq!(world.send("msg_2", "user.updated", &user(false, 9)).await, 200);
    assert!(world.refuses("sess_1", "user_1"), "an older word that came late");
    assert_eq!(world.send("msg_3", "user.updated", &user(false, 11)).await, 200);
    assert!(!world.refuses("sess_1", "user_1"));
    let counts =
        [WebhookResult::Revoked, WebhookResult::Purged].map(|result| world.count(WebhookType::UserUpdated, result));
    assert_eq!(counts, [1, 2]);
}

/// Fails without the memory of ids: the tunnels would be told twice.
#[tokio::test(start_paused = true)]
async fn a_repeated_event_is_answered_and_does_nothing() {
    let world = world();
    for _ in 0..3 {
        assert_eq!(world.send("msg_1", "session.ended", &json!({ "id": "sess_1" })).await, 200);
    }
    assert_eq!(world.told.lock().unwrap().len(), 1);
    assert_eq!(world.count(WebhookType::SessionEnded, WebhookResult::Repeated), 2);
    // What could not be followed may be sent again.
    assert_eq!(world.send("msg_2", "session.ended", &json!({})).await, 400);
    assert_eq!(world.send("msg_2", "session.ended", &json!({ "id": "sess_2" })).await, 200);
    assert_eq!(world.told.lock().unwrap().len(), 2);
    assert_eq!(world.count(WebhookType::Other, WebhookResult::Malformed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_another_type_is_acknowledged() {
    let world = world();
    for (id, kind) in [("msg_1", "email.created"), ("msg_2", "user.created"), ("msg_3", "what.comes.next")] {
        assert_eq!(world.send(id, kind, &json!({ "id": "sess_1" })).await, 200, "{kind}");
    }
    assert_eq!(world.count(WebhookType::Other, WebhookResult::Ignored), 3);
    assert!(world.revocation.revoked.is_empty() && world.told.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_only_changes_a_user_forgets_tokens_and_refuses_nobody() {
    let world = world();
    let member = json!({ "public_user_data": { "user_id": "user_1" } });
    for (id, kind, data) in [
        ("msg_1", "session.pending", json!({ "id": "sess_1" })),
        ("msg_2", "user.updated", json!({ "id": "user_1", "banned": false, "locked": false })),
        ("msg_3", "organizationMembership.deleted", member),
    ] {
        assert_eq!(world.send(id, kind, &data).await, 200, "{kind}");
    }
    assert!(world.revocation.revoked.is_empty() && world.told.lock().unwrap().is_empty());
    assert_eq!(world.count(WebhookType::MembershipDeleted, WebhookResult::Purged), 1);
}

/// Fails without the check of the signature.
#[tokio::test(start_paused = true)]
async fn nobody_without_the_secret_moves_anything() {
    let (world, body) = (world(), event("session.revoked", &json!({ "id": "sess_1" })));
    let forged = signed("msg_1", &event("session.revoked", &json!({ "id": "sess_2" })));
    let bare = || http::Request::post("/webhooks/clerk");
    for (request, status) in [
        (forged, 401),
        (bare(), 400),
        (bare().header("svix-id", "a").header("svix-timestamp", NOW - 301).header("svix-signature", "v1,AAAA"), 401),
    ] {
        assert_eq!(world.ask(request, body.clone()).await, status);
    }
    assert_eq!(world.count(WebhookType::Other, WebhookResult::Refused), 3);
    for (request, status) in [
        (signed("msg_1", &body).uri("/webhooks"), 404),
        (signed("msg_1", &body).uri("/webhooks/clerk/"), 404),
        (signed("msg_1", &body).method("GET"), 405),
    ] {
        assert_eq!(world.ask(request, body.clone()).await, status);
    }
    assert!(world.revocation.revoked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rotated_secret_and_another_path_are_used_at_once() {
    let world = world();
    let revoke = json!({ "id": "sess_1" });
    world.config.replace(webhooks("/webhooks/clerk", &[b"another", KEY]));
    assert_eq!(world.send("msg_1", "session.revoked", &revoke).await, 200);
    world.config.replace(webhooks("/webhooks/clerk", &[b"another"]));
    assert_eq!(world.send("msg_2", "session.revoked", &revoke).await, 401);
    world.config.replace(webhooks("/elsewhere", &[KEY]));
    assert_eq!(world.send("msg_2", "session.revoked", &revoke).await, 404);
}

/// Fails without the bound, and without the limit of time: the last one would wait for ever.
#[tokio::test(start_paused = true)]
async fn what_is_read_of_events_has_a_bound_and_a_time() {
    let world = world();
    let large = " ".repeat(LONGEST + 1);
    assert_eq!(world.ask(signed("msg_1", &large), large.clone()).await, 413);
    let exact = format!("{}{}", event("a", &Value::Null), " ".repeat(LONGEST)).split_at(LONGEST).0.to_owned();
    assert_eq!(world.ask(signed("msg_2", &exact), exact.clone()).await, 200);
    let full = || {
        let all = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; LONGEST]))]);
        Body::from_stream(all.chain(futures_util::stream::pending()))
    };
    let slow = (0..AT_ONCE / LONGEST).map(|_| world.ask(signed("msg_3", ""), full()));
    let slow = futures_util::future::join_all(slow);
    let busy = async {
        tokio::task::yield_now().await;
        world.send("msg_4", "a", &Value::Null).await
    };
    let (slow, busy) = tokio::join!(slow, busy);
    assert_eq!((slow, busy), (vec![408; AT_ONCE / LONGEST], 503));
    assert_eq!(world.send("msg_4", "a", &Value::Null).await, 200, "there is room again");
}

/// Fails where room is taken before anything has come.
#[tokio::test(start_paused = true)]
async fn who_sends_nothing_keeps_nobody_out() {
    let world = world();
    let silent = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let silent = futures_util::future::join_all((0..500).map(|_| world.ask(signed("msg_1", ""), silent())));
    let heard = async {
        tokio::task::yield_now().await;
        world.send("msg_2", "a", &Value::Null).await
    };
    let (silent, heard) = tokio::join!(silent, heard);
    assert_eq!((silent, heard), (vec![408; 500], 200));
}
