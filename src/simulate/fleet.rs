//! The simulated replicas, and the requests that they get.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep, sleep_until};

use super::arrivals::{Arrival, Arrivals, Routing};
use super::case::Case;
use super::issuer::{Aged, Issuer};
use super::keys::{self, Keys};
use super::level::Remote;
use super::sample::Sample;
use super::tally::Tally;
use crate::clock::{Clock, Now, Wall};
use crate::lifecycle::Spawner;
use crate::metrics::{CacheName, Metrics, Names};
use crate::token::breaker::{Breaker, Health};
use crate::token::budget::{Budget, Limiter};
use crate::token::cache::TokenCache;
use crate::token::freshness::Jitter;
use crate::token::retry::Retry;
use crate::token::shared::Shared;
use crate::token::shared::level::Level;
use crate::token::spent::Spent;
use crate::token::{Freshness, MintRequest, TokenKey, Urgency};

/// A gateway forgets dead tokens so often.
const SWEEP: Duration = Duration::from_mins(1);

/// Time for the fleet to come to where it would be after a while; nothing is asked for meanwhile.
const FILLING: Duration = Duration::from_secs(10);

/// So much of that is done at the same time.
const AT_ONCE: usize = 1000;

/// Any moment will do.
const BEGIN: Wall = Wall::from_millis(1_800_000_000_000);

/// How a simulated gateway mints: as a real one does.
type Mint = Shared<Retry<Breaker<Budget<Arc<Issuer>>>>, Remote>;

/// One gateway.
struct Replica {
    cache: Arc<TokenCache>,
    mint: Arc<Mint>,
    level: Option<Arc<Level<Remote>>>,
}

/// All that are simulated.
struct Fleet {
    replicas: Vec<Replica>,
    keys: Keys,
    clock: Clock,
    tasks: Spawner,
    metrics: Arc<Metrics>,
    tally: Arc<Tally>,
    timeout: Duration,
}

/// Runs a case, on the paused runtime that calls this.
pub(super) async fn drive(case: &Case, sample: &Sample, progress: &mut (dyn FnMut(f64) + Send)) -> Arc<Tally> {
    // So that there is a time at which a token could have been minted that is as old as one can be.
    sleep(case.lifetime + Duration::from_secs(1)).await;
    let start = Instant::now() + FILLING;
    let begin = start + case.warm_up;
    let tally = Arc::new(Tally::new(begin, case.measured));
    let clock = Clock::following(BEGIN);
    let issuer = Issuer::new(case, sample.part(), begin, clock.clone(), Arc::clone(&tally));
    let fleet = Fleet::new(case, sample, &issuer, clock, Arc::clone(&tally));
    if !case.cold {
        fleet.fill(case, sample, &issuer).await;
    }
    let (all, mut swept, mut told) = (case.warm_up + case.measured, Duration::ZERO, 0.0);
    for arrival in Arrivals::new(sample.plan(case), case.seed).take_while(|arrival| arrival.at < all) {
        let at = start + arrival.at;
        if at > Instant::now() {
            sleep_until(at).await;
        }
        if arrival.at >= swept + SWEEP {
            swept = arrival.at;
            fleet.sweep();
        }
        fleet.ask(&arrival, at);
        let done = arrival.at.as_secs_f64() / all.as_secs_f64();
        if done >= told + 0.01 {
            told = done;
            progress(done);
        }
    }
    sleep_until(start + all).await;
    fleet.weigh();
    // Who still waits does so for `timeout` at most.
    fleet.tasks.idle().await;
    tally
}

// === impl Fleet ===

impl Fleet {
    fn new(case: &Case, sample: &Sample, issuer: &Arc<Issuer>, clock: Clock, tally: Arc<Tally>) -> Self {
        let templates = (0..case.templates).map(keys::template).collect();
        let metrics = Arc::new(Metrics::new(Names { templates, ..Names::default() }));
        let (tasks, jitter) = (Spawner::current(), seeded(case.seed));
        let (budget, cache) = (sample.budget(case), sample.cache(case));
        let remote = Remote::of(case);
        let one = Limiter::new(&budget, Arc::clone(&metrics));
        let replica = |_| {
            // One budget for all, where they share a level.
            let limiter = if remote.is_some() { Arc::clone(&one) } else { Limiter::new(&budget, Arc::clone(&metrics)) };
            let breaker = Breaker::new(Budget::new(Arc::clone(issuer), limiter), Health::new(Arc::clone(&metrics)));
            let level = remote.as_ref().and_then(|remote| remote.level(case, &clock, &tasks, &metrics));
            let retry = Retry::new(breaker, clock.clone(), jitter.clone());
            let mint = Arc::new(Shared::new(retry, level.clone(), case.rules()));
            let (tasks, metrics) = (tasks.clone(), Arc::clone(&metrics));
            Replica { cache: TokenCache::new(&cache, clock.clone(), tasks, jitter.clone(), metrics), mint, level }
        };
        let replicas = (0..sample.replicas).map(replica).collect();
        Self { replicas, keys: Keys::new(case.templates), clock, tasks, metrics, tally, timeout: case.timeout }
    }

