//! The status page's document of gateways that serve: what it tells, what it keeps to itself, and how watching ends.

use std::net::SocketAddr;

use http::Method;
use mintgate::emulator::Options;
use mintgate::proxy::error::Code;
use serde_json::Value;

use crate::harness::{ALICE, Binary, Boot, Client, Harness, World, call, client, until};
use crate::reload::{public, reloaded, rewrite};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// The document, for a program.
pub(crate) async fn status(client: &Client, admin: SocketAddr) -> Value {
    let answer = call(client, Method::GET, &format!("http://{admin}/status"), &[], "").await;
    assert_eq!((answer.status, &answer.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    serde_json::from_str(&answer.body).unwrap()
}

/// Somebody who watches: one event after the other.
pub(crate) struct Watcher(Wire);

impl Watcher {
    pub(crate) async fn begin(admin: SocketAddr, fields: &str) -> Self {
        let mut wire = Wire::connect(admin).await;
        wire.send(format!("GET /status/events HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
        let head = wire.response_head().await.unwrap();
        assert_eq!((head.status(), head.one("content-type")), (200, Some("text/event-stream")));
        Self(wire)
    }

    /// The next event as it stands on the wire; empty at the end of the stream, however that comes: a gateway that has
    /// nothing under way ends at once.
    pub(crate) async fn text(&mut self) -> String {
        String::from_utf8(self.0.chunk().await.unwrap_or_default()).unwrap()
    }

    async fn next(&mut self) -> Option<Value> {
        let text = self.text().await;
        (!text.is_empty()).then(|| serde_json::from_str(text.strip_prefix("data: ").unwrap()).unwrap())
    }
}

const MINTING: &str = "[[routes]]\nname = \"graphql\"\nmatch = { path = \"/graphql\" }\nupstream = \"up\"\ninject = \
                       [{ header = \"authorization\", prefix = \"Bearer \", template = \"plain\" }]\n";

#[tokio::test]
async fn the_status_tells_what_happened_and_what_to_do() {
    let harness = Harness::boot(Boot { tables: MINTING, ..Boot::default() }).await;
    let (caller, bearer) = (client(false), harness.world.bearer(ALICE));
    let mut watcher = Watcher::begin(harness.admin, "").await;
    assert_eq!(watcher.next().await.unwrap()["routes"][0]["requests"], 0);
    for (path, bearer, status) in [
        ("/graphql", Some(&*bearer), 200),
        ("/graphql", Some(&*bearer), 200),
        ("/graphql", None, 401),
        ("/none", None, 404),
    ] {
        assert_eq!(harness.get(&caller, path, bearer).await.status, status);
    }
    let told = status(&caller, harness.admin).await;
    assert_eq!((&told["ready"], &told["configuration"]["generation"]), (&true.into(), &1.into()));
    let route = &told["routes"][0];
    assert_eq!(
        (&route["name"], &route["matches"], &route["upstream"]),
        (&"graphql".into(), &"/graphql/…".into(), &"up".into())
    );
    assert_eq!((&route["requests"], &route["refused"], &route["failed"]), (&3.into(), &1.into(), &0.into()));
    assert_eq!(route["token_hit_ratio"], 0.5);
    assert!(route["overhead_p50_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&told["issuer"]["mints"]["ok"], &told["issuer"]["breaker_open"]), (&1.into(), &false.into()));
    assert_eq!((&told["issuer"]["keys"]["source"], &told["issuer"]["keys"]["fetched"]), (&"issuer".into(), &1.into()));
    let budget = &told["issuer"]["budget"];
    assert!(budget["available"].as_f64() <= budget["capacity"].as_f64(), "{budget}");
    assert_eq!((&told["caches"]["tokens"]["entries"], &told["caches"]["sessions"]["entries"]), (&1.into(), &1.into()));
    let errors: Vec<_> =
        told["errors"].as_array().unwrap().iter().map(|error| error["code"].as_str().unwrap()).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    for code in [Code::SessionMissing, Code::NoRoute] {
        assert!(errors.contains(&code.as_str()), "{errors:?}");
    }
    assert!(told["errors"].as_array().unwrap().iter().all(|error| error["last"]["seconds_ago"].is_u64()));
    // Within bounds: an event comes every second.
    for _ in 0..30 {
        if watcher.next().await.unwrap()["routes"][0]["requests"] == 3 {
            return;
        }
    }
    panic!("who watches never sees the requests");
}

/// Fails where a page is told the lines of the configuration, which may hold what is nobody's business.
#[tokio::test]
async fn a_refused_configuration_is_told_without_its_lines() {
    let upstream = Upstream::answering(OK).await;
    let good = public(&upstream, "one", "");
    let binary = Binary::start("status-reload", &good, &[]).await;
    let outside = client(false);
    assert_eq!(status(&outside, binary.admin).await["configuration"]["last_reload"], Value::Null);
    rewrite("status-reload", &format!("{good}\"<img src=x onerror=alert(1)>\" = 1 # canaryOfALine\n"));
    until("it is told", || binary.log().contains("not reloaded")).await;
    assert!(binary.log().contains("canaryOfALine"), "the log shows the line");
    let told = status(&outside, binary.admin).await;
    let reload = &told["configuration"]["last_reload"];
    assert_eq!((&reload["ok"], &told["configuration"]["refused"]), (&false.into(), &1.into()));
    let problem = reload["problems"][0].as_str().unwrap();
    assert!(problem.contains("status-reload.toml:") && problem.contains("<img src=x"), "{problem}");
    assert!(!told.to_string().contains("canaryOfALine"), "{problem}");
    rewrite("status-reload", &public(&upstream, "two", "").replace("workers = 2", "workers = 3"));
    reloaded(&binary, 1).await;
    let told = status(&outside, binary.admin).await;
    let configuration = &told["configuration"];
    assert_eq!((&configuration["generation"], &configuration["last_reload"]["ok"]), (&2.into(), &true.into()));
    assert_eq!(configuration["last_reload"]["needs_restart"][0], "server.workers");
    assert_eq!((&told["routes"][0]["name"], &told["routes"][0]["matches"]), (&"two".into(), &"/two/…".into()));
}

#[tokio::test]
async fn who_watches_is_told_of_the_end_and_does_not_hold_it_up() {
    let world = World::new(Options::default());
    let key = world.emulator.secret_key().expose().to_owned();
    let text = world.config("", MINTING, false).replace("[server]", "[server]\ndrain_delay = \"3s\"");
    let mut binary = Binary::start("status-drain", &text, &[("CLERK_SECRET_KEY", &key)]).await;
    let mut watcher = Watcher::begin(binary.admin, "").await;
    assert_eq!(watcher.next().await.unwrap()["ready"], true);
    binary.terminate();
    let mut last = Value::Null;
    while let Some(next) = watcher.next().await {
        last = next;
    }
    assert_eq!(last["not_ready_because"], "draining");
    until("it ends", || binary.ended().is_some()).await;
}
