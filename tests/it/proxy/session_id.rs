//! `session_id_header`: a trusted program on this machine names the session, and nobody else can.

use std::path::{Path, PathBuf};

use mintgate::session::{SessionId, UserId};
use serde_json::json;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::trusting;
use crate::harness::claims;
use crate::support::gateway::{Boot, Gateway};
use crate::support::issuer::{Asked, Issuer};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::{Message, Wire};

const ROUTES: &str = r#"
[[routes]]
name = "job"
match = { path = "/job" }
upstream = "{up}"
session = [{ session_id_header = "x-clerk-session-id", trust = "unverified", caller_token = { env = "FIXED_VALUE" } }]
inject = [
  { header = "authorization", prefix = "Bearer ", template = "t" },
  { header = "x-fixed", value = { env = "FIXED_VALUE" } },
]

[[routes]]
name = "optional"
match = { path = "/optional" }
upstream = "{up}"
on_no_session = "pass"
session = [{ session_id_header = "x-clerk-session-id", trust = "unverified", caller_token = { env = "FIXED_VALUE" } }]
inject = [{ header = "x-token", template = "t" }]

[[routes]]
name = "verified"
match = { path = "/verified" }
upstream = "{up}"
session = ["bearer"]
inject = [{ header = "authorization", prefix = "Bearer ", template = "t" }]
"#;

/// What a job sends beside the session's id.
const CALLER: &str = "X-Mintgate-Caller: fixed-value\r\n";

/// Each mint says its number and whose session it was for.
fn issuer() -> Issuer {
    Issuer::minting(|number, asked: &Asked| Ok(json!({ "number": number, "path": asked.path })))
}

fn job(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

async fn ask(gateway: &Gateway, request: &str) -> Message {
    Wire::connect(gateway.address).await.ask(request).await
}

#[tokio::test]
async fn a_named_session_gets_its_token_and_the_naming_leaves() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    for sid in ["sess_1", "sess_2", "sess_1"] {
        let request = job("/job", &format!("{CALLER}X-Clerk-Session-Id: {sid}\r\nX_Clerk_Session_Id: x\r\n"));
        let answer = ask(&gateway, &request).await;
        assert_eq!(answer.outcome(), (200, ""));
        assert_eq!((answer.one("vary"), answer.one("cache-control")), (Some("x-clerk-session-id"), Some("private")));
        let seen = upstream.last();
        assert_eq!(claims(seen.one("authorization").unwrap())["path"], format!("/v1/sessions/{sid}/tokens/t"));
        assert_eq!(seen.one("x-fixed"), Some("fixed-value"));
        for gone in ["x-clerk-session-id", "x_clerk_session_id", "x-mintgate-caller"] {
            assert_eq!(seen.one(gone), None, "{gone}");
        }
    }
    assert_eq!(issuer.asked().len(), 2, "kept like any other");
}

#[tokio::test]
async fn who_may_not_name_a_session_is_refused() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let good = format!("{CALLER}X-Clerk-Session-Id: sess_1\r\n");
    let id = "X-Clerk-Session-Id: sess_1\r\n";
    let refused = [
        job("/job", id),
        job("/job", &format!("X-Mintgate-Caller: fixed-valuf\r\n{id}")),
        job("/job", &format!("X-Mintgate-Caller: fixed-value2\r\n{id}")),
        job("/job", &format!("{CALLER}{good}")),
        job("/job", &format!("{good}Origin: http://localhost\r\n")),
        job("/job", &format!("{good}Origin: null\r\n")),
        job("/job", &format!("{good}Sec-Fetch-Site: same-origin\r\n")),
        job("/job", &format!("{good}Sec-Fetch-Mode: navigate\r\n")),
        job("/job", &good).replace("Host: localhost", "Host: rebound.example"),
        job("/job", &good).replace("Host: localhost", "Host: localhost.example:80"),
        // Who names none is nobody's guest either, unless he may ask.
        job("/optional", ""),
        job("/job", &format!("{good}Origin: http://a\r\nAccess-Control-Request-Method: GET\r\n"))
            .replace("GET", "OPTIONS"),
    ];
    for request in refused {
        assert_eq!(ask(&gateway, &request).await.outcome(), (403, "origin-forbidden"), "{request}");
    }
    assert_eq!((upstream.count(), issuer.asked().len()), (0, 0));
    for host in ["127.0.0.1:6468", "[::1]", "LOCALHOST:1"] {
        let request = job("/job", &good).replace("Host: localhost", &format!("Host: {host}"));
        assert_eq!(ask(&gateway, &request).await.outcome(), (200, ""), "{host}");
    }
}

#[tokio::test]
async fn a_name_that_is_none_has_the_codes_of_a_session() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    for (headers, expected) in [
        ("", (401, "session-missing")),
        ("X-Clerk-Session-Id: \r\n", (401, "session-missing")),
        ("X-Clerk-Session-Id: sess_1\r\nX-Clerk-Session-Id: sess_1\r\n", (400, "credential-ambiguous")),
        ("X-Clerk-Session-Id: ../users\r\n", (401, "session-invalid")),
        ("X-Clerk-Session-Id: sess_1?x\r\n", (401, "session-invalid")),
    ] {
        assert_eq!(ask(&gateway, &job("/job", &format!("{CALLER}{headers}"))).await.outcome(), expected, "{headers}");
    }
    // A session token is not looked at here.
    let bearer = issuer.bearer(&json!({}));
    assert_eq!(ask(&gateway, &job("/job", &format!("{CALLER}{bearer}"))).await.outcome(), (401, "session-missing"));
    assert_eq!(upstream.count(), 0);
    assert_eq!(ask(&gateway, &job("/optional", CALLER)).await.outcome(), (200, ""));
    assert_eq!(upstream.only().one("x-token"), None);
    let revoked = SessionId::new("sess_9").unwrap();
    gateway.revoked.revoke_session(revoked, Instant::now());
    let request = job("/job", &format!("{CALLER}X-Clerk-Session-Id: sess_9\r\n"));
    assert_eq!(ask(&gateway, &request).await.outcome(), (401, "session-revoked"));
}

