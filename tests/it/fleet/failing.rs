//! Case 35: Redis is down, hangs, is slow, takes no writes, has no room, has another password, forgets, comes back. No
//! request fails, and what it may cost is little: how little, the tests under paused time hold (`token/shared/tests`);
//! here everything is real but the bounds are such that no busy machine breaks them.

use super::*;

/// A gateway whose time limit no busy machine breaks, and a store that hangs does.
async fn replica(world: &World, redis: &Redis, more: &str) -> Replica {
    Replica::with(world, &section(redis, &format!("timeout = \"2s\"\n{more}")), 1, None).await
}

/// Requests that need a mint each.
async fn serves(world: &World, replica: &Replica, count: usize) {
    let before = world.script.mints();
    for bearer in bearers(world, &replica.client, count).await {
        replica.ok(&bearer).await;
    }
    assert_eq!(world.script.mints() - before, u64::try_from(count).unwrap());
}

/// What is put there comes back: Redis is used.
async fn is_used(world: &World, redis: &Redis, replica: &Replica) {
    eventually("it is up", || replica.up()).await;
    let put = replica.counted(SharedOperation::Put, SharedResult::Ok);
    let bearer = bearers(world, &replica.client, 1).await.remove(0);
    replica.ok(&bearer).await;
    replica.has_put(put + 1).await;
    let other = Replica::boot(world, redis).await;
    other.ok(&bearer).await;
    assert_eq!(other.lookups(Lookup::Shared), 1);
}

#[tokio::test]
async fn redis_that_is_killed_costs_mints_alone_and_is_used_again_when_it_is_back() {
    let (mut redis, world) = (Redis::start().await, World::new(Options::default()));
    let replica = replica(&world, &redis, "").await;
    is_used(&world, &redis, &replica).await;
    redis.kill();
    serves(&world, &replica, 10).await;
    assert!(!replica.up());
    redis.restart().await;
    is_used(&world, &redis, &replica).await;
}

/// SIGSTOP: it takes connections and bytes, and answers nothing. Fails without the time limit: then the first request
/// would not end.
#[tokio::test]
async fn redis_that_hangs_is_asked_once() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let replica = replica(&world, &redis, "").await;
    is_used(&world, &redis, &replica).await;
    redis.pause();
    serves(&world, &replica, 10).await;
    assert!(!replica.up());
    assert_eq!(replica.counted(SharedOperation::Look, SharedResult::Timeout), 1);
    assert_eq!(replica.counted(SharedOperation::Look, SharedResult::Skipped), 9);
    redis.resume();
    is_used(&world, &redis, &replica).await;
}

/// What it answers late goes to nobody: another connection is asked from then on.
#[tokio::test]
async fn an_answer_that_comes_late_is_taken_for_no_other() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let replica = replica(&world, &redis, "").await;
    let all = bearers(&world, &replica.client, 12).await;
    for bearer in &all {
        replica.ok(bearer).await;
    }
    replica.has_put(12).await;
    let tokens: Vec<_> = world.seen.take().iter().map(|head| head["authorization"].clone()).collect();
    let other = Replica::with(&world, &section(&redis, "timeout = \"100ms\""), 1, None).await;
    for round in 0..3 {
        redis.ask(&["CLIENT", "PAUSE", "300", "ALL"]);
        let asked = all.iter().skip(round * 4).take(4).map(|bearer| other.ok(bearer));
        join_all(asked).await;
        eventually("it is up", || other.up()).await;
    }
    let fresh = Replica::boot(&world, &redis).await;
    world.seen.take();
    for (bearer, token) in all.iter().zip(tokens) {
        fresh.ok(bearer).await;
        let got = world.seen.take().pop().unwrap()["authorization"].to_str().unwrap().to_owned();
        let sid = |token: &str| crate::harness::claims(token)["sid"].clone();
        assert_eq!(sid(&got), sid(token.to_str().unwrap()), "another session's token");
    }
}

