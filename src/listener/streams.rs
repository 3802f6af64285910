//! The streams of an HTTP/2 connection, each a task of its own, and the end of one whose caller takes nothing.
//!
//! hyper asks a body for its next frame when the last one has gone. While the window of the stream is closed it asks
//! nothing at all, so that no deadline of the body would ever be looked at: the task is watched from outside. When it is
//! dropped, h2 resets the stream and lets go of what waited on it, and the exchange with the upstream ends with it.
//!
//! A stream that becomes a WebSocket is handed over in two halves: hyper spawns what writes on it, and the request has left
//! what goes on with it ([`Slot`]). They are one task, so that what writes cannot outlive what it writes for.
//!
//! [`Slot`]: crate::listener::sequel::Slot

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::lifecycle::Spawner;
use crate::listener::connection::{Connection, Heard};
use crate::listener::sequel::Sequel;

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

pin_project_lite::pin_project! {
    /// One stream that has become something else.
    struct Turned<F> {
        // `None`: it has written everything, or the stream is no more.
        #[pin]
        writer: Option<F>,
        sequel: Sequel,
    }
}

/// How long the window of a stream may stay closed.
pub fn patience(connection: &Connection) -> Option<Duration> {
    connection.write_stall.map(|limit| limit * STEPS)
}

// === impl Streams ===

impl Streams {
    /// The streams of this connection.
    pub fn new(spawner: Spawner, connection: Arc<Connection>) -> Self {
        let stall = patience(&connection);
        Self { spawner, connection, stall }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        // hyper spawns the writing half while the stream's task gives the answer that leaves a sequel: nothing else is
        // spawned in between.
        if let Some(sequel) = self.connection.sequel.take() {
            drop(self.spawner.spawn(Turned { writer: Some(task), sequel }));
            return;
        }
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
            // A sequel is still there when the caller was gone before the answer: it is no other stream's.
            drop(this.connection.sequel.take());
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

// === impl Turned ===

impl<F: Future> Future for Turned<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        // First: what reads has to be able to ask it whether an end is a reset.
        if this.writer.as_mut().as_pin_mut().is_some_and(|writer| writer.poll(cx).is_ready()) {
            this.writer.set(None);
        }
        this.sequel.0.as_mut().poll(cx)
    }
}
