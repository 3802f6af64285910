//! Callers that want to be taken for somebody else, or to be led past a route's rules.

use serde_json::json;

use super::frames::{END_HEADERS, END_STREAM, Fate, HEADERS, ROOT, fate, frame, hello, literal};
use crate::proxy::{MINTING, PUBLIC, behind, get, in_front_of, trusting};
use crate::support::gateway::{Boot, Gateway, PARTY};
use crate::support::http2;
use crate::support::issuer::Issuer;
use crate::support::upstream::{OK, Upstream};
use crate::support::websocket::{HANDSHAKE, echo};
use crate::support::wire::{Message, Wire};

const CLAIMS: &str = r#"
[[routes]]
name = "public"
match = { path = "/public" }
upstream = "{up}"
session = []

[[routes]]
name = "all"
upstream = "{up}"
session = ["bearer", "cookie"]
inject = [{ header = "x-user-id", claim = "sub" }]
"#;

const SPOOFS: &str = "X-User-Id: spoofed\r\nx_user_id: spoofed\r\nX-USER-ID: spoofed\r\nx.user.id: spoofed\r\nAuthorization: Basic spoofed\r\n";

fn clean(message: &Message) {
    assert!(!String::from_utf8_lossy(&message.raw).contains("spoofed"), "{message:?}");
}

/// Case 1. Fails without the names of `inject` in `Cleaner::always`, or where a tunnel or a request without its token
/// went another way than through `prepare`.
#[tokio::test]
async fn a_spoofed_header_leaves_a_websocket_and_a_request_whose_token_is_not_to_be_had() {
    let tables = MINTING
        .replace(
            "inject = [",
            "on_mint_error = \"pass\"\ninject = [{ header = \"x-user-id\", template = \"custom_hasura\" },",
        )
        .replace("upstream =", "session = [\"cookie\"]\nupstream =");
    let (gateway, upstream) = in_front_of(echo().await, &tables).await;
    let cookie = |gateway: &Gateway| format!("Cookie: __session={}; __client_uat=1\r\n", gateway.session_token("bob"));
    let headers = format!("{HANDSHAKE}Origin: {PARTY}\r\n{SPOOFS}{}", cookie(&gateway));
    let answer = Wire::connect(gateway.address).await.ask(get("/", &headers)).await;
    assert_eq!(answer.status(), 101);
    let seen = upstream.only();
    clean(&seen);
    assert!(seen.one("x-user-id").is_some() && seen.one("authorization").is_some());

    // An issuer that refuses.
    let refusal = "HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n";
    let (upstream, refusing) = (Upstream::answering(OK).await, Upstream::answering(refusal).await);
    let boot = Boot::new(tables.replace("{up}", &upstream.url())).issuer(refusing.address);
    let gateway = boot.start().await;
    let headers = format!("{SPOOFS}{}", cookie(&gateway));
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/", &headers)).await.outcome(), (200, ""));
    let seen = upstream.only();
    clean(&seen);
    assert_eq!((seen.one("x-user-id"), seen.one("authorization")), (None, None));
}

/// Case 4. Fails where `credential::find` takes the first line for the only one.
#[tokio::test]
async fn two_authorization_fields_are_nobody_over_http2_too() {
    let (gateway, upstream) = behind(CLAIMS).await;
    let (alice, bob) = (gateway.session_token("alice"), gateway.session_token("bob"));
    for (first, second) in [(&alice, &bob), (&alice, &alice)] {
        let mut client = http2::Client::connect(gateway.address).await;
        let request = http::Request::get("http://gateway.test/")
            .header("authorization", format!("Bearer {first}"))
            .header("authorization", format!("Bearer {second}"));
        let answer = client.ask(request.body(http2::empty()).unwrap()).await;
        assert_eq!(answer.outcome(), (400, "credential-ambiguous"));
    }
    assert_eq!(upstream.count(), 0);
}

/// Case 4, where nobody looks at `Authorization` and the upstream would have to choose. Fails without the count of them in
/// `Cleaner::request`.
#[tokio::test]
async fn two_authorization_fields_reach_no_upstream_although_nobody_looks_at_them() {
    let (gateway, upstream) = behind(CLAIMS).await;
    let two = "Authorization: Basic YTpi\r\nAuthorization: Basic Yzpk\r\n";
    let cookie = format!("Origin: {PARTY}\r\nCookie: __session={}; __client_uat=1\r\n", gateway.session_token("bob"));
    let answer = Wire::connect(gateway.address).await.ask(get("/public", two)).await;
    assert_eq!(answer.outcome(), (400, "request-malformed"));
    let mut client = http2::Client::connect(gateway.address).await;
    let request = http::Request::get("http://gateway.test/public");
    let request = request.header("authorization", "Basic YTpi").header("authorization", "Basic YTpi");
    let answer = client.ask(request.body(http2::empty()).unwrap()).await;
    assert_eq!(answer.outcome(), (400, "request-malformed"));
    assert_eq!(upstream.count(), 0);
    // One is the caller's to send, beside a session in a cookie too.
    let one = "Authorization: Basic YTpi\r\n";
    for (path, headers) in [("/public", one.to_owned()), ("/public", format!("{one}{cookie}"))] {
        assert_eq!(Wire::connect(gateway.address).await.ask(get(path, &headers)).await.status(), 200, "{path}");
        assert_eq!(upstream.last().one("authorization"), Some("Basic YTpi"), "{path}");
    }
    // Where it is injected on another route to this upstream, none of them leaves the gateway.
    let tables = format!("{PUBLIC}match = {{ path = \"/public\" }}\n{MINTING}");
    let (gateway, upstream) = behind(&tables.replacen("name = \"all\"", "name = \"public\"", 1)).await;
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/public", two)).await.status(), 200);
    assert_eq!(upstream.only().one("authorization"), None);
}

