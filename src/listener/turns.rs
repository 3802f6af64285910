//! Which of a worker's HTTP/1 connections is served next, when many have been sent something at once.
//!
//! Requests are begun a few at a time: between two turns the worker looks at its sockets, and passes on what upstreams have
//! answered by then. What a request needs is still near the processor when its answer comes, where that of hundreds that
//! were all begun first is not. Nobody waits for an upstream here: a turn is over after one look, whatever was there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::lifecycle::Spawner;

/// Connections that are served in one turn. 32 are as good with 256 callers, but do nothing for 64.
pub(super) const TURN: u32 = 8;

/// The turns of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    spawner: Spawner,
    /// How many more are served in this turn; none while anybody waits. Changed by the worker's thread alone.
    left: AtomicU32,
    line: Mutex<Line>,
}

/// Who waits, in the order of their coming.
#[derive(Debug, Default)]
struct Line {
    /// Places that were called so far; the first one in `waiting` has this number.
    called: u64,
    waiting: VecDeque<Waker>,
    /// The task that ends the turn is there.
    ends: bool,
}

/// A connection's place in the line; none while it does not wait.
#[derive(Debug, Default)]
pub(super) struct Place(Option<u64>);

// === impl Turns ===

impl Turns {
    /// For connections that are served on the runtime behind `spawner`.
    pub(super) fn new(spawner: Spawner) -> Self {
        Self(Arc::new(Shared { spawner, left: AtomicU32::new(TURN), line: Mutex::default() }))
    }

    /// Waits until it is this connection's turn. First come, first served.
    pub(super) fn poll(&self, place: &mut Place, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.0.left.load(Relaxed);
        if let (None, Some(left)) = (place.0, left.checked_sub(1)) {
            self.0.left.store(left, Relaxed);
            return Poll::Ready(());
        }
        self.wait(place, cx)
    }

    #[cold]
    fn wait(&self, place: &mut Place, cx: &mut Context<'_>) -> Poll<()> {
        let mut line = self.0.line();
        match place.0 {
            Some(number) if number < line.called => {
                place.0 = None;
                return Poll::Ready(());
            }
            // Its task is woken for something else; the waker stays the same.
            Some(_) => {}
            None => {
                place.0 = Some(line.called + line.waiting.len() as u64);
                line.waiting.push_back(cx.waker().clone());
            }
        }
        if !line.ends {
            line.ends = true;
            let shared = Arc::clone(&self.0);
            drop(self.0.spawner.spawn(async move {
                loop {
                    // Goes on after the next look at the sockets, behind the tasks that it woke.
                    tokio::task::yield_now().await;
                    if shared.call() {
                        break;
                    }
                }
            }));
        }
        Poll::Pending
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next turn. Whether nobody waits any more.
    fn call(&self) -> bool {
        let mut line = self.line();
        let mut left = TURN;
        while left > 0
            && let Some(next) = line.waiting.pop_front()
        {
            line.called += 1;
            left -= 1;
            next.wake();
        }
        self.left.store(left, Relaxed);
        line.ends = left == 0;
        !line.ends
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::future::join_all;
    use futures_util::task::noop_waker_ref;
    use tokio::task::yield_now;

    use super::*;

    fn asks(turns: &Turns, place: &mut Place) -> bool {
        turns.poll(place, &mut Context::from_waker(noop_waker_ref())).is_ready()
    }

    #[tokio::test]
    async fn first_come_first_served() {
        let turns = Turns::new(Spawner::current());
        let served = Mutex::new(Vec::new());
        let all = 0..TURN * 5 + 3;
        join_all(all.clone().map(async |number| {
            let mut place = Place::default();
            poll_fn(|cx| turns.poll(&mut place, cx)).await;
            served.lock().unwrap().push(number);
        }))
        .await;
        assert_eq!(served.into_inner().unwrap(), all.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_turn_ends_with_a_look_at_the_sockets() {
        let turns = Turns::new(Spawner::current());
        for _ in 0..TURN {
            assert!(asks(&turns, &mut Place::default()));
        }
        let mut places: Vec<_> = (0..=TURN).map(|_| Place::default()).collect();
        for _ in 0..2 {
            assert!(places.iter_mut().all(|place| !asks(&turns, place)), "nobody has looked");
        }
        let mut looks = 0;
        while !asks(&turns, &mut places[0]) {
            looks += 1;
            assert!(looks < 10);
            yield_now().await;
        }
        let waiting: Vec<_> = places[1..].iter_mut().map(|place| !asks(&turns, place)).collect();
        assert_eq!(waiting.iter().filter(|waits| **waits).count(), 1, "the last one is of the next turn");
        assert!(waiting[waiting.len() - 1]);
    }

    #[tokio::test]
    async fn who_has_gone_holds_up_nobody() {
        let turns = Turns::new(Spawner::current());
        while asks(&turns, &mut Place::default()) {}
        for _ in 0..TURN * 3 {
            assert!(!asks(&turns, &mut Place::default()));
        }
        let mut place = Place::default();
        let mut looks = 0;
        while !asks(&turns, &mut place) {
            looks += 1;
            assert!(looks < 20);
            yield_now().await;
        }
        yield_now().await;
        assert!(asks(&turns, &mut Place::default()), "and the line is over");
    }
}
