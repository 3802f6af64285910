//! Who the upstream believes the caller to be: tokens, credentials, spoofed headers.

use super::{MINTING, behind, get};
use crate::support::gateway::Boot;
use crate::support::http2;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::{Message, Wire};

/// Three routes to one upstream: what any of them injects is nobody's to say on all of them.
const THREE: &str = r#"
[upstreams.up]
url = "{up}"
remove_headers = ["x-hasura-*"]

[[routes]]
name = "tokens"
match = { path = "/tokens" }
upstream = "up"
keep_headers = ["x-hasura-role", "x-other-token", "x-user-id"]
inject = [
  { header = "authorization", prefix = "Bearer ", template = "custom_hasura" },
  { header = "x-user-id", claim = "sub" },
]

[[routes]]
name = "other"
match = { path = "/other" }
upstream = "up"
inject = [{ header = "x-other-token", template = "plain" }]

[[routes]]
name = "public"
match = { path = "/public" }
upstream = "up"
session = []
"#;

const SPOOFS: [&str; 18] = [
    "X-User-Id",
    "x_user_id",
    "x.user.id",
    "X~User!Id",
    "x.hasura.user.id",
    "X-User_Id",
    "X-Other-Token",
    "x_other_token",
    "X-Mintgate-Caller",
    "x_mintgate_anything",
    "X-Hasura-User-Id",
    "X_Hasura_Admin_Secret",
    "X-Forwarded-User",
    "X_Forwarded_For",
    "X-Real-IP",
    "x_real_ip",
    "X-Request_Id",
    "Proxy-Authorization",
];

fn spoofed(names: &[&str]) -> String {
    names.iter().map(|name| [name, ": spoofed\r\n"].concat()).collect::<Vec<_>>().concat()
}

fn says_spoofed(message: &Message) -> bool {
    String::from_utf8_lossy(&message.raw).contains("spoofed")
}

#[tokio::test]
async fn the_minted_token_reaches_the_upstream_and_the_credential_does_not() {
    let (gateway, upstream) = behind(MINTING).await;
    let session = gateway.session_token("alice");
    let mut client = Wire::connect(gateway.address).await;
    let request = get("/x", &format!("Authorization: Bearer {session}\r\n"));
    let answer = client.ask(&request).await;
    assert_eq!((answer.outcome(), answer.text()), ((200, ""), "ok"));
    let seen = upstream.only();
    let minted = seen.one("authorization").unwrap();
    assert!(minted.starts_with("Bearer ey") && !seen.raw.windows(session.len()).any(|part| part == session.as_bytes()));
    client.ask(&request).await;
    assert_eq!((upstream.last().one("authorization"), gateway.mints()), (Some(minted), 1));
}

#[tokio::test]
async fn workers_on_threads_serve_the_same() {
    let upstream = Upstream::answering(OK).await;
    let gateway = Boot::new(MINTING.replace("{up}", &upstream.url())).server("workers = 2").threads().start().await;
    for _ in 0..4 {
        let mut client = Wire::connect(gateway.address).await;
        assert_eq!(client.ask(get("/", &gateway.bearer("bob"))).await.status(), 200);
    }
    assert_eq!((upstream.requests().len(), gateway.mints()), (4, 1));
}

#[tokio::test]
async fn two_users_on_one_connection_never_get_each_others_token() {
    let (gateway, upstream) = behind(MINTING).await;
    let mut client = Wire::connect(gateway.address).await;
    let mut tokens = Vec::new();
    for user in ["alice", "bob", "alice", "bob"] {
        client.ask(get("/", &gateway.bearer(user))).await;
        tokens.push(upstream.last().one("authorization").unwrap().to_owned());
    }
    assert!(tokens[0] == tokens[2] && tokens[1] == tokens[3] && tokens[0] != tokens[1]);
}

