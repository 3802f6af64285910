//! A request's body as it comes from the caller, judged while it passes.

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

/// The caller's body as it comes, judged.
#[derive(Debug)]
pub(super) struct Streaming {
    incoming: Incoming,
    rules: BodyRules,
    sent: u64,
    fate: Arc<BodyFate>,
    /// Made when the body first stands still.
    stall: Option<Pin<Box<Sleep>>>,
    stalled: bool,
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

    /// The body is sent anew, for an answer that has not come yet.
    pub(super) fn begins_again(&self) {
        self.state.store(FINE, Ordering::Relaxed);
        self.whole.store(false, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, whole: bool) {
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

// === impl Streaming ===

impl Streaming {
    /// Begins to read the caller's body.
    pub(super) fn new(incoming: Incoming, rules: &BodyRules) -> (Box<Self>, Arc<BodyFate>) {
        let (fate, rules) = (Arc::new(BodyFate::default()), rules.clone());
        let body = Self { incoming, rules, sent: 0, fate: Arc::clone(&fate), stall: None, stalled: false };
        (Box::new(body), fate)
    }

    /// How it fares.
    pub(super) fn fate(&self) -> &BodyFate {
        &self.fate
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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
                // Nobody asks for more after trailers.
                self.fate.advance(frame.is_trailers() || self.incoming.is_end_stream());
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

/// Names that mean framing, routing or identity do not pass as trailers (RFC 9110 section 6.5.1).
pub(super) fn clean_trailers(frame: Frame<Bytes>, forbidden: &NameSet) -> Frame<Bytes> {
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
