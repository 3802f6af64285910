//! Step 10: sends the cleaned request up and brings the answer's head down.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, request};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::config::{Rewrite, Route};
use crate::headers;
use crate::listener::connection::{self, Connection, Forwarding};
use crate::proxy::pool::exchange::{SendError, Want};
use crate::proxy::pool::{Lease, Pool};
use crate::transport::body::{BodyError, BodyFate, RequestBody};
use crate::transport::connect::ConnectError;

/// Why the upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The connection broke, or the answer was not valid HTTP.
    #[error("the upstream broke off")]
    Broken(#[source] hyper::Error),
    /// A 101 that nobody asked for.
    #[error("the upstream switched protocols unasked")]
    Unasked,
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
    /// The rewritten target is not one.
    #[error("the rewritten request target is not valid")]
    Head(#[source] http::Error),
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
    /// Goes back to its pool when both bodies are over.
    pub lease: Lease,
}

/// Aims the head at the upstream: target, `Host`, version, and what tells the upstream who called.
///
/// `host` is what the caller named, `trusted` whether its forwarding headers were kept, `bodiless` whether no body
/// follows.
///
/// # Errors
/// When the rewritten target is not one.
pub fn aim(
    head: &mut request::Parts,
    route: &Route,
    pool: &Pool,
    connection: &Connection,
    host: &HeaderValue,
    trusted: bool,
    bodiless: bool,
) -> Result<(), ForwardError> {
    let upstream = pool.upstream();
    let rewritten = rewrite(&head.uri, &route.rewrite)?;
    if upstream.http2 {
        let authority = if route.preserve_host { http::uri::Authority::try_from(host.as_bytes()).ok() } else { None };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.unwrap_or_else(|| upstream.address.authority.clone()));
        parts.path_and_query = rewritten.or_else(|| head.uri.path_and_query().cloned());
        head.uri = Uri::from_parts(parts).map_err(|error| ForwardError::Head(error.into()))?;
        head.headers.remove(header::HOST);
        head.version = Version::HTTP_2;
    } else {
        if let Some(target) = rewritten {
            head.uri = Uri::from(target);
        } else if head.uri.authority().is_some() {
            head.uri = head.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        }
        let named = if route.preserve_host { host.clone() } else { pool.host().clone() };
        head.headers.insert(header::HOST, named);
        head.version = Version::HTTP_11;
        // RFC 9110 section 8.6: a method that anticipates content says so when there is none; some servers insist.
        if bodiless && matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    }
    introduce(&mut head.headers, connection, host, trusted);
    Ok(())
}

/// The target with the route's rewriting applied; `None`: it stays as it is.
fn rewrite(uri: &Uri, rule: &Rewrite) -> Result<Option<PathAndQuery>, ForwardError> {
    let (from, to) = match rule {
        Rewrite::Keep => return Ok(None),
        Rewrite::Strip(prefix) => (prefix.as_str(), ""),
        Rewrite::Replace { from, to } => (from.as_str(), to.as_str()),
    };
    let rest = uri.path().strip_prefix(from.trim_end_matches('/')).unwrap_or(uri.path());
    let mut target = String::with_capacity(to.len() + rest.len() + 1 + uri.query().map_or(0, |query| query.len() + 1));
    target.push_str(to.trim_end_matches('/'));
    target.push_str(rest);
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    PathAndQuery::try_from(target).map(Some).map_err(|error| ForwardError::Head(error.into()))
}

/// Says who called. An untrusted caller's own words were removed before; a trusted one's are continued.
fn introduce(headers: &mut HeaderMap, connection: &Connection, host: &HeaderValue, trusted: bool) {
    let said = connection.forwarding(host, || forwarding(connection, host));
    if trusted {
        continue_list(headers, headers::FORWARDED_FOR, &said.peer);
        continue_list(headers, headers::FORWARDED, &said.forwarded);
        headers.entry(headers::FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static("http"));
        headers.entry(headers::FORWARDED_HOST).or_insert(said.host);
    } else {
        headers.insert(headers::FORWARDED_FOR, said.peer);
        headers.insert(headers::FORWARDED, said.forwarded);
        headers.insert(headers::FORWARDED_PROTO, HeaderValue::from_static("http"));
        headers.insert(headers::FORWARDED_HOST, said.host);
    }
}

