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
    /// The end is near: still serving, not ready any more.
    announced: Arc<AtomicBool>,
}

/// What the probes tell. Every fact is latched: once true it never turns false, and least of all because of the
/// issuer, since live tokens and known keys go on serving. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    facts: Arc<Facts>,
    shutdown: Shutdown,
}

#[derive(Debug)]
struct Facts {
    listening: AtomicBool,
    key_known: AtomicBool,
    others_heard: AtomicBool,
}

/// What has to be there before requests are welcome, beside the listeners.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// Some route verifies sessions with keys that must be fetched first.
    pub key: bool,
    /// Other replicas may have revoked somebody while this one was away.
    pub others: bool,
}

/// Why the process should get no traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The listeners are not bound yet.
    #[error("starting: the listeners are not bound yet")]
    Starting,
    /// A route needs a session and no verification key has been fetched yet.
    #[error("waiting for the issuer's verification keys")]
    NoKey,
    /// It is not known yet whom other replicas refuse.
    #[error("waiting for what other gateways have revoked")]
    NotHeard,
    /// A drain has begun.
    #[error("draining")]
    Draining,
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
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        Self { drain, stop, draining: Arc::default(), announced: Arc::default() }
    }

    /// Says that a drain will come: probes turn to "not ready", everything is served as before.
    pub fn announce(&self) {
        self.announced.store(true, Ordering::Release);
    }

    /// Whether a drain has begun or will come.
    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire) || self.is_draining()
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

// === impl Readiness ===

impl Readiness {
    /// Nothing is bound, and nothing of what is needed is there.
    pub fn new(shutdown: Shutdown, needs: Needs) -> Self {
        let facts = Facts {
            listening: AtomicBool::new(false),
            key_known: AtomicBool::new(!needs.key),
            others_heard: AtomicBool::new(!needs.others),
        };
        Self { facts: Arc::new(facts), shutdown }
    }

    /// Every listener is bound.
    pub fn set_listening(&self) {
        self.facts.listening.store(true, Ordering::Release);
    }

    /// A verification key is known.
    pub fn set_key_known(&self) {
        self.facts.key_known.store(true, Ordering::Release);
    }

    /// It is known whom other replicas refuse, or that nobody tells.
    pub fn set_others_heard(&self) {
        self.facts.others_heard.store(true, Ordering::Release);
    }

    /// Whether the listeners are bound.
    ///
    /// # Errors
    /// [`NotReady::Starting`] alone.
    pub fn started(&self) -> Result<(), NotReady> {
        if self.facts.listening.load(Ordering::Acquire) { Ok(()) } else { Err(NotReady::Starting) }
    }

    /// Whether requests should be sent here.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        if self.shutdown.is_announced() {
            return Err(NotReady::Draining);
        }
        self.started()?;
        let facts = [(&self.facts.key_known, NotReady::NoKey), (&self.facts.others_heard, NotReady::NotHeard)];
        let missing = facts.into_iter().find(|(fact, _)| !fact.load(Ordering::Acquire));
        missing.map_or(Ok(()), |(_, why)| Err(why))
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

    /// Spawns on the same runtime, and counts its tasks apart: who waits for one does not wait for the other.
    pub fn sibling(&self) -> Self {
        Self::new(self.handle.clone())
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

    #[test]
    fn ready_means_bound_with_a_key_and_not_draining() {
        let shutdown = Shutdown::new();
        let readiness = Readiness::new(shutdown.clone(), Needs { key: true, others: false });
        readiness.set_key_known();
        assert_eq!((readiness.started(), readiness.ready()), (Err(NotReady::Starting), Err(NotReady::Starting)));
        readiness.set_listening();
        assert_eq!((readiness.started(), readiness.ready()), (Ok(()), Ok(())));
        shutdown.drain();
        assert_eq!((readiness.started(), readiness.ready()), (Ok(()), Err(NotReady::Draining)));
    }

    #[test]
    fn what_is_needed_is_waited_for_and_nothing_else() {
        for (key, others) in [(false, false), (true, false), (false, true), (true, true)] {
            let readiness = Readiness::new(Shutdown::new(), Needs { key, others });
            readiness.set_listening();
            if key {
                assert_eq!(readiness.ready(), Err(NotReady::NoKey));
                readiness.set_key_known();
            }
            if others {
                assert_eq!(readiness.ready(), Err(NotReady::NotHeard));
                readiness.set_others_heard();
            }
            assert_eq!(readiness.ready(), Ok(()));
        }
    }
}
