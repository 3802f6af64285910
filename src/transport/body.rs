//! The two bodies that pass through: a request's on its way up, an answer's on its way down.

pub mod ahead;
pub mod room;
pub mod tee;
pub mod upload;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use self::ahead::{Ahead, Next};
use self::room::Room;
use self::tee::{Again, Tee};
use self::upload::{Streaming, clean_trailers};
use crate::headers::NameSet;

pub use self::upload::{BodyError, BodyFate, BodyRules};

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub struct RequestBody(Inner);

#[derive(Debug)]
enum Inner {
    Empty,
    Streaming(Box<Streaming>),
    Teed(Arc<Tee>),
    Again(Box<Again>),
}

/// Is told how a response body ends.
pub trait Ending {
    /// `bytes` were given to the caller's connection; by `end`, if there is one, the whole body has to be over.
    fn passed(&mut self, bytes: usize, end: Option<Instant>);
    /// The body waits for the upstream, and not for the caller.
    fn waits(&mut self);
    /// The body is whole.
    fn complete(&mut self);
    /// It breaks off; the trailers are what the caller gets instead of a broken body, where its protocol has a way to
    /// say so.
    fn broken(&mut self, error: &AnswerError) -> Option<HeaderMap>;
}

/// A response's body on its way to the caller, with what must happen at its end. Dropped before its end, it was the
/// caller who went away.
#[derive(Debug)]
pub struct ResponseBody<E> {
    source: Source,
    ending: Option<E>,
    /// The end of the route's time for the whole request, where it has one.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Why an answer's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The upstream broke off.
    #[error("the upstream broke off")]
    Broken(#[source] hyper::Error),
    /// The route's time for the whole request is over.
    #[error("the request took longer than its route allows")]
    TimedOut,
}

#[derive(Debug)]
enum Source {
    Empty,
    Full(Bytes),
    /// Then trailers. Boxed: it is rare, and would make every body larger.
    WithTrailers(Box<(Bytes, HeaderMap)>),
    Incoming(Incoming, Arc<NameSet>),
    /// What was read of it goes first. Rare as well.
    Ahead(Box<(Ahead, Incoming, Arc<NameSet>)>),
}

// === impl RequestBody ===

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// Streams the caller's body; the fate tells how that went. A body that is known to be empty costs nothing.
    pub fn streaming(incoming: Incoming, rules: &BodyRules) -> (Self, Option<Arc<BodyFate>>) {
        if incoming.is_end_stream() {
            return (Self(Inner::Empty), None);
        }
        let (body, fate) = Streaming::new(incoming, rules);
        (Self(Inner::Streaming(body)), Some(fate))
    }

    /// Keeps what passes, `limit` bytes at most and as long as there is room, so that it can be sent again. `None`: nothing
    /// passes, or too much.
    pub fn tee(&mut self, limit: usize, room: &Arc<Room>) -> Option<Arc<Tee>> {
        if self.size_hint().lower() > limit as u64 {
            return None;
        }
        match std::mem::replace(&mut self.0, Inner::Empty) {
            Inner::Streaming(body) => {
                let tee = Tee::new(body, limit, room);
                self.0 = Inner::Teed(Arc::clone(&tee));
                Some(tee)
            }
            other => {
                self.0 = other;
                None
            }
        }
    }

    /// What a tee has kept, and what has not come yet.
    pub fn again(again: Again) -> Self {
        Self(Inner::Again(Box::new(again)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Inner::Streaming(body) => body.poll_frame(cx),
            Inner::Empty => Poll::Ready(None),
            Inner::Teed(tee) => tee.poll_frame(cx),
            Inner::Again(again) => again.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Streaming(body) => body.is_end_stream(),
            Inner::Teed(tee) => tee.is_end_stream(),
            Inner::Again(again) => again.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Streaming(body) => body.size_hint(),
            Inner::Teed(tee) => tee.size_hint(),
            Inner::Again(again) => again.size_hint(),
        }
    }
}

// === impl ResponseBody ===

impl<E: Ending> Ending for Box<E> {
    fn passed(&mut self, bytes: usize, end: Option<Instant>) {
        E::passed(self, bytes, end);
    }

    fn waits(&mut self) {
        E::waits(self);
    }

    fn complete(&mut self) {
        E::complete(self);
    }

    fn broken(&mut self, error: &AnswerError) -> Option<HeaderMap> {
        E::broken(self, error)
    }
}

impl<E: Ending> ResponseBody<E> {
    /// No body.
    pub fn empty(ending: E) -> Self {
        Self { source: Source::Empty, ending: Some(ending), deadline: None }
    }

    /// No body, and nothing to be told: what the answer began goes on without it.
    pub fn nothing() -> Self {
        Self { source: Source::Empty, ending: None, deadline: None }
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>, ending: E) -> Self {
        Self { source: Source::Full(bytes.into()), ending: Some(ending), deadline: None }
    }

