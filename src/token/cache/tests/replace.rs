//! What comes after a token that its upstream has refused.

use super::*;

/// What is sent instead of `refused`.
async fn instead(bench: &Bench, mint: &Arc<Fake>, refused: &str) -> Option<Arc<Token>> {
    bench.cache.replace(request(&key(0)), |token| text(token) == refused, mint).await
}

async fn grow_old() {
    advance(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn only_a_token_that_is_older_than_ten_seconds_is_replaced() {
    let bench = Bench::new();
    let mint = bench.healthy(60);
    let first = bench.get(0, &mint).await.1.unwrap();
    // Counted from the mint's beginning, which is 250 ms ago.
    advance(Duration::from_millis(9_749)).await;
    assert!(instead(&bench, &mint, text(&first)).await.is_none(), "it is young");
    advance(Duration::from_millis(1)).await;
    let second = instead(&bench, &mint, text(&first)).await.unwrap();
    assert_ne!(text(&first), text(&second));
    assert_eq!(text(&bench.get(0, &mint).await.1.unwrap()), text(&second), "it has taken its place");
    assert_eq!(mint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_taken_the_place_of_the_refused_one_is_not_replaced() {
    let bench = Bench::new();
    let mint = bench.healthy(60);
    let first = bench.get(0, &mint).await.1.unwrap();
    grow_old().await;
    let second = instead(&bench, &mint, text(&first)).await.unwrap();
    grow_old().await;
    let third = instead(&bench, &mint, text(&first)).await.unwrap();
    assert_eq!((text(&second), mint.calls()), (text(&third), 2), "compared, and not the one that was sent");
    assert!(instead(&bench, &mint, "unknown to all").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_kept_nothing_is_replaced() {
    let bench = Bench::new();
    let mint = bench.healthy(60);
    assert!(instead(&bench, &mint, "gone").await.is_none());
    assert_eq!(mint.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_replacement_leaves_the_token_and_is_tried_once_in_ten_seconds() {
    let bench = Bench::new();
    let mint = bench.healthy(60);
    let first = bench.get(0, &mint).await.1.unwrap();
    grow_old().await;
    let failing = Fake::failing(unavailable());
    for seconds in [0, 5, 4] {
        advance(Duration::from_secs(seconds)).await;
        assert!(instead(&bench, &failing, text(&first)).await.is_none());
        assert_eq!(failing.calls(), 1);
        assert_eq!(text(&bench.get(0, &mint).await.1.unwrap()), text(&first));
    }
    advance(Duration::from_secs(1)).await;
    assert!(instead(&bench, &mint, text(&first)).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_revoked_meanwhile_gets_nothing() {
    let bench = Bench::new();
    let mint = bench.healthy(60);
    let first = bench.get(0, &mint).await.1.unwrap();
    grow_old().await;
    let replaced = instead(&bench, &mint, text(&first));
    let revoked = async {
        sleep(LATENCY / 2).await;
        bench.cache.purge(&PurgeScope::All, true);
    };
    assert!(tokio::join!(replaced, revoked).0.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_revoked_as_its_token_comes_gets_nothing() {
    let bench = Bench::new();
    let mint = bench.healthy(60);
    let first = bench.get(0, &mint).await.1.unwrap();
    grow_old().await;
    let replaced = instead(&bench, &mint, text(&first));
    let revoked = async {
        sleep(LATENCY).await;
        while bench.cache.under_way() > 0 {
            tokio::task::yield_now().await;
        }
        // The mint has landed, and who waits for it has not looked yet.
        bench.cache.purge(&PurgeScope::All, true);
    };
    assert!(tokio::join!(biased; revoked, replaced).1.is_none());
}

/// A hub may answer a forced mint with what it has kept. Fails without the last look at `is_refused` in `replace`.
#[tokio::test(start_paused = true)]
async fn a_refused_token_is_not_replaced_by_itself() {
    let bench = Bench::new();
    let clock = bench.clock.clone();
    let mint = Fake::new(move |_, _| {
        let now = clock.now();
        async move { Ok(Token::new("same", now.mono).unwrap().dated(now.wall.shifted(60_000), None, now.wall, 0)) }
    });
    assert!(bench.get(0, &mint).await.1.is_ok());
    grow_old().await;
    assert!(instead(&bench, &mint, "same").await.is_none());
    assert_eq!(mint.calls(), 2);
}

/// Fails without the last look at `is_dead` in `replace`.
#[tokio::test(start_paused = true)]
async fn a_token_that_dies_before_its_waiter_is_woken_replaces_nothing() {
    let bench = Bench::new();
    let mint = bench.healthy(60);
    let first = bench.get(0, &mint).await.1.unwrap();
    grow_old().await;
    let refused = text(&first).to_owned();
    let request = MintRequest { deadline: Instant::now() + Duration::from_mins(10), ..request(&key(0)) };
    let replaced = bench.cache.replace(request, |token| text(token) == refused, &mint);
    tokio::pin!(replaced);
    assert!(futures_util::poll!(&mut replaced).is_pending());
    sleep(LATENCY + Duration::from_millis(50)).await;
    assert_eq!((mint.calls(), bench.cache.under_way()), (2, 0), "it has landed, and nobody has looked");
    advance(Duration::from_mins(1)).await;
    assert!(replaced.await.is_none());
}

/// Fails without the deadline in `replace`: the mint that is joined is another's, and may take longer.
#[tokio::test(start_paused = true)]
async fn nobody_waits_beyond_his_deadline_for_another_token() {
    let bench = Bench::new();
    let mint = Fake::healthy(&bench.clock, 60, Duration::from_secs(3));
    let first = bench.get(0, &mint).await.1.unwrap();
    grow_old().await;
    let refused = text(&first).to_owned();
    let started = Instant::now();
    let until = |seconds| MintRequest { deadline: started + Duration::from_secs(seconds), ..request(&key(0)) };
    let patient = bench.cache.replace(until(5), |token| text(token) == refused, &mint);
    let hasty = async {
        let replaced = bench.cache.replace(until(1), |token| text(token) == refused, &mint).await;
        (replaced.is_none(), started.elapsed().as_secs())
    };
    let (patient, hasty) = tokio::join!(biased; patient, hasty);
    assert!(patient.is_some());
    assert_eq!((hasty, mint.calls()), ((true, 1), 2));
}
