//! The access record of one request: made before anything is decided, it counts once and logs once, from `Drop`.
//!
//! It moves into the response body and ends with it, so an early return, a caller that goes away and a body that breaks
//! are all counted like any other end. While the request runs it only stores what it is told: reference counts, small
//! copies, no text. Text is made when the line is written, which happens only for requests that shall be logged.
//!
//! A line never holds a query, a header beside `Host`, or a body. Bytes that a caller chose are escaped, so that they
//! can neither end a line nor look like another field.

mod id;
mod line;
mod spans;
mod value;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::address::PeerAddress;
use crate::clock::Clock;
use crate::headers;
use crate::metrics::{Lookup, Metrics, OutcomeId, RouteId, Shard, UpstreamId, Verdict};
use crate::telemetry::{self, Access, Identity};
use crate::traces::Tracer;
use crate::traces::mint::Origin;
use crate::traces::span::{Steps, Trace};
use id::RequestIds;
use value::{Asked, Lookups};

pub use id::RequestId;
pub use value::{BodyEnd, CredentialKind};

/// The target of access lines, for the log filter.
pub const TARGET: &str = "mintgate::access";

/// Makes the records of one worker. Used by that worker's thread alone: its shard has one writer.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    shard: Arc<Shard>,
    access: Access,
    identity: Identity,
    clock: Clock,
    ids: RequestIds,
    /// Where there are traces.
    tracer: Option<Arc<Tracer>>,
}

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address.
    pub address: PeerAddress,
    /// Whether its `X-Forwarded-*` and `X-Request-Id` are believed.
    pub trusted: bool,
    /// What is spoken on it, `http` or `https`; empty where that says nothing of the request.
    pub scheme: &'static str,
}

/// What a record may show of a verified session. [`Identity`] decides how.
pub trait Caller: Send + Sync {
    /// The user, where it is known.
    fn sub(&self) -> Option<&str>;
    /// The session.
    fn sid(&self) -> &str;
    /// The active organization.
    fn org(&self) -> Option<&str>;
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The metric's `status` and `code`.
    pub id: OutcomeId,
    /// The exact status, an upstream's too.
    pub status: StatusCode,
    /// The public reason of `session-invalid`.
    pub reason: Option<&'static str>,
}

/// The access record of one request.
#[must_use = "a record that is dropped has counted its request"]
pub struct Record {
    recorder: Arc<Recorder>,
    id: RequestId,
    start: Instant,
    peer: PeerAddress,
    method: Method,
    /// `None` where no request is logged.
    asked: Option<Asked>,
    route: RouteId,
    route_logs: bool,
    degraded: bool,
    retried: bool,
    lookups: Lookups,
    body_end: BodyEnd,
    ended: Option<Instant>,
    credential: Option<CredentialKind>,
    verdict: Option<Verdict>,
    outcome: Option<Outcome>,
    upstream: Option<(UpstreamId, Instant)>,
    upstream_wait: Duration,
    overhead: Option<Duration>,
    bytes: u64,
    /// Of a tunnel: bytes that reached the upstream.
    received: Option<u64>,
    caller: Option<Arc<dyn Caller>>,
    cause: Option<Box<str>>,
    trace: Option<Box<Trace>>,
}

// === impl Recorder ===

impl Recorder {
    /// For one worker and the shard that it writes.
    pub fn new(
        metrics: Arc<Metrics>,
        shard: Arc<Shard>,
        access: Access,
        identity: Identity,
        clock: Clock,
        tracer: Option<Arc<Tracer>>,
    ) -> Arc<Self> {
        Arc::new(Self { metrics, shard, access, identity, clock, ids: RequestIds::new(), tracer })
    }

    /// The record of a request whose head has just been read.
    pub fn begin<B>(self: &Arc<Self>, request: &Request<B>, peer: Peer) -> Record {
        let kept = if peer.trusted { request.headers().get(headers::REQUEST_ID) } else { None };
        let id = kept.and_then(RequestId::kept).unwrap_or_else(|| self.ids.next());
        let start = Instant::now();
        let traced = |tracer: &Arc<Tracer>| tracer.begin(request, peer.trusted, peer.scheme, &self.clock, start);
        let trace = self.tracer.as_ref().map(traced);
        let shown = self.access != Access::Off || trace.as_ref().is_some_and(|trace| trace.steps.is_some());
        Record {
            recorder: Arc::clone(self),
            id,
            start,
            peer: peer.address,
            method: request.method().clone(),
            asked: shown.then(|| Asked::of(request)),
            route: self.metrics.no_route(),
            route_logs: true,
            degraded: false,
            retried: false,
            lookups: Lookups::default(),
            body_end: BodyEnd::Cut,
            ended: None,
            credential: None,
            verdict: None,
            outcome: None,
            upstream: None,
            upstream_wait: Duration::ZERO,
            overhead: None,
            bytes: 0,
            received: None,
            caller: None,
            cause: None,
            trace,
        }
    }
}

// === impl Record ===

impl Record {
    /// The request's id.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// When the head had been read.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The request belongs to this route; `logs` is the route's own `access`.
    pub fn route(&mut self, route: RouteId, logs: bool) {
        self.route = route;
        self.route_logs = logs;
        if let Some(steps) = self.steps() {
            steps.routed();
        }
    }

    /// Where the credential was found.
    pub fn credential(&mut self, kind: CredentialKind) {
        self.credential = Some(kind);
    }

    /// What was said of the credential, so far.
    pub fn judged(&self) -> Option<Verdict> {
        self.verdict
    }

    /// What the session check found. The last one counts.
    pub fn verdict(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
        self.settled();
    }

