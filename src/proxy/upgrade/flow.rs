//! One direction of a tunnel.
//!
//! Bytes are read into the stack and written on at once; only what the other side does not take is kept, and nothing
//! more is read until it is gone. So a direction in which nothing happens holds no buffer.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::first::{First, Status};
use super::frames::Frames;

/// Bytes of one read.
const CHUNK: usize = 16 * 1024;

/// What one end says to the other.
#[derive(Debug, Default)]
pub struct Flow {
    /// Where in the frames that is which was written, or thrown away.
    frames: Frames,
    /// Read and not yet written, from `at` on.
    held: Vec<u8>,
    at: usize,
    stage: Stage,
    /// The reading end has no more to say.
    ended: bool,
    unflushed: bool,
    passed: u64,
    failure: Option<Failure>,
    /// See [`Flow::heard_out`].
    hears_out: bool,
    /// See [`Flow::hold`]; `None`: nothing is held back, or not any more.
    first: Option<Box<First>>,
}

/// Which end broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The one that is read.
    Source,
    /// The one that is written to.
    Sink,
}

#[derive(Debug, Default)]
enum Stage {
    /// Bytes pass.
    #[default]
    Open,
    /// They pass up to the end of the frame under way. Then this frame is said; `None`: there is nothing to say.
    Parting(Option<Vec<u8>>),
    /// It is being said, from that byte on.
    Saying(Vec<u8>, usize),
    /// It cannot be said: the end is all that can be told.
    Cutting,
    /// It has been said. Nothing passes; the answer to what was said the other way is waited for.
    Said,
    /// Nothing more happens.
    Over,
}

// === impl Flow ===

impl Flow {
    /// A flow whose reading end is heard out when the other one has broken: what it still says is read and thrown away.
    /// To let go of a socket with something unread resets it, and takes with it what is on its way to that end.
    pub fn heard_out() -> Self {
        Self { hears_out: true, ..Self::default() }
    }

    /// Holds the first message back: when it is whole nothing more is read until [`Flow::pass`] says what is passed on in
    /// its place.
    pub fn hold(&mut self, first: First) {
        self.first = Some(Box::new(first));
    }

    /// How far the message is that is held back; `None`: none is. A caller that has ended has said its farewell.
    pub fn first(&self) -> Option<Status> {
        let status = self.first.as_ref()?.status();
        Some(if self.ended && status == Status::Awaited { Status::Closed } else { status })
    }

    /// Takes out the message that is whole.
    pub fn take_message(&mut self) -> Option<String> {
        self.first.as_mut().filter(|first| first.status() == Status::Whole).map(|first| first.take_message())
    }

    /// Passes on this frame in the place of the first message, and then whatever comes.
    pub fn pass(&mut self, message: &[u8]) {
        if let Some(first) = self.first.take() {
            self.held.extend(first.pass(message));
        }
    }

    /// Bytes that were passed on.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Which end broke, if one did.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Whether the writing end has been told all that it will be.
    pub fn has_said(&self) -> bool {
        matches!(self.stage, Stage::Said | Stage::Over)
    }

    /// Whether the reading end has said its last: a close frame, or the end.
    pub fn has_heard(&self) -> bool {
        self.frames.is_closed() || self.ended || matches!(self.stage, Stage::Over)
    }

    /// Whether the reading end has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Stops at the end of the frame under way and says `close` then; without one the writing end is cut off there.
    pub fn part(&mut self, close: Option<Vec<u8>>) {
        if matches!(self.stage, Stage::Open) {
            self.stage = Stage::Parting(close);
        }
    }

