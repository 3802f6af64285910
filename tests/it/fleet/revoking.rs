//! One revocation for all replicas: whoever hears of it refuses at once, the others a moment later, and who was away when he
//! is back.

use std::path::PathBuf;

use aws_lc_rs::hmac;
use mintgate::emulator::webhooks::DEFAULT_WEBHOOK_SECRET;
use serde_json::json;

use super::*;
use crate::harness::now_ms;

/// A process that can be told to revoke, over a socket of its own.
pub(super) struct Told {
    pub(super) binary: Binary,
    control: PathBuf,
    _directory: Directory,
}

impl Told {
    async fn start(name: &str, world: &World, redis: &Redis) -> Self {
        Self::with(name, world, &section(redis, "timeout = \"1s\"")).await
    }

    pub(super) async fn with(name: &str, world: &World, section: &str) -> Self {
        let directory = Directory::new();
        let control = directory.path("control.sock");
        let webhooks = "[webhooks]\nlisten = \"127.0.0.1:0\"\nsigning_secret = { env = \"SIGNING\" }\n";
        let config = world.config("", &format!("{webhooks}{section}"), false);
        let config = config.replace("[admin]\n", &format!("[admin]\ncontrol = \"unix:{}\"\n", control.display()));
        let (secret, key) = (world.emulator.secret_key().expose().to_owned(), key(1));
        let vars = [
            ("CLERK_SECRET_KEY", secret.as_str()),
            ("MINTGATE_CACHE_KEY", key.as_str()),
            ("SIGNING", DEFAULT_WEBHOOK_SECRET),
        ];
        let binary = Binary::start(name, &config, &vars).await;
        Self { binary, control, _directory: directory }
    }

    /// A webhook about Bob, as Svix signs it.
    async fn hears_of_bob(&self, client: &Client, banned: bool, updated_at: i64) {
        let user = json!({ "id": BOBS_USER, "banned": banned, "locked": false, "updated_at": updated_at });
        let body = json!({ "type": "user.updated", "data": user }).to_string();
        let (id, time) = (format!("msg_{updated_at}"), (now_ms() / 1000).to_string());
        let secret = STANDARD.decode(DEFAULT_WEBHOOK_SECRET.trim_start_matches("whsec_")).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let signature = STANDARD.encode(hmac::sign(&key, format!("{id}.{time}.{body}").as_bytes()));
        let signature = format!("v1,{signature}");
        let headers = [
            ("svix-id", id.as_str()),
            ("svix-timestamp", time.as_str()),
            ("svix-signature", signature.as_str()),
            ("content-type", "application/json"),
        ];
        let at = self.binary.said("webhooks listening").unwrap();
        let answer = call(client, Method::POST, &format!("http://{at}/webhooks/clerk"), &headers, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub(super) async fn revokes(&self, whom: &str) {
        post(&self.control, "/revoke", whom).await;
    }

    async fn status(&self, client: &Client, bearer: &str) -> u16 {
        let url = format!("http://{}/", self.binary.address);
        call(client, Method::GET, &url, &[("authorization", bearer)], "").await.status
    }
}

pub(super) async fn refused(replica: &Replica, bearer: &str) {
    eventually_async("the session is refused", async || replica.get(bearer).await.code() == "session-revoked").await;
}

/// Fails without the stream, and where a gateway that starts reads it from its end.
#[tokio::test]
async fn a_session_that_is_revoked_at_one_gateway_is_refused_by_all_and_by_who_starts_later() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let (told, other) = (Told::start("fleet-revoke", &world, &redis).await, Replica::boot(&world, &redis).await);
    let (alice, bob) = (world.bearer(ALICE), world.bearer(BOB));
    other.ok(&alice).await;
    other.ok(&bob).await;
    told.revokes(&format!("session={BOB}")).await;
    assert_eq!(told.status(&other.client, &bob).await, 401, "here at once");
    refused(&other, &bob).await;
    other.ok(&alice).await;
    told.revokes("user=user_emulator_alice").await;
    refused(&other, &alice).await;
    let stream = redis.names().into_iter().find(|name| name.ends_with(":s")).unwrap();
    // What comes next is far from its end.
    let later = now_ms() + 3_600_000;
    redis.ask(&["XADD", &stream, &format!("{later}-0"), "w", "planted"]);
    let late = Replica::boot(&world, &redis).await;
    refused(&late, &bob).await;
    refused(&late, &alice).await;
    // Nothing of it can be read there.
    let there = redis.ask(&["--no-raw", "XRANGE", &stream, "-", "+"]);
    assert!(there.lines().count() >= 4 && !there.contains("emulator"), "{there}");
}

/// Fails where a lost connection is not made anew, or where what was said meanwhile is not read.
#[tokio::test]
async fn who_lost_its_connection_catches_up() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    redis.ask(&["ACL", "SETUSER", "other", "on", ">redis-canary", "~*", "&*", "+@all"]);
    let login = "timeout = \"1s\"\nusername = \"other\"\npassword = { env = \"REDIS_PASSWORD\" }";
    let (told, other) = (
        Told::start("fleet-away", &world, &redis).await,
        Replica::with(&world, &section(&redis, login), 1, None).await,
    );
    for (told_before, bearer) in bearers(&world, &other.client, 3).await.iter().enumerate() {
        other.ok(bearer).await;
        redis.ask(&["ACL", "SETUSER", "other", "off"]);
        redis.ask(&["CLIENT", "KILL", "USER", "other"]);
        let sid = crate::harness::claims(bearer)["sid"].as_str().unwrap().to_owned();
        told.revokes(&format!("session={sid}")).await;
        let words = || {
            let stream = redis.names().into_iter().find(|name| name.ends_with(":s"));
            stream.map_or(0, |stream| redis.ask(&["XLEN", &stream]).parse::<usize>().unwrap())
        };
        eventually("it is said", || words() == told_before + 1).await;
        other.ok(bearer).await;
        redis.ask(&["ACL", "SETUSER", "other", "on"]);
        refused(&other, bearer).await;
    }
}

