//! Who mints, who waits, and what is told of a failure.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_token_without_a_readable_exp_serves_who_waits_and_is_not_kept() {
    let bench = Bench::new();
    let fake = Fake::new(|_, _| async {
        sleep(LATENCY).await;
        Ok(Token::new("opaque", Instant::now()).unwrap())
    });
    let waiting: Vec<_> = (0..10).map(|_| bench.spawn(0, &fake)).collect();
    for task in waiting {
        assert!(task.await.unwrap().1.is_ok());
    }
    assert_eq!((fake.calls(), bench.cache.entries.size().0), (1, 0));
    assert_eq!(bench.get(0, &fake).await.0, Lookup::Mint);
}

/// Fails when `Flights::next` does not look for the flight of the key.
#[tokio::test(start_paused = true)]
async fn one_mint_per_key_at_a_time() {
    let bench = Bench::new();
    let fake = bench.healthy(60);
    let tasks: Vec<_> = (0..500).map(|_| bench.spawn(0, &fake)).collect();
    let mut lookups = Vec::new();
    for task in tasks {
        let (lookup, token) = task.await.unwrap();
        assert_eq!(text(&token.unwrap()), "sess_0.0");
        lookups.push(lookup);
    }
    assert_eq!(fake.calls(), 1);
    assert_eq!(lookups.iter().filter(|lookup| **lookup == Lookup::Mint).count(), 1);
    assert_eq!(bench.get(0, &fake).await.0, Lookup::Hit);
    assert_eq!((bench.cache.under_way(), bench.tasks.alive()), (0, 0));
    let control = bench.metrics.control();
    assert_eq!(control.mints(TemplateId::new(0), MintResult::Ok).get(), 1);
}

