//! What ages in a request that waits for a connection. With `max_connections = 1` one request is held at the upstream and
//! the next one waits behind it, until what it was given at the beginning is not to be sent any more.
//!
//! All of these fail without the second judgement, `renew` in `Waiting::lease`.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{get, in_front_of};
use crate::harness::claims;
use crate::support::eventually;
use crate::support::gateway::{Boot, Gateway};
use crate::support::issuer::Issuer;
use crate::support::upstream::{OK, Upstream};
use crate::support::websocket;
use crate::support::wire::{Message, Wire};

/// A token lives for 30 s, of which the last 5 are kept back.
const NARROW: &str = r#"
[upstreams.up]
url = "{up}"
response_timeout = "0"
pool = { max_connections = 1 }

[cache]
refresh_at = "off"

[[routes]]
name = "all"
upstream = "up"
"#;
const TOKEN: &str =
    r#"{ header = "authorization", prefix = "Bearer ", template = "custom_hasura", expires_in = "30s" }"#;
const OWN: &str = r#"{ header = "x-own", session_token = true }"#;

fn narrow(inject: &str, more: &str) -> String {
    format!("{NARROW}inject = [{inject}]\n{more}\n")
}

async fn send(gateway: &Gateway, request: String) -> Wire {
    let mut client = Wire::connect(gateway.address).await;
    client.send(request).await;
    client
}

/// Time goes by while a request that has its tokens waits. Where it does not wait yet, it gets them later and the test
/// tries nothing, but fails nobody.
async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// Seconds that are left of the token that reached the upstream.
fn left(gateway: &Gateway, request: &Message) -> i64 {
    claims(request.one("authorization").unwrap())["exp"].as_i64().unwrap() - gateway.clock.wall().as_seconds()
}

#[tokio::test]
async fn a_token_that_grows_old_in_the_line_for_a_connection_is_never_sent() {
    let (upstream, go) = Upstream::holding().await;
    let (gateway, upstream) = in_front_of(upstream, &narrow(TOKEN, "")).await;
    let mut first = send(&gateway, get("/", &gateway.bearer("alice"))).await;
    upstream.received(1).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(send(&gateway, get("/", &gateway.bearer("bob"))).await);
    }
    eventually("they have their token", || gateway.mints() == 2).await;
    wait(26).await;
    go.send(true).unwrap();
    assert_eq!(first.response().await.outcome(), (200, ""));
    for client in &mut others {
        assert_eq!(client.response().await.outcome(), (200, ""));
        assert!(left(&gateway, &upstream.last()) >= 5);
    }
    assert_eq!((upstream.count(), gateway.mints()), (4, 3), "one mint for all who waited");
}

#[tokio::test]
async fn a_token_that_is_still_good_after_the_wait_is_sent_as_it_is() {
    let (upstream, go) = Upstream::holding().await;
    let (gateway, upstream) = in_front_of(upstream, &narrow(TOKEN, "")).await;
    let mut clients = Vec::new();
    for user in ["alice", "bob"] {
        clients.push(send(&gateway, get("/", &gateway.bearer(user))).await);
        upstream.received(1).await;
    }
    eventually("both have their token", || gateway.mints() == 2).await;
    wait(20).await;
    go.send(true).unwrap();
    for client in &mut clients {
        assert_eq!(client.response().await.outcome(), (200, ""));
    }
    assert!(left(&gateway, &upstream.last()) <= 10);
    assert_eq!(gateway.mints(), 2);
}

/// A session token is nothing that could be minted: its header is absent then, as it is when it comes so late.
#[tokio::test]
async fn a_session_token_that_expires_in_the_line_is_not_sent() {
    for (own, outcome, count) in
        [(OWN.to_owned(), (200, ""), 2), (OWN.replace(" }", ", required = true }"), (502, "token-unfit"), 1)]
    {
        let (upstream, go) = Upstream::holding().await;
        let (gateway, upstream) = in_front_of(upstream, &narrow(&own, "")).await;
        let mut first = send(&gateway, get("/", &gateway.bearer("alice"))).await;
        upstream.received(1).await;
        assert!(upstream.last().one("x-own").is_some());
        let mut second = send(&gateway, get("/", &gateway.bearer("bob"))).await;
        wait(61).await;
        go.send(true).unwrap();
        assert_eq!(first.response().await.outcome(), (200, ""));
        assert_eq!(second.response().await.outcome(), outcome);
        assert_eq!(upstream.count(), count);
        assert_eq!(upstream.last().one("x-own").is_some(), count == 1, "{own}");
    }
}

