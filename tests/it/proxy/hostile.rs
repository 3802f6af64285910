//! Foreign collections of hostile HTTP, sent through the gateway: whatever it makes of them, the upstream sees strict
//! HTTP and nothing smuggled, and a caller sees one answer to one request.

mod callers;
mod floods;
mod frames;
mod framing;
mod messages;
mod opened;
mod process;
mod unread;
mod windows;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mintgate::lifecycle::Spawner;
use serde_json::Value;

use super::get;
use crate::support::gateway::{Boot, Gateway};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// Connections at a time.
const AT_ONCE: usize = 100;

/// Every connection ends by itself soon, so that whatever waits for more bytes is not waited for.
const QUICK: &str = "header_read_timeout = \"500ms\"\nidle_timeout = \"500ms\"\nbody_progress_timeout = \"500ms\"";

const ROUTE: &str = r#"
[[routes]]
name = "public"
match = { path = "/" }
upstream = "{up}"
session = []
inject = [{ header = "x-injected", value = { env = "FIXED_VALUE" } }]
"#;

/// A file of the collections beside the repository; `None`, and a line that says so, where there is none. The line is
/// shown although the test passes.
fn collection(file: &str) -> Option<Vec<Value>> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(file);
    match std::fs::read(&path) {
        Ok(text) => Some(serde_json::from_slice(&text).unwrap()),
        Err(error) => {
            let skipped = format!("SKIPPED: {}: {error}\n", path.display());
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            None
        }
    }
}

fn bytes(case: &Value, key: &str) -> Vec<u8> {
    STANDARD.decode(case[key].as_str().unwrap()).unwrap()
}

async fn quick(upstream: &Upstream) -> Gateway {
    Boot::new(ROUTE.replace("{up}", &upstream.url())).server(QUICK).start().await
}

/// Sends each of these on a connection of its own and reads up to the close.
async fn send_all(gateway: &Gateway, all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for some in all.chunks(AT_ONCE) {
        let mut tasks = Vec::new();
        for bytes in some.iter().cloned() {
            let address = gateway.address;
            tasks.push(Spawner::current().spawn(async move {
                let mut client = Wire::connect(address).await;
                client.send(bytes).await;
                client.until_closed().await
            }));
        }
        for task in tasks {
            answers.push(task.await.unwrap());
        }
    }
    answers
}

/// The request with a `Host` where it has none, so that it comes further.
fn with_host(request: &[u8]) -> Vec<u8> {
    let lower = request.to_ascii_lowercase();
    if lower.windows(6).any(|part| part == b"\nhost:") {
        return request.to_vec();
    }
    match request.windows(2).position(|part| part == b"\r\n") {
        Some(at) => [&request[..at], b"\r\nHost: a", &request[at..]].concat(),
        None => request.to_vec(),
    }
}

#[tokio::test]
async fn requests_of_another_parsers_tests_reach_the_upstream_as_strict_http() {
    let Some(cases) = collection("llhttp/cases.json") else { return };
    let requests = cases.iter().filter(|case| case["type"].as_str().unwrap().starts_with("request"));
    let upstream = Upstream::answering(OK).await;
    let gateway = quick(&upstream).await;
    let (mut sent, mut allowed) = (Vec::new(), 0);
    for case in requests {
        for request in [bytes(case, "b64"), with_host(&bytes(case, "b64"))] {
            allowed += usize::try_from(case["begins"].as_u64().unwrap()).unwrap();
            sent.push(request);
        }
    }
    let count = sent.len();
    let answers = send_all(&gateway, sent).await;
    assert!(answers.len() == count && answers.iter().any(|answer| answer.starts_with(b"HTTP/1.1 200")));
    let seen = upstream.whole();
    assert!(!seen.is_empty() && seen.len() <= allowed, "{} of {allowed}", seen.len());
    for request in seen {
        assert_eq!(request.one("x-injected"), Some("fixed-value"));
    }
}

#[tokio::test]
async fn no_request_has_more_in_it_than_its_parser_says() {
    let Some(cases) = collection("llhttp/cases.json") else { return };
    for case in cases.iter().filter(|case| case["type"] == "request" && !case["error"].is_null()) {
        let upstream = Upstream::answering(OK).await;
        let gateway = quick(&upstream).await;
        send_all(&gateway, vec![with_host(&bytes(case, "b64"))]).await;
        // One more than is complete: a head may be good and its body bad.
        let begins = usize::try_from(case["begins"].as_u64().unwrap()).unwrap();
        assert!(upstream.count() <= begins, "{}: {}", case["file"], case["title"]);
    }
}

