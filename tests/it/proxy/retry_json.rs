//! `retry_rejected` with `json`: a refusal that stands in an answer's body, and answers that only look like one.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use tokio::sync::Notify;

use super::retry::with_an_old_token;
use super::{get, in_front_of};
use crate::support::gateway::Gateway;
use crate::support::http2::{self, with_trailers};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Message;

/// As for Hasura. A connection outlives the time that makes a token old.
const RETRYING: &str = r#"
[upstreams.up]
url = "{up}"
pool = { idle_timeout = "60s" }

[[routes]]
name = "all"
upstream = "up"
inject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura" }]

[routes.retry_rejected]
statuses = [200, 400, 401]
json = { pointer = "/errors/0/extensions/code", equals = ["invalid-jwt"] }
max_body = "1KiB"
"#;

const JSON: &str = "content-type: application/json\r\n";

const REFUSED: &str = r#"{"errors":[{"extensions":{"path":"$","code":"invalid-jwt"},"message":"JWTExpired"}]}"#;

/// An answer with a known length.
fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// An answer in pieces.
fn chunked(fields: &str, pieces: &[&str], end: &str) -> String {
    let chunk = |piece: &&str| format!("{:x}\r\n{piece}\r\n", piece.len());
    let chunks: String = pieces.iter().map(chunk).collect();
    // Only trailers that are announced are passed on (RFC 9110 section 6.6.2).
    let fields = if end.contains("x-sum") { format!("{fields}trailer: x-sum\r\n") } else { fields.to_owned() };
    format!("HTTP/1.1 200 OK\r\n{fields}transfer-encoding: chunked\r\n\r\n{chunks}{end}")
}

