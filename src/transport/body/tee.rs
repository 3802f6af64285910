//! A request's body that is kept while it passes, so that it can be sent again.
//!
//! Nothing is copied: what is kept are handles on the bytes that pass. Too much of it, and all that was kept is let go.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::room::{Room, Share};
use super::upload::{BodyError, Streaming};

/// Chunks that are kept at most: tiny ones hold more memory than their bytes.
const MAX_CHUNKS: usize = 1024;

/// What is shared by the body that is being sent and whoever may send it again.
#[derive(Debug)]
pub struct Tee(Mutex<Passing>);

#[derive(Debug)]
struct Passing {
    /// `None`: it was taken, and is sent again.
    body: Option<Box<Streaming>>,
    /// `None`: it was too much.
    kept: Option<Kept>,
    /// Bytes that may still be kept.
    room: usize,
    /// Who waits for more of it, to be told when it is taken.
    waits: Option<Waker>,
    /// As it was announced, so that the second framing is the first one's.
    announced: SizeHint,
}

struct Kept {
    /// Where its bytes are counted.
    share: Share,
    chunks: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// The end was seen: the body is not asked once more.
    ended: bool,
}

/// The same body once more: what has passed, then the rest, if there is one.
#[derive(Debug)]
pub struct Again {
    kept: Kept,
    rest: Box<Streaming>,
    announced: SizeHint,
}

// === impl Kept ===

/// What a caller sends may hold anything.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("held", &self.share.held()).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Kept {
    fn new(room: &Arc<Room>) -> Self {
        Self { share: Share::new(room), chunks: VecDeque::new(), trailers: None, ended: false }
    }

    /// Whether there was room for it.
    fn push(&mut self, data: &Bytes) -> bool {
        let fits = self.chunks.len() < MAX_CHUNKS && self.share.grow(data.len());
        if fits {
            self.chunks.push_back(data.clone());
        }
        fits
    }
}

// === impl Tee ===

impl Tee {
    pub(super) fn new(body: Box<Streaming>, limit: usize, shared: &Arc<Room>) -> Arc<Self> {
        let announced = body.size_hint();
        let kept = Some(Kept::new(shared));
        Arc::new(Self(Mutex::new(Passing { body: Some(body), kept, room: limit, waits: None, announced })))
    }

    /// Takes the body back from whoever sends it: it is sent from its beginning once more. Whoever waited for more of it
    /// learns that none will come, or its connection would stay for as long as its peer lets it. `None` where too much has
    /// passed, or it broke off.
    pub fn take(&self) -> Option<Again> {
        let mut passing = self.lock();
        let kept = passing.kept.take()?;
        let rest = passing.body.take().filter(|body| body.fate().error().is_none())?;
        rest.fate().begins_again();
        if let Some(waits) = passing.waits.take() {
            waits.wake();
        }
        Some(Again { kept, rest, announced: passing.announced })
    }

    /// Whether [`Tee::take`] would give something.
    pub fn can_be_taken(&self) -> bool {
        let passing = self.lock();
        passing.kept.is_some() && passing.body.as_ref().is_some_and(|body| body.fate().error().is_none())
    }

    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut passing = self.lock();
        let Some(body) = &mut passing.body else {
            // It is somebody else's now; this connection is given up.
            return Poll::Ready(Some(Err(BodyError::Broken)));
        };
        let polled = body.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => passing.keep(frame),
            Poll::Ready(None) => passing.end(),
            Poll::Ready(Some(Err(_))) => {}
            Poll::Pending => match &mut passing.waits {
                Some(waits) => waits.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            },
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.lock().body.as_ref().is_some_and(|body| body.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.lock().body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint())
    }

    fn lock(&self) -> MutexGuard<'_, Passing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Passing ===

impl Passing {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else { return };
        if let Some(trailers) = frame.trailers_ref() {
            kept.trailers = Some(trailers.clone());
            kept.ended = true;
        } else if let Some(data) = frame.data_ref() {
            if data.len() <= self.room && kept.push(data) {
                self.room -= data.len();
            } else {
                self.kept = None;
            }
        }
    }

    fn end(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.ended = true;
        }
    }
}

// === impl Again ===

impl Again {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.kept.chunks.pop_front() {
            self.rest.fate().advance(self.is_end_stream());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.kept.trailers.take() {
            self.rest.fate().advance(true);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if self.kept.ended {
            self.rest.fate().advance(true);
            return Poll::Ready(None);
        }
        self.rest.poll_frame(cx)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let sent = self.kept.chunks.is_empty() && self.kept.trailers.is_none();
        sent && (self.kept.ended || self.rest.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails without `MAX_CHUNKS`, and where a chunk that is not kept is counted.
    #[test]
    fn no_more_chunks_are_kept_however_small() {
        let room = Arc::new(Room::new(1 << 20));
        let mut kept = Kept::new(&room);
        let small = Bytes::from_static(b"x");
        assert!((0..MAX_CHUNKS).all(|_| kept.push(&small)));
        assert!(!kept.push(&small));
        assert_eq!((kept.chunks.len(), kept.share.held()), (MAX_CHUNKS, MAX_CHUNKS));
    }
}
