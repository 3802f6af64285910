//! `[authz]`: what proxies that forward by themselves are told, in each of their dialects. tests/authz asks as the proxies
//! themselves do.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use mintgate::authz::message::{
    Allowed, Attributes, CheckRequest, CheckResponse, Denied, Entry, HeaderMap, HeaderValue, HeaderValueOption, Http,
    HttpRequest, Request as Inner,
};
use prost::Message as _;
use tokio::net::UnixStream;

use crate::harness::claims;
use crate::support::directory::Directory;
use crate::support::gateway::{Boot, Gateway, PARTY};
use crate::support::http2;
use crate::support::tls::Authority;
use crate::support::wire::{Message, Wire};

const AUTHZ: &str = "[authz]\nlisten = \"127.0.0.1:0\"\n";

const ROUTES: &str = r#"
[upstreams.app]
url = "http://127.0.0.1:1"
remove_headers = ["x-app-*"]

[[routes]]
name = "app"
match = { host = "app.test", path = "/app" }
upstream = "app"
inject = [
  { header = "authorization", prefix = "Bearer ", template = "plain" },
  { header = "x-user-id", claim = "sub" },
]

[[routes]]
name = "carried"
match = { path = "/carried" }
inject = [{ header = "x-token", template = "plain" }]
websocket = false

[[routes]]
name = "optional"
match = { path = "/optional" }
on_no_session = "pass"
inject = [{ header = "x-token", template = "plain" }]

[[routes]]
name = "named"
match = { path = "/named" }
upstream = "app"
session = [{ session_id_header = "x-clerk-session-id", trust = "unverified", caller_token = { env = "FIXED_VALUE" } }]
inject = [{ header = "x-token", template = "plain" }]

[[routes]]
name = "posts"
match = { path = "/posts", methods = ["POST"] }
"#;

/// The three ways of asking over HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Original,
    Forwarded,
    Envoy,
}

const WAYS: [Way; 3] = [Way::Original, Way::Forwarded, Way::Envoy];

impl Way {
    /// A question about this request; every header line ends in `\r\n`.
    fn question(self, method: &str, host: &str, target: &str, headers: &str) -> String {
        match self {
            Self::Original => format!(
                "GET /authz/original HTTP/1.1\r\nHost: mintgate\r\nX-Original-Method: {method}\r\n\
                 X-Original-URL: https://{host}{target}\r\n{headers}\r\n"
            ),
            Self::Forwarded => format!(
                "GET /authz/forwarded HTTP/1.1\r\nHost: mintgate\r\nX-Forwarded-Method: {method}\r\n\
                 X-Forwarded-Proto: https\r\nX-Forwarded-Host: {host}\r\nX-Forwarded-Uri: {target}\r\n{headers}\r\n"
            ),
            Self::Envoy => {
                format!(
                    "{method} /authz/envoy{target} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\n{headers}\r\n"
                )
            }
        }
    }

    /// The headers that the proxy is told to remove.
    fn removed(self, answer: &Message) -> Vec<String> {
        let mut removed: Vec<String> = match self {
            Self::Original | Self::Forwarded => answer
                .fields
                .iter()
                .filter(|(_, value)| value.is_empty())
                .map(|(name, _)| name.to_lowercase())
                .collect(),
            Self::Envoy => {
                answer.one("x-envoy-auth-headers-to-remove").unwrap().split(", ").map(str::to_owned).collect()
            }
        };
        removed.sort();
        removed
    }
}

async fn gateway() -> Gateway {
    Gateway::start(format!("{AUTHZ}{ROUTES}")).await
}

async fn ask(gateway: &Gateway, question: String) -> Message {
    Wire::connect(gateway.authz.unwrap()).await.ask(question).await
}

/// A message of gRPC.
fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

fn about(method: &'static str, host: &'static str, path: &'static str, headers: &[(&str, &str)]) -> HttpRequest {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut request = HttpRequest {
        method: bytes(method),
        host: bytes(host),
        path: bytes(path),
        scheme: bytes("https"),
        ..HttpRequest::default()
    };
    let pseudo = [(":method", method), (":path", path), (":authority", host)];
    let lines = headers.iter().copied().chain(pseudo);
    request.headers = lines.map(|(key, value)| Entry { key: bytes(key), value: bytes(value) }).collect();
    request
}