#[tokio::test]
async fn redis_that_takes_no_writes_is_read() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let replica = replica(&world, &redis, "").await;
    let bearer = bearers(&world, &replica.client, 1).await.remove(0);
    replica.ok(&bearer).await;
    replica.has_put(1).await;
    // A replica whose master is not there.
    redis.ask(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let other = Replica::boot(&world, &redis).await;
    other.ok(&bearer).await;
    assert_eq!(other.lookups(Lookup::Shared), 1);
    serves(&world, &other, 5).await;
    assert_eq!(other.counted(SharedOperation::Lease, SharedResult::Refused), 5);
    assert!(other.up());
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    is_used(&world, &redis, &other).await;
}

#[tokio::test]
async fn redis_that_has_no_room_costs_mints_alone() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let replica = replica(&world, &redis, "").await;
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    serves(&world, &replica, 5).await;
    assert_eq!(replica.counted(SharedOperation::Lease, SharedResult::Refused), 5);
    // One that makes room by throwing away, even what was put there a moment ago.
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    serves(&world, &replica, 5).await;
    assert!(replica.up());
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    is_used(&world, &redis, &replica).await;
}

#[tokio::test]
async fn another_password_costs_mints_alone_and_is_never_told() {
    let (redis, world) = (Redis::with(&["--requirepass", "another"]).await, World::new(Options::default()));
    let with_password = "password = { env = \"REDIS_PASSWORD\" }";
    for more in [with_password, ""] {
        let replica = replica(&world, &redis, more).await;
        serves(&world, &replica, 5).await;
        assert!(!replica.up(), "{more}");
        let unusable: u64 = SharedOperation::ALL.iter().map(|&of| replica.counted(of, SharedResult::Unusable)).sum();
        assert!(unusable <= 1, "{more}");
    }
    let replica = replica(&world, &redis, with_password).await;
    serves(&world, &replica, 1).await;
    let admin = ["-a", "another", "--no-auth-warning"];
    redis.ask(&[&admin[..], &["CONFIG", "SET", "requirepass", "redis-canary"]].concat());
    eventually("it is up", || replica.up()).await;
    let put = replica.counted(SharedOperation::Put, SharedResult::Ok);
    serves(&world, &replica, 1).await;
    replica.has_put(put + 1).await;
}

/// Fails where an epoch that is gone is taken for one that has not changed: what was purged would come back.
#[tokio::test]
async fn what_redis_has_thrown_away_the_epochs_of_is_a_miss() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let replica = replica(&world, &redis, "").await;
    let bearer = world.bearer(ALICE);
    replica.ok(&bearer).await;
    replica.has_put(1).await;
    let epochs: Vec<_> = redis.names().into_iter().filter(|name| name.ends_with(":e")).collect();
    assert_eq!(epochs.len(), 3);
    for (thrown_away, epoch) in epochs.iter().enumerate() {
        redis.ask(&["DEL", epoch]);
        let other = Replica::boot(&world, &redis).await;
        other.ok(&bearer).await;
        assert_eq!((other.lookups(Lookup::Mint), world.script.mints()), (1, 2 + thrown_away as u64), "{epoch}");
        other.has_put(1).await;
    }
    let last = Replica::boot(&world, &redis).await;
    last.ok(&bearer).await;
    assert_eq!(last.lookups(Lookup::Shared), 1);
}

#[tokio::test]
async fn redis_that_is_flushed_or_restarted_empty_costs_mints_alone() {
    let (mut redis, world) = (Redis::start().await, World::new(Options::default()));
    let replica = replica(&world, &redis, "").await;
    for restarts in [false, true] {
        is_used(&world, &redis, &replica).await;
        if restarts {
            redis.restart().await;
        } else {
            redis.ask(&["FLUSHALL"]);
        }
        serves(&world, &replica, 5).await;
    }
    is_used(&world, &redis, &replica).await;
}

/// It is not there when the gateway starts, and comes later.
#[tokio::test]
async fn a_gateway_starts_without_redis() {
    let (mut redis, world) = (Redis::start().await, World::new(Options::default()));
    redis.kill();
    let replica = replica(&world, &redis, "").await;
    serves(&world, &replica, 5).await;
    redis.restart().await;
    is_used(&world, &redis, &replica).await;
}

/// Fails where what other gateways refuse is waited for without end.
#[tokio::test]
async fn a_gateway_starts_while_redis_hangs() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    redis.pause();
    let replica = replica(&world, &redis, "").await;
    serves(&world, &replica, 5).await;
    redis.resume();
    is_used(&world, &redis, &replica).await;
}
