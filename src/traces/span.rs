//! What a request leaves of itself for its spans: who it is in its trace, and moments that are taken only where it is sampled.

use http::Version;
use http::header::HeaderMap;
use tokio::time::Instant;

use super::context::{Context, SpanId, TRACEPARENT, TRACESTATE};
use crate::metrics::UpstreamId;

/// A request in its trace.
#[derive(Debug)]
pub struct Trace {
    /// The span of the request itself.
    pub own: Context,
    /// The caller's; `None`: the trace begins here.
    pub parent: Option<SpanId>,
    /// The span of what the upstream is asked.
    pub onward: SpanId,
    /// Where it is sampled.
    pub steps: Option<Box<Steps>>,
}

/// When the steps of a request began and ended.
#[derive(Debug)]
pub struct Steps {
    /// Of all spans that this request makes.
    pub timeline: Timeline,
    /// The caller's version of HTTP.
    pub version: Version,
    /// What the caller speaks.
    pub scheme: &'static str,
    /// When the step before ended.
    mark: Instant,
    /// Step 5, where there was one.
    pub session: Option<[Instant; 2]>,
    /// When step 7 began and ended, where there was one.
    pub token: Option<(Instant, Option<Instant>)>,
    /// Step 10, where there was one.
    pub upstream: Option<Asked>,
}

/// An upstream that was asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Which.
    pub upstream: UpstreamId,
    /// Since when; of several times the first.
    pub from: Instant,
    /// Until when; of several times the last.
    pub to: Option<Instant>,
}

/// One reading of both clocks, which all moments of a trace are told by: a clock that is set meanwhile puts no span outside
/// of its parent.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    /// The monotonic clock.
    pub start: Instant,
    /// The wall clock at that moment, in nanoseconds since the epoch.
    pub nanos: u64,
}

// === impl Trace ===

impl Trace {
    /// Tells the upstream. What vendors have said of a trace that is not gone on with leaves.
    pub fn write(&self, headers: &mut HeaderMap) {
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
        let told = if self.steps.is_some() { self.own.at(self.onward) } else { self.own };
        headers.insert(TRACEPARENT, told.to_header());
    }
}

// === impl Steps ===

impl Steps {
    /// Of a request whose head has just been read.
    pub fn new(timeline: Timeline, version: Version, scheme: &'static str) -> Self {
        Self { timeline, version, scheme, mark: timeline.start, session: None, token: None, upstream: None }
    }

    /// The route is known: what comes next is the session.
    pub fn routed(&mut self) {
        self.mark = Instant::now();
    }

    /// The session was judged. Judged anew, the first time tells how long it took.
    pub fn judged(&mut self) {
        if self.session.is_none() {
            let now = Instant::now();
            self.session = Some([self.mark, now]);
            self.mark = now;
        }
    }

    /// A token is waited for.
    pub fn waits_for_tokens(&mut self) {
        self.token.get_or_insert_with(|| (Instant::now(), None));
    }

    /// A token was looked for.
    pub fn looked_up(&mut self) {
        let (_, end) = self.token.get_or_insert((self.mark, None));
        *end = Some(Instant::now());
    }

    /// The upstream is asked.
    pub fn asks(&mut self, upstream: UpstreamId, from: Instant) {
        let asked = self.upstream.get_or_insert(Asked { upstream, from, to: None });
        asked.to = None;
    }

    /// It has answered, or will not.
    pub fn answered(&mut self, now: Instant) {
        if let Some(asked) = &mut self.upstream {
            asked.to = Some(now);
        }
    }
}

// === impl Timeline ===

impl Timeline {
    /// A moment in nanoseconds since the epoch.
    pub fn at(self, moment: Instant) -> u64 {
        let passed = moment.saturating_duration_since(self.start).as_nanos();
        self.nanos.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}