/// Cases 1 and 2. Fails for `x-other-token` when `keep_headers` keeps more than `remove_headers` takes.
#[tokio::test]
async fn spoofed_headers_leave_on_every_route() {
    let (gateway, upstream) = behind(THREE).await;
    let mut client = Wire::connect(gateway.address).await;
    let bearer = gateway.bearer("alice");
    for (path, credential) in
        [("/public", "Authorization: Bearer spoofed\r\n"), ("/tokens", &bearer), ("/other", &bearer)]
    {
        let headers = format!("{credential}{}x_own_name: kept\r\n", spoofed(&SPOOFS));
        assert_eq!(client.ask(get(path, &headers)).await.outcome(), (200, ""), "{path}");
        let seen = upstream.last();
        assert!(!says_spoofed(&seen), "{seen:?}");
        assert_eq!(seen.one("x_own_name"), Some("kept"));
        assert_eq!(seen.one("authorization").is_some(), path == "/tokens");
        assert_eq!(seen.one("x-user-id"), (path == "/tokens").then_some("user_emulator_alice"));
        assert_eq!(seen.one("x-other-token").is_some(), path == "/other");
    }
}

/// Fails without the targets of other routes, `x-mintgate-*` or the forwarding headers among what leaves.
#[tokio::test]
async fn spoofed_headers_leave_over_http2_too() {
    let (gateway, upstream) = behind(THREE).await;
    let mut client = http2::Client::connect(gateway.address).await;
    let mut request = http::Request::get(format!("http://{}/public", gateway.address));
    for name in SPOOFS {
        request = request.header(name, "spoofed").header(name, "spoofed twice");
    }
    assert_eq!(client.ask(request.body(http2::empty()).unwrap()).await.outcome(), (200, ""));
    assert!(!says_spoofed(&upstream.only()));
}

#[tokio::test]
async fn a_route_may_keep_what_its_upstream_removes() {
    let (gateway, upstream) = behind(THREE).await;
    let mut client = Wire::connect(gateway.address).await;
    let headers = format!("{}X-Hasura-Role: editor\r\nX-Hasura-User-Id: 1\r\n", gateway.bearer("alice"));
    client.ask(get("/tokens", &headers)).await;
    let seen = upstream.only();
    assert_eq!((seen.one("x-hasura-role"), seen.one("x-hasura-user-id")), (Some("editor"), None));
}

/// Fails when `remove_headers`, the forwarding headers or `HEAD_ONLY` are not among the names of `Cleaner::trailers`.
#[tokio::test]
async fn spoofed_trailers_leave_and_others_pass() {
    let (gateway, upstream) = behind(THREE).await;
    let head_only = [
        "Authorization",
        "Cookie",
        "Content-Encoding",
        "Content-Length",
        "Content-Range",
        "Content-Type",
        "Host",
        "Set-Cookie",
        "Trailer",
        "Transfer-Encoding",
    ];
    let names = [&SPOOFS[..], &head_only].concat();
    let body = format!("5\r\nhello\r\n0\r\n{}X-Checksum: 42\r\n\r\n", spoofed(&names));
    let head = format!(
        "POST /tokens HTTP/1.1\r\nHost: a\r\n{}Transfer-Encoding: chunked\r\nTrailer: x-checksum, {}\r\n\r\n",
        gateway.bearer("alice"),
        names.join(", ")
    );
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(head + &body).await.outcome(), (200, ""));
    let seen = upstream.only();
    assert_eq!(seen.body, b"hello");
    assert_eq!(seen.trailers, [("x-checksum".to_owned(), "42".to_owned())]);
}

/// Fails without `drop_cookie`: where there is no value, nothing stands in the place of the caller's.
#[tokio::test]
async fn the_callers_cookies_leave_where_a_route_sets_the_header_itself() {
    let tables = r#"
[[routes]]
name = "cookie"
upstream = "{up}"
on_no_session = "pass"
inject = [{ header = "cookie", prefix = "user=", claim = "sub" }]
"#;
    let (gateway, upstream) = behind(tables).await;
    let mut client = Wire::connect(gateway.address).await;
    for (credential, expected) in [(String::new(), false), (gateway.bearer("alice"), true)] {
        client.ask(get("/", &format!("{credential}Cookie: user=spoofed; a=1\r\nCookie: b=2\r\n"))).await;
        let seen = upstream.last();
        assert_eq!((seen.one("cookie").is_some(), says_spoofed(&seen)), (expected, false));
    }
}

