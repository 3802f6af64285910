//! Where a session is looked for, what happens without one, and what browsers and caches are told.

use super::{MINTING, PUBLIC, behind, get, in_front_of};
use crate::support::gateway::{Boot, Gateway, PARTY};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// Two routes that take no token into `Authorization`.
const CLAIMS: &str = r#"
[[routes]]
name = "reject"
match = { path = "/reject" }
upstream = "{up}"
inject = [{ header = "x-user-id", claim = "sub" }]

[[routes]]
name = "pass"
match = { path = "/pass" }
upstream = "{up}"
on_no_session = "pass"
inject = [{ header = "x-user-id", claim = "sub" }]
"#;

fn cookie(gateway: &Gateway, user: &str) -> String {
    format!("Cookie: __session={}; __client_uat=1\r\n", gateway.session_token(user))
}

async fn outcome(gateway: &Gateway, request: impl AsRef<[u8]>) -> (u16, String) {
    let answer = Wire::connect(gateway.address).await.ask(request).await;
    let (status, code) = answer.outcome();
    (status, code.to_owned())
}

fn is((status, code): &(u16, String), expected: u16, of: &str) {
    assert_eq!((*status, code.as_str()), (expected, of));
}

#[tokio::test]
async fn clerks_cookies_leave_and_the_others_stay_byte_for_byte() {
    let (gateway, upstream) = behind(CLAIMS).await;
    let token = gateway.session_token("bob");
    let line =
        format!("a=1; __session={token}; b=\"x y\" ;c=%20;__client_uat=1; __sessions=kept; __clerk_db_jwt=x;d; =e");
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/reject", &format!("Cookie: {line}\r\n"))).await.outcome(), (200, ""));
    let seen = upstream.last();
    assert_eq!(seen.one("cookie"), Some("a=1; b=\"x y\" ;c=%20; __sessions=kept;d; =e"));
    assert_eq!(seen.one("x-user-id"), Some("user_emulator_bob"));
    client.ask(get("/reject", &cookie(&gateway, "bob"))).await;
    assert_eq!(upstream.last().one("cookie"), None);
}

#[tokio::test]
async fn clerks_cookies_leave_on_a_public_route() {
    let (gateway, upstream) = behind(PUBLIC).await;
    Wire::connect(gateway.address).await.ask(get("/", "Cookie: __session=x; a=b; __refresh_x=y\r\n")).await;
    assert_eq!(upstream.only().one("cookie"), Some("a=b"));
}

#[tokio::test]
async fn a_route_may_forward_credential_and_cookies() {
    let keep = "forward_credential = true\nforward_clerk_cookies = true\n";
    let (gateway, upstream) = behind(&format!("{CLAIMS}{keep}")).await;
    let mut client = Wire::connect(gateway.address).await;
    let (bearer, cookie) = (gateway.bearer("bob"), cookie(&gateway, "bob"));
    client.ask(get("/pass", &format!("{bearer}{cookie}"))).await;
    let seen = upstream.only();
    assert_eq!(seen.one("authorization"), bearer.trim_end().strip_prefix("Authorization: "));
    assert_eq!(seen.one("cookie"), cookie.trim_end().strip_prefix("Cookie: "));
}

#[tokio::test]
async fn a_forwarded_cookie_stays_and_clerks_other_cookies_leave() {
    let (gateway, upstream) = behind(&format!("{CLAIMS}forward_credential = true\n")).await;
    let token = gateway.session_token("bob");
    let line = format!("Cookie: a=1; __session={token}; __client_uat=1; __refresh_x=y\r\n");
    Wire::connect(gateway.address).await.ask(get("/pass", &line)).await;
    assert_eq!(upstream.only().one("cookie"), Some(format!("a=1; __session={token}").as_str()));
}

#[tokio::test]
async fn a_preflight_carries_no_credential_even_where_the_route_forwards_it() {
    let keep = "forward_credential = true\nforward_clerk_cookies = true\n";
    let (gateway, upstream) = behind(&format!("{CLAIMS}{keep}")).await;
    let (bearer, cookie) = (gateway.bearer("bob"), cookie(&gateway, "bob"));
    let ask = format!(
        "OPTIONS /pass HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\
         Access-Control-Request-Method: GET\r\n{bearer}{cookie}\r\n"
    );
    is(&outcome(&gateway, ask).await, 200, "");
    let seen = upstream.only();
    assert_eq!((seen.one("authorization"), seen.one("cookie")), (None, None));
}