fn forwarding(connection: &Connection, host: &HeaderValue) -> Forwarding {
    let ip = connection.peer.ip().to_canonical();
    let peer = ip.to_string();
    // RFC 7239 section 6: an IPv6 address stands in brackets and quotes; a host with a port needs quotes too.
    let node = if ip.is_ipv6() { format!("\"[{peer}]\"") } else { peer.clone() };
    let named = host.to_str().unwrap_or_default();
    let value = |text: String| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    Forwarding {
        host: host.clone(),
        forwarded: value(format!("for={node};host=\"{named}\";proto=http")),
        peer: value(peer),
    }
}

/// Appends to the list that a trusted peer began; several lines of it become one.
fn continue_list(headers: &mut HeaderMap, name: header::HeaderName, element: &HeaderValue) {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    headers.insert(name, HeaderValue::try_from(list).unwrap_or_else(|_| element.clone()));
}

/// What may be sent again when the connection dies under it.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The upstream's connections.
    pub pool: &'a Arc<Pool>,
    /// Whose timer waits.
    pub connection: &'a Connection,
    /// How the request's body fares, where it has one.
    pub fate: Option<&'a BodyFate>,
    /// How long to wait.
    pub patience: Patience,
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Waits for the response head of a request that was handed over.
    ///
    /// The request is sent again once, on a new connection, when nothing of it was sent, or when it may be repeated and
    /// the connection died before a byte of the answer.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn answer<F>(&self, lease: Lease, sent: F, copy: Option<Copy>) -> Result<Answer, ForwardError>
    where
        F: Future<Output = Result<Response<Incoming>, Box<SendError>>>,
    {
        let answer = match self.in_time(sent).await? {
            Ok(response) => Answer { response, lease },
            // Rare: boxed, so that the future of every request stays small.
            Err(error) => Box::pin(self.send_again(*error, copy)).await?,
        };
        if let Some(fate) = self.fate {
            fate.answered();
        }
        if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(ForwardError::Unasked);
        }
        Ok(answer)
    }

    async fn send_again(&self, error: SendError, copy: Option<Copy>) -> Result<Answer, ForwardError> {
        let again = match (error.unsent, copy) {
            (Some(unsent), _) => unsent,
            (None, Some(copy)) if !error.answered => copy.request(),
            _ => return Err(failure(error.error, self.fate)),
        };
        let mut lease = self.pool.lease(Want::New).await?;
        let sent = lease.send(again);
        let response = self.in_time(sent).await?.map_err(|error| failure(error.error, self.fate))?;
        Ok(Answer { response, lease })
    }

    /// What may be sent again: a request without a body that asks for nothing to be done.
    pub fn copy(&self, request: &Request<RequestBody>) -> Option<Copy> {
        let repeatable =
            self.fate.is_none() && matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        repeatable.then(|| Copy::of(request))
    }

    /// On HTTP/1 the connection's own timer waits; a stream of HTTP/2 is a task of its own and needs its own.
    fn in_time<F: Future>(&self, answer: F) -> InTime<'_, F> {
        let wait = Wait { patience: self.patience, timer: None, limit: None, progress: 0 };
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

/// The head of a request without a body, kept until its answer has come.
#[derive(Debug)]
pub struct Copy {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

// === impl Copy ===

impl Copy {
    fn of(request: &Request<RequestBody>) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Self { method, uri, version: request.version(), headers: request.headers().clone() }
    }

    fn request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        request
    }
}

pin_project_lite::pin_project! {
    /// An answer within its time.
    struct InTime<'a, F> {
        #[pin]
        answer: F,
        connection: &'a Connection,
        fate: Option<&'a BodyFate>,
        wait: Wait,
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

struct Wait {
    patience: Patience,
    timer: Option<Pin<Box<Sleep>>>,
    limit: Option<Instant>,
    progress: u64,
}

// === impl Wait ===

impl Wait {
    fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection, fate: Option<&BodyFate>) -> Poll<()> {
        loop {
            let progress = fate.map_or(0, BodyFate::progress);
            if self.limit.is_none() || progress != self.progress {
                self.progress = progress;
                let response = self.patience.response.map(|limit| Instant::now() + limit);
                self.limit = [response, self.patience.whole].into_iter().flatten().min();
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
