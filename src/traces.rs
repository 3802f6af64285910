//! OpenTelemetry traces: a sampled request's spans, made out of its access record when that ends, and sent by OTLP.
//!
//! Without `[traces]` there is no [`Tracer`], and a request costs a look at that. With it each request has a place in a trace
//! ([`span::Trace`]), which its upstream is told; only a sampled one notes when its steps began and ended. Spans wait in a
//! queue with a bound: who makes them waits for nobody, and what finds no room is counted and gone.

pub mod client;
pub mod context;
pub mod export;
pub mod mint;
pub mod otlp;
pub mod span;

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::context::Context;
use self::otlp::Span;
use self::span::{Steps, Timeline, Trace};
use crate::clock::Clock;
use crate::metrics::Common;

/// Requests and mints whose spans wait to be sent. A request has four at most.
const QUEUE: usize = 1024;

/// What spans wait in.
pub type Queue = mpsc::Receiver<Vec<Span>>;

/// Decides which requests are sampled, and takes their spans. One for each configuration of `[traces]`.
#[derive(Debug)]
pub struct Tracer {
    /// The part of requests, 0 to 1.
    sample: f64,
    /// Whom mints ask, for their spans.
    issuer: Box<str>,
    /// How long the last spans may take when the process ends.
    pub patience: Duration,
    queue: mpsc::Sender<Vec<Span>>,
    counts: Arc<Common>,
}

// === impl Tracer ===

impl Tracer {
    /// Samples this part of the requests. Spans come out of the queue.
    pub fn new(sample: f64, issuer: &str, patience: Duration, counts: Arc<Common>) -> (Arc<Self>, Queue) {
        let (queue, out) = mpsc::channel(QUEUE);
        (Arc::new(Self { sample, issuer: issuer.into(), patience, queue, counts }), out)
    }

    /// The place of a request in a trace: below the caller's span, or at the root of a new trace.
    ///
    /// Whether it is recorded, a trusted peer has decided. Anybody else may say under which span it belongs, which harms
    /// nobody, and not how many spans there are: it is drawn here, and not out of the trace's id, which is the caller's to choose.
    pub fn begin<B>(
        &self,
        request: &Request<B>,
        trusted: bool,
        scheme: &'static str,
        clock: &Clock,
        start: Instant,
    ) -> Box<Trace> {
        let parent = Context::of(request.headers());
        let sampled = match parent {
            Some(parent) if trusted => parent.is_sampled(),
            _ => fastrand::f64() < self.sample,
        };
        let own = parent.map_or_else(|| Context::root(sampled), |parent| parent.child(sampled));
        let steps = sampled.then(|| {
            let timeline = Timeline { start, nanos: clock.nanos(start) };
            Box::new(Steps::new(timeline, request.version(), scheme))
        });
        Box::new(Trace { own, parent: parent.map(|parent| parent.span), onward: context::SpanId::random(), steps })
    }

    /// Takes the spans of something that has ended.
    pub fn send(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.queue.try_send(spans).is_err() {
            self.counts.spans_dropped.add_some(count);
        }
    }
}

#[cfg(test)]
mod tests;