#[tokio::test]
async fn another_scheme_is_no_credential_and_passes_where_nothing_is_injected_there() {
    let (gateway, upstream) = behind(CLAIMS).await;
    let basic = "Authorization: Basic dTpw\r\n";
    is(&outcome(&gateway, get("/reject", basic)).await, 401, "session-missing");
    is(&outcome(&gateway, get("/pass", basic)).await, 200, "");
    assert_eq!(upstream.last().one("authorization"), Some("Basic dTpw"));
    is(&outcome(&gateway, get("/reject", &format!("{basic}{}", cookie(&gateway, "bob")))).await, 200, "");
    let seen = upstream.last();
    assert_eq!((seen.one("authorization"), seen.one("x-user-id")), (Some("Basic dTpw"), Some("user_emulator_bob")));
    let (gateway, upstream) =
        behind(&format!("{MINTING}on_no_session = \"pass\"\n").replace("inject", "on_mint_error = \"fail\"\ninject"))
            .await;
    is(&outcome(&gateway, get("/", basic)).await, 200, "");
    assert_eq!(upstream.last().one("authorization"), None, "its target is ours");
}

#[tokio::test]
async fn only_an_absent_session_or_an_outdated_cookie_passes() {
    let (gateway, upstream) = behind(CLAIMS).await;
    let (old_cookie, old_bearer) = (cookie(&gateway, "bob"), gateway.bearer("bob"));
    let outdated = old_cookie.replace("__client_uat=1", "__client_uat=0");
    gateway.clock.step(120_000);
    for headers in ["", "x-user-id: spoofed\r\n", &old_cookie, &outdated] {
        is(&outcome(&gateway, get("/pass", headers)).await, 200, "");
        let seen = upstream.last();
        assert_eq!((seen.one("x-user-id"), seen.one("cookie")), (None, None), "{headers}");
    }
    is(&outcome(&gateway, get("/pass", &old_bearer)).await, 401, "session-expired");
    is(&outcome(&gateway, get("/pass", "Authorization: Bearer x.y.z\r\n")).await, 401, "session-invalid");
    is(&outcome(&gateway, get("/reject", "")).await, 401, "session-missing");
    is(&outcome(&gateway, get("/reject", &old_cookie)).await, 401, "session-expired");
}

