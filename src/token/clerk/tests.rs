//! The client against a raw server on a socket: every row of the table "Mint call", and what broken servers do.

use std::io::ErrorKind;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::Wall;
use crate::config::{Clerk, KeySource};
use crate::secret::Secret;
use crate::session::{SessionId, UserId};
use crate::token::fake::{budget, metrics, request as request_for, spec};
use crate::token::{Issuer, Scope, TokenKey};

/// What the server does with one request.
#[derive(Clone)]
enum Act {
    /// Writes these bytes, and goes on.
    Say(String),
    /// Writes these bytes, then nothing more.
    Hang(String),
    /// Resets the connection after these bytes.
    Reset(String),
    /// Writes a head and a body without end.
    Endless,
    /// Writes these bytes once so many requests have come.
    Together(usize, String),
}

struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Server {
    /// Does one act for each request, in order; the last one again and again.
    async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url, seen: Arc::default(), connections: Arc::default(), open: Arc::default() };
        let (seen, connections, tasks) =
            (Arc::clone(&server.seen), Arc::clone(&server.connections), Spawner::current());
        let open = Arc::clone(&server.open);
        let acts: Arc<[Act]> = acts.into();
        drop(Spawner::current().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Relaxed);
                open.fetch_add(1, Relaxed);
                let (acts, seen, open) = (Arc::clone(&acts), Arc::clone(&seen), Arc::clone(&open));
                drop(tasks.spawn(async move {
                    serve(stream, acts, seen).await;
                    open.fetch_sub(1, Relaxed);
                }));
            }
        }));
        server
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, acts: Arc<[Act]>, seen: Arc<Mutex<Vec<String>>>) {
    while let Some(request) = read_request(&mut stream).await {
        let act = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            acts[(seen.len() - 1).min(acts.len() - 1)].clone()
        };
        match act {
            Act::Say(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
            }
            Act::Hang(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                std::future::pending::<()>().await;
            }
            Act::Reset(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            Act::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
                while stream.write_all(&[b' '; 8192]).await.is_ok() {}
            }
            Act::Together(all, text) => {
                while seen.lock().unwrap().len() < all {
                    tokio::task::yield_now().await;
                }
                let _ = stream.write_all(text.as_bytes()).await;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            other => assert!(other.is_ok()),
        }
    }
}

fn say(status: &str, headers: &str, body: &str) -> Act {
    Act::Say(text(status, headers, body))
}

fn text(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\ncontent-type: application/json\r\n{headers}\r\n{body}")
}

fn jwt(payload: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
}

