//! The keys that verify sessions: one immutable set at a time, fetched in the background, read without waiting.

pub mod keys;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::Clock;
use crate::lifecycle::{Shutdown, Spawner};
use crate::metrics::{Fetch, Metrics};
use crate::session::jwks::keys::{BadJwks, KeySet};
use crate::telemetry;

/// An unknown `kid` starts a fetch no oftener than this, whoever asks.
pub const UNKNOWN_KID_INTERVAL: Duration = Duration::from_secs(10);

/// After a failed fetch: this long to the next one, doubling.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Downloads the JWKS document. The implementor caps the answer at 1 MiB and follows no redirect.
pub trait FetchKeys: Send + Sync + 'static {
    /// One exchange.
    fn fetch(&self) -> impl Future<Output = Result<Bytes, FetchError>> + Send;
}

/// No JWKS document came.
#[derive(Debug, thiserror::Error)]
#[error("the JWKS could not be downloaded")]
pub struct FetchError(#[source] pub Box<dyn Error + Send + Sync>);

/// How often keys are fetched and how long anybody waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between good fetches.
    pub refresh: Duration,
    /// For one fetch, and for a caller with an unknown `kid`.
    pub timeout: Duration,
}

/// The current keys. Cheap to clone; when the last clone is gone the background task ends.
#[derive(Clone)]
pub struct Jwks {
    shared: Arc<Shared>,
    /// `None` for keys that never change.
    task: Option<Arc<DropGuard>>,
}

struct Shared {
    current: watch::Sender<Arc<KeySet>>,
    /// The current set's generation, so that a request looks at the set only when it changed. Stored after `current`.
    generation: AtomicU64,
    rounds: watch::Sender<Rounds>,
    wanted: Notify,
}

/// Fetches, counted from 1.
#[derive(Debug, Clone, Copy, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
    /// The round that an unknown `kid` asked for last, and when.
    asked: u64,
    asked_at: Option<Instant>,
}

struct Task<F> {
    shared: Arc<Shared>,
    fetch: F,
    pace: Pace,
    clock: Clock,
    metrics: Arc<Metrics>,
}

#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the JWKS endpoint did not answer in time")]
    Timeout,
    #[error(transparent)]
    Bad(#[from] BadJwks),
}

// === impl Jwks ===

impl Jwks {
    /// Keys that never change: a pinned one, or none.
    pub fn fixed(keys: KeySet) -> Self {
        Self { shared: Arc::new(Shared::new(keys)), task: None }
    }

    /// Fetches now, again with back-off until it succeeds, and then every [`Pace::refresh`]. The task ends at
    /// [`Shutdown::stopped`] or with the last clone. `known`: what serves until then, which may be none.
    pub fn start<F: FetchKeys>(
        fetch: F,
        known: KeySet,
        pace: Pace,
        clock: Clock,
        metrics: Arc<Metrics>,
        spawner: &Spawner,
        shutdown: &Shutdown,
    ) -> Self {
        let shared = Arc::new(Shared::new(known));
        let task = Task { shared: Arc::clone(&shared), fetch, pace, clock, metrics };
        let (gone, stopped) = (CancellationToken::new(), shutdown.stopped());
        let unowned = gone.clone();
        drop(spawner.spawn(async move {
            tokio::select! {
                () = task.run() => {}
                () = unowned.cancelled() => {}
                () = stopped => {}
            }
        }));
        Self { shared, task: Some(Arc::new(gone.drop_guard())) }
    }

    /// The current set.
    pub fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// Changes whenever the set does; never 0. A load, no lock.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether a key is known. Once true it stays true, whatever the issuer does.
    pub fn is_ready(&self) -> bool {
        !self.shared.current.borrow().is_empty()
    }

    /// Resolves when a key is known.
    pub async fn ready(&self) {
        // The sender lives in `shared`, so the channel cannot close.
        let _ = self.shared.current.subscribe().wait_for(|keys| !keys.is_empty()).await;
    }

