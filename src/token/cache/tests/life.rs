//! Which tokens are given, and when they are refreshed.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_never_sent() {
    let bench = Bench::new();
    let down = Arc::new(AtomicBool::new(false));
    let fake = {
        let (down, clock) = (Arc::clone(&down), bench.clock.clone());
        Fake::new(move |_, _| {
            let (down, now) = (Arc::clone(&down), clock.now());
            async move {
                if down.load(Ordering::SeqCst) {
                    return Err(unavailable());
                }
                let exp = now.wall.plus(Duration::from_mins(1));
                Ok(Token::new("t", now.mono).unwrap().dated(exp, Some(now.wall), now.wall, 0))
            }
        })
    };
    for step in 0..2000 {
        // Outages of 40 s, and a machine that sleeps or whose clock is set back and forth.
        down.store((step / 80) % 2 == 1, Ordering::SeqCst);
        match step % 97 {
            13 => bench.clock.step(-3_600_000),
            41 => bench.clock.step(3_600_000),
            _ => {}
        }
        if let (_, Ok(token)) = bench.get(0, &fake).await {
            let lived = token.sent_at.elapsed();
            assert!(lived <= Duration::from_secs(55), "step {step}: {lived:?}");
            assert!(bench.left(&token) >= 5000, "step {step}: {}", bench.left(&token));
        }
        advance(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_with_less_than_min_remaining_is_given() {
    let bench = Bench::new();
    let fake = bench.healthy(60);
    assert_eq!(bench.get(0, &fake).await.0, Lookup::Mint);
    // Its life is counted from when the mint was sent.
    advance(Duration::from_millis(54_749)).await;
    let now = bench.clock.now();
    assert!(bench.cache.get_fresh(&key(0), now).is_some());
    advance(Duration::from_millis(1)).await;
    assert!(bench.cache.get_fresh(&key(0), bench.clock.now()).is_none());
    assert_eq!(bench.get(0, &fake).await.0, Lookup::Mint);
    assert_eq!(fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_aged_in_a_hub_lives_for_what_is_left() {
    let bench = Bench::new();
    let clock = bench.clock.clone();
    let fake = Fake::new(move |_, _| {
        let now = clock.now();
        let token = Token::new("t", now.mono).unwrap();
        let aged = token.dated(now.wall.shifted(12_000), Some(now.wall.shifted(-48_000)), now.wall, 0);
        async move { Ok(aged) }
    });
    let _ = bench.get(0, &fake).await;
    advance(Duration::from_millis(8_999)).await;
    assert!(bench.cache.get_fresh(&key(0), bench.clock.now()).is_some());
    advance(Duration::from_millis(1)).await;
    assert!(bench.cache.get_fresh(&key(0), bench.clock.now()).is_none(), "a quarter of 12 s is left");
}

/// Fails when `land` does not look at the life of what has come.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_dead_on_arrival_is_given_to_nobody() {
    let bench = Bench::new();
    let clock = bench.clock.clone();
    let fake = Fake::new(move |call, _| {
        let now = clock.now();
        let token = Token::new("t", now.mono).unwrap().dated(now.wall.shifted(-1000), None, now.wall, 0);
        async move {
            assert_eq!(call, 0, "it is not asked for again and again");
            Ok(token)
        }
    });
    assert!(matches!(error(bench.get(0, &fake).await), MintError::Malformed(_)));
    assert_eq!(bench.cache.entries.size().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_skewed_clock_neither_sends_a_dead_token_nor_mints_without_end() {
    for offset in [-7_200_000, -30_000, 30_000, 7_200_000] {
        let bench = Bench::new();
        let clock = bench.clock.clone();
        let fake = Fake::new(move |_, _| {
            let now = clock.now();
            let theirs = now.wall.shifted(offset);
            let exp = theirs.plus(Duration::from_mins(1));
            let token = Token::new("t", now.mono).unwrap().dated(exp, Some(theirs), now.wall, offset);
            async move { Ok(token) }
        });
        for _ in 0..60 {
            let token = bench.get(0, &fake).await.1.unwrap();
            assert!(bench.left(&token) >= 5000, "{offset}");
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(fake.calls(), 2, "{offset}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_costs_one_mint() {
    for step in [-3_600_000, 3_600_000] {
        let bench = Bench::new();
        let fake = bench.healthy(600);
        let _ = bench.get(0, &fake).await;
        bench.clock.step(step);
        for _ in 0..20 {
            assert!(bench.get(0, &fake).await.1.is_ok());
        }
        assert!(fake.calls() <= 2, "{step}: {}", fake.calls());
    }
}

/// Fails without the second mint: who waits gets an error then, although the next one who asks gets a token.
#[tokio::test(start_paused = true)]
async fn a_token_that_dies_while_the_machine_sleeps_is_minted_once_more() {
    for (slept, calls) in [(3_600_000, 2), (0, 1), (-3_600_000, 1)] {
        let bench = Bench::new();
        let clock = bench.clock.clone();
        let fake = Fake::new(move |call, _| {
            let (clock, now) = (clock.clone(), clock.now());
            let exp = now.wall.plus(Duration::from_mins(1));
            let token = Token::new("t", now.mono).unwrap().dated(exp, Some(now.wall), now.wall, 0);
            async move {
                sleep(LATENCY).await;
                if call == 0 {
                    clock.step(slept);
                }
                Ok(token)
            }
        });
        let token = bench.get(0, &fake).await.1.unwrap();
        assert_eq!(fake.calls(), calls, "{slept}");
        assert!(bench.left(&token) >= 5000, "{slept}");
    }
}

/// One second mint, and not one for each that sleeps: a machine that does nothing else would mint without end.
#[tokio::test(start_paused = true)]
async fn a_machine_that_falls_asleep_again_gives_up() {
    let bench = Bench::new();
    let clock = bench.clock.clone();
    let fake = Fake::new(move |_, _| {
        let (clock, now) = (clock.clone(), clock.now());
        let token = Token::new("t", now.mono).unwrap().dated(now.wall.shifted(60_000), Some(now.wall), now.wall, 0);
        clock.step(3_600_000);
        async move { Ok(token) }
    });
    assert!(matches!(error(bench.get(0, &fake).await), MintError::Malformed(_)));
    assert_eq!((fake.calls(), bench.cache.entries.size().0), (2, 0));
}

/// Fails when a refresh begins beside a mint that is under way.
#[tokio::test(start_paused = true)]
async fn a_failing_issuer_never_delays_or_loses_a_valid_token() {
    let bench = Bench::new();
    let outage = Arc::new(AtomicBool::new(false));
    let issuer = {
        let (outage, clock) = (Arc::clone(&outage), bench.clock.clone());
        Fake::new(move |_, _| {
            let (outage, clock) = (Arc::clone(&outage), clock.clone());
            async move {
                let now = clock.now();
                sleep(LATENCY).await;
                if outage.load(Ordering::SeqCst) {
                    return Err(unavailable());
                }
                let exp = now.wall.plus(Duration::from_mins(5));
                Ok(Token::new("t", now.mono).unwrap().dated(exp, Some(now.wall), now.wall, 0))
            }
        })
    };
    let budget = config::Budget { requests: 100, ..budget() };
    let limited = Budget::new(Arc::clone(&issuer), Limiter::new(&budget, Arc::clone(&bench.metrics)));
    let guarded = Breaker::new(limited, Health::new(Arc::clone(&bench.metrics)));
    let mint = Arc::new(Retry::new(guarded, bench.clock.clone(), Jitter::fixed(0.5)));
    for number in 0..20 {
        assert!(bench.get(number, &mint).await.1.is_ok());
    }
    // 30 s without the issuer, while refresh is due: every use is served at once.
    advance(Duration::from_secs(245)).await;
    outage.store(true, Ordering::SeqCst);
    for _ in 0..300 {
        for number in 0..20 {
            assert!(bench.serve(number, &mint).is_some());
        }
        sleep(Duration::from_millis(100)).await;
    }
    let during = issuer.calls() - 20;
    assert!(during < 200, "{during} calls at an issuer that is down");
    outage.store(false, Ordering::SeqCst);
    for _ in 0..150 {
        for number in 0..20 {
            assert!(bench.serve(number, &mint).is_some());
        }
        sleep(Duration::from_millis(100)).await;
    }
    // They have been refreshed: their first life is over by now.
    advance(Duration::from_secs(30)).await;
    for number in 0..20 {
        assert!(bench.serve(number, &mint).is_some(), "{number}");
    }
    assert_eq!(bench.metrics.control().breaker_open.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn refresh_is_triggered_by_use_once_per_key() {
    let bench = Bench::new();
    let fake = bench.healthy(60);
    let _ = bench.get(0, &fake).await;
    // Unused, nothing happens however long it is due.
    advance(Duration::from_secs(50)).await;
    assert_eq!(fake.calls(), 1);
    for _ in 0..500 {
        assert_eq!(text(&bench.serve(0, &fake).unwrap()), "sess_0.0");
    }
    sleep(LATENCY).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(text(&bench.serve(0, &fake).unwrap()), "sess_0.1");
    assert_eq!((fake.calls(), fake.most_busy()), (2, 1));
    assert_eq!(bench.metrics.control().refreshes(TemplateId::new(0), MintResult::Ok).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_request_after_the_first_waits_for_a_mint_when_used_once_in_the_refresh_window() {
    for life in [30, 60, 300, 3600] {
        let bench = Bench::new();
        let fake = bench.healthy(life);
        let _ = bench.get(0, &fake).await;
        let window = Duration::from_secs(life).mul_f64(0.9).min(Duration::from_secs(life - 6));
        for turn in 0..20 {
            sleep(window).await;
            assert!(bench.serve(0, &fake).is_some(), "life {life}, turn {turn}");
            sleep(LATENCY).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_can_be_turned_off() {
    let bench = Bench::with(&config::Cache { refresh_at: None, ..config() });
    let fake = bench.healthy(60);
    let _ = bench.get(0, &fake).await;
    advance(Duration::from_secs(54)).await;
    assert!(bench.serve(0, &fake).is_some());
    bench.tasks.idle().await;
    assert_eq!(fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_refresh_does_not_fail_somebody_who_waits() {
    let bench = Bench::new();
    let clock = bench.clock.clone();
    let fake = Fake::new(move |call, request| {
        let clock = clock.clone();
        async move {
            sleep(LATENCY).await;
            if request.urgency == Urgency::Ahead {
                return Err(MintError::Throttled { retry_after: Duration::from_secs(9) });
            }
            let now = clock.now();
            let exp = now.wall.plus(Duration::from_mins(1));
            Ok(Token::new(&call.to_string(), now.mono).unwrap().dated(exp, Some(now.wall), now.wall, 0))
        }
    });
    let first = bench.get(0, &fake).await.1.unwrap();
    let end = first.sent_at + Duration::from_millis(54_900);
    tokio::time::sleep_until(end).await;
    assert!(bench.serve(0, &fake).is_some());
    // The token dies while its refresh is under way.
    sleep(Duration::from_millis(110)).await;
    let (lookup, token) = bench.get(0, &fake).await;
    assert_eq!((lookup, text(&token.unwrap())), (Lookup::Mint, "2"));
}

#[tokio::test(start_paused = true)]
async fn tokens_survive_a_reload_and_the_request_brings_the_mint() {
    let bench = Bench::new();
    let (old, new) = (bench.healthy(60), bench.healthy(60));
    let _ = bench.get(0, &old).await;
    let changed = config::Cache { min_remaining: Duration::from_secs(10), ..config() };
    bench.cache.reconfigure(&changed, metrics());
    assert_eq!(bench.get(0, &new).await.0, Lookup::Hit);
    assert_eq!(bench.get(1, &new).await.0, Lookup::Mint);
    assert_eq!((old.calls(), new.calls()), (1, 1));
    let left = |number: usize| bench.cache.get_fresh(&key(number), bench.clock.now()).is_some();
    advance(Duration::from_secs(51)).await;
    assert!(left(0) && !left(1), "each lives by the rules under which it was minted");
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_bounded_by_weight_and_swept_of_the_dead() {
    let bench = Bench::with(&config::Cache { max_bytes: 100_000, ..config() });
    let fake = Fake::healthy(&bench.clock, 60, Duration::ZERO);
    for number in 0..1000 {
        let _ = bench.get(number, &fake).await;
    }
    bench.cache.observe();
    let control = bench.metrics.control();
    let bytes = control.cache_bytes(CacheName::Tokens).get();
    let entries = control.cache_entries(CacheName::Tokens).get();
    assert!((50_000..=100_000).contains(&bytes) && (50..400).contains(&entries), "{entries} entries, {bytes} bytes");
    assert_eq!(bench.cache.sweep(), 0);
    advance(Duration::from_mins(1)).await;
    assert_eq!(i64::try_from(bench.cache.sweep()).unwrap(), entries);
    assert_eq!(bench.cache.entries.size(), (0, 0));
}

/// A waiter may be woken long after its mint has landed: the machine slept, or was busy. Fails without the look at
/// `is_dead` in `get`.
#[tokio::test(start_paused = true)]
async fn a_token_that_dies_before_its_waiter_is_woken_is_not_given() {
    let bench = Bench::new();
    let fake = bench.healthy(60);
    let waiting = {
        let (cache, mint) = (Arc::clone(&bench.cache), Arc::clone(&fake));
        let request = MintRequest { deadline: Instant::now() + Duration::from_mins(10), ..request(&key(0)) };
        async move { cache.get(request, &mint).await }
    };
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    sleep(LATENCY + Duration::from_millis(50)).await;
    assert_eq!((fake.calls(), bench.cache.under_way()), (1, 0), "it has landed, and nobody has looked");
    advance(Duration::from_mins(1)).await;
    let (_, got) = waiting.await;
    assert!(bench.left(&got.unwrap()) > 50_000);
    assert_eq!(fake.calls(), 2);
}

/// Tokens that were minted together part ways: each is due for a refresh earlier by its own chance. Fails without the
/// jitter in `land`.
#[tokio::test(start_paused = true)]
async fn a_refresh_is_due_earlier_by_the_jitter() {
    for (jitter, due) in [(0.0, 48_000), (1.0, 45_000)] {
        let bench = Bench::new();
        let cache = TokenCache::new(
            &config(),
            bench.clock.clone(),
            bench.tasks.clone(),
            Jitter::fixed(jitter),
            Arc::clone(&bench.metrics),
        );
        let fake = bench.healthy(60);
        let sent = Instant::now();
        assert!(cache.get(request(&key(0)), &fake).await.1.is_ok());
        for (before, expected) in [(1, Freshness::Fresh), (0, Freshness::RefreshDue)] {
            advance(sent + Duration::from_millis(due - before) - Instant::now()).await;
            assert_eq!(cache.get_fresh(&key(0), bench.clock.now()).unwrap().1, expected, "{jitter}");
        }
    }
}