/// A session's id does not say whose it is; its token does. Fails without the look at a token that was just minted, and
/// without the look at one that was kept.
#[tokio::test]
async fn a_revoked_users_session_that_is_only_named_is_refused() {
    let whose = |_, asked: &Asked| {
        let of_ann = asked.path.contains("sess_1");
        Ok(json!({ "sub": if of_ann { "user_ann" } else { "user_ben" } }))
    };
    let issuer = Issuer::minting(whose);
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    gateway.revoked.revoke_user(UserId::new("user_ann").unwrap(), Instant::now());
    for (sid, outcome) in [("1", (401, "session-revoked")), ("2", (200, "")), ("1", (401, "session-revoked"))] {
        let request = job("/job", &format!("{CALLER}X-Clerk-Session-Id: sess_{sid}\r\n"));
        assert_eq!(ask(&gateway, &request).await.outcome(), outcome, "sess_{sid}");
    }
    assert_eq!((upstream.count(), issuer.asked().len()), (1, 2));
}

#[tokio::test]
async fn a_named_session_shares_no_token_with_a_verified_one() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        ask(&gateway, &job("/verified", &issuer.bearer(&json!({})))).await;
        seen.push(claims(upstream.last().one("authorization").unwrap())["number"].as_u64().unwrap());
        ask(&gateway, &job("/job", &format!("{CALLER}X-Clerk-Session-Id: sess_1\r\n"))).await;
        seen.push(claims(upstream.last().one("authorization").unwrap())["number"].as_u64().unwrap());
    }
    assert_eq!(seen, [0, 1, 0, 1]);
    // Nor does the header name anybody on another route.
    let named = job("/verified", &format!("{CALLER}X-Clerk-Session-Id: sess_1\r\n"));
    assert_eq!(ask(&gateway, &named).await.outcome(), (401, "session-missing"));
}

/// A route whose sessions the callers on one Unix socket may name.
const OWN: &str = r#"
[[routes]]
name = "own"
match = { path = "/own", listener = "local" }
upstream = "{up}"
session = [{ session_id_header = "x-clerk-session-id", trust = "unverified" }]
inject = [{ header = "x-token", template = "t" }]
"#;

/// The routes, and a Unix socket beside the gateway's own address.
async fn on_a_socket(name: &str, routes: &str) -> (Gateway, Upstream, Issuer, PathBuf) {
    let path = std::env::temp_dir().join(format!("mintgate-it-{}-{name}.sock", std::process::id()));
    let (issuer, upstream) = (issuer(), Upstream::answering(OK).await);
    let boot = Boot::new(routes.replace("{up}", &upstream.url())).trusting(&issuer);
    let listen = format!("\"127.0.0.1:0\", {{ name = \"local\", address = \"unix:{}\" }}", path.display());
    let gateway = boot.listen(&listen).start().await;
    (gateway, upstream, issuer, path)
}

async fn ask_socket(path: &Path, request: &str) -> (u16, String) {
    let answer = Wire::over(UnixStream::connect(path).await.unwrap()).ask(request).await;
    let (status, code) = answer.outcome();
    (status, code.to_owned())
}

#[tokio::test]
async fn a_unix_socket_is_local_and_no_place_for_web_pages_either() {
    let (_gateway, upstream, _issuer, path) = on_a_socket("token", ROUTES).await;
    let good = job("/job", &format!("{CALLER}X-Clerk-Session-Id: sess_1\r\n"));
    assert_eq!(ask_socket(&path, &good).await, (200, String::new()));
    assert_eq!(upstream.count(), 1);
    for bad in [
        good.replace(CALLER, ""),
        good.replace(CALLER, &format!("{CALLER}Origin: http://localhost\r\n")),
        good.replace("Host: localhost", "Host: app.example"),
    ] {
        assert_eq!(ask_socket(&path, &bad).await, (403, "origin-forbidden".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn a_socket_that_the_route_names_needs_no_token() {
    let (gateway, upstream, _issuer, path) = on_a_socket("own", &format!("{ROUTES}{OWN}")).await;
    let request = job("/own", "X-Clerk-Session-Id: sess_1\r\n");
    assert_eq!(ask_socket(&path, &request).await, (200, String::new()));
    assert_eq!(claims(upstream.only().one("x-token").unwrap())["path"], "/v1/sessions/sess_1/tokens/t");
    for page in ["Origin: null\r\n", "Sec-Fetch-Dest: empty\r\n"] {
        let request = request.replace("\r\n\r\n", &format!("\r\n{page}\r\n"));
        assert_eq!(ask_socket(&path, &request).await, (403, "origin-forbidden".to_owned()), "{page}");
    }
    // Nobody comes to it by another way.
    assert_eq!(ask(&gateway, &request).await.outcome(), (404, "no-route"));
}
