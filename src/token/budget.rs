//! The instance's budget: how many calls the issuer gets, in which order, and none while it says "too many".

mod bucket;
mod place;
pub mod purse;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::bucket::{Bucket, Measure, Paces};
use self::place::Place;
use self::purse::{Answer, Ask, Purse};
use crate::config;
use crate::metrics::Metrics;
use crate::token::freshness::Jitter;
use crate::token::spent::Spent;
use crate::token::{Mint, MintError, MintRequest, Token, Urgency};

/// A longer pause is cut: a slip in one `Retry-After` must not end minting for good.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// A pause of all replicas ends at most so much later, and by no more than a tenth of it.
const SPREAD: Duration = Duration::from_secs(1);

/// What somebody is told who finds the line full.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Nobody stands in line for longer than this part of his time: a fifth is left for the call. Without it a line that is too
/// long for good would give each unit to somebody whose time is over before the answer is there, and waste nearly all.
fn latest(now: Instant, deadline: Instant) -> Instant {
    now + deadline.saturating_duration_since(now).mul_f64(0.8)
}

/// A [`Mint`] of which each call takes one unit of the budget.
#[derive(Debug)]
pub struct Budget<M> {
    inner: M,
    limiter: Arc<Limiter>,
}

/// The budget itself. What it knows of the issuer outlives every reload, since the issuer's count does too.
///
/// Who waits stands in one line, first come first served, for at most four fifths of the request's time. Whoever is at its head
/// waits for a free place among `max_concurrent`, for the end of a pause, and for a unit. Refresh ahead of time never
/// stands in line: it is refused when it cannot go at once.
#[derive(Debug)]
pub struct Limiter {
    bucket: Mutex<Bucket>,
    paces: Mutex<Paces>,
    /// The head of the line; fair, so it is the line.
    head: Semaphore,
    under_way: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    /// After a 429: nothing is sent before this. Shared with the budgets before this one, whose last calls may hear one.
    paused_until: Arc<watch::Sender<Option<Instant>>>,
    /// The bucket of all replicas, where there is one: then that decides, and the own one when nobody answers there.
    purse: Mutex<Option<Arc<dyn Purse>>>,
    /// What all replicas together may use.
    whole: Measure,
    jitter: Jitter,
    metrics: Arc<Metrics>,
}

// === impl Budget ===

impl<M> Budget<M> {
    /// Puts the budget before `inner`.
    pub fn new(inner: M, limiter: Arc<Limiter>) -> Self {
        Self { inner, limiter }
    }
}

impl<M: Mint> Mint for Budget<M> {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let _permit = self.limiter.admit(&request).await?;
        let result = self.inner.mint(request).await;
        if let Err(MintError::Throttled { retry_after }) = &result {
            self.limiter.hear(*retry_after);
        }
        result
    }
}

// === impl Limiter ===

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn throttled<T>(retry_after: Duration) -> Result<T, MintError> {
    Err(MintError::Throttled { retry_after })
}

impl Limiter {
    /// A full budget.
    pub fn new(budget: &config::Budget, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::of(budget, Bucket::new(budget, Instant::now()), Arc::new(watch::Sender::new(None)), metrics)
    }

    /// Another budget for the same issuer: what has been spent stays spent, and a pause goes on.
    pub fn resized(&self, budget: &config::Budget) -> Arc<Self> {
        let bucket = locked(&self.bucket).resized(budget, Instant::now());
        let resized = Self::of(budget, bucket, Arc::clone(&self.paused_until), Arc::clone(&self.metrics));
        resized.share(locked(&self.purse).clone());
        resized
    }

    /// Units come out of this bucket from now on; `None`: out of the own one.
    pub fn share(&self, purse: Option<Arc<dyn Purse>>) {
        *locked(&self.purse) = purse;
    }

