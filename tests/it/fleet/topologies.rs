//! The ways to Redis: a port, TLS with an authority of one's own, a password and a user, a cluster, sentinels.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::*;
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
    let section = format!(
        "[cache.shared]\nurl = \"{url}\"\ntimeout = \"2s\"\nencryption_key = {{ env = \"MINTGATE_CACHE_KEY\" }}\n{more}\n{ROUTES}"
    );
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

#[tokio::test]
async fn where_sentinels_say_who_the_master_is() {
    let (at, sentinel_at, directory) = (port(), port(), Directory::new());
    let _redis = Redis::with(&["--port", &at.to_string()]).await;
    let config = directory.write(
        "sentinel.conf",
        format!("port {sentinel_at}\ndir {}\nsentinel monitor main 127.0.0.1 {at} 1\n", directory.path("").display()),
    );
    let mut sentinel = Command::new("redis-server");
    sentinel.arg(config).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _sentinel = Ending(sentinel.spawn().unwrap());
    eventually("the sentinel is there", || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, sentinel_at)).is_ok())
        .await;
    is_shared(&format!("redis-sentinel://127.0.0.1:{sentinel_at}#main"), "").await;
}