fn question(http: HttpRequest) -> Bytes {
    let request = Some(Inner { http: Some(http) });
    frame(&CheckRequest { attributes: Some(Attributes { request }) }.encode_to_vec())
}

async fn call(gateway: &Gateway, path: &str, body: Bytes) -> http2::Answer {
    let mut client = http2::Client::connect(gateway.authz.unwrap()).await;
    let request = Request::post(format!("http://mintgate{path}")).header("content-type", "application/grpc");
    client.ask(request.body(http2::full(body)).unwrap()).await
}

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What Envoy is answered.
async fn check(gateway: &Gateway, http: HttpRequest) -> CheckResponse {
    let answer = call(gateway, CHECK, question(http)).await;
    assert_eq!((answer.status, &answer.headers["content-type"]), (200, &"application/grpc".parse().unwrap()));
    assert_eq!(answer.trailers["grpc-status"], "0", "{answer:?}");
    assert_eq!(answer.body[0], 0);
    assert_eq!(u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize, answer.body.len() - 5);
    CheckResponse::decode(&answer.body[5..]).unwrap()
}

async fn allowed(gateway: &Gateway, http: HttpRequest) -> (Allowed, CheckResponse) {
    let response = check(gateway, http).await;
    let Some(Http::Allowed(allowed)) = response.http.clone() else { panic!("{response:?}") };
    assert_eq!(response.status.as_ref().unwrap().code, 0);
    (allowed, response)
}

async fn denied(gateway: &Gateway, http: HttpRequest) -> Denied {
    let response = check(gateway, http).await;
    assert_ne!(response.status.unwrap().code, 0);
    let Some(Http::Denied(denied)) = response.http else { panic!("it may pass") };
    denied
}

fn said<'a>(headers: &'a [HeaderValueOption], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter_map(|option| option.header.as_ref()).filter(|header| header.key == name);
    let first = found.next().map(|header| std::str::from_utf8(&header.value).unwrap());
    assert!(found.next().is_none(), "{name} twice");
    first
}

/// Caddy and Traefik remove what their own configuration names. Fails without the look at `respelt`.
#[tokio::test]
async fn another_spelling_of_what_only_the_gateway_may_set_never_gets_past_who_knows_no_spellings() {
    let gateway = gateway().await;
    let bearer = gateway.bearer("alice");
    for name in ["X_User_Id", "x.user.id", "x-user_id", "x_app_role"] {
        let spoofed = format!("{bearer}{name}: admin\r\n");
        let outcome = |way: Way| ask(&gateway, way.question("GET", "app.test", "/app", &spoofed));
        let refused = outcome(Way::Forwarded).await;
        assert_eq!(refused.outcome(), (400, "request-malformed"), "{name}");
        assert_eq!(refused.one("authorization"), None);
        for way in [Way::Original, Way::Envoy] {
            let answer = outcome(way).await;
            assert_eq!(answer.outcome(), (200, ""), "{name}");
            assert!(way.removed(&answer).contains(&name.to_lowercase()), "{name}: {way:?}");
        }
    }
    let own = format!("{bearer}x-user-id: admin\r\nx-other_name: kept\r\n");
    assert_eq!(ask(&gateway, Way::Forwarded.question("GET", "app.test", "/app", &own)).await.outcome(), (200, ""));
}

/// Fails when a header is added to what stands there, instead of being set.
#[tokio::test]
async fn a_good_session_gets_what_is_to_be_set_in_every_dialect_out_of_one_mint() {
    let gateway = gateway().await;
    let bearer = gateway.bearer("alice");
    for way in WAYS {
        let answer = ask(&gateway, way.question("POST", "app.test", "/app/x?y=1", &bearer)).await;
        assert_eq!((answer.outcome(), answer.body.len()), ((200, ""), 0), "{way:?}");
        assert_eq!(claims(answer.one("authorization").unwrap())["sub"], "user_emulator_alice");
        assert_eq!(answer.one("x-user-id"), Some("user_emulator_alice"));
        assert_eq!(answer.one("cache-control"), Some("no-store"));
    }
    let token = bearer.trim().strip_prefix("Authorization: ").unwrap();
    let (allowed, _) = allowed(&gateway, about("POST", "app.test", "/app/x?y=1", &[("authorization", token)])).await;
    assert_eq!(claims(said(&allowed.headers, "authorization").unwrap())["sub"], "user_emulator_alice");
    assert_eq!(said(&allowed.headers, "x-user-id"), Some("user_emulator_alice"));
    assert!(allowed.headers.iter().all(|option| option.append_action == 2), "set, never added");
    assert_eq!(gateway.mints(), 1);
    assert_eq!(gateway.metric("mintgate_requests_total{route=\"app\",status=\"2xx\",code=\"\"}").await, "4");
}