    /// For a token whose `kid` is not in `seen`: a newer set, when there is one or a fetch brings one in time.
    ///
    /// Waits for a fetch that is under way or asked for. Asks for one when the last one that was asked for lies
    /// [`UNKNOWN_KID_INTERVAL`] back; otherwise answers `None` at once.
    pub async fn newer_than(&self, seen: &KeySet, patience: Duration) -> Option<Arc<KeySet>> {
        // Fixed keys do not change.
        self.task.as_ref()?;
        let newer = || Some(self.current()).filter(|keys| keys.generation() != seen.generation());
        if let Some(keys) = newer() {
            return Some(keys);
        }
        let round = self.shared.ask(Instant::now())?;
        let mut rounds = self.shared.rounds.subscribe();
        let _ = tokio::time::timeout(patience, rounds.wait_for(|rounds| rounds.ended >= round)).await;
        newer()
    }
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwks").field("current", &self.current()).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn new(keys: KeySet) -> Self {
        Self {
            current: watch::Sender::new(Arc::new(keys.with_generation(1))),
            generation: AtomicU64::new(1),
            rounds: watch::Sender::default(),
            wanted: Notify::new(),
        }
    }

    /// The round to wait for; `None` when it is too early for another one.
    fn ask(&self, now: Instant) -> Option<u64> {
        let mut round = None;
        self.rounds.send_if_modified(|rounds| {
            let pending = rounds.begun.max(rounds.asked);
            if pending > rounds.ended {
                round = Some(pending);
            } else if rounds.asked_at.is_none_or(|at| now.duration_since(at) >= UNKNOWN_KID_INTERVAL) {
                rounds.asked = rounds.begun + 1;
                rounds.asked_at = Some(now);
                round = Some(rounds.asked);
                self.wanted.notify_one();
            }
            // Nobody waits for a round to be asked for.
            false
        });
        round
    }

    /// Puts a good answer to use. A key that is not in it is gone at once.
    fn install(&self, keys: KeySet) {
        let generation = self.generation.load(Ordering::Relaxed);
        let changed = self.current.send_if_modified(|current| {
            let changed = !current.same_keys(&keys);
            if changed {
                *current = Arc::new(keys.with_generation(generation + 1));
            }
            changed
        });
        if changed {
            self.generation.store(generation + 1, Ordering::Release);
        }
    }
}

// === impl Task ===

impl<F: FetchKeys> Task<F> {
    async fn run(&self) {
        let retries = || {
            ExponentialBuilder::default()
                .with_min_delay(FIRST_RETRY)
                .with_max_delay(LAST_RETRY.min(self.pace.refresh.max(FIRST_RETRY)))
                .without_max_times()
                .with_jitter()
                .build()
        };
        let mut backoff = retries();
        loop {
            let pause = match self.round().await {
                Ok(()) => {
                    backoff = retries();
                    self.pace.refresh
                }
                Err(error) => {
                    let error = telemetry::chain(&error);
                    if self.shared.current.borrow().is_empty() {
                        tracing::warn!(%error, "cannot fetch the issuer's keys: no session can be verified yet");
                    } else {
                        tracing::warn!(%error, "cannot fetch the issuer's keys; the known ones stay in use");
                    }
                    backoff.next().unwrap_or(LAST_RETRY)
                }
            };
            // A timeout is as good as being wanted: the next round is due.
            let _ = tokio::time::timeout(pause, self.shared.wanted.notified()).await;
        }
    }

    async fn round(&self) -> Result<(), RoundError> {
        self.shared.rounds.send_modify(|rounds| rounds.begun += 1);
        let result = self.fetch().await;
        let control = self.metrics.control();
        match &result {
            Ok(()) => {
                control.jwks_fetches(Fetch::Ok).add();
                control.jwks_fetched_at_ms.set(self.clock.wall().as_millis());
            }
            Err(_) => control.jwks_fetches(Fetch::Failed).add(),
        }
        // After the keys are in place, so that whoever waited sees them.
        self.shared.rounds.send_modify(|rounds| rounds.ended = rounds.begun);
        result
    }