    /// The session check is over, also where it has found nothing.
    pub fn settled(&mut self) {
        if let Some(steps) = self.steps() {
            steps.judged();
        }
    }

    /// Its place in a trace, where there are traces.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_deref()
    }

    fn steps(&mut self) -> Option<&mut Steps> {
        self.trace.as_mut()?.steps.as_deref_mut()
    }

    /// What a mint that is begun for this request belongs to, where the request is sampled.
    pub fn origin(&self) -> Option<Box<Origin>> {
        let (trace, tracer) = (self.trace.as_ref()?, self.recorder.tracer.as_ref()?);
        let timeline = trace.steps.as_ref()?.timeline;
        Some(Box::new(Origin { tracer: Arc::clone(tracer), request: trace.own, timeline }))
    }

    /// Tokens are not in memory and are waited for.
    pub fn waits_for_tokens(&mut self) {
        if let Some(steps) = self.steps() {
            steps.waits_for_tokens();
        }
    }

    /// Whose session it is.
    pub fn caller(&mut self, caller: Arc<dyn Caller>) {
        self.caller = Some(caller);
    }

    /// A token was looked for; told once for each.
    pub fn looked_up(&mut self, result: Lookup) {
        self.lookups.insert(result);
        if let Some(steps) = self.steps() {
            steps.looked_up();
        }
    }

    /// What was looked up, as in the log; `None`: nothing.
    pub fn lookups(&self) -> Option<String> {
        self.lookups.iter().next().map(|_| self.lookups.to_string())
    }

    /// The request goes on without a token because `on_mint_error` says so.
    pub fn degraded(&mut self) {
        self.degraded = true;
    }

    /// Whether it goes on without a token that its route injects.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Its token was refused: it is sent once more, with another one.
    pub fn retried(&mut self) {
        self.retried = true;
    }

    /// The request waits for this upstream from now on: for a connection, for its taking the request, for its head.
    /// Returns when that is.
    pub fn upstream_begins(&mut self, upstream: UpstreamId) -> Instant {
        let now = Instant::now();
        self.upstream_ends_at(now);
        self.upstream = Some((upstream, now));
        if let Some(steps) = self.steps() {
            steps.asks(upstream, now);
        }
        now
    }

    /// The upstream answered with a head, or it is certain that it will not. Waits of several attempts add up.
    fn upstream_ends_at(&mut self, now: Instant) {
        if let Some((upstream, since)) = self.upstream.take() {
            let wait = now.duration_since(since);
            self.recorder.shard.upstream_seconds[upstream.index()].observe(wait);
            self.upstream_wait += wait;
            if let Some(steps) = self.steps() {
                steps.answered(now);
            }
        }
    }

    /// The head of the answer is ready. Called again, the last call counts.
    pub fn responds(&mut self, outcome: Outcome) {
        let now = Instant::now();
        self.upstream_ends_at(now);
        self.overhead = Some(now.duration_since(self.start).saturating_sub(self.upstream_wait));
        self.outcome = Some(outcome);
    }

    /// The chain of errors behind the answer, for the line. Text is made only where a line is written.
    pub fn cause(&mut self, error: &(dyn Error + 'static)) {
        if self.recorder.access == Access::Off || !self.route_logs {
            return;
        }
        self.cause = Some(telemetry::chain(error).into());
    }

    /// Bytes of the answer's body that were handed over, before any framing.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The request has become a tunnel, which is open until the record ends.
    pub fn opens_tunnel(&mut self) {
        if self.received.replace(0).is_none() {
            self.recorder.shard.websockets(self.route).add(1);
        }
    }

    /// Bytes of the tunnel that reached the caller, and that reached the upstream.
    pub fn tunnelled(&mut self, sent: u64, received: u64) {
        self.bytes = sent;
        self.received = Some(received);
    }

    /// How the body ended, and when. A body that has no bytes to give (also the answer to HEAD) is complete from the
    /// start.
    pub fn body_ends(&mut self, end: BodyEnd, now: Instant) {
        self.body_end = end;
        self.ended = Some(now);
    }

    /// Everything except waiting for the upstream, up to the head of the answer: reading the rules, checking the
    /// session, waiting for a token (a mint too), building the head. Without an upstream it is the whole time.
    fn overhead(&self, total: Duration) -> Duration {
        self.overhead.unwrap_or_else(|| total.saturating_sub(self.upstream_wait))
    }

    fn count(&self, total: Duration) {
        let (shard, route) = (&*self.recorder.shard, self.route);
        let outcome = self.outcome.map_or_else(|| self.recorder.metrics.client_gone(), |outcome| outcome.id);
        shard.requests(route, outcome).bump();
        shard.request_seconds[route.index()].observe(total);
        shard.overhead_seconds[route.index()].observe(self.overhead(total));
        if let Some(verdict) = self.verdict {
            shard.verdicts(route, verdict).bump();
        }
        for (result, count) in self.lookups.iter() {
            (0..count).for_each(|_| shard.lookups(route, result).bump());
        }
        if self.degraded {
            shard.degraded(route).bump();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some((_, since)) = self.upstream.take() {
            // The caller went away first: how long the upstream would have taken is not known, so it is not observed.
            self.upstream_wait += since.elapsed();
        }
        if self.received.is_some() {
            self.recorder.shard.websockets(self.route).add(-1);
        }
        let ended = self.ended.unwrap_or_else(Instant::now);
        let total = ended.duration_since(self.start);
        self.count(total);
        if self.is_logged() {
            self.log(total);
        }
        if self.trace.is_some() {
            self.send_spans(ended);
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("id", &format_args!("{}", self.id)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
