//! Asks a socket that had nothing to read again only when it has woken its task.
//!
//! hyper looks for more bytes at several points of every step of a connection, nearly always in vain, and each look takes
//! a lock of the runtime's. A socket that was found empty is known to be empty until the runtime wakes whoever asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What is known of one socket's having nothing to read.
///
/// Invariant: while it is `empty`, the runtime holds a waker that rings `bell`, and the bell wakes `task`.
#[derive(Debug)]
pub struct Quiet {
    bell: Arc<Bell>,
    waker: Waker,
    /// The last task that asked.
    task: Option<Waker>,
    empty: bool,
}

#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

// === impl Quiet ===

impl Default for Quiet {
    fn default() -> Self {
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        Self { bell, waker, task: None, empty: false }
    }
}

impl Quiet {
    /// Reads with `read`, which must register the waker of its context when it is pending, as [`std::future::Future`]
    /// has it; pending at once when that would be its answer again.
    pub fn poll<T>(&mut self, cx: &Context<'_>, read: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let same = self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        if self.empty && same && !self.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if !same {
            *self.bell.task() = Some(cx.waker().clone());
            self.task = Some(cx.waker().clone());
        }
        // Before the read: whatever arrives from now on is read, or rings.
        self.bell.rung.store(false, Ordering::Relaxed);
        let polled = read(&mut Context::from_waker(&self.waker));
        self.empty = polled.is_pending();
        polled
    }
}

// === impl Bell ===

impl Bell {
    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        if let Some(task) = &*self.task() {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn waker() -> (Arc<Self>, Waker) {
            let task = Arc::<Self>::default();
            (Arc::clone(&task), Waker::from(task))
        }

        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A socket: what it holds, whom it wakes, how often it was asked.
    #[derive(Default)]
    struct Socket {
        bytes: usize,
        waker: Option<Waker>,
        asked: usize,
    }

    impl Socket {
        fn read(&mut self, cx: &Context<'_>) -> Poll<usize> {
            self.asked += 1;
            if self.bytes == 0 {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(std::mem::take(&mut self.bytes))
        }

        fn arrive(&mut self, bytes: usize) {
            self.bytes += bytes;
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    #[test]
    fn an_empty_socket_is_asked_once_until_it_wakes_its_task() {
        let (mut quiet, mut socket) = (Quiet::default(), Socket::default());
        let (task, waker) = Task::waker();
        let cx = Context::from_waker(&waker);
        for round in 1..4 {
            for _ in 0..5 {
                assert!(quiet.poll(&cx, |cx| socket.read(cx)).is_pending());
            }
            assert_eq!((socket.asked, task.woken()), (2 * round - 1, round - 1));
            socket.arrive(7);
            assert_eq!(task.woken(), round);
            assert_eq!(quiet.poll(&cx, |cx| socket.read(cx)), Poll::Ready(7));
        }
    }

    #[test]
    fn another_task_that_asks_is_the_one_that_is_woken() {
        let (mut quiet, mut socket) = (Quiet::default(), Socket::default());
        let ((first, one), (second, two)) = (Task::waker(), Task::waker());
        assert!(quiet.poll(&Context::from_waker(&one), |cx| socket.read(cx)).is_pending());
        assert!(quiet.poll(&Context::from_waker(&two), |cx| socket.read(cx)).is_pending());
        assert_eq!(socket.asked, 2, "the waker that the socket has could be the first one's");
        socket.arrive(1);
        assert_eq!((first.woken(), second.woken()), (0, 1));
    }

    #[test]
    fn what_arrives_during_the_read_is_not_missed() {
        let (mut quiet, mut socket) = (Quiet::default(), Socket::default());
        let (task, waker) = Task::waker();
        let cx = Context::from_waker(&waker);
        let read = quiet.poll(&cx, |cx| {
            let read = socket.read(cx);
            socket.arrive(3);
            read
        });
        assert!(read.is_pending());
        assert_eq!(task.woken(), 1);
        assert_eq!(quiet.poll(&cx, |cx| socket.read(cx)), Poll::Ready(3));
    }

    #[test]
    fn after_bytes_the_next_read_asks() {
        let (mut quiet, mut socket) = (Quiet::default(), Socket { bytes: 2, ..Socket::default() });
        let (_task, waker) = Task::waker();
        let cx = Context::from_waker(&waker);
        assert_eq!(quiet.poll(&cx, |cx| socket.read(cx)), Poll::Ready(2));
        socket.bytes = 4;
        assert_eq!(quiet.poll(&cx, |cx| socket.read(cx)), Poll::Ready(4));
    }
}
