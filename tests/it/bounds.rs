//! How much memory the real binary takes, whatever callers come up with: the bound is the configuration's.
//!
//! `MINTGATE_MEMORY=1000000` (`tests/soak --memory`) does it with so many of everything, with the default configuration.

mod held;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::Request;
use mintgate::clock::Clock;
use mintgate::lifecycle::Spawner;
use serde_json::{Value, json};

use crate::harness::Binary;
use crate::support::directory::Directory;
use crate::support::gateway::PARTY;
use crate::support::http2;
use crate::support::issuer::{Issuer, KID};
use crate::support::tls::{Authority, Client};
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// What a process allocates that has served nobody: its threads, its empty maps. Its code comes on top, and is as much as
/// the build makes of it. And what requests under way may add, with what the allocator keeps of them.
const START_KIB: u64 = 8 * 1024;
const WORK_KIB: u64 = 8 * 1024;

/// What an idle connection takes at most, in KiB: HTTP/1.1 and HTTP/2 in clear text, and over TLS.
const PLAIN_KIB: u64 = 32;
const TLS_KIB: u64 = 64;

/// Connections that callers have at a time while they do something.
const CALLERS: u64 = 16;

/// How much of everything.
struct Size {
    /// Sessions, tokens, keys, paths.
    each: u64,
    connections: u64,
    /// `[cache]`, and how many KiB it allows.
    cache: &'static str,
    cache_kib: u64,
    /// How many times the memory of the maps may be taken: room that an entry leaves in the arena of one thread serves no
    /// other thread, so each may once have held nearly everything.
    arenas: u64,
    print: bool,
}

/// Threads that serve connections. Each has an arena, and so has the one that mints.
const WORKERS: u64 = 2;

/// With the defaults of `cache` and `max_connections`.
const FULL: Size = Size {
    each: 1_000_000,
    connections: 10_000,
    cache: "",
    cache_kib: (64 + 32) * 1024,
    arenas: WORKERS + 1,
    print: true,
};

/// For a test. Without these bounds the cache would take 19 MiB.
const SMALL: Size = Size {
    each: 8000,
    connections: 200,
    cache: "[cache]\nmax_bytes = \"2MiB\"\nmax_session_bytes = \"1MiB\"\n",
    cache_kib: 3 * 1024,
    arenas: 1,
    print: false,
};

/// How callers connect.
#[derive(Clone)]
enum Way {
    Http1,
    Http2,
    Tls(Client, &'static str),
}

/// A connection that is kept open.
enum Kept {
    Http1 { _wire: Wire },
    Http2 { _client: http2::Client },
}

// === impl Size ===

impl Size {
    /// What the process may take: `[cache]` for entries that weigh what they take, give or take a seventh, so many
    /// times, and so many KiB for each connection.
    fn bound_kib(&self, binary: &Binary, times: u64, connection: u64) -> u64 {
        let allocated = binary.allocated_kib();
        assert!(allocated <= START_KIB, "{allocated} KiB at the start");
        binary.resident_kib() + WORK_KIB + self.cache_kib * 115 / 100 * times + self.connections * connection
    }

