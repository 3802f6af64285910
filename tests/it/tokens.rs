//! The rules for tokens, seen from outside: real sockets, and counts instead of timings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use mintgate::emulator::Options;
use mintgate::emulator::limit::RateLimit;
use mintgate::metrics::Lookup;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{ALICE, Answer, BOB, Boot, Harness, claims, client, now_ms, until};

const FORGED: &str = r#"
[[routes]]
name = "forged"
upstream = "up"
inject = [
  { header = "authorization", prefix = "Bearer ", template = "forged" },
  { header = "x-sid", claim = "sid" },
]
"#;

const WIDE_BUDGET: &str = r#"
[clerk.budget]
requests = 100000
per = "10s"
per_session = "1000/10s"
"#;

fn unlimited() -> Options {
    Options { rate_limit: Some(RateLimit::Off), ..Options::default() }
}

async fn forged(tables: &str, clerk: &str) -> Arc<Harness> {
    let tables = format!("{tables}{FORGED}");
    Arc::new(Harness::boot(Boot { clerk, tables: &tables, http2: true, options: unlimited(), ..Boot::default() }).await)
}

/// One session's request over a connection of its own.
async fn get(harness: &Harness, session: &str) -> Answer {
    harness.get(&client(false), "/", Some(&harness.world.bearer(session))).await
}

fn text<'a>(head: &'a HeaderMap, name: &str) -> &'a str {
    head[name].to_str().unwrap()
}

/// How much life a token had when its caller sent the request: no less than when it was injected.
fn remaining_ms(head: &HeaderMap) -> i64 {
    let exp = claims(text(head, "authorization"))["exp"].as_i64().unwrap();
    exp * 1000 - text(head, "x-sent-at").parse::<i64>().unwrap()
}

#[tokio::test]
async fn five_hundred_first_requests_of_a_session_are_one_mint() {
    let harness = forged(WIDE_BUDGET, "").await;
    harness.world.script.hold(true);
    let bearer = Arc::new(harness.world.bearer(ALICE));
    let mut callers = JoinSet::new();
    for _ in 0..5 {
        let caller = client(true);
        for _ in 0..100 {
            let (harness, caller, bearer) = (Arc::clone(&harness), caller.clone(), Arc::clone(&bearer));
            callers.spawn(async move { harness.get(&caller, "/", Some(&bearer)).await.status });
        }
    }
    let asked = || harness.lookups(Lookup::Mint) + harness.lookups(Lookup::Wait);
    until("the mint has begun", || harness.world.script.mints() == 1).await;
    // Look-ups are counted when they end, so nothing tells when all have come; who comes later finds the token.
    tokio::time::sleep(Duration::from_secs(1)).await;
    harness.world.script.hold(false);
    assert!(callers.join_all().await.into_iter().all(|status| status == 200));
    assert_eq!(harness.world.script.mints(), 1);
    assert_eq!((harness.lookups(Lookup::Mint), asked() + harness.lookups(Lookup::Hit)), (1, 500));
    let seen = harness.world.seen.take();
    assert_eq!(seen.len(), 500);
    assert!(seen.iter().all(|head| head["authorization"] == seen[0]["authorization"]));
}

