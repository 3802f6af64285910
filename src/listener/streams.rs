//! The streams of an HTTP/2 connection, each a task of its own, and the end of one whose caller takes nothing.
//!
//! hyper asks a body for its next frame when the last one has gone. While the window of the stream is closed it asks
//! nothing at all, so that no deadline of the body would ever be looked at: the task is watched from outside. When it is
//! dropped, h2 resets the stream and lets go of what waited on it, and the exchange with the upstream ends with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::lifecycle::Spawner;
use crate::listener::connection::{Connection, Heard};

/// How many times `write_stall_timeout` a window may stay closed. A caller opens it in steps, often of half of it, so that
/// a slow one is silent for longer than a socket whose every byte is seen to leave.
const STEPS: u32 = 2;

/// Spawns the streams of one connection.
#[derive(Debug, Clone)]
pub struct Streams {
    spawner: Spawner,
    connection: Arc<Connection>,
    stall: Option<Duration>,
}

pin_project_lite::pin_project! {
    /// One stream.
    struct Stream<F> {
        #[pin]
        task: F,
        connection: Arc<Connection>,
        stall: Option<Duration>,
        // When it ends unless the caller takes something; none while it is not the caller's turn.
        end: Option<Instant>,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

// === impl Streams ===

impl Streams {
    /// The streams of this connection. `write_stall`: how long a caller may take nothing, if that has a limit.
    pub fn new(spawner: Spawner, connection: Arc<Connection>, write_stall: Option<Duration>) -> Self {
        Self { spawner, connection, stall: write_stall.map(|limit| limit * STEPS) }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        let connection = Arc::clone(&self.connection);
        drop(self.spawner.spawn(Stream { task, connection, stall: self.stall, end: None, timer: None }));
    }
}

// === impl Stream ===

impl<F: Future> Future for Stream<F> {
    /// `None`: it was given up.
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.project();
        // What another stream has said is not about this one.
        let _ = this.connection.heard();
        if let Poll::Ready(output) = this.task.poll(cx) {
            return Poll::Ready(Some(output));
        }
        match this.connection.heard() {
            // What it gave last has not gone yet, or it was not its turn before either.
            Heard::Nothing => {}
            Heard::Waits => *this.end = None,
            Heard::Gave(whole) => {
                let stalled = this.stall.map(|limit| Instant::now() + limit);
                *this.end = [stalled, whole].into_iter().flatten().min();
            }
        }
        let Some(end) = *this.end else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(cx).map(|()| None)
    }
}