    fn request(&self, key: TokenKey, template: u32, now: Instant) -> MintRequest {
        MintRequest {
            key,
            template: self.keys.template(template),
            urgency: Urgency::Waiting,
            forced: false,
            credential_issued_at: None,
            spent: Spent::default(),
            deadline: now + self.timeout,
            trace: None,
        }
    }

    /// As a proxy does it: look, serve, and refresh where that is due; else wait.
    fn ask(&self, arrival: &Arrival, at: Instant) {
        let replica = &self.replicas[usize::try_from(arrival.replica).unwrap_or(0)];
        let key = self.keys.of(arrival.session, arrival.template);
        let now: Now = self.clock.at(at);
        match replica.cache.get_fresh(&key, now) {
            Some((_, Freshness::RefreshDue)) => {
                self.tally.hit(at);
                replica.cache.refresh(self.request(key, arrival.template, at), &replica.mint);
            }
            Some(_) => self.tally.hit(at),
            None => {
                let request = self.request(key, arrival.template, at);
                let (cache, mint, tally) =
                    (Arc::clone(&replica.cache), Arc::clone(&replica.mint), Arc::clone(&self.tally));
                drop(self.tasks.spawn(async move {
                    let (lookup, result) = cache.get(request, &mint).await;
                    tally.waited(at, Instant::now(), lookup, result.as_ref().err());
                }));
            }
        }
    }

    /// Puts into each memory what would be there after a while, so that a fleet need not be simulated from its first moment:
    /// tokens of every age. What is not so is soon worn off, as long as the warm-up lasts for a token's life.
    async fn fill(&self, case: &Case, sample: &Sample, issuer: &Arc<Issuer>) {
        let oldest = case.rules().replaced_after(case.lifetime);
        let aged = Arc::new(Aged { issuer: Arc::clone(issuer), oldest });
        let shared = |replica: &Replica| Arc::new(Shared::new(Arc::clone(&aged), replica.level.clone(), case.rules()));
        let mints: Vec<_> = self.replicas.iter().map(shared).collect();
        let mut rng = Rng::with_seed(case.seed ^ 0x6669_6c6c);
        let live = case.live();
        for session in 0..sample.sessions {
            for template in 0..case.templates {
                // Through one of them the shared level gets it too.
                let routing = if case.shared.is_some() { Routing::Sticky } else { case.routing };
                for replica in self.homes(routing, session) {
                    if rng.f64() < live {
                        let request = self.request(self.keys.of(session, template), template, Instant::now());
                        let (cache, mint) = (Arc::clone(&self.replicas[replica].cache), Arc::clone(&mints[replica]));
                        // What cannot be is not there: the warm-up goes on without.
                        drop(self.tasks.spawn(async move { drop(cache.get(request, &mint).await) }));
                    }
                    if self.tasks.alive() > AT_ONCE {
                        self.tasks.idle().await;
                    }
                }
            }
        }
        self.tasks.idle().await;
    }

    /// Which replicas may keep the tokens of a session.
    fn homes(&self, routing: Routing, session: u64) -> std::ops::Range<usize> {
        let all = self.replicas.len();
        match routing {
            Routing::Any => 0..all,
            Routing::Sticky => {
                let home = usize::try_from(session % all as u64).unwrap_or(0);
                home..home + 1
            }
        }
    }

    fn sweep(&self) {
        for replica in &self.replicas {
            replica.cache.sweep();
        }
    }

    /// Counts what is in memory.
    fn weigh(&self) {
        let control = self.metrics.control();
        for replica in &self.replicas {
            replica.cache.sweep();
            replica.cache.observe();
            let (tokens, bytes) = (control.cache_entries(CacheName::Tokens), control.cache_bytes(CacheName::Tokens));
            self.tally.holds(tokens.get(), bytes.get());
        }
    }
}

/// Numbers that are the same for the same seed.
fn seeded(seed: u64) -> Jitter {
    let rng = Mutex::new(Rng::with_seed(seed ^ 0x6a69_7474));
    Jitter::of(move || rng.lock().unwrap_or_else(PoisonError::into_inner).f64())
}