#[tokio::test]
async fn answers_of_another_parsers_tests_reach_the_caller_as_one_strict_answer() {
    let Some(cases) = collection("llhttp/cases.json") else { return };
    let answers: Vec<Vec<u8>> = cases
        .iter()
        .filter(|case| case["type"].as_str().unwrap().starts_with("response"))
        .map(|case| bytes(case, "b64"))
        .collect();
    let count = answers.len();
    let upstream = Upstream::scripted(move |mut visit| {
        let answers = answers.clone();
        async move {
            while let Some(request) = visit.request().await {
                let path: Vec<&str> = request.start.split(['/', ' ']).collect();
                let [_, _, "n", number, end, ..] = path[..] else {
                    visit.wire.send(OK).await;
                    continue;
                };
                visit.wire.send(&answers[number.parse::<usize>().unwrap()]).await;
                if end == "close" {
                    return;
                }
            }
        }
    })
    .await;
    let tables = r#"
[upstreams.up]
url = "{up}"

[[routes]]
name = "hostile"
match = { path = "/n" }
upstream = "up"
session = []
timeout = "300ms"

[[routes]]
name = "others"
upstream = "up"
session = []
"#
    .replace("{up}", &upstream.url());
    let gateway = Boot::new(tables).start().await;
    for (number, end) in (0..count).flat_map(|number| [(number, "close"), (number, "stay")]) {
        let mut client = Wire::connect(gateway.address).await;
        client.send(get(&format!("/n/{number}/{end}"), "")).await;
        let first = client.response_to("GET").await;
        client.send(get("/", "")).await;
        let rest = match &first {
            Ok(_) => client.until_closed_or(b"ok").await,
            // Nothing follows what broke off.
            Err(error) if error.is_cut() => Vec::new(),
            Err(error) => panic!("{number}: {error:?}"),
        };
        let rest = String::from_utf8_lossy(&rest);
        assert!(
            rest.is_empty() || (rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\nok")),
            "{number}: {rest}"
        );
        // Whoever comes next gets the answer to its own request.
        assert_eq!(Wire::connect(gateway.address).await.ask(get("/", "")).await.text(), "ok", "{number}");
    }
}

#[tokio::test]
async fn no_mutation_of_transfer_encoding_smuggles_a_request() {
    let Some(mutations) = collection("smuggler/mutations.json") else { return };
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Injected: spoofed\r\n\r\n";
    let upstream = Upstream::answering(OK).await;
    let gateway = quick(&upstream).await;
    let (mut hidden_by_length, mut hidden_by_chunk) = (Vec::new(), Vec::new());
    for mutation in &mutations {
        let head = bytes(mutation, "header_b64");
        let whole = |length: usize, body: &str| {
            let mut request = replace(&head, b"__REPLACE_CL__", length.to_string().as_bytes());
            request.extend_from_slice(b"\r\n");
            request.extend_from_slice(body.as_bytes());
            request
        };
        let body = format!("0\r\n\r\n{smuggled}");
        hidden_by_length.push(whole(body.len(), &body));
        let size = format!("{:x}\r\n", smuggled.len());
        hidden_by_chunk.push(whole(size.len(), &format!("{size}{smuggled}\r\n0\r\n\r\n")));
    }
    // Whoever reads the length sees one request, whoever reads the chunks sees two: the gateway sees one.
    send_all(&gateway, hidden_by_length).await;
    let (first, requests) = (upstream.count(), upstream.whole());
    assert!(first > 0 && first <= mutations.len());
    for request in &requests {
        assert!(request.start.starts_with("POST /?cb="), "{request:?}");
    }
    // The other way round a second request is the caller's own doing; it is cleaned as any other.
    send_all(&gateway, hidden_by_chunk).await;
    for request in upstream.whole() {
        assert_eq!(request.one("x-injected"), Some("fixed-value"), "{request:?}");
        for (name, value) in &request.fields {
            let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            let coding = letters.eq_ignore_ascii_case("transferencoding");
            assert!(!coding || (name == "transfer-encoding" && value == "chunked"), "{request:?}");
        }
    }
}

fn replace(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = text.windows(old.len()).position(|part| part == old).unwrap();
    [&text[..at], new, &text[at + old.len()..]].concat()
}