/// What the cleaner removes is named; what some route injects is named also when nobody has shown it, since a proxy may
/// show a part of the caller's headers only. Fails without either, and without the twins.
#[tokio::test]
async fn what_leaves_the_request_is_named_in_every_dialect() {
    let gateway = gateway().await;
    let token = gateway.session_token("alice");
    let spoofed = [
        ("authorization", format!("Bearer {token}")),
        ("x-user-id", "user_spoofed".to_owned()),
        ("x_user_id", "user_spoofed".to_owned()),
        ("x-app-role", "admin".to_owned()),
        ("x-mintgate-caller", "me".to_owned()),
        ("cookie", "theme=dark; __session=x; __client_uat=1".to_owned()),
        ("x-forwarded-for", "192.0.2.1".to_owned()),
        ("connection", "keep-alive".to_owned()),
        ("accept", "*/*".to_owned()),
    ];
    let lines: String = spoofed.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
    let gone = ["x-app-role", "x-mintgate-caller", "x-token", "x_user_id"];
    for way in WAYS {
        // In that one another spelling is an error.
        let forwarded = way == Way::Forwarded;
        let lines = if forwarded { lines.replace("x_user_id", "x-token") } else { lines.clone() };
        let answer = ask(&gateway, way.question("GET", "app.test", "/app", &lines)).await;
        assert_eq!(answer.outcome(), (200, ""));
        assert_eq!(way.removed(&answer), gone[..if forwarded { 3 } else { 4 }], "{way:?}");
        assert_eq!(answer.one("cookie"), Some("theme=dark"), "{way:?}");
        assert_eq!(answer.all("x-user-id"), ["user_emulator_alice"]);
        for kept in ["accept", "x-forwarded-for"] {
            assert_eq!(answer.one(kept), None, "{way:?}");
        }
    }
    let headers: Vec<(&str, &str)> = spoofed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut raw = about("GET", "app.test", "/app", &[]);
    raw.header_map = Some(HeaderMap {
        headers: headers
            .iter()
            .map(|(key, value)| HeaderValue {
                key: Bytes::copy_from_slice(key.as_bytes()),
                raw_value: Bytes::copy_from_slice(value.as_bytes()),
                ..HeaderValue::default()
            })
            .collect(),
    });
    for http in [about("GET", "app.test", "/app", &headers), raw] {
        let (mut allowed, _) = allowed(&gateway, http).await;
        allowed.headers_to_remove.sort();
        assert_eq!(allowed.headers_to_remove, gone);
        assert_eq!(said(&allowed.headers, "cookie"), Some("theme=dark"));
        assert_eq!(said(&allowed.headers, "x-user-id"), Some("user_emulator_alice"));
    }
}

/// What stands in the answer is what the upstream may get, so what stays as it is has to stand there too. Fails where a
/// credential that nobody has shown is left alone.
#[tokio::test]
async fn credentials_are_forwarded_as_they_were_judged_or_not_at_all() {
    let gateway = gateway().await;
    let lines = "Authorization: Basic YTpi\r\nCookie: theme=dark\r\n";
    for way in WAYS {
        let answer = ask(&gateway, way.question("GET", "app.test", "/optional", lines)).await;
        assert_eq!(answer.outcome(), (200, ""));
        let said = (answer.one("authorization"), answer.one("cookie"));
        let told = if way == Way::Envoy { (None, None) } else { (Some("Basic YTpi"), Some("theme=dark")) };
        assert_eq!((said, way.removed(&answer)), (told, vec!["x-token".to_owned(), "x-user-id".to_owned()]), "{way:?}");
        let answer = ask(&gateway, way.question("GET", "app.test", "/optional", "")).await;
        assert_eq!(way.removed(&answer), ["authorization", "cookie", "x-token", "x-user-id"], "{way:?}");
    }
    let (allowed, response) = allowed(&gateway, about("GET", "app.test", "/optional", &[])).await;
    assert_eq!(allowed.headers_to_remove, ["x-user-id", "x-token", "authorization", "cookie"]);
    assert_eq!((allowed.headers.len(), response.dynamic_metadata), (0, None));
}