/// Fails when `protected` is not looked at, and without the targets of other routes in it.
#[tokio::test]
async fn connection_may_not_name_what_is_ours_or_the_messages() {
    let (gateway, upstream) = behind(THREE).await;
    let names = [
        "authorization",
        "Authorization",
        "cookie",
        "host",
        "content-length",
        "transfer-encoding",
        "x-user-id",
        "X_User_Id",
        "x-other-token",
        "close, x-user-id",
        ",,X-USER-ID ,",
    ];
    for name in names {
        for headers in [format!("Connection: {name}\r\n"), format!("Connection: keep-alive\r\nConnection: {name}\r\n")]
        {
            let mut client = Wire::connect(gateway.address).await;
            let answer = client.ask(get("/tokens", &format!("{}{headers}", gateway.bearer("alice")))).await;
            assert_eq!(answer.outcome(), (400, "request-malformed"), "{headers}");
        }
    }
    assert_eq!(upstream.count(), 0);
}

/// Fails when what `Connection` names stays.
#[tokio::test]
async fn what_connection_names_leaves_with_it() {
    let (gateway, upstream) = behind(THREE).await;
    let headers = "Connection: x-once, keep-alive\r\nconnection: x-twice\r\nX-Once: 1\r\nX-Twice: 2\r\nX-Thrice: 3\r\n\
                   Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n";
    let mut client = Wire::connect(gateway.address).await;
    client.ask(get("/public", headers)).await;
    let seen = upstream.only();
    for name in ["connection", "x-once", "x-twice", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"]
    {
        assert_eq!(seen.one(name), None, "{name}");
    }
    assert_eq!(seen.one("x-thrice"), Some("3"));
}

/// Fails when one of the forwarding headers is not among those that leave.
#[tokio::test]
async fn an_untrusted_peer_cannot_say_who_called() {
    let (gateway, upstream) = behind(THREE).await;
    let headers = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                   Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Request-Id: mine\r\ntraceparent: 00-a\r\n\
                   X-Real-IP: 6.6.6.6\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /evil\r\nX_Forwarded_For: 6.6.6.6\r\n";
    Wire::connect(gateway.address).await.ask(get("/public", headers)).await;
    let seen = upstream.only();
    assert_eq!(seen.one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.one("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.one("x-forwarded-host"), Some("gateway.test"));
    assert_eq!(seen.one("forwarded"), Some("for=127.0.0.1;host=\"gateway.test\";proto=http"));
    assert_eq!(seen.one("traceparent"), Some("00-a"));
    assert!(seen.one("x-request-id").is_some_and(|id| id != "mine"));
    // What mintgate does not set in their place leaves all the same.
    for gone in ["x-real-ip", "x-forwarded-port", "x-forwarded-prefix", "x_forwarded_for"] {
        assert_eq!(seen.one(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn a_trusted_peer_is_believed_and_continued() {
    let upstream = Upstream::answering(OK).await;
    let boot = Boot::new(THREE.replace("{up}", &upstream.url())).server("trusted_proxies = [\"loopback\"]");
    let gateway = boot.start().await;
    let headers = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
                   X-Forwarded-Host: app.test\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: 0b7ce2f4-5f3f-4a4c-8e6f-000000000001\r\n\
                   X-Real-IP: 6.6.6.6\r\n";
    Wire::connect(gateway.address).await.ask(get("/public", headers)).await;
    let seen = upstream.only();
    assert_eq!(seen.one("x-forwarded-for"), Some("6.6.6.6, 7.7.7.7, 127.0.0.1"));
    assert_eq!(seen.one("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.one("x-forwarded-host"), Some("app.test"));
    assert_eq!(seen.one("forwarded"), Some("for=6.6.6.6, for=127.0.0.1;host=\"gateway.test\";proto=http"));
    assert_eq!(seen.one("x-real-ip"), Some("6.6.6.6"));
    assert_eq!(seen.one("x-request-id"), Some("0b7ce2f4-5f3f-4a4c-8e6f-000000000001"));
}

#[tokio::test]
async fn nothing_of_ours_contradicts_what_a_trusted_peer_said() {
    let upstream = Upstream::answering(OK).await;
    let boot = Boot::new(THREE.replace("{up}", &upstream.url())).server("trusted_proxies = [\"loopback\"]");
    let gateway = boot.start().await;
    let own = "for=127.0.0.1;host=\"gateway.test\";proto=http";
    for (headers, forwarded, proto) in [
        ("X-Forwarded-Proto: https\r\n", None, "https"),
        ("X-Forwarded-For: 6.6.6.6\r\n", None, "http"),
        ("X-Forwarded-Host: app.test\r\n", None, "http"),
        ("", Some(own.to_owned()), "http"),
        ("X-Forwarded-Proto: https\r\nForwarded: proto=https\r\n", Some(format!("proto=https, {own}")), "https"),
    ] {
        Wire::connect(gateway.address).await.ask(get("/public", headers)).await;
        let seen = upstream.last();
        assert_eq!(seen.one("forwarded"), forwarded.as_deref(), "{headers}");
        assert_eq!(seen.one("x-forwarded-proto"), Some(proto), "{headers}");
    }
}

#[tokio::test]
async fn every_source_of_a_value_is_injected() {
    let (gateway, upstream) = behind(
        r#"
[[routes]]
name = "all"
match = { path = "/" }
upstream = "{up}"
inject = [
  { header = "x-sub", claim = "sub" },
  { header = "x-role", claim = "org_role" },
  { header = "x-pointer", claim = "/sub", prefix = "user:" },
  { header = "x-absent", claim = "/no/such/claim" },
  { header = "x-session-token", session_token = true },
  { header = "apikey", value = { env = "FIXED_VALUE" } },
]

[[routes]]
name = "strict"
match = { path = "/strict" }
upstream = "{up}"
inject = [{ header = "x-org", claim = "org_id", required = true }]

[[routes]]
name = "public"
match = { path = "/public" }
upstream = "{up}"
session = []
inject = [{ header = "apikey", value = { env = "FIXED_VALUE" } }]
"#,
    )
    .await;
    let mut client = Wire::connect(gateway.address).await;
    let token = gateway.session_token("alice");
    let answer = client.ask(get("/", &format!("Authorization: Bearer {token}\r\nx-absent: spoofed\r\n"))).await;
    assert_eq!(answer.outcome(), (200, ""));
    let seen = upstream.last();
    for (name, value) in [
        ("x-sub", Some("user_emulator_alice")),
        ("x-role", Some("org:admin")),
        ("x-pointer", Some("user:user_emulator_alice")),
        ("x-absent", None),
        ("x-session-token", Some(token.as_str())),
        ("apikey", Some("fixed-value")),
        ("authorization", None),
    ] {
        assert_eq!(seen.one(name), value, "{name}");
    }
    assert_eq!(client.ask(get("/strict", &gateway.bearer("alice"))).await.outcome(), (200, ""));
    assert_eq!(upstream.last().one("x-org"), Some("org_emulator_acme"));
    assert_eq!(client.ask(get("/strict", &gateway.bearer("bob"))).await.outcome(), (502, "token-unfit"));
    client.ask(get("/public", "apikey: spoofed\r\n")).await;
    assert_eq!(upstream.last().one("apikey"), Some("fixed-value"));
    assert_eq!(gateway.mints(), 0);
}