    fn of(
        budget: &config::Budget,
        bucket: Bucket,
        paused_until: Arc<watch::Sender<Option<Instant>>>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let limiter = Self {
            bucket: Mutex::new(bucket),
            paces: Mutex::new(Paces::new(budget.per_session)),
            head: Semaphore::new(1),
            under_way: Arc::new(Semaphore::new(budget.max_concurrent.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            max_waiting: budget.max_waiting,
            paused_until,
            purse: Mutex::new(None),
            whole: Measure::of(budget, budget.all_requests()),
            jitter: Jitter::random(),
            metrics,
        };
        limiter.observe();
        Arc::new(limiter)
    }

    /// Brings the gauge up to date; for a scrape.
    pub fn observe(&self) {
        let available = locked(&self.bucket).available(Instant::now());
        self.metrics.control().budget_available.set(available);
    }

    /// Counts a call that is not a mint and that nobody holds up: the issuer counts it too.
    pub fn spend(&self) {
        // Where nothing is left, the issuer itself may still have room, or say that it has none.
        let _counted: Result<(), Instant> = self.take(false);
    }

    /// Takes a unit for a call that is not a mint, as a refresh ahead of time does: at once, and not out of the reserve.
    ///
    /// # Errors
    /// The time after which there may be one.
    pub fn spare(&self) -> Result<(), Duration> {
        let now = Instant::now();
        if let Some(until) = self.paused(now) {
            return Err(until - now);
        }
        self.take(true).map_err(|at| at.saturating_duration_since(now))
    }

    async fn admit(&self, request: &MintRequest) -> Result<OwnedSemaphorePermit, MintError> {
        match request.urgency {
            Urgency::Ahead => self.admit_ahead(request).await,
            Urgency::Waiting => self.admit_waiting(request).await,
        }
    }

    /// At once or not at all. Nobody in line is overtaken: a free place goes to the head of the line first, and a bucket
    /// that makes the head wait has nothing above the reserve.
    async fn admit_ahead(&self, request: &MintRequest) -> Result<OwnedSemaphorePermit, MintError> {
        let now = Instant::now();
        if let Some(until) = self.paused(now) {
            return throttled(until - now);
        }
        let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() else {
            return throttled(FULL_RETRY_AFTER);
        };
        if let Err(wait) = locked(&self.paces).take(&request.key.parts().sid, now, now) {
            return throttled(wait);
        }
        match self.unit(true, &request.spent).await {
            Ok(()) => Ok(permit),
            Err(at) => throttled(at.saturating_duration_since(now)),
        }
    }

    async fn admit_waiting(&self, request: &MintRequest) -> Result<OwnedSemaphorePermit, MintError> {
        let Some(_place) = self.place() else { return throttled(FULL_RETRY_AFTER) };
        let now = Instant::now();
        let latest = latest(now, request.deadline);
        let from = match locked(&self.paces).take(&request.key.parts().sid, now, latest) {
            Ok(from) => from,
            Err(wait) => return throttled(wait),
        };
        let mut pause = self.paused_until.subscribe();
        let turn = async {
            // A session that is too fast waits aside and does not hold up the line. Every other one does not sleep at
            // all: the timer counts in milliseconds, so to sleep until now is to sleep for one of them.
            if from > now {
                sleep_until(from).await;
            }
            self.turn(&request.spent).await
        };
        tokio::pin!(turn);
        loop {
            let now = Instant::now();
            if let Some(until) = self.paused(now).filter(|until| *until > latest) {
                return throttled(until - now);
            }
            tokio::select! {
                biased;
                permit = timeout_at(latest, &mut turn) => {
                    return permit.unwrap_or_else(|_| throttled(FULL_RETRY_AFTER));
                }
                // A new pause is told to everybody in line; the sender lives as long as `self`.
                _ = pause.changed() => {}
            }
        }
    }

    /// Waits in line, and at its head for everything that a call needs.
    async fn turn(&self, spent: &Spent) -> Result<OwnedSemaphorePermit, MintError> {
        let closed = |_| MintError::Throttled { retry_after: FULL_RETRY_AFTER };
        let _head = self.head.acquire().await.map_err(closed)?;
        let permit = Arc::clone(&self.under_way).acquire_owned().await.map_err(closed)?;
        loop {
            let at = match self.paused(Instant::now()) {
                Some(until) => until,
                None => match self.unit(false, spent).await {
                    Ok(()) => return Ok(permit),
                    Err(at) => at,
                },
            };
            sleep_until(at).await;
        }
    }

    /// A unit out of the bucket of all, or out of the own one where there is none, or nobody answers there.
    async fn unit(&self, ahead: bool, spent: &Spent) -> Result<(), Instant> {
        let Some(purse) = locked(&self.purse).clone() else { return self.take(ahead) };
        let Measure { capacity, rate, reserve } = self.whole;
        let ask = Ask { capacity, rate: rate / 1000.0, reserve: if ahead { reserve } else { 0.0 } };
        let asked = Instant::now();
        let answer = purse.ask(ask, spent).await;
        let now = Instant::now();
        match answer {
            // Counted here as well: when nobody answers any more, the own bucket knows what was used.
            Some(Answer::Taken) => {
                locked(&self.bucket).debit(now);
                Ok(())
            }
            Some(Answer::After(wait)) => Err(asked + wait),
            Some(Answer::Paused(wait)) => {
                let wait = self.spread(wait);
                self.pause(wait);
                Err(now + wait)
            }
            None => self.take(ahead),
        }
    }

    fn take(&self, ahead: bool) -> Result<(), Instant> {
        let taken = locked(&self.bucket).take(ahead, Instant::now());
        self.observe();
        taken
    }

    fn place(&self) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        // Counted before it is compared, so that no two take the last place; `place` gives it back.
        (self.waiting.fetch_add(1, Ordering::AcqRel) < self.max_waiting).then_some(place)
    }

    fn paused(&self, now: Instant) -> Option<Instant> {
        self.paused_until.borrow().filter(|until| *until > now)
    }

    /// A 429: nothing is sent before that, here and by the others.
    fn hear(&self, retry_after: Duration) {
        let Some(purse) = locked(&self.purse).clone() else { return self.pause(retry_after) };
        self.pause(self.spread(retry_after));
        purse.pause(retry_after.min(LONGEST_PAUSE));
    }

    /// A pause of all replicas ends for each at a moment of its own: the later ones meet the next pause, where there is one.
    fn spread(&self, pause: Duration) -> Duration {
        pause + (pause / 10).min(SPREAD).mul_f64(self.jitter.next().clamp(0.0, 1.0))
    }

    fn pause(&self, retry_after: Duration) {
        let until = Instant::now() + retry_after.min(LONGEST_PAUSE);
        let longer = self.paused_until.send_if_modified(|paused| {
            let longer = paused.is_none_or(|paused| paused < until);
            if longer {
                *paused = Some(until);
            }
            longer
        });
        if longer {
            tracing::warn!(retry_after_s = retry_after.as_secs(), "the issuer's rate limit is reached: minting pauses");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::JoinHandle;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::clock::{Clock, Wall};
    use crate::lifecycle::Spawner;
    use crate::token::fake::{Fake, budget, key, metrics, request};

    fn config() -> config::Budget {
        config::Budget { requests: 100, reserve: 0.25, max_concurrent: 1000, ..budget() }
    }

    struct Bench {
        fake: Arc<Fake>,
        budget: Arc<Budget<Arc<Fake>>>,
        tasks: Spawner,
        metrics: Arc<Metrics>,
    }

    type Task = JoinHandle<Result<Token, MintError>>;

    impl Bench {
        fn new(config: &config::Budget, fake: Arc<Fake>) -> Self {
            let metrics = metrics();
            let budget = Arc::new(Budget::new(Arc::clone(&fake), Limiter::new(config, Arc::clone(&metrics))));
            Self { fake, budget, tasks: Spawner::current(), metrics }
        }

        fn healthy(config: &config::Budget, latency: u64) -> Self {
            let clock = Clock::following(Wall::from_seconds(1000));
            Self::new(config, Fake::healthy(&clock, 60, Duration::from_millis(latency)))
        }

        fn mint(&self, number: usize) -> Task {
            let (budget, request) = (Arc::clone(&self.budget), request(&key(number)));
            self.tasks.spawn(async move { budget.mint(request).await })
        }

        async fn ahead(&self, number: usize) -> Result<Token, MintError> {
            self.budget.mint(MintRequest { urgency: Urgency::Ahead, ..request(&key(number)) }).await
        }
    }

    async fn is_throttled(task: Task) -> Option<Duration> {
        match task.await.unwrap() {
            Err(MintError::Throttled { retry_after }) => Some(retry_after),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_need_not_wait_does_not_sleep() {
        let limiter = Limiter::new(&config(), metrics());
        // Between two ticks of the timer, where a sleep that is over already would last until the next.
        advance(Duration::from_micros(400)).await;
        assert!(matches!(limiter.admit(&request(&key(1))).now_or_never(), Some(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_the_instances() {
        let bench = Bench::healthy(&config(), 0);
        let mut refreshed = 0;
        for number in 0..200 {
            refreshed += usize::from(bench.ahead(number).await.is_ok());
        }
        assert_eq!(refreshed, 60, "80 units, of which 20 are kept for those who wait");
        assert_eq!(bench.metrics.control().budget_available.get(), 20);
        let started = Instant::now();
        let tasks: Vec<_> = (0..52).map(|number| bench.mint(number)).collect();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(bench.fake.calls(), 80, "the burst is over");
        for task in tasks {
            assert!(task.await.unwrap().is_ok());
        }
        // 32 more at 8 a second.
        assert_eq!(started.elapsed().as_millis() / 100, 40);
        assert!(bench.ahead(1).await.is_err());
    }

    /// Fails when a reload begins with a full bucket, or with a pause of its own.
    #[tokio::test(start_paused = true)]
    async fn another_budget_for_the_same_issuer_forgets_no_call_and_no_pause() {
        let first = Limiter::new(&config(), metrics());
        for _ in 0..70 {
            first.take(false).unwrap();
        }
        let shared = |share| first.resized(&config::Budget { share, ..config() });
        let left = |limiter: &Limiter| std::iter::from_fn(|| limiter.take(false).ok()).count();
        let (wider, narrower) = (shared(1.0), shared(0.4));
        assert_eq!((left(&wider), left(&narrower)), (30, 0), "70 of 100, and of 40");
        advance(Duration::from_mins(1)).await;
        // One of the last calls under the budget before.
        first.pause(Duration::from_secs(5));
        assert!(wider.admit_ahead(&request(&key(1))).await.is_err());
        advance(Duration::from_secs(5)).await;
        assert!(wider.admit_ahead(&request(&key(1))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_fair_and_bounded() {
        let bench = Bench::healthy(&config::Budget { max_concurrent: 1, max_waiting: 10, ..config() }, 100);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..30 {
            let (budget, request, order) = (Arc::clone(&bench.budget), request(&key(number)), Arc::clone(&order));
            tasks.push(bench.tasks.spawn(async move {
                let result = budget.mint(request).await;
                if result.is_ok() {
                    order.lock().unwrap().push(number);
                }
                result
            }));
            tokio::task::yield_now().await;
        }
        let started = Instant::now();
        let mut refused = 0;
        for task in tasks {
            refused += usize::from(is_throttled(task).await.is_some());
        }
        // One under way, ten in line.
        assert_eq!((refused, started.elapsed().as_millis() / 100), (19, 11));
        assert_eq!(*order.lock().unwrap(), (0..11).collect::<Vec<_>>());
        assert_eq!(bench.fake.most_busy(), 1);
        assert_eq!(bench.budget.limiter.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_stands_in_line_beyond_the_deadline() {
        let bench = Bench::healthy(&config::Budget { max_concurrent: 1, ..config() }, 60_000);
        let first = bench.mint(0);
        let second = bench.mint(1);
        let started = Instant::now();
        assert!(is_throttled(second).await.is_some());
        assert_eq!(started.elapsed().as_secs(), 4, "a fifth is left for the call");
        first.abort();
    }

    /// What is served out of a line that is too long for good is of use to who gets it. Fails where one may stand in line
    /// to the end of his time.
    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_too_long_wastes_no_call() {
        let bench = Bench::healthy(&config(), 300);
        let late = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for number in 0..1200 {
            let (budget, request, late) = (Arc::clone(&bench.budget), request(&key(number)), Arc::clone(&late));
            tasks.push(bench.tasks.spawn(async move {
                let deadline = request.deadline;
                let minted = budget.mint(request).await.is_ok();
                late.fetch_add(usize::from(minted && Instant::now() > deadline), Ordering::SeqCst);
            }));
            // Twice as many as the 8 in a second that the budget has.
            sleep(Duration::from_millis(62)).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(late.load(Ordering::SeqCst), 0, "of {}", bench.fake.calls());
        assert!(bench.fake.calls() > 600, "{}", bench.fake.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_cannot_drain_the_instance() {
        let bench = Bench::healthy(&config::Budget { max_concurrent: 1, ..config() }, 1);
        let greedy: Vec<_> = (0..60).map(|_| bench.mint(0)).collect();
        sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.fake.calls(), 20);
        let started = Instant::now();
        assert!(bench.mint(1).await.unwrap().is_ok());
        assert!(started.elapsed() < Duration::from_millis(100), "it does not stand behind the greedy one");
        let mut refused = 0;
        for task in greedy {
            refused += usize::from(is_throttled(task).await.is_some());
        }
        // 2 a second for the 4 s that a request may stand in line; what could not come in time was refused at once.
        assert_eq!((bench.fake.calls(), refused), (29, 32));
    }

    /// 429 with `Retry-After` on the first call.
    fn throttling(retry_after: u64) -> Arc<Fake> {
        Fake::new(move |call, _| async move {
            if call == 0 {
                return Err(MintError::Throttled { retry_after: Duration::from_secs(retry_after) });
            }
            Ok(Token::new("t", Instant::now()).unwrap())
        })
    }

    /// Fails when a 429 sets no pause, when the line does not wait for its end, and when a refresh does not look at
    /// it.
    #[tokio::test(start_paused = true)]
    async fn a_429_stops_every_mint_for_as_long_as_it_says() {
        let bench = Bench::new(&config(), throttling(3));
        let started = Instant::now();
        assert!(is_throttled(bench.mint(0)).await.is_some());
        assert!(bench.ahead(1).await.is_err());
        let waiting = bench.mint(1);
        sleep(Duration::from_millis(2990)).await;
        assert_eq!(bench.fake.calls(), 1, "not one call before it is over");
        assert!(waiting.await.unwrap().is_ok());
        assert_eq!(started.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_longer_than_a_request_may_wait_is_answered_at_once() {
        let bench = Bench::new(&config(), throttling(30));
        assert!(is_throttled(bench.mint(0)).await.is_some());
        let started = Instant::now();
        advance(Duration::from_secs(10)).await;
        assert_eq!(is_throttled(bench.mint(1)).await.unwrap().as_secs(), 20);
        assert_eq!((started.elapsed().as_secs(), bench.fake.calls()), (10, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_told_to_those_in_line() {
        let fake = Fake::new(|_, _| async move {
            sleep(Duration::from_millis(200)).await;
            Err(MintError::Throttled { retry_after: Duration::from_secs(30) })
        });
        let bench = Bench::new(&config::Budget { max_concurrent: 1, ..config() }, fake);
        let tasks: Vec<_> = (0..10).map(|number| bench.mint(number)).collect();
        let started = Instant::now();
        for task in tasks {
            assert_eq!(is_throttled(task).await.unwrap().as_secs(), 30);
        }
        assert_eq!((started.elapsed().as_millis() / 100, bench.fake.calls()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn refresh_does_not_push_in() {
        let bench = Bench::healthy(&config::Budget { max_concurrent: 2, ..config() }, 100);
        let first = bench.mint(0);
        sleep(Duration::from_millis(1)).await;
        let ahead = bench.ahead(1);
        tokio::pin!(ahead);
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut ahead).await.is_err(), "there is a free place");
        assert!(bench.ahead(2).await.is_err(), "there is none");
        let waiting = bench.mint(3);
        assert!(ahead.await.is_ok() && first.await.unwrap().is_ok() && waiting.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_waits_for_its_own_pace_holds_up_no_refresh() {
        let bench = Bench::healthy(&config(), 1);
        let greedy: Vec<_> = (0..30).map(|_| bench.mint(0)).collect();
        sleep(Duration::from_millis(100)).await;
        assert!(greedy.iter().any(|task| !task.is_finished()));
        assert!(bench.ahead(1).await.is_ok());
    }

    /// Fails without the pace in `admit_ahead`.
    #[tokio::test(start_paused = true)]
    async fn a_session_is_not_refreshed_faster_than_its_pace() {
        let bench = Bench::healthy(&config(), 0);
        for _ in 0..20 {
            assert!(bench.ahead(0).await.is_ok());
        }
        assert!(bench.ahead(0).await.is_err());
        assert!(bench.ahead(1).await.is_ok(), "the instance has more");
        assert_eq!(bench.fake.calls(), 21);
    }

    /// Fails without `LONGEST_PAUSE`.
    #[tokio::test(start_paused = true)]
    async fn no_pause_is_longer_than_an_hour() {
        let bench = Bench::new(&config(), throttling(365 * 24 * 3600));
        assert!(is_throttled(bench.mint(0)).await.is_some());
        advance(Duration::from_mins(59)).await;
        assert_eq!(is_throttled(bench.mint(1)).await.unwrap().as_secs(), 60);
        advance(Duration::from_mins(1)).await;
        assert!(bench.mint(1).await.unwrap().is_ok());
    }

    /// Fails when `pause` takes whatever comes last.
    #[tokio::test(start_paused = true)]
    async fn a_shorter_pause_does_not_end_a_longer_one() {
        let fake = Fake::new(|call, _| async move {
            sleep(Duration::from_millis(100 * (call as u64 + 1))).await;
            Err(MintError::Throttled { retry_after: Duration::from_secs(if call == 0 { 30 } else { 1 }) })
        });
        let bench = Bench::new(&config(), fake);
        let (first, second) = (bench.mint(0), bench.mint(1));
        assert!(is_throttled(first).await.is_some() && is_throttled(second).await.is_some());
        advance(Duration::from_secs(5)).await;
        let left = is_throttled(bench.mint(2)).await.unwrap();
        assert!(left > Duration::from_secs(20), "{left:?}");
        assert_eq!(bench.fake.calls(), 2);
    }
}