/// gRPC's own errors are answers with 200, which a proxy would take for yes. Fails without `passed_on`.
#[tokio::test]
async fn an_error_is_the_gateways_own_and_never_lets_a_request_pass() {
    let gateway = gateway().await;
    let lines = format!("Content-Type: application/grpc\r\nOrigin: {PARTY}\r\n");
    for (host, target, outcome) in [
        ("app.test", "/app", (401, "session-missing")),
        ("other.test", "/app", (404, "no-route")),
        ("app.test", "/posts", (405, "method-not-allowed")),
        ("app.test", "/app/../posts", (400, "request-malformed")),
        ("app test", "/app", (400, "request-malformed")),
    ] {
        for way in WAYS {
            // Envoy's host is the question's own.
            let question = way.question("GET", host, target, &lines);
            let answer = ask(&gateway, question).await;
            if (way, host) == (Way::Envoy, "app test") {
                assert_eq!(answer.status(), 400);
                continue;
            }
            assert_eq!(answer.outcome(), outcome, "{way:?} {host} {target}");
            let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!((&problem["code"], &problem["status"]), (&outcome.1.into(), &outcome.0.into()));
            assert_eq!(answer.one("connection"), None);
            if host == "app.test" {
                assert_eq!(answer.one("access-control-allow-origin"), Some(PARTY));
            }
        }
        let headers = [("content-type", "application/grpc"), ("origin", PARTY)];
        let denied = denied(&gateway, about("GET", host, target, &headers)).await;
        assert_eq!(denied.status.unwrap().code, i32::from(outcome.0));
        assert_eq!(said(&denied.headers, "x-mintgate-error"), Some(outcome.1));
        assert_eq!(said(&denied.headers, "content-type"), Some("application/problem+json"));
        let problem: serde_json::Value = serde_json::from_slice(&denied.body).unwrap();
        assert_eq!(problem["code"], outcome.1);
    }
    let answer = ask(&gateway, Way::Original.question("GET", "app.test", "/app", "Authorization: Bearer x\r\n")).await;
    assert!(answer.one("www-authenticate").unwrap().contains("session-invalid"));
}

/// Whatever the other headers say. Fails when a dialect falls back on the question's own method, host or path, and when
/// the first of two lines is taken.
#[tokio::test]
async fn a_question_that_leaves_out_the_method_the_host_or_the_target_is_400() {
    let gateway = gateway().await;
    let bearer = gateway.bearer("alice");
    for way in [Way::Original, Way::Forwarded] {
        let whole = way.question("GET", "app.test", "/app", &bearer);
        assert_eq!(ask(&gateway, whole.clone()).await.outcome(), (200, ""));
        let own = if way == Way::Original { "X-Original-" } else { "X-Forwarded-" };
        for said in whole.lines().filter(|line| line.starts_with(own) && !line.starts_with("X-Forwarded-Proto")) {
            let without = whole.replace(&format!("{said}\r\n"), "");
            assert_eq!(ask(&gateway, without).await.outcome(), (400, "request-malformed"), "without {said}");
            let twice = whole.replace(&format!("{said}\r\n"), &format!("{said}\r\n{said}\r\n"));
            assert_eq!(ask(&gateway, twice).await.outcome(), (400, "request-malformed"), "{said} twice");
        }
    }
    let token = bearer.trim().strip_prefix("Authorization: ").unwrap();
    for (method, host, path) in [("", "app.test", "/app"), ("GET", "", "/app"), ("GET", "app.test", "")] {
        let denied = denied(&gateway, about(method, host, path, &[("authorization", token)])).await;
        assert_eq!(denied.status.unwrap().code, 400, "{method:?} {host:?} {path:?}");
    }
    assert_eq!(denied(&gateway, HttpRequest::default()).await.status.unwrap().code, 400);
}

