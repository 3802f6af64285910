//! Carries log lines to a writer that may block, without blocking whoever logs.
//!
//! A line is copied into one buffer; a thread of its own swaps the buffer for an empty one and writes it with one call,
//! so a burst of lines costs few system calls. The buffer is bounded: what does not fit is dropped, counted, and told
//! in a line of its own once there is room. Nothing is dropped while the writer keeps up, and what is in the buffer at
//! the end is written before [`Flush`] is gone, unless the writer takes nothing for [`PATIENCE`].

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait for the writer, at most.
const BUFFERED: usize = 1024 * 1024;

/// Bytes of a buffer that are kept for the next lines.
const KEPT: usize = 64 * 1024;

/// How long the end of the process waits for a writer that makes no progress.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// After this long a writer that would block is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// Takes lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sink(Arc<Shared>);

/// One line on its way.
#[derive(Debug)]
pub struct Line<'a>(&'a Shared);

/// Waits, when dropped, until everything is written.
#[derive(Debug)]
pub struct Flush(Arc<Shared>);

/// How many lines were dropped.
#[derive(Debug, Clone)]
pub struct Dropped(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or an end.
    wake: Condvar,
    /// Something was written.
    progress: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    closed: bool,
    /// Times that the writer took something.
    steps: u64,
    finished: bool,
}

// === impl Sink ===

impl Sink {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(writer: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        thread::Builder::new().name("mintgate-log".to_owned()).spawn(move || own.run(writer))?;
        Ok((Self(Arc::clone(&shared)), Flush(shared)))
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

// === impl Line ===

impl Write for Line<'_> {
    /// Takes all or nothing: `tracing-subscriber` hands over whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Flush, Dropped ===

impl Flush {
    /// A handle on the count of dropped lines, which outlives this.
    pub fn counter(&self) -> Dropped {
        Dropped(Arc::clone(&self.0))
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        self.0.wake.notify_one();
        while !state.finished {
            let before = state.steps;
            let waited = self.0.progress.wait_timeout(state, PATIENCE);
            let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() && state.steps == before {
                return;
            }
        }
    }
}

impl Dropped {
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.finished || state.waiting.len() + line.len() > BUFFERED {
            drop(state);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
    }

    fn run(&self, mut writer: impl Write) {
        let mut told = 0;
        let mut buffer = Vec::new();
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && !state.closed {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut state.waiting, &mut buffer);
            if buffer.is_empty() {
                state.finished = true;
                drop(state);
                self.progress.notify_all();
                return;
            }
            drop(state);
            let written = self.write(&mut writer, &buffer);
            buffer.clear();
            buffer.shrink_to(KEPT);
            let dropped = self.dropped.load(Relaxed);
            if written && dropped > told {
                // There is room again: this line goes through the buffer like any other. Not after a failure, which
                // would lose this line too and tell of it for ever.
                tracing::warn!(lines = dropped - told, "log lines were dropped: standard error took no more");
                told = dropped;
            }
        }
    }

    /// Writes all of it, as far as the writer lives. Whoever logs cannot be told of a failure, and there is no other
    /// place to write it to; the lines count as dropped.
    #[expect(clippy::disallowed_methods, reason = "sleeps on the writer's own thread")]
    fn write(&self, writer: &mut impl Write, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match writer.write(bytes) {
                Ok(taken @ 1..) => {
                    bytes = &bytes[taken.min(bytes.len())..];
                    self.lock().steps += 1;
                    self.progress.notify_all();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Standard error may share its file description with a terminal that another program made
                    // non-blocking.
                    thread::sleep(AGAIN);
                }
                Ok(0) | Err(_) => {
                    let lines = bytes.split_inclusive(|&byte| byte == b'\n').count();
                    self.dropped.fetch_add(lines as u64, Relaxed);
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, mpsc};

    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    /// Writes go through only as far as they are let: each permit is one call, and without a sender every call fails.
    /// What the sink logs itself goes through the sink, as in a process.
    struct Gated {
        permits: mpsc::Receiver<()>,
        written: mpsc::Sender<Option<Vec<u8>>>,
        sink: Arc<OnceLock<Sink>>,
        installed: bool,
    }

    struct Test {
        sink: Sink,
        flush: Flush,
        permit: mpsc::Sender<()>,
        written: mpsc::Receiver<Option<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !std::mem::replace(&mut self.installed, true) {
                let sink = self.sink.wait().clone();
                let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(sink).finish();
                std::mem::forget(tracing::subscriber::set_default(lines));
            }
            let permit = self.permits.recv();
            self.written.send(permit.map(|()| bytes.to_vec()).ok()).map_err(io::Error::other)?;
            permit.map_err(io::Error::other).map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn test() -> Test {
        let (permit, permits) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let cell = Arc::new(OnceLock::new());
        let writer = Gated { permits, written: sender, sink: Arc::clone(&cell), installed: false };
        let (sink, flush) = Sink::start(writer).unwrap();
        cell.set(sink.clone()).unwrap();
        Test { sink, flush, permit, written }
    }

    fn log(sink: &Sink, line: &[u8]) {
        sink.make_writer().write_all(line).unwrap();
    }

    fn text(written: &mpsc::Receiver<Option<Vec<u8>>>) -> String {
        String::from_utf8(written.try_iter().flatten().flatten().collect()).unwrap()
    }

    #[test]
    fn every_line_is_written_before_the_end() {
        let Test { sink, flush, permit, written } = test();
        let lines: Vec<String> = (0..100).map(|index| format!("{index}\n")).collect();
        for line in &lines {
            log(&sink, line.as_bytes());
            permit.send(()).unwrap();
        }
        let dropped = flush.counter();
        drop(flush);
        let expected = lines.concat();
        assert_eq!((text(&written), dropped.get()), (expected, 0));
    }

    #[test]
    fn a_writer_that_hangs_stops_nobody_and_the_loss_is_told() {
        let Test { sink, flush, permit, written } = test();
        let line = [vec![b'x'; 64 * 1024 - 1], vec![b'\n']].concat();
        // At most one buffer is at the writer and one waits.
        for _ in 0..64 {
            log(&sink, &line);
        }
        let lost = flush.counter().get();
        assert!((32..=48).contains(&lost), "{lost}");
        for _ in 0..64 {
            permit.send(()).unwrap();
        }
        drop(flush);
        let text = text(&written);
        assert_eq!(text.matches("x\n").count() as u64 + lost, 64);
        assert!(text.lines().last().unwrap().contains("log lines were dropped"), "{:?}", text.lines().last());
    }

    #[test]
    fn a_writer_that_fails_is_not_told_of_it_for_ever() {
        let Test { sink, flush, permit, written } = test();
        drop(permit);
        log(&sink, b"a\nb\n");
        let dropped = flush.counter();
        drop(flush);
        assert_eq!((written.try_iter().count(), dropped.get()), (1, 2));
        log(&sink, b"late\n");
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn a_writer_that_would_block_is_tried_again() {
        struct Twice(u8, mpsc::Sender<Vec<u8>>);
        impl Write for Twice {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 == 1 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let part = &bytes[..bytes.len().min(2)];
                self.1.send(part.to_vec()).map_err(io::Error::other)?;
                Ok(part.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, seen) = mpsc::channel();
        let (sink, flush) = Sink::start(Twice(0, written)).unwrap();
        log(&sink, b"hello\n");
        drop(flush);
        assert_eq!(seen.try_iter().flatten().collect::<Vec<u8>>(), b"hello\n");
    }
}
