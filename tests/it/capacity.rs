//! The simulator says what happens: the same requests, made of two real gateways over real sockets, cost as many mints.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use http::Method;
use mintgate::clock::Clock;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::emulator::limit::RateLimit;
use mintgate::emulator::{Emulator, Options, base_url};
use mintgate::lifecycle::Shutdown;
use mintgate::metrics::{Lookup, RouteId};
use mintgate::simulate;
use mintgate::simulate::arrivals::{Arrivals, Pattern, Plan, Routing};
use mintgate::simulate::case::{Case, Model};

use crate::harness::{Booted, call, client, in_place, serve, until};

const SECOND: Duration = Duration::from_secs(1);

/// What the real gateways did.
struct Real {
    requests: u64,
    hits: u64,
    mints: u64,
}

/// A secret key, and nothing else.
struct Key(HashMap<&'static str, String>);

impl Environment for Key {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn exists(&self, _: &Path) -> bool {
        false
    }
}

/// Two gateways, and an issuer, whose clock the test sets forward from one request to the next: so nothing here depends on
/// how fast the machine is.
async fn for_real(plan: Plan, seed: u64, lasting: Duration) -> Real {
    let (clock, shutdown) = (Clock::following(Clock::system().wall()), Shutdown::new());
    let options = Options { rate_limit: Some(RateLimit::Off), ..Options::default() };
    let emulator = Emulator::new(options, clock.clone()).unwrap();
    let (issuer, upstream) = (serve(emulator.router(), &shutdown), serve(axum::Router::new(), &shutdown));
    let text = format!(
        "[clerk]\nsecret_key = {{ env = \"KEY\" }}\npublishable_key = \"{}\"\napi_url = \"{}\"\n\
         [clerk.budget]\nrequests = 100000\nper_session = \"100000/10s\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n\
         [[routes]]\nname = \"r\"\nupstream = \"http://{upstream}\"\nsession = [\"bearer\"]\n\
         inject = [{{ header = \"x-token\", template = \"plain\", expires_in = \"1m\" }}]\n",
        emulator.publishable_key(),
        base_url(issuer),
    );
    let key = Key(HashMap::from([("KEY", emulator.secret_key().expose().to_owned())]));
    let mut gateways: Vec<Booted> = Vec::new();
    for _ in 0..plan.replicas {
        let parsed = validate::parse(&text, Path::new("test.toml"), &key, Secrets::Required);
        let (config, _) = parsed.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        gateways.push(in_place(config, clock.clone(), &shutdown).await);
    }
    let caller = client(false);
    let bearer = format!("Bearer {}", emulator.secret_key().expose());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let mut sessions = Vec::new();
    for _ in 0..plan.sessions {
        let url = format!("{}/v1/sessions", base_url(issuer));
        let made = call(&caller, Method::POST, &url, &headers, "{\"user_id\": \"user_emulator_alice\"}").await;
        let made: serde_json::Value = serde_json::from_str(&made.body).unwrap();
        sessions.push(made["id"].as_str().unwrap().to_owned());
    }
    let (mut passed, mut requests) = (Duration::ZERO, 0);
    for arrival in Arrivals::new(plan, seed).take_while(|arrival| arrival.at < lasting) {
        clock.step(i64::try_from(arrival.at.saturating_sub(passed).as_millis()).unwrap());
        passed = arrival.at;
        let gateway = &gateways[usize::try_from(arrival.replica).unwrap()];
        let session = &sessions[usize::try_from(arrival.session).unwrap()];
        let token = format!("Bearer {}", emulator.session_token(session).unwrap());
        let url = format!("http://{}/", gateway.address);
        let answer = call(&caller, Method::GET, &url, &[("authorization", &token)], "").await;
        // The upstream's own: it has no routes.
        assert_eq!((answer.status, answer.code()), (404, ""), "{answer:?}");
        requests += 1;
        until("the refresh has ended", || gateway.gateway.tokens.under_way() == 0).await;
    }
    let found = |lookup| {
        let counted = |gateway: &Booted| {
            gateway
                .gateway
                .metrics
                .shards()
                .iter()
                .map(|shard| shard.lookups(RouteId::new(0), lookup).get())
                .sum::<u64>()
        };
        gateways.iter().map(counted).sum::<u64>()
    };
    let mints = emulator.state()["calls"]["mints"].as_u64().unwrap();
    let hits = found(Lookup::Hit);
    assert_eq!(hits + found(Lookup::Mint), requests, "one at a time, nobody waits for another");
    shutdown.stop();
    Real { requests, hits, mints }
}

/// The same of the simulator, from a cold start.
fn simulated(plan: Plan, seed: u64, lasting: Duration) -> Real {
    const LEAST: &str = "[[routes]]\nname = \"r\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n\
                         [clerk.budget]\nrequests = 100000\nper_session = \"100000/10s\"\n";
    let parsed = validate::parse(LEAST, Path::new("test.toml"), &Key(HashMap::new()), Secrets::Replaced);
    let (config, _) = parsed.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let case = Case {
        seed,
        replicas: plan.replicas,
        sessions: plan.sessions,
        templates: plan.templates,
        lifetime: Duration::from_mins(1),
        token_bytes: 900,
        pattern: plan.pattern,
        every: plan.every,
        routing: plan.routing,
        issuer: Model { latency: (SECOND / 1000, SECOND / 1000), limit: None, outage: None, storm: None },
        cache: config.cache,
        budget: config.clerk.budget,
        shared: None,
        timeout: config.clerk.timeout,
        cold: true,
        warm_up: Duration::ZERO,
        measured: lasting,
        sample: None,
    };
    let counted = simulate::run(&case, &mut |_| ()).unwrap().figures.counted;
    Real { requests: counted.requests, hits: counted.hits, mints: counted.calls_minted }
}

#[track_caller]
fn assert_within_5_percent(what: &str, simulated: u64, real: u64) {
    assert!(simulated.abs_diff(real) * 20 <= real, "{what}: {simulated} simulated, {real} real");
}

/// Fails where the simulator mints, keeps, refreshes or routes otherwise than a gateway does: without its refresh ahead of
/// time, say, or with tokens that live half as long.
#[tokio::test]
async fn the_simulator_agrees_with_two_real_gateways() {
    let every = 7 * SECOND;
    for (pattern, routing, every) in [
        (Pattern::Steady, Routing::Any, every),
        (Pattern::Steady, Routing::Sticky, every),
        (Pattern::Fixed, Routing::Sticky, 3 * every),
    ] {
        let plan = Plan { pattern, every, routing, sessions: 6, templates: 1, replicas: 2, kept: 1.0 };
        let lasting = 600 * SECOND;
        let real = for_real(plan, 3, lasting).await;
        let simulated = tokio::task::spawn_blocking(move || simulated(plan, 3, lasting)).await.unwrap();
        assert!(real.mints > 50 && real.hits > 50, "{} mints, {} hits", real.mints, real.hits);
        assert_eq!(simulated.requests, real.requests);
        assert_within_5_percent("mints", simulated.mints, real.mints);
        assert_within_5_percent("hits", simulated.hits, real.hits);
    }
}