    /// Passes on what there is. Ready when there will be nothing more to do.
    pub fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match &mut self.stage {
                Stage::Parting(_) if self.frames.at_border() || self.frames.is_lost() => self.stop(),
                Stage::Open | Stage::Parting(_) => ready!(self.poll_pass(cx, from, to)),
                Stage::Saying(frame, at) if *at == frame.len() => match ready!(Pin::new(&mut *to).poll_flush(cx)) {
                    Ok(()) => self.stage = Stage::Said,
                    Err(_) => self.fail(Failure::Sink),
                },
                Stage::Saying(frame, at) => match Pin::new(&mut *to).poll_write(cx, &frame[*at..]) {
                    Poll::Ready(Ok(written)) if written > 0 => *at += written,
                    Poll::Ready(_) => self.fail(Failure::Sink),
                    Poll::Pending => {
                        // The answer may come all the same.
                        let _ = self.poll_listen(cx, from);
                        return Poll::Pending;
                    }
                },
                Stage::Cutting => {
                    // Whoever cannot be told anything need not take this either.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.stage = Stage::Said;
                }
                Stage::Said => return self.poll_listen(cx, from),
                Stage::Over => return Poll::Ready(()),
            }
        }
    }

    /// At a border, or where none will come.
    fn stop(&mut self) {
        let Stage::Parting(close) = std::mem::take(&mut self.stage) else { return };
        self.stage = match close {
            _ if self.frames.is_lost() => Stage::Cutting,
            // The reading end has said its own farewell, and nothing may follow it (RFC 6455 section 5.5.1).
            _ if self.frames.is_closed() => Stage::Said,
            Some(frame) => Stage::Saying(frame, 0),
            None => Stage::Cutting,
        };
        let held = std::mem::take(&mut self.held);
        match self.first.take() {
            // What was written is a part of what was read.
            Some(first) => self.frames = first.frames(),
            None => self.frames.advance(&held[self.at..]),
        }
        self.at = 0;
    }

    /// One step of passing on.
    fn poll_pass<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.at < self.held.len() {
            let held = std::mem::take(&mut self.held);
            let written = self.poll_write(cx, to, &held[self.at..]);
            self.held = held;
            self.at += ready!(written);
            if self.at == self.held.len() {
                (self.held, self.at) = (Vec::new(), 0);
            }
            return Poll::Ready(());
        }
        if self.ended {
            if ready!(Pin::new(&mut *to).poll_shutdown(cx)).is_err() {
                self.fail(Failure::Sink);
            }
            self.stage = Stage::Over;
            return Poll::Ready(());
        }
        if self.first.as_ref().is_some_and(|first| matches!(first.status(), Status::Whole | Status::Wrong(_))) {
            // Whoever has asked for the message goes on from here.
            return Poll::Pending;
        }
        let mut scratch = [MaybeUninit::<u8>::uninit(); CHUNK];
        let mut read = ReadBuf::uninit(&mut scratch);
        match Pin::new(&mut *from).poll_read(cx, &mut read) {
            Poll::Pending => {
                if std::mem::take(&mut self.unflushed) {
                    match Pin::new(&mut *to).poll_flush(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => {
                            self.fail(Failure::Sink);
                            return Poll::Ready(());
                        }
                        Poll::Pending => self.unflushed = true,
                    }
                }
                return Poll::Pending;
            }
            Poll::Ready(Err(_)) => self.end(Some(Failure::Source)),
            Poll::Ready(Ok(())) if read.filled().is_empty() => self.end(None),
            Poll::Ready(Ok(())) => {
                let bytes = read.filled();
                if let Some(first) = &mut self.first {
                    first.read(bytes);
                    self.held = first.take_control();
                    return Poll::Ready(());
                }
                let written = match self.poll_write(cx, to, bytes) {
                    Poll::Ready(written) => written,
                    Poll::Pending => 0,
                };
                if self.failure != Some(Failure::Sink) {
                    self.held.extend_from_slice(&bytes[written..]);
                }
            }
        }
        Poll::Ready(())
    }

    /// Writes some of the bytes, while parting none beyond the border. A failure ends everything.
    fn poll_write<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W, all: &[u8]) -> Poll<usize> {
        let bytes = match self.stage {
            Stage::Parting(_) => &all[..self.frames.until_border(all)],
            _ => all,
        };
        match ready!(Pin::new(to).poll_write(cx, bytes)) {
            Ok(written) if written > 0 => {
                self.frames.advance(&bytes[..written]);
                self.passed += written as u64;
                self.unflushed = true;
                Poll::Ready(written)
            }
            _ => {
                self.frames.advance(all);
                self.fail(Failure::Sink);
                Poll::Ready(all.len())
            }
        }
    }

    /// Reads and passes nothing on, until the reading end has said its last.
    fn poll_listen<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, from: &mut R) -> Poll<()> {
        while !self.has_heard() {
            let mut scratch = [MaybeUninit::<u8>::uninit(); CHUNK];
            let mut read = ReadBuf::uninit(&mut scratch);
            match ready!(Pin::new(&mut *from).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => self.frames.advance(read.filled()),
                Ok(()) => self.end(None),
                Err(_) => self.end(Some(Failure::Source)),
            }
        }
        Poll::Ready(())
    }

    fn end(&mut self, failure: Option<Failure>) {
        self.ended = true;
        self.failure = self.failure.or(failure);
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = self.failure.or(Some(failure));
        self.stage = if self.hears_out { Stage::Said } else { Stage::Over };
        (self.held, self.at) = (Vec::new(), 0);
    }
}