/// Case 6. Fails where cookies are read out of the first `Cookie` field only, or out of each for itself.
#[tokio::test]
async fn crumbs_of_cookies_are_read_as_one_header() {
    let (gateway, upstream) = behind(CLAIMS).await;
    let (alice, bob) = (gateway.session_token("alice"), gateway.session_token("bob"));
    let ask = async |crumbs: &[String]| {
        let mut client = http2::Client::connect(gateway.address).await;
        let mut request = http::Request::get("http://gateway.test/");
        for crumb in crumbs {
            request = request.header("cookie", crumb);
        }
        let answer = client.ask(request.body(http2::empty()).unwrap()).await;
        (answer.status, answer.outcome().1.to_owned())
    };
    let (session, uat) = (format!("__session={alice}"), "__client_uat=1".to_owned());
    let crumbs = ["theme=dark".to_owned(), session.clone(), uat.clone(), "lang=de".to_owned()];
    assert_eq!(ask(&crumbs).await, (200, String::new()));
    let seen = upstream.only();
    assert_eq!(seen.one("x-user-id"), Some("user_emulator_alice"));
    assert!(!String::from_utf8_lossy(&seen.raw).contains(&alice), "{seen:?}");
    let cookies = seen.all("cookie").join("; ");
    assert_eq!(cookies, "theme=dark; lang=de");
    let two = [session.clone(), uat.clone(), format!("__session={bob}")];
    assert_eq!(ask(&two).await, (400, "credential-ambiguous".to_owned()));
    let hidden = [session, uat, format!("a=b; __session={bob}")];
    assert_eq!(ask(&hidden).await, (400, "credential-ambiguous".to_owned()));
    assert_eq!(upstream.count(), 1);
}

/// Case 7. Fails where an absent `azp` passes a list of parties; and where an answer of ours set a cookie.
#[tokio::test]
async fn a_session_of_another_application_is_refused_and_no_answer_sets_a_cookie() {
    let issuer = Issuer::minting(|_, _| Ok(json!({})));
    let (gateway, upstream) = trusting(&issuer, CLAIMS).await;
    for (azp, status) in [
        (json!(null), 401),
        (json!("https://evil.example"), 401),
        (json!("https://app.example.com.evil.example"), 401),
        (json!(PARTY), 200),
    ] {
        let token = issuer.session(&json!({ "azp": azp }));
        let uat = "__client_uat=1";
        for header in [format!("Authorization: Bearer {token}\r\n"), format!("Cookie: __session={token}; {uat}\r\n")] {
            let answer = Wire::connect(gateway.address).await.ask(get("/", &header)).await;
            assert_eq!(answer.status(), status, "{azp} {header}");
            assert_eq!(answer.all("set-cookie"), Vec::<&str>::new());
        }
    }
    assert_eq!(upstream.count(), 2);
}

/// Cases 8 and 9. Fails where anything but method, host, path and a verified session decided, and where a probe or the
/// metrics were answered on a data port.
#[tokio::test]
async fn no_header_and_no_probe_path_opens_what_is_protected() {
    let (gateway, upstream) = behind(CLAIMS).await;
    for path in ["/", "/livez", "/readyz", "/startupz", "/metrics", "/healthz", "/ping", "/ready", "/public-not"] {
        for headers in [
            "",
            "User-Agent: kube-probe/1.31\r\n",
            "User-Agent: GoogleHC/1.0\r\n",
            "User-Agent: ELB-HealthChecker/2.0\r\n",
            "X-Forwarded-Uri: /public\r\nX-Forwarded-Method: OPTIONS\r\n",
            "X-Original-URL: /public\r\nX-Rewrite-URL: /public\r\n",
            "X-HTTP-Method-Override: OPTIONS\r\nX-Method-Override: OPTIONS\r\n",
            "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
            "X-Forwarded-Host: localhost\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n",
            "X-Forwarded-User: alice\r\nX-Auth-Request-User: alice\r\nRemote-User: alice\r\n",
        ] {
            let answer = Wire::connect(gateway.address).await.ask(get(path, headers)).await;
            assert_eq!(answer.outcome(), (401, "session-missing"), "{path} {headers}");
        }
    }
    assert_eq!(upstream.count(), 0);
}