/// Gives this answer to the token that comes first, whoever brings it, and to others where `all` says so.
async fn refusing(refusal: impl Into<String>, all: bool) -> Upstream {
    let (first, refusal) = (Arc::<Mutex<Option<String>>>::default(), refusal.into());
    Upstream::scripted(move |mut visit| {
        let (first, refusal) = (Arc::clone(&first), refusal.clone());
        async move {
            while let Some(request) = visit.request().await {
                let token = request.one("authorization").unwrap_or_default().to_owned();
                let refused = *first.lock().unwrap().get_or_insert_with(|| token.clone()) == token || all;
                // A first request that only fetches the token is let through.
                if !refused || request.start.starts_with("GET /first ") {
                    visit.wire.send(OK).await;
                    continue;
                }
                // One byte after the other, where there are not too many.
                for bytes in refusal.as_bytes().chunks(refusal.len() / 512 + 1) {
                    visit.wire.send(bytes).await;
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await
}

/// How an answer is framed, and what is in it.
fn shown(answer: &Message) -> (u16, [Option<&str>; 2], &str) {
    let framing = [answer.one("content-length"), answer.one("transfer-encoding")];
    (answer.status(), framing, answer.text())
}

/// Fails without the look at the body.
#[tokio::test]
async fn a_body_that_says_that_the_token_was_refused_is_seen_by_nobody() {
    let halves = REFUSED.split_at(40);
    let post = "POST /v1/graphql HTTP/1.1\r\nHost: a\r\n{}Content-Length: 5\r\n\r\nhello";
    for (refusal, request) in [
        (answer("200 OK", JSON, REFUSED), post),
        (answer("200 OK", JSON, REFUSED), "GET /x?y HTTP/1.1\r\nHost: a\r\n{}\r\n"),
        (answer("400 Bad Request", "content-type: application/json; charset=utf-8\r\n", REFUSED), post),
        (answer("401 Unauthorized", "content-type: application/graphql-response+json\r\n", REFUSED), post),
        (answer("200 OK", &format!("{JSON}content-encoding: identity\r\n"), REFUSED), post),
        (chunked(JSON, &[halves.0, halves.1], "0\r\n\r\n"), post),
        (chunked(JSON, &[REFUSED], "0\r\nx-sum: 1\r\n\r\n"), post),
        // As long as it may be.
        (answer("200 OK", JSON, &format!("{REFUSED:1024}")), post),
    ] {
        let (gateway, upstream) = in_front_of(refusing(&*refusal, false).await, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        let answer = client.ask(request.replace("{}", &gateway.bearer("alice"))).await;
        assert_eq!((answer.outcome(), answer.text()), ((200, ""), "ok"), "{refusal}");
        let tokens: Vec<_> =
            upstream.requests().iter().map(|own| own.one("authorization").unwrap().to_owned()).collect();
        assert_eq!((tokens.len(), gateway.mints()), (3, 2), "{refusal}");
        assert!(tokens[0] == tokens[1] && tokens[1] != tokens[2], "the old one once, and the new one once");
        let requests = upstream.requests();
        assert_eq!((&requests[1].start, &requests[1].body), (&requests[2].start, &requests[2].body));
        assert_eq!(upstream.connections(), 1, "its connection serves again");
        // And the new one is the one in memory.
        assert_eq!(client.ask(get("/y", &gateway.bearer("alice"))).await.text(), "ok");
        assert_eq!((gateway.mints(), upstream.count()), (2, 4));
    }
}

/// Fails where the second answer is looked at as well, or what was read for nothing is lost.
#[tokio::test]
async fn the_second_refusal_in_a_body_is_the_answer() {
    let (gateway, upstream) = in_front_of(refusing(answer("200 OK", JSON, REFUSED), true).await, RETRYING).await;
    let mut client = with_an_old_token(&gateway).await;
    // The first of them with a new token; that one is young then.
    for (mints, count) in [(2, 3), (2, 4)] {
        let answer = client.ask(get("/", &gateway.bearer("alice"))).await;
        let length = REFUSED.len().to_string();
        assert_eq!(shown(&answer), (200, [Some(&*length), None], REFUSED));
        assert_eq!((gateway.mints(), upstream.count()), (mints, count));
    }
}

/// Fails for each condition that is taken out, and where a byte of what was read is lost or said twice.
#[tokio::test]
async fn what_is_no_refusal_passes_as_it_is() {
    let long = format!("{REFUSED:1025}");
    let rows = format!("{{\"data\":[{}1]}}", "1,".repeat(100_000));
    let (sum, trailer) = ("0\r\nx-sum: 1\r\n\r\n", vec![("x-sum".to_owned(), "1".to_owned())]);
    let json = |body: &str| answer("200 OK", JSON, body);
    for refusal in [
        json(r#"{"data":{"notes":[{"id":1}]}}"#),
        json(r#"{"errors":[{"extensions":{"code":"validation-failed"}}]}"#),
        json(&REFUSED.replacen("\"errors\"", "\"errors\":[],\"errors\"", 1)),
        json(&REFUSED[1..]),
        json(&format!("{REFUSED}x")),
        json(""),
        json(&long),
        json(&rows),
        answer("403 Forbidden", JSON, REFUSED),
        answer("201 Created", JSON, REFUSED),
        answer("200 OK", "content-type: text/plain\r\n", REFUSED),
        answer("200 OK", "content-type: text/event-stream\r\n", REFUSED),
        answer("200 OK", "", REFUSED),
        answer("401 Unauthorized", "", "who are you"),
        answer("200 OK", &format!("{JSON}content-encoding: gzip\r\n"), REFUSED),
        chunked(JSON, &[&REFUSED[..50], &REFUSED[51..]], "0\r\n\r\n"),
        chunked(JSON, &[&REFUSED[..50], "x"], sum),
        chunked(JSON, &[], "0\r\n\r\n"),
        chunked(JSON, &[], sum),
        chunked(JSON, &[&long[..1000], &long[1000..]], "0\r\n\r\n"),
        chunked(JSON, &[&rows[..1000], &rows[1000..]], sum),
        chunked("content-type: text/plain\r\n", &[REFUSED], sum),
    ] {
        let (gateway, upstream) = in_front_of(refusing(&*refusal, false).await, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        let sent = with_te(&get("/", &gateway.bearer("alice")));
        let answer = client.ask(sent).await;
        let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
        let body = if head.contains("chunked") { chunks(body) } else { body.to_owned() };
        assert_eq!(answer.text(), body, "{head}");
        assert!(head.contains(&format!(" {} ", answer.status())), "{head}");
        let trailers = if refusal.ends_with(sum) { &trailer[..] } else { &[] };
        assert_eq!(answer.trailers, trailers, "{head}");
        if let Some(length) = answer.one("content-length") {
            assert_eq!(length, body.len().to_string());
        }
        assert_eq!((gateway.mints(), upstream.count()), (1, 2), "{head}");
        // And the connection to the upstream goes on.
        assert_eq!(client.ask(get("/first", &gateway.bearer("alice"))).await.text(), "ok");
        // One whose trailers stream on does not, however it is read.
        if trailers.is_empty() {
            assert_eq!(upstream.connections(), 1, "{head}");
        }
    }
}

fn with_te(request: &str) -> String {
    request.replacen("\r\n", "\r\nTE: trailers\r\n", 1)
}

/// What is in the chunks.
fn chunks(mut body: &str) -> String {
    let mut all = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        all.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    all
}

#[tokio::test]
async fn an_answer_without_a_body_says_nothing() {
    for (method, refusal) in [
        ("HEAD", format!("HTTP/1.1 200 OK\r\n{JSON}content-length: {}\r\n\r\n", REFUSED.len())),
        ("GET", format!("HTTP/1.1 200 OK\r\n{JSON}content-length: 0\r\n\r\n")),
    ] {
        let (gateway, upstream) = in_front_of(refusing(&*refusal, false).await, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        client.send(get("/", &gateway.bearer("alice")).replacen("GET", method, 1)).await;
        let answer = client.response_to(method).await.unwrap();
        assert_eq!((answer.status(), answer.one("content-type")), (200, Some("application/json")));
        assert!(refusal.contains(&format!("content-length: {}\r\n", answer.one("content-length").unwrap())));
        assert_eq!((gateway.mints(), upstream.count()), (1, 2), "{method}");
    }
}

/// An upstream that goes on only when it is told that the caller has what came before.
async fn in_two_parts(head: &'static str, first: &'static str, rest: &'static str) -> (Upstream, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let goes = Arc::clone(&go);
    let upstream = Upstream::scripted(move |mut visit| {
        let goes = Arc::clone(&goes);
        async move {
            while let Some(request) = visit.request().await {
                if request.start.starts_with("GET /first ") {
                    visit.wire.send(OK).await;
                    continue;
                }
                visit.wire.send(format!("HTTP/1.1 200 OK\r\n{head}content-length: 11\r\n\r\n{first}")).await;
                goes.notified().await;
                visit.wire.send(rest).await;
            }
        }
    });
    (upstream.await, go)
}

/// Fails without the time that an answer is held: the caller waits for what only comes after it.
#[tokio::test]
async fn an_answer_that_comes_slowly_is_not_held_back() {
    for head in
        [JSON, "content-type: text/event-stream\r\n", "content-encoding: gzip\r\ncontent-type: application/json\r\n"]
    {
        let (upstream, go) = in_two_parts(head, "{\"a\":", "\"bcd\"}").await;
        let (gateway, upstream) = in_front_of(upstream, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        client.send(get("/", &gateway.bearer("alice"))).await;
        assert_eq!(client.response_head().await.unwrap().one("content-length"), Some("11"));
        assert_eq!(client.take(5).await.unwrap(), b"{\"a\":");
        go.notify_one();
        assert_eq!(client.take(6).await.unwrap(), b"\"bcd\"}");
        assert_eq!((gateway.mints(), upstream.count()), (1, 2));
        assert_eq!(client.ask(get("/first", &gateway.bearer("alice"))).await.text(), "ok");
    }
}

/// Fails where a body that ended early is taken for a whole one, or the bytes before its end are lost.
#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_caller_too() {
    for (refusal, got) in [
        (format!("HTTP/1.1 200 OK\r\n{JSON}content-length: {}\r\n\r\n{REFUSED}", REFUSED.len() + 1), REFUSED.len()),
        (format!("HTTP/1.1 200 OK\r\n{JSON}transfer-encoding: chunked\r\n\r\n5\r\n{{\"a\":\r\n"), 5),
    ] {
        let upstream = Upstream::scripted(move |mut visit| {
            let refusal = refusal.clone();
            async move {
                while let Some(request) = visit.request().await {
                    if request.start.starts_with("GET /first ") {
                        visit.wire.send(OK).await;
                    } else {
                        visit.wire.send(&refusal).await;
                        return;
                    }
                }
            }
        })
        .await;
        let (gateway, upstream) = in_front_of(upstream, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        client.send(get("/", &gateway.bearer("alice"))).await;
        let head = client.response_head().await.unwrap();
        assert_eq!(head.outcome(), (200, ""));
        if head.one("content-length").is_some() {
            assert_eq!(client.take(got).await.unwrap(), REFUSED.as_bytes());
            assert!(client.take(1).await.unwrap_err().is_cut());
        } else {
            assert_eq!(client.chunk().await.unwrap().len(), got);
            assert!(client.chunk().await.unwrap_err().is_cut());
        }
        assert_eq!((gateway.mints(), upstream.count()), (1, 2));
    }
}

/// Fails where the answer is read although its request cannot be sent again, which takes time and memory for nothing; and
/// where it is lost then.
#[tokio::test]
async fn a_request_that_was_not_kept_gets_the_refusal_in_its_body() {
    let long = "a".repeat(1025);
    for request in [
        format!("Content-Length: 1025\r\n\r\n{long}"),
        format!("Transfer-Encoding: chunked\r\n\r\n401\r\n{long}\r\n0\r\n\r\n"),
    ] {
        let (gateway, upstream) = in_front_of(refusing(answer("200 OK", JSON, REFUSED), false).await, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        let answer = client.ask(format!("POST / HTTP/1.1\r\nHost: a\r\n{}{request}", gateway.bearer("alice"))).await;
        assert_eq!((answer.outcome(), answer.text()), ((200, ""), REFUSED));
        assert_eq!((gateway.mints(), upstream.count()), (1, 2));
    }
}

/// On one connection on each side; the trailers of a refusal that passes are kept.
#[tokio::test]
async fn a_refusal_in_a_body_on_http2() {
    for (kind, mints) in [("application/json", 2), ("application/grpc+json", 1)] {
        let answers = Arc::new(Mutex::new(0));
        let upstream = http2::Upstream::answering(move || {
            let mut count = answers.lock().unwrap();
            *count += 1;
            let body = if *count == 2 { REFUSED } else { "{\"data\":1}" };
            Response::builder().header("content-type", kind).body(with_trailers(body, &[("x-end", "1")])).unwrap()
        })
        .await;
        let tables = RETRYING.replace("{up}", &upstream.url()).replace("pool =", "http2 = true\npool =");
        let gateway = Gateway::start(tables).await;
        with_an_old_token(&gateway).await;
        let mut client = http2::Client::connect(gateway.address).await;
        let request = Request::builder()
            .method(Method::POST)
            .uri("http://gateway.test/x")
            .header("authorization", format!("Bearer {}", gateway.session_token("alice")))
            .body(with_trailers("hello", &[("x-sum", "5")]))
            .unwrap();
        let answer = client.ask(request).await;
        let expected = if mints == 2 { "{\"data\":1}" } else { REFUSED };
        assert_eq!((answer.outcome(), &*answer.body), ((200, ""), expected.as_bytes()));
        assert_eq!(answer.trailers["x-end"], "1");
        let last = upstream.last();
        assert_eq!((&*last.body, &last.trailers["x-sum"]), (&b"hello"[..], &"5".parse().unwrap()));
        assert_eq!((gateway.mints(), upstream.connections()), (mints, 1));
    }
}
