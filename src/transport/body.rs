//! The two bodies that pass through: a request's on its way up, an answer's on its way down.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::headers::NameSet;

/// How a request's body fares while it is sent on. Shared with the request, because hyper reports the failure of a body
/// as a failure of the connection.
#[derive(Debug, Default)]
pub struct BodyFate {
    state: AtomicU8,
    /// Chunks that the upstream's connection has taken, one more for the end.
    progress: AtomicU64,
    whole: AtomicBool,
}

/// Why a request's body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The caller went away or sent broken framing.
    #[error("the request body broke off")]
    Broken,
    /// It stood still for longer than `body_progress_timeout`.
    #[error("the request body stood still")]
    Stalled,
    /// It is longer than `request_body_limit`.
    #[error("the request body is too large")]
    TooLarge,
}

/// What a body must obey on its way to the upstream.
#[derive(Debug, Clone)]
pub struct BodyRules {
    /// Longest standstill before the response head; `None`: no limit.
    pub progress: Option<Duration>,
    /// Bytes at most; `None`: no limit.
    pub limit: Option<u64>,
    /// Names that no trailer may carry.
    pub forbidden: Arc<NameSet>,
}

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub struct RequestBody(Option<Box<Streaming>>);

#[derive(Debug)]
struct Streaming {
    incoming: Incoming,
    rules: BodyRules,
    sent: u64,
    fate: Arc<BodyFate>,
    /// Made when the body first stands still.
    stall: Option<Pin<Box<Sleep>>>,
    stalled: bool,
}

/// Is told how a response body ends.
pub trait Ending {
    /// `bytes` passed.
    fn passed(&mut self, bytes: usize);
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
    Incoming(Incoming, Arc<NameSet>),
}

const FINE: u8 = 0;
const BROKEN: u8 = 1;
const STALLED: u8 = 2;
const TOO_LARGE: u8 = 3;
const ANSWERED: u8 = 4;

// === impl BodyFate ===

impl BodyFate {
    /// Why the body ended early, if it did.
    pub fn error(&self) -> Option<BodyError> {
        match self.state.load(Ordering::Relaxed) {
            BROKEN => Some(BodyError::Broken),
            STALLED => Some(BodyError::Stalled),
            TOO_LARGE => Some(BodyError::TooLarge),
            _ => None,
        }
    }

    /// The response head has come: from here on a slow body is a long conversation, not an attack.
    pub fn answered(&self) {
        let _ = self.state.compare_exchange(FINE, ANSWERED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Changes whenever the upstream's connection has taken something.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Whether the upstream's connection has taken all of it.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    fn advance(&self, whole: bool) {
        self.progress.store(self.progress() + 1, Ordering::Relaxed);
        if whole {
            self.whole.store(true, Ordering::Relaxed);
        }
    }

    fn fail(&self, error: BodyError) -> BodyError {
        let code = match error {
            BodyError::Broken => BROKEN,
            BodyError::Stalled => STALLED,
            BodyError::TooLarge => TOO_LARGE,
        };
        self.state.store(code, Ordering::Relaxed);
        error
    }
}

// === impl RequestBody ===

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self(None)
    }

    /// Streams the caller's body; the fate tells how that went. A body that is known to be empty costs nothing.
    pub fn streaming(incoming: Incoming, rules: &BodyRules) -> (Self, Option<Arc<BodyFate>>) {
        if incoming.is_end_stream() {
            return (Self(None), None);
        }
        let (fate, rules) = (Arc::new(BodyFate::default()), rules.clone());
        let body = Streaming { incoming, rules, sent: 0, fate: Arc::clone(&fate), stall: None, stalled: false };
        (Self(Some(Box::new(body))), Some(fate))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.incoming.size_hint())
    }
}

impl Streaming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return self.poll_stall(cx),
        };
        self.stalled = false;
        match frame {
            None => {
                self.fate.advance(true);
                Poll::Ready(None)
            }
            Some(Err(_)) => Poll::Ready(Some(Err(self.fate.fail(BodyError::Broken)))),
            Some(Ok(frame)) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.rules.limit.is_some_and(|limit| self.sent > limit) {
                    return Poll::Ready(Some(Err(self.fate.fail(BodyError::TooLarge))));
                }
                self.fate.advance(self.incoming.is_end_stream());
                Poll::Ready(Some(Ok(clean_trailers(frame, &self.rules.forbidden))))
            }
        }
    }

    /// The caller sends nothing: a limit runs until the upstream has answered.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(limit) = self.rules.progress else { return Poll::Pending };
        if self.fate.state.load(Ordering::Relaxed) == ANSWERED {
            return Poll::Pending;
        }
        let stall = match &mut self.stall {
            Some(stall) => {
                if !self.stalled {
                    stall.as_mut().reset(Instant::now() + limit);
                }
                stall
            }
            none => none.insert(Box::pin(tokio::time::sleep(limit))),
        };
        self.stalled = true;
        ready!(stall.as_mut().poll(cx));
        if self.fate.state.load(Ordering::Relaxed) == ANSWERED {
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(self.fate.fail(BodyError::Stalled))))
    }
}

// === impl ResponseBody ===

impl<E: Ending> Ending for Box<E> {
    fn passed(&mut self, bytes: usize) {
        E::passed(self, bytes);
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

    /// Streams the upstream's body, without the trailers that are forbidden.
    pub fn incoming(incoming: Incoming, forbidden: &Arc<NameSet>, mut ending: E, deadline: Option<Instant>) -> Self {
        if incoming.is_end_stream() {
            // Told now: hyper does not poll a body that is over before it began.
            ending.complete();
            return Self::empty(ending);
        }
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { source: Source::Incoming(incoming, Arc::clone(forbidden)), ending: Some(ending), deadline }
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
                    ending.passed(bytes.len());
                }
                this.end();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Incoming(incoming, forbidden) => match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Pending => {
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
                            ending.passed(data.len());
                        }
                        // hyper does not poll once more for the end when the length was known.
                        if incoming.is_end_stream() {
                            this.end();
                        }
                        Poll::Ready(Some(Ok(frame)))
                    }
                },
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_empty(),
            Source::Incoming(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Incoming(incoming, _) => incoming.size_hint(),
        }
    }
}

/// Names that mean framing, routing or identity do not pass as trailers (RFC 9110 section 6.5.1).
fn clean_trailers(frame: Frame<Bytes>, forbidden: &NameSet) -> Frame<Bytes> {
    match frame.into_trailers() {
        Err(frame) => frame,
        Ok(trailers) => {
            let mut kept = HeaderMap::with_capacity(trailers.len());
            for (name, value) in &trailers {
                if !forbidden.contains(name) {
                    kept.append(name, value.clone());
                }
            }
            Frame::trailers(kept)
        }
    }
}
