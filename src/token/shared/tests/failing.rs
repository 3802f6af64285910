//! The store fails, and no request does.

use super::budget::budget;
use super::*;
use crate::token::budget::{Budget, Limiter};
use crate::token::retry::Retry;

/// How long a mint of its own takes with a store in this mood.
async fn took(replica: &Replica, number: usize) -> Duration {
    let begun = Instant::now();
    replica.get(number).await.1.unwrap();
    begun.elapsed()
}

const TICK: Duration = Duration::from_millis(2);

/// Case 35. Fails without the time limit, or without the breaker: then the second one would wait again.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_the_time_limit_once() {
    let fleet = Fleet::new(1);
    let replica = &fleet.replicas[0];
    replica.wire.feel(Mood::Hangs);
    assert!(took(replica, 1).await <= LATENCY + LIMIT + TICK);
    assert_eq!((replica.up(), replica.counted(SharedOperation::Look, SharedResult::Timeout)), (0, 1));
    let asked = replica.wire.calls();
    let waits = futures_util::future::join_all((2..20).map(|number| took(replica, number))).await;
    assert!(waits.iter().all(|took| *took <= LATENCY + TICK), "{waits:?}");
    // In these 250 ms there was a look whether it is back, and nothing else.
    assert!(replica.wire.calls() <= asked + 1);
    assert_eq!(fleet.issuer.calls(), 19);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_back_is_used_again() {
    let fleet = Fleet::new(1);
    let replica = &fleet.replicas[0];
    for (round, mood) in [Mood::Hangs, Mood::Lost].into_iter().enumerate() {
        replica.wire.feel(mood);
        replica.get(round * 10).await.1.unwrap();
        assert_eq!(replica.up(), 0);
        sleep(Duration::from_mins(10)).await;
        assert_eq!(replica.up(), 0);
        replica.wire.feel(Mood::Well);
        // It is looked for every 2 s, and one that hangs is hung up on after 2 s more.
        sleep(Duration::from_secs(4) + TICK).await;
        assert_eq!(replica.up(), 1);
        replica.get(round * 10 + 1).await.1.unwrap();
        settle().await;
        assert_eq!(fleet.fresh().get(round * 10 + 1).await.0, Lookup::Shared);
    }
}

/// Fails where each call has the whole time limit.
#[tokio::test(start_paused = true)]
async fn all_calls_of_one_mint_together_take_the_time_limit_at_most() {
    for millis in [10, 20, 30, 49] {
        let fleet = Fleet::new(1);
        let replica = &fleet.replicas[0];
        replica.wire.feel(Mood::Slow(Duration::from_millis(millis)));
        let took = took(replica, 1).await;
        assert!(took <= LATENCY + LIMIT + TICK, "{millis}: {took:?}");
        assert_eq!(replica.up(), 1, "slow is not down");
    }
}