/// Fails where what could not be told is forgotten.
#[tokio::test]
async fn what_was_revoked_while_redis_was_away_is_told_when_it_is_back() {
    let (mut redis, world) = (Redis::start().await, World::new(Options::default()));
    let (told, other) = (Told::start("fleet-later", &world, &redis).await, Replica::boot(&world, &redis).await);
    let all = bearers(&world, &other.client, 2).await;
    for (bearer, hangs) in all.iter().zip([true, false]) {
        other.ok(bearer).await;
        let sid = crate::harness::claims(bearer)["sid"].as_str().unwrap().to_owned();
        if hangs {
            redis.pause();
        } else {
            redis.kill();
        }
        told.revokes(&format!("session={sid}")).await;
        assert_eq!(told.status(&other.client, bearer).await, 401, "here at once");
        other.ok(bearer).await;
        if hangs {
            redis.resume();
        } else {
            redis.restart().await;
        }
        refused(&other, bearer).await;
    }
}

#[tokio::test]
async fn a_purge_at_one_gateway_forgets_the_tokens_of_all() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let (told, other) = (Told::start("fleet-purged", &world, &redis).await, Replica::boot(&world, &redis).await);
    let alice = world.bearer(ALICE);
    other.ok(&alice).await;
    let before = world.seen.take().pop().unwrap()["authorization"].clone();
    post(&told.control, "/purge", "user=user_emulator_alice").await;
    eventually_async("another token is sent", async || {
        other.ok(&alice).await;
        world.seen.take().pop().unwrap()["authorization"] != before
    })
    .await;
}

/// Fails where a gateway is ready before it has read the stream once: the last word of a long one comes late.
#[tokio::test]
async fn a_gateway_that_is_ready_knows_who_was_revoked_before() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let (told, bob) = (Told::start("fleet-ready", &world, &redis).await, world.bearer(BOB));
    told.revokes("session=sess_of_somebody").await;
    let stream = || redis.names().into_iter().find(|name| name.ends_with(":s"));
    eventually("Redis has heard it", || stream().is_some()).await;
    let stream = stream().unwrap();
    // One word again and again: it is read each time, and followed once.
    let again = "local word = redis.call('XRANGE', KEYS[1], '-', '+')[1][2] \
                 for _ = 1, 20000 do redis.call('XADD', KEYS[1], '*', unpack(word)) end return 1";
    redis.ask(&["EVAL", again, "1", &stream]);
    told.revokes(&format!("session={BOB}")).await;
    eventually("Redis has heard it", || redis.ask(&["XLEN", &stream]) == "20002").await;
    let late = Replica::boot(&world, &redis).await;
    assert_eq!(late.get(&bob).await.code(), "session-revoked");
}

/// Fails where nothing is waited for at the end, or nothing is said of it.
#[tokio::test]
async fn what_could_not_be_told_at_the_end_is_logged() {
    let (mut redis, world) = (Redis::start().await, World::new(Options::default()));
    let mut told = Told::start("fleet-last-words", &world, &redis).await;
    redis.kill();
    told.revokes("user=user_1").await;
    told.revokes("user=user_2").await;
    told.binary.terminate();
    crate::harness::until("it has ended", || told.binary.ended().is_some()).await;
    eventually("it is said", || {
        let log = told.binary.log();
        log.contains("other gateways were not told") && log.contains("\"words\":2")
    })
    .await;
}

/// Fails where a word of a ban, or of its end, is not told or not followed, or an older one that comes later is.
#[tokio::test]
async fn a_user_who_is_banned_at_one_gateway_is_refused_by_all_until_he_is_let_in_again() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let one = Told::start("fleet-bans", &world, &redis).await;
    let two = Told::start("fleet-admits", &world, &redis).await;
    let (other, bob) = (Replica::boot(&world, &redis).await, world.bearer(BOB));
    other.ok(&bob).await;
    one.hears_of_bob(&other.client, true, 1000).await;
    assert_eq!(one.status(&other.client, &bob).await, 401, "here at once");
    refused(&other, &bob).await;
    eventually_async("the other process refuses him", async || two.status(&other.client, &bob).await == 401).await;
    two.hears_of_bob(&other.client, false, 2000).await;
    assert_eq!(two.status(&other.client, &bob).await, 200);
    eventually_async("he is let in", async || other.get(&bob).await.status == 200).await;
    eventually_async("he is let in", async || one.status(&other.client, &bob).await == 200).await;
    // The ban is told of once more, and late.
    one.hears_of_bob(&other.client, true, 1500).await;
    one.revokes(&format!("session={ALICE}")).await;
    refused(&other, &world.bearer(ALICE)).await;
    other.ok(&bob).await;
    // A gateway that starts hears all of it in its order.
    Replica::boot(&world, &redis).await.ok(&bob).await;
}
