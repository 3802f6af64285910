//! How much memory things take: the future of a request, which is moved into its connection once for every request, and
//! the maps of sessions and tokens.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use mintgate::app::issuance::ClerkMint;
use mintgate::clock::Clock;
use mintgate::config::{Cache, MintKind, MintSpec, TemplateName};
use mintgate::lifecycle::Spawner;
use mintgate::listener::connection::Connection;
use mintgate::metrics::{CacheName, Metrics, Names, TemplateId};
use mintgate::proxy::handle;
use mintgate::proxy::worker::Worker;
use mintgate::secret::Digest;
use mintgate::session::memory::{Memory, Slots};
use mintgate::session::{KeyId, Session, SessionId, UserId};
use mintgate::token::cache::TokenCache;
use mintgate::token::freshness::Jitter;
use mintgate::token::spent::Spent;
use mintgate::token::{Issuer, Mint, MintError, MintRequest, Token, TokenKey, Urgency};
use serde_json::value::RawValue;

fn size_of_output<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
    size_of::<F>()
}

/// What is rare is boxed, so that it costs the others nothing.
#[test]
fn the_future_of_a_request_stays_small() {
    let size = size_of_output::<Arc<Worker<ClerkMint>>, Arc<Connection>, Request<Incoming>, _>(handle::<ClerkMint>);
    assert!(size <= 2304, "{size} bytes: box what is rare, or end what is over with a block");
}

/// Bytes that the map below may hold.
const BOUND: u64 = 24 << 20;

/// How long sessions and tokens live.
const LIFE: Duration = Duration::from_hours(1);

/// Names, to the process that a test starts, the map that it is to fill.
const FILL: &str = "MINTGATE_FILL";

/// What a map's entries weigh is what they take: the map is given twice as much as it may hold, in a process that does
/// nothing else, and the process grows by what the map may hold.
#[expect(clippy::disallowed_methods, reason = "the process that fills a map is told so from outside")]
#[expect(clippy::print_stdout, reason = "what was measured, for the process that asked")]
#[test]
fn a_full_map_takes_the_memory_that_it_may() {
    if let Ok(map) = std::env::var(FILL) {
        let (grown, weight) = fill(&map);
        assert!(weight <= BOUND && weight > BOUND / 10 * 9, "{weight}");
        println!("grown by {grown}");
        return;
    }
    for map in ["sessions", "claims", "tokens"] {
        let mut filler = Command::new(std::env::current_exe().unwrap());
        filler.args(["--exact", "footprint::a_full_map_takes_the_memory_that_it_may", "--nocapture"]);
        let output = filler.env(FILL, map).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let grown = text.lines().find_map(|line| line.split_once("grown by ")?.1.trim().parse::<u64>().ok());
        let part = grown.unwrap_or_else(|| panic!("{text}")) * 100 / BOUND;
        assert!((85..=115).contains(&part), "{map}: {part} % of what they may take");
    }
}

/// How much a map has made this process grow, and what it says of itself.
fn fill(map: &str) -> (u64, u64) {
    match map {
        "sessions" => fill_sessions(None),
        // As long as those of an application that puts much into its session tokens.
        "claims" => fill_sessions(Some(&format!("\"{}\"", "x".repeat(2000)))),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(fill_tokens()),
    }
}

fn fill_sessions(claims: Option<&str>) -> (u64, u64) {
    let (memory, clock, before) = (Memory::new(BOUND), Clock::system(), resident());
    let slots = Slots { keys: 1, values: 1, verdicts: 1, peek: true };
    // None takes less than 800 bytes.
    for caller in 0..BOUND / 400 {
        let (credential, session) = (memory.tag(caller.to_string()), session(caller, claims));
        let remembered = memory.remember(credential, session, 1, slots, clock.wall(), Duration::ZERO);
        remembered.token_key(0, |session| TokenKey::of(Issuer::new("", ""), session, &spec()));
        remembered.value(0, |session| session.sub.as_str().parse().ok());
    }
    (resident() - before, memory.bytes())
}

async fn fill_tokens() -> (u64, u64) {
    let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new(Names::default())));
    let config = Cache {
        max_bytes: BOUND,
        max_session_bytes: BOUND,
        min_remaining: Duration::ZERO,
        max_lifetime: LIFE,
        refresh_at: None,
        missing_ttl: None,
    };
    let (spawner, jitter) = (Spawner::current(), Jitter::random());
    let tokens = TokenCache::new(&config, clock.clone(), spawner, jitter, Arc::clone(&metrics));
    let (mint, before) = (Arc::new(Forge(clock.clone())), resident());
    // None takes less than 1200 bytes.
    for caller in 0..BOUND / 600 {
        let request = MintRequest {
            key: TokenKey::of(Issuer::new("", ""), &session(caller, None), &spec()),
            template: metrics.other_template(),
            urgency: Urgency::Waiting,
            forced: false,
            trace: None,
            credential_issued_at: None,
            spent: Spent::default(),
            deadline: clock.now().mono + LIFE,
        };
        tokens.get(request, &mint).await.1.unwrap();
    }
    tokens.observe();
    (resident() - before, metrics.control().cache_bytes(CacheName::Tokens).get().unsigned_abs())
}

fn session(caller: u64, claims: Option<&str>) -> Session {
    Session {
        sid: SessionId::new(&format!("sess_{caller:027}")).unwrap(),
        sub: UserId::new(&format!("user_{caller:027}")).unwrap(),
        expires_at: Clock::system().wall().plus(LIFE),
        not_before: None,
        issued_at: None,
        azp: Some("https://app.example.com".into()),
        pending: false,
        impersonated: false,
        org: None,
        scope: Digest::of(b""),
        claims: claims.map(|claims| RawValue::from_string(claims.to_owned()).unwrap()),
        key: KeyId::new("ins_test"),
    }
}

fn spec() -> MintSpec {
    let kind = MintKind::Template(TemplateName::new("custom").unwrap());
    MintSpec { id: TemplateId::new(0), kind, expires_in: None, expect: Vec::new(), vary: Vec::new() }
}

/// Mints tokens of 900 bytes.
struct Forge(Clock);

impl Mint for Forge {
    async fn mint(&self, _: MintRequest) -> Result<Token, MintError> {
        let sent = self.0.now();
        let token = Token::new(&"x".repeat(900), sent.mono).unwrap();
        Ok(token.dated(sent.wall.plus(LIFE), Some(sent.wall), sent.wall, 0))
    }
}

/// Bytes of this process in memory, without those of files.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
