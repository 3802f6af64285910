//! `retry_rejected`: a refused token is replaced, and its request sent once more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request, Response};
use mintgate::lifecycle::Spawner;

use super::{get, in_front_of};
use crate::support::gateway::{Boot, Gateway};
use crate::support::http2::{self, with_trailers};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::{Message, Wire};

/// A connection outlives the time that makes a token old.
const RETRYING: &str = r#"
[upstreams.up]
url = "{up}"
pool = { idle_timeout = "60s" }

[[routes]]
name = "all"
upstream = "up"
retry_rejected = { statuses = [401], max_body = "1KiB" }
inject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura" }]
"#;

const REFUSAL: &str = "HTTP/1.1 401 Unauthorized\r\nx-from: upstream\r\ncontent-length: 3\r\n\r\nbad";

/// Refuses the token that comes first, whoever brings it.
async fn refusing(refusal: impl Into<String>) -> Upstream {
    let (first, refusal) = (Arc::<Mutex<Option<String>>>::default(), refusal.into());
    Upstream::scripted(move |mut visit| {
        let (first, refusal) = (Arc::clone(&first), refusal.clone());
        async move {
            while let Some(request) = visit.request().await {
                let token = request.one("authorization").unwrap_or_default().to_owned();
                let refused = *first.lock().unwrap().get_or_insert_with(|| token.clone()) == token;
                // A first request that only fetches the token is let through.
                let refused = refused && !request.start.starts_with("GET /first ");
                visit.wire.send(if refused { &refusal } else { OK }).await;
            }
        }
    })
    .await
}

/// Has a token minted and lets it grow old enough to be at fault.
pub(super) async fn with_an_old_token(gateway: &Gateway) -> Wire {
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/first", &gateway.bearer("alice"))).await.outcome(), (200, ""));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    client
}

