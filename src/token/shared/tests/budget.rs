//! One budget for the fleet, and what becomes of it when the store fails.

use super::*;
use crate::config::{Budget as Config, Rate};
use crate::token::budget::{Budget, Limiter};
use crate::token::spent::Spent;

pub(super) fn budget(replicas: u32) -> Config {
    Config {
        requests: 100,
        per: Duration::from_secs(10),
        share: 0.8,
        replicas,
        reserve: 0.25,
        per_session: Rate { count: 20, per: Duration::from_secs(10) },
        max_concurrent: 1000,
        max_waiting: 1024,
    }
}

/// What mints within the budget, one for each replica.
fn spenders(fleet: &Fleet, issuer: &Arc<Fake>, replicas: u32) -> Vec<Budget<Arc<Fake>>> {
    let spender = |replica: &Replica| {
        let limiter = Limiter::new(&budget(replicas), Arc::clone(&replica.metrics));
        limiter.share(Some(Arc::new(Arc::clone(&replica.level))));
        Budget::new(Arc::clone(issuer), limiter)
    };
    fleet.replicas.iter().map(spender).collect()
}

/// How many of so many that hardly wait are minted, taken in turns.
async fn burst(spenders: &[Budget<Arc<Fake>>], urgency: Urgency, count: usize) -> usize {
    let mut minted = 0;
    for number in 0..count {
        let deadline = Instant::now() + 4 * LIMIT;
        let request = MintRequest { urgency, deadline, ..request(&key(number)) };
        minted += usize::from(spenders[number % spenders.len()].mint(request).await.is_ok());
    }
    minted
}

fn instant() -> Arc<Fake> {
    Fake::new(|_, _| async { Ok(Token::new("t", Instant::now()).unwrap()) })
}

/// Fails where each replica has a bucket of its own, where they divide this one by their number, or without the reserve.
#[tokio::test(start_paused = true)]
async fn all_replicas_together_have_one_budget() {
    let (fleet, issuer) = (Fleet::new(4), instant());
    let spenders = spenders(&fleet, &issuer, 4);
    assert_eq!(burst(&spenders, Urgency::Ahead, 200).await, 60, "80 units, of which 20 are kept for those who wait");
    assert_eq!(burst(&spenders, Urgency::Waiting, 20).await, 20);
    sleep(Duration::from_secs(1)).await;
    // 8 in a second, and those that flow in while somebody waits.
    let more = burst(&spenders, Urgency::Waiting, 20).await;
    assert!((8..=20).contains(&more), "{more}");
    assert_eq!(issuer.calls(), 80 + more);
}

/// Somebody who can wait gets a unit as soon as there is one.
#[tokio::test(start_paused = true)]
async fn who_waits_gets_the_next_unit() {
    let (fleet, issuer) = (Fleet::new(2), instant());
    let spenders = spenders(&fleet, &issuer, 1);
    assert_eq!(burst(&spenders, Urgency::Waiting, 80).await, 80);
    let begun = Instant::now();
    let waits = spenders.iter().flat_map(|spender| (0..8).map(|number| spender.mint(request(&key(number)))));
    assert!(futures_util::future::join_all(waits).await.iter().all(Result::is_ok));
    let took = begun.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_millis(2500)).contains(&took), "{took:?}");
}

/// Fails where a 429 is heard by one alone.
#[tokio::test(start_paused = true)]
async fn a_429_that_one_hears_is_respected_by_all() {
    let fleet = Fleet::new(2);
    let issuer = Fake::new(|call, _| async move {
        if call == 0 {
            Err(MintError::Throttled { retry_after: Duration::from_secs(20) })
        } else {
            Ok(Token::new("t", Instant::now()).unwrap())
        }
    });
    let spenders = spenders(&fleet, &issuer, 1);
    assert!(spenders[0].mint(request(&key(0))).await.is_err());
    settle().await;
    for spender in &spenders {
        let Err(MintError::Throttled { retry_after }) = spender.mint(request(&key(1))).await else { panic!() };
        assert!(retry_after > Duration::from_secs(19) && retry_after <= Duration::from_secs(21), "{retry_after:?}");
    }
    sleep(Duration::from_secs(21)).await;
    assert_eq!(issuer.calls(), 1);
    assert!(spenders[1].mint(request(&key(1))).await.is_ok());
}

/// Fails where nobody decides when the store does not, where that takes long, or where what was used is forgotten.
#[tokio::test(start_paused = true)]
async fn without_the_store_each_replica_has_its_part() {
    let (fleet, issuer) = (Fleet::new(2), instant());
    let spenders = spenders(&fleet, &issuer, 2);
    assert_eq!(burst(&spenders, Urgency::Waiting, 20).await, 20);
    for replica in &fleet.replicas {
        replica.wire.feel(Mood::Hangs);
    }
    let begun = Instant::now();
    // 40 for each, of which 10 were used.
    assert_eq!(burst(&spenders, Urgency::Waiting, 60).await, 60);
    assert!(begun.elapsed() <= 2 * LIMIT + Duration::from_millis(10), "{:?}", begun.elapsed());
    assert_eq!(burst(&spenders, Urgency::Ahead, 10).await, 0);
    for replica in &fleet.replicas {
        replica.wire.feel(Mood::Well);
    }
    sleep(Duration::from_secs(5)).await;
    assert!(burst(&spenders, Urgency::Waiting, 20).await == 20, "and the one of all when it is back");
}

