//! The breaker: leaves an issuer alone that fails again and again, and lets one mint try whether it is back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::metrics::Metrics;
use crate::token::{BreakerOpen, Mint, MintError, MintRequest, Token, TokenKey};

/// Transient failures in a row that open the breaker, when they come from at least two keys.
const LIMIT: u32 = 5;
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// A [`Mint`] behind a breaker.
#[derive(Debug)]
pub struct Breaker<M> {
    inner: M,
    health: Arc<Health>,
}

/// What is known of the issuer's health. It outlives a reload: the new configuration's [`Breaker`] goes on with it.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    /// Wakes those who wait for the probe.
    changed: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    /// Transient failures since the last sign of life.
    failures: u32,
    /// The key that failed first among them.
    first: Option<TokenKey>,
    /// Whether another key failed too: one bad session is not a bad issuer.
    several: bool,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until: Instant,
    rest: Duration,
    /// Whether a mint is trying right now.
    probing: bool,
}

/// What a mint may do.
enum Admission {
    Go { probe: bool },
    Refuse(Duration),
    WaitForProbe,
}

/// One mint under way. Dropped without an answer (it was cancelled, or panicked) it gives the probe to the next one.
struct Pass<'a> {
    health: &'a Health,
    probe: bool,
}

// === impl Breaker ===

impl<M> Breaker<M> {
    /// Puts the breaker before `inner`.
    pub fn new(inner: M, health: Arc<Health>) -> Self {
        Self { inner, health }
    }
}

impl<M: Mint> Mint for Breaker<M> {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let pass = self.health.pass(&request).await?;
        let key = request.key.clone();
        let result = self.inner.mint(request).await;
        pass.settle(&key, result.as_ref().err());
        result
    }
}

// === impl Health ===

impl Health {
    /// A healthy issuer.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.control().breaker_open.set(0);
        Arc::new(Self { state: Mutex::default(), changed: watch::Sender::new(()), metrics })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self, request: &MintRequest) -> Result<Pass<'_>, MintError> {
        // Subscribed before the look, so that no change in between is missed.
        let mut changed = self.changed.subscribe();
        loop {
            let admission = self.state().admit(Instant::now());
            match admission {
                Admission::Go { probe } => return Ok(Pass { health: self, probe }),
                Admission::Refuse(retry_after) => return Err(open(retry_after)),
                Admission::WaitForProbe => {
                    // The sender lives as long as `self`, so an error can only be the deadline's.
                    if timeout_at(request.deadline, changed.changed()).await.is_err() {
                        return Err(MintError::Timeout);
                    }
                }
            }
        }
    }

    fn opened(&self, rest: Duration, why: &MintError) {
        self.metrics.control().breaker_open.set(1);
        let why: &dyn std::error::Error = why;
        tracing::warn!(rest_s = rest.as_secs(), error = why, "the issuer keeps failing and is left alone for a while");
    }

    fn closed(&self) {
        self.metrics.control().breaker_open.set(0);
        tracing::info!("the issuer answers again");
    }
}

fn open(retry_after: Duration) -> MintError {
    MintError::Unavailable { retry_after, source: Some(Arc::new(BreakerOpen)) }
}

// === impl State ===

impl State {
    fn admit(&mut self, now: Instant) -> Admission {
        match &mut self.open {
            None => Admission::Go { probe: false },
            Some(open) if now < open.until => Admission::Refuse(open.until - now),
            Some(open) if open.probing => Admission::WaitForProbe,
            Some(open) => {
                open.probing = true;
                Admission::Go { probe: true }
            }
        }
    }

    /// Counts a failure; how long the issuer is to rest when that opens the breaker.
    fn failed(&mut self, key: &TokenKey, probe: bool, now: Instant) -> Option<Duration> {
        let rest = match self.open {
            Some(open) if probe => (open.rest * 2).min(LONGEST_REST),
            // It was under way when the breaker opened, and tells nothing new.
            Some(_) => return None,
            None => {
                self.failures += 1;
                self.several |= self.first.get_or_insert_with(|| key.clone()) != key;
                if self.failures < LIMIT || !self.several {
                    return None;
                }
                FIRST_REST
            }
        };
        self.open = Some(Open { until: now + rest, rest, probing: false });
        Some(rest)
    }
}

// === impl Pass ===

