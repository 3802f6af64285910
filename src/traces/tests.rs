//! Which place a request gets in a trace, and who decides whether it is recorded.

use http::HeaderValue;

use super::context::{TRACEPARENT, TRACESTATE};
use super::*;
use crate::metrics::{Metrics, Names};

const SAMPLED: &str = "00-12345678901234567890123456789012-1234567890123456-01";
const UNSAMPLED: &str = "00-12345678901234567890123456789012-1234567890123456-00";

fn begin(sample: f64, traceparent: &str, trusted: bool) -> (Box<Trace>, http::HeaderMap) {
    let (tracer, _queue) = Tracer::new(sample, "", Duration::ZERO, Metrics::new(Names::default()).control().common());
    let mut request = Request::get("/").header(TRACESTATE, "a=1").header(TRACESTATE, "b=2").body(()).unwrap();
    if !traceparent.is_empty() {
        request.headers_mut().insert(TRACEPARENT, HeaderValue::from_str(traceparent).unwrap());
    }
    let trace = tracer.begin(&request, trusted, "http", &Clock::system(), Instant::now());
    let mut headers = request.into_parts().0.headers;
    trace.write(&mut headers);
    (trace, headers)
}

/// Fails where an untrusted caller's flag counts, or a trusted one's does not.
#[tokio::test]
async fn a_trusted_peer_decides_what_is_recorded_and_nobody_else_does() {
    for (sample, parent, trusted, recorded) in [
        (0.0, SAMPLED, true, true),
        (1.0, UNSAMPLED, true, false),
        (0.0, SAMPLED, false, false),
        (1.0, UNSAMPLED, false, true),
        (0.0, "", true, false),
        (1.0, "", true, true),
        (1.0, "nonsense", true, true),
        (0.0, "nonsense", true, false),
    ] {
        let (trace, headers) = begin(sample, parent, trusted);
        assert_eq!(
            (trace.steps.is_some(), trace.own.is_sampled()),
            (recorded, recorded),
            "{sample} {parent} {trusted}"
        );
        let flags = if recorded { "-01" } else { "-00" };
        assert!(headers[TRACEPARENT].to_str().unwrap().ends_with(flags), "{sample} {parent} {trusted}");
    }
}

/// Fails where the caller's own span id passes, or a vendor's words about another trace.
#[tokio::test]
async fn the_upstream_is_told_of_our_span_in_the_callers_trace() {
    for sample in [0.0, 1.0] {
        let (trace, headers) = begin(sample, SAMPLED, false);
        let told = Context::of(&headers).unwrap();
        assert_eq!(told.trace.to_string(), "12345678901234567890123456789012");
        let span = if sample > 0.0 { trace.onward } else { trace.own.span };
        assert_eq!(told.span, span);
        assert_ne!(Some(told.span), trace.parent);
        let state: Vec<_> = headers.get_all(TRACESTATE).iter().collect();
        assert_eq!(state, ["a=1", "b=2"], "it passes as it was");
    }
    for broken in ["", "nonsense", "ff-12345678901234567890123456789012-1234567890123456-01"] {
        let (trace, headers) = begin(1.0, broken, true);
        let told = Context::of(&headers).unwrap();
        assert_ne!(told.trace.to_string(), "12345678901234567890123456789012");
        assert_eq!((told.span, trace.parent), (trace.onward, None));
        assert!(!headers.contains_key(TRACESTATE), "{broken}");
    }
}

#[tokio::test]
async fn a_part_of_the_requests_is_recorded() {
    let recorded = (0..4000).filter(|_| begin(0.25, UNSAMPLED, false).0.steps.is_some()).count();
    // Nine standard deviations.
    assert!((750..1250).contains(&recorded), "{recorded}");
}
