//! Many users at once through the real binary, in fair weather and in foul: every answer must be its asker's.
//!
//! A test lets everything go wrong once, within seconds. [`tests/soak`](../soak) asks for millions, through
//! `MINTGATE_SOAK`.

mod callers;
mod tally;
mod upstream;
mod users;
mod weather;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mintgate::clock::Clock;
use mintgate::lifecycle::Spawner;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::Binary;
use crate::support::directory::Directory;
use crate::support::issuer::{Asked, Issuer};
use callers::Crowd;
use tally::{Kind, Tally};
use upstream::{Fault, Stage};
use users::Users;
use weather::{TROUBLES, Trouble, Weather};

/// Callers of each kind.
const HTTP1: usize = 24;
const HTTP2: usize = 6;
const WEBSOCKETS: usize = 6;
const LEAVING: usize = 2;

/// By how much memory may grow after the warm-up.
const GROWTH_KIB: u64 = 48 * 1024;

/// How long and how hard.
#[derive(Clone, Copy)]
struct Plan {
    /// At least so many, and every trouble at least once.
    requests: u64,
    calm: Duration,
    trouble: Duration,
    /// How long after a trouble failures are excused by it: the breaker's rest doubles while the trouble lasts.
    grace: Duration,
    /// Seconds that a minted token lives.
    life: i64,
    /// How often to say what has come about; `None`: never.
    report: Option<Duration>,
    fault: Fault,
}

/// What came of it.
struct Outcome {
    requests: u64,
    took: Duration,
    tally: Arc<Crowd>,
    /// The binary's memory in KiB: before the first request, after the warm-up, at the end; and the most.
    resident: [u64; 3],
    peak: u64,
    log: String,
}

/// For a test.
const SHORT: Plan = Plan {
    requests: 4000,
    calm: Duration::from_millis(500),
    trouble: Duration::from_millis(1500),
    grace: Duration::from_secs(8),
    life: 3,
    report: None,
    fault: Fault::None,
};

// === impl Outcome ===

impl Outcome {
    fn tally(&self) -> &Tally {
        &self.tally.tally
    }

    fn text(&self) -> String {
        let Self { requests, took, resident: [start, warm, end], peak, .. } = self;
        #[expect(clippy::cast_precision_loss, reason = "for a reader")]
        let rate = *requests as f64 / took.as_secs_f64();
        format!(
            "{requests} requests in {:.0} s, {rate:.0} a second; {} answered well\n{}  \
             memory in KiB: {start} at the start, {warm} after the warm-up, {end} at the end, {peak} at most\n",
            took.as_secs_f64(),
            self.tally().answered(),
            self.tally().text()
        )
    }

    /// What is wrong with it.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let [_, unexpected] = self.tally().failures();
        if self.tally().crossings() > 0 {
            complaints.push(format!("{} crossings", self.tally().crossings()));
        }
        if unexpected > 0 {
            complaints.push(format!("{unexpected} failures without a trouble to blame:{}", self.tally().unexpected()));
        }
        let [_, warm, end] = self.resident;
        if end > warm + GROWTH_KIB {
            complaints.push(format!("memory grew from {warm} to {end} KiB"));
        }
        for kind in [Kind::Http1, Kind::Http2, Kind::WebSocket, Kind::Message, Kind::Cancelled] {
            if self.tally().count(kind) < self.requests / 2000 {
                complaints.push(format!("hardly any {kind:?}"));
            }
        }
        if self.log.contains("panicked") {
            complaints.push(self.log.clone());
        }
        complaints
    }
}

/// Mints what a session may have, or does what the weather says.
fn mint(asked: &Asked, weather: &Weather, life: i64) -> Result<serde_json::Value, u16> {
    let session = asked.path.split('/').find(|part| part.starts_with("sess_soak")).ok_or(404_u16)?;
    let session = match weather.now() {
        Trouble::Outage => return Err(503),
        Trouble::Throttle => return Err(429),
        Trouble::Lies => users::session_of(usize::from(session == users::session_of(0))),
        Trouble::None | Trouble::Resets => session.to_owned(),
    };
    let exp = Clock::system().wall().as_seconds() + life;
    Ok(json!({ "sid": session, "sub": session.replace("sess_", "user_"), "exp": exp }))
}

fn config(issuer: &Issuer, one: std::net::SocketAddr, two: std::net::SocketAddr, key: &std::path::Path) -> String {
    let route = |name: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nupstream = \"{name}\"\n\
             inject = [{{ header = \"authorization\", prefix = \"Bearer \", template = \"soak\" }}, \
             {{ header = \"x-user-id\", claim = \"sub\", required = true }}]\n"
        )
    };
    format!(
        "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\napi_url = \"http://{}\"\n\
         issuer = \"https://clerk.emulator.invalid\"\nauthorized_parties = [\"{}\"]\njwt_key = {{ file = \"{}\" }}\n\
         [clerk.budget]\nrequests = 100000\nper_session = \"1000/10s\"\n[cache]\nmin_remaining = \"1s\"\n\
         [server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [upstreams.one]\nurl = \"http://{one}\"\n[upstreams.two]\nurl = \"http://{two}\"\nhttp2 = true\n{}{}",
        issuer.address,
        crate::support::gateway::PARTY,
        key.display(),
        route("one"),
        route("two"),
    )
}