/// Also who waits for another one's mint asks again and again, out of one allowance.
#[tokio::test(start_paused = true)]
async fn who_waits_asks_a_slow_store_no_longer_than_the_time_limit() {
    let fleet = Fleet::new(1);
    let replica = &fleet.replicas[0];
    fleet.store.plant(&seal().names(&key(1)).lease, Some((vec![9; 16], Duration::from_hours(9))));
    replica.wire.feel(Mood::Slow(Duration::from_millis(12)));
    let took = took(replica, 1).await;
    // Two looks within the wait, and 30 ms between them; the third was cut short.
    assert!(took <= LATENCY + LIMIT + Duration::from_millis(70) + 4 * TICK, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_writes_is_read() {
    let fleet = Fleet::new(2);
    let [one, other] = &fleet.replicas[..] else { panic!() };
    one.get(1).await.1.unwrap();
    settle().await;
    other.wire.feel(Mood::ReadOnly);
    assert_eq!(other.get(1).await.0, Lookup::Shared);
    assert!(took(other, 2).await <= LATENCY + TICK);
    settle().await;
    assert_eq!(other.counted(SharedOperation::Lease, SharedResult::Refused), 1);
    assert_eq!(other.up(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgets_costs_mints_and_nothing_else() {
    let fleet = Fleet::new(2);
    for round in 0..3 {
        for replica in &fleet.replicas {
            replica.get(round).await.1.unwrap();
            settle().await;
        }
        fleet.store.flush();
    }
    assert_eq!(fleet.issuer.calls(), 3);
    assert_eq!(fleet.fresh().get(0).await.0, Lookup::Mint);
}

/// Fails where a look for a store that nobody uses any more goes on.
#[tokio::test(start_paused = true)]
async fn nobody_looks_for_a_store_that_is_not_used_any_more() {
    let fleet = Fleet::new(1);
    let replica = fleet.fresh();
    let wire = Arc::clone(&replica.wire);
    wire.feel(Mood::Lost);
    replica.get(1).await.1.unwrap();
    drop(replica);
    sleep(Duration::from_secs(10)).await;
    let asked = wire.calls();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(wire.calls(), asked);
}

/// Fails where a purge is not waited for: the token would come back out of the store that has not heard of it.
#[tokio::test(start_paused = true)]
async fn what_was_purged_here_is_not_taken_from_a_store_that_has_not_heard_it() {
    let fleet = Fleet::new(2);
    let [one, other] = &fleet.replicas[..] else { panic!() };
    one.get(1).await.1.unwrap();
    one.get(2).await.1.unwrap();
    settle().await;
    one.wire.feel(Mood::ReadOnly);
    let scope = PurgeScope::Session(key(1).parts().sid.clone());
    one.outbox.push(Word::Purge(scope.clone()));
    one.cache.purge(&scope, false);
    assert_eq!(one.get(1).await.0, Lookup::Mint);
    sleep(Duration::from_secs(5)).await;
    assert!(one.outbox.covers(&key(1)) && !one.outbox.covers(&key(2)));
    assert_eq!(other.get(1).await.0, Lookup::Shared, "nobody could tell");
    one.wire.feel(Mood::Well);
    sleep(Duration::from_secs(1)).await;
    assert!(one.outbox.is_empty());
    assert_eq!((fleet.fresh().get(1).await.0, fleet.fresh().get(2).await.0), (Lookup::Mint, Lookup::Shared));
}

/// Of a mint: how often the issuer fails before it answers, and whether all units of the budget are used up.
#[derive(Debug, Clone, Copy)]
struct Case {
    failures: usize,
    drained: bool,
}

/// How long a whole mint takes, with its attempts, over a store that gets into this mood after so many calls; `None`: without a
/// shared level.
async fn minted_in(case: Case, mood: Option<(usize, Mood)>) -> Duration {
    let fleet = Fleet::new(1);
    let (replica, clock) = (&fleet.replicas[0], fleet.clock.clone());
    let reading = clock.clone();
    let issuer = Fake::new(move |call, _| {
        let sent = reading.now();
        async move {
            sleep(LATENCY).await;
            let exp = sent.wall.plus(Duration::from_mins(1));
            let token = Token::new("t", sent.mono).unwrap().dated(exp, Some(sent.wall), sent.wall, 0);
            if call < case.failures { Err(unavailable()) } else { Ok(token) }
        }
    });
    let limiter = Limiter::new(&budget(1), Arc::clone(&replica.metrics));
    if case.drained {
        let ask = Ask { capacity: 80.0, rate: 0.008, reserve: 0.0 };
        for _ in 0..80 {
            assert_eq!(fleet.store.draw(&seal().fund(), ask).await.unwrap(), Drawn::Taken);
            limiter.spend();
        }
    }
    let level = mood.map(|later| {
        *replica.wire.later.lock().unwrap() = Some(later);
        limiter.share(Some(Arc::new(Arc::clone(&replica.level))));
        Arc::clone(&replica.level)
    });
    let retry = Retry::new(Budget::new(issuer, limiter), clock, Jitter::fixed(0.0));
    let begun = Instant::now();
    Shared::new(retry, level, rules()).mint(request(&key(1))).await.unwrap();
    begun.elapsed()
}

/// Case 35: whatever the store does, and whenever it begins to, a mint takes what it takes by itself and the time limit.
/// Fails where each attempt has an allowance of its own, or the budget has one.
#[tokio::test(start_paused = true)]
async fn no_failure_of_the_store_costs_a_mint_more_than_the_time_limit() {
    let slow = [1, 5, 20, 49, 60, 5000].map(|millis| Mood::Slow(Duration::from_millis(millis)));
    let moods = [Mood::Well, Mood::Hangs, Mood::Lost, Mood::ReadOnly, Mood::Unusable, Mood::Confused, Mood::Forgets];
    for case in [(0, false), (3, false), (0, true), (3, true)].map(|(failures, drained)| Case { failures, drained }) {
        let own = minted_in(case, None).await;
        for mood in moods.into_iter().chain(slow) {
            for calls in 0..10 {
                let took = minted_in(case, Some((calls, mood))).await;
                assert!(took <= own + LIMIT + TICK, "{case:?} {mood:?} after {calls}: {took:?}, by itself {own:?}");
            }
        }
    }
}