#[tokio::test]
async fn a_route_that_gets_no_new_token_after_the_wait_does_as_on_mint_error_says() {
    for (rule, outcome, count) in [
        ("on_mint_error = \"fail\"", (502, "issuer-refused"), 1),
        ("on_mint_error = \"session\"", (502, "issuer-refused"), 1),
        ("on_mint_error = \"pass\"", (200, ""), 2),
    ] {
        let issuer = Issuer::minting(|number, _| {
            let exp = mintgate::clock::Clock::system().wall().as_seconds() + 30;
            if number == 2 { Err(400) } else { Ok(json!({ "exp": exp })) }
        });
        let (upstream, go) = Upstream::holding().await;
        let tables = narrow(TOKEN, rule).replace("{up}", &upstream.url());
        let gateway = Boot::new(tables).trusting(&issuer).start().await;
        let bearer = |sid: &str| get("/", &issuer.bearer(&json!({ "sid": sid })));
        let mut first = send(&gateway, bearer("sess_1")).await;
        upstream.received(1).await;
        let mut second = send(&gateway, bearer("sess_2")).await;
        eventually("it has its token", || issuer.asked().len() == 2).await;
        wait(26).await;
        go.send(true).unwrap();
        assert_eq!(first.response().await.outcome(), (200, ""));
        assert_eq!(second.response().await.outcome(), outcome, "{rule}");
        assert_eq!((upstream.count(), issuer.asked().len()), (count, 3), "{rule}");
        assert_eq!(upstream.last().one("authorization").is_some(), count == 1, "{rule}");
        // Its place in the line is free again.
        assert_eq!(send(&gateway, bearer("sess_3")).await.response().await.outcome(), (200, ""), "{rule}");
    }
}

#[tokio::test]
async fn a_token_that_grows_old_before_a_second_sending_is_not_sent_again() {
    let (dies, died) = watch::channel(false);
    let (go, gone) = watch::channel(false);
    let upstream = Upstream::scripted(move |mut visit| {
        let (mut died, mut gone) = (died.clone(), gone.clone());
        async move {
            while visit.request().await.is_some() {
                if visit.number == 0 {
                    died.wait_for(|died| *died).await.unwrap();
                    return;
                }
                gone.wait_for(|gone| *gone).await.unwrap();
                visit.wire.send(OK).await;
            }
        }
    });
    let (gateway, upstream) = in_front_of(upstream.await, &narrow(TOKEN, "")).await;
    let mut first = send(&gateway, get("/first", &gateway.bearer("alice"))).await;
    upstream.received(1).await;
    let mut second = send(&gateway, get("/second", &gateway.bearer("bob"))).await;
    eventually("it has its token", || gateway.mints() == 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The first one has lost its connection, and stands behind the second one.
    dies.send(true).unwrap();
    upstream.received(2).await;
    wait(26).await;
    go.send(true).unwrap();
    assert_eq!(second.response().await.outcome(), (200, ""));
    assert_eq!(first.response().await.outcome(), (200, ""));
    assert_eq!(upstream.count(), 3);
    assert!(left(&gateway, &upstream.last()) >= 5);
}

/// Fails also where the tunnel keeps the end of the token that died.
#[tokio::test]
async fn a_websocket_that_waited_lives_as_long_as_the_token_that_it_got() {
    let rule = "websocket = { close_at = \"token\" }";
    let (gateway, upstream) = in_front_of(websocket::echo().await, &narrow(TOKEN, rule)).await;
    let mut first = Wire::connect(gateway.address).await;
    first.open("/", &gateway.bearer("alice")).await;
    let mut second = send(&gateway, websocket::open("/", &gateway.bearer("bob"))).await;
    eventually("it has its token", || gateway.mints() == 2).await;
    wait(26).await;
    drop(first);
    assert_eq!(second.response_head().await.unwrap().status(), 101);
    assert!(left(&gateway, &upstream.last()) >= 5);
    tokio::time::pause();
    let began = Instant::now();
    second.wait().await;
    assert_eq!(second.closing().await.1, 4401);
    assert!((24..=31).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

/// Of several tokens each is judged: the one that is renewed first may not wait so long for the other that it dies.
#[tokio::test]
async fn every_token_of_a_request_is_alive_when_it_is_sent() {
    let other = TOKEN.replace("authorization", "x-other").replace("30s", "300s");
    let (upstream, go) = Upstream::holding().await;
    let (gateway, upstream) = in_front_of(upstream, &narrow(&format!("{TOKEN}, {other}"), "")).await;
    let mut first = send(&gateway, get("/", &gateway.bearer("alice"))).await;
    upstream.received(1).await;
    let mut second = send(&gateway, get("/", &gateway.bearer("bob"))).await;
    eventually("it has its tokens", || gateway.mints() == 4).await;
    wait(26).await;
    go.send(true).unwrap();
    assert_eq!(first.response().await.outcome(), (200, ""));
    assert_eq!(second.response().await.outcome(), (200, ""));
    let sent = upstream.last();
    assert!(left(&gateway, &sent) >= 5);
    let (minted, other) = (sent.one("authorization").unwrap(), sent.one("x-other").unwrap());
    assert!(claims(other)["exp"].as_i64() > claims(minted)["exp"].as_i64());
    assert_eq!(gateway.mints(), 5, "what is still good is not minted anew");
}
