//! The span of a mint. It belongs to the trace of the request that began the mint, and may end after that.

use std::sync::Arc;

use tokio::time::Instant;

use super::Tracer;
use super::context::{Context, SpanId};
use super::otlp::{Kind, Span};
use super::span::Timeline;

/// The sampled request that begins a mint.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Takes the span.
    pub tracer: Arc<Tracer>,
    /// The request's own span.
    pub request: Context,
    /// Its clocks.
    pub timeline: Timeline,
}

/// A mint that is under way.
#[derive(Debug)]
pub struct MintSpan {
    origin: Box<Origin>,
    begun: Instant,
    template: String,
    reason: &'static str,
}

// === impl MintSpan ===

impl MintSpan {
    /// Begins now.
    pub fn begin(origin: Box<Origin>, template: &str, reason: &'static str) -> Self {
        Self { origin, begun: Instant::now(), template: template.to_owned(), reason }
    }

    /// It has ended, as `mintgate_mints_total` has it: before those who wait heard of it, so that it lies within what waits.
    pub fn end(self, ended: Instant, result: &str) {
        let Origin { tracer, request, timeline } = *self.origin;
        let times = [timeline.at(self.begun), timeline.at(ended)];
        let own = request.at(SpanId::random());
        let mut span = Span::new("mint", Kind::Client, own, Some(request.span), times);
        span.say("server.address", &*tracer.issuer);
        span.say("mintgate.template", self.template);
        span.say("mintgate.mint.reason", self.reason);
        span.say("mintgate.mint.result", result);
        if result != "ok" {
            span.fail(result);
        }
        tracer.send(vec![span]);
    }
}
