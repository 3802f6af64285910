//! A gateway inside this process: real configuration, real maps, an issuer that mints at once, and any number of callers.
//!
//! A caller is a number. Its session is one that the emulator has signed, with other ids in it, so that a million of
//! them need no million signatures; its credential is a text of the usual length with the number in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, header};
use http_body_util::Empty;
use mintgate::address::{BoundAddress, PeerAddress};
use mintgate::app::gateway::{Lasting, names};
use mintgate::clock::Clock;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::config::{Config, MintSpec};
use mintgate::emulator::{Emulator, Options};
use mintgate::lifecycle::Spawner;
use mintgate::listener::connection::{Connection, Ends};
use mintgate::metrics::{ListenerId, Metrics};
use mintgate::proxy::gateway::{Gateway, Plans};
use mintgate::proxy::inject::SlotSource;
use mintgate::proxy::request::target;
use mintgate::proxy::worker::Worker;
use mintgate::proxy::{Decision, decide};
use mintgate::record::Peer;
use mintgate::session::jwks::Jwks;
use mintgate::session::jwks::keys::KeySet;
use mintgate::session::memory::Remembered;
use mintgate::session::{Session, SessionId, UserId};
use mintgate::token::spent::Spent;
use mintgate::token::{Mint, MintError, MintRequest, Token, TokenKey, Urgency};
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

const PARTY: &str = "https://app.example.com";

/// How long sessions and tokens live: longer than any bench.
const LIFE: Duration = Duration::from_hours(3);

/// Bytes of a session token with a few claims, as Clerk signs them.
const CREDENTIAL_BYTES: usize = 922;

/// Digits of a caller's number, wherever it stands.
const DIGITS: usize = 12;

/// How every minted token begins.
pub(crate) const MINTED: &str = "eyJhbGciOiJSUzI1NiJ9.sess_";

/// Worlds that were made: each has a directory of its own.
static WORLDS: AtomicUsize = AtomicUsize::new(0);

/// What a world has room for, and how much of it one caller takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) routes: usize,
    pub(crate) session_bytes: u64,
    pub(crate) token_bytes: u64,
    /// Of a session's claims, where a route points into them; `None`: no route does.
    pub(crate) claims: Option<usize>,
    /// Of a minted token.
    pub(crate) token: usize,
}

/// The gateway and what surrounds it.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gateway: Arc<Gateway<Forge>>,
    pub(crate) worker: Arc<Worker<Forge>>,
    pub(crate) connection: Arc<Connection>,
    /// A session token that the gateway can verify.
    pub(crate) signed: String,
    sample: Session,
    claims: Option<String>,
    credential: String,
    directory: PathBuf,
}

/// Mints a token with the session's id in it, without asking anybody.
#[derive(Debug)]
pub(crate) struct Forge {
    clock: Clock,
    bytes: usize,
}

/// The outside, as a configuration sees it.
struct Outside(String);

/// Numbers that look random, the same in each run (xorshift64*).
pub(crate) struct Dice(u64);

// === impl Room ===

impl Default for Room {
    fn default() -> Self {
        // As the rule for a million live sessions has it.
        Self { routes: 1, session_bytes: 1 << 30, token_bytes: 2 << 30, claims: None, token: 900 }
    }
}

// === impl World ===

impl World {
    pub(crate) fn new(room: Room) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let control = Spawner::new(runtime.handle().clone());
        let clock = Clock::system();
        let options = Options { authorized_party: Some(PARTY.to_owned()), ..Options::default() };
        let emulator = Emulator::new(options, clock.clone()).unwrap();
        let signed = emulator.session_token("sess_emulator_alice").unwrap();
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("mintgate-parts-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let text = configuration(room.routes, emulator.issuer(), &directory.join("upstream"));
        let outside = Outside(emulator.jwt_key().unwrap());
        let (mut config, _) = validate::parse(&text, Path::new("bench.toml"), &outside, Secrets::Required)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        (config.cache.max_session_bytes, config.cache.max_bytes) = (room.session_bytes, room.token_bytes);
        config.cache.max_lifetime = LIFE;
        let mintgate::config::KeySource::Pinned(key) = &config.clerk.keys else { unreachable!("jwt_key pins it") };
        let jwks = Jwks::fixed(KeySet::pinned(key).unwrap());
        let metrics = Arc::new(Metrics::new(names(&config)));
        let forge = Forge { clock: clock.clone(), bytes: room.token };
        let (plans, lasting) = (Plans::new(&config, &[]).unwrap(), Lasting::new(&config, &metrics, &clock, &control));
        let gateway = Arc::new(lasting.gateway(1, &config, plans, jwks, forge, &metrics));
        let worker = Worker::new(Arc::clone(&gateway), clock.clone(), control.clone());
        let connection = connection(&config);
        let sample = gateway.sessions.verifier.verify(&signed, &gateway.sessions.jwks.current()).unwrap();
        let credential = padded(&signed, CREDENTIAL_BYTES);
        let claims = room.claims.map(|bytes| format!("\"{}\"", "x".repeat(bytes)));
        Self {
            runtime,
            clock,
            config,
            metrics,
            gateway,
            worker,
            connection,
            signed,
            sample,
            claims,
            credential,
            directory,
        }
    }

