//! One mint in the fleet, and what becomes of those who wait for it.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_mint_of_a_key_in_the_fleet() {
    let fleet = Fleet::new(4);
    let waits = fleet.replicas.iter().flat_map(|replica| (0..50).map(move |_| replica.get(1)));
    let got = futures_util::future::join_all(waits).await;
    assert_eq!(fleet.issuer.calls(), 1, "a stampede of four gateways");
    let texts: Vec<_> = got.iter().map(|(_, token)| token.as_ref().unwrap().bare().clone()).collect();
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]));
    let of = |lookup| got.iter().filter(|(found, _)| *found == lookup).count();
    assert_eq!((of(Lookup::Mint), of(Lookup::Shared), of(Lookup::Wait)), (1, 3, 196));
    let mints: u64 = fleet.replicas.iter().map(Replica::mints).sum();
    assert_eq!(mints, 1, "what another replica has minted is no mint of ours");
}

/// Fails where the value is not looked for again once the lease is granted.
#[tokio::test(start_paused = true)]
async fn what_has_just_arrived_is_not_minted_again() {
    let fleet = Fleet::new(2);
    let [one, other] = &fleet.replicas[..] else { panic!() };
    one.get(1).await.1.unwrap();
    settle().await;
    // It looked before the value was there, and asks for the lease after.
    other.wire.feel(Mood::Slow(Duration::from_millis(20)));
    let names = seal().names(&key(2));
    let early = other.get(2);
    let late = async {
        sleep(Duration::from_millis(10)).await;
        fleet.store.lease(&names, &[7; 16], Duration::from_secs(2), &[[1; 16]; EPOCHS]).await.unwrap();
        sleep(Duration::from_millis(15)).await;
        let value = seal::Value {
            epochs: [[1; 16]; EPOCHS],
            expires_at: fleet.clock.wall().plus(Duration::from_mins(1)),
            life: Duration::from_mins(1),
            jwt: "theirs".to_owned(),
        };
        // The epoch of everybody is there already.
        let epochs = fleet.store.look(&names).await.unwrap().epochs.map(Option::unwrap);
        let sealed = seal().seal(&names, &seal::Value { epochs, ..value }).unwrap();
        fleet.store.put(&names, &[7; 16], sealed, Duration::from_mins(1)).await.unwrap();
    };
    let ((lookup, token), ()) = tokio::join!(early, late);
    assert_eq!((lookup, token.unwrap().bare().to_str().unwrap()), (Lookup::Shared, "theirs"));
    assert_eq!(fleet.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_gateway_makes_no_mint_for_live_tokens() {
    let fleet = Fleet::new(1);
    for number in 0..20 {
        fleet.replicas[0].get(number).await.1.unwrap();
    }
    settle().await;
    let restarted = fleet.fresh();
    for number in 0..20 {
        let (lookup, token) = restarted.get(number).await;
        assert_eq!(
            (lookup, token.unwrap().bare()),
            (Lookup::Shared, fleet.replicas[0].get(number).await.1.unwrap().bare())
        );
    }
    assert_eq!((fleet.issuer.calls(), restarted.mints()), (20, 0));
}

/// Case 36. Fails where a lease has no end, or where somebody waits for the lock and not for the value.
#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_costs_at_most_the_lease() {
    let fleet = Fleet::new(3);
    let names = seal().names(&key(1));
    let granted = fleet.store.lease(&names, &[9; 16], Duration::from_secs(2), &[[1; 16]; EPOCHS]).await.unwrap();
    assert!(granted.granted, "and then it is killed");
    let begun = Instant::now();
    let got = futures_util::future::join_all(fleet.replicas.iter().map(|replica| replica.get(1))).await;
    assert!(got.iter().all(|(_, token)| token.is_ok()));
    let took = begun.elapsed();
    assert!(took <= Duration::from_secs(2) + LATENCY + Duration::from_millis(10), "{took:?}");
    assert!(fleet.issuer.calls() <= 3, "never more mints than without a second level");
}

/// A lease that never ends, as one that was planted without an end: nobody waits longer than our own would last.
#[tokio::test(start_paused = true)]
async fn no_lease_is_waited_for_without_end() {
    let fleet = Fleet::new(1);
    let names = seal().names(&key(1));
    fleet.store.plant(&names.lease, Some((vec![9; 16], Duration::from_hours(9))));
    let begun = Instant::now();
    fleet.replicas[0].get(1).await.1.unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(2) + LATENCY + Duration::from_millis(10));
}

