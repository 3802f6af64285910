//! The ways to Redis: a port, TLS with an authority of one's own, a password and a user, a cluster, sentinels.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use mintgate::emulator::limit::RateLimit;

use super::revoking::{Told, refused};
use super::*;
use crate::harness::{PATIENCE, until};
use crate::support::redis::server;
use crate::support::tls::Authority;

/// A port that nobody has, for a server that cannot be given one that the kernel chooses.
fn port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a gateway with this URL has put there, another one takes.
async fn is_shared(url: &str, more: &str) {
    let world = World::new(Options::default());
    let section = section_at(url, &format!("timeout = \"2s\"\n{more}"));
    let one = Replica::with(&world, &section, 1, None).await;
    let alice = world.bearer(ALICE);
    one.ok(&alice).await;
    one.has_put(1).await;
    let other = Replica::with(&world, &section, 1, None).await;
    other.ok(&alice).await;
    assert_eq!((other.lookups(Lookup::Shared), world.script.mints()), (1, 1), "{url}");
    assert!(one.up() && other.up());
}

#[tokio::test]
async fn over_tcp_with_a_user_and_a_database() {
    let at = port();
    let acl = "on >redis-canary ~mintgate:* &* -@all +set +get +getrange +exists +pttl +pexpire +del +eval +ping +select \
               +xadd +xtrim +xread +xrevrange +time +hget +hset +hmget +hello +client";
    let at_text = at.to_string();
    let mut arguments = vec!["--port", &at_text, "--user", "mintgate"];
    arguments.extend(acl.split_whitespace());
    let redis = Redis::with(&arguments).await;
    let login = "username = \"mintgate\"\npassword = { env = \"REDIS_PASSWORD\" }";
    is_shared(&format!("redis://127.0.0.1:{at}/3"), login).await;
    assert!(redis.ask(&["-n", "3", "DBSIZE"]).parse::<u32>().unwrap() >= 4);
}