    /// Where the upstream listens.
    pub(crate) fn upstream(&self) -> PathBuf {
        self.directory.join("upstream")
    }

    /// A text in which a caller's number can be written.
    pub(crate) fn credential(&self) -> String {
        self.credential.clone()
    }

    /// The session of a caller.
    pub(crate) fn session(&self, caller: usize) -> Session {
        let sample = &self.sample;
        Session {
            // As long as Clerk's ids are.
            sid: SessionId::new(&format!("sess_{caller:027}")).unwrap(),
            sub: UserId::new(&format!("user_{caller:027}")).unwrap(),
            expires_at: self.clock.wall().plus(LIFE),
            not_before: sample.not_before,
            issued_at: sample.issued_at,
            azp: sample.azp.clone(),
            pending: false,
            impersonated: false,
            org: sample.org.clone(),
            scope: sample.scope,
            claims: self.claims.clone().map(|claims| RawValue::from_string(claims).unwrap()),
            key: sample.key.clone(),
        }
    }

    /// Remembers a caller's session, as its first request would.
    pub(crate) fn remember(&self, caller: usize, credential: &mut String) -> Arc<Remembered> {
        write(credential, caller);
        let sessions = &self.gateway.sessions;
        let tag = sessions.memory.tag(credential);
        let (gateway, slots) = (&self.gateway, self.gateway.plans.slots);
        sessions.memory.remember(tag, self.session(caller), gateway.number, slots, self.clock.wall(), sessions.skew)
    }

    /// The key of the token that the first route injects.
    pub(crate) fn key<'a>(&self, remembered: &'a Remembered) -> &'a TokenKey {
        let (spec, slot) = self.spec();
        remembered.token_key(slot, |session| TokenKey::of(self.gateway.issuer, session, spec))
    }

    fn spec(&self) -> (&MintSpec, usize) {
        let mut slots = self.gateway.plans.routes[0].slots.iter();
        let token = slots.find_map(|slot| match &slot.source {
            SlotSource::Token { spec, key } => Some((spec, *key)),
            _ => None,
        });
        token.unwrap()
    }

    /// Has a token minted and kept.
    pub(crate) async fn mint(&self, key: &TokenKey) {
        let now = self.clock.now();
        let request = MintRequest {
            key: key.clone(),
            template: self.spec().0.id,
            urgency: Urgency::Waiting,
            forced: false,
            trace: None,
            credential_issued_at: None,
            spent: Spent::default(),
            deadline: now.mono + Duration::from_mins(1),
        };
        self.gateway.tokens.get(request, &self.gateway.mint).await.1.unwrap();
    }

    /// Callers `0..count`, each with its session and its token in memory.
    pub(crate) fn populate(&self, count: usize) {
        let mut credential = self.credential();
        self.runtime.block_on(async {
            for caller in 0..count {
                let remembered = self.remember(caller, &mut credential);
                self.mint(self.key(&remembered)).await;
            }
        });
        let held = self.gateway.sessions.memory.entries();
        assert_eq!(held, count as u64, "not every session is in memory");
    }

    /// Steps 4 to 7 of a request and its access record, as `worker` does them.
    pub(crate) async fn decide<'a>(
        &self,
        worker: &Worker<Forge>,
        gateway: &'a Gateway<Forge>,
        request: &Request<Empty<bytes::Bytes>>,
        parts: &http::request::Parts,
    ) -> Decision<'a> {
        let peer = Peer { address: self.connection.ends.peer, trusted: false, scheme: "http" };
        let mut record = worker.snapshot().recorder.begin(request, peer);
        let target = target(parts, request.body(), &gateway.plans, &self.connection).unwrap();
        decide(worker, gateway, parts, &target, false, &mut record).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Of a temporary directory nothing else depends on this.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// What a caller sends beside its credential.