    /// These bytes, and then trailers.
    pub fn with_trailers(bytes: Bytes, trailers: HeaderMap, ending: E) -> Self {
        let source = Source::WithTrailers(Box::new((bytes, trailers)));
        Self { source, ending: Some(ending), deadline: None }
    }

    /// Streams the upstream's body, without the trailers that are forbidden; first what was read of it already.
    pub fn incoming(
        incoming: Incoming,
        ahead: Option<Box<Ahead>>,
        forbidden: &Arc<NameSet>,
        mut ending: E,
        deadline: Option<Instant>,
    ) -> Self {
        let over = ahead.as_ref().map_or_else(|| incoming.is_end_stream(), |ahead| ahead.is_over());
        if over {
            // Told now: hyper does not poll a body that is over before it began.
            ending.complete();
            return Self::empty(ending);
        }
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let forbidden = Arc::clone(forbidden);
        let source = match ahead {
            None => Source::Incoming(incoming, forbidden),
            Some(ahead) => Source::Ahead(Box::new((*ahead, incoming, forbidden))),
        };
        Self { source, ending: Some(ending), deadline }
    }

    fn end(&mut self) {
        if let Some(mut ending) = self.ending.take() {
            ending.complete();
        }
    }

    fn break_off(&mut self, error: AnswerError) -> Result<Frame<Bytes>, AnswerError> {
        let trailers = self.ending.take().and_then(|mut ending| ending.broken(&error));
        self.source = Source::Empty;
        trailers.map(Frame::trailers).ok_or(error)
    }
}

impl<E: Ending + Unpin> Body for ResponseBody<E> {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self.get_mut();
        match &mut this.source {
            Source::Empty => {
                this.end();
                Poll::Ready(None)
            }
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.source = Source::Empty;
                if let Some(ending) = &mut this.ending {
                    ending.passed(bytes.len(), None);
                }
                this.end();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::WithTrailers(rest) => {
                let (bytes, trailers) = &mut **rest;
                if bytes.is_empty() {
                    let trailers = std::mem::take(trailers);
                    this.source = Source::Empty;
                    this.end();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                let bytes = std::mem::take(bytes);
                if let Some(ending) = &mut this.ending {
                    ending.passed(bytes.len(), None);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Incoming(incoming, forbidden) => match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Pending => {
                    if let Some(ending) = &mut this.ending {
                        ending.waits();
                    }
                    let Some(deadline) = &mut this.deadline else { return Poll::Pending };
                    ready!(deadline.as_mut().poll(cx));
                    Poll::Ready(Some(this.break_off(AnswerError::TimedOut)))
                }
                Poll::Ready(frame) => match frame {
                    None => {
                        this.end();
                        Poll::Ready(None)
                    }
                    Some(Err(error)) => Poll::Ready(Some(this.break_off(AnswerError::Broken(error)))),
                    Some(Ok(frame)) => {
                        let frame = clean_trailers(frame, forbidden);
                        if let (Some(ending), Some(data)) = (&mut this.ending, frame.data_ref()) {
                            ending.passed(data.len(), this.deadline.as_ref().map(|deadline| deadline.deadline()));
                        }
                        // hyper does not poll once more for the end when the length was known.
                        if incoming.is_end_stream() {
                            this.end();
                        }
                        Poll::Ready(Some(Ok(frame)))
                    }
                },
            },
            Source::Ahead(rest) => match rest.0.next() {
                Next::Data(data) => {
                    if let Some(ending) = &mut this.ending {
                        ending.passed(data.len(), this.deadline.as_ref().map(|deadline| deadline.deadline()));
                    }
                    if rest.0.is_over() {
                        this.end();
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Next::Trailers(trailers) => {
                    let frame = clean_trailers(Frame::trailers(trailers), &rest.2);
                    this.source = Source::Empty;
                    this.end();
                    Poll::Ready(Some(Ok(frame)))
                }
                Next::Over => {
                    this.source = Source::Empty;
                    this.end();
                    Poll::Ready(None)
                }
                Next::Breaking => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Next::Broken(error) => Poll::Ready(Some(this.break_off(AnswerError::Broken(error)))),
                Next::Rest => {
                    if let Source::Ahead(rest) = std::mem::replace(&mut this.source, Source::Empty) {
                        let (_, incoming, forbidden) = *rest;
                        this.source = Source::Incoming(incoming, forbidden);
                    }
                    Pin::new(this).poll_frame(cx)
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::WithTrailers(_) => false,
            Source::Full(bytes) => bytes.is_empty(),
            Source::Incoming(incoming, _) => incoming.is_end_stream(),
            Source::Ahead(rest) => rest.0.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::WithTrailers(rest) => SizeHint::with_exact(rest.0.len() as u64),
            Source::Incoming(incoming, _) => incoming.size_hint(),
            Source::Ahead(rest) => match rest.1.size_hint().exact() {
                Some(left) => SizeHint::with_exact(left.saturating_add(rest.0.len() as u64)),
                // As unknown as it was announced: trailers may follow.
                None => SizeHint::default(),
            },
        }
    }
}
