//! What a caller is told when a request is not forwarded.

use super::{MINTING, behind, get};
use crate::support::gateway::{Boot, Gateway};
use crate::support::http2;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::{Message, Wire};

/// A gateway whose issuer gives every mint this answer, and its upstream.
async fn with_issuer(answer: &str, more: &str) -> (Gateway, Upstream, Upstream) {
    let (upstream, issuer) = (Upstream::answering(OK).await, Upstream::answering(answer).await);
    let tables = MINTING.replace("{up}", &upstream.url()).replace("inject", &format!("{more}\ninject"));
    let gateway = Boot::new(tables).clerk("timeout = \"2s\"").issuer(issuer.address).start().await;
    (gateway, upstream, issuer)
}

fn json(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn ask(gateway: &Gateway) -> Message {
    Wire::connect(gateway.address).await.ask(get("/", &gateway.bearer("bob"))).await
}

#[tokio::test]
async fn an_error_is_a_problem_document_that_says_what_to_do() {
    let (gateway, upstream) = behind(MINTING).await;
    let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
    assert_eq!(answer.outcome(), (401, "session-missing"));
    assert_eq!(answer.one("content-type"), Some("application/problem+json"));
    assert_eq!(answer.one("cache-control"), Some("no-store"));
    assert_eq!(answer.one("www-authenticate"), Some("Bearer"));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["type"], "urn:mintgate:error:session-missing");
    assert_eq!((&problem["status"], &problem["code"]), (&401.into(), &"session-missing".into()));
    for text in ["title", "detail", "request_id"] {
        assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    let answer = Wire::connect(gateway.address).await.ask(get("/", "Authorization: Bearer a.b.c\r\n")).await;
    assert_eq!(
        answer.one("www-authenticate"),
        Some("Bearer error=\"invalid_token\", error_description=\"session-invalid: malformed\"")
    );
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_refusal_does_not_end_the_connection() {
    let (gateway, _upstream) = behind(MINTING).await;
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        assert_eq!(client.ask(get("/", "")).await.status(), 401);
        assert_eq!(client.ask(get("/", &gateway.bearer("bob"))).await.status(), 200);
    }
}

#[tokio::test]
async fn no_route_and_no_method_are_told_apart_before_any_credential_is_read() {
    let tables = MINTING.replace("upstream =", "match = { path = \"/a\", methods = [\"GET\", \"POST\"] }\nupstream =");
    let (gateway, _upstream) = behind(&tables).await;
    let mut client = Wire::connect(gateway.address).await;
    let two = "Authorization: Bearer x\r\nAuthorization: Bearer y\r\n";
    assert_eq!(client.ask(get("/b", two)).await.outcome(), (404, "no-route"));
    let answer = client.ask(format!("DELETE /a HTTP/1.1\r\nHost: a\r\n{two}\r\n")).await;
    assert_eq!((answer.outcome(), answer.one("allow")), ((405, "method-not-allowed"), Some("GET, POST")));
}

#[tokio::test]
async fn the_issuers_refusals_are_not_the_users_fault() {
    let unknown = r#"{"errors":[{"code":"resource_not_found","message":"JWT template not found","long_message":"No JWT template exists with name: custom_hasura"}]}"#;
    let key = r#"{"errors":[{"code":"clerk_key_invalid","message":"Invalid"}]}"#;
    for (answer, status, code) in [
        (json("401", "", key), 502, "issuer-rejected-key"),
        (json("404", "", unknown), 502, "template-unknown"),
        (json("400", "", "{}"), 502, "issuer-refused"),
        (json("200", "", "not json"), 502, "issuer-malformed"),
        (json("429", "retry-after: 30\r\n", "{}"), 503, "issuer-throttled"),
        (json("500", "", "{}"), 503, "issuer-unavailable"),
    ] {
        let (gateway, upstream, _issuer) = with_issuer(&answer, "").await;
        let answer = ask(&gateway).await;
        assert_eq!(answer.outcome(), (status, code));
        assert_eq!(answer.one("retry-after").is_some(), status == 503, "{code}");
        assert_eq!(answer.one("www-authenticate"), None, "{code}");
        assert_eq!(upstream.count(), 0);
    }
}

#[tokio::test]
async fn an_issuer_that_is_silent_is_a_timeout_and_one_that_is_gone_is_unavailable() {
    let upstream = Upstream::answering(OK).await;
    let silent = Upstream::scripted(|mut visit| async move { while visit.request().await.is_some() {} }).await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for (issuer, status, code) in [(silent.address, 504, "issuer-timeout"), (gone, 503, "issuer-unavailable")] {
        let boot = Boot::new(MINTING.replace("{up}", &upstream.url())).clerk("timeout = \"2s\"").issuer(issuer);
        let gateway = boot.start().await;
        assert_eq!(ask(&gateway).await.outcome(), (status, code));
    }
}

#[tokio::test]
async fn a_route_may_go_on_without_a_token_or_with_the_session_token() {
    let refused = json("400", "", "{}");
    let (gateway, upstream, _issuer) = with_issuer(&refused, "on_mint_error = \"pass\"").await;
    assert_eq!(ask(&gateway).await.outcome(), (200, ""));
    assert_eq!(upstream.only().one("authorization"), None);
    let (gateway, upstream, _issuer) = with_issuer(&refused, "on_mint_error = \"session\"").await;
    let bearer = gateway.bearer("bob");
    Wire::connect(gateway.address).await.ask(get("/", &bearer)).await;
    assert_eq!(upstream.only().one("authorization"), bearer.trim_end().strip_prefix("Authorization: "));
}

#[tokio::test]
async fn an_ended_session_is_never_passed() {
    let upstream = Upstream::answering(OK).await;
    let gateway =
        Gateway::start(MINTING.replace("{up}", &upstream.url()).replace("inject", "on_mint_error = \"pass\"\ninject"))
            .await;
    let bearer = gateway.bearer("bob");
    let key = gateway.emulator.secret_key().expose();
    let revoke = format!(
        "POST /v1/sessions/sess_emulator_bob/revoke HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(Wire::connect(gateway.issuer).await.ask(revoke).await.status(), 200);
    let answer = Wire::connect(gateway.address).await.ask(get("/", &bearer)).await;
    assert_eq!(answer.outcome(), (401, "session-ended"));
    assert_eq!(
        answer.one("www-authenticate"),
        Some("Bearer error=\"invalid_token\", error_description=\"session-ended\"")
    );
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_grpc_caller_gets_a_trailers_only_answer() {
    let (gateway, _upstream) = behind(MINTING).await;
    let mut client = http2::Client::connect(gateway.address).await;
    for (path, status) in [("/a.B/C", "16"), ("/a/../b", "13")] {
        let request = http::Request::post(format!("http://a{path}")).header("content-type", "application/grpc+proto");
        let answer = client.ask(request.body(http2::full("x")).unwrap()).await;
        if path == "/a.B/C" {
            assert_eq!(
                (answer.outcome(), &answer.headers["grpc-status"]),
                ((200, "session-missing"), &http::HeaderValue::from_static(status))
            );
            assert_eq!(answer.headers["grpc-message"], "session-missing");
        }
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "application/grpc");
        assert!(answer.body.is_empty() && answer.trailers.is_empty());
    }
}

#[tokio::test]
async fn an_upstream_that_is_gone_or_talks_nonsense_is_502() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let gateway = Gateway::start(MINTING.replace("{up}", &format!("http://{gone}"))).await;
    assert_eq!(ask(&gateway).await.outcome(), (502, "upstream-unreachable"));
    for nonsense in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nbad header: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ] {
        let upstream = Upstream::answering(nonsense).await;
        let gateway = Gateway::start(MINTING.replace("{up}", &upstream.url())).await;
        let answer = ask(&gateway).await;
        assert_eq!(answer.outcome(), (502, "upstream-broken"), "{nonsense}");
        ask(&gateway).await;
        assert_eq!(upstream.connections(), upstream.count(), "no connection serves again after that");
    }
}