    async fn fetch(&self) -> Result<(), RoundError> {
        let answer = tokio::time::timeout(self.pace.timeout, self.fetch.fetch()).await;
        let keys = KeySet::parse(&answer.map_err(|_| RoundError::Timeout)??)?;
        self.shared.install(keys);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::metrics::Names;
    use crate::session::testing::{jwks, signer, stranger};
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    /// Answers with what a test put there last, after a delay.
    #[derive(Clone, Default)]
    struct Endpoint(Arc<State>);

    #[derive(Default)]
    struct State {
        answer: Mutex<Option<Bytes>>,
        delay: Mutex<Duration>,
        fetches: AtomicUsize,
    }

    impl Endpoint {
        fn serves(&self, answer: Option<Bytes>) {
            *self.0.answer.lock().unwrap() = answer;
        }

        fn takes(&self, delay: Duration) {
            *self.0.delay.lock().unwrap() = delay;
        }

        fn fetches(&self) -> usize {
            self.0.fetches.load(Ordering::SeqCst)
        }
    }

    impl FetchKeys for Endpoint {
        async fn fetch(&self) -> Result<Bytes, FetchError> {
            self.0.fetches.fetch_add(1, Ordering::SeqCst);
            let delay = *self.0.delay.lock().unwrap();
            tokio::time::sleep(delay).await;
            self.0.answer.lock().unwrap().clone().ok_or_else(|| FetchError("refused".into()))
        }
    }

    const PACE: Pace = Pace { refresh: Duration::from_mins(5), timeout: Duration::from_secs(5) };
    const PATIENCE: Duration = Duration::from_secs(5);

    struct Test {
        endpoint: Endpoint,
        jwks: Jwks,
        metrics: Arc<Metrics>,
        spawner: Spawner,
        shutdown: Shutdown,
    }

    fn start(answer: Option<Bytes>) -> Test {
        let (endpoint, shutdown, spawner) = (Endpoint::default(), Shutdown::new(), Spawner::current());
        endpoint.serves(answer);
        endpoint.takes(Duration::from_millis(100));
        let metrics = Arc::new(Metrics::new(Names::default()));
        let clock = Clock::following(Wall::from_seconds(1000));
        let jwks =
            Jwks::start(endpoint.clone(), KeySet::empty(), PACE, clock, Arc::clone(&metrics), &spawner, &shutdown);
        Test { endpoint, jwks, metrics, spawner, shutdown }
    }

    fn knows(jwks: &Jwks, kid: &str) -> bool {
        jwks.current().find(Some(kid)).is_some()
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_at_start_with_back_off() {
        let test = start(None);
        pass(10).await;
        assert!(!test.jwks.is_ready());
        let tries = test.endpoint.fetches();
        assert!((3..=8).contains(&tries), "{tries}");
        // The last one may be under way.
        let failed = test.metrics.control().jwks_fetches(Fetch::Failed).get();
        assert!(failed == tries as u64 || failed + 1 == tries as u64, "{failed} of {tries}");
        assert_eq!(test.metrics.control().jwks_fetched_at_ms.get(), 0);
        test.endpoint.serves(Some(jwks(&[signer().jwk()])));
        test.jwks.ready().await;
        assert!(knows(&test.jwks, "ins_test"));
        pass(1).await;
        assert_eq!(test.metrics.control().jwks_fetches(Fetch::Ok).get(), 1);
        assert!(test.metrics.control().jwks_fetched_at_ms.get() > 1_010_000);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_refreshed_in_the_background() {
        let test = start(Some(jwks(&[signer().jwk()])));
        pass(1).await;
        assert_eq!(test.endpoint.fetches(), 1);
        test.endpoint.serves(Some(jwks(&[signer().jwk(), stranger().jwk()])));
        pass(299).await;
        assert!(!knows(&test.jwks, "ins_other"));
        pass(2).await;
        assert!(knows(&test.jwks, "ins_other") && knows(&test.jwks, "ins_test"));
        assert_eq!(test.endpoint.fetches(), 2);
    }

    /// Fails when a download that fails, or that holds no usable key, takes the place of what is known.
    #[tokio::test(start_paused = true)]
    async fn a_failed_refresh_keeps_the_old_keys() {
        let test = start(Some(jwks(&[signer().jwk()])));
        pass(1).await;
        let generation = test.jwks.generation();
        for bad in [None, Some(Bytes::from("<html>")), Some(jwks(&[]))] {
            test.endpoint.serves(bad);
            pass(600).await;
            assert!(knows(&test.jwks, "ins_test") && test.jwks.is_ready());
            assert_eq!(test.jwks.generation(), generation);
        }
        // It went on trying, sooner than the next refresh.
        assert!(test.endpoint.fetches() > 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_hangs_is_given_up() {
        let test = start(Some(jwks(&[signer().jwk()])));
        pass(1).await;
        test.endpoint.takes(Duration::from_hours(1));
        pass(400).await;
        assert!(test.endpoint.fetches() > 3);
        assert!(knows(&test.jwks, "ins_test"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_absent_from_a_good_answer_is_dropped() {
        let test = start(Some(jwks(&[signer().jwk(), stranger().jwk()])));
        pass(1).await;
        let generation = test.jwks.generation();
        test.endpoint.serves(Some(jwks(&[stranger().jwk()])));
        pass(300).await;
        assert!(!knows(&test.jwks, "ins_test") && knows(&test.jwks, "ins_other"));
        assert_ne!(test.jwks.generation(), generation);
        assert_eq!(test.jwks.generation(), test.jwks.current().generation());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_answer_changes_no_generation() {
        let test = start(Some(jwks(&[signer().jwk(), stranger().jwk()])));
        pass(1).await;
        let generation = test.jwks.generation();
        test.endpoint.serves(Some(jwks(&[stranger().jwk(), signer().jwk()])));
        pass(301).await;
        assert_eq!((test.endpoint.fetches(), test.jwks.generation()), (2, generation));
    }

    /// Fails without `UNKNOWN_KID_INTERVAL`.
    #[tokio::test(start_paused = true)]
    async fn unknown_kid_fetches_at_most_once_in_10_s() {
        let test = start(Some(jwks(&[signer().jwk()])));
        pass(1).await;
        let (before, begin) = (test.endpoint.fetches(), Instant::now());
        // A flood over 39 s, several at once.
        while begin.elapsed() < Duration::from_secs(39) {
            let seen = test.jwks.current();
            let ask = || test.jwks.newer_than(&seen, PATIENCE);
            let (a, b, c) = tokio::join!(ask(), ask(), ask());
            assert!(a.is_none() && b.is_none() && c.is_none());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(test.endpoint.fetches() - before, 4);
    }

    /// Fails when `ask` does not look for a round that is under way.
    #[tokio::test(start_paused = true)]
    async fn all_who_meet_a_new_kid_share_one_fetch_and_its_keys() {
        let test = start(Some(jwks(&[signer().jwk()])));
        pass(1).await;
        test.endpoint.serves(Some(jwks(&[signer().jwk(), stranger().jwk()])));
        let seen = test.jwks.current();
        let ask = || test.jwks.newer_than(&seen, PATIENCE);
        let (a, b) = tokio::join!(ask(), ask());
        assert!(a.unwrap().find(Some("ins_other")).is_some() && b.unwrap().find(Some("ins_other")).is_some());
        assert_eq!(test.endpoint.fetches(), 2);
        // Whoever holds an older set gets the newer one without a fetch.
        assert!(ask().await.is_some());
        assert_eq!(test.endpoint.fetches(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_for_the_first_fetch_but_not_for_ever() {
        let test = start(Some(jwks(&[signer().jwk()])));
        tokio::task::yield_now().await;
        let seen = test.jwks.current();
        assert!(test.jwks.newer_than(&seen, PATIENCE).await.is_some());
        assert_eq!(test.endpoint.fetches(), 1);

        let slow = start(Some(jwks(&[signer().jwk()])));
        slow.endpoint.takes(Duration::from_secs(4));
        let begin = Instant::now();
        assert!(slow.jwks.newer_than(&slow.jwks.current(), Duration::from_secs(1)).await.is_none());
        assert_eq!(begin.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn fixed_keys_are_never_fetched() {
        let jwks = Jwks::fixed(signer().keys());
        assert!(jwks.is_ready() && jwks.newer_than(&jwks.current(), PATIENCE).await.is_none());
        assert!(!Jwks::fixed(KeySet::empty()).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_its_owner_or_the_process() {
        let test = start(None);
        pass(1).await;
        let other = test.jwks.clone();
        drop(test.jwks);
        pass(1).await;
        assert_eq!(test.spawner.alive(), 1);
        drop(other);
        test.spawner.idle().await;

        let stopped = start(None);
        pass(1).await;
        stopped.shutdown.stop();
        stopped.spawner.idle().await;
        drop(test.shutdown);
    }
}
