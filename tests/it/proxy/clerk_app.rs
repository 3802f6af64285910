//! `clerk_app`: the upstream runs Clerk's SDK and judges the session itself.

use mintgate::session::SessionId;
use serde_json::json;
use tokio::time::Instant;

use super::{get, trusting};
use crate::support::issuer::Issuer;
use crate::support::wire::{Message, Wire};

const ROUTES: &str = r#"
[[routes]]
name = "app"
match = { path = "/app" }
upstream = "{up}"
clerk_app = true
inject = [
  { header = "x-token", template = "t" },
  { header = "x-user-id", claim = "sub" },
  { header = "x-fixed", value = { env = "FIXED_VALUE" } },
]

[[routes]]
name = "own"
match = { path = "/own" }
upstream = "{up}"
clerk_app = true
inject = [{ header = "authorization", prefix = "Bearer ", template = "t" }]

[[routes]]
name = "api"
match = { path = "/api" }
upstream = "{up}"
inject = [{ header = "authorization", prefix = "Bearer ", template = "t" }]
"#;

fn issuer() -> Issuer {
    Issuer::minting(|_, _| Ok(json!({})))
}

/// `Cookie` as a browser has it.
fn cookies(token: &str) -> String {
    format!("a=1; __session={token}; __client_uat=1; __clerk_db_jwt=dev; __refresh_x=r; __clerk_handshake=h")
}

fn injected(seen: &Message) -> (bool, Option<&str>, Option<&str>) {
    (seen.one("x-token").is_some(), seen.one("x-user-id"), seen.one("x-fixed"))
}

#[tokio::test]
async fn a_good_session_passes_whole_and_gets_its_tokens() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let token = issuer.session(&json!({}));
    let mut client = Wire::connect(gateway.address).await;
    client.ask(get("/app?__clerk_handshake=x&b", &format!("Authorization: Bearer {token}\r\n"))).await;
    let seen = upstream.last();
    assert_eq!(seen.one("authorization"), Some(format!("Bearer {token}").as_str()));
    assert_eq!(injected(&seen), (true, Some("user_1"), Some("fixed-value")));
    assert!(seen.start.starts_with("GET /app?__clerk_handshake=x&b "), "{}", seen.start);
    let line = cookies(&token);
    let answer = client.ask(get("/app", &format!("Cookie: {line}\r\n"))).await;
    let seen = upstream.last();
    assert_eq!((seen.one("cookie"), seen.one("x-user-id")), (Some(line.as_str()), Some("user_1")));
    assert_eq!(answer.one("cache-control"), Some("private"));
}

#[tokio::test]
async fn a_bad_session_counts_as_none_and_reaches_the_application_as_it_is() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let good = issuer.session(&json!({}));
    let expired = issuer.session(&json!({ "exp": 1, "iat": 0, "nbf": 0 }));
    let other = issuer.session(&json!({ "sid": "sess_2" }));
    let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
    let pending = issuer.session(&json!({ "sts": "pending" }));
    let foreign = issuer.session(&json!({ "azp": "https://evil.example" }));
    let mut requests = vec![
        String::new(),
        "Authorization: Bearer ak_key\r\n".to_owned(),
        "Authorization: Basic dTpw\r\n".to_owned(),
        format!("Cookie: a=1; __session={good}; __client_uat=0\r\n"),
        format!("Authorization: Bearer {forged}\r\nCookie: {}\r\n", cookies(&good)),
    ];
    for token in [&expired, &forged, &pending, &foreign] {
        requests.push(format!("Authorization: Bearer {token}\r\n"));
        requests.push(format!("Cookie: {}\r\n", cookies(token)));
    }
    let mut client = Wire::connect(gateway.address).await;
    for headers in requests {
        let spoofed = format!("{headers}X-Token: spoofed\r\nX_User_Id: spoofed\r\nX-Fixed: spoofed\r\n");
        let answer = client.ask(get("/app", &spoofed)).await;
        assert_eq!(answer.outcome(), (200, ""), "{headers}");
        let seen = upstream.last();
        assert_eq!(injected(&seen), (false, None, Some("fixed-value")), "{headers}");
        assert!(!String::from_utf8_lossy(&seen.raw).contains("spoofed"), "{seen:?}");
        for line in headers.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(seen.one(&name.to_ascii_lowercase()), Some(value), "{headers}");
        }
    }
    assert!(issuer.asked().is_empty());
}

#[tokio::test]
async fn a_revoked_session_reaches_the_application_as_nobody() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    gateway.revoked.revoke_session(SessionId::new("sess_1").unwrap(), Instant::now());
    let token = issuer.session(&json!({}));
    let mut client = Wire::connect(gateway.address).await;
    for headers in [format!("Authorization: Bearer {token}\r\n"), format!("Cookie: {}\r\n", cookies(&token))] {
        assert_eq!(client.ask(get("/app", &headers)).await.outcome(), (200, ""));
        let seen = upstream.last();
        assert!(!String::from_utf8_lossy(&seen.raw).contains(&token), "its SDK would believe it: {seen:?}");
        assert_eq!(injected(&seen), (false, None, Some("fixed-value")));
    }
    assert_eq!(upstream.last().one("cookie"), Some("a=1"));
    assert_eq!(client.ask(get("/api", &issuer.bearer(&json!({})))).await.outcome(), (401, "session-revoked"));
}

