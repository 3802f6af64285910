//! Step 10: sends the cleaned request up and brings the answer's head down.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::listener::connection::{self, Connection};
use crate::proxy::aim::{Aim, BadTarget};
use crate::proxy::copy::Copy;
use crate::proxy::pool::exchange::{Protocol, SendError, Want};
use crate::proxy::pool::{Lease, Pool};
use crate::proxy::upgrade::handshake::BadAgreement;
use crate::transport::body::ahead::Ahead;
use crate::transport::body::{BodyError, BodyFate, RequestBody};
use crate::transport::connect::ConnectError;

/// Why the upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The head cannot be written as this connection needs it.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// The connection broke, or the answer was not valid HTTP.
    #[error("the upstream broke off")]
    Broken(#[source] hyper::Error),
    /// A 101 that nobody asked for.
    #[error("the upstream switched protocols unasked")]
    Unasked,
    /// A 101 to an upgrade that does not agree to it.
    #[error(transparent)]
    Disagreed(#[from] BadAgreement),
    /// An answer with `Transfer-Encoding` and `Content-Length`, or with a transfer coding beside `chunked` (RFC 9112
    /// section 6.3): it would reach the caller cut short or encoded.
    #[error("the upstream framed its answer in a way that cannot be passed on")]
    Framing,
    /// `response_timeout` or the route's `timeout` passed.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// `body_progress_timeout` passed.
    #[error("the request body stood still")]
    BodyStalled,
    /// `request_body_limit` was reached.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// The caller broke the body off.
    #[error("the request body broke off")]
    BodyBroken,
}

/// The limits of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To the response head, counted anew whenever the request's body makes progress.
    pub response: Option<Duration>,
    /// The end of the whole request.
    pub whole: Option<Instant>,
}

/// An answer's head, and the connection on which its body follows.
#[derive(Debug)]
pub struct Answer {
    /// The head as the upstream sent it.
    pub response: Response<Incoming>,
    /// What was read of its body already. Boxed: it is rare.
    pub ahead: Option<Box<Ahead>>,
    /// Goes back to its pool when both bodies are over.
    pub lease: Lease,
}

/// One request on its way to an upstream.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The upstream's connections.
    pub pool: &'a Pool,
    /// What its head says of one connection and not of the next.
    pub aim: Aim,
    /// Whose timer waits.
    pub connection: &'a Connection,
    /// How the request's body fares, where it has one.
    pub fate: Option<&'a BodyFate>,
    /// How long to wait.
    pub patience: Patience,
}

pin_project_lite::pin_project! {
    /// An answer within its time.
    #[derive(Debug)]
    pub struct InTime<'a, F> {
        #[pin]
        answer: F,
        connection: &'a Connection,
        fate: Option<&'a BodyFate>,
        wait: Wait,
    }
}

/// The time that an answer has: moves on while the request's body makes progress.
#[derive(Debug)]
struct Wait {
    patience: Patience,
    timer: Option<Pin<Box<Sleep>>>,
    limit: Option<Instant>,
    progress: u64,
}

// === impl Patience ===

impl Patience {
    /// When it ends, counted from `now`.
    fn end(&self, now: Instant) -> Option<Instant> {
        [self.response.map(|limit| now + limit), self.whole].into_iter().flatten().min()
    }
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Judges a response head.
    ///
    /// # Errors
    /// When it cannot be passed on; its connection goes with it.
    pub fn accept(&self, response: Response<Incoming>, lease: Lease) -> Result<Answer, ForwardError> {
        if let Some(fate) = self.fate {
            fate.answered();
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(ForwardError::Unasked);
        }
        if !is_framed_once(response.headers()) {
            return Err(ForwardError::Framing);
        }
        Ok(Answer { response, ahead: None, lease })
    }

    /// A connection, within the time that there is for the answer.
    ///
    /// # Errors
    /// When none can be had.
    pub async fn lease(&self, want: Want) -> Result<Lease, ForwardError> {
        let end = self.patience.end(Instant::now());
        let leased = self.pool.lease(want, end);
        match end {
            Some(end) => tokio::time::timeout_at(end, leased).await.map_err(|_| ForwardError::TimedOut)?,
            None => leased.await,
        }
        .map_err(ForwardError::from)
    }