/// Fails without the headers of other dialects being left alone: then a caller could choose which request is judged.
#[tokio::test]
async fn headers_of_another_dialect_choose_nothing() {
    let gateway = gateway().await;
    let others = "X-Original-Method: POST\r\nX-Original-URL: http://app.test/posts\r\n\
                  X-HTTP-Method-Override: POST\r\nX-Rewrite-URL: /posts\r\nX-Original-URI: /posts\r\n";
    for way in [Way::Forwarded, Way::Envoy] {
        assert_eq!(
            ask(&gateway, way.question("GET", "app.test", "/app", others)).await.outcome(),
            (401, "session-missing")
        );
    }
    let others = "X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /posts\r\nX-Forwarded-Host: other.test\r\n";
    for way in [Way::Original, Way::Envoy] {
        assert_eq!(
            ask(&gateway, way.question("GET", "app.test", "/app", others)).await.outcome(),
            (401, "session-missing")
        );
    }
    let headers =
        [("x-forwarded-uri", "/posts"), ("x-original-url", "http://app.test/posts"), ("x-original-method", "POST")];
    assert_eq!(denied(&gateway, about("GET", "app.test", "/app", &headers)).await.status.unwrap().code, 401);
}

/// The origin that a request has for the guard of cookies is the dialect's word too. Fails when `X-Forwarded-*` are believed.
#[tokio::test]
async fn a_caller_does_not_choose_the_origin_of_its_request() {
    let gateway = gateway().await;
    let now = gateway.clock.now().wall.as_seconds();
    let cookie = format!("__session={}; __client_uat={}", gateway.session_token("alice"), now - 5);
    let lines = format!("Cookie: {cookie}\r\nOrigin: https://evil.test\r\nX-Forwarded-Host: evil.test\r\n");
    let proto = "X-Forwarded-Proto: https\r\n";
    for question in [
        Way::Original.question("POST", "app.test", "/app", &format!("{lines}{proto}")),
        Way::Envoy.question("POST", "app.test", "/app", &lines),
    ] {
        assert_eq!(ask(&gateway, question).await.outcome(), (403, "origin-forbidden"));
    }
    let headers = [
        ("cookie", cookie.as_str()),
        ("origin", "https://evil.test"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-proto", "https"),
    ];
    assert_eq!(denied(&gateway, about("POST", "app.test", "/app", &headers)).await.status.unwrap().code, 403);
}

/// The answer holds a token. Fails without the look at `allow_from`.
#[tokio::test]
async fn who_is_not_in_allow_from_gets_no_decision() {
    let files = Directory::new();
    let socket = files.path("authz.sock").display().to_string();
    let gateway = Gateway::start(format!("{AUTHZ}allow_from = [\"192.0.2.0/24\", \"unix\"]\n{ROUTES}")).await;
    let bearer = gateway.bearer("alice");
    for way in WAYS {
        let answer = ask(&gateway, way.question("GET", "app.test", "/app", &bearer)).await;
        assert_eq!(answer.outcome(), (403, "origin-forbidden"));
        assert_eq!(answer.one("authorization"), None);
        assert!(answer.text().contains("authz.allow_from"), "{}", answer.text());
    }
    let answer = call(&gateway, CHECK, question(about("GET", "app.test", "/app", &[]))).await;
    assert_eq!(answer.outcome(), (403, "origin-forbidden"));
    assert_eq!(gateway.mints(), 0);
    // By default a Unix socket is among those who may.
    let gateway = Gateway::start(format!("[authz]\nlisten = \"unix:{socket}\"\n{ROUTES}")).await;
    let question = Way::Original.question("GET", "app.test", "/app", &gateway.bearer("alice"));
    let answer = Wire::over(UnixStream::connect(&socket).await.unwrap()).ask(question).await;
    assert_eq!(answer.outcome(), (200, ""));
}

/// Nothing of the data path is on the listener, and nothing of the listener on the data path. Fails when a route without
/// upstream is found there: then it mints for nobody.
#[tokio::test]
async fn the_listener_answers_questions_alone_and_a_route_without_upstream_is_for_them() {
    let gateway = gateway().await;
    let bearer = gateway.bearer("alice");
    let plain = format!("GET /carried HTTP/1.1\r\nHost: app.test\r\n{bearer}\r\n");
    assert_eq!(ask(&gateway, plain.clone()).await.outcome(), (404, "no-route"));
    assert_eq!(Wire::connect(gateway.address).await.ask(plain).await.outcome(), (404, "no-route"));
    let preflight = format!(
        "OPTIONS /carried HTTP/1.1\r\nHost: app.test\r\nOrigin: {PARTY}\r\nAccess-Control-Request-Method: GET\r\n\r\n"
    );
    assert_eq!(Wire::connect(gateway.address).await.ask(preflight).await.outcome(), (404, "no-route"));
    assert_eq!(gateway.mints(), 0, "nothing is minted for a request that leads nowhere");
    let asked = Way::Original.question("GET", "app.test", "/carried", &bearer);
    assert_eq!(Wire::connect(gateway.address).await.ask(asked.clone()).await.outcome(), (404, "no-route"));
    assert_eq!(ask(&gateway, asked).await.outcome(), (200, ""));
    assert_eq!(gateway.metric("mintgate_connections{listener=\"authz\"}").await, "0");
}

/// The listener is none of `[server]`: it has a place of its own in the metrics. Fails when it has that of another one.
#[tokio::test]
async fn a_route_of_one_listener_is_not_for_questions() {
    let routes = "[[routes]]\nname = \"inner\"\nmatch = { listener = \"inner\" }\n";
    let boot = Boot::new(format!("{AUTHZ}{routes}")).listen("{ name = \"inner\", address = \"127.0.0.1:0\" }");
    let gateway = boot.start().await;
    let mut wire = Wire::connect(gateway.authz.unwrap()).await;
    let answer = wire.ask(Way::Original.question("GET", "app.test", "/", &gateway.bearer("alice"))).await;
    assert_eq!(answer.outcome(), (404, "no-route"));
    assert_eq!(gateway.metric("mintgate_connections{listener=\"authz\"}").await, "1");
    assert_eq!(gateway.metric("mintgate_connections{listener=\"inner\"}").await, "0");
}

/// A proxy that grants it opens a tunnel that nobody looks into. Fails without `no_other_protocol`.
#[tokio::test]
async fn a_request_for_another_protocol_than_websocket_never_passes() {
    let gateway = gateway().await;
    for (lines, outcome) in [
        ("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", (400, "request-malformed")),
        ("Upgrade: h2c\r\n", (400, "request-malformed")),
        ("HTTP2-Settings: AAMAAABkAAQAAP__\r\n", (400, "request-malformed")),
        ("Upgrade: websocket, h2c\r\n", (400, "request-malformed")),
        ("Upgrade: websocket\r\nUpgrade: h2c\r\n", (400, "request-malformed")),
        ("Upgrade: WebSocket\r\n", (200, "")),
    ] {
        for way in WAYS {
            let answer = ask(&gateway, way.question("GET", "app.test", "/optional", lines)).await;
            assert_eq!(answer.outcome(), outcome, "{way:?} {lines}");
        }
    }
    for header in [("upgrade", "h2c"), ("upgrade", "websocket,h2c"), ("http2-settings", "AAMAAABkAAQAAP__")] {
        // The head could not be read: there is no route yet.
        let denied = denied(&gateway, about("GET", "app.test", "/optional", &[header])).await;
        assert_eq!(said(&denied.headers, "x-mintgate-error"), Some("request-malformed"), "{header:?}");
    }
}

/// Traefik keeps `Upgrade` for itself. Fails without the look at the handshake's other headers.
#[tokio::test]
async fn a_handshake_is_a_websocket_where_the_proxy_does_not_show_the_upgrade() {
    let gateway = gateway().await;
    let now = gateway.clock.now().wall.as_seconds();
    let cookie = format!("Cookie: __session={}; __client_uat={}\r\n", gateway.session_token("alice"), now - 5);
    for handshake in ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n"] {
        for (target, lines, outcome) in [
            ("/app", cookie.clone(), (403, "origin-forbidden")),
            ("/app", format!("{cookie}Origin: https://evil.test\r\n"), (403, "origin-forbidden")),
            ("/app", format!("{cookie}Origin: {PARTY}\r\n"), (200, "")),
            // websocket = false
            ("/carried", gateway.bearer("alice"), (400, "request-malformed")),
        ] {
            let question = Way::Forwarded.question("GET", "app.test", target, &format!("{lines}{handshake}"));
            let answer = ask(&gateway, question).await;
            assert_eq!(answer.outcome(), outcome, "{target} {lines}{handshake}");
        }
    }
}