/// Fails where a failed holder keeps its lease.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_mint_that_fails_mints_at_once() {
    let clock = Clock::following(Wall::from_seconds(1_800_000_000));
    let (issuer, healthy) = (Arc::new(AtomicUsize::new(0)), clock.clone());
    let issuer = {
        let count = Arc::clone(&issuer);
        Fake::new(move |_, request| {
            let (first, clock) = (count.fetch_add(1, Ordering::SeqCst) == 0, healthy.clone());
            async move {
                if first {
                    sleep(Duration::from_millis(100)).await;
                    return Err(unavailable());
                }
                Fake::healthy(&clock, 60, LATENCY).mint(request).await
            }
        })
    };
    let fleet = Fleet::with(3, clock, issuer);
    let begun = Instant::now();
    let got = futures_util::future::join_all(fleet.replicas.iter().map(|replica| replica.get(1))).await;
    assert_eq!(got.iter().filter(|(_, token)| token.is_ok()).count(), 2);
    assert_eq!(fleet.issuer.calls(), 3, "as many as without a second level");
    assert!(begun.elapsed() < Duration::from_millis(100 + 50 + 250 + 10), "{:?}", begun.elapsed());
}

/// Fails where a mint that is dropped keeps its lease.
#[tokio::test(start_paused = true)]
async fn a_mint_that_nobody_waits_for_any_more_gives_its_lease_back() {
    let fleet = Fleet::new(2);
    let cut = tokio::time::timeout(Duration::from_millis(20), fleet.replicas[0].mint(request(&key(1)))).await;
    assert!(cut.is_err());
    settle().await;
    let begun = Instant::now();
    fleet.replicas[1].get(1).await.1.unwrap();
    assert!(begun.elapsed() < LATENCY + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn one_refresh_in_the_fleet() {
    let fleet = Fleet::new(4);
    for replica in &fleet.replicas {
        replica.get(1).await.1.unwrap();
    }
    sleep(Duration::from_secs(50)).await;
    assert_eq!(fleet.issuer.calls(), 1);
    for round in 0..3 {
        for replica in &fleet.replicas {
            // It serves the old one, and renews it in the background, unless that is done.
            replica.get(1).await.1.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(fleet.issuer.calls(), 2, "{round}");
    }
    let texts: Vec<_> = futures_util::future::join_all(fleet.replicas.iter().map(|replica| replica.text(1))).await;
    assert!(texts.iter().all(|text| text == "sess_1.1"), "{texts:?}");
}

/// Fails where what is due for a refresh passes for one.
#[tokio::test(start_paused = true)]
async fn what_is_due_for_a_refresh_is_no_refresh() {
    let fleet = Fleet::new(1);
    fleet.replicas[0].get(1).await.1.unwrap();
    for (after, mints) in [(30, 1), (16, 2)] {
        // At 46 s of 60: due for whose jitter is the longest.
        sleep(Duration::from_secs(after)).await;
        let ahead = MintRequest { urgency: Urgency::Ahead, ..request(&key(1)) };
        fleet.fresh().mint(ahead).await.unwrap();
        assert_eq!(fleet.issuer.calls(), mints);
    }
}

#[tokio::test(start_paused = true)]
async fn a_forced_mint_takes_what_another_replica_has_just_minted() {
    let fleet = Fleet::new(2);
    fleet.replicas[0].get(1).await.1.unwrap();
    for (after, mints) in [(9, 1), (2, 2)] {
        sleep(Duration::from_secs(after)).await;
        let forced = MintRequest { forced: true, ..request(&key(1)) };
        fleet.replicas[1].mint(forced).await.unwrap();
        assert_eq!(fleet.issuer.calls(), mints);
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_cannot_be_outrun_by_a_mint_of_another_replica() {
    let fleet = Fleet::new(2);
    let [one, other] = &fleet.replicas[..] else { panic!() };
    let names = seal().names(&key(1));
    let anew = [(names.epochs[1].clone(), [4; 16])];
    let (first, ()) = tokio::join!(one.get(1), async {
        sleep(Duration::from_millis(100)).await;
        fleet.store.renew(&anew).await.unwrap();
    });
    first.1.unwrap();
    settle().await;
    assert_eq!(other.get(1).await.0, Lookup::Mint, "it was begun before the purge");
    settle().await;
    assert_eq!(fleet.fresh().get(1).await.0, Lookup::Shared, "and this one after it");
    for epoch in &names.epochs {
        // Evicted: a miss, and nothing comes back to life when it is made anew.
        fleet.store.plant(epoch, None);
        assert_eq!(fleet.fresh().get(1).await.0, Lookup::Mint, "{epoch}");
        settle().await;
    }
}

/// The roll-out of another key: both are read while one of them is written.
#[tokio::test(start_paused = true)]
async fn keys_are_rotated_without_a_mint() {
    let fleet = Fleet::new(0);
    let replica = |key, previous| Replica::of(&fleet.store, &fleet.issuer, fleet.clock.clone(), &shared(key, previous));
    replica(1, None).get(1).await.1.unwrap();
    settle().await;
    let [first, second, third] = [replica(1, Some(2)), replica(2, Some(1)), replica(2, None)];
    assert_eq!((first.get(1).await.0, second.get(1).await.0), (Lookup::Shared, Lookup::Shared));
    second.get(2).await.1.unwrap();
    settle().await;
    assert_eq!((first.get(2).await.0, third.get(2).await.0), (Lookup::Shared, Lookup::Shared));
    assert_eq!(third.get(1).await.0, Lookup::Mint, "the old key is forgotten");
    assert_eq!(third.counted(SharedOperation::Look, SharedResult::Unreadable), 0, "it was under another name");
}

#[tokio::test(start_paused = true)]
async fn nothing_readable_is_left_there() {
    let fleet = Fleet::new(1);
    let text = fleet.replicas[0].text(1).await;
    settle().await;
    let dump = fleet.store.dump();
    assert_eq!(dump.len(), 4, "a value and three epochs");
    for (name, bytes) in dump {
        let seen = format!("{name} {}", String::from_utf8_lossy(&bytes));
        for secret in [text.as_str(), "sess_1", "user_1", "api.test"] {
            assert!(!seen.contains(secret), "{seen}");
        }
    }
}

fn scopes() -> [PurgeScope; 3] {
    let parts = key(1);
    let (sid, sub) = (parts.parts().sid.clone(), parts.parts().sub.clone().unwrap());
    [PurgeScope::Session(sid), PurgeScope::User(sub), PurgeScope::All]
}

/// Fails where a purge leaves the values of one of the keys, or of a scope.
#[tokio::test(start_paused = true)]
async fn a_purge_reaches_what_was_written_under_either_key() {
    for scope in scopes() {
        let fleet = Fleet::new(0);
        let replica =
            |key, previous| Replica::of(&fleet.store, &fleet.issuer, fleet.clock.clone(), &shared(key, previous));
        let (old, new) = (replica(1, Some(2)), replica(2, Some(1)));
        old.get(1).await.1.unwrap();
        settle().await;
        new.outbox.push(Word::Purge(scope.clone()));
        sleep(Duration::from_secs(1)).await;
        assert!(new.outbox.is_empty());
        assert_eq!(replica(1, None).get(1).await.0, Lookup::Mint, "{scope:?}");
        settle().await;
        assert_eq!(replica(1, None).get(1).await.0, Lookup::Shared, "{scope:?}");
    }
}

/// A token of a session that only was named may be anybody's.
#[tokio::test(start_paused = true)]
async fn a_purge_of_a_user_reaches_what_names_no_user() {
    let fleet = Fleet::new(1);
    let parts = key(1);
    let nobody = TokenKey::new(
        parts.parts().issuer,
        parts.parts().sid.clone(),
        None,
        &spec("t", None),
        Scope::Neutral,
        Vec::new(),
    );
    for (number, user) in ["user_1", "user_2"].into_iter().enumerate() {
        fleet.replicas[0].mint(request(&nobody)).await.unwrap();
        settle().await;
        assert_eq!(fleet.issuer.calls(), number + 1);
        fleet.fresh().mint(request(&nobody)).await.unwrap();
        assert_eq!(fleet.issuer.calls(), number + 1);
        fleet.replicas[0].outbox.push(Word::Purge(PurgeScope::User(UserId::new(user).unwrap())));
        sleep(Duration::from_secs(1)).await;
    }
}

/// Many replicas that see a session rarely. Fails where the look-up that takes a due token does not renew it: the last one would
/// wait for a mint.
#[tokio::test(start_paused = true)]
async fn a_due_token_that_is_taken_is_renewed_by_one_for_all() {
    let fleet = Fleet::new(6);
    fleet.replicas[0].get(1).await.1.unwrap();
    // At 50 s of 60 it is due, and alive.
    sleep(Duration::from_secs(50)).await;
    for (number, replica) in fleet.replicas[1..5].iter().enumerate() {
        let (lookup, token) = replica.get(1).await;
        assert_eq!(lookup, Lookup::Shared);
        // Served at once with what is there: the first one with the old one, the others with the new one.
        let text = token.unwrap().bare().to_str().unwrap().to_owned();
        assert_eq!(text, format!("sess_1.{}", number.min(1)));
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(fleet.issuer.calls(), 2);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(fleet.replicas[5].get(1).await.0, Lookup::Shared, "nobody has to wait for a mint");
    assert_eq!(fleet.issuer.calls(), 2);
}

/// All of them at one time: one renews, and nobody waits for it. Fails where each of them mints.
#[tokio::test(start_paused = true)]
async fn of_many_who_take_a_due_token_one_renews_it() {
    let fleet = Fleet::new(6);
    fleet.replicas[0].get(1).await.1.unwrap();
    sleep(Duration::from_secs(50)).await;
    let begun = Instant::now();
    let got = futures_util::future::join_all(fleet.replicas[1..].iter().map(|replica| replica.get(1))).await;
    assert!(got.iter().all(|(lookup, _)| *lookup == Lookup::Shared));
    assert!(begun.elapsed() < Duration::from_millis(5), "{:?}", begun.elapsed());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(fleet.issuer.calls(), 2);
    let texts: Vec<_> = futures_util::future::join_all(fleet.replicas[1..].iter().map(|replica| replica.text(1))).await;
    assert!(texts.iter().all(|text| text == "sess_1.1"), "{texts:?}");
}
