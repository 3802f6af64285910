//! `show_token`: answers that tell how the request's tokens were come by.

use std::time::Duration;

use super::{MINTING, get, in_front_of};
use crate::support::upstream::Upstream;
use crate::support::wire::{Message, Wire};

/// An upstream that tries to say it itself.
const LYING: &str = "HTTP/1.1 200 OK\r\nx-mintgate-token: hit; age=0; ttl=99\r\ncontent-length: 2\r\n\r\nok";

/// The life of a token of `custom_hasura` in the emulator.
const LIFE: u64 = 60;

fn numbers(answer: &Message, lookup: &str) -> (u64, u64) {
    let shown = answer.one("x-mintgate-token").unwrap();
    let (age, ttl) = shown
        .strip_prefix(&format!("{lookup}; age="))
        .unwrap_or_else(|| panic!("{shown}"))
        .split_once("; ttl=")
        .unwrap();
    (age.parse().unwrap(), ttl.parse().unwrap())
}

#[tokio::test]
async fn an_answer_tells_how_its_token_was_come_by_where_the_route_says_so() {
    let tables = MINTING.replace("inject", "show_token = true\ninject");
    let (gateway, _upstream) = in_front_of(Upstream::answering(LYING).await, &tables).await;
    let mut wire = Wire::connect(gateway.address).await;
    let (age, ttl) = numbers(&wire.ask(get("/", &gateway.bearer("alice"))).await, "mint");
    assert!(age + ttl <= LIFE && ttl > LIFE / 2, "{age} {ttl}");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(12)).await;
    tokio::time::resume();
    let (later, left) = numbers(&wire.ask(get("/", &gateway.bearer("alice"))).await, "hit");
    assert!((age + 12..age + 30).contains(&later) && left < ttl - 10, "{later} {left}");
}

/// Fails when an upstream's own header passes.
#[tokio::test]
async fn nobody_is_told_elsewhere_and_no_upstream_says_it() {
    let (gateway, _upstream) = in_front_of(Upstream::answering(LYING).await, MINTING).await;
    let answer = Wire::connect(gateway.address).await.ask(get("/", &gateway.bearer("alice"))).await;
    assert_eq!((answer.status(), answer.one("x-mintgate-token")), (200, None));
}
