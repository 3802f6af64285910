//! One budget for all gateways, in a real Redis.

use super::*;

/// So many calls, and no more for the rest of the test.
const BUDGET: &str = "timeout = \"1s\"\n[clerk.budget]\nrequests = 20\nshare = 1.0\nreserve = 0.0\nper = \"24h\"\n";

async fn replica(world: &World, redis: &Redis, budget: &str) -> Replica {
    Replica::under(world, budget, &section(redis, "timeout = \"1s\""), 1, None).await
}

/// Fails where each gateway has a budget of its own: then all of them would be minted.
#[tokio::test]
async fn two_gateways_have_one_budget() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let both = [replica(&world, &redis, BUDGET).await, replica(&world, &redis, BUDGET).await];
    let (mut served, mut throttled) = (0, 0);
    for (number, bearer) in bearers(&world, &both[0].client, 26).await.iter().enumerate() {
        let answer = both[number % 2].get(bearer).await;
        if answer.status == 200 {
            served += 1;
        } else {
            assert_eq!(answer.code(), "issuer-throttled", "{answer:?}");
            throttled += 1;
        }
    }
    assert_eq!((served, throttled, world.script.mints()), (20, 6, 20));
    assert!(both[0].counted(SharedOperation::Budget, SharedResult::Ok) == 10);
}

/// Fails where it is not told to the others, or not by Redis' clock.
#[tokio::test]
async fn a_429_that_one_gateway_hears_is_respected_by_the_other() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let one = replica(&world, &redis, "timeout = \"1s\"").await;
    let other = replica(&world, &redis, "timeout = \"1s\"").await;
    let all = bearers(&world, &one.client, 2).await;
    world.script.refuse(Some((429, "30")));
    assert_eq!(one.get(&all[0]).await.code(), "issuer-throttled");
    eventually("it is told", || one.counted(SharedOperation::Pause, SharedResult::Ok) == 1).await;
    world.script.refuse(None);
    let answer = other.get(&all[1]).await;
    let after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!((answer.code(), world.script.mints()), ("issuer-throttled", 1));
    assert!((1..=31).contains(&after), "{after}");
    // Somebody who has no key cannot do so.
    let pause = redis.names().into_iter().find(|name| name.ends_with(":p")).unwrap();
    redis.ask(&["SET", &pause, "planted"]);
    let fresh = replica(&world, &redis, "timeout = \"1s\"").await;
    fresh.ok(&all[1]).await;
}

#[tokio::test]
async fn without_redis_each_gateway_has_its_part() {
    let (mut redis, world) = (Redis::start().await, World::new(Options::default()));
    let halved = format!("{BUDGET}replicas = 2\n");
    let one = replica(&world, &redis, &halved).await;
    redis.kill();
    let mut served = 0;
    for bearer in bearers(&world, &one.client, 12).await {
        served += usize::from(one.get(&bearer).await.status == 200);
    }
    assert_eq!(served, 10);
}
