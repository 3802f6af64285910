//! The status once a second, as Server-Sent Events, while somebody watches.
//!
//! Nothing runs by itself: the stream of each watcher sleeps until its next second, and whoever wakes first makes the
//! document for all. A stream makes nothing while its connection takes nothing, so a slow watcher only sees fewer of them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::status::Status;
use crate::lifecycle::Shutdown;

/// Between two events.
const EVERY: Duration = Duration::from_secs(1);

/// A document serves every watcher who wakes up while it is this fresh.
const FRESH: Duration = Duration::from_millis(900);

/// Who watches at a time.
pub(super) const MOST_WATCHERS: usize = 16;

/// What all watchers share.
pub(super) struct Watchtower {
    status: Arc<Status>,
    shutdown: Shutdown,
    places: Arc<Semaphore>,
    latest: Mutex<Option<(Instant, Bytes)>>,
}

/// One watcher. His place is free again when this is dropped.
struct Watcher {
    tower: Arc<Watchtower>,
    seconds: Interval,
    draining: std::pin::Pin<Box<WaitForCancellationFutureOwned>>,
    next: Next,
    _place: OwnedSemaphorePermit,
}

enum Next {
    /// The document with its history.
    First,
    Another,
    Nothing,
}

// === impl Watchtower ===

impl Watchtower {
    pub(super) fn new(status: Arc<Status>, shutdown: Shutdown) -> Arc<Self> {
        Arc::new(Self { status, shutdown, places: Arc::new(Semaphore::new(MOST_WATCHERS)), latest: Mutex::default() })
    }

    /// The body for one more watcher; `None` where there are as many as may be, or a drain has begun.
    pub(super) fn watch(self: &Arc<Self>) -> Option<Body> {
        if self.shutdown.is_draining() {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut seconds = interval_at(Instant::now() + EVERY, EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let draining = Box::pin(self.shutdown.draining());
        let watcher = Watcher { tower: Arc::clone(self), seconds, draining, next: Next::First, _place: place };
        Some(Body::from_stream(stream::unfold(watcher, |mut watcher| async move {
            let event = watcher.next().await?;
            Some((Ok::<_, Infallible>(event), watcher))
        })))
    }

    /// What is so now, made once for all who ask within a second.
    fn latest(&self) -> Bytes {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match &*latest {
            Some((made, event)) if now - *made < FRESH => event.clone(),
            _ => {
                let event = event(&self.status.json(false));
                *latest = Some((now, event.clone()));
                event
            }
        }
    }
}

/// JSON has no line breaks of its own, so that a document is one line.
fn event(json: &str) -> Bytes {
    format!("data: {json}\n\n").into()
}

// === impl Watcher ===

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        match self.next {
            Next::First => {
                self.next = Next::Another;
                return Some(event(&self.tower.status.json(true)));
            }
            Next::Another => {}
            Next::Nothing => return None,
        }
        tokio::select! {
            biased;
            () = &mut self.draining => {
                self.next = Next::Nothing;
                // Not the latest one, which may not know yet.
                Some(event(&self.tower.status.json(false)))
            }
            _ = self.seconds.tick() => Some(self.tower.latest()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;
    use crate::admin::testing::status;

    struct Test {
        tower: Arc<Watchtower>,
        shutdown: Shutdown,
        /// How many documents were made.
        made: Arc<AtomicUsize>,
    }

    fn test() -> Test {
        let (shutdown, made) = (Shutdown::new(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&made);
        let hook: crate::admin::Hook = Box::new(move |_| _ = counter.fetch_add(1, SeqCst));
        let (status, _) = status(&shutdown, vec![hook]);
        Test { tower: Watchtower::new(status, shutdown.clone()), shutdown, made }
    }

    async fn next(body: &mut Body) -> Option<Value> {
        let event = body.frame().await?.unwrap().into_data().unwrap();
        let text = std::str::from_utf8(&event).unwrap();
        Some(serde_json::from_str(text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap()).unwrap())
    }

    /// Fails where a task makes documents by itself, or where each watcher has his own made.
    #[tokio::test(start_paused = true)]
    async fn documents_are_made_for_who_watches_and_once_for_all() {
        let test = test();
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(test.made.load(SeqCst), 0);
        let mut watchers: Vec<Body> = (0..3).map(|_| test.tower.watch().unwrap()).collect();
        for watcher in &mut watchers {
            assert!(next(watcher).await.unwrap()["history"].is_array());
        }
        for _ in 0..10 {
            for watcher in &mut watchers {
                assert!(next(watcher).await.unwrap().get("history").is_none());
            }
        }
        assert_eq!(test.made.load(SeqCst), 3 + 10);
        drop(watchers);
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(test.made.load(SeqCst), 3 + 10);
    }

    /// Fails where events are queued for who does not take them.
    #[tokio::test(start_paused = true)]
    async fn a_watcher_who_takes_nothing_costs_nothing_and_then_sees_what_is_so() {
        let test = test();
        let mut watcher = test.tower.watch().unwrap();
        next(&mut watcher).await;
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(test.made.load(SeqCst), 1);
        assert_eq!(next(&mut watcher).await.unwrap()["started"]["seconds_ago"], 3600);
        assert!(next(&mut watcher).now_or_never().is_none(), "nothing was queued");
    }

    /// Fails where the places are more than is said, or are not given back with the body.
    #[tokio::test(start_paused = true)]
    async fn watchers_are_bounded_and_a_place_is_free_again() {
        let test = test();
        let mut watchers: Vec<Body> = (0..MOST_WATCHERS).map(|_| test.tower.watch().unwrap()).collect();
        assert!(test.tower.watch().is_none());
        watchers.pop();
        assert!(test.tower.watch().is_some());
    }

    /// Fails where a stream only ends with its connection.
    #[tokio::test(start_paused = true)]
    async fn a_drain_is_told_and_ends_every_stream() {
        let test = test();
        let mut watcher = test.tower.watch().unwrap();
        assert_eq!(next(&mut watcher).await.unwrap()["ready"], true);
        test.shutdown.drain();
        let last = next(&mut watcher).now_or_never().flatten().unwrap();
        assert_eq!(last["not_ready_because"], "draining");
        assert_eq!(next(&mut watcher).await, None);
        assert!(test.tower.watch().is_none(), "nobody begins to watch any more");
    }
}