/// Each of these is no credential to us and one to some Clerk SDK: it must not carry past us what was revoked.
#[tokio::test]
async fn what_an_sdk_reads_more_leniently_does_not_reach_it_unjudged() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let token = issuer.session(&json!({}));
    let escaped = format!("%{:02x}{}", token.as_bytes()[0], &token[1..]);
    let mut client = Wire::connect(gateway.address).await;
    for headers in [
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        format!("Authorization: Bearer {token}=\r\n"),
        format!("Cookie: a=1; __session={token}; __session=x; __client_uat=1\r\n"),
        format!("Cookie: a=1; __session=\"{token}\"; __client_uat=1\r\n"),
        format!("Cookie: a=1; __session={escaped}; __client_uat=1\r\n"),
        format!("Cookie: a=1; __session={token}; __client_uat=%31\r\n"),
        format!("Cookie: a=1; __session={token}; __client_uat=1; __client_uat=0\r\n"),
    ] {
        assert_eq!(client.ask(get("/app", &headers)).await.outcome(), (200, ""), "{headers}");
        let seen = upstream.last();
        assert!(!String::from_utf8_lossy(&seen.raw).contains(&token[1..]), "{headers}: {seen:?}");
        assert_eq!(injected(&seen), (false, None, Some("fixed-value")));
    }
    assert!(issuer.asked().is_empty());
}

#[tokio::test]
async fn no_other_session_than_the_judged_one_reaches_the_application() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let good = issuer.session(&json!({}));
    let other = issuer.session(&json!({ "sid": "sess_2", "sub": "user_2" }));
    let mut client = Wire::connect(gateway.address).await;
    for (headers, cookie) in [
        // JavaScript's SDK takes this scheme for another one, and reads the cookie.
        (
            format!("Authorization: bearer {good}\r\nCookie: a=1; __session={other}; __client_uat=1\r\n"),
            "a=1; __client_uat=1".to_owned(),
        ),
        // Python's takes the first cookie that begins so.
        (
            format!("Cookie: __session_other={other}; __session={good}; __client_uat=1\r\n"),
            format!("__session={good}; __client_uat=1"),
        ),
    ] {
        client.ask(get("/app", &headers)).await;
        let seen = upstream.last();
        assert_eq!((seen.one("x-user-id"), seen.one("cookie")), (Some("user_1"), Some(cookie.as_str())), "{headers}");
    }
}

#[tokio::test]
async fn a_foreign_or_pending_session_is_judged_to_the_end() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let foreign = json!({ "azp": "https://evil.example", "o": { "id": "org_1", "rol": "member" } });
    let mut client = Wire::connect(gateway.address).await;
    gateway.revoked.revoke_session(SessionId::new("sess_1").unwrap(), Instant::now());
    for claims in [foreign, json!({ "sts": "pending" })] {
        let token = issuer.session(&claims);
        client.ask(get("/app", &format!("Authorization: Bearer {token}\r\n"))).await;
        assert_eq!(upstream.last().one("authorization"), None, "{claims}");
    }
}

#[tokio::test]
async fn a_session_that_the_issuer_has_ended_reaches_the_application_as_nobody() {
    let issuer = Issuer::minting(|_, _| Err(404));
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    // Older than the ten seconds in which the issuer might not know it yet.
    let iat = mintgate::clock::Clock::system().wall().as_seconds() - 30;
    let token = issuer.session(&json!({ "iat": iat }));
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/app", &format!("Cookie: {}\r\n", cookies(&token)))).await.outcome(), (200, ""));
    let seen = upstream.only();
    assert_eq!((seen.one("cookie"), injected(&seen)), (Some("a=1"), (false, None, Some("fixed-value"))));
    let api = client.ask(get("/api", &format!("Authorization: Bearer {token}\r\n"))).await;
    assert_eq!(api.outcome(), (401, "session-ended"));
}

/// Fails for `Basic` when a route's own target leaves like another route's alone: `Bearer bad` leaves in any case, as what
/// an SDK might believe.
#[tokio::test]
async fn its_own_target_leaves_with_or_without_a_session() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let token = issuer.session(&json!({}));
    let mut client = Wire::connect(gateway.address).await;
    client.ask(get("/own", &format!("Cookie: {}\r\n", cookies(&token)))).await;
    let seen = upstream.last();
    assert!(seen.one("authorization").unwrap().starts_with("Bearer ") && seen.one("cookie").unwrap().contains(&token));
    for nobodys in ["Basic dTpw", "Bearer bad"] {
        client.ask(get("/own", &format!("Authorization: {nobodys}\r\n"))).await;
        assert_eq!(upstream.last().one("authorization"), None, "{nobodys}");
    }
    client.ask(get("/app", "Authorization: Basic dTpw\r\n")).await;
    assert_eq!(
        upstream.last().one("authorization"),
        Some("Basic dTpw"),
        "another route's target is none of this one's"
    );
}

#[tokio::test]
async fn the_guard_of_cookies_holds_and_a_preflight_passes() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let line = cookies(&issuer.session(&json!({})));
    let mut client = Wire::connect(gateway.address).await;
    let post = format!(
        "POST /app HTTP/1.1\r\nHost: gateway.test\r\nOrigin: https://evil.example\r\nCookie: {line}\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(client.ask(post).await.outcome(), (403, "origin-forbidden"));
    let preflight = "OPTIONS /app HTTP/1.1\r\nHost: gateway.test\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n";
    assert_eq!(client.ask(preflight).await.outcome(), (200, ""));
    assert_eq!(injected(&upstream.only()), (false, None, Some("fixed-value")));
}
