//! Every error code that this version can produce, forced on the real binary at TRACE: none of the secrets and tokens
//! that were in hand is in what it writes, shows or answers.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use mintgate::proxy::error::Code;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::canaries::Canaries;
use super::stage::{Ask, BODY, CALLER, COOKIE, Heard, QUERY, Stage, Way};
use crate::harness::{call, client};
use crate::status::Watcher;
use crate::support::http2;
use crate::support::websocket::{HANDSHAKE, masked};

/// What no request to this version leads to: nothing tells it of a revocation yet.
const NOT_YET: [Code; 1] = [Code::SessionRevoked];

const ALL: &[Way] = &[Way::Plain1, Way::Plain2, Way::Tls1, Way::Tls2];
/// Where each answer takes seconds.
const TWO: &[Way] = &[Way::Plain1, Way::Tls2];
const TLS: &[Way] = &[Way::Tls1, Way::Tls2];

/// Tries to meet a code: the breaker and a pause of the issuer's may stand before it for a while.
const TRIES: usize = 40;

struct Case {
    /// `None`: the upstream answers.
    code: Option<Code>,
    ways: &'static [Way],
    ask: Ask,
}

/// What callers send, and what of it must not be seen.
struct Caller<'a> {
    stage: &'a Stage,
    canaries: Canaries,
    sessions: usize,
    /// What was answered, and to what.
    heard: Vec<(String, String)>,
    /// Answers that were not the expected ones.
    wrong: Vec<String>,
}

// === impl Caller ===