#[test]
fn one_mint_per_key_whichever_runtime_asks() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let clock = Clock::system();
    let tasks = Spawner::new(control.handle().clone());
    let cache = TokenCache::new(&config(), clock.clone(), tasks, Jitter::random(), metrics());
    let fake = Fake::healthy(&clock, 60, Duration::from_millis(20));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (cache, fake) = (Arc::clone(&cache), Arc::clone(&fake));
            std::thread::spawn(move || {
                runtime().block_on(async {
                    for number in 0..20 {
                        // Real time: a machine that stands still for seconds is no failure, a lost wake-up is.
                        let deadline = Instant::now() + Duration::from_mins(1);
                        let request = MintRequest { deadline, ..request(&key(number)) };
                        let (_, token) = cache.get(request, &fake).await;
                        assert_eq!(text(&token.unwrap()).split('.').next().unwrap(), format!("sess_{number}"));
                    }
                });
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(fake.calls(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_harms_nobody() {
    let bench = Bench::new();
    let fake = bench.healthy(60);
    // More than the 200 in a row after which the map's own single flight gives up.
    for _ in 0..300 {
        let leader = bench.spawn(0, &fake);
        tokio::task::yield_now().await;
        leader.abort();
        let _ = leader.await;
    }
    let (lookup, token) = bench.get(0, &fake).await;
    assert_eq!((lookup, text(&token.unwrap())), (Lookup::Wait, "sess_0.0"));
    assert_eq!(fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_waiter_has_its_own_deadline() {
    let bench = Bench::new();
    let fake = Fake::healthy(&bench.clock, 60, Duration::from_secs(3));
    let patient = bench.spawn(0, &fake);
    tokio::task::yield_now().await;
    let started = Instant::now();
    let hasty = MintRequest { deadline: started + Duration::from_secs(1), ..request(&key(0)) };
    assert!(matches!(error(bench.cache.get(hasty, &fake).await), MintError::Timeout));
    assert_eq!(started.elapsed().as_secs(), 1);
    assert!(patient.await.unwrap().1.is_ok());
    assert_eq!(fake.calls(), 1);
}

/// Fails without the deadline in `launch`, which holds whatever the mint does; the waiter's own hides its absence from him.
#[tokio::test(start_paused = true)]
async fn a_mint_that_hangs_ends_with_its_deadline_and_frees_the_key() {
    let bench = Bench::new();
    let fake = Fake::new(|_, _| async { std::future::pending().await });
    let started = Instant::now();
    assert!(matches!(error(bench.get(0, &fake).await), MintError::Timeout));
    assert_eq!(started.elapsed().as_secs(), 5);
    bench.tasks.idle().await;
    assert_eq!((bench.cache.under_way(), started.elapsed().as_secs()), (0, 5), "the mint itself, not who waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_mint_that_panics_fails_those_who_wait_and_frees_the_key() {
    let bench = Bench::new();
    let clock = bench.clock.clone();
    let fake = Fake::new(move |call, _| {
        let now = clock.now();
        async move {
            assert!(call > 0, "the first call panics");
            Ok(Token::new("t", now.mono).unwrap().dated(now.wall.shifted(60_000), None, now.wall, 0))
        }
    });
    let tasks: Vec<_> = (0..10).map(|_| bench.spawn(0, &fake)).collect();
    for task in tasks {
        assert!(matches!(error(task.await.unwrap()), MintError::Unavailable { .. }));
    }
    assert_eq!(bench.cache.under_way(), 0);
    assert!(bench.get(0, &fake).await.1.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_with_those_who_wait_then_forgotten() {
    let bench = Bench::new();
    let fake = Fake::new(|_, _| async {
        sleep(LATENCY).await;
        Err(MintError::Refused(400))
    });
    let tasks: Vec<_> = (0..50).map(|_| bench.spawn(0, &fake)).collect();
    for task in tasks {
        assert!(matches!(error(task.await.unwrap()), MintError::Refused(400)));
    }
    assert_eq!(fake.calls(), 1);
    let _ = bench.get(0, &fake).await;
    assert_eq!(fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_missing_is_remembered_and_only_for_its_key() {
    for (answer, remembered) in [
        (MintError::SessionEnded, true),
        (MintError::TemplateUnknown, true),
        (MintError::RejectedKey, false),
        (unavailable(), false),
        (MintError::Unfit, false),
    ] {
        let bench = Bench::new();
        let fake = Fake::failing(answer.clone());
        let _ = bench.get(0, &fake).await;
        let (lookup, result) = bench.get(0, &fake).await;
        assert_eq!((lookup == Lookup::Missing, fake.calls() == 1), (remembered, remembered), "{answer}");
        assert_eq!(result.unwrap_err().result(), answer.result());
        let before = fake.calls();
        let _ = bench.get(1, &fake).await;
        assert_eq!(fake.calls(), before + 1, "another key is asked for");
        advance(Duration::from_secs(5)).await;
        let _ = bench.get(0, &fake).await;
        assert_eq!(fake.calls(), before + 2, "remembered for missing_ttl");
    }
    let bench = Bench::with(&config::Cache { missing_ttl: None, ..config() });
    let fake = Fake::failing(MintError::SessionEnded);
    for _ in 0..3 {
        let _ = bench.get(0, &fake).await;
    }
    assert_eq!(fake.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_the_tables_do_not_have_counts_as_other() {
    let bench = Bench::new();
    let fake = bench.healthy(60);
    let request = MintRequest { template: TemplateId::new(40), ..request(&key(0)) };
    assert!(bench.cache.get(request, &fake).await.1.is_ok());
    let other = bench.metrics.other_template();
    assert_eq!(bench.metrics.control().mints(other, MintResult::Ok).get(), 1);
}

/// Fails without the look at the deadline in `get`.
#[tokio::test(start_paused = true)]
async fn a_mint_never_begins_for_a_request_that_is_too_late() {
    let bench = Bench::new();
    let fake = bench.healthy(60);
    let request = MintRequest { deadline: Instant::now(), ..request(&key(0)) };
    let (lookup, got) = bench.cache.get(request, &fake).await;
    assert!(matches!((lookup, got), (Lookup::Hit, Err(MintError::Timeout))));
    assert_eq!((fake.calls(), bench.cache.under_way()), (0, 0));
}
