//! Neither secrets nor tokens leave the gateway anywhere but in the requests that they are for.

pub(crate) mod canaries;
mod codes;
mod commands;
mod printed;
mod stage;

use http::Method;
use mintgate::emulator::Options;
use serde_json::{Value, json};

use crate::harness::{ALICE, Answer, BOB, Binary, World, call, client};
use crate::status::status;

/// Letters that stand nowhere else.
const SECRET: &str = "sk_test_canaryQ7x9Zk2Vw4";
const FIXED: &str = "canaryFixedValue8Hj3Lp";

const ROUTES: &str = r#"
[log]
access = "all"
identity = "plain"
filter = "trace"
[[routes]]
name = "all"
upstream = "up"
inject = [
  { header = "authorization", prefix = "Bearer ", template = "plain" },
  { header = "x-session-token", session_token = true },
  { header = "apikey", value = { env = "FIXED" } },
]
[[routes]]
name = "absent"
match = { path = "/absent" }
upstream = "up"
inject = [{ header = "authorization", template = "absent" }]
"#;

fn options() -> Options {
    Options { secret_key: SECRET.parse().unwrap(), ..Options::default() }
}

/// The parts of a token that must not be seen: whoever has the signature has the token.
fn parts(token: &str) -> Vec<String> {
    let parts: Vec<&str> = token.trim_start_matches("Bearer ").split('.').collect();
    vec![parts[1].to_owned(), parts[2].to_owned()]
}

/// Requests of every kind: served, refused by us, refused by the issuer, malformed.
async fn provoke(world: &World, address: std::net::SocketAddr, canaries: &mut Vec<String>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let good = world.bearer(ALICE);
    canaries.extend(parts(&good));
    for http2 in [false, true] {
        let caller = client(http2);
        let mut say = async |path: &str, headers: &[(&str, &str)]| {
            answers.push(call(&caller, Method::GET, &format!("http://{address}{path}"), headers, "").await);
        };
        say("/?canaryQueryR5t7=1", &[("authorization", &good)]).await;
        say("/absent", &[("authorization", &good)]).await;
        say("/", &[]).await;
        // The signature broken, in a cookie, without a scheme, of another kind.
        let broken = format!("{good}AA");
        say("/", &[("authorization", &broken)]).await;
        let cookie = format!("__session={}; __client_uat=1", good.trim_start_matches("Bearer "));
        say("/", &[("cookie", &cookie)]).await;
        say("/", &[("authorization", "canaryTokenB6n8Mq")]).await;
        say("/", &[("authorization", "Bearer mt_canaryTokenB6n8Mq")]).await;
        say("/", &[("authorization", &good), ("authorization", &broken)]).await;
        say("/absent", &[("authorization", &good), ("connection", "authorization")]).await;
    }
    let bob = world.bearer(BOB);
    canaries.extend(parts(&bob));
    let revoked = world.api(&client(false), &format!("/v1/sessions/{BOB}/revoke"), &json!({})).await;
    assert_eq!(revoked.status, 200);
    let url = format!("http://{address}/");
    answers.push(call(&client(false), Method::GET, &url, &[("authorization", &bob)], "").await);
    // What was minted and injected.
    let mut reached = 0;
    for head in world.seen.take() {
        assert_eq!(head["apikey"], FIXED);
        for name in ["authorization", "x-session-token"] {
            canaries.extend(parts(head[name].to_str().unwrap()));
        }
        reached += 1;
    }
    assert_eq!(reached, 4, "requests reached the upstream");
    answers
}

fn assert_clean(place: &str, text: &str, canaries: &[String]) {
    for canary in canaries {
        if let Some(at) = text.find(canary.as_str()) {
            let line = text[..at].lines().count();
            panic!(
                "{place}: {canary} is in line {line}:\n{}",
                text.lines().nth(line.saturating_sub(1)).unwrap_or_default()
            );
        }
    }
}

fn canaries() -> Vec<String> {
    ["canaryQ7x9Zk2Vw4", FIXED, "canaryTokenB6n8Mq", "canaryQueryR5t7"].map(str::to_owned).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_and_no_token_reaches_the_log_the_metrics_or_a_caller() {
    let world = World::new(options());
    let config = world.config("", ROUTES, false);
    let vars = [("CLERK_SECRET_KEY", SECRET), ("FIXED", FIXED), ("MINTGATE_LOG", "trace")];
    let binary = Binary::start("secrets", &config, &vars).await;
    let mut canaries = canaries();
    let answers = provoke(&world, binary.address, &mut canaries).await;
    let codes: Vec<&str> = answers.iter().map(Answer::code).collect();
    for expected in
        ["", "template-unknown", "session-missing", "session-invalid", "credential-ambiguous", "session-ended"]
    {
        assert!(codes.contains(&expected), "{expected} is not among {codes:?}");
    }
    for answer in &answers {
        assert_clean("an answer", &format!("{:?}\n{}", answer.headers, answer.body), &canaries);
    }
    let metrics = call(&client(false), Method::GET, &format!("http://{}/metrics", binary.admin), &[], "").await;
    assert!(metrics.body.contains("mintgate_mints_total"));
    assert_clean("the metrics", &metrics.body, &canaries);
    let status = status(&client(false), binary.admin).await.to_string();
    assert!(status.contains("session-missing"), "{status}");
    assert_clean("the status", &status, &canaries);
    let log = binary.log();
    let records =
        log.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["route"] == "all"));
    assert!(records.count() > 10 && log.contains("\"TRACE\""), "the log is no trial:\n{log}");
    assert_clean("the log", &log, &canaries);
}
