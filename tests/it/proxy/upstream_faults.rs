//! An upstream whose connections die at each stage: the code that the caller gets, how often the request is sent, and that
//! nobody else meets that connection again.

use std::net::SocketAddr;
use std::time::Duration;

use super::get;
use crate::support::authority::Authority;
use crate::support::directory::Directory;
use crate::support::faults::End::{Closes, Hangs, Resets};
use crate::support::faults::Fault::{self, Accepted, Asked, Cut, CutBody, Endless, Refused, Says};
use crate::support::faults::Proxy;
use crate::support::gateway::Gateway;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

const UNREACHABLE: (u16, &str) = (502, "upstream-unreachable");
const BROKEN: (u16, &str) = (502, "upstream-broken");
const TIMEOUT: (u16, &str) = (504, "upstream-timeout");
/// The answer has begun, and is cut for the caller too.
const CUT: (u16, &str) = (200, "");

/// How often a GET and a POST are sent.
type Sent = (usize, usize);

/// Before anything of an answer has come, a GET is sent once more; a POST never is.
const AGAIN: Sent = (2, 1);
const ONCE: Sent = (1, 1);
const NEVER: Sent = (0, 0);

fn faults() -> Vec<(Fault, (u16, &'static str), Sent)> {
    vec![
        (Refused, UNREACHABLE, NEVER),
        (Asked(Resets), BROKEN, AGAIN),
        (Asked(Closes), BROKEN, AGAIN),
        (Asked(Hangs), TIMEOUT, ONCE),
        (Cut(5, Resets), BROKEN, ONCE),
        (Cut(5, Closes), BROKEN, ONCE),
        (Cut(5, Hangs), TIMEOUT, ONCE),
        (Cut(30, Resets), BROKEN, ONCE),
        (CutBody(0, Resets), CUT, ONCE),
        (CutBody(1, Resets), CUT, ONCE),
        (CutBody(1, Closes), CUT, ONCE),
        (Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec()), BROKEN, ONCE),
        (Says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n".to_vec(), Resets), BROKEN, ONCE),
        (Says(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec(), Resets), BROKEN, ONCE),
    ]
}

async fn before(proxy: &Proxy, tls: &str) -> Gateway {
    Gateway::start(format!(
        "[upstreams.up]\nurl = \"{}\"\nresponse_timeout = \"2s\"\npool = {{ idle_timeout = \"10m\" }}\n{tls}\n\
         [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n",
        proxy.url()
    ))
    .await
}

/// Each fault on a connection that was kept and on new ones, and after each a healthy upstream.
async fn try_all(proxy: impl Fn(SocketAddr) -> Proxy, tls: &str, more: Vec<(Fault, (u16, &'static str), Sent)>) {
    let upstream = Upstream::answering(OK).await;
    let proxy = proxy(upstream.address);
    let gateway = before(&proxy, tls).await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned();
    assert_eq!(ask(&gateway, &post).await, Ok((200, String::new())));
    for (fault, outcome, sent) in faults().into_iter().chain(more) {
        for (request, sent) in [(get("/", ""), sent.0), (post.clone(), sent.1)] {
            // Whoever is silent is waited for, and in the same way.
            let ways: &[bool] = if outcome == TIMEOUT { &[true] } else { &[true, false] };
            for &kept in ways {
                trial(&gateway, &proxy, &upstream, (&fault, outcome, sent), &request, kept).await;
            }
        }
    }
}

async fn trial(
    gateway: &Gateway,
    proxy: &Proxy,
    upstream: &Upstream,
    (fault, outcome, sent): (&Fault, (u16, &'static str), usize),
    request: &str,
    kept: bool,
) {
    let context = format!("{fault:?} {request:?} kept: {kept}");
    proxy.set(fault.clone()).await;
    if !kept {
        proxy.hang_up();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let requests = proxy.requests();
    let answer = ask(gateway, request).await;
    // What may have been done on a connection that was kept is not repeated, so nobody learns more.
    let outcome = if kept && sent == 0 && request.starts_with("POST") { BROKEN } else { outcome };
    match outcome {
        CUT => assert_eq!(answer, Err(()), "{context}"),
        (status, code) => assert_eq!(answer, Ok((status, code.to_owned())), "{context}"),
    }
    let times = proxy.requests() - requests;
    // One that was kept has to be tried before it can be known that nobody listens any more.
    let at_most = sent + usize::from(kept && sent == 0);
    assert!((sent..=at_most).contains(&times), "{context}: sent {times} times");

    proxy.set(Fault::None).await;
    let (before, forwarded) = (proxy.connections(), upstream.count());
    for _ in 0..2 {
        assert_eq!(ask(gateway, request).await, Ok((200, String::new())), "{context}");
    }
    let new = (proxy.connections() - before, upstream.count() - forwarded);
    assert_eq!(new, (1, 2), "{context}: a connection that broke serves nobody, and the next one is kept");
}

/// The answer's status and our code; an error when it breaks off.
async fn ask(gateway: &Gateway, request: &str) -> Result<(u16, String), ()> {
    let mut client = Wire::connect(gateway.address).await;
    client.send(request).await;
    let answer = client.response_to("GET").await.map_err(|error| assert!(error.is_cut(), "{error:?}"))?;
    Ok((answer.status(), answer.outcome().1.to_owned()))
}

/// Fails when a request is sent again after a byte of its answer.
#[tokio::test]
async fn an_upstream_that_breaks_off_at_any_stage() {
    try_all(Proxy::before, "", Vec::new()).await;
}

#[tokio::test]
async fn an_upstream_that_breaks_off_at_any_stage_of_tls() {
    let (authority, files) = (Authority::new(), Directory::new());
    let tls = format!("tls = {{ ca_file = \"{}\" }}", files.write("ca.pem", &authority.pem).display());
    let proxy = |upstream| Proxy::with_tls(upstream, authority.server(&["127.0.0.1"], &["http/1.1"]));
    // Without TLS an accepted connection is one, and whether its end comes before the request is chance.
    let more = vec![(Accepted(Resets), UNREACHABLE, NEVER), (Accepted(Closes), UNREACHABLE, NEVER)];
    try_all(proxy, &tls, more).await;
}