impl Caller<'_> {
    /// A token of a session that nobody has had yet.
    fn token(&mut self, changes: &Value) -> String {
        self.sessions += 1;
        let exp = crate::harness::now_ms() / 1000 + 3600;
        let mut claims = json!({ "sid": format!("sess_{}", self.sessions), "sub": "user_abcdef", "exp": exp });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = self.stage.issuer.session(&claims);
        self.canaries.add_token("a session token", &token);
        token
    }

    fn bearer(&mut self, changes: &Value) -> String {
        format!("Bearer {}", self.token(changes))
    }

    /// A request with this session, and with a body, a query and a cookie that are nobody's business.
    fn ask(&mut self, path: &str, changes: &Value) -> Ask {
        let bearer = self.bearer(changes);
        plain(path).with("authorization", bearer)
    }

    fn cases(&mut self) -> Vec<Case> {
        let none = json!({});
        let iat = crate::harness::now_ms() / 1000;
        let mut cases = Vec::new();
        let mut case = |code: Option<Code>, ways: &'static [Way], ask: Ask| cases.push(Case { code, ways, ask });
        for path in ["/good", "/tls", "/h2", "/read"] {
            case(None, ALL, self.ask(path, &none));
        }
        case(None, ALL, job(CALLER));
        // Before any session is looked at.
        case(Some(Code::NoRoute), ALL, self.ask("/none", &none));
        case(Some(Code::MethodNotAllowed), ALL, Ask { method: "DELETE", ..self.ask("/read", &none) });
        case(Some(Code::RequestMalformed), ALL, self.ask("/good/../x", &none));
        case(Some(Code::UriTooLong), ALL, self.ask(&format!("/good/{}", "a".repeat(5000)), &none));
        case(Some(Code::HeadersTooLarge), ALL, self.ask("/small", &none).with("x-large", "a".repeat(1500)));
        case(Some(Code::BodyTooLarge), ALL, Ask { body: BODY.repeat(100), ..self.ask("/good", &none) });
        case(Some(Code::ExpectationFailed), ALL, self.ask("/good", &none).with("expect", "something"));
        case(Some(Code::Misdirected), TLS, Ask { host: "c.test", ..self.ask("/good", &none) });
        // The session.
        case(Some(Code::SessionMissing), ALL, plain("/good"));
        case(
            Some(Code::SessionExpired),
            ALL,
            self.ask("/good", &json!({ "exp": iat - 60, "iat": iat - 120, "nbf": null })),
        );
        case(Some(Code::SessionPending), ALL, self.ask("/good", &json!({ "sts": "pending" })));
        case(Some(Code::SessionForbidden), ALL, self.ask("/owners", &none));
        for changes in [
            json!({ "azp": "https://evil.example.com" }),
            json!({ "iss": "https://clerk.evil.invalid" }),
            json!({ "sub": 7 }),
            json!({ "nbf": iat + 600 }),
        ] {
            case(Some(Code::SessionInvalid), ALL, self.ask("/good", &changes));
        }
        let token = self.token(&none);
        for broken in [
            format!("Bearer {token}AA"),
            format!("Bearer {}", &token[..token.len() - 4]),
            format!("Bearer {token}.{token}"),
            format!("Bearer {token}="),
            format!("Bearer ak_{CALLER}"),
            format!("Bearer {{{token}"),
        ] {
            case(Some(Code::SessionInvalid), ALL, plain("/good").with("authorization", broken));
        }
        case(Some(Code::SessionMissing), ALL, plain("/good").with("authorization", format!("Basic {token}")));
        let outdated = format!("__session={token}; __client_uat=0");
        case(Some(Code::SessionInvalid), ALL, plain("/good").with("cookie", outdated));
        let two = self.bearer(&none);
        case(Some(Code::CredentialAmbiguous), ALL, self.ask("/good", &none).with("authorization", two));
        let (one, other) = (self.token(&none), self.token(&none));
        let cookies = format!("__client_uat=1; __session={one}; __session={other}");
        case(Some(Code::CredentialAmbiguous), ALL, plain("/good").with("cookie", cookies));
        let cookie =
            Ask { method: "POST", ..plain("/good") }.with("cookie", format!("__client_uat=1; __session={one}"));
        case(Some(Code::OriginForbidden), ALL, cookie.with("origin", "https://evil.example.com"));
        case(Some(Code::OriginForbidden), ALL, job(&CALLER[1..]));
        // The upstream.
        case(Some(Code::UpstreamUnreachable), ALL, self.ask("/gone", &none));
        case(Some(Code::UpstreamBroken), ALL, self.ask("/broken", &none));
        case(Some(Code::UpstreamTimeout), ALL, self.ask("/hang", &none));
        // The issuer. A token in between tells the breaker that it is well.
        for (path, code, ways) in [
            ("/absent", Code::TemplateUnknown, ALL),
            ("/rejected", Code::IssuerRejectedKey, ALL),
            ("/refused", Code::IssuerRefused, ALL),
            ("/unfit", Code::TokenUnfit, ALL),
            ("/ended", Code::SessionEnded, ALL),
            ("/stale", Code::SessionStale, TWO),
            ("/malformed", Code::IssuerMalformed, TWO),
            ("/down", Code::IssuerUnavailable, TWO),
            ("/slow", Code::IssuerTimeout, TWO),
            ("/throttled", Code::IssuerThrottled, TWO),
        ] {
            for &way in ways {
                let ways = &ALL[ALL.iter().position(|of| *of == way).unwrap()..][..1];
                case(None, ways, self.ask("/good", &none));
                case(Some(code), ways, self.ask(path, &json!({ "org_id": "org_1", "v": 1 })));
            }
        }
        cases
    }

    async fn force(&mut self, case: &Case) {
        for &way in case.ways {
            let expected = case.code.map_or("", Code::as_str);
            let what = format!("{expected:?} of {} {way:?}", case.ask.path.split('?').next().unwrap());
            for tries in 1.. {
                let heard = self.stage.ask(way, &case.ask).await;
                let met = heard.code == expected && (case.code.is_some() || heard.status == 200);
                let waits = !met && heard.code.starts_with("issuer-") && tries < TRIES;
                if !met && !waits {
                    self.wrong.push(format!("{what}: {} {}", heard.status, heard.code));
                }
                if !heard.code.is_empty() {
                    self.heard.push((what.clone(), heard.text));
                }
                if !waits {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    }

    /// Bytes that are no request, with a token in them.
    async fn garble(&mut self) {
        for way in [Way::Plain1, Way::Tls1] {
            let token = self.token(&json!({}));
            for bytes in [
                format!("GET /good HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {token}\0\r\n\r\n"),
                format!("GET /good HTTP/1.1\r\nHost: a.test\r\nAuthorization Bearer {token}\r\n\r\n"),
                format!("GET /good HTTP/1.1\r\nHost: a.test\r\n{token}\r\n\r\n"),
                format!("GET /good HTTP/1.1\r\nHost: a.test\r\nX {token}: a\r\n\r\n"),
                format!("GET /good HTTP/1.1\r\nHost: a.test\r\nCookie: __session={token}\r\n __client_uat=1\r\n\r\n"),
                format!("GET /good?{token} HTTP/9.1\r\nHost: a.test\r\n\r\n"),
                format!("GET /good?{token}\u{1} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
                format!("{token}\r\n\r\n"),
                format!("GET /good HTTP/1.1\r\nHost: {token}@a.test\r\n\r\n"),
                format!("GET /good HTTP/1.1\r\nHost: a.test\r\nContent-Length: {token}\r\n\r\n"),
                format!("GET /good HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: {token}\r\n\r\n"),
                format!(
                    "GET /good HTTP/1.1\r\nHost: a.test\r\nConnection: {token}\r\nCookie: __session=\"{token}\r\n\r\n"
                ),
                format!(
                    "POST /good HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n{token}\r\n"
                ),
                format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{token}"),
            ] {
                let mut wire = self.stage.wire(way).await;
                wire.send(&bytes).await;
                wire.finish().await;
                let text = String::from_utf8_lossy(&wire.until_closed().await).into_owned();
                let what = format!("the answer to {:?}", &bytes[..20]);
                self.heard.push((what, text));
            }
        }
        // A field of HTTP/2 that may not be, and one that only looks like a pseudo-header.
        let token = self.token(&json!({}));
        for name in ["Authorization", ":token", "connection", "authorization\n"] {
            let mut block = vec![0x82, 0x86, 0x84, 0x41, 6];
            block.extend(b"a.test");
            block.extend([0, u8::try_from(name.len()).unwrap()]);
            block.extend(name.as_bytes());
            // RFC 7541 section 5.1: a length beyond 127, in three bytes.
            let rest = token.len() - 127;
            block.extend([127, u8::try_from(rest % 128).unwrap() | 128, u8::try_from(rest / 128).unwrap()]);
            block.extend(token.as_bytes());
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
            bytes.extend(&u32::try_from(block.len()).unwrap().to_be_bytes()[1..]);
            bytes.extend([1, 5, 0, 0, 0, 1]);
            bytes.extend(&block);
            let mut wire = self.stage.wire(Way::Plain1).await;
            wire.send(&bytes).await;
            wire.finish().await;
            wire.until_closed().await;
        }
    }

    async fn open_websockets(&mut self) {
        for way in [Way::Plain1, Way::Tls1] {
            let bearer = self.bearer(&json!({}));
            let mut wire = self.stage.wire(way).await;
            let head =
                format!("GET /ws?{QUERY} HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}Authorization: {bearer}\r\n\r\n");
            assert_eq!(wire.ask(head).await.status(), 101);
            let said = format!("{bearer} {BODY}");
            wire.send(masked(0x81, said.as_bytes())).await;
            assert_eq!(wire.frame().await.unwrap().payload, said.as_bytes());
            wire.until_closed().await;
        }
    }

    /// Another protocol on a stream; whoever asks for one knows that it may, by the settings before an answer.
    async fn speak_otherwise(&mut self) -> Code {
        for (way, scheme) in [(Way::Plain2, "http"), (Way::Tls2, "https")] {
            let bearer = self.bearer(&json!({}));
            let mut client = self.stage.streams(way).await;
            let first = http::Request::get(format!("{scheme}://a.test/none")).body(http2::empty()).unwrap();
            assert_eq!(client.ask(first).await.status, 404);
            let path = format!("/good?{QUERY}");
            let answer =
                client.connect_as("connect-udp", &path, &[("authorization", &bearer), ("cookie", COOKIE)]).await;
            let heard = Heard::of(&http2::Answer::whole(answer).await);
            assert_eq!(heard.code, "protocol-unsupported");
            self.heard.push((format!("another protocol {way:?}"), heard.text));
        }
        Code::ProtocolUnsupported
    }

    /// A body that stands still.
    async fn stall(&mut self) -> Code {
        let bearer = self.bearer(&json!({}));
        let mut wire = self.stage.wire(Way::Plain1).await;
        let head = "POST /stall HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n";
        wire.send(format!("{head}Authorization: {bearer}\r\n\r\n{BODY}")).await;
        let heard = Heard::read(&mut wire).await;
        assert_eq!(heard.code, "request-timeout");
        self.heard.push(("a body that stands still".to_owned(), heard.text));
        Code::RequestTimeout
    }

    /// More connections than there may be.
    async fn crowd(&mut self) -> Code {
        let mut held = Vec::new();
        for way in [Way::Plain1, Way::Tls1] {
            for _ in 0..100 {
                let mut wire = self.stage.wire(way).await;
                let ask = self.ask("/good", &json!({}));
                wire.send(ask.written()).await;
                let heard = Heard::read(&mut wire).await;
                let crowded = heard.code == "overloaded";
                assert!(crowded || heard.status == 200, "{heard:?}");
                held.push(wire);
                if crowded {
                    self.heard.push(("one connection too many".to_owned(), heard.text));
                    break;
                }
            }
        }
        assert!(held.len() <= 62, "{}", held.len());
        Code::Overloaded
    }

    /// Every page of the admin listener, asked as an attacker would ask.
    async fn visit_admin(&mut self) {
        let (bearer, mut seen) = (self.bearer(&json!({})), 0);
        for path in ["/", "/status", "/livez", "/startupz", "/readyz", "/metrics", "/none", "/debug", "/config"] {
            for (accept, method, host) in [
                ("text/plain", Method::GET, "localhost"),
                ("application/openmetrics-text", Method::GET, "localhost"),
                ("text/html", Method::GET, "localhost"),
                ("text/html", Method::POST, "localhost"),
                ("application/json", Method::GET, "evil.example.com"),
            ] {
                let headers =
                    [("accept", accept), ("authorization", bearer.as_str()), ("cookie", COOKIE), ("host", host)];
                let url = format!("http://{}{path}?{QUERY}", self.stage.binary.admin);
                let answer = call(&client(false), method, &url, &headers, "").await;
                seen += usize::from(answer.body.contains("mintgate_mints_total") && answer.status == 200);
                let text = format!("{:?}\n{}", answer.headers, answer.body);
                self.heard.push((format!("the admin page {path}"), text));
            }
        }
        assert_eq!(seen, 3, "both formats of the metrics");
        let fields = format!("Authorization: {bearer}\r\nCookie: {COOKIE}\r\n");
        let mut watcher = Watcher::begin(self.stage.binary.admin, &fields).await;
        for _ in 0..2 {
            let text = watcher.text().await;
            assert!(text.contains("\"fix\":"), "no trial: {text}");
            self.heard.push(("an event of the status".to_owned(), text));
        }
    }
}

fn plain(path: &str) -> Ask {
    let ask = Ask { body: BODY.to_owned(), ..Ask::get(&format!("{path}?code={QUERY}")) };
    ask.with("cookie", format!("theme={COOKIE}")).with("x-custom", COOKIE)
}

fn job(caller: &str) -> Ask {
    Ask { host: "localhost", ..plain("/job") }.with("x-mintgate-caller", caller).with("x-sid", "sess_job")
}

/// Case 39. Fails where a secret's or a token's `Debug` shows it and something logs it, and where an error of the
/// issuer's, which may repeat what it was asked with, is logged as it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_code_and_no_page_and_no_line_tells_a_secret() {
    let stage = Stage::new().await;
    let mut caller =
        Caller { stage: &stage, canaries: stage.canaries(), sessions: 0, heard: Vec::new(), wrong: Vec::new() };
    // Its token has to be old before it can be replaced.
    let refused = caller.ask("/refuse", &json!({}));
    assert_eq!(stage.ask(Way::Plain1, &refused).await.status, 401);
    let began = Instant::now();
    let cases = caller.cases();
    for case in &cases {
        caller.force(case).await;
    }
    let mut forced: BTreeSet<&str> = cases.iter().filter_map(|case| case.code).map(Code::as_str).collect();
    caller.garble().await;
    caller.open_websockets().await;
    forced.insert(caller.speak_otherwise().await.as_str());
    forced.insert(caller.stall().await.as_str());
    tokio::time::sleep(Duration::from_secs(11).saturating_sub(began.elapsed())).await;
    let mints = stage.mints();
    assert_eq!(stage.ask(Way::Plain1, &refused).await.status, 401);
    assert_eq!(stage.mints() - mints, 1, "the refused token was replaced");
    caller.visit_admin().await;
    forced.insert(caller.crowd().await.as_str());
    caller.visit_admin().await;

    let all: BTreeSet<&str> =
        Code::ALL.iter().filter(|code| !NOT_YET.contains(code)).map(|code| code.as_str()).collect();
    assert_eq!(forced, all, "a code that no case forces, or one that cannot be");
    let Caller { mut canaries, heard, wrong, .. } = caller;
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The tokens that were minted meanwhile.
    canaries.extend(stage.canaries());
    let log = stage.binary.log();
    for from in ["hyper", "h2::", "mintgate::access", "sent once more with another token", "\"TRACE\""] {
        assert!(log.contains(from), "the log is no trial without {from}");
    }
    let mut found = canaries.found("the log", &log);
    found.extend(canaries.found("standard output", &stage.binary.printed()));
    found.extend(heard.iter().flat_map(|(what, text)| canaries.found(what, text)));
    assert!(found.is_empty(), "{found:#?}");
    let asked = tokio::time::timeout(Duration::from_millis(10), stage.env_proxy.accept()).await;
    assert!(asked.is_err(), "a proxy of the environment was asked: {asked:?}");
}
