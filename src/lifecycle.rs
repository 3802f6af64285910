//! The life of the process: tracked tasks, and the two steps in which it ends.
//!
//! *Drain* asks everything to finish what is under way; *stop* ends what is left when the drain's time is over. Tasks
//! are spawned through a [`Spawner`] alone, so that a test puts everything on one paused runtime and a drain waits for
//! what it should wait for.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// The two steps of the end, heard by everything that lives on one runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
    /// The same fact as `drain`, for a look without a lock on each poll of a connection.
    draining: Arc<AtomicBool>,
}

/// Spawns tasks on one runtime and knows how many are left. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spawner {
    handle: Handle,
    tracker: TaskTracker,
}

// === impl Shutdown ===

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Nothing has been asked to end.
    pub fn new() -> Self {
        Self { drain: CancellationToken::new(), stop: CancellationToken::new(), draining: Arc::default() }
    }

    /// Asks everything to finish what is under way and to begin nothing.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.cancel();
    }

    /// Ends what is left, at once.
    pub fn stop(&self) {
        self.drain();
        self.stop.cancel();
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Resolves when a drain begins.
    pub fn draining(&self) -> WaitForCancellationFutureOwned {
        self.drain.clone().cancelled_owned()
    }

    /// Resolves when everything must end.
    pub fn stopped(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }
}

// === impl Spawner ===

impl Spawner {
    /// Spawns on the runtime behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle, tracker: TaskTracker::new() }
    }

    /// Spawns on the runtime that calls this.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn current() -> Self {
        Self::new(Handle::current())
    }

    /// Starts the task; [`Spawner::idle`] waits for it.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.handle.spawn(self.tracker.track_future(task))
    }

    /// How many tasks are alive.
    pub fn alive(&self) -> usize {
        self.tracker.len()
    }

    /// Resolves when every task has ended. Tasks may still be spawned afterwards.
    pub async fn idle(&self) {
        self.tracker.close();
        self.tracker.wait().await;
        self.tracker.reopen();
    }
}

/// hyper's HTTP/2 spawns its streams through this.
impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        drop(self.spawn(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_heard_and_waits_for_tasks() {
        let (shutdown, tasks) = (Shutdown::new(), Spawner::current());
        drop(tasks.spawn(shutdown.draining()));
        assert_eq!(tasks.alive(), 1);
        assert!(!shutdown.is_draining());
        shutdown.drain();
        tasks.idle().await;
        assert!(shutdown.is_draining() && tasks.alive() == 0);
    }
}
