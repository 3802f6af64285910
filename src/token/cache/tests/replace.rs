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