fn minted(payload: &str) -> Act {
    say("200 OK", "", &format!(r#"{{"object":"token","jwt":"{}"}}"#, jwt(payload)))
}

fn problem(status: &str, message: &str, long: &str) -> Act {
    let body = format!(r#"{{"errors":[{{"message":"{message}","long_message":"{long}","code":"c"}}]}}"#);
    say(status, "", &body)
}

fn config(url: &str, keys: &[&str]) -> Clerk {
    Clerk {
        secret_keys: keys.iter().map(|key| Secret::new(*key)).collect(),
        publishable_key: None,
        authorized_parties: Vec::new(),
        issuer: Some("https://clerk.example.test".to_owned()),
        audience: Vec::new(),
        keys: KeySource::None,
        api_url: ApiUrl(url.into()),
        api_version: "2026-05-12".to_owned(),
        clock_skew: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
        ca: None,
        budget: budget(),
    }
}

fn client(url: &str, keys: &[&str]) -> (ClerkClient, Arc<Metrics>) {
    let metrics = metrics();
    let clock = Clock::following(Wall::from_seconds(1_800_000_000));
    let client = ClerkClient::new(&config(url, keys), clock, Spawner::current(), Arc::clone(&metrics));
    (client.unwrap(), metrics)
}

fn request(expires_in: Option<u32>) -> MintRequest {
    let (sid, sub) = (SessionId::new("sess_1-A").unwrap(), UserId::new("user_alice").unwrap());
    let spec = spec("custom_hasura", expires_in);
    request_for(&TokenKey::new(Issuer::new("https://api.test", "i"), sid, Some(sub), &spec, Scope::Neutral, Vec::new()))
}

async fn mint(acts: Vec<Act>) -> (Result<Token, MintError>, Server) {
    let server = Server::start(acts).await;
    let (client, _) = client(&server.url, &["sk_test_canary"]);
    (client.mint(request(None)).await, server)
}

#[tokio::test]
async fn a_mint_is_asked_for_as_the_contract_says() {
    let server = Server::start(vec![minted(r#"{"exp":1800000060,"iat":1800000000}"#)]).await;
    let (client, metrics) = client(&server.url, &["sk_test_canary"]);
    let token = client.mint(request(None)).await.unwrap();
    assert_eq!(token.bare().to_str().unwrap(), jwt(r#"{"exp":1800000060,"iat":1800000000}"#));
    assert!(token.lifetime.unwrap() > Duration::from_secs(59));
    let forced = MintRequest { forced: true, ..request(Some(300)) };
    client.mint(forced).await.unwrap();
    let seen = server.seen();
    let host = server.url.strip_prefix("http://").unwrap();
    let mut lines: Vec<_> = seen[0].split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /v1/sessions/sess_1-A/tokens/custom_hasura HTTP/1.1");
    assert_eq!(lines.pop(), Some("{}"));
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "",
            "accept: application/json",
            "authorization: Bearer sk_test_canary",
            "clerk-api-version: 2026-05-12",
            "content-length: 2",
            "content-type: application/json",
            &format!("host: {host}"),
            concat!("user-agent: mintgate/", env!("CARGO_PKG_VERSION")),
        ]
    );
    assert!(seen[1].contains("cache-control: no-cache\r\n"));
    assert!(seen[1].ends_with("\r\n\r\n{\"expires_in_seconds\":300}"));
    assert_eq!(server.connections.load(Relaxed), 1, "the connection is kept");
    assert_eq!(metrics.control().mint_seconds.read().0.iter().sum::<u64>(), 2);
}

/// Fails when one of status, content type, content coding, an empty token and either cap is not looked at.
#[tokio::test]
async fn every_answer_means_what_the_table_says() {
    use crate::metrics::MintResult::{
        Malformed, Refused, RejectedKey, SessionEnded, TemplateUnknown, Throttled, Unavailable,
    };
    let session = ("Session not found", "No session was found with id sess_1-A");
    let template = ("JWT template not found", "No JWT template exists with name: custom_hasura");
    for (act, expected) in [
        (problem("404 Not Found", session.0, session.1), SessionEnded),
        (problem("403 Forbidden", session.0, session.1), SessionEnded),
        (problem("422 Unprocessable", "is invalid", "the session has ended"), SessionEnded),
        (problem("422 Unprocessable", "is invalid", "expires_in_seconds is too small"), Refused),
        (problem("403 Forbidden", "forbidden", "quota exceeded"), Refused),
        (problem("404 Not Found", template.0, template.1), TemplateUnknown),
        (problem("401 Unauthorized", session.0, session.1), RejectedKey),
        (problem("401 Unauthorized", "deprovisioned", "your account is deprovisioned"), RejectedKey),
        (say("429 Too Many Requests", "retry-after: 7\r\n", "{}"), Throttled),
        (say("429 Too Many Requests", "retry-after: 0\r\n", "{}"), Throttled),
        (say("429 Too Many Requests", "", "{}"), Throttled),
        (say("500 Internal Server Error", "", "{}"), Unavailable),
        (say("503 Service Unavailable", "", ""), Unavailable),
        (say("302 Found", "location: http://127.0.0.1:1/\r\n", ""), Refused),
        (say("307 Temporary Redirect", "location: /elsewhere\r\n", ""), Refused),
        (say("400 Bad Request", "", "{}"), Refused),
        (say("409 Conflict", "", "{}"), Refused),
        (say("201 Created", "", r#"{"jwt":"x"}"#), Malformed),
        (say("204 No Content", "", ""), Malformed),
        (say("200 OK", "", ""), Malformed),
        (say("200 OK", "", r#"{"object":"token"}"#), Malformed),
        (say("200 OK", "", r#"{"jwt":""}"#), Malformed),
        (say("200 OK", "", r#"{"jwt":7}"#), Malformed),
        (problem("200 OK", "oops", "oops"), Malformed),
        (say("200 OK", "content-encoding: gzip\r\n", r#"{"jwt":"x"}"#), Malformed),
        (
            Act::Say("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 11\r\n\r\n{\"jwt\":\"x\"}".into()),
            Malformed,
        ),
        (Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".into()), Malformed),
        (Act::Endless, Malformed),
        (Act::Say("SSH-2.0-nonsense\r\n\r\n".into()), Unavailable),
        (Act::Reset(String::new()), Unavailable),
        (Act::Reset("HTTP/1.1 200 OK\r\ncontent-le".into()), Unavailable),
        (Act::Reset("HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{\"jwt\":".into()), Unavailable),
    ] {
        let shown = match &act {
            Act::Say(text) | Act::Hang(text) | Act::Reset(text) => text.clone(),
            Act::Endless => "endless".to_owned(),
            Act::Together(all, _) => format!("{all} together"),
        };
        let (result, server) = mint(vec![act]).await;
        let error = result.expect_err(&shown);
        assert_eq!(error.result(), expected, "{shown}: {error:?}");
        assert!(server.seen().iter().all(|request| request.starts_with("POST")), "{shown}");
        if let MintError::Throttled { retry_after } = error {
            // Never nothing: a pause of that is none.
            assert_eq!(retry_after.as_secs(), if shown.contains("retry-after: 7") { 7 } else { 1 });
        }
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("canary") && !printed.contains("sess_1"), "{printed}");
    }
}

#[tokio::test]
async fn a_404_that_says_nothing_is_settled_by_the_session() {
    use crate::metrics::MintResult::{RejectedKey, SessionEnded, TemplateUnknown, Throttled, Unavailable};
    let vague = || problem("404 Not Found", "not found", "");
    for (second, expected) in [
        (say("200 OK", "", r#"{"object":"session","status":"active"}"#), TemplateUnknown),
        (say("200 OK", "", r#"{"object":"session","status":"revoked"}"#), SessionEnded),
        (say("200 OK", "", r#"{"object":"session","status":"pending"}"#), SessionEnded),
        (vague(), SessionEnded),
        (say("500 Oops", "", ""), Unavailable),
        (Act::Reset(String::new()), Unavailable),
        (say("401 Unauthorized", "", "{}"), RejectedKey),
        (say("429 Too Many Requests", "", ""), Throttled),
    ] {
        let (result, server) = mint(vec![vague(), second]).await;
        assert_eq!(result.unwrap_err().result(), expected);
        assert!(server.seen()[1].starts_with("GET /v1/sessions/sess_1-A HTTP/1.1\r\n"));
        assert_eq!(server.seen().len(), 2);
    }
}

/// Fails without the deadline in `Http::exchange`.
#[tokio::test]
async fn the_deadline_is_over_the_whole_exchange() {
    for act in [
        Act::Hang(String::new()),
        Act::Hang("HTTP/1.1 200 OK\r\n".to_owned()),
        Act::Hang("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{".to_owned()),
    ] {
        let server = Server::start(vec![act]).await;
        let (client, _) = client(&server.url, &["sk"]);
        let request = MintRequest { deadline: Instant::now() + Duration::from_millis(200), ..request(None) };
        // Far longer than the deadline: without one it would not end at all.
        let ended = tokio::time::timeout(Duration::from_secs(20), client.mint(request)).await;
        assert!(matches!(ended, Ok(Err(MintError::Timeout))));
    }
}

#[tokio::test]
async fn a_refused_connection_is_transient() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (client, _) = client(&url, &["sk"]);
    let error = client.mint(request(None)).await.unwrap_err();
    assert!(error.is_transient() && matches!(error, MintError::Unavailable { source: Some(_), .. }));
}

/// Fails when a token is cut at the first byte that no header may hold.
#[tokio::test]
async fn a_token_that_cannot_stand_in_a_header_is_unfit() {
    // The last four could stand there, but another value would arrive.
    for bad in [r"a\r\nx-evil: 1", r"a\nb", r"a\u0000b", "é", " ", r"\t", " a.b.c", "a.b.c "] {
        let (result, _) = mint(vec![say("200 OK", "", &format!(r#"{{"jwt":"{bad}"}}"#))]).await;
        assert!(matches!(result, Err(MintError::Unfit)), "{bad}");
    }
}

#[tokio::test]
async fn an_opaque_token_is_taken_and_has_no_life() {
    for opaque in ["minted-1", "a.b", "a.b.c.d.e", "e30.bm90IGpzb24.x", "e30.!!!.x"] {
        let (result, _) = mint(vec![say("200 OK", "", &format!(r#"{{"jwt":"{opaque}"}}"#))]).await;
        let token = result.unwrap();
        assert_eq!((token.bare().to_str().unwrap(), token.lifetime), (opaque, None));
    }
}

/// Fails when one of `sid`, `sub` and `iss` is not held against the session.
#[tokio::test]
async fn a_bad_answer_does_not_cross_sessions() {
    for (payload, taken) in [
        (r#"{"sub":"user_alice","iss":"https://clerk.example.test"}"#, true),
        (r#"{"sid":"sess_1-A"}"#, true),
        (r#"{"sub":"user_x"}"#, true),
        (r#"{"sub":7,"sid":null,"iss":[]}"#, true),
        (r#"{"sub":"user_mallory"}"#, false),
        (r#"{"sid":"sess_2"}"#, false),
        (r#"{"sub":"user_alice","iss":"https://clerk.evil.test"}"#, false),
    ] {
        let (result, _) = mint(vec![minted(payload)]).await;
        assert_eq!(result.is_ok(), taken, "{payload}");
        assert!(taken || matches!(result, Err(MintError::Malformed(_))));
    }
}

#[tokio::test]
async fn the_next_key_serves_when_one_is_refused() {
    let refused = || say("401 Unauthorized", "", r#"{"errors":[{"code":"clerk_key_invalid"}]}"#);
    let server = Server::start(vec![refused(), minted("{}"), minted("{}"), refused(), refused(), minted("{}")]).await;
    let (client, metrics) = client(&server.url, &["sk_one", "sk_two"]);
    assert!(client.mint(request(None)).await.is_ok());
    assert!(client.mint(request(None)).await.is_ok());
    assert_eq!(metrics.control().issuer_key_rejected.get(), 0);
    assert!(matches!(client.mint(request(None)).await, Err(MintError::RejectedKey)));
    assert_eq!(metrics.control().issuer_key_rejected.get(), 1);
    assert!(client.mint(request(None)).await.is_ok());
    assert_eq!(metrics.control().issuer_key_rejected.get(), 0);
    let keys: Vec<_> = server.seen().iter().map(|request| request.contains("sk_one")).collect();
    assert_eq!(keys, [true, false, false, false, true, false], "the key that worked comes first");
}

/// What is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every request without a token meets the refusal. Fails without `COMPLAIN_EVERY`.
#[tokio::test]
async fn a_refused_key_is_an_error_in_the_log_once_a_minute() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    // Where there is but one, a test of another thread that comes to the same line first, and hears nothing, switches the
    // line off for all of them.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().finish());
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start(vec![say("401 Unauthorized", "", "{}")]).await;
    let (client, _) = client(&server.url, &["sk"]);
    for minute in 1..=2 {
        for _ in 0..3 {
            assert!(matches!(client.mint(request(None)).await, Err(MintError::RejectedKey)));
        }
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(logged.matches("refuses the secret key").count(), minute, "{logged}");
        tokio::time::pause();
        tokio::time::advance(COMPLAIN_EVERY).await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_asked() {
    let server = Server::start(vec![minted("{}")]).await;
    let (client, _) = client(&server.url, &[]);
    assert!(matches!(client.mint(request(None)).await, Err(MintError::RejectedKey)));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn the_issuers_clock_counts() {
    // Two hours ahead of ours, which says 1_800_000_000.
    let date = httpdate::fmt_http_date(Wall::from_seconds(1_800_007_200).to_system());
    let token = format!(r#"{{"jwt":"{}"}}"#, jwt(r#"{"exp":1800007260,"iat":1800007200}"#));
    let server = Server::start(vec![say("200 OK", &format!("date: {date}\r\n"), &token)]).await;
    let (client, metrics) = client(&server.url, &["sk"]);
    let token = client.mint(request(None)).await.unwrap();
    let offset = metrics.control().issuer_clock_offset_ms.get();
    assert!((7_195_000..=7_200_000).contains(&offset), "{offset}");
    assert_eq!(token.offset_ms, offset);
    assert!(token.lifetime.unwrap() >= Duration::from_secs(59));
}

#[tokio::test]
async fn a_warm_client_mints_on_the_connection_that_is_there() {
    let server = Server::start(vec![say("200 OK", "", r#"{"keys":[]}"#), minted("{}")]).await;
    let (client, _) = client(&server.url, &["sk"]);
    client.warm().await;
    client.mint(request(None)).await.unwrap();
    assert!(server.seen()[0].starts_with("GET /v1/jwks HTTP/1.1\r\n"));
    assert_eq!(server.connections.load(Relaxed), 1);
}

#[tokio::test]
async fn of_the_connections_that_a_burst_needed_a_few_are_kept() {
    const BURST: usize = 40;
    let body = format!(r#"{{"jwt":"{}"}}"#, jwt("{}"));
    let server = Server::start(vec![Act::Together(BURST, text("200 OK", "", &body))]).await;
    let (client, _) = client(&server.url, &["sk_test_one"]);
    let minted = futures_util::future::join_all((0..BURST).map(|_| client.mint(request(None)))).await;
    assert!(minted.iter().all(Result::is_ok));
    assert_eq!(server.connections.load(Relaxed), BURST);
    for _ in 0..1000 {
        if server.open.load(Relaxed) == http::MAX_IDLE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.open.load(Relaxed), http::MAX_IDLE);
    client.mint(request(None)).await.unwrap();
    assert_eq!(server.connections.load(Relaxed), BURST, "the next one finds one of them");
    assert_eq!(server.open.load(Relaxed), http::MAX_IDLE);
}

/// Fails when the secret goes with every download, when any status will do, and without a cap.
#[tokio::test]
async fn a_jwks_is_fetched_with_the_secret_only_where_it_belongs() {
    let server = Server::start(vec![
        say("200 OK", "", r#"{"keys":[]}"#),
        say("200 OK", "", r#"{"keys":[]}"#),
        say("500 Oops", "", ""),
        Act::Endless,
    ])
    .await;
    let (client, _) = client(&server.url, &["sk_canary"]);
    let url = ApiUrl(format!("{}/.well-known/jwks.json", server.url).into());
    assert_eq!(client.fetch_jwks(&url, false).await.unwrap(), r#"{"keys":[]}"#);
    assert!(client.fetch_jwks(&url, true).await.is_ok());
    let seen = server.seen();
    assert!(!seen[0].contains("canary") && seen[1].contains("authorization: Bearer sk_canary\r\n"));
    assert!(matches!(client.fetch_jwks(&url, false).await, Err(FetchError::Status(500))));
    let endless = client.fetch_jwks(&url, false).await;
    assert!(matches!(endless, Err(FetchError::Exchange(ExchangeError::TooLarge(_)))));
}

/// Fails with a larger `MAX_JWKS`.
#[tokio::test]
async fn a_jwks_has_a_mebibyte_at_most() {
    let padded = |length: usize| format!("{}{{\"keys\":[]}}", " ".repeat(length - 11));
    let (most, more) = (say("200 OK", "", &padded(1024 * 1024)), say("200 OK", "", &padded(1024 * 1024 + 1)));
    let server = Server::start(vec![most, more]).await;
    let (client, _) = client(&server.url, &[]);
    let url = ApiUrl(format!("{}/jwks", server.url).into());
    assert_eq!(client.fetch_jwks(&url, false).await.unwrap().len(), 1024 * 1024);
    let larger = client.fetch_jwks(&url, false).await;
    assert!(matches!(larger, Err(FetchError::Exchange(ExchangeError::TooLarge(_)))));
}

/// A peer that accepts and never shakes hands is a failed connection, which the mint may try again, long before its time
/// is over. Fails without `Connector::limit`: the limit of TCP alone knows nothing of TLS.
#[tokio::test]
async fn connecting_takes_no_longer_than_it_may_tls_included() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let root = rcgen::generate_simple_self_signed(["issuer.test".to_owned()]).unwrap().cert.pem();
    let config = Clerk {
        connect_timeout: Duration::from_millis(200),
        timeout: Duration::from_mins(1),
        ca: Some(root.into_bytes().into()),
        ..config(&url, &["sk"])
    };
    let client = ClerkClient::new(&config, Clock::system(), Spawner::current(), metrics()).unwrap();
    let request = MintRequest { deadline: Instant::now() + Duration::from_mins(1), ..request(None) };
    let error = client.mint(request).await.unwrap_err();
    assert!(matches!(error, MintError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_nothing() {
    let server = Server::start(vec![minted("{}"), Act::Reset(String::new()), minted("{}")]).await;
    let (client, _) = client(&server.url, &["sk"]);
    client.mint(request(None)).await.unwrap();
    // The server takes the next request and resets: that is the issuer's failure, told as one and tried again above.
    assert!(client.mint(request(None)).await.unwrap_err().is_transient());
    assert!(client.mint(request(None)).await.is_ok());
    assert_eq!(server.connections.load(Relaxed), 2);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_failed_connection() {
    let server = Server::start(vec![Act::Say("HTTP/1.1 400 Bad Request\r\n\r\n".into())]).await;
    let url = server.url.replace("http:", "https:");
    let built = ClerkClient::new(&config(&url, &["sk"]), Clock::system(), Spawner::current(), metrics());
    match built {
        Ok(client) => assert!(client.mint(request(None)).await.unwrap_err().is_transient()),
        // A machine without trust roots says so at start.
        Err(error) => assert!(matches!(error, BuildError::NoRoots)),
    }
    assert!(server.seen().is_empty(), "no secret went out in the clear");
}