/// Runs all of it.
async fn soak(name: &str, plan: Plan) -> Outcome {
    let weather = Weather::new(plan.grace);
    let skies = Arc::clone(&weather);
    let issuer = Arc::new(Issuer::minting(move |_, asked| mint(asked, &skies, plan.life)));
    let stage = Stage::new(Arc::clone(&weather), plan.fault);
    let (one, two) = (upstream::http1(&stage).await, upstream::http2(&stage).await);
    let directory = Directory::new();
    let key = directory.write("clerk-jwt.pem", issuer.pem());
    let config = config(&issuer, one, two, &key);
    let binary = Binary::start(name, &config, &[("CLERK_SECRET_KEY", "sk_test_soak")]).await;
    let (users, tasks) = (Users::new(&issuer), Spawner::current());
    drop(tasks.spawn(Arc::clone(&users).renew()));
    let crowd = Arc::new(Crowd {
        address: binary.address,
        users,
        weather: Arc::clone(&weather),
        tally: Tally::default(),
        asked: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let (began, start) = (Instant::now(), binary.resident_kib());
    let mut callers = Vec::new();
    for _ in 0..HTTP1 {
        callers.push(tasks.spawn(callers::http1(Arc::clone(&crowd))));
    }
    for number in 0..HTTP2 {
        callers.push(tasks.spawn(callers::http2(Arc::clone(&crowd), number < LEAVING)));
    }
    for _ in 0..WEBSOCKETS {
        callers.push(tasks.spawn(callers::websocket(Arc::clone(&crowd))));
    }
    for _ in 0..LEAVING {
        callers.push(tasks.spawn(callers::http1_leaving(Arc::clone(&crowd))));
    }
    let reports = plan.report.map(|every| tasks.spawn(report(Arc::clone(&crowd), every, binary.id())));
    let mut warm = None;
    loop {
        for trouble in TROUBLES {
            weather.turn(Trouble::None);
            tokio::time::sleep(plan.calm).await;
            weather.turn(trouble);
            tokio::time::sleep(plan.trouble).await;
        }
        // Everything has happened once, and what stays is there.
        let resident = binary.resident_kib();
        warm.get_or_insert(resident);
        if crowd.asked.load(Relaxed) >= plan.requests {
            break;
        }
    }
    weather.turn(Trouble::None);
    crowd.over.store(true, Relaxed);
    for caller in callers {
        // A caller that panics has met what no peer may do.
        caller.await.unwrap();
    }
    if let Some(reports) = reports {
        reports.abort();
    }
    let resident = [start, warm.unwrap(), binary.resident_kib()];
    let requests = crowd.asked.load(Relaxed);
    let (took, peak, log) = (began.elapsed(), binary.peak_kib(), binary.log());
    Outcome { requests, took, tally: crowd, resident, peak, log }
}

/// Says how far it is.
#[expect(clippy::print_stderr, reason = "for whoever waits")]
async fn report(crowd: Arc<Crowd>, every: Duration, process: u32) {
    let began = Instant::now();
    loop {
        tokio::time::sleep(every).await;
        let (seconds, requests) = (began.elapsed().as_secs(), crowd.asked.load(Relaxed));
        let [excused, unexpected] = crowd.tally.failures();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim();
        eprintln!(
            "{seconds} s: {requests} requests, {} answered well, {} crossings, failures {excused} in a trouble and \
             {unexpected} without{}, {resident}",
            crowd.tally.answered(),
            crowd.tally.crossings(),
            crowd.tally.unexpected(),
        );
    }
}

/// `MINTGATE_SOAK=10000000` asks for so many instead, and prints what comes of them.
#[expect(clippy::disallowed_methods, reason = "how many are asked for is said from outside")]
#[expect(clippy::print_stderr, reason = "what came of it")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_its_askers_whatever_goes_wrong() {
    let plan = match std::env::var("MINTGATE_SOAK") {
        Ok(requests) => Plan {
            requests: requests.parse().expect("a number of requests"),
            calm: Duration::from_secs(30),
            trouble: Duration::from_secs(12),
            grace: Duration::from_secs(25),
            life: 10,
            report: Some(Duration::from_secs(10)),
            ..SHORT
        },
        Err(_) => SHORT,
    };
    let outcome = soak("soak", plan).await;
    if plan.report.is_some() {
        eprint!("{}", outcome.text());
    }
    let complaints = outcome.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}\n{}", outcome.text());
}

/// What the soak is for can be seen by it: both an answer that is another's, and a token that is.
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "as above")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_or_a_token_that_is_mixed_up_is_a_crossing() {
    for fault in [Fault::Answers, Fault::Tokens] {
        let plan = Plan { calm: Duration::from_millis(300), trouble: Duration::from_millis(50), fault, ..SHORT };
        let outcome = soak("soak-mixed", plan).await;
        if std::env::var("MINTGATE_SOAK").is_ok() {
            eprint!("{fault:?} mixed up: {}", outcome.text());
        }
        let complaints = outcome.complaints();
        let told = complaints.first().is_some_and(|complaint| complaint.ends_with("crossings"));
        assert!(told, "{fault:?} were mixed up, and: {complaints:?}\n{}", outcome.text());
    }
}