#[tokio::test]
async fn over_tls_with_an_authority_of_ones_own() {
    let (at, directory, authority) = (port(), Directory::new(), Authority::new());
    let identity = authority.identity(&["localhost"]);
    let cert = directory.write("cert.pem", &identity.cert);
    let key = directory.write("key.pem", &identity.key);
    let ca = directory.write("ca.pem", &authority.pem);
    let text = |path: &Path| path.display().to_string();
    let _redis = Redis::with(&[
        "--tls-port",
        &at.to_string(),
        "--tls-cert-file",
        &text(&cert),
        "--tls-key-file",
        &text(&key),
        "--tls-ca-cert-file",
        &text(&ca),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    is_shared(&format!("rediss://localhost:{at}"), &format!("ca_file = \"{}\"", ca.display())).await;
}

#[tokio::test]
async fn in_a_cluster() {
    let (at, bus) = (port(), port());
    let redis = Redis::with(&[
        "--port",
        &at.to_string(),
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus.to_string(),
        "--cluster-announce-ip",
        "127.0.0.1",
    ])
    .await;
    assert_eq!(redis.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    eventually("the cluster is there", || redis.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")).await;
    is_shared(&format!("redis-cluster://127.0.0.1:{at}"), "").await;
}

/// A sentinel that watches a master at this port, and where it is.
async fn sentinel(directory: &Directory, master: u16) -> (Ending, u16) {
    let at = port();
    let config = directory.write(
        "sentinel.conf",
        format!(
            "port {at}\ndir {}\nsentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            directory.path("").display()
        ),
    );
    let mut sentinel = Command::new(server());
    sentinel.arg(config).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let sentinel = Ending(sentinel.spawn().unwrap());
    until("the sentinel is there", || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, at)).is_ok()).await;
    (sentinel, at)
}

/// What the one puts there, the other takes: sooner or later. Whatever happens meanwhile, nobody is refused.
async fn becomes_shared(world: &World, one: &Replica, other: &Replica) {
    let shared = other.lookups(Lookup::Shared);
    let shares = async {
        while other.lookups(Lookup::Shared) == shared {
            let bearer = bearers(world, &one.client, 1).await.remove(0);
            one.ok(&bearer).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            other.ok(&bearer).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, shares).await.is_ok(), "never shared");
}

#[tokio::test]
async fn where_sentinels_say_who_the_master_is() {
    let (at, directory) = (port(), Directory::new());
    let _redis = Redis::with(&["--port", &at.to_string()]).await;
    let (_sentinel, sentinel_at) = sentinel(&directory, at).await;
    is_shared(&format!("redis-sentinel://127.0.0.1:{sentinel_at}#main"), "").await;
}

/// The master is killed and its replica takes its place. Fails where the sentinels are not asked again.
#[tokio::test]
async fn when_sentinels_name_another_master_that_one_is_used() {
    let (at, replica_at, directory) = (port(), port(), Directory::new());
    let mut master = Redis::with(&["--port", &at.to_string()]).await;
    let replica = Redis::with(&["--port", &replica_at.to_string(), "--replicaof", &format!("127.0.0.1 {at}")]).await;
    until("the replica follows", || replica.ask(&["INFO", "replication"]).contains("master_link_status:up")).await;
    let (_sentinel, sentinel_at) = sentinel(&directory, at).await;
    let known = || {
        let said =
            Command::new("redis-cli").args(["-p", &sentinel_at.to_string(), "SENTINEL", "replicas", "main"]).output();
        String::from_utf8_lossy(&said.unwrap().stdout).contains(&replica_at.to_string())
    };
    until("the sentinel knows the replica", known).await;
    let world = World::new(Options { rate_limit: Some(RateLimit::Off), ..Options::default() });
    let section = section_at(&format!("redis-sentinel://127.0.0.1:{sentinel_at}#main"), "timeout = \"1s\"");
    let budget = "[clerk.budget]\nrequests = 10000\n";
    let one = Replica::under(&world, budget, &section, 1, None).await;
    let other = Replica::under(&world, budget, &section, 1, None).await;
    let told = Told::with("fleet-failover", &world, &section).await;
    becomes_shared(&world, &one, &other).await;
    let (alice, bob) = (world.bearer(ALICE), world.bearer(BOB));
    told.revokes(&format!("session={ALICE}")).await;
    refused(&other, &alice).await;
    master.kill();
    becomes_shared(&world, &one, &other).await;
    assert!(replica.ask(&["INFO", "replication"]).contains("role:master"));
    // Who is revoked from now on is heard of, by way of the new one.
    other.ok(&bob).await;
    told.revokes(&format!("session={BOB}")).await;
    let heard = async {
        while other.get(&bob).await.code() != "session-revoked" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, heard).await.is_ok(), "never refused");
    assert_eq!(other.get(&alice).await.code(), "session-revoked");
}

/// Names of one token are at different nodes; streams too. Fails where what is asked of several nodes goes to one.
#[tokio::test]
async fn in_a_cluster_of_three_nodes_that_loses_one() {
    let ports = [port(), port(), port()];
    let mut nodes = Vec::new();
    for at in ports {
        let bus = port().to_string();
        let arguments = ["--port", &at.to_string(), "--cluster-enabled", "yes", "--cluster-port", &bus];
        let announced = ["--cluster-announce-ip", "127.0.0.1", "--cluster-node-timeout", "1000"];
        let more = ["--cluster-require-full-coverage", "no"];
        let node = Redis::with(&[&arguments[..], &announced, &more].concat()).await;
        nodes.push((node, at, bus));
    }
    let first = &nodes[0].0;
    for ((node, at, bus), slots) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        assert_eq!(node.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]), "OK");
        assert_eq!(first.ask(&["CLUSTER", "MEET", "127.0.0.1", &at.to_string(), bus]), "OK");
    }
    let whole = |node: &Redis| {
        let info = node.ask(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok")
            && info.contains("cluster_known_nodes:3")
            && info.contains("cluster_slots_ok:16384")
    };
    until("the cluster is there", || nodes.iter().all(|(node, ..)| whole(node))).await;
    let world = World::new(Options::default());
    let section = section_at(&format!("redis-cluster://127.0.0.1:{}", ports[0]), "timeout = \"2s\"");
    let one = Replica::with(&world, &section, 1, None).await;
    let all = bearers(&world, &one.client, 12).await;
    for bearer in &all {
        one.ok(bearer).await;
    }
    one.has_put(12).await;
    assert!(nodes.iter().all(|(node, ..)| !node.names().is_empty()), "each has a part");
    let other = Replica::with(&world, &section, 1, None).await;
    for bearer in &all {
        other.ok(bearer).await;
    }
    assert_eq!((other.lookups(Lookup::Shared), world.script.mints()), (12, 12));
    let told = Told::with("fleet-cluster", &world, &section).await;
    let bob = world.bearer(BOB);
    other.ok(&bob).await;
    told.revokes(&format!("session={BOB}")).await;
    refused(&other, &bob).await;
    // A third of the names is gone. Nobody is refused for it.
    nodes.pop();
    for bearer in bearers(&world, &one.client, 20).await {
        one.ok(&bearer).await;
        other.ok(&bearer).await;
    }
}
