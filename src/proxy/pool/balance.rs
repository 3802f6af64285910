//! Which of several addresses a request goes to: the less loaded of two that are drawn, and none that was ejected.
//!
//! Health is passive: it is learnt from attempts to connect alone, by each worker for itself. An address is ejected after
//! [`FAILURES`] in a row, for a time that doubles, but never the last one; after its time one request tries it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Attempts that fail in a row before an address is ejected.
const FAILURES: u32 = 5;
/// How long the first time,
const EJECTED_FOR: Duration = Duration::from_secs(10);
/// and how long at most.
const LONGEST: Duration = Duration::from_mins(1);

/// The addresses of one upstream, as one worker has met them.
#[derive(Debug)]
pub(super) struct Balance(Mutex<State>);

#[derive(Debug)]
struct State {
    members: Box<[Member]>,
    /// Of the generator that draws.
    seed: u64,
}

#[derive(Debug, Default)]
struct Member {
    /// Exchanges under way.
    load: usize,
    health: Health,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Health {
    /// Attempts in a row that have failed.
    failures: u32,
    /// Times in a row that it was ejected.
    ejections: u32,
    /// It is out until then, and after that until an attempt succeeds.
    until: Option<Instant>,
    /// A request is trying it.
    tried: bool,
}

/// What the end of an attempt has changed about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is left out for so long.
    Out(Duration),
    /// The request that tried it failed too: it stays out for so long.
    StillOut(Duration),
    /// Requests go there again.
    Back,
}

/// The addresses that a request has tried in vain, each a bit.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tried(u64);

/// One exchange's place at an address; counts as load while it lives.
#[derive(Debug)]
pub(super) struct Seat {
    balance: Arc<Balance>,
    index: usize,
    /// It is the one that tries an address whose time is over.
    trial: bool,
}

// === impl Balance ===

impl Balance {
    /// So many addresses, all thought well of.
    pub(super) fn new(count: usize) -> Arc<Self> {
        let members = (0..count).map(|_| Member::default()).collect();
        Arc::new(Self(Mutex::new(State { members, seed: RandomState::new().build_hasher().finish() })))
    }

    /// A place at an address that is fit; `None` while there is one to be tried, which takes the time of connecting.
    pub(super) fn fit(self: &Arc<Self>, now: Instant) -> Option<Seat> {
        let mut state = self.lock();
        if state.due(Tried::default(), now).is_some() {
            return None;
        }
        let index = state.draw(Tried::default())?;
        Some(self.seat(&mut state, index, false))
    }

    /// A place for a request that has tried some addresses in vain: at one whose time is over, else at one that is fit,
    /// else at whichever is left, since an ejected address may serve and an error does not.
    pub(super) fn any(self: &Arc<Self>, tried: Tried, now: Instant) -> Option<Seat> {
        let mut state = self.lock();
        if let Some(index) = state.due(tried, now) {
            return Some(self.seat(&mut state, index, true));
        }
        let index = match state.draw(tried) {
            Some(index) => index,
            None => (0..state.members.len()).find(|index| !tried.contains(*index))?,
        };
        Some(self.seat(&mut state, index, false))
    }

    /// An attempt to connect has ended.
    pub(super) fn attempted(&self, index: usize, connected: bool, now: Instant) -> Option<Change> {
        let mut state = self.lock();
        if connected {
            let before = std::mem::take(&mut state.members[index].health);
            return (!before.is_fit()).then_some(Change::Back);
        }
        let fit = |(other, member): (usize, &Member)| other != index && member.health.is_fit();
        let last = !state.members.iter().enumerate().any(fit);
        state.members[index].health.failed(now, last)
    }