/// The decision is the proxy's: see tests/it/proxy for each rule. Fails without the look at `websocket = false`.
#[tokio::test]
async fn rules_of_a_route_hold_as_on_the_data_path() {
    let gateway = gateway().await;
    let now = gateway.clock.now().wall.as_seconds();
    let cookie = format!("Cookie: __session={}; __client_uat={}\r\n", gateway.session_token("alice"), now - 5);
    let upgrade = "Upgrade: websocket\r\n";
    for way in WAYS {
        for (method, target, headers, outcome) in [
            // A preflight needs no session.
            ("OPTIONS", "/app", format!("Origin: {PARTY}\r\nAccess-Control-Request-Method: GET\r\n"), (200, "")),
            // on_no_session
            ("GET", "/optional", String::new(), (200, "")),
            // The original method decides, whatever that of the question is.
            ("POST", "/posts", gateway.bearer("bob"), (200, "")),
            // The guard of cookies: reading needs no origin, all else does, and the request's own is one.
            ("GET", "/app", cookie.clone(), (200, "")),
            ("POST", "/app", cookie.clone(), (403, "origin-forbidden")),
            ("POST", "/app", format!("{cookie}Origin: https://evil.test\r\n"), (403, "origin-forbidden")),
            ("POST", "/app", format!("{cookie}Origin: {PARTY}\r\n"), (200, "")),
            ("POST", "/app", format!("{cookie}Origin: https://app.test\r\n"), (200, "")),
            ("POST", "/app", format!("{cookie}Origin: http://app.test\r\n"), (403, "origin-forbidden")),
            ("GET", "/app", format!("{cookie}{upgrade}"), (403, "origin-forbidden")),
            ("GET", "/app", format!("{cookie}{upgrade}Origin: {PARTY}\r\n"), (200, "")),
            // websocket = false
            ("GET", "/carried", format!("{}{upgrade}", gateway.bearer("alice")), (400, "request-malformed")),
            ("TRACE", "/optional", String::new(), (405, "method-not-allowed")),
        ] {
            // hyper refuses some of these methods with an upgrade's connection; the question's own is another for Envoy.
            let answer = ask(&gateway, way.question(method, "app.test", target, &headers)).await;
            assert_eq!(answer.outcome(), outcome, "{way:?} {method} {target} {headers}");
            if method == "OPTIONS" {
                assert!(
                    way.removed(&answer).contains(&"x-user-id".to_owned())
                        && answer.one("authorization").is_none_or(str::is_empty)
                );
            }
        }
    }
}

