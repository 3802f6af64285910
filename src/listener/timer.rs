//! The one timer of a downstream connection.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// A timer that is armed for the earliest deadline in sight and moved only when it fires too early: a deadline that
/// keeps moving on, as on a busy connection, costs a comparison.
///
/// Invariant: polled by one task only (the connection's), so a waker registered once stays right.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

// === impl Timer ===

impl Timer {
    /// Waits for a deadline.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if sleep.deadline() > deadline {
                    sleep.as_mut().reset(deadline);
                } else if !sleep.is_elapsed() {
                    // Armed for this deadline or an earlier one, with this task's waker.
                    return Poll::Pending;
                } else {
                    if Instant::now() >= deadline {
                        return Poll::Ready(());
                    }
                    sleep.as_mut().reset(deadline);
                }
                sleep
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(deadline))),
        };
        // Whatever budget the task has left: a timer that was not armed now would be taken for armed ever after.
        pin!(tokio::task::unconstrained(sleep.as_mut())).poll(cx)
    }
}
