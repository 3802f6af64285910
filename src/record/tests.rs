//! The access record: what it counts, what it writes, and what it never shows.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::clock::Wall;
use crate::metrics::{CLIENT_GONE, Names, OutcomeName};
use crate::telemetry::tests::Seen;
use crate::telemetry::{FilterFrom, LogFormat, parse, subscriber};

const OK: usize = 0;
const BAD_GATEWAY: usize = 1;
const INVALID: usize = 2;
const GONE: usize = 3;

struct Test {
    recorder: Arc<Recorder>,
    lines: Seen,
    _guard: DefaultGuard,
}

impl Test {
    fn new(access: Access, identity: Identity) -> Self {
        let lines = Seen::default();
        let (writer, filter) = (lines.clone(), parse("trace", FilterFrom::Config).unwrap());
        let subscriber = subscriber(filter, LogFormat::Json, false, move || writer.clone());
        let outcome = |status: &str, code| OutcomeName { status: status.to_owned(), code };
        let metrics = Arc::new(Metrics::new(Names {
            routes: vec!["graphql".to_owned()],
            upstreams: vec!["hasura".to_owned()],
            outcomes: vec![outcome("2xx", ""), outcome("5xx", ""), outcome("401", "session-invalid")],
            ..Names::default()
        }));
        let shard = metrics.shard();
        let clock = Clock::following(Wall::from_seconds(1_700_000_000));
        let recorder = Recorder::new(metrics, shard, access, identity, clock, None);
        Self { recorder, lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn begin(&self) -> Record {
        let request = Request::get("/v1/graphql?token=canary-query")
            .header("host", "api.example.com")
            .header("authorization", "Bearer canary-header")
            .header("x-request-id", "from-a-peer")
            .body(())
            .unwrap();
        self.begin_with(&request, false)
    }

    fn begin_with(&self, request: &Request<()>, trusted: bool) -> Record {
        let peer = Peer { address: PeerAddress::Tcp("192.0.2.1:5000".parse().unwrap()), trusted, scheme: "http" };
        let mut record = self.recorder.begin(request, peer);
        record.route(RouteId::new(0), true);
        record
    }

    fn counted(&self) -> Vec<u64> {
        let count = |outcome| self.recorder.shard.requests(RouteId::new(0), OutcomeId::new(outcome)).get();
        [OK, BAD_GATEWAY, INVALID, GONE].map(count).to_vec()
    }

    fn text(&self) -> String {
        self.lines.text()
    }

    fn line(&self) -> serde_json::Value {
        serde_json::from_str(&self.text()).unwrap()
    }
}

fn outcome(id: usize, status: u16) -> Outcome {
    Outcome { id: OutcomeId::new(id), status: StatusCode::from_u16(status).unwrap(), reason: None }
}

struct Alice {
    sub: &'static str,
    sid: &'static str,
}

const ALICE: Alice = Alice { sub: "user_canary\nlevel=ERROR", sid: "sess_canary" };

impl Caller for Alice {
    fn sub(&self) -> Option<&str> {
        Some(self.sub)
    }

    fn sid(&self) -> &str {
        self.sid
    }

    fn org(&self) -> Option<&str> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_once_and_logs_once() {
    let test = Test::new(Access::All, Identity::Plain);
    let step = |millis| tokio::time::advance(Duration::from_millis(millis));
    let mut record = test.begin();
    record.credential(CredentialKind::Bearer);
    record.verdict(Verdict::Valid);
    record.caller(Arc::new(ALICE));
    record.looked_up(Lookup::Hit);
    step(3).await;
    for wait in [20, 30] {
        record.upstream_begins(UpstreamId::new(0));
        step(wait).await;
    }
    record.responds(outcome(OK, 204));
    record.sent(5);
    record.sent(6);
    step(100).await;
    record.body_ends(BodyEnd::Complete, Instant::now());
    // As it moves into a body.
    drop(Box::new(record));

    assert_eq!(test.counted(), [1, 0, 0, 0]);
    let (shard, route) = (&test.recorder.shard, RouteId::new(0));
    assert_eq!(shard.verdicts(route, Verdict::Valid).get(), 1);
    assert_eq!(shard.lookups(route, Lookup::Hit).get(), 1);
    assert_eq!(shard.request_seconds[0].read().1, 153_000_000);
    assert_eq!(shard.overhead_seconds[0].read().1, 3_000_000);
    let (attempts, waited) = shard.upstream_seconds[0].read();
    assert_eq!((attempts.iter().sum::<u64>(), waited), (2, 50_000_000));

    let mut line = test.line();
    let id = line["request_id"].take();
    assert_eq!(id.as_str().unwrap().len(), 32);
    line.as_object_mut().unwrap().retain(|name, _| name != "timestamp" && name != "request_id");
    assert_eq!(
        line,
        serde_json::json!({
            "level": "INFO", "target": TARGET, "message": "request", "began": "2023-11-14T22:13:20.000Z",
            "route": "graphql", "method": "GET", "host": "api.example.com", "path": "/v1/graphql",
            "status": 204, "body": "complete", "credential": "bearer", "verdict": "valid", "token": "hit",
            "total_ms": 153.0, "overhead_ms": 3.0, "upstream_ms": 50.0, "bytes": 11, "peer": "192.0.2.1:5000",
            "sub": r"user_canary\x0alevel=ERROR", "sid": "sess_canary",
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_is_counted_and_the_upstream_is_not_blamed() {
    let test = Test::new(Access::All, Identity::Hash);
    let mut record = test.begin();
    record.upstream_begins(UpstreamId::new(0));
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(record);
    assert_eq!(test.counted(), [0, 0, 0, 1]);
    assert_eq!(test.recorder.shard.upstream_seconds[0].read(), ([0; 17], 0));
    assert_eq!(test.recorder.shard.overhead_seconds[0].read().1, 0);
    let line = test.line();
    assert_eq!((&line["status"], &line["code"]), (&499.into(), &CLIENT_GONE.into()));
    assert!(line.get("body").is_none());
}

#[tokio::test(start_paused = true)]
async fn only_errors_are_logged_when_asked_for_errors() {
    for (access, expected) in [(Access::Off, 0), (Access::Errors, 3), (Access::All, 5)] {
        let test = Test::new(access, Identity::None);
        for (id, status, end) in [
            (Some(OK), 404, BodyEnd::Complete),
            (Some(BAD_GATEWAY), 503, BodyEnd::Complete),
            (Some(INVALID), 401, BodyEnd::Complete),
            (Some(OK), 200, BodyEnd::Broken),
            (None, 0, BodyEnd::Cut),
        ] {
            let mut record = test.begin();
            if let Some(id) = id {
                record.responds(outcome(id, status));
            }
            record.body_ends(end, Instant::now());
        }
        let mut silent = test.begin();
        silent.route(RouteId::new(0), false);
        silent.responds(outcome(INVALID, 401));
        drop(silent);
        assert_eq!(test.text().lines().count(), expected, "{access:?}");
        assert_eq!(test.counted().iter().sum::<u64>(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn no_secret_reaches_a_line() {
    for identity in [Identity::None, Identity::Hash] {
        let test = Test::new(Access::All, identity);
        let mut record = test.begin();
        record.caller(Arc::new(ALICE));
        let debug = format!("{record:?}");
        drop(record);
        assert!(!debug.contains("canary") && !test.text().contains("canary"), "{debug} {}", test.text());
        assert_eq!(test.line().get("sub").is_some(), identity == Identity::Hash);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_cannot_forge_a_line() {
    let test = Test::new(Access::All, Identity::None);
    let host = HeaderValue::from_bytes(b"a\xff status=200\t\"x").unwrap();
    let request = Request::get("/a\u{9b}31m\u{202e}\"b").header("host", host).body(()).unwrap();
    drop(test.begin_with(&request, false));
    let line = test.line();
    assert_eq!(line["host"], r#"a\xff\x20status=200\x09"x"#);
    assert_eq!(line["path"], r#"/a\xc2\x9b31m\xe2\x80\xae"b"#);
}

#[tokio::test(start_paused = true)]
async fn the_chain_of_errors_is_told() {
    #[derive(Debug, thiserror::Error)]
    #[error("the mint failed")]
    struct Outer(#[source] io::Error);
    let test = Test::new(Access::Errors, Identity::None);
    let mut record = test.begin();
    record.cause(&Outer(io::Error::other("no route\nto host")));
    record.responds(Outcome { reason: Some("signature"), ..outcome(INVALID, 401) });
    drop(record);
    let line = test.line();
    assert_eq!(line["cause"], "the mint failed: no route\nto host");
    assert_eq!((&line["code"], &line["reason"]), (&"session-invalid".into(), &"signature".into()));
    assert_eq!(test.text().lines().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_sending_is_told_and_no_second_sending_is_not() {
    for retried in [true, false] {
        let test = Test::new(Access::All, Identity::None);
        let mut record = test.begin();
        if retried {
            record.retried();
        }
        drop(record);
        assert_eq!(test.line().get("retried"), retried.then_some(&true.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_is_kept_from_a_trusted_peer_alone() {
    let test = Test::new(Access::Off, Identity::None);
    let request = Request::get("/").header("x-request-id", "from-a-peer").body(()).unwrap();
    assert_eq!(test.begin_with(&request, true).id().to_string(), "from-a-peer");
    assert_ne!(test.begin_with(&request, false).id().to_string(), "from-a-peer");
}

/// A download of an hour would keep 8 KB or more for it.
#[test]
fn a_record_keeps_nothing_of_the_buffer_that_the_head_was_read_into() {
    let test = Test::new(Access::All, Identity::None);
    let buffer = Bytes::from(b"/a?bexample.comfrom-a-peer".to_vec());
    let host = HeaderValue::from_maybe_shared(buffer.slice(4..15)).unwrap();
    let id = HeaderValue::from_maybe_shared(buffer.slice(15..)).unwrap();
    let target = Uri::from_maybe_shared(buffer.slice(..4)).unwrap();
    let request = Request::get(target).header("host", host).header("x-request-id", id).body(()).unwrap();
    let record = test.begin_with(&request, true);
    assert!(!buffer.is_unique(), "the request is made of it");
    drop(request);
    assert!(buffer.is_unique());
    drop(record);
    let line: serde_json::Value = serde_json::from_str(&test.lines.text()).unwrap();
    let shown = [&line["path"], &line["host"], &line["request_id"]];
    assert_eq!(shown, ["/a", "example.com", "from-a-peer"]);
}

#[test]
fn a_record_moves_cheaply() {
    assert!(size_of::<Record>() <= 384, "{}", size_of::<Record>());
}

/// Of a record whose requests are all sampled: the names of the spans that it left, and how long each took in milliseconds.
fn spans(queue: &mut crate::traces::Queue) -> Vec<(String, u64)> {
    let spans = queue.try_recv().unwrap_or_default();
    let long = |span: &crate::traces::otlp::Span| (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000;
    spans.iter().map(|span| (span.name.clone(), long(span))).collect()
}

/// Fails where a step that did not take place has a span, or one that did has none.
#[tokio::test(start_paused = true)]
async fn a_sampled_request_leaves_a_span_for_each_step_that_took_place() {
    let mut test = Test::new(Access::Off, Identity::None);
    let counts = test.recorder.metrics.control().common();
    let (tracer, mut queue) = Tracer::new(1.0, "", Duration::ZERO, Arc::clone(&counts));
    Arc::get_mut(&mut test.recorder).unwrap().tracer = Some(tracer);
    let named = |all: &[(&str, u64)]| all.iter().map(|(name, long)| ((*name).to_owned(), *long)).collect::<Vec<_>>();
    let step = |millis| tokio::time::advance(Duration::from_millis(millis));

    let mut whole = test.begin();
    step(2).await;
    whole.verdict(Verdict::Valid);
    whole.waits_for_tokens();
    step(250).await;
    whole.looked_up(Lookup::Mint);
    for wait in [20, 30] {
        whole.upstream_begins(UpstreamId::new(0));
        step(wait).await;
    }
    whole.responds(outcome(OK, 200));
    step(100).await;
    whole.body_ends(BodyEnd::Complete, Instant::now());
    drop(whole);
    let expected = [("GET graphql", 402), ("session", 2), ("token", 250), ("upstream", 50)];
    assert_eq!(spans(&mut queue), named(&expected));

    let mut refused = test.begin();
    refused.verdict(Verdict::Missing);
    refused.responds(outcome(INVALID, 401));
    drop(refused);
    assert_eq!(spans(&mut queue), named(&[("GET graphql", 0), ("session", 0)]));

    let mut public = test.begin();
    public.upstream_begins(UpstreamId::new(0));
    step(7).await;
    drop(public);
    assert_eq!(spans(&mut queue), named(&[("GET graphql", 7), ("upstream", 7)]), "the caller went away");

    let mut waiting = test.begin();
    waiting.verdict(Verdict::Valid);
    waiting.waits_for_tokens();
    step(9).await;
    drop(waiting);
    assert_eq!(spans(&mut queue), named(&[("GET graphql", 9), ("session", 0), ("token", 9)]));
    assert_eq!(counts.spans_dropped.get(), 0);
}

/// Fails where a span shows more than a line does.
#[tokio::test(start_paused = true)]
async fn no_secret_and_nothing_of_a_query_reaches_a_span() {
    let mut test = Test::new(Access::Off, Identity::Hash);
    let counts = test.recorder.metrics.control().common();
    let (tracer, mut queue) = Tracer::new(1.0, "", Duration::ZERO, counts);
    Arc::get_mut(&mut test.recorder).unwrap().tracer = Some(tracer);
    let mut record = test.begin();
    record.caller(Arc::new(ALICE));
    record.responds(outcome(OK, 200));
    drop(record);
    let printed = format!("{:?}", queue.try_recv().unwrap());
    assert!(printed.contains("/v1/graphql") && printed.contains("mintgate.sid"), "{printed}");
    assert!(!printed.contains("canary"), "{printed}");
}