    fn seat(self: &Arc<Self>, state: &mut State, index: usize, trial: bool) -> Seat {
        state.members[index].load += 1;
        state.members[index].health.tried |= trial;
        Seat { balance: Arc::clone(self), index, trial }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// An address whose time is over, to be tried by one request.
    fn due(&self, tried: Tried, now: Instant) -> Option<usize> {
        let mut due = (0..self.members.len()).filter(|index| self.members[*index].health.is_due(now));
        due.find(|index| !tried.contains(*index))
    }

    /// The less loaded of two fit addresses that were not tried.
    fn draw(&mut self, tried: Tried) -> Option<usize> {
        let choice = |index: &usize| !tried.contains(*index) && self.members[*index].health.is_fit();
        let count = (0..self.members.len()).filter(choice).count();
        let nth = |nth: usize| (0..self.members.len()).filter(choice).nth(nth);
        if count < 2 {
            return nth(0);
        }
        let word = random(self.seed);
        // Two different ones: the second is drawn out of those that are left.
        let (low, high) = (usize_of(word & 0xffff_ffff), usize_of(word >> 32));
        let (first, second) = (low % count, high % (count - 1));
        let second = if second >= first { second + 1 } else { second };
        let (first, second) = (nth(first)?, nth(second)?);
        let chosen = if self.members[second].load < self.members[first].load { second } else { first };
        self.seed = self.seed.wrapping_add(STEP);
        Some(chosen)
    }
}

/// The odd step of splitmix64 (Steele, Lea, Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// splitmix64: even enough for drawing, and never needed to be hard to guess.
fn random(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(STEP);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn usize_of(half: u64) -> usize {
    usize::try_from(half).unwrap_or(0)
}

// === impl Health ===

impl Health {
    /// Whether requests may go there.
    fn is_fit(&self) -> bool {
        self.until.is_none()
    }

    /// Whether its time is over and nobody tries it yet.
    fn is_due(&self, now: Instant) -> bool {
        !self.tried && self.until.is_some_and(|until| until <= now)
    }

    /// An attempt has failed. `last`: no other address is fit.
    fn failed(&mut self, now: Instant, last: bool) -> Option<Change> {
        if self.until.is_some_and(|until| until > now) {
            // It began before the ejection, or for want of anything better.
            return None;
        }
        self.failures += 1;
        if last || (self.until.is_none() && self.failures < FAILURES) {
            return None;
        }
        let time = EJECTED_FOR.saturating_mul(1 << self.ejections.min(8)).min(LONGEST);
        let change = if self.is_fit() { Change::Out(time) } else { Change::StillOut(time) };
        *self = Self { failures: 0, ejections: self.ejections + 1, until: Some(now + time), tried: false };
        Some(change)
    }
}

// === impl Tried ===

impl Tried {
    /// With one more.
    pub(super) fn and(self, index: usize) -> Self {
        Self(self.0 | 1 << index)
    }

    /// How many.
    pub(super) fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    fn contains(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }
}

// === impl Seat ===

impl Seat {
    /// At which address.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// A connection was had. One that was kept from before counts for a trial too: it can take a request.
    pub(super) fn connected(&mut self) -> Option<Change> {
        if std::mem::take(&mut self.trial) { self.balance.attempted(self.index, true, Instant::now()) } else { None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.balance.lock();
        let member = &mut state.members[self.index];
        member.load -= 1;
        if self.trial {
            member.health.tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(balance: &Arc<Balance>, failures: u32, index: usize) {
        for _ in 0..failures {
            balance.attempted(index, false, Instant::now());
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    /// The addresses that a hundred requests, one after the other, would go to.
    fn reached(balance: &Arc<Balance>) -> Vec<usize> {
        let mut reached: Vec<usize> =
            (0..100).filter_map(|_| balance.fit(Instant::now()).map(|seat| seat.index())).collect();
        reached.sort_unstable();
        reached.dedup();
        reached
    }

    fn trial(balance: &Arc<Balance>) -> Option<usize> {
        balance.any(Tried::default(), Instant::now()).filter(|seat| seat.trial).map(|seat| seat.index())
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_eject_and_four_do_not() {
        let balance = Balance::new(3);
        after(&balance, 4, 1);
        balance.attempted(1, true, Instant::now());
        after(&balance, 4, 1);
        assert_eq!(reached(&balance), [0, 1, 2]);
        after(&balance, 1, 1);
        assert_eq!(reached(&balance), [0, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_doubles_from_ten_to_sixty_seconds_and_a_success_begins_anew() {
        let balance = Balance::new(2);
        after(&balance, 5, 0);
        for seconds in [10, 20, 40, 60, 60] {
            pass(seconds - 1).await;
            assert_eq!(trial(&balance), None, "{seconds}");
            pass(1).await;
            assert_eq!(trial(&balance), Some(0), "{seconds}");
            after(&balance, 1, 0);
            assert_eq!(reached(&balance), [1], "until it succeeds");
        }
        pass(60).await;
        balance.attempted(0, true, Instant::now());
        assert_eq!(reached(&balance), [0, 1]);
        after(&balance, 5, 0);
        pass(10).await;
        assert_eq!(trial(&balance), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn going_out_and_coming_back_are_each_told_once() {
        let balance = Balance::new(2);
        let end = |connected| balance.attempted(0, connected, Instant::now());
        let seconds = Duration::from_secs;
        assert_eq!([(); 4].map(|()| end(false)), [None; 4]);
        assert_eq!(end(false), Some(Change::Out(seconds(10))));
        assert_eq!([(); 4].map(|()| end(false)), [None; 4], "attempts that began before");
        pass(10).await;
        assert_eq!(end(false), Some(Change::StillOut(seconds(20))));
        pass(20).await;
        let mut kept = balance.any(Tried::default(), Instant::now()).unwrap();
        assert_eq!([kept.connected(), kept.connected()], [Some(Change::Back), None]);
        assert_eq!(end(true), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_tries_an_address_whose_time_is_over() {
        let balance = Balance::new(2);
        after(&balance, 5, 0);
        pass(10).await;
        let first = balance.any(Tried::default(), Instant::now()).unwrap();
        assert_eq!((first.index(), first.trial), (0, true));
        assert_eq!(trial(&balance), None, "somebody does");
        drop(first);
        assert_eq!(trial(&balance), Some(0), "it went away without a result");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_finds_a_kept_connection_has_succeeded() {
        let balance = Balance::new(2);
        after(&balance, 5, 0);
        pass(10).await;
        balance.any(Tried::default(), Instant::now()).unwrap().connected();
        assert_eq!((trial(&balance), reached(&balance)), (None, vec![0, 1]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_address_is_never_ejected() {
        let balance = Balance::new(2);
        after(&balance, 5, 0);
        after(&balance, 50, 1);
        assert_eq!(reached(&balance), [1]);
        balance.attempted(0, true, Instant::now());
        after(&balance, 1, 1);
        assert_eq!(reached(&balance), [0], "now it is not the last one");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_attempts_that_began_before_do_not_prolong_an_ejection() {
        let balance = Balance::new(2);
        after(&balance, 50, 0);
        pass(10).await;
        assert_eq!(trial(&balance), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejected_address_is_better_than_none() {
        let balance = Balance::new(2);
        after(&balance, 5, 0);
        let (now, none) = (Instant::now(), Tried::default());
        assert_eq!(balance.any(none, now).map(|seat| seat.index()), Some(1));
        assert_eq!(balance.any(none.and(1), now).map(|seat| seat.index()), Some(0));
        assert!(balance.any(none.and(1).and(0), now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_elsewhere_do_not_keep_an_address_from_being_tried() {
        let balance = Balance::new(2);
        after(&balance, 5, 0);
        assert!(balance.fit(Instant::now()).is_some());
        pass(10).await;
        assert!(balance.fit(Instant::now()).is_none());
        let _trial = balance.any(Tried::default(), Instant::now());
        assert!(balance.fit(Instant::now()).is_some());
    }

    #[test]
    fn of_two_the_less_loaded_is_taken() {
        let balance = Balance::new(2);
        let seats: Vec<_> = (0..10).filter_map(|_| balance.fit(Instant::now())).collect();
        assert_eq!(seats.iter().filter(|seat| seat.index() == 0).count(), 5);
        let (kept, gone): (Vec<_>, Vec<_>) = seats.into_iter().partition(|seat| seat.index() == 0);
        drop(gone);
        assert!((0..5).filter_map(|_| balance.fit(Instant::now())).all(|seat| seat.index() == 1));
        drop(kept);
    }

    #[test]
    fn the_most_loaded_of_many_is_drawn_and_not_taken() {
        let balance = Balance::new(8);
        let busy: Vec<_> = std::iter::from_fn(|| balance.fit(Instant::now())).take(80).collect();
        let mut loads = [0; 8];
        for seat in &busy {
            loads[seat.index()] += 1;
        }
        // Of any two the lower is taken, so no address is left behind by much.
        assert!(loads.iter().all(|load| (6..=14).contains(load)), "{loads:?}");
    }

    #[test]
    fn draws_are_spread_evenly() {
        let balance = Balance::new(3);
        let mut reached = [0_u32; 3];
        for _ in 0..3000 {
            reached[balance.fit(Instant::now()).map_or(0, |seat| seat.index())] += 1;
        }
        assert!(reached.iter().all(|count| (850..1150).contains(count)), "{reached:?}");
    }
}
