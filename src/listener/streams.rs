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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

    use hyper::rt::Executor as _;

    use super::*;
    use crate::address::{BoundAddress, PeerAddress};
    use crate::config::Limits;
    use crate::listener::connection::Ends;
    use crate::metrics::ListenerId;

    fn connection() -> Arc<Connection> {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let ends =
            Ends { peer: PeerAddress::Tcp(address), local: BoundAddress::Tcp(address), listener: ListenerId::new(0) };
        let limits = Limits {
            max_connections: 1,
            max_header_bytes: 8192,
            max_uri_bytes: 8192,
            first_byte: None,
            header_read: None,
            idle: None,
            body_progress: None,
            write_stall: None,
            request_body: None,
            max_age: None,
        };
        Arc::new(Connection::new(ends, None, &limits))
    }

    /// Adds to a count when it is dropped.
    struct Drops(Arc<AtomicU8>);

    impl Drop for Drops {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A caller may be gone before the answer that opens its stream: hyper spawns no writing half then. Fails where the
    /// end of a stream leaves the sequel where it is: the next stream would be taken for its writing half.
    #[tokio::test]
    async fn a_sequel_is_its_own_streams_alone() {
        let (connection, spawner) = (connection(), Spawner::current());
        let streams = Streams::new(spawner.clone(), Arc::clone(&connection));
        let (lost, ran) = (Arc::<AtomicU8>::default(), Arc::<AtomicU8>::default());
        let (on, guard) = (Arc::clone(&connection), Drops(Arc::clone(&lost)));
        streams.execute(async move {
            on.sequel.leave(async move {
                std::future::pending::<()>().await;
                drop(guard);
            });
        });
        spawner.idle().await;
        assert_eq!(lost.load(SeqCst), 1);
        let count = Arc::clone(&ran);
        streams.execute(async move {
            count.fetch_add(1, SeqCst);
        });
        tokio::time::timeout(Duration::from_mins(1), spawner.idle()).await.unwrap();
        assert_eq!(ran.load(SeqCst), 1);
    }

    /// Fails where both halves are tasks of their own.
    #[tokio::test]
    async fn what_writes_ends_with_what_it_writes_for() {
        let (connection, spawner) = (connection(), Spawner::current());
        let streams = Streams::new(spawner.clone(), Arc::clone(&connection));
        let (lost, done) = (Arc::<AtomicU8>::default(), Arc::<AtomicU8>::default());
        let (guard, count) = (Drops(Arc::clone(&lost)), Arc::clone(&done));
        connection.sequel.leave(async move {
            tokio::task::yield_now().await;
            count.fetch_add(1, SeqCst);
        });
        streams.execute(async move {
            std::future::pending::<()>().await;
            drop(guard);
        });
        tokio::time::timeout(Duration::from_mins(1), spawner.idle()).await.unwrap();
        assert_eq!((done.load(SeqCst), lost.load(SeqCst)), (1, 1));
    }
}
