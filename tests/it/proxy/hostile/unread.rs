//! Requests that are refused while much of their body is still to come: the connection ends in words, never under an
//! answer that somebody waits for.

use super::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, ROOT, frame, hello, literal};
use crate::proxy::{PUBLIC, get, in_front_of};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// A public path and one that asks for a session.
fn tables() -> String {
    format!("{PUBLIC}match = {{ path = \"/public\" }}\n[[routes]]\nname = \"protected\"\nupstream = \"{{up}}\"\n")
}

/// Case 18: a caller that is not told sends its next request on a connection that is about to be cut. Fails without
/// `rest > Rest::ARRIVES_WITH_ITS_HEAD` in `Connection::says_goodbye`.
#[tokio::test]
async fn a_refusal_says_that_the_connection_ends_where_much_of_the_body_is_to_come() {
    let (gateway, _upstream) = in_front_of(Upstream::answering(OK).await, &tables()).await;
    for (framing, ends) in [
        ("Content-Length: 4\r\n\r\nbody", false),
        ("Content-Length: 4097\r\n\r\n", true),
        ("Transfer-Encoding: chunked\r\n\r\n", true),
        ("\r\n", false),
    ] {
        let mut client = Wire::connect(gateway.address).await;
        let answer = client.ask(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        assert_eq!(answer.outcome(), (401, "session-missing"));
        assert_eq!(answer.one("connection"), ends.then_some("close"), "{framing:?}");
        if ends {
            assert!(client.is_closed().await);
        } else {
            assert_eq!(client.ask(get("/public", "")).await.status(), 200, "{framing:?}");
        }
    }
}

/// A body that the upstream has had whole is not to come any more. Fails without `Finish::has_taken_the_body`.
#[tokio::test]
async fn an_upstream_that_breaks_after_the_whole_body_costs_the_caller_no_connection() {
    let broken = Upstream::scripted(|mut visit| async move {
        visit.request().await;
    })
    .await;
    let (gateway, _upstream) = in_front_of(broken, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        let body = "a".repeat(5000);
        let answer = client.ask(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{body}")).await;
        assert_eq!((answer.outcome(), answer.one("connection")), ((502, "upstream-broken"), None));
    }
}

/// Case 23: frames on streams that are over count against their connection until h2 ends it with all that is under way.
/// It is told to go before. Fails without `Connection::is_worn`.
#[tokio::test]
async fn refused_bodies_on_http2_end_in_another_connection_and_cost_nobody_an_answer() {
    const LENGTH: &[u8] = b"100000";
    /// How many of the streams that are over h2 may remember, and more.
    const FORGOTTEN: u32 = 60;
    let (go, gone) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            while visit.request().await.is_some() {
                let _ = gone.wait_for(|gone| *gone).await;
                visit.wire.send(OK).await;
            }
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, &tables()).await;
    let mut client = Wire::connect(gateway.address).await;
    let path = [&ROOT[..2], &[4, 7], b"/public", &ROOT[3..]].concat();
    client.send([hello(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &path)].concat()).await;
    upstream.received(1).await;

    // POST, and ROOT's other fields.
    let upload = [&[0x83], &ROOT[1..], &literal(b"content-length", LENGTH)].concat();
    let mut told = None;
    for number in 1..400 {
        let stream = 2 * number + 1;
        client.send(frame(HEADERS, END_HEADERS, stream, &upload)).await;
        told = answered_or_told(&mut client, stream).await;
        if told.is_some() {
            break;
        }
        if number > FORGOTTEN {
            // The seven frames of a body that was refused, very late.
            client.send(frame(DATA, 0, stream - 2 * FORGOTTEN, b"x").repeat(7)).await;
        }
    }
    assert_eq!(told, Some(0), "GOAWAY without an error");
    go.send(true).unwrap();
    loop {
        let (kind, stream, payload) = next(&mut client).await.expect("what was under way is answered");
        if (kind, stream) == (HEADERS, 1) {
            assert_eq!(payload[0], 0x88, "200 out of the static table");
            return;
        }
    }
}

/// Reads up to the answer on a stream (`None`) or the end of the connection, and why it ends (RFC 9113 section 6.8).
async fn answered_or_told(client: &mut Wire, stream: u32) -> Option<u32> {
    loop {
        let (kind, on, payload) = next(client).await.expect("an answer, or GOAWAY");
        match kind {
            GOAWAY => return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            HEADERS if on == stream => return None,
            _ => {}
        }
    }
}

async fn next(client: &mut Wire) -> Option<(u8, u32, Vec<u8>)> {
    let head = client.take(9).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let payload = client.take(length).await.ok()?;
    Some((head[3], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload))
}