    #[expect(clippy::print_stderr, reason = "what was measured")]
    fn say(&self, what: &str, binary: &Binary, bound: u64) {
        let (resident, peak) = (binary.resident_kib(), binary.peak_kib());
        if self.print {
            eprintln!("| {what} | {} MiB | {} MiB |", resident / 1024, bound / 1024);
        }
        assert!(peak <= bound, "{what}: {peak} KiB, and the bound is {bound} KiB");
    }
}

// === impl Way ===

impl Way {
    async fn connect(&self, address: SocketAddr) -> Kept {
        match self {
            Self::Http1 => Kept::of_http1(Wire::connect(address).await).await,
            Self::Http2 => Kept::of_http2(http2::Client::connect(address).await, "http").await,
            Self::Tls(client, protocol) => {
                let stream = client.connect(address, "a.test").await.unwrap();
                if *protocol == "h2" {
                    Kept::of_http2(http2::Client::over(stream).await, "https").await
                } else {
                    Kept::of_http1(Wire::over(stream)).await
                }
            }
        }
    }
}

// === impl Kept ===

impl Kept {
    async fn of_http1(mut wire: Wire) -> Self {
        let answer = wire.ask("GET /public HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(answer.outcome(), (200, ""));
        Self::Http1 { _wire: wire }
    }

    async fn of_http2(mut client: http2::Client, scheme: &str) -> Self {
        let request = Request::get(format!("{scheme}://a.test/public")).body(http2::empty()).unwrap();
        assert_eq!(client.ask(request).await.outcome(), (200, ""));
        Self::Http2 { _client: client }
    }
}

/// Answers `ok` and keeps nothing.
async fn forgetful() -> Upstream {
    Upstream::scripted(|mut visit| async move {
        loop {
            visit.wire.wait().await;
            let Ok(Some(_)) = visit.wire.request().await else { return };
            visit.wire.send(OK).await;
        }
    })
    .await
}

fn config(issuer: SocketAddr, upstream: &str, cache: &str, server: &str) -> String {
    format!(
        "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\napi_url = \"http://{issuer}\"\n\
         issuer = \"https://clerk.emulator.invalid\"\nauthorized_parties = [\"{PARTY}\"]\n\
         [clerk.budget]\nrequests = 10000000\n{cache}\
         [server]\nlisten = [\"127.0.0.1:0\"]\nworkers = {WORKERS}\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[routes]]\nname = \"token\"\nmatch = {{ path = \"/token\" }}\nupstream = \"{upstream}\"\n\
         inject = [{{ header = \"authorization\", prefix = \"Bearer \", template = \"any\" }}, \
         {{ header = \"x-user-id\", claim = \"sub\" }}]\n\
         [[routes]]\nname = \"public\"\nmatch = {{ path = \"/public\" }}\nupstream = \"{upstream}\"\nsession = []\n"
    )
}

async fn start(name: &str, config: &str) -> Binary {
    Binary::start(name, config, &[("CLERK_SECRET_KEY", "sk_live_bounds")]).await
}

/// Sends so many requests, each of its own making, and expects this of all of them.
async fn send(
    address: SocketAddr,
    count: u64,
    make: impl Fn(u64) -> String + Send + Sync + 'static,
    outcome: (u16, &str),
) {
    let (next, make, outcome) = (Arc::<AtomicU64>::default(), Arc::new(make), (outcome.0, outcome.1.to_owned()));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (next, make, outcome) = (Arc::clone(&next), Arc::clone(&make), outcome.clone());
            Spawner::current().spawn(async move {
                let mut wire = Wire::connect(address).await;
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= count {
                        return;
                    }
                    let answer = wire.ask(make(number)).await;
                    assert_eq!(answer.outcome(), (outcome.0, outcome.1.as_str()), "{answer:?}");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

fn with_token(token: &str) -> String {
    format!("GET /token HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {token}\r\n\r\n")
}

fn claims(number: u64) -> Value {
    let iat = Clock::system().wall().as_seconds();
    json!({
        "azp": PARTY, "exp": iat + 60, "iat": iat, "nbf": iat - 10, "v": 2, "jti": number.to_string(),
        "iss": "https://clerk.emulator.invalid", "sid": "sess_1", "sub": "user_1",
    })
}

/// Opens connections that have asked once and are silent then, and gives what one of them takes in bytes.
async fn idle(size: &Size, what: &str, binary: &Binary, way: Way, bound: u64) -> u64 {
    let before = binary.resident_kib();
    let address = binary.address;
    let (mut kept, tasks) = (Vec::new(), Spawner::current());
    while (kept.len() as u64) < size.connections {
        // Not so many at once that a handshake would have to wait for long.
        let left = size.connections - kept.len() as u64;
        let opening: Vec<_> = (0..left.min(CALLERS))
            .map(|_| {
                let way = way.clone();
                tasks.spawn(async move { way.connect(address).await })
            })
            .collect();
        for connection in opening {
            kept.push(connection.await.unwrap());
        }
    }
    let each = binary.resident_kib().saturating_sub(before) * 1024 / size.connections;
    size.say(&format!("{} idle connections, {what}: {each} bytes each", size.connections), binary, bound);
    each
}

/// So many of everything that callers may come up with, one after the other in one process, and then connections.
async fn everything(size: &Size, issuer: &Arc<Issuer>, upstream: &Upstream) {
    let config = config(issuer.address, &upstream.url(), size.cache, "");
    let binary = start("bounds", &config).await;
    let (address, bound) = (binary.address, size.bound_kib(&binary, size.arenas, 0));
    size.say("at the start", &binary, bound);
    let signer = Arc::clone(issuer);
    let session = move |number: u64| {
        let (sid, sub) = (format!("sess_{number:027}"), format!("user_{number:027}"));
        with_token(&signer.session(&json!({ "sid": sid, "sub": sub })))
    };
    send(address, size.each, session, (200, "")).await;
    size.say(&format!("{} sessions, each with a token", size.each), &binary, bound);
    let wrong = |number| with_token(&Issuer::forged(KID, &claims(number)));
    send(address, size.each, wrong, (401, "session-invalid")).await;
    size.say(&format!("{} tokens with a wrong signature", size.each), &binary, bound);
    let unknown = |number| with_token(&Issuer::forged(&format!("ins_{number}x"), &claims(number)));
    send(address, size.each, unknown, (401, "session-invalid")).await;
    size.say(&format!("{} values of kid", size.each), &binary, bound);
    let served = |number| format!("GET /public/{number:x}?q={number} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    send(address, size.each / 2, served, (200, "")).await;
    let nowhere = |number| format!("GET /{number:x} HTTP/1.1\r\nHost: h{number}.test\r\n\r\n");
    send(address, size.each / 2, nowhere, (404, "no-route")).await;
    size.say(&format!("{} paths", size.each), &binary, bound);
    // What came before is still there.
    idle(size, "after all of that", &binary, Way::Http1, bound + size.connections * PLAIN_KIB).await;
}

/// A million sessions, wrong tokens, unknown keys and paths, and as many connections as there may be: within what
/// `cache`, `max_connections` and nothing else say.
#[expect(clippy::disallowed_methods, reason = "that it is to be done at full size is said from outside")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_has_the_bound_that_the_configuration_says() {
    let size =
        std::env::var("MINTGATE_MEMORY").map_or(SMALL, |each| Size { each: each.parse().expect("a number"), ..FULL });
    let issuer = Arc::new(Issuer::minting(|_, asked| {
        let session = asked.path.split('/').find(|part| part.starts_with("sess_")).ok_or(404_u16)?;
        // As long as tokens for Hasura are.
        let hasura = json!({ "x-hasura-default-role": "user", "x-hasura-allowed-roles": ["user", "x".repeat(300)] });
        Ok(json!({ "sid": session, "sub": session.replace("sess_", "user_"), "https://hasura.io/jwt/claims": hasura }))
    }));
    let upstream = forgetful().await;
    everything(&size, &issuer, &upstream).await;
    for (what, way) in [("HTTP/1.1", Way::Http1), ("HTTP/2", Way::Http2)] {
        let binary = start("bounds-plain", &config(issuer.address, &upstream.url(), size.cache, "")).await;
        let bound = size.bound_kib(&binary, 1, PLAIN_KIB);
        let each = idle(&size, what, &binary, way, bound).await;
        assert!(each < PLAIN_KIB * 1024, "{what}: {each} bytes");
    }
    let (authority, directory) = (Authority::new(), Directory::new());
    let identity = authority.identity(&["a.test"]);
    let [cert, key] = [("cert.pem", &identity.cert), ("key.pem", &identity.key)].map(|(name, pem)| {
        let path = directory.write(name, pem);
        path.display().to_string()
    });
    for protocol in ["http/1.1", "h2"] {
        let tls = format!("tls = {{ cert = \"{cert}\", key = \"{key}\" }}");
        let binary = start("bounds-tls", &config(issuer.address, &upstream.url(), size.cache, &tls)).await;
        let way = Way::Tls(authority.client(&[protocol], None), protocol);
        let bound = size.bound_kib(&binary, 1, TLS_KIB);
        let each = idle(&size, &format!("{protocol} over TLS"), &binary, way, bound).await;
        assert!(each < TLS_KIB * 1024, "{protocol} over TLS: {each} bytes");
    }
}