impl Pass<'_> {
    fn settle(mut self, key: &TokenKey, error: Option<&MintError>) {
        let mut state = self.health.state();
        match error {
            Some(error) if error.is_transient() => {
                let opened = state.failed(key, self.probe, Instant::now());
                drop(state);
                self.probe &= opened.is_none();
                if let Some(rest) = opened {
                    self.health.opened(rest, error);
                    self.health.changed.send_replace(());
                }
            }
            // Our own limits, or a purge: nothing about the issuer. `Drop` passes the probe on.
            Some(MintError::Throttled { .. } | MintError::Revoked | MintError::Unavailable { .. }) => {}
            // A token, or a clear no: it is alive. But an answer to a question from before it failed closes nothing.
            _ if state.open.is_none() || self.probe => {
                let was_open = state.open.is_some();
                *state = State::default();
                drop(state);
                self.probe = false;
                if was_open {
                    self.health.closed();
                    self.health.changed.send_replace(());
                }
            }
            _ => {}
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            if let Some(open) = &mut self.health.state().open {
                open.probing = false;
            }
            self.health.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;
    use crate::clock::{Clock, Wall};
    use crate::token::fake::{Fake, key, metrics, request, unavailable};

    fn breaker(inner: &Arc<Fake>) -> (Arc<Breaker<Arc<Fake>>>, Arc<Metrics>) {
        let metrics = metrics();
        (Arc::new(Breaker::new(Arc::clone(inner), Health::new(Arc::clone(&metrics)))), metrics)
    }

    fn refused(result: &Result<Token, MintError>) -> bool {
        matches!(result, Err(error) if !error.is_transient() && matches!(error, MintError::Unavailable { .. }))
    }

    /// Fails while the switch is on.
    fn switched(down: &Arc<AtomicBool>, latency: Duration) -> Arc<Fake> {
        let (down, clock) = (Arc::clone(down), Clock::following(Wall::from_seconds(1)));
        Fake::new(move |_, _| {
            let (down, now) = (Arc::clone(&down), clock.now());
            async move {
                sleep(latency).await;
                if down.load(Ordering::SeqCst) { Err(unavailable()) } else { Ok(Token::new("t", now.mono).unwrap()) }
            }
        })
    }

    /// Fails when it never opens, when an open one lets mints through, and when the rest does not double or has no
    /// bound.
    #[tokio::test(start_paused = true)]
    async fn five_failures_over_two_keys_open_it_and_the_rest_doubles() {
        let fake = Fake::failing(unavailable());
        let (breaker, metrics) = breaker(&fake);
        for number in 0..5 {
            assert!(!refused(&breaker.mint(request(&key(number % 2))).await));
        }
        assert_eq!(metrics.control().breaker_open.get(), 1);
        let mut calls = 5;
        for rest in [1, 2, 4, 8, 16, 30, 30] {
            let before = Instant::now();
            assert!(refused(&breaker.mint(request(&key(0))).await));
            assert_eq!((fake.calls(), Instant::now()), (calls, before), "refused at once, without a call");
            advance(Duration::from_millis(rest * 1000 - 1)).await;
            assert!(refused(&breaker.mint(request(&key(0))).await));
            advance(Duration::from_millis(1)).await;
            assert!(!refused(&breaker.mint(request(&key(0))).await), "the probe, after {rest} s");
            calls += 1;
            assert_eq!(fake.calls(), calls);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_key_alone_never_opens_it() {
        let fake = Fake::failing(unavailable());
        let (breaker, metrics) = breaker(&fake);
        for _ in 0..50 {
            assert!(!refused(&breaker.mint(request(&key(0))).await));
        }
        assert_eq!((fake.calls(), metrics.control().breaker_open.get()), (50, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clear_answer_ends_the_row() {
        let fake =
            Fake::new(
                |call, _| async move { Err(if call % 5 == 4 { MintError::SessionEnded } else { unavailable() }) },
            );
        let (breaker, metrics) = breaker(&fake);
        for number in 0..40 {
            let _ = breaker.mint(request(&key(number))).await;
        }
        assert_eq!((fake.calls(), metrics.control().breaker_open.get()), (40, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_budget_refuses_says_nothing_about_the_issuer() {
        let fake = Fake::failing(MintError::Throttled { retry_after: Duration::from_secs(1) });
        let (breaker, metrics) = breaker(&fake);
        for number in 0..20 {
            let _ = breaker.mint(request(&key(number))).await;
        }
        assert_eq!((fake.calls(), metrics.control().breaker_open.get()), (20, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_one_is_the_probe_and_the_others_wait_for_it() {
        let down = Arc::new(AtomicBool::new(true));
        let fake = switched(&down, Duration::from_millis(300));
        let (breaker, metrics) = breaker(&fake);
        for number in 0..5 {
            let _ = breaker.mint(request(&key(number))).await;
        }
        advance(Duration::from_secs(1)).await;
        down.store(false, Ordering::SeqCst);
        let before = fake.calls();
        let waiting: Vec<_> = (0..20)
            .map(|number| {
                let breaker = Arc::clone(&breaker);
                crate::lifecycle::Spawner::current().spawn(async move { breaker.mint(request(&key(number))).await })
            })
            .collect();
        sleep(Duration::from_millis(100)).await;
        assert_eq!(fake.calls() - before, 1, "one probe");
        for task in waiting {
            assert!(task.await.unwrap().is_ok());
        }
        assert_eq!((fake.calls() - before, metrics.control().breaker_open.get()), (20, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_answers_those_who_wait_and_an_abandoned_one_is_passed_on() {
        let down = Arc::new(AtomicBool::new(true));
        let fake = switched(&down, Duration::from_millis(300));
        let (breaker, _) = breaker(&fake);
        for number in 0..5 {
            let _ = breaker.mint(request(&key(number))).await;
        }
        advance(Duration::from_secs(1)).await;
        let (first, second, third) = tokio::join!(
            tokio::time::timeout(Duration::from_millis(50), breaker.mint(request(&key(1)))),
            breaker.mint(request(&key(2))),
            breaker.mint(request(&key(3))),
        );
        assert!(first.is_err(), "the first probe went away");
        assert_ne!(refused(&second), refused(&third), "one of them was the next probe");
        assert_eq!(fake.calls(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_probe_ends_at_the_deadline() {
        let fake = Fake::new(|call, _| async move {
            if call >= 5 {
                sleep(Duration::from_mins(1)).await;
            }
            Err(unavailable())
        });
        let (breaker, _) = breaker(&fake);
        for number in 0..5 {
            let _ = breaker.mint(request(&key(number))).await;
        }
        advance(Duration::from_secs(1)).await;
        let probe = breaker.mint(request(&key(1)));
        let started = Instant::now();
        let waiter = async {
            let result = breaker.mint(request(&key(2))).await;
            (result, started.elapsed())
        };
        let (_, (result, took)) = tokio::join!(probe, waiter);
        assert!(matches!(result, Err(MintError::Timeout)));
        assert_eq!(took.as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_under_way_when_it_opened_does_not_prolong_the_rest() {
        let fake = Fake::new(|call, _| async move {
            sleep(Duration::from_millis(if call < 5 { 300 } else { 800 })).await;
            Err(unavailable())
        });
        let (breaker, _) = breaker(&fake);
        let started = Instant::now();
        let tasks: Vec<_> = (0..10)
            .map(|number| {
                let breaker = Arc::clone(&breaker);
                crate::lifecycle::Spawner::current().spawn(async move { breaker.mint(request(&key(number))).await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().is_err());
        }
        tokio::time::sleep_until(started + Duration::from_millis(1305)).await;
        assert!(!refused(&breaker.mint(request(&key(0))).await), "the probe, 1 s after it opened");
    }

    /// Fails when `settle` closes the breaker for whoever comes with an answer, and not for the probe alone.
    #[tokio::test(start_paused = true)]
    async fn an_answer_to_a_question_from_before_it_opened_closes_nothing() {
        let fake = Fake::new(|call, _| async move {
            if call > 0 {
                return Err(unavailable());
            }
            sleep(Duration::from_millis(300)).await;
            Ok(Token::new("t", Instant::now()).unwrap())
        });
        let (breaker, metrics) = breaker(&fake);
        let late = {
            let breaker = Arc::clone(&breaker);
            crate::lifecycle::Spawner::current().spawn(async move { breaker.mint(request(&key(9))).await })
        };
        tokio::task::yield_now().await;
        for number in 0..5 {
            let _ = breaker.mint(request(&key(number))).await;
        }
        assert!(late.await.unwrap().is_ok());
        assert_eq!(metrics.control().breaker_open.get(), 1);
        assert!(refused(&breaker.mint(request(&key(0))).await));
        assert_eq!(fake.calls(), 6);
    }

    /// Fails when `settle` takes a `Throttled` for a sign of life.
    #[tokio::test(start_paused = true)]
    async fn what_the_budget_refuses_ends_no_row_of_failures() {
        let fake = Fake::new(|call, _| async move {
            Err(if call == 4 { MintError::Throttled { retry_after: Duration::from_secs(1) } } else { unavailable() })
        });
        let (breaker, metrics) = breaker(&fake);
        for number in 0..6 {
            let _ = breaker.mint(request(&key(number))).await;
        }
        assert_eq!((fake.calls(), metrics.control().breaker_open.get()), (6, 1));
    }
}