/// The bytes of a request without the token in it, and the token.
fn apart(request: &Message) -> (String, String) {
    let raw = String::from_utf8(request.raw.clone()).unwrap();
    let token = request.one("authorization").unwrap().to_owned();
    // Each sending is told its own time of nothing else.
    (raw.replace(&token, "TOKEN"), token)
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_the_request_sent_once_more() {
    for request in [
        "GET /x?y HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "DELETE /x HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\n{}Content-Length: 0\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\n{}Content-Length: 5\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nHost: a\r\n{}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\n{}TE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
    ] {
        let (gateway, upstream) = in_front_of(refusing(REFUSAL).await, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        let answer = client.ask(request.replace("{}", &gateway.bearer("alice"))).await;
        assert_eq!((answer.outcome(), answer.text()), ((200, ""), "ok"), "{request}");
        let requests = upstream.requests();
        assert_eq!(requests.len(), 3, "{request}");
        let ((first, old), (second, new)) = (apart(&requests[1]), apart(&requests[2]));
        assert_eq!(first, second, "the same bytes once more");
        assert!(old != new && old == requests[0].one("authorization").unwrap());
        assert_eq!((gateway.mints(), upstream.connections()), (2, 1), "{request}");
        // And the new one is the one in memory.
        assert_eq!(client.ask(get("/y", &gateway.bearer("alice"))).await.status(), 200);
        assert_eq!((gateway.mints(), upstream.last().one("authorization")), (2, Some(&*new)));
    }
}

#[tokio::test]
async fn a_young_token_is_not_at_fault() {
    let (gateway, upstream) = in_front_of(refusing(REFUSAL).await, RETRYING).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..3 {
        let answer = client.ask(get("/", &gateway.bearer("alice"))).await;
        assert_eq!((answer.outcome(), answer.one("x-from"), answer.text()), ((401, ""), Some("upstream"), "bad"));
    }
    assert_eq!((gateway.mints(), upstream.count()), (1, 3));
}

#[tokio::test]
async fn fifty_requests_with_one_dead_token_are_one_forced_mint() {
    let (gateway, upstream) = in_front_of(refusing(REFUSAL).await, RETRYING).await;
    with_an_old_token(&gateway).await;
    let gateway = Arc::new(gateway);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            Spawner::current().spawn(async move {
                let mut client = Wire::connect(gateway.address).await;
                client.ask(get("/", &gateway.bearer("alice"))).await.status()
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(gateway.mints(), 2);
    assert!(upstream.count() > 51, "some were sent twice");
}

/// Case 25: 256 bodies of the greatest length are kept at one time, and not one for each caller that there may be. What
/// was kept is let go with its request. Fails where `tee::Room` is asked by nobody, or is given nothing back.
#[tokio::test]
async fn bodies_that_are_kept_have_a_bound_together() {
    const CALLERS: usize = 320;
    const KEPT: usize = 256;
    let (waiting, all) = tokio::sync::watch::channel(0_usize);
    let (waiting, dead) = (Arc::new(waiting), Arc::<Mutex<Vec<String>>>::default());
    let upstream = Upstream::scripted(move |mut visit| {
        let (waiting, mut all, dead) = (Arc::clone(&waiting), all.clone(), Arc::clone(&dead));
        async move {
            while let Some(request) = visit.request().await {
                let token = request.one("authorization").unwrap().to_owned();
                if request.start.starts_with("GET /first ") {
                    dead.lock().unwrap().push(token);
                } else if dead.lock().unwrap().contains(&token) {
                    // All of them are under way before one is refused.
                    waiting.send_modify(|count| *count += 1);
                    let round = waiting.borrow().div_ceil(CALLERS);
                    let _ = all.wait_for(|count| *count >= round * CALLERS).await;
                    visit.wire.send(REFUSAL).await;
                    continue;
                }
                visit.wire.send(OK).await;
            }
        }
    })
    .await;
    let (gateway, _upstream) = in_front_of(upstream, RETRYING).await;
    let (gateway, body) = (Arc::new(gateway), "a".repeat(1024));
    for round in 0..2 {
        with_an_old_token(&gateway).await;
        let tasks: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (gateway, body) = (Arc::clone(&gateway), body.clone());
                Spawner::current().spawn(async move {
                    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{}", gateway.bearer("alice"));
                    let mut client = Wire::connect(gateway.address).await;
                    client.ask(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await.status()
                })
            })
            .collect();
        let mut served = 0;
        for task in tasks {
            let status = task.await.unwrap();
            assert!(matches!(status, 200 | 401), "{status}");
            served += usize::from(status == 200);
        }
        assert_eq!(served, KEPT, "round {round}");
    }
}

#[tokio::test]
async fn only_the_named_statuses_and_only_once() {
    let forbidden = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    let (gateway, upstream) = in_front_of(refusing(forbidden).await, RETRYING).await;
    let mut client = with_an_old_token(&gateway).await;
    assert_eq!(client.ask(get("/", &gateway.bearer("alice"))).await.outcome(), (403, ""));
    assert_eq!((gateway.mints(), upstream.count()), (1, 2));

    // Whatever token comes: the second refusal is the answer.
    let upstream = Upstream::scripted(|mut visit| async move {
        while let Some(request) = visit.request().await {
            visit.wire.send(if request.start.starts_with("GET /first ") { OK } else { REFUSAL }).await;
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, RETRYING).await;
    let mut client = with_an_old_token(&gateway).await;
    for (mints, count) in [(2, 3), (2, 4)] {
        let answer = client.ask(get("/", &gateway.bearer("alice"))).await;
        assert_eq!((answer.outcome(), answer.text()), ((401, ""), "bad"));
        assert_eq!((gateway.mints(), upstream.count()), (mints, count), "the new one is young");
    }
}

#[tokio::test]
async fn a_body_beyond_the_cap_lets_the_refusal_pass() {
    let long = "a".repeat(1025);
    for (request, end) in [
        (format!("Content-Length: 1025\r\n\r\n{long}"), false),
        (format!("Transfer-Encoding: chunked\r\n\r\n401\r\n{long}\r\n0\r\n\r\n"), false),
        (format!("Content-Length: 1024\r\n\r\n{}", &long[1..]), true),
    ] {
        let (gateway, upstream) = in_front_of(refusing(REFUSAL).await, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        let answer = client.ask(format!("POST / HTTP/1.1\r\nHost: a\r\n{}{request}", gateway.bearer("alice"))).await;
        assert_eq!(answer.status() == 200, end);
        assert_eq!((gateway.mints(), upstream.count()), if end { (2, 3) } else { (1, 2) });
    }
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_body_is_followed_by_the_whole_body() {
    let upstream = Upstream::scripted(|mut visit| async move {
        if visit.number == 0 {
            visit.request().await;
            visit.wire.send(OK).await;
            // The second request's head is enough for a refusal.
            visit.wire.response_head().await.unwrap_err();
            visit.wire.send(REFUSAL).await;
            visit.wire.until_closed().await;
        } else if visit.request().await.is_some() {
            visit.wire.send(OK).await;
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, RETRYING).await;
    let mut client = with_an_old_token(&gateway).await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{}Content-Length: 6\r\n\r\nabc", gateway.bearer("alice"))).await;
    crate::support::eventually("it is sent again", || upstream.connections() == 2).await;
    client.send("def").await;
    assert_eq!(client.response().await.outcome(), (200, ""));
    let again = upstream.last();
    assert_eq!((again.text(), again.one("content-length")), ("abcdef", Some("6")));
}

/// An upstream that waits for the rest of a body that it has refused would keep the connection, for each retry one more.
#[tokio::test]
async fn the_refused_connection_ends_although_the_body_is_still_coming() {
    let ended = Arc::<AtomicBool>::default();
    let tells = Arc::clone(&ended);
    let upstream = Upstream::scripted(move |mut visit| {
        let tells = Arc::clone(&tells);
        async move {
            if visit.number == 0 {
                visit.request().await;
                visit.wire.send(OK).await;
                visit.wire.response_head().await.unwrap_err();
                visit.wire.send(REFUSAL).await;
                visit.wire.until_closed().await;
                tells.store(true, Ordering::Relaxed);
            } else {
                visit.request().await;
            }
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, RETRYING).await;
    let mut client = with_an_old_token(&gateway).await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{}Content-Length: 6\r\n\r\nabc", gateway.bearer("alice"))).await;
    crate::support::eventually("it is sent again", || upstream.connections() == 2).await;
    crate::support::eventually("the first connection ends", || ended.load(Ordering::Relaxed)).await;
}

/// What was taken back for the second sending must not look whole on the first connection: that upstream would do half of
/// what was asked. Fails when a tee whose body was taken says that it is over.
#[tokio::test]
async fn the_refused_connection_gets_no_end_of_a_body_that_was_taken_back() {
    let rest = Arc::<Mutex<Option<Vec<u8>>>>::default();
    let tells = Arc::clone(&rest);
    let upstream = Upstream::scripted(move |mut visit| {
        let tells = Arc::clone(&tells);
        async move {
            visit.request().await;
            if visit.number == 0 {
                visit.wire.send(OK).await;
                visit.wire.response_head().await.unwrap_err();
                visit.wire.send(REFUSAL).await;
                let rest = visit.wire.until_closed().await;
                *tells.lock().unwrap() = Some(rest);
            }
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, RETRYING).await;
    let mut client = with_an_old_token(&gateway).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{}Transfer-Encoding: chunked", gateway.bearer("alice"));
    client.send(format!("{head}\r\n\r\n3\r\nabc\r\n")).await;
    crate::support::eventually("it is sent again", || upstream.connections() == 2).await;
    crate::support::eventually("the first connection ends", || rest.lock().unwrap().is_some()).await;
    let rest = rest.lock().unwrap().take().unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
}

/// A body that breaks off while the forced mint is under way is not sent again as if it were whole. Fails when
/// `Tee::take` gives a body that has failed.
#[tokio::test]
async fn a_body_that_breaks_off_during_the_forced_mint_is_not_sent_again() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let issuer = minting(move |number| {
        let mut gone = gone.clone();
        async move {
            if number > 1 {
                let _ = gone.wait_for(|gone| *gone).await;
            }
            String::new()
        }
    })
    .await;
    let broken = Arc::<AtomicBool>::default();
    let tells = Arc::clone(&broken);
    let upstream = Upstream::scripted(move |mut visit| {
        let tells = Arc::clone(&tells);
        async move {
            visit.request().await;
            visit.wire.send(OK).await;
            if visit.number == 0 {
                visit.wire.response_head().await.unwrap_err();
                visit.wire.send(REFUSAL).await;
                visit.wire.until_closed().await;
                tells.store(true, Ordering::Relaxed);
            }
        }
    })
    .await;
    let gateway = Boot::new(RETRYING.replace("{up}", &upstream.url())).issuer(issuer.address).start().await;
    let mut client = with_an_old_token(&gateway).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{}Transfer-Encoding: chunked", gateway.bearer("alice"));
    client.send(format!("{head}\r\n\r\n3\r\nabc\r\n")).await;
    let minted = || issuer.requests().iter().filter(|request| request.start.starts_with("POST ")).count();
    crate::support::eventually("another token is asked for", || minted() == 2).await;
    client.send("no chunk\r\n").await;
    crate::support::eventually("the body is given up", || broken.load(Ordering::Relaxed)).await;
    go.send(true).unwrap();
    client.until_closed().await;
    assert_eq!(upstream.connections(), 1);
}

/// A refusal that is too long, or too slow, to be read away costs its connection. Fails for the first without `DRAINED`,
/// for the second without `DRAINING`.
#[tokio::test]
async fn a_refusal_without_end_is_not_read_to_its_end() {
    for body in ["x".repeat(200_000), "slow".to_owned()] {
        let long = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: 200000\r\n\r\n{body}");
        let (gateway, upstream) = in_front_of(refusing(long).await, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        assert_eq!(client.ask(get("/", &gateway.bearer("alice"))).await.outcome(), (200, ""));
        assert_eq!((upstream.count(), upstream.connections()), (3, 2));
    }
}

/// Fails without the route's end in `retry::values`: the mint alone has more time.
#[tokio::test]
async fn no_forced_mint_outlasts_the_time_of_the_route() {
    let issuer = minting(|number| async move {
        if number > 1 {
            std::future::pending::<()>().await;
        }
        String::new()
    })
    .await;
    let upstream = refusing(REFUSAL).await;
    let tables = RETRYING.replace("{up}", &upstream.url()).replace("retry_", "timeout = \"1s\"\nretry_");
    let gateway = Boot::new(tables).issuer(issuer.address).clerk("timeout = \"10m\"").start().await;
    let mut client = with_an_old_token(&gateway).await;
    client.send(get("/", &gateway.bearer("alice"))).await;
    assert_eq!(client.response_head().await.unwrap().status(), 401);
    assert_eq!(upstream.count(), 2);
}

/// Fails when `again` does not look at the upstream's `max_header_bytes`.
#[tokio::test]
async fn a_replacement_that_is_too_long_for_the_upstream_lets_the_refusal_pass() {
    let issuer = minting(|number| async move { "x".repeat(if number > 1 { 4096 } else { 0 }) }).await;
    let upstream = refusing(REFUSAL).await;
    let tables = RETRYING.replace("{up}", &upstream.url()).replace("pool =", "max_header_bytes = \"4KiB\"\npool =");
    let gateway = Boot::new(tables).issuer(issuer.address).start().await;
    let mut client = with_an_old_token(&gateway).await;
    let answer = client.ask(get("/", &gateway.bearer("alice"))).await;
    assert_eq!((answer.outcome(), answer.text()), ((401, ""), "bad"));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn http2_on_both_sides_with_trailers() {
    let answers = Arc::new(Mutex::new(0));
    let upstream = http2::Upstream::answering(move || {
        let mut count = answers.lock().unwrap();
        *count += 1;
        let status = if *count == 2 { 401 } else { 200 };
        Response::builder().status(status).body(with_trailers("answer", &[("x-end", "1")])).unwrap()
    })
    .await;
    let tables = RETRYING.replace("{up}", &upstream.url()).replace(
        "pool =",
        "http2 = true
pool =",
    );
    let gateway = Gateway::start(tables).await;
    with_an_old_token(&gateway).await;
    let mut client = http2::Client::connect(gateway.address).await;
    let request = || {
        Request::builder()
            .method(Method::POST)
            .uri("http://gateway.test/x")
            .header("authorization", format!("Bearer {}", gateway.session_token("alice")))
            .body(with_trailers("hello", &[("x-sum", "5")]))
            .unwrap()
    };
    let answer = client.ask(request()).await;
    assert_eq!(
        (answer.outcome(), &*answer.body, &answer.trailers["x-end"]),
        ((200, ""), &b"answer"[..], &"1".parse().unwrap())
    );
    let (second, first) = (upstream.last(), upstream.last());
    assert_eq!((&*first.body, &*second.body), (&b"hello"[..], &b"hello"[..]));
    assert_eq!((&first.trailers, first.head.uri), (&second.trailers, second.head.uri));
    assert_eq!(second.trailers["x-sum"], "5");
    assert_ne!(first.head.headers["authorization"], second.head.headers["authorization"]);
    assert_eq!((gateway.mints(), upstream.connections()), (2, 1), "one connection, both times");
}

/// A token of an issuer that nobody else knows, good for an hour.
fn token(gateway_now: i64, number: usize) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let payload = format!(r#"{{"iat":{gateway_now},"exp":{},"number":{number}}}"#, gateway_now + 3600);
    format!("{}.{}.sig", part(r#"{"alg":"HS256"}"#.to_owned()), part(payload))
}

/// An issuer that mints them, counted from 1, each with so much more in it as `pad` says.
async fn minting<F: Future<Output = String> + Send>(pad: impl Fn(usize) -> F + Send + Sync + 'static) -> Upstream {
    let (mints, pad) = (Arc::new(Mutex::new(0)), Arc::new(pad));
    Upstream::scripted(move |mut visit| {
        let (mints, pad) = (Arc::clone(&mints), Arc::clone(&pad));
        async move {
            while let Some(request) = visit.request().await {
                let number = {
                    let mut mints = mints.lock().unwrap();
                    *mints += usize::from(request.start.starts_with("POST "));
                    *mints
                };
                let pad = pad(number).await;
                let now = mintgate::clock::Clock::system().wall().as_seconds();
                let body = format!(r#"{{"jwt":"{}{pad}"}}"#, token(now, number));
                visit.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_forced_mint_is_marked_and_where_it_fails_the_refusal_passes_and_the_token_stays() {
    let mints = Arc::new(Mutex::new(0));
    let issuer = Upstream::scripted(move |mut visit| {
        let mints = Arc::clone(&mints);
        async move {
            while let Some(request) = visit.request().await {
                let number = {
                    let mut mints = mints.lock().unwrap();
                    *mints += usize::from(request.start.starts_with("POST "));
                    *mints
                };
                #[expect(clippy::disallowed_methods, reason = "the issuer's own clock")]
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                let answer = if number == 1 {
                    let body = format!(r#"{{"jwt":"{}"}}"#, token(i64::try_from(now).unwrap(), number));
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                } else {
                    "HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\n{}".to_owned()
                };
                visit.wire.send(answer).await;
            }
        }
    })
    .await;
    let upstream = refusing(REFUSAL).await;
    let gateway = Boot::new(RETRYING.replace("{up}", &upstream.url())).issuer(issuer.address).start().await;
    let mut client = with_an_old_token(&gateway).await;
    for _ in 0..2 {
        let answer = client.ask(get("/", &gateway.bearer("alice"))).await;
        assert_eq!((answer.outcome(), answer.text()), ((401, ""), "bad"));
    }
    let asked = issuer.requests();
    let minted = asked.iter().filter(|request| request.start.starts_with("POST "));
    let forced: Vec<_> = minted.map(|request| request.one("cache-control")).collect();
    assert_eq!(forced, [None, Some("no-cache")], "once in 10 s");
    let tokens: Vec<_> =
        upstream.requests().iter().map(|request| request.one("authorization").unwrap().to_owned()).collect();
    assert_eq!(tokens.len(), 3);
    assert!(tokens.iter().all(|token| *token == tokens[0]), "a failing issuer takes no token away");
}

#[tokio::test]
async fn what_was_not_minted_is_not_retried() {
    let tables = r#"
[[routes]]
name = "all"
upstream = "{up}"
retry_rejected = { statuses = [401] }
inject = [{ header = "authorization", prefix = "Bearer ", session_token = true }]
"#;
    let (gateway, upstream) = in_front_of(Upstream::answering(REFUSAL).await, tables).await;
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/", &gateway.bearer("alice"))).await.outcome(), (401, ""));
    assert_eq!((gateway.mints(), upstream.count()), (0, 1));
    // An upgrade is no exchange that could be repeated; a request that only offers another protocol is one.
    for (protocol, status, mints, count) in [("websocket", 401, 1, 2), ("h2c", 200, 2, 3)] {
        let (gateway, upstream) = in_front_of(refusing(REFUSAL).await, RETRYING).await;
        let mut client = with_an_old_token(&gateway).await;
        let upgrade = format!("{}Connection: upgrade\r\nUpgrade: {protocol}\r\n", gateway.bearer("alice"));
        assert_eq!(client.ask(get("/", &upgrade)).await.outcome(), (status, ""));
        assert_eq!((gateway.mints(), upstream.count()), (mints, count), "{protocol}");
    }
}

#[tokio::test]
async fn the_answer_to_a_retried_request_that_expects_a_100_is_the_second_one() {
    let (gateway, upstream) = in_front_of(refusing(REFUSAL).await, RETRYING).await;
    let mut client = with_an_old_token(&gateway).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\n{}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        gateway.bearer("alice")
    );
    client.send(head).await;
    assert_eq!(client.response_head().await.unwrap().status(), 100);
    client.send("abc").await;
    assert_eq!(client.response().await.outcome(), (200, ""));
    assert_eq!((upstream.last().text(), upstream.count()), ("abc", 3));
}