/// What a proxy forwards may come from anywhere. Fails without the look at who forwards it.
#[tokio::test]
async fn no_session_is_named_through_a_proxy() {
    let gateway = gateway().await;
    let lines = "X-Mintgate-Caller: fixed-value\r\nX-Clerk-Session-Id: sess_emulator_alice\r\n";
    let direct = format!("GET /named HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    // It gets as far as the upstream, which is not there.
    assert_eq!(Wire::connect(gateway.address).await.ask(direct).await.outcome(), (502, "upstream-unreachable"));
    for way in WAYS {
        assert_eq!(
            ask(&gateway, way.question("GET", "localhost", "/named", lines)).await.outcome(),
            (403, "origin-forbidden")
        );
    }
}

#[tokio::test]
async fn envoy_learns_for_its_own_logs_whose_request_it_is() {
    let gateway = gateway().await;
    let bearer = format!("Bearer {}", gateway.session_token("alice"));
    let (_, response) = allowed(&gateway, about("GET", "app.test", "/app", &[("authorization", &bearer)])).await;
    let fields = response.dynamic_metadata.unwrap().fields;
    let of = |name: &str| fields.iter().find(|field| field.key == name).map(|field| field.value.clone().unwrap().text);
    assert_eq!(
        (of("sid").as_deref(), of("sub").as_deref()),
        (Some("sess_emulator_alice"), Some("user_emulator_alice"))
    );
    assert!(fields.iter().all(|field| ["sid", "sub", "org"].contains(&field.key.as_str())));
}

/// What is no call of the service has a status of gRPC; an answer without one would be a broken connection. Fails without
/// the look at the prefix, and without the limit.
#[tokio::test]
async fn what_is_no_check_is_told_in_grpcs_own_words() {
    let gateway = gateway().await;
    let good = question(about("GET", "app.test", "/app", &[]));
    let mut compressed = good.to_vec();
    compressed[0] = 1;
    let twice = [&good[..], &good[..]].concat();
    let huge = frame(&vec![0; 200_000]);
    for (body, code) in [
        (Bytes::new(), "request-malformed"),
        (good.slice(..4), "request-malformed"),
        (good.slice(..good.len() - 1), "request-malformed"),
        (compressed.into(), "request-malformed"),
        (twice.into(), "request-malformed"),
        (frame(b"\xff\xff\xff"), "request-malformed"),
        (huge, "body-too-large"),
    ] {
        let answer = call(&gateway, CHECK, body).await;
        assert_eq!(
            (answer.status, &answer.headers["grpc-status"], answer.outcome().1),
            (200, &"3".parse().unwrap(), code)
        );
    }
    // HTTP/1.1 has no trailers that gRPC would find.
    let line = format!("POST {CHECK} HTTP/1.1\r\nHost: mintgate\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(ask(&gateway, line).await.outcome(), (400, "request-malformed"));
    let answer = call(&gateway, "/envoy.service.auth.v2.Authorization/Check", good).await;
    assert_eq!(answer.outcome(), (404, "no-route"));
}

/// Nobody reads it, and it is no next question. Fails when the connection of a long one is kept.
#[tokio::test]
async fn a_body_beside_a_question_is_not_read() {
    let gateway = gateway().await;
    let smuggled = Way::Original.question("GET", "app.test", "/app", "");
    let lines = format!("{}Content-Length: {}\r\n", gateway.bearer("alice"), smuggled.len());
    let mut wire = Wire::connect(gateway.authz.unwrap()).await;
    wire.send(Way::Forwarded.question("GET", "app.test", "/app", &lines) + &smuggled).await;
    assert_eq!(wire.response().await.outcome(), (200, ""));
    let again = Way::Forwarded.question("GET", "app.test", "/app", &gateway.bearer("alice"));
    assert_eq!(wire.ask(again).await.outcome(), (200, ""));
    let endless = format!("{}Content-Length: 1000000\r\n", gateway.bearer("alice"));
    let answer = wire.ask(Way::Forwarded.question("GET", "app.test", "/app", &endless)).await;
    assert_eq!((answer.outcome(), answer.one("connection")), ((200, ""), Some("close")));
}

#[tokio::test]
async fn the_listener_has_a_certificate_of_its_own() {
    let (authority, files) = (Authority::new(), Directory::new());
    let identity = authority.identity(&["authz.test"]);
    files.write("key.pem", &identity.key);
    files.write("cert.pem", &identity.cert);
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    for threads in [false, true] {
        let boot = Boot::new(format!("{AUTHZ}tls = {{ cert = {cert:?}, key = {key:?} }}\n{ROUTES}"));
        let gateway = if threads { boot.server("workers = 2").threads() } else { boot }.start().await;
        let stream = authority.client(&["http/1.1"], None).connect(gateway.authz.unwrap(), "authz.test").await.unwrap();
        // The host that is asked about is not the one of the certificate.
        let answer =
            Wire::over(stream).ask(Way::Envoy.question("GET", "app.test", "/app", &gateway.bearer("alice"))).await;
        assert_eq!(answer.outcome(), (200, ""));
        // The data listener is still one in clear text.
        let plain = Wire::connect(gateway.address).await.ask("GET /app HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
        assert_eq!(plain.outcome(), (401, "session-missing"));
    }
}
