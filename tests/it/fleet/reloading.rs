//! `[cache.shared]` changes while the gateway serves: another Redis, another key, off and on. All of it is a reload.

use super::revoking::Told;
use super::*;
use crate::reload::{reloaded, rewrite};

/// The metrics of a process.
async fn scrape(binary: &Binary, client: &Client) -> String {
    call(client, Method::GET, &format!("http://{}/metrics", binary.admin), &[], "").await.body
}

/// Fails where a change needs a restart, or where the level before is used on.
#[tokio::test]
async fn another_redis_another_key_off_and_on_need_no_restart() {
    const NAME: &str = "fleet-reload";
    let (first, second, world) = (Redis::start().await, Redis::start().await, World::new(Options::default()));
    let (secret, one_key, other_key) = (world.emulator.secret_key().expose().to_owned(), key(1), key(2));
    let vars = [("CLERK_SECRET_KEY", &*secret), ("MINTGATE_CACHE_KEY", &*one_key), ("OTHER_KEY", &*other_key)];
    let with = |section: &str| world.config("", section, false);
    let timeout = "timeout = \"1s\"";
    let binary = Binary::start(NAME, &with(&section(&first, timeout)), &vars).await;
    let (client, url) = (client(false), format!("http://{}/", binary.address));
    let get = async |bearer: &str| call(&client, Method::GET, &url, &[("authorization", bearer)], "").await;
    let values = |redis: &Redis| redis.names().iter().filter(|name| name.contains(":t:")).count();
    let all = bearers(&world, &client, 5).await;
    assert_eq!(get(&all[0]).await.status, 200);
    eventually("it is in the first one", || values(&first) == 1).await;

    // Another Redis: what is minted goes there, what is said there is heard, what is in memory stays.
    rewrite(NAME, &with(&section(&second, timeout)));
    reloaded(&binary, 1).await;
    assert_eq!((get(&all[0]).await.status, world.script.mints()), (200, 1));
    assert_eq!((get(&all[1]).await.status, world.script.mints()), (200, 2));
    eventually("it is in the second one", || values(&second) == 1).await;
    assert_eq!(values(&first), 1);
    let fresh = Replica::boot(&world, &second).await;
    fresh.ok(&all[1]).await;
    assert_eq!(fresh.lookups(Lookup::Shared), 1);
    let told = Told::with("fleet-reload-tells", &world, &section(&second, timeout)).await;
    let bob = world.bearer(BOB);
    assert_eq!(get(&bob).await.status, 200);
    told.revokes(&format!("session={BOB}")).await;
    eventually_async("it is heard", async || get(&bob).await.code() == "session-revoked").await;

    // Another key: nothing of before can be read, and nobody who has the one before reads this.
    rewrite(NAME, &with(&section(&second, timeout).replace("MINTGATE_CACHE_KEY", "OTHER_KEY")));
    reloaded(&binary, 2).await;
    let (mints, there) = (world.script.mints(), values(&second));
    assert_eq!((get(&all[2]).await.status, world.script.mints()), (200, mints + 1));
    eventually("it is there", || values(&second) == there + 1).await;
    fresh.ok(&all[2]).await;
    assert_eq!((fresh.lookups(Lookup::Mint), world.script.mints()), (1, mints + 2));
    let under_it = Replica::with(&world, &section(&second, timeout), 2, None).await;
    under_it.ok(&all[2]).await;
    assert_eq!(under_it.lookups(Lookup::Shared), 1);

    // Off: nothing is put there; who is revoked stays so.
    rewrite(NAME, &with(ROUTES));
    reloaded(&binary, 3).await;
    let there = (values(&first), values(&second));
    assert_eq!(get(&all[3]).await.status, 200);
    assert!(!scrape(&binary, &client).await.contains("\nmintgate_shared_up "));
    assert_eq!((values(&first), values(&second)), there);
    assert_eq!(get(&bob).await.code(), "session-revoked");

    // And on again.
    rewrite(NAME, &with(&section(&first, timeout)));
    reloaded(&binary, 4).await;
    assert_eq!(get(&all[4]).await.status, 200);
    eventually("it is in the first one", || values(&first) == there.0 + 1).await;
    assert!(scrape(&binary, &client).await.contains("\nmintgate_shared_up 1"));
    assert!(!binary.log().contains("restart"), "{}", binary.log());
}