/// Case 11. Fails where a route is looked for by more of the target than its path, or a fragment is part of it.
#[tokio::test]
async fn a_query_and_a_fragment_are_no_part_of_what_is_matched() {
    let (gateway, upstream) = behind(CLAIMS).await;
    for target in ["/admin?/public", "/?/public/", "/admin?x=/../public", "/admin#/public", "/?#/public", "/#?/public"]
    {
        let answer = Wire::connect(gateway.address).await.ask(get(target, "")).await;
        assert!(matches!(answer.status(), 400 | 401), "{target}: {}", answer.start);
        let path = [&[0x82, 0x86, 0x41, 1, b'a'][..], &literal(b":path", target.as_bytes())].concat();
        let mut client = Wire::connect(gateway.address).await;
        client.send([hello(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &path)].concat()).await;
        assert!(fate(&mut client).await != Fate::Ok, "{target}");
    }
    assert_eq!(upstream.count(), 0);
    let public = "/public?next=/admin/../x&y=%2e%2e%2f";
    assert_eq!(Wire::connect(gateway.address).await.ask(get(public, "")).await.status(), 200);
    assert_eq!(upstream.only().start, format!("GET {public} HTTP/1.1"));
}

/// Cases 12 and 13 over HTTP/2, CVE-2026-33186. Fails without the check of the scheme in `request::host` (gopher), and
/// for the others with an h2 that takes them.
#[tokio::test]
async fn an_odd_target_over_http2_reaches_nobody() {
    let (gateway, upstream) = behind(PUBLIC).await;
    let pseudo = |fields: &[(&str, &str)]| {
        fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect::<Vec<u8>>()
    };
    let (get, http, a) = ((":method", "GET"), (":scheme", "http"), (":authority", "a"));
    for fields in [
        &[get, (":scheme", "gopher"), a, (":path", "/")][..],
        &[get, http, a, (":path", "foo")],
        &[get, http, a, (":path", "*")],
        &[get, http, a, (":path", "")],
        &[get, http, a, (":path", "http://evil/")],
        &[get, http, a],
        &[get, http, (":path", "/")],
        &[get, http, ("host", ""), (":path", "/")],
        &[get, http, (":authority", "u@a"), (":path", "/")],
        &[get, http, a, (":authority", "b"), (":path", "/")],
        &[get, http, a, (":path", "/"), (":path", "/b")],
        &[get, http, a, (":path", "/"), ("host", "b")],
        &[get, http, a, (":path", "/"), ("host", "a"), ("host", "a")],
        &[("host", "a"), get, http, a, (":path", "/")],
        &[(":method", "CONNECT"), (":authority", "evil:80")],
        &[(":method", "CONNECT"), http, (":authority", "evil:80"), (":path", "/")],
    ] {
        let mut client = Wire::connect(gateway.address).await;
        client.send([hello(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &pseudo(fields))].concat()).await;
        assert!(fate(&mut client).await != Fate::Ok, "{fields:?}");
    }
    assert_eq!(upstream.count(), 0);
    let mut client = Wire::connect(gateway.address).await;
    client.send([hello(), frame(HEADERS, END_STREAM | END_HEADERS, 1, ROOT)].concat()).await;
    assert_eq!(fate(&mut client).await, Fate::Ok);
}

/// Case 27. Fails where a user, a session, a `kid`, a path, a host or a method became a label.
#[tokio::test]
async fn callers_make_no_new_metric() {
    let issuer = Issuer::minting(|_, asked| Ok(json!({ "sid": asked.path.split('/').nth(3).unwrap() })));
    let (gateway, upstream) = trusting(&issuer, MINTING).await;
    let series = async || {
        let scrape = Wire::connect(gateway.admin).await.ask("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        let lines = scrape.text().lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    let mut client = Wire::connect(gateway.address).await;
    let mut round = async |number: usize| {
        let token = issuer.session(&json!({ "sid": format!("sess_{number}"), "sub": format!("user_{number}") }));
        let host = format!("h{number}.test");
        for (method, credential, status) in [
            ("GET", format!("Authorization: Bearer {token}\r\n"), 200),
            ("GET", format!("Authorization: Bearer bad{number}\r\n"), 401),
            (format!("M{number}").as_str(), String::new(), 401),
        ] {
            let request = format!(
                "{method} /p{number} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: u{number}\r\nx-{number}: 1\r\n{credential}\r\n"
            );
            assert_eq!(client.ask(request).await.status(), status, "{number} {credential}");
        }
    };
    round(0).await;
    let before = series().await;
    for number in 1..100 {
        round(number).await;
    }
    assert_eq!(upstream.count(), 100);
    let after = series().await;
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
}