#[tokio::test]
async fn a_first_caller_that_goes_away_fails_nobody_and_costs_no_second_mint() {
    let harness = forged("", "").await;
    harness.world.script.hold(true);
    let bearer = harness.world.bearer(ALICE);
    let mut first = TcpStream::connect(harness.address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: {bearer}\r\n\r\n");
    first.write_all(head.as_bytes()).await.unwrap();
    until("the first caller's mint has begun", || harness.world.script.mints() == 1).await;
    let second = {
        let harness = Arc::clone(&harness);
        JoinSet::from_iter([async move { get(&harness, ALICE).await }])
    };
    drop(first);
    until("the first caller is gone", || harness.gone() == 1).await;
    assert_eq!(harness.world.script.mints(), 1);
    harness.world.script.hold(false);
    let answers = second.join_all().await;
    assert_eq!((answers[0].status, harness.world.script.mints()), (200, 1));
    assert_eq!(get(&harness, ALICE).await.status, 200);
    assert_eq!((harness.world.script.mints(), harness.world.seen.take().len()), (1, 2));
}

#[tokio::test]
async fn three_hundred_sessions_at_once_each_get_their_own_tokens() {
    let tables = format!(
        "{WIDE_BUDGET}{}",
        FORGED.replace(
            "inject = [",
            "inject = [\n  { header = \"x-plain\", template = \"plain\" },\n  { header = \"x-user\", claim = \"sub\" },"
        )
    );
    let options = unlimited();
    let harness = Harness::boot(Boot { tables: &tables, http2: true, options, ..Boot::default() }).await;
    let harness = Arc::new(harness);
    let (caller, mut users) = (client(true), HashMap::new());
    for index in 0..300 {
        let user = ["user_emulator_alice", "user_emulator_bob"][index % 2];
        users.insert(harness.world.begin_session(&caller, user).await, user);
    }
    let mut callers = JoinSet::new();
    for session in users.keys() {
        // Twice each, so that waiters are among them.
        for _ in 0..2 {
            let (harness, caller, bearer) = (Arc::clone(&harness), caller.clone(), harness.world.bearer(session));
            callers.spawn(async move { harness.get(&caller, "/", Some(&bearer)).await.status });
        }
    }
    assert!(callers.join_all().await.into_iter().all(|status| status == 200));
    assert_eq!(harness.world.script.mints(), 600, "two templates, once for each session");
    let seen = harness.world.seen.take();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for head in &seen {
        let sid = text(head, "x-sid");
        *counts.entry(sid).or_default() += 1;
        assert_eq!(claims(text(head, "authorization"))["sid"], sid);
        assert_eq!(text(head, "x-user"), users[sid]);
        assert_eq!(claims(text(head, "x-plain"))["sub"], users[sid]);
    }
    assert_eq!(counts.len(), 300);
    assert!(counts.values().all(|count| *count == 2));
}

#[tokio::test]
async fn a_session_that_is_used_never_waits_again() {
    // Due after a third of 12 s, dead after 11 s: no busy machine stands still for so long.
    let harness = forged("[cache]\nmin_remaining = \"1s\"\nrefresh_at = 0.3\n", "").await;
    harness.world.script.life(12);
    let caller = client(false);
    // Two refreshes at least, however slow they are; each request is one use.
    until_mints(&harness, &caller, 3).await;
    assert_eq!((harness.lookups(Lookup::Mint), harness.lookups(Lookup::Wait)), (1, 0));
    assert!(harness.lookups(Lookup::Hit) > 10);
    assert!(harness.world.seen.take().iter().all(|head| remaining_ms(head) > 0));
}

/// Uses the session until so many tokens have been asked for.
async fn until_mints(harness: &Harness, caller: &crate::harness::Client, mints: u64) {
    let used = async {
        while harness.world.script.mints() < mints {
            let bearer = harness.world.bearer(ALICE);
            assert_eq!(harness.get(caller, "/", Some(&bearer)).await.status, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(crate::harness::PATIENCE, used).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_away_neither_delays_nor_loses_a_live_token() {
    let tables = "[cache]\nmin_remaining = \"1s\"\nrefresh_at = 0.3\n";
    let harness = forged(tables, "timeout = \"1s\"\n").await;
    harness.world.script.life(12);
    let caller = client(false);
    assert_eq!(get(&harness, ALICE).await.status, 200);
    // It takes the refresh and never answers: a request that waited for it would fail after a second.
    harness.world.script.hold(true);
    until_mints(&harness, &caller, 2).await;
    for _ in 0..40 {
        let answer = harness.get(&caller, "/", Some(&harness.world.bearer(ALICE))).await;
        assert_eq!((answer.status, answer.code()), (200, ""));
    }
    // It answers with errors.
    harness.world.script.refuse(Some((500, "")));
    harness.world.script.hold(false);
    until_mints(&harness, &caller, 3).await;
    assert_eq!((harness.lookups(Lookup::Mint), harness.lookups(Lookup::Wait)), (1, 0));
    // Who has no token is told, and soon.
    assert_eq!(get(&harness, BOB).await.code(), "issuer-unavailable");
    // And when it is back, it serves again.
    harness.world.script.refuse(None);
    let back = async { while get(&harness, BOB).await.status != 200 {} };
    assert!(tokio::time::timeout(crate::harness::PATIENCE, back).await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_nearly_dead_is_never_sent() {
    // A quarter of 4 s is kept back.
    let harness = forged("", "timeout = \"1s\"\n").await;
    harness.world.script.life(4);
    let caller = client(false);
    assert_eq!(get(&harness, ALICE).await.status, 200);
    harness.world.script.refuse(Some((503, "")));
    let bearer = harness.world.bearer(ALICE);
    let began = now_ms();
    let died = async {
        while harness.get(&caller, "/", Some(&bearer)).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(crate::harness::PATIENCE, died).await.is_ok());
    assert!(now_ms() - began < 60_000);
    let answer = harness.get(&caller, "/", Some(&bearer)).await;
    assert!(["issuer-unavailable", "issuer-timeout"].contains(&answer.code()), "{answer:?}");
    let least = harness.world.seen.take().iter().map(remaining_ms).min().unwrap();
    // `iat` is in whole seconds, so up to one of the four may be over when the token comes.
    assert!(least >= 750, "{least} ms were left");
}

#[tokio::test]
async fn every_refusal_of_the_issuer_has_its_code() {
    let route = |name: &str, template: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nupstream = \"up\"\ninject = \
             [{{ header = \"authorization\", prefix = \"Bearer \", template = \"{template}\" }}]\n"
        )
    };
    let tables = format!("{}{}", route("plain", "plain"), route("absent", "no_such_template"));
    let harness = Harness::boot(Boot { tables: &tables, ..Boot::default() }).await;
    let caller = client(false);
    let (alice, bob) = (harness.world.bearer(ALICE), harness.world.bearer(BOB));

    let unknown = harness.get(&caller, "/absent", Some(&alice)).await;
    assert_eq!((unknown.status, unknown.code()), (502, "template-unknown"));

    let revoked = harness.world.api(&caller, &format!("/v1/sessions/{BOB}/revoke"), &json!({})).await;
    assert_eq!(revoked.status, 200);
    let ended = harness.get(&caller, "/plain", Some(&bob)).await;
    assert_eq!((ended.status, ended.code()), (401, "session-ended"));
    assert_eq!(
        ended.headers["www-authenticate"],
        "Bearer error=\"invalid_token\", error_description=\"session-ended\""
    );

    harness.world.script.refuse(Some((429, "30")));
    let throttled = harness.get(&caller, "/plain", Some(&alice)).await;
    assert_eq!((throttled.status, throttled.code()), (503, "issuer-throttled"));
    let retry_after: u64 = text(&throttled.headers, "retry-after").parse().unwrap();
    assert!((20..=30).contains(&retry_after), "{retry_after}");
    let problem: Value = serde_json::from_str(&throttled.body).unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(503), &json!("issuer-throttled")));
    let mints = harness.world.script.mints();
    assert_eq!(harness.get(&caller, "/plain", Some(&alice)).await.code(), "issuer-throttled");
    assert_eq!(harness.world.script.mints(), mints, "nothing is sent during the pause");
    assert!(harness.world.seen.take().is_empty(), "nothing was forwarded");
}

#[tokio::test]
async fn a_secret_key_that_is_refused_is_no_users_fault() {
    let tables = FORGED.replace("\"forged\"", "\"plain\"");
    let boot = Boot {
        clerk: "jwt_key = { file = \"clerk.pem\" }\n",
        tables: &tables,
        secret_key: Some("sk_test_another"),
        ..Boot::default()
    };
    let harness = Harness::boot(boot).await;
    let answer = get(&harness, ALICE).await;
    assert_eq!((answer.status, answer.code()), (502, "issuer-rejected-key"));
    assert_eq!(harness.metrics.control().issuer_key_rejected.get(), 1);
    assert!(!answer.headers.contains_key("www-authenticate"));
}