pub(crate) const HEADERS: [(&str, &str); 6] = [
    ("host", "api.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "application/json"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("x-client-version", "1.24.0"),
];

/// A request of a caller, as hyper would give it.
pub(crate) fn request(credential: &str) -> Request<Empty<bytes::Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = "/r0/todos?limit=20".parse().unwrap();
    let headers = request.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::AUTHORIZATION, format!("Bearer {credential}").parse().unwrap());
    request
}

/// Writes a caller's number into a credential.
pub(crate) fn write(credential: &mut String, caller: usize) {
    let at = credential.len() - 2 * DIGITS;
    let number = format!("{caller:0DIGITS$}");
    credential.replace_range(at..at + DIGITS, &number);
}

fn padded(text: &str, length: usize) -> String {
    let mut padded = text.to_owned();
    while padded.len() < length {
        padded.push('x');
    }
    padded
}

/// A connection on loopback.
pub(crate) fn connection(config: &Config) -> Arc<Connection> {
    let ends = Ends {
        peer: PeerAddress::Tcp("127.0.0.1:40000".parse().unwrap()),
        local: BoundAddress::Tcp("127.0.0.1:6468".parse().unwrap()),
        listener: ListenerId::new(0),
    };
    Arc::new(Connection::new(ends, None, &config.server.limits))
}

/// Routes `/r0`, `/r1` ..., each of which injects a token and the user's id under names of its own.
fn configuration(routes: usize, issuer: &str, upstream: &Path) -> String {
    let mut text = format!(
        "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\njwt_key = {{ file = \"clerk-jwt.pem\" }}\n\
         issuer = \"{issuer}\"\nauthorized_parties = [\"{PARTY}\"]\n\
         [server]\nlisten = [\"127.0.0.1:0\"]\n\
         [upstreams.up]\nurl = \"unix:{}\"\nremove_headers = [\"x-hasura-*\"]\n",
        upstream.display()
    );
    for route in 0..routes {
        let route = format!(
            "[[routes]]\nname = \"r{route}\"\nmatch = {{ path = \"/r{route}\" }}\nupstream = \"up\"\n\
             inject = [{{ header = \"authorization\", prefix = \"Bearer \", template = \"t\" }},\n\
             {{ header = \"x-user-id-{route}\", claim = \"sub\", required = true }}]\n"
        );
        text.push_str(&route);
    }
    text
}

// === impl Forge ===

impl Mint for Forge {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let sent = self.clock.now();
        let sid = request.key.parts().sid.as_str();
        let jwt = padded(&format!("{MINTED}{}.", sid.trim_start_matches("sess_")), self.bytes);
        let token = Token::new(&jwt, sent.mono).map_err(|_| MintError::Unfit)?;
        Ok(token.dated(sent.wall.plus(LIFE), Some(sent.wall), sent.wall, 0))
    }
}

// === impl Outside ===

impl Environment for Outside {
    fn var(&self, name: &str) -> Option<String> {
        (name == "CLERK_SECRET_KEY").then(|| "sk_test_bench".to_owned())
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.clone().into())
    }

    fn exists(&self, _: &Path) -> bool {
        true
    }
}

// === impl Dice ===

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to `below`, without it.
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let spread = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        // The upper bits are the good ones.
        usize::try_from(spread >> 33).unwrap() % below
    }
}

/// What one of `count` calls takes, in nanoseconds of this thread's time on a CPU: others may use the machine too.
pub(crate) fn nanos_each(count: u32, mut call: impl FnMut()) -> f64 {
    let start = on_cpu();
    (0..count).for_each(|_| call());
    f64::from(u32::try_from((on_cpu() - start) / 1000).unwrap()) * 1000.0 / f64::from(count)
}

/// How long this thread has been on a CPU, in nanoseconds; behind by a tick of the kernel at most.
fn on_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The middle one of some numbers, and the least and the greatest.
pub(crate) fn spread(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    (numbers[numbers.len() / 2], numbers[0], numbers[numbers.len() - 1])
}