/// What the look and the lease have cost is not to be had again.
#[tokio::test(start_paused = true)]
async fn the_budget_takes_what_is_left_of_the_time_limit() {
    let (fleet, issuer) = (Fleet::new(1), instant());
    let spenders = spenders(&fleet, &issuer, 1);
    fleet.replicas[0].wire.feel(Mood::Slow(Duration::from_millis(40)));
    let begun = Instant::now();
    let spent = Spent::default();
    spent.add(Duration::from_millis(45));
    assert!(spenders[0].mint(MintRequest { spent, ..request(&key(1)) }).await.is_ok());
    assert!(begun.elapsed() <= Duration::from_millis(7), "{:?}", begun.elapsed());
}

/// Fails without the seal of a pause.
#[tokio::test(start_paused = true)]
async fn a_planted_pause_stops_nobody() {
    let (fleet, issuer) = (Fleet::new(1), instant());
    let spenders = spenders(&fleet, &issuer, 1);
    let at = seal().fund();
    let foreign = Seal::new(&cache_key(9), "mintgate:").seal_pause(&at.pause, u64::MAX);
    for planted in [b"1".to_vec(), foreign, Vec::new()] {
        fleet.store.plant(&at.pause, Some((planted, Duration::from_hours(9))));
        assert!(spenders[0].mint(request(&key(1))).await.is_ok());
    }
}

/// While units are short somebody asks again and again. Fails where that uses his allowance up: then he would take what the own
/// bucket has, beside that of all.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_unit_does_not_wait_for_the_store() {
    let (fleet, issuer) = (Fleet::new(1), instant());
    let spenders = spenders(&fleet, &issuer, 1);
    // Other replicas have taken everything.
    let ask = Ask { capacity: 80.0, rate: 0.008, reserve: 0.0 };
    for _ in 0..80 {
        assert_eq!(fleet.store.draw(&seal().fund(), ask).await.unwrap(), Drawn::Taken);
    }
    fleet.replicas[0].wire.feel(Mood::Slow(Duration::from_millis(12)));
    // ... and take each unit that flows in for a while, a moment before anybody else could.
    let ask = Ask { rate: 0.009, ..ask };
    let others = async {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            sleep(Duration::from_millis(1)).await;
            let _taken = fleet.store.draw(&seal().fund(), ask).await.unwrap();
        }
    };
    let begun = Instant::now();
    let mint = async { spenders[0].mint(request(&key(1))).await.map(|_| begun.elapsed()) };
    let ((), took) = tokio::join!(others, mint);
    let took = took.unwrap();
    assert!(took >= Duration::from_secs(2) && took <= Duration::from_millis(2200), "{took:?}");
    assert_eq!(fleet.replicas[0].counted(SharedOperation::Budget, SharedResult::Skipped), 0);
}

/// A wait counts from when it was asked: a unit is had when it flows in, however long an answer takes. Fails where it counts from
/// the answer.
#[tokio::test(start_paused = true)]
async fn a_slow_store_makes_no_wait_for_a_unit_longer() {
    for millis in [0, 20, 40] {
        let (fleet, issuer) = (Fleet::new(1), instant());
        let spenders = spenders(&fleet, &issuer, 1);
        assert_eq!(burst(&spenders, Urgency::Waiting, 80).await, 80);
        fleet.replicas[0].wire.feel(Mood::Slow(Duration::from_millis(millis)));
        let begun = Instant::now();
        assert!(spenders[0].mint(request(&key(1))).await.is_ok());
        // A unit flows in within 125 ms.
        assert!(begun.elapsed() <= Duration::from_millis(130), "{millis} {:?}", begun.elapsed());
    }
}

/// Fails where all of them come back at the same moment, or one too early or much too late.
#[tokio::test(start_paused = true)]
async fn after_a_pause_of_all_replicas_each_comes_back_at_a_moment_of_its_own() {
    let fleet = Fleet::new(12);
    let ends: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let begun = Instant::now();
    let seen = Arc::clone(&ends);
    let issuer = Fake::new(move |call, _| {
        let seen = Arc::clone(&seen);
        async move {
            if call == 0 {
                return Err(MintError::Throttled { retry_after: Duration::from_secs(3) });
            }
            seen.lock().unwrap().push(begun.elapsed());
            Ok(Token::new("t", Instant::now()).unwrap())
        }
    });
    let spenders = spenders(&fleet, &issuer, 1);
    assert!(spenders[0].mint(request(&key(0))).await.is_err());
    settle().await;
    let waits = spenders.iter().enumerate().map(|(number, spender)| spender.mint(request(&key(number))));
    assert!(futures_util::future::join_all(waits).await.iter().all(Result::is_ok));
    let ends: Vec<u128> = ends.lock().unwrap().iter().map(Duration::as_millis).collect();
    let (first, last) = (*ends.iter().min().unwrap(), *ends.iter().max().unwrap());
    assert!(first >= 3000 && last <= 3310, "{ends:?}");
    // Twelve of them within so little, by chance: once in a million million runs.
    assert!(last - first >= 10, "{ends:?}");
}
