//! Mutations of framing, through two gateways in a row: what the first one takes for one request the second one takes for
//! the same, and the upstream behind both.
//!
//! Each request that the first gateway reads gets a header of its own from it, whose name callers cannot use. So whatever
//! came into being in between, out of bytes that the first took for a body, shows at the upstream.

use std::collections::HashMap;

use futures_util::StreamExt as _;

use super::{QUICK, bytes, collection, with_host};
use crate::support::gateway::{Boot, Gateway};
use crate::support::upstream::Upstream;
use crate::support::wire::{Message, Wire};

/// Connections at a time.
const AT_ONCE: usize = 300;

/// Whose a request is that says of nobody that it is his.
const NOBODY: &str = "nobody";

/// Two gateways in a row, and an upstream that says to whose request it answers.
struct Hops {
    outer: Gateway,
    _inner: Gateway,
    upstream: Upstream,
}

/// What one connection sends.
struct Case {
    bytes: Vec<u8>,
    /// Whether the request that is hidden in it is body to everybody who knows HTTP.
    hidden: bool,
    shown: String,
}

/// What a head is followed by.
struct Form {
    name: &'static str,
    /// What `Content-Length` says.
    length: usize,
    body: Vec<u8>,
    hidden: bool,
}

fn route(upstream: &str, own: &str) -> String {
    format!(
        "[[routes]]\nname = \"all\"\nupstream = \"{upstream}\"\nsession = []\n\
         inject = [{{ header = \"{own}\", value = {{ env = \"FIXED_VALUE\" }} }}]\n"
    )
}

impl Hops {
    async fn start() -> Self {
        let upstream = Upstream::scripted(|mut visit| async move {
            while let Some(request) = visit.request().await {
                let body = format!("answers {};", marker(&request));
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                visit.wire.send(answer).await;
            }
        })
        .await;
        let inner = Boot::new(route(&upstream.url(), "x-inner")).threads().start().await;
        let outer = Boot::new(route(&format!("http://{}", inner.address), "x-outer"));
        let outer = outer.server(QUICK).threads().start().await;
        Self { outer, _inner: inner, upstream }
    }

