//! Events over a real socket, as an application receives them.

use std::sync::{Arc, Mutex};

use axum::routing::post;
use http::{HeaderMap, HeaderValue};

use super::*;
use crate::emulator::webhooks::{DEFAULT_WEBHOOK_SECRET, Webhook};
use crate::lifecycle::{Shutdown, Spawner};
use crate::surface::Surface;

/// What an application got: headers and body.
type Got = Arc<Mutex<Vec<(HeaderMap, String)>>>;

struct World {
    emulator: Emulator,
    got: Got,
    /// Answers 500 to so many deliveries.
    failing: Arc<Mutex<u32>>,
    shutdown: Shutdown,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn world() -> World {
    let (got, failing, shutdown) = (Got::default(), Arc::<Mutex<u32>>::default(), Shutdown::new());
    let (to, fail) = (Arc::clone(&got), Arc::clone(&failing));
    let take = async move |headers: HeaderMap, body: String| {
        to.lock().unwrap().push((headers, body));
        let mut left = fail.lock().unwrap();
        let refused = *left > 0;
        *left = left.saturating_sub(1);
        if refused { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT }
    };
    let application = Router::new().route("/hook", post(take));
    let surface = Surface::bind("127.0.0.1:0".parse().unwrap(), application).unwrap();
    let webhook = Webhook {
        url: format!("http://{}/hook", surface.address()).parse().unwrap(),
        secret: DEFAULT_WEBHOOK_SECRET.parse().unwrap(),
    };
    let tasks = Spawner::current();
    drop(tasks.spawn(surface.run(tasks.sibling(), shutdown.clone(), shutdown.stopped())));
    let options = Options { webhook: Some(webhook), ..Options::default() };
    let emulator = Emulator::new(options, Clock::following(Wall::from_seconds(1_800_000_000))).unwrap();
    drop(tasks.spawn(emulator.courier().unwrap().run(tasks.sibling())));
    assert!(emulator.courier().is_none(), "only one delivers");
    World { emulator, got, failing, shutdown }
}

impl World {
    /// The event that came as this one.
    async fn event(&self, index: usize) -> (HeaderMap, String) {
        for _ in 0..12_000 {
            if let Some(event) = self.got.lock().unwrap().get(index) {
                return event.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("event {index} did not come");
    }

    async fn help(&self, method: Method, target: &str, body: &str) -> Answer {
        let request = builder(method, target).header("content-type", "application/json");
        send(&self.emulator, request.body(Body::from(body.to_owned())).unwrap()).await
    }
}

#[tokio::test]
async fn what_changes_is_told_signed_and_in_order() {
    let world = world();
    let begun = call(&world.emulator, Method::POST, "/v1/sessions", r#"{"user_id":"user_emulator_bob"}"#).await;
    let sid = begun.body["id"].as_str().unwrap();
    let session = format!("/_emulator/sessions/{sid}");
    call(&world.emulator, Method::POST, &format!("/v1/sessions/{sid}/revoke"), "").await;
    for status in ["pending", "ended", "removed", "expired", "active"] {
        world.help(Method::PATCH, &session, &format!(r#"{{"status":"{status}"}}"#)).await;
    }
    world.help(Method::PATCH, "/_emulator/users/user_emulator_bob", r#"{"banned":true}"#).await;
    let place = "/_emulator/organizations/org_emulator_acme/memberships/user_emulator_bob";
    world.help(Method::PUT, place, "{}").await;
    world.help(Method::PUT, place, r#"{"role":"org:admin"}"#).await;
    world.help(Method::DELETE, place, "").await;
    world.help(Method::DELETE, "/_emulator/users/user_emulator_bob", "").await;
    let secret: webhooks::WebhookSecret = DEFAULT_WEBHOOK_SECRET.parse().unwrap();
    for (index, kind) in [
        "session.created",
        "session.revoked",
        "session.pending",
        "session.ended",
        "session.removed",
        "user.updated",
        "organizationMembership.created",
        "organizationMembership.updated",
        "organizationMembership.deleted",
        "user.deleted",
    ]
    .into_iter()
    .enumerate()
    {
        let (headers, body) = world.event(index).await;
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        let signed = secret.sign(&text("svix-id"), text("svix-timestamp").parse().unwrap(), &body);
        assert_eq!((text("svix-signature"), text("content-type")), (signed, "application/json".to_owned()));
        let event: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&event["type"], &event["object"]), (&json!(kind), &json!("event")));
        assert_eq!(event["instance_id"], world.emulator.key_id());
        let data = &event["data"];
        match kind.split_once('.').unwrap() {
            ("session", "created") => assert_eq!((&data["id"], &data["status"]), (&json!(sid), &json!("active"))),
            ("session", status) => {
                assert_eq!((&data["id"], &data["status"]), (&json!(sid), &json!(status)));
                assert_eq!((&data["user"]["id"], data.get("tasks")), (&json!("user_emulator_bob"), None));
            }
            ("user", "updated") => {
                assert_eq!((&data["id"], &data["banned"]), (&json!("user_emulator_bob"), &json!(true)));
            }
            ("user", _) => assert_eq!(data, &json!({"object": "user", "id": "user_emulator_bob", "deleted": true})),
            _ => {
                assert_eq!(data["public_user_data"]["user_id"], "user_emulator_bob");
                assert_eq!(data["organization"]["id"], "org_emulator_acme");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_sent_again_under_the_same_id_and_then_given_up() {
    let world = world();
    *world.failing.lock().unwrap() = 2;
    world.help(Method::PATCH, "/_emulator/users/user_emulator_bob", "{}").await;
    let ids: Vec<String> = {
        world.event(2).await;
        world.got.lock().unwrap().iter().map(|(headers, _)| headers["svix-id"].to_str().unwrap().to_owned()).collect()
    };
    assert_eq!((ids.len(), &ids[0], &ids[1]), (3, &ids[1], &ids[2]));
    let stamps: Vec<HeaderValue> =
        world.got.lock().unwrap().iter().map(|(headers, _)| headers["svix-timestamp"].clone()).collect();
    assert_ne!(stamps[0], stamps[2], "each attempt is signed anew");
    let shown = async || world.help(Method::GET, "/_emulator/webhooks", "").await.body["deliveries"].clone();
    settle(async || shown().await[0]["state"] == "delivered").await;
    assert_eq!((&shown().await[0]["attempts"], &shown().await[0]["status"]), (&json!(3), &json!(204)));
    *world.failing.lock().unwrap() = u32::MAX;
    world.help(Method::PATCH, "/_emulator/users/user_emulator_bob", "{}").await;
    settle(async || shown().await[1]["state"] == "given_up").await;
    assert_eq!(shown().await[1]["attempts"], 5);
}

async fn settle(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..12_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("never");
}
