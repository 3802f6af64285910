//! Gateways with one Redis: each token is minted once for all of them, nothing in it can be read, and none of its
//! failures is a request's.

mod checking;
mod failing;
mod reloading;
mod revoking;
mod spending;
mod topologies;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http::Method;
use mintgate::clock::Clock;
use mintgate::config::Config;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::emulator::Options;
use mintgate::lifecycle::Shutdown;
use mintgate::metrics::{Lookup, RouteId, SharedOperation, SharedResult};

use crate::harness::{ALICE, Answer, BOB, Binary, Booted, Client, World, call, client, in_place};
use crate::support::directory::Directory;
use crate::support::redis::Redis;
use crate::support::wire::Wire;
use crate::support::{eventually, eventually_async};

const BOBS_USER: &str = "user_emulator_bob";

const ROUTES: &str = "[[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = [\"bearer\"]\n\
     inject = [{ header = \"authorization\", prefix = \"Bearer \", template = \"custom_hasura\" }]\n";

fn key(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

/// `[cache.shared]` with more lines.
fn section(redis: &Redis, more: &str) -> String {
    section_at(&redis.url(), more)
}

fn section_at(url: &str, more: &str) -> String {
    format!("[cache.shared]\nurl = \"{url}\"\nencryption_key = {{ env = \"MINTGATE_CACHE_KEY\" }}\n{more}\n{ROUTES}")
}

struct Vars(HashMap<&'static str, String>);

impl Environment for Vars {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// A gateway of the fleet, on the test's own runtime.
struct Replica {
    booted: Booted,
    client: Client,
    shutdown: Shutdown,
}

impl Replica {
    async fn boot(world: &World, redis: &Redis) -> Self {
        // Long enough that a busy machine does not take Redis for one that hangs.
        Self::with(world, &section(redis, "timeout = \"1s\""), 1, None).await
    }

    async fn with(world: &World, tables: &str, leading: u8, previous: Option<u8>) -> Self {
        Self::under(world, "", tables, leading, previous).await
    }

    /// With more lines of `[clerk]`.
    async fn under(world: &World, clerk: &str, tables: &str, leading: u8, previous: Option<u8>) -> Self {
        let mut vars = HashMap::from([
            ("CLERK_SECRET_KEY", world.emulator.secret_key().expose().to_owned()),
            ("MINTGATE_CACHE_KEY", key(leading)),
            ("REDIS_PASSWORD", "redis-canary".to_owned()),
        ]);
        vars.extend(previous.map(|previous| ("MINTGATE_CACHE_KEY_PREVIOUS", key(previous))));
        let shutdown = Shutdown::new();
        let booted =
            in_place(parsed(&world.config(clerk, tables, false), &Vars(vars)), Clock::system(), &shutdown).await;
        Self { booted, client: client(false), shutdown }
    }

    async fn get(&self, bearer: &str) -> Answer {
        let url = format!("http://{}/", self.booted.address);
        call(&self.client, Method::GET, &url, &[("authorization", bearer)], "").await
    }

    async fn ok(&self, bearer: &str) {
        let answer = self.get(bearer).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn lookups(&self, lookup: Lookup) -> u64 {
        let shards = self.booted.gateway.metrics.shards();
        shards.iter().map(|shard| shard.lookups(RouteId::new(0), lookup).get()).sum()
    }

    fn counted(&self, operation: SharedOperation, result: SharedResult) -> u64 {
        self.booted.gateway.metrics.control().shared_operations(operation, result).get()
    }

    fn up(&self) -> bool {
        self.booted.gateway.metrics.control().shared_up.get() == 1
    }

    /// What nobody waits for is there.
    async fn has_put(&self, values: u64) {
        let put = || self.counted(SharedOperation::Put, SharedResult::Ok) >= values;
        eventually("the value is there", put).await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn parsed(text: &str, vars: &Vars) -> Config {
    let parsed = validate::parse(text, Path::new("/test.toml"), vars, Secrets::Required);
    parsed.unwrap_or_else(|problems| panic!("{}", problems.render(false))).0
}

/// Bearers of sessions that nobody has used yet.
async fn bearers(world: &World, client: &Client, count: usize) -> Vec<String> {
    let mut bearers = Vec::new();
    for _ in 0..count {
        bearers.push(world.bearer(&world.begin_session(client, BOBS_USER).await));
    }
    bearers
}

/// So many processes, all of which are asked for the same token at once, before there is one: rounds until the machine was
/// fast enough for a lease to hold. Fails without the lease: then each of them mints in every round.
async fn stampede(name: &str, processes: usize) {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let config = world.config("", &section(&redis, "timeout = \"1s\""), false);
    let (secret, key) = (world.emulator.secret_key().expose().to_owned(), key(1));
    let vars = [("CLERK_SECRET_KEY", secret.as_str()), ("MINTGATE_CACHE_KEY", key.as_str())];
    let mut binaries = Vec::new();
    for number in 0..processes {
        binaries.push(Binary::start(&format!("{name}-{number}"), &config, &vars).await);
    }
    let client = client(false);
    let mut once = 0;
    for bearer in bearers(&world, &client, 5).await {
        let before = world.script.mints();
        world.script.hold(true);
        let asked = binaries.iter().flat_map(|binary| {
            let (client, url, bearer) = (client.clone(), format!("http://{}/", binary.address), bearer.clone());
            (0..50).map(move |_| {
                let (client, url, bearer) = (client.clone(), url.clone(), bearer.clone());
                async move { call(&client, Method::GET, &url, &[("authorization", &bearer)], "").await.status }
            })
        });
        let script = world.script.clone();
        let released = async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            script.hold(false);
        };
        let (answers, ()) = tokio::join!(join_all(asked), released);
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
        let mints = world.script.mints() - before;
        assert!(mints <= u64::try_from(processes).unwrap(), "never more than without it: {mints}");
        once += u64::from(mints == 1);
        if once == 3 {
            break;
        }
    }
    assert!(once >= 1, "no key was minted once");
    world.script.hold(false);
    // Another one has them all without a mint.
    let late = Binary::start(&format!("{name}-late"), &config, &vars).await;
    let bearer = world.bearer(ALICE);
    let url = |binary: &Binary| format!("http://{}/", binary.address);
    let answer = call(&client, Method::GET, &url(&binaries[0]), &[("authorization", &bearer)], "").await;
    assert_eq!(answer.status, 200);
    let (minted, token) = (world.script.mints(), world.seen.take().pop().unwrap()["authorization"].clone());
    eventually_async("the token comes out of Redis", async || {
        let answer = call(&client, Method::GET, &url(&late), &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status, 200);
        true
    })
    .await;
    assert_eq!(world.seen.take().pop().unwrap()["authorization"], token);
    assert_eq!(world.script.mints(), minted);
}

#[tokio::test]
async fn two_processes_mint_a_key_once() {
    stampede("fleet-two", 2).await;
}

#[tokio::test]
async fn four_processes_mint_a_key_once() {
    stampede("fleet-four", 4).await;
}

#[tokio::test]
async fn a_restarted_gateway_makes_no_mint_for_live_tokens() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let first = Replica::boot(&world, &redis).await;
    let all = bearers(&world, &first.client, 10).await;
    for bearer in &all {
        first.ok(bearer).await;
    }
    first.has_put(10).await;
    drop(first);
    let restarted = Replica::boot(&world, &redis).await;
    for bearer in &all {
        restarted.ok(bearer).await;
    }
    assert_eq!((world.script.mints(), restarted.lookups(Lookup::Shared)), (10, 10));
}

/// Cases 33 and 35, of what lies in a real Redis and on its disk.
#[tokio::test]
async fn nothing_in_redis_can_be_read() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let replica = Replica::boot(&world, &redis).await;
    for session in [ALICE, BOB] {
        replica.ok(&world.bearer(session)).await;
    }
    replica.has_put(2).await;
    let tokens: Vec<_> =
        world.seen.take().iter().map(|head| head["authorization"].to_str().unwrap().to_owned()).collect();
    assert_eq!(redis.ask(&["SAVE"]), "OK");
    let file = redis.file("dump.rdb");
    let names = redis.names();
    // Two values; the epochs of two sessions, of two users, and of everybody; the budget.
    assert_eq!(names.len(), 8, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("mintgate:1:{")), "{names:?}");
    for name in &names {
        let left: i64 = redis.ask(&["PTTL", name]).parse().unwrap();
        assert!(left > 0 && left <= if name.contains(":t:") { 60_000 } else { 604_800_000 }, "{name} {left}");
    }
    let holds = |what: &str| file.windows(what.len()).any(|part| part == what.as_bytes());
    assert!(holds(&names[0]), "it is the file");
    let parts = tokens.iter().flat_map(|token| token.trim_start_matches("Bearer ").split('.').map(str::to_owned));
    for secret in parts.chain(["sess_emulator", "user_emulator", "eyJ", "custom_hasura"].map(str::to_owned)) {
        assert!(!holds(&secret), "{secret}");
    }
}

/// Case 35. Fails where a value is taken from another place, or is not counted.
#[tokio::test]
async fn a_value_that_was_swapped_planted_or_cut_is_a_miss_that_is_counted() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let first = Replica::boot(&world, &redis).await;
    let (alice, bob) = (world.bearer(ALICE), world.bearer(BOB));
    first.ok(&alice).await;
    first.has_put(1).await;
    let of_alice = redis.names().into_iter().find(|name| name.contains(":t:")).unwrap();
    first.ok(&bob).await;
    first.has_put(2).await;
    let of_bob = redis.names().into_iter().find(|name| name.contains(":t:") && *name != of_alice).unwrap();
    world.seen.take();
    let plants: [&[&str]; 4] = [
        &["COPY", &of_bob, &of_alice, "REPLACE"],
        &["SET", &of_alice, "planted", "PX", "60000"],
        &["SETRANGE", &of_alice, "40", "x"],
        // A value of another type, and one that would fill our memory.
        &[
            "EVAL",
            "redis.call('DEL', KEYS[1]) return redis.call('SET', KEYS[1], string.rep('x', 50000000), 'PX', 60000)",
            "1",
            &of_alice,
        ],
    ];
    for plant in plants {
        redis.ask(plant);
        let mints = world.script.mints();
        let replica = Replica::boot(&world, &redis).await;
        replica.ok(&alice).await;
        assert_eq!(replica.counted(SharedOperation::Look, SharedResult::Unreadable), 1, "{plant:?}");
        assert_eq!(world.script.mints(), mints + 1, "{plant:?}");
        let token = world.seen.take().pop().unwrap()["authorization"].to_str().unwrap().to_owned();
        assert_eq!(crate::harness::claims(&token)["sub"], "user_emulator_alice");
        replica.has_put(1).await;
    }
}

#[tokio::test]
async fn keys_are_rotated_without_a_mint() {
    let (redis, world) = (Redis::start().await, World::new(Options::default()));
    let both = section(&redis, "timeout = \"1s\"\nencryption_key_previous = { env = \"MINTGATE_CACHE_KEY_PREVIOUS\" }");
    let alice = world.bearer(ALICE);
    let before = Replica::boot(&world, &redis).await;
    before.ok(&alice).await;
    before.has_put(1).await;
    let learning = Replica::with(&world, &both, 1, Some(2)).await;
    let leading = Replica::with(&world, &both, 2, Some(1)).await;
    learning.ok(&alice).await;
    leading.ok(&alice).await;
    let bob = world.bearer(BOB);
    leading.ok(&bob).await;
    leading.has_put(1).await;
    learning.ok(&bob).await;
    assert_eq!(world.script.mints(), 2);
}

async fn post(socket: &Path, path: &str, body: &str) {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let length = body.len();
    let asked = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    assert_eq!(Wire::over(stream).ask(asked).await.status(), 200, "{path} {body}");
}

/// Fails where what was purged here comes back out of Redis, before Redis has heard of it or after.
#[tokio::test]
async fn what_was_purged_does_not_come_back_out_of_redis() {
    let (redis, world, directory) = (Redis::start().await, World::new(Options::default()), Directory::new());
    let socket = directory.path("control.sock");
    let config = world.config("", &section(&redis, "timeout = \"1s\""), false);
    let config = config.replace("[admin]\n", &format!("[admin]\ncontrol = \"unix:{}\"\n", socket.display()));
    let (secret, key) = (world.emulator.secret_key().expose().to_owned(), key(1));
    let vars = [("CLERK_SECRET_KEY", secret.as_str()), ("MINTGATE_CACHE_KEY", key.as_str())];
    let binary = Binary::start("fleet-purge", &config, &vars).await;
    let (client, url, alice) = (client(false), format!("http://{}/", binary.address), world.bearer(ALICE));
    let get = async || call(&client, Method::GET, &url, &[("authorization", &alice)], "").await.status;
    let renewed = async || {
        let scrape = call(&client, Method::GET, &format!("http://{}/metrics", binary.admin), &[], "").await.body;
        let name = "mintgate_shared_operations_total{operation=\"renew\",result=\"ok\"}";
        scrape.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0_u64)
    };
    let mut heard = 0;
    for whose in [format!("session={ALICE}"), "user=user_emulator_alice".to_owned(), "all".to_owned()] {
        assert_eq!(get().await, 200);
        let is_there = || redis.names().iter().any(|name| name.contains(":t:"));
        eventually("the value is there", is_there).await;
        let before = world.seen.take().pop().unwrap()["authorization"].clone();
        let mints = world.script.mints();
        // It is read and takes no writes, so it does not hear of the purge.
        redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
        post(&socket, "/purge", &whose).await;
        assert_eq!((get().await, world.script.mints()), (200, mints + 1), "{whose}");
        assert_eq!(renewed().await, heard, "{whose}");
        redis.ask(&["REPLICAOF", "NO", "ONE"]);
        heard += 1;
        eventually_async("Redis has heard it", async || renewed().await == heard).await;
        let fresh = Replica::boot(&world, &redis).await;
        fresh.ok(&alice).await;
        assert!(world.seen.take().iter().all(|head| head["authorization"] != before), "{whose}");
        post(&socket, "/purge", "all").await;
        heard += 1;
        eventually_async("Redis has heard it", async || renewed().await == heard).await;
    }
}
