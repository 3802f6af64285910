//! No dead token, whatever clock is wrong and whatever is planted.

use proptest::prelude::*;

use super::*;
use crate::token::shared::seal::Value;

/// Puts a token there as the replica with the clock of the issuer would have, and says how long the store keeps it.
async fn put(fleet: &Fleet, number: usize, lived: Duration, kept_for: Duration) {
    let names = seal().names(&key(number));
    let epochs =
        fleet.store.lease(&names, &[0; 16], Duration::from_millis(1), &[[5; 16]; EPOCHS]).await.unwrap().seen.epochs;
    let life = Duration::from_mins(1);
    let value = Value {
        epochs: epochs.map(Option::unwrap),
        expires_at: fleet.clock.wall().plus(life).minus(lived),
        life,
        jwt: format!("planted.{number}"),
    };
    fleet.store.put(&names, &[0; 16], seal().seal(&names, &value).unwrap(), kept_for).await.unwrap();
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_token_that_has_aged_ends_where_it_does_at_its_minter() {
    let fleet = Fleet::new(1);
    put(&fleet, 1, 30 * SECOND, 30 * SECOND).await;
    let token = fleet.replicas[0].get(1).await.1.unwrap();
    assert_eq!((token.lifetime, token.shared), (Some(60 * SECOND), true));
    assert_eq!(token.sent_at, Instant::now().checked_sub(30 * SECOND).unwrap());
    let end = fleet.replicas[0].cache.end(&token).unwrap();
    assert_eq!(end.mono - Instant::now(), 25 * SECOND, "5 s before its end, and not a quarter of what is left");
}

/// Fails for each of the three that is not looked at.
#[tokio::test(start_paused = true)]
async fn the_shortest_life_counts() {
    for (lived, kept_for, good) in [
        (30, 30, true),
        // The store keeps it for longer: somebody has brought an old one back.
        (56, 3600, false),
        (61, 3600, false),
        // The store's time is nearly over, and our clock is behind.
        (0, 4, false),
        (0, 6, true),
        // An end in the future, and a life that is longer than a token's: a minute at most.
        (-3600, 3600, true),
    ] {
        let fleet = Fleet::new(1);
        let lived_ms: i64 = lived * 1000;
        let names = seal().names(&key(1));
        put(&fleet, 1, Duration::ZERO, Duration::from_secs(kept_for)).await;
        let mut value = seal().open(&names, &fleet.store.look(&names).await.unwrap().value.unwrap().0).unwrap();
        value.expires_at = value.expires_at.shifted(-lived_ms);
        let sealed = seal().seal(&names, &value).unwrap();
        fleet.store.put(&names, &[0; 16], sealed, Duration::from_secs(kept_for)).await.unwrap();
        let (lookup, token) = fleet.replicas[0].get(1).await;
        assert_eq!(lookup == Lookup::Shared, good, "{lived} {kept_for}");
        let end = fleet.replicas[0].cache.end(&token.unwrap()).unwrap();
        assert!(end.mono - Instant::now() <= 55 * SECOND, "{lived} {kept_for}");
    }
}

/// Our clock is an hour behind or ahead: what the issuer's `Date` has told is counted in. Fails without `learn`.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_is_corrected_by_what_the_issuer_said() {
    for hours in [-1, 1] {
        let issuers = Clock::following(Wall::from_seconds(1_800_000_000));
        let ours = Clock::following(Wall::from_seconds(1_800_000_000 + hours * 3600));
        let (reading, there) = (ours.clone(), issuers.clone());
        let issuer = Fake::new(move |call, _| {
            let (sent, exp) = (reading.now(), there.wall().plus(Duration::from_mins(1)));
            let iat = there.wall();
            async move {
                let token = Token::new(&format!("t.{call}"), sent.mono).unwrap();
                Ok(token.dated(exp, Some(iat), sent.wall, -hours * 3_600_000))
            }
        });
        let fleet = Fleet::with(0, issuers.clone(), Arc::clone(&issuer));
        let right = Replica::of(&fleet.store, &Fake::healthy(&issuers, 60, LATENCY), issuers.clone(), &shared(1, None));
        right.get(1).await.1.unwrap();
        right.get(2).await.1.unwrap();
        settle().await;
        let wrong = Replica::of(&fleet.store, &issuer, ours, &shared(1, None));
        let (first, token) = wrong.get(1).await;
        // Ahead: what lives looks dead, and one mint says better. Behind: what the store says is enough.
        assert_eq!(first, if hours > 0 { Lookup::Mint } else { Lookup::Shared });
        assert!(!wrong.cache.is_dead(&token.unwrap()));
        wrong.get(3).await.1.unwrap();
        let (second, token) = wrong.get(2).await;
        assert_eq!(second, Lookup::Shared, "{hours}");
        let left = wrong.cache.end(&token.unwrap()).unwrap().mono - Instant::now();
        assert!(left <= 55 * SECOND && left >= 50 * SECOND, "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_kept_there_for_what_is_left_of_its_life() {
    let fleet = Fleet::new(1);
    fleet.replicas[0].get(1).await.1.unwrap();
    settle().await;
    let (_, kept_for) = fleet.store.look(&seal().names(&key(1))).await.unwrap().value.unwrap();
    // Its life began when the mint was sent.
    assert!(kept_for + LATENCY <= 60 * SECOND && kept_for >= 59 * SECOND, "{kept_for:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_end_is_not_kept_there() {
    let clock = Clock::following(Wall::from_seconds(1_800_000_000));
    let issuer = Fake::new(|_, _| async { Ok(Token::new("opaque", Instant::now()).unwrap()) });
    let fleet = Fleet::with(1, clock, issuer);
    fleet.replicas[0].get(1).await.1.unwrap();
    settle().await;
    let seen = fleet.store.look(&seal().names(&key(1))).await.unwrap();
    assert!(seen.value.is_none() && !seen.leased);
}

/// Case 35. Fails where a foreign value is taken, or where it is not counted.
#[tokio::test(start_paused = true)]
async fn a_foreign_value_is_a_miss_that_is_counted_and_written_over() {
    let fleet = Fleet::new(1);
    put(&fleet, 2, Duration::ZERO, 60 * SECOND).await;
    let theirs = fleet.store.look(&seal().names(&key(2))).await.unwrap().value.unwrap();
    let names = seal().names(&key(1));
    for (number, planted) in [theirs.0, b"planted".to_vec(), Vec::new()].into_iter().enumerate() {
        fleet.store.plant(&names.value, Some((planted, 60 * SECOND)));
        let replica = fleet.fresh();
        assert_eq!(replica.text(1).await, format!("sess_1.{number}"));
        assert_eq!(replica.counted(SharedOperation::Look, SharedResult::Unreadable), 1);
        settle().await;
        assert_eq!(fleet.fresh().get(1).await.0, Lookup::Shared);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the value, the store and our clock say, nothing is given out with less than the store and the token say.
    #[test]
    fn no_value_outlives_what_is_said_of_it(
        life in 0_u64..200_000, expires in -100_000_i64..200_000, kept in 0_u64..200_000, wait in 0_u64..200_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fleet = Fleet::new(1);
            let names = seal().names(&key(1));
            let leased = fleet.store.lease(&names, &[0; 16], Duration::from_millis(1), &[[5; 16]; EPOCHS]).await.unwrap();
            let value = Value {
                epochs: leased.seen.epochs.map(Option::unwrap),
                expires_at: fleet.clock.wall().shifted(expires),
                life: Duration::from_millis(life),
                jwt: "planted".to_owned(),
            };
            let sealed = seal().seal(&names, &value).unwrap();
            fleet.store.put(&names, &[0; 16], sealed, Duration::from_millis(kept)).await.unwrap();
            let begun = Instant::now();
            let (lookup, _) = fleet.replicas[0].get(1).await;
            if lookup == Lookup::Shared {
                let most = life.min(kept).min(u64::try_from(expires).unwrap_or(0));
                advance(Duration::from_millis(wait)).await;
                let held = fleet.replicas[0].cache.get_fresh(&key(1), fleet.clock.now());
                let passed = u64::try_from(begun.elapsed().as_millis()).unwrap();
                assert!(held.is_none() || passed < most, "{most} {passed}");
            }
        });
    }
}