    /// What may be sent again, once, on a new connection: a request of which nothing was sent, or one that may be repeated
    /// and whose connection died before a byte of the answer.
    ///
    /// # Errors
    /// What the first attempt met, where that is not safe.
    pub fn again(&self, error: SendError, copy: Option<Copy>) -> Result<(Parts, RequestBody), ForwardError> {
        match (error.unsent, copy) {
            (Some(unsent), _) => Ok(unsent.into_parts()),
            (None, Some(copy)) if !error.answered => Ok((copy.into_head(), RequestBody::empty())),
            _ => Err(failure(error.error, self.fate)),
        }
    }

    /// Sends a request for the last time.
    ///
    /// # Errors
    /// When there is no answer, or none that can be passed on.
    pub async fn send_last(
        &self,
        mut lease: Lease,
        mut head: Parts,
        body: RequestBody,
    ) -> Result<Answer, ForwardError> {
        self.aim.at(&lease, &mut head)?;
        let sent = lease.send(Request::from_parts(head, body));
        let response = self.in_time(sent, Instant::now()).await?.map_err(|error| failure(error.error, self.fate))?;
        self.accept(response, lease)
    }

    /// What may be sent again on another connection: a request without a body that asks for nothing to be done; on HTTP/2
    /// every one without a body, since there it is sent again only when the peer says that it has not looked at it. A body
    /// that has begun to pass is gone.
    pub fn copy(&self, request: &Request<RequestBody>, protocol: Protocol) -> Option<Copy> {
        let harmless = || matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let repeatable = self.fate.is_none() && (protocol == Protocol::Http2 || harmless());
        repeatable.then(|| Copy::of(request))
    }

    /// Waits for the response head to a request that was sent `now`. On HTTP/1 the connection's own timer waits too; a
    /// stream of HTTP/2 is a task of its own and needs its own.
    pub fn in_time<F: Future>(&self, answer: F, now: Instant) -> InTime<'_, F> {
        let limit = self.patience.end(now);
        let wait = Wait { patience: self.patience, timer: None, limit, progress: 0 };
        InTime { answer, connection: self.connection, fate: self.fate, wait }
    }
}

fn failure(error: hyper::Error, fate: Option<&BodyFate>) -> ForwardError {
    match fate.and_then(BodyFate::error) {
        Some(BodyError::Stalled) => ForwardError::BodyStalled,
        Some(BodyError::TooLarge) => ForwardError::BodyTooLarge,
        Some(BodyError::Broken) => ForwardError::BodyBroken,
        None => ForwardError::Broken(error),
    }
}

/// Whether an answer's `Transfer-Encoding` is absent, or is one `chunked` with no `Content-Length` beside it.
fn is_framed_once(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(header::CONTENT_LENGTH)
        }
        (Some(_), Some(_)) => false,
    }
}

// === impl InTime ===

impl<F: Future> Future for InTime<'_, F> {
    type Output = Result<F::Output, ForwardError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.answer.poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending => this.wait.poll(cx, this.connection, *this.fate).map(|()| Err(ForwardError::TimedOut)),
        }
    }
}

// === impl Wait ===

impl Wait {
    fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection, fate: Option<&BodyFate>) -> Poll<()> {
        loop {
            let progress = fate.map_or(0, BodyFate::progress);
            if progress != self.progress {
                self.progress = progress;
                self.limit = self.patience.end(Instant::now());
            }
            let Some(limit) = self.limit else { return Poll::Pending };
            let fired = if connection.version() == connection::Version::Http1 {
                connection.poll_deadline(cx, limit)
            } else {
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(limit)));
                if timer.deadline() != limit {
                    timer.as_mut().reset(limit);
                }
                timer.as_mut().poll(cx)
            };
            match fired {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if fate.map_or(0, BodyFate::progress) == self.progress => return Poll::Ready(()),
                // The body moved on while nobody looked: count anew.
                Poll::Ready(()) => {}
            }
        }
    }
}
