//! What `mintgate check --online` says of Redis.

use std::process::Command;

use super::*;

/// The exit status, and what is said.
async fn checked(world: &World, section: &str) -> (Option<i32>, String) {
    let directory = Directory::new();
    let path =
        directory.write("mintgate.toml", world.config("authorized_parties = [\"https://a.example\"]", section, false));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
    command.args(["check", "--online", "--config"]).arg(&path);
    command.env("CLERK_SECRET_KEY", world.emulator.secret_key().expose()).env("MINTGATE_CACHE_KEY", key(1));
    command.env("REDIS_PASSWORD", "redis-canary");
    // The emulator runs on this thread's runtime.
    let said = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(!text.contains("redis-canary") && !text.contains(&key(1)), "{text}");
    (said.status.code(), text)
}

/// Fails where Redis is not asked, or where what it says is told as something else.
#[tokio::test]
async fn check_online_says_what_is_wrong_with_redis() {
    let world = World::new(Options::default());
    let mut redis = Redis::start().await;
    let plain = section(&redis, "");
    let (code, text) = checked(&world, &plain).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("answers and takes writes: ") && text.contains(", one key; one budget of "), "{text}");
    assert!(!text.contains("evicts"), "{text}");
    redis.ask(&["CONFIG", "SET", "maxmemory", "100mb"]);
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let (code, text) = checked(&world, &plain).await;
    assert!(code == Some(0) && text.contains("evicts when it is full (allkeys-lru)"), "{text}");
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let (code, text) = checked(&world, &plain).await;
    assert!(code == Some(1) && text.contains("takes no writes") && text.contains("OOM"), "{text}");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let (code, text) = checked(&world, &plain).await;
    assert!(code == Some(1) && text.contains("takes no writes") && text.contains("READONLY"), "{text}");
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    // Somebody who may not ask for all that is told may use it all the same.
    redis.ask(&[
        "ACL",
        "SETUSER",
        "few",
        "on",
        ">redis-canary",
        "~mintgate:*",
        "-@all",
        "+eval",
        "+set",
        "+ping",
        "+select",
    ]);
    let few = section(&redis, "username = \"few\"\npassword = { env = \"REDIS_PASSWORD\" }");
    let (code, text) = checked(&world, &few).await;
    assert!(code == Some(0) && text.contains("does not tell its version"), "{text}");
    redis.ask(&["ACL", "SETUSER", "few", "-eval"]);
    let (code, text) = checked(&world, &few).await;
    assert!(code == Some(1) && text.contains("NOPERM"), "{text}");
    redis.ask(&["CONFIG", "SET", "requirepass", "another"]);
    let wrong = section(&redis, "password = { env = \"REDIS_PASSWORD\" }");
    for (section, why) in [(&plain, "NOAUTH"), (&wrong, "Password authentication failed")] {
        let (code, text) = checked(&world, section).await;
        assert!(code == Some(1) && text.contains("is of no use") && text.contains(why), "{why}: {text}");
    }
    redis.pause();
    let (code, text) = checked(&world, &plain).await;
    assert!(code == Some(69) && text.contains("does not answer"), "{text}");
    redis.resume();
    redis.kill();
    let (code, text) = checked(&world, &plain).await;
    assert!(code == Some(69) && text.contains("does not answer"), "{text}");
}
