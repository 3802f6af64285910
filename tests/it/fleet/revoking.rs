//! One revocation for all replicas: whoever hears of it refuses at once, the others a moment later, and who was away when he
//! is back.

use std::path::PathBuf;

use super::*;

/// A process that can be told to revoke, over a socket of its own.
struct Told {
    binary: Binary,
    control: PathBuf,
    _directory: Directory,
}

impl Told {
    async fn start(name: &str, world: &World, redis: &Redis) -> Self {
        let directory = Directory::new();
        let control = directory.path("control.sock");
        let config = world.config("", &section(redis, "timeout = \"1s\""), false);
        let config = config.replace("[admin]\n", &format!("[admin]\ncontrol = \"unix:{}\"\n", control.display()));
        let (secret, key) = (world.emulator.secret_key().expose().to_owned(), key(1));
        let vars = [("CLERK_SECRET_KEY", secret.as_str()), ("MINTGATE_CACHE_KEY", key.as_str())];
        let binary = Binary::start(name, &config, &vars).await;
        Self { binary, control, _directory: directory }
    }

    async fn revokes(&self, whom: &str) {
        post(&self.control, "/revoke", whom).await;
    }

    async fn status(&self, client: &Client, bearer: &str) -> u16 {
        let url = format!("http://{}/", self.binary.address);
        call(client, Method::GET, &url, &[("authorization", bearer)], "").await.status
    }
}

async fn refused(replica: &Replica, bearer: &str) {
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
    let late = Replica::boot(&world, &redis).await;
    refused(&late, &bob).await;
    refused(&late, &alice).await;
    // Nothing of it can be read there.
    let stream = redis.names().into_iter().find(|name| name.ends_with(":s")).unwrap();
    let there = redis.ask(&["--no-raw", "XRANGE", &stream, "-", "+"]);
    assert!(there.lines().count() >= 4 && !there.contains("emulator"), "{there}");
}

/// Fails where a lost connection is not made anew, or where what was said meanwhile is not read.
#[tokio::test]
async fn who_lost_its_connection_catches_up() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let (told, other) = (Told::start("fleet-away", &world, &redis).await, Replica::boot(&world, &redis).await);
    let all = bearers(&world, &other.client, 3).await;
    for bearer in &all {
        other.ok(bearer).await;
        redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
        let sid = crate::harness::claims(bearer)["sid"].as_str().unwrap().to_owned();
        told.revokes(&format!("session={sid}")).await;
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