    /// Sends every case on a connection of its own, and judges what came of it.
    async fn judge(&self, cases: Vec<Case>) {
        let count = cases.len();
        let answers: Vec<(usize, Case, String)> = futures_util::stream::iter(cases.into_iter().enumerate())
            .map(|(number, case)| async move {
                let mut client = Wire::connect(self.outer.address).await;
                client.send(&case.bytes).await;
                let answer = client.until_closed().await;
                (number, case, String::from_utf8_lossy(&answer).into_owned())
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut arrived = HashMap::<String, Vec<Message>>::new();
        for request in self.upstream.whole() {
            // Through both as a request, and no header of a caller's in the place of theirs.
            assert_eq!(request.one("x-outer"), Some("fixed-value"), "born in between: {request:?}");
            assert_eq!(request.one("x-inner"), Some("fixed-value"), "{request:?}");
            for (name, value) in &request.fields {
                let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
                let coding = letters.eq_ignore_ascii_case("transferencoding");
                let length = letters.eq_ignore_ascii_case("contentlength");
                assert!(!coding || (name == "transfer-encoding" && value == "chunked"), "{request:?}");
                assert!(!length || name == "content-length", "{request:?}");
            }
            arrived.entry(marker(&request)).or_default().push(request);
        }
        assert!(!arrived.is_empty());
        let mut served = 0;
        for (number, case, answer) in answers {
            let own = arrived.remove(&number.to_string()).unwrap_or_default();
            for kind in ["/first/", "/smuggled/", "/follower/"] {
                let times = own.iter().filter(|request| request.start.contains(kind)).count();
                let most = usize::from(kind != "/smuggled/" || !case.hidden);
                assert!(times <= most, "{times} of {kind}: {}: {own:?}", case.shown);
            }
            // Nobody hears what is meant for another.
            let heard = answer.split("answers ").skip(1).filter_map(|rest| rest.split(';').next());
            let heard: Vec<&str> = heard.filter(|id| *id != NOBODY).collect();
            assert!(heard.iter().all(|id| *id == number.to_string()), "{}: {answer}", case.shown);
            assert!(heard.len() <= own.len(), "{}: {answer}", case.shown);
            served += heard.len();
        }
        // Some were good, and went all the way: what does not arrive proves nothing. Most of the mutations are refused.
        assert!(served * 200 > count, "{served} of {count}");
        let good = "GET /first/0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(Wire::connect(self.outer.address).await.ask(good).await.text(), "answers 0;");
    }
}

/// The number of the case, which every request of it carries.
fn marker(request: &Message) -> String {
    let path = request.start.split(' ').nth(1).unwrap_or_default();
    let last = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    if last.is_empty() || !last.bytes().all(|byte| byte.is_ascii_digit()) {
        return request.one("x-marker").unwrap_or(NOBODY).to_owned();
    }
    last.to_owned()
}

fn smuggled(number: usize) -> String {
    format!("GET /smuggled/{number} HTTP/1.1\r\nHost: a\r\nX-Outer: spoofed\r\nX-Inner: spoofed\r\n\r\n")
}

/// Bodies of which one reader sees the end elsewhere than another.
fn forms(number: usize) -> Vec<Form> {
    let smuggled = smuggled(number);
    let good = "3\r\nabc\r\n0\r\n\r\n".to_owned();
    let trailing = format!("0\r\n\r\n{smuggled}");
    let size = format!("{:x}\r\n", smuggled.len());
    let within = format!("{size}{smuggled}\r\n0\r\n\r\n");
    let form = |name, length, body: String, hidden| Form { name, length, body: body.into_bytes(), hidden };
    vec![
        form("right", 3, "x=1".to_owned(), true),
        form("too short", 5, trailing.clone(), false),
        form("too long", trailing.len() + 1000, trailing.clone(), true),
        form("chunked", good.len(), good.clone(), true),
        form("chunked, too short", 0, good, true),
        form("after the last chunk", trailing.len(), trailing, true),
        form("within a chunk", size.len(), within, false),
    ]
}

/// Each of these heads with every body, in both versions, alone and followed by another request. They end in a line and say `__REPLACE_CL__` where the length belongs.
fn cases(heads: &[Vec<u8>]) -> Vec<Case> {
    let mut cases = Vec::new();
    for head in heads {
        let has_length = head.windows(17).any(|part| part == b"\nContent-Length: ");
        for which in 0..forms(0).len() {
            for turn in 0..4 {
                let (old, follows) = (turn & 1 == 1, turn & 2 == 2);
                let number = cases.len();
                let form = forms(number).swap_remove(which);
                let mut bytes = put(head, b"__REPLACE_CL__", form.length.to_string().as_bytes());
                bytes = put(&bytes, b"/?cb=", format!("/first/{number}?cb=").as_bytes());
                if old {
                    bytes = put(&bytes, b"HTTP/1.1", b"HTTP/1.0");
                }
                if !follows {
                    bytes.extend(b"Connection: close\r\n");
                }
                bytes.extend(b"\r\n");
                bytes.extend(form.body);
                if follows {
                    bytes.extend(follower(number).bytes());
                }
                let shown = format!("{} {:?}", form.name, String::from_utf8_lossy(&bytes));
                // Without a length that is one, a coding that is one has the last word.
                let hidden = form.hidden && has_length;
                cases.push(Case { bytes, hidden, shown });
            }
        }
    }
    cases
}

fn follower(number: usize) -> String {
    format!("GET /follower/{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

/// Replaces the first of these, if there is one.
fn put(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    match text.windows(old.len()).position(|part| part == old) {
        Some(at) => [&text[..at], new, &text[at + old.len()..]].concat(),
        None => text.to_vec(),
    }
}

/// Heads of our own: every spelling of a coding, with every spelling of a length.
fn own_heads() -> Vec<Vec<u8>> {
    let names = [
        "Transfer-Encoding:",
        "transfer-encoding: ",
        "Transfer-Encoding :",
        "Transfer-Encoding\t:",
        " Transfer-Encoding: ",
        "Transfer_Encoding: ",
        "Transfer-Encoding\0: ",
        "Transfer-Encoding\r: ",
        "X: y\n Transfer-Encoding: ",
        "X: y\rTransfer-Encoding: ",
        "Connection: transfer-encoding\r\nTransfer-Encoding: ",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: ",
        "",
    ];
    let values = [
        "chunked",
        "Chunked",
        "\tchunked\t",
        "chunked,",
        ",chunked",
        "gzip, chunked",
        "chunked, identity",
        "chunked;q=1",
        "\"chunked\"",
        "chun\x0bked",
        "chunked\x0c",
        "\u{ff43}hunked",
        "xchunked",
        "\r\n chunked",
        "\n\tchunked",
        "identity",
        "",
    ];
    let lengths = [
        "Content-Length: __REPLACE_CL__\r\n",
        "Content-Length: +__REPLACE_CL__\r\n",
        "Content-Length: 0__REPLACE_CL__\r\n",
        "Content-Length: __REPLACE_CL__, 7\r\n",
        "Content-Length: __REPLACE_CL__\r\nContent-Length: 7\r\n",
        "Content_Length: __REPLACE_CL__\r\n",
        "Content-Length : __REPLACE_CL__\r\n",
        "Content-Length: __REPLACE_CL__\n",
    ];
    let mut heads = Vec::new();
    for name in names {
        for value in values {
            if name.is_empty() && !value.is_empty() {
                continue;
            }
            // All with the good one, and each with some of the others.
            let others = lengths.iter().skip(1).skip(heads.len() % 7).take(1);
            for length in lengths.iter().take(1).chain(others) {
                let coding = if name.is_empty() { String::new() } else { format!("{name}{value}\r\n") };
                heads.push(format!("POST /?cb=1 HTTP/1.1\r\nHost: a\r\n{coding}{length}").into_bytes());
            }
        }
    }
    for length in lengths {
        heads.push(format!("POST /?cb=1 HTTP/1.1\r\nHost: a\r\n{length}").into_bytes());
    }
    heads
}

/// Cases 15 to 17. Fails where a coding is taken that is not exactly one `chunked` (in `request::target`), where twins of
/// framing names pass (`Cleaner::always`), or where a connection went on after a length beside a coding.
#[tokio::test]
async fn our_own_mutations_of_framing_are_the_same_requests_on_every_hop() {
    let hops = Hops::start().await;
    hops.judge(cases(&own_heads())).await;
}

/// Cases 15 to 17, with the mutations of another project.
#[tokio::test]
async fn mutations_of_framing_are_the_same_requests_on_every_hop() {
    let Some(mutations) = collection("smuggler/mutations.json") else { return };
    let heads: Vec<Vec<u8>> = mutations.iter().map(|mutation| bytes(mutation, "header_b64")).collect();
    let hops = Hops::start().await;
    hops.judge(cases(&heads)).await;
}

/// Cases 15 to 17, with the cases of another parser's tests, in both versions, alone and followed by another request.
#[tokio::test]
async fn requests_of_another_parsers_tests_are_the_same_on_every_hop() {
    let Some(collection) = collection("llhttp/cases.json") else { return };
    let mut all = Vec::new();
    for case in collection.iter().filter(|case| case["type"].as_str().unwrap().starts_with("request")) {
        for turn in 0..8 {
            let mut text = bytes(case, "b64");
            if turn & 1 == 1 {
                text = with_host(&text);
            }
            if turn & 2 == 2 {
                text = put(&text, b"HTTP/1.1", b"HTTP/1.0");
            }
            let number = all.len();
            text = put(&text, b"\r\n", format!("\r\nX-Marker: {number}\r\n").as_bytes());
            if turn & 4 == 4 {
                text.extend(follower(number).bytes());
            }
            let shown = format!("{} {:?}", case["title"], String::from_utf8_lossy(&text));
            all.push(Case { bytes: text, hidden: true, shown });
        }
    }
    let hops = Hops::start().await;
    hops.judge(all).await;
}