#[tokio::test]
async fn the_first_credential_decides_and_two_are_ambiguous() {
    let (gateway, upstream) = behind(CLAIMS).await;
    let (bearer, cookie) = (gateway.bearer("alice"), cookie(&gateway, "bob"));
    is(&outcome(&gateway, get("/reject", &format!("{bearer}{cookie}"))).await, 200, "");
    assert_eq!(upstream.last().one("x-user-id"), Some("user_emulator_alice"));
    let bad = "Authorization: Bearer bad\r\n";
    is(&outcome(&gateway, get("/reject", &format!("{bad}{cookie}"))).await, 401, "session-invalid");
    is(&outcome(&gateway, get("/reject", &format!("{bearer}{bearer}"))).await, 400, "credential-ambiguous");
    let bare = bearer.replace("Bearer ", "");
    is(&outcome(&gateway, get("/reject", &bare)).await, 401, "session-invalid");
    let two = format!("{}; __session=other\r\n", cookie.trim_end());
    is(&outcome(&gateway, get("/reject", &two)).await, 400, "credential-ambiguous");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn what_we_minted_is_no_session() {
    let (gateway, upstream) = behind(MINTING).await;
    is(&outcome(&gateway, get("/", &gateway.bearer("alice"))).await, 200, "");
    let minted = upstream.only().one("authorization").unwrap().to_owned();
    let answer = Wire::connect(gateway.address).await.ask(get("/", &format!("Authorization: {minted}\r\n"))).await;
    assert_eq!(answer.outcome(), (401, "session-invalid"));
    assert!(answer.text().contains("\"reason\":\"category\""), "{}", answer.text());
}

#[tokio::test]
async fn a_cookie_is_taken_from_trustworthy_pages_only() {
    let (gateway, upstream) = behind(CLAIMS).await;
    let cookie = cookie(&gateway, "bob");
    let ask = |method: &str, headers: &str| {
        format!("{method} /reject HTTP/1.1\r\nHost: gateway.test\r\n{cookie}{headers}Content-Length: 0\r\n\r\n")
    };
    for headers in [
        "",
        "Origin: null\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: https://gateway.test\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: https://app.example.com\r\nOrigin: https://evil.example\r\n",
        "Origin: null\r\nSec-Fetch-Site: same-origin\r\n",
        "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nOrigin: https://evil.example\r\n",
    ] {
        is(&outcome(&gateway, ask("POST", headers)).await, 403, "origin-forbidden");
    }
    assert_eq!(upstream.count(), 0);
    for headers in
        ["Origin: https://app.example.com\r\n", "Origin: http://gateway.test\r\n", "Sec-Fetch-Site: same-origin\r\n"]
    {
        is(&outcome(&gateway, ask("POST", headers)).await, 200, "");
    }
    is(&outcome(&gateway, ask("GET", "Origin: https://evil.example\r\n")).await, 200, "");
    let upgrade = "Origin: https://evil.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    is(&outcome(&gateway, ask("GET", upgrade)).await, 403, "origin-forbidden");
    let bearer = format!("POST /reject HTTP/1.1\r\nHost: a\r\n{}Content-Length: 0\r\n\r\n", gateway.bearer("bob"));
    is(&outcome(&gateway, bearer).await, 200, "");
}

/// A handler that ignores the method would run with them. Fails when a preflight is like any request without a session.
#[tokio::test]
async fn a_preflight_carries_no_fixed_secret_of_a_route_that_needs_a_session() {
    let fixed = "inject = [{ header = \"x-fixed\", value = { env = \"FIXED_VALUE\" } }]";
    for (session, expected) in
        [("", None), ("session = []", Some("fixed-value")), ("on_no_session = \"pass\"", Some("fixed-value"))]
    {
        let (gateway, upstream) =
            behind(&format!("[[routes]]\nname = \"all\"\nupstream = \"{{up}}\"\n{session}\n{fixed}\n")).await;
        let preflight = "OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\
                         Access-Control-Request-Method: POST\r\n\r\n";
        is(&outcome(&gateway, preflight.to_owned()).await, 200, "");
        assert_eq!(upstream.only().one("x-fixed"), expected, "{session}");
    }
}

#[tokio::test]
async fn a_preflight_passes_without_session_credential_or_token() {
    let tables = MINTING.replace("upstream =", "match = { methods = [\"POST\"] }\nupstream =");
    let (gateway, upstream) = behind(&tables).await;
    let ask = |method: &str, headers: &str| {
        format!(
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\
             Access-Control-Request-Method: {method}\r\n{headers}\r\n"
        )
    };
    let headers = format!("{}Cookie: __session=x; a=b\r\n", gateway.bearer("alice"));
    is(&outcome(&gateway, ask("POST", &headers)).await, 200, "");
    let seen = upstream.only();
    assert!(seen.start.starts_with("OPTIONS / "));
    assert_eq!((seen.one("authorization"), seen.one("cookie")), (None, Some("a=b")));
    assert_eq!(seen.one("access-control-request-method"), Some("POST"));
    assert_eq!(gateway.mints(), 0);
    is(&outcome(&gateway, ask("DELETE", "")).await, 405, "method-not-allowed");
    let (gateway, upstream) = behind(&MINTING.replace("upstream =", "preflight = \"reject\"\nupstream =")).await;
    is(&outcome(&gateway, ask("POST", "")).await, 401, "session-missing");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_trusted_page_may_read_our_errors() {
    let (gateway, _upstream) = behind(MINTING).await;
    let mut client = Wire::connect(gateway.address).await;
    let answer = client.ask(get("/", &format!("Origin: {PARTY}\r\n"))).await;
    assert_eq!(answer.outcome(), (401, "session-missing"));
    assert_eq!(answer.one("access-control-allow-origin"), Some(PARTY));
    assert_eq!(answer.one("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.one("access-control-expose-headers"), Some("x-mintgate-error, retry-after"));
    assert!(answer.all("vary").contains(&"Origin"));
    let answer = client.ask(get("/", "Origin: https://evil.example\r\n")).await;
    assert_eq!(answer.one("access-control-allow-origin"), None);
}

#[tokio::test]
async fn caches_in_front_keep_answers_of_users_apart() {
    let (gateway, _upstream) = behind(CLAIMS).await;
    let mut client = Wire::connect(gateway.address).await;
    for credential in [gateway.bearer("bob"), cookie(&gateway, "bob")] {
        let answer = client.ask(get("/reject", &credential)).await;
        assert_eq!(answer.one("cache-control"), Some("private"));
        assert_eq!(answer.one("vary"), Some("authorization, cookie"));
    }
    let answer = client.ask(get("/pass", "")).await;
    assert_eq!((answer.one("cache-control"), answer.one("vary")), (None, Some("authorization, cookie")));
    let own = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nvary: accept\r\nx-mintgate-error: forged\r\ncontent-length: 0\r\n\r\n";
    let (gateway, _upstream) = in_front_of(Upstream::answering(own).await, CLAIMS).await;
    let answer = Wire::connect(gateway.address).await.ask(get("/reject", &gateway.bearer("bob"))).await;
    assert_eq!(answer.one("cache-control"), Some("max-age=60"));
    assert_eq!(answer.all("vary"), ["accept", "authorization, cookie"]);
    assert_eq!(answer.outcome(), (200, ""), "an upstream cannot speak in our name");
    let (gateway, _upstream) = behind(PUBLIC).await;
    let answer = Wire::connect(gateway.address).await.ask(get("/", "Authorization: Bearer x\r\n")).await;
    assert_eq!((answer.one("cache-control"), answer.one("vary")), (None, None));
}

/// Fails when of two origins that a trusted peer names the first one is taken, and when anybody's counts.
#[tokio::test]
async fn a_trusted_proxy_may_say_which_origin_a_cookie_belongs_to() {
    let post = |gateway: &Gateway| {
        let cookie = cookie(gateway, "bob");
        format!(
            "POST /reject HTTP/1.1\r\nHost: inside\r\nContent-Length: 0\r\nOrigin: https://shop.example\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n{cookie}\r\n"
        )
    };
    let upstream = Upstream::answering(OK).await;
    let tables = CLAIMS.replace("{up}", &upstream.url());
    let gateway = Boot::new(&tables).server("trusted_proxies = [\"loopback\"]").start().await;
    is(&outcome(&gateway, post(&gateway)).await, 200, "");
    for twice in ["X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example"] {
        let twice = post(&gateway).replace(twice, &format!("{twice}\r\n{}: other", twice.split(':').next().unwrap()));
        is(&outcome(&gateway, twice).await, 400, "request-malformed");
    }
    let gateway = Boot::new(&tables).start().await;
    is(&outcome(&gateway, post(&gateway)).await, 403, "origin-forbidden");
}

/// Whether a session was found in it or not. Fails when the headers of a route's sources are not in `Cleaner::credentials`,
/// and for the trailer when those are not in `Cleaner::trailers`.
#[tokio::test]
async fn a_header_that_holds_a_session_leaves_under_each_spelling_and_as_a_trailer() {
    let tables = r#"
[[routes]]
name = "custom"
upstream = "{up}"
session = ["bearer", { header = "x-session" }]
"#;
    let (gateway, upstream) = behind(tables).await;
    let mut client = Wire::connect(gateway.address).await;
    let (token, bearer) = (gateway.session_token("alice"), gateway.bearer("bob"));
    for credentials in [format!("X-Session: {token}\r\n"), format!("{bearer}X-Session: {token}\r\n")] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{credentials}x_session: twin\r\n");
        let framing = "Transfer-Encoding: chunked\r\nTrailer: x-session, x-sum\r\n";
        let body = "1\r\na\r\n0\r\nX-Session: late\r\nx_session: late\r\nx-sum: 1\r\n\r\n";
        assert_eq!(client.ask(format!("{head}{framing}\r\n{body}")).await.outcome(), (200, ""));
        let seen = upstream.last();
        let raw = String::from_utf8(seen.raw.clone()).unwrap();
        assert!(!raw.contains(&token) && !raw.contains("twin") && !raw.contains("late"), "{raw}");
        assert_eq!(seen.trailers, [("x-sum".to_owned(), "1".to_owned())]);
    }
}
