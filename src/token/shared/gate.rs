//! Keeps a store that fails off the requests' path: every call has little time, and one that is down is not asked at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::store::{Store, StoreError};
use crate::lifecycle::Spawner;
use crate::metrics::{Common, SharedOperation as Operation, SharedResult as Outcome};
use crate::token::spent::Spent;

/// Between two looks whether a store that was down is back; it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// A store, and whether it is of use.
///
/// A call that takes the whole time limit, a lost connection and a store that is of no use to anybody mark it down. Then
/// it costs nobody anything: calls fail at once, until a look in the background finds it back.
#[derive(Debug)]
pub struct Gate<S> {
    /// Not behind the gate.
    pub store: S,
    timeout: Duration,
    down: AtomicBool,
    tasks: Spawner,
    counts: Arc<Common>,
}

/// What the store may still cost one mint: each call spends of it.
#[derive(Debug, Clone)]
pub struct Allowance {
    whole: Duration,
    spent: Spent,
}

/// The store did not do it, in time or at all. That was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped;

// === impl Allowance ===

impl Allowance {
    fn left(&self) -> Duration {
        self.whole.saturating_sub(self.spent.get())
    }
}

// === impl Gate ===

impl<S: Store> Gate<S> {
    /// Taken to be up until a call says otherwise: the first one waits for the connection.
    pub fn new(store: S, timeout: Duration, tasks: Spawner, counts: Arc<Common>) -> Arc<Self> {
        counts.shared_up.set(1);
        Arc::new(Self { store, timeout, down: AtomicBool::new(false), tasks, counts })
    }

    /// Looks at once whether it is there, in the background.
    pub fn warm(self: &Arc<Self>) {
        let gate = Arc::clone(self);
        drop(self.tasks.spawn(async move {
            match timeout(gate.patience(), gate.store.ping()).await {
                Ok(Ok(())) => tracing::info!("the shared cache is there"),
                Ok(Err(error)) => gate.fell(Some(&error)),
                Err(_) => gate.fell(None),
            }
        }));
    }

    /// More time than a request has: a connection is made.
    fn patience(&self) -> Duration {
        self.timeout.max(LONGEST_LOOK)
    }

    /// A whole allowance.
    pub fn allowance(&self) -> Allowance {
        self.allowance_of(&Spent::default())
    }

    /// What is left to a mint.
    pub fn allowance_of(&self, spent: &Spent) -> Allowance {
        Allowance { whole: self.timeout, spent: spent.clone() }
    }

    /// Whether it is not asked just now.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Makes a call within what is left of the allowance.
    ///
    /// # Errors
    /// When the store is down, does not answer in time, or refuses.
    pub async fn call<T>(
        self: &Arc<Self>,
        operation: Operation,
        allowance: &Allowance,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Skipped> {
        let counted = |outcome| {
            self.counts.shared_operations(operation, outcome).add();
            Skipped
        };
        let left = allowance.left();
        if self.is_down() || left.is_zero() {
            return Err(counted(Outcome::Skipped));
        }
        let begun = Instant::now();
        let answer = timeout(left, call).await;
        allowance.spent.add(begun.elapsed());
        match answer {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                let outcome = match &error {
                    StoreError::Lost(_) => Outcome::Lost,
                    StoreError::Unusable(_) => Outcome::Unusable,
                    StoreError::Refused(_) => Outcome::Refused,
                    StoreError::Unreadable => Outcome::Unreadable,
                };
                match &error {
                    StoreError::Lost(_) | StoreError::Unusable(_) => self.fell(Some(&error)),
                    StoreError::Refused(_) | StoreError::Unreadable => {
                        let error: &dyn std::error::Error = &error;
                        tracing::debug!(error, operation = operation.as_str(), "the shared cache refused");
                    }
                }
                Err(counted(outcome))
            }
            Err(_) => {
                // Who had less time than that knows only that it was slow.
                if left >= self.timeout {
                    self.fell(None);
                }
                Err(counted(Outcome::Timeout))
            }
        }
    }

    /// Counts what came of a call that was answered.
    pub fn count(&self, operation: Operation, outcome: Outcome) {
        self.counts.shared_operations(operation, outcome).add();
    }

    /// It is down from now on, and looked for.
    fn fell(self: &Arc<Self>, error: Option<&StoreError>) {
        if self.down.swap(true, Ordering::AcqRel) {
            return;
        }
        self.counts.shared_up.set(0);
        if let Some(error) = error {
            let error: &dyn std::error::Error = error;
            tracing::warn!(error, "the shared cache is down: going on without it");
        } else {
            tracing::warn!("the shared cache does not answer in time: going on without it");
        }
        drop(self.tasks.spawn(look(Arc::downgrade(self))));
    }

    fn rose(&self) {
        self.down.store(false, Ordering::Release);
        self.counts.shared_up.set(1);
        tracing::info!("the shared cache is back");
    }
}

/// Looks whether it is back, for as long as somebody uses it.
async fn look<S: Store>(gate: Weak<Gate<S>>) {
    let mut pause = FIRST_LOOK;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_LOOK);
        let Some(gate) = gate.upgrade() else { return };
        if let Ok(Ok(())) = timeout(gate.patience(), gate.store.ping()).await {
            gate.rose();
            return;
        }
    }
}
