//! The spans of a sampled request, made out of its access record when that ends.
//!
//! They say what the line says, under the names of OpenTelemetry's conventions where there are some: never a query, a header
//! beside `Host`, a body or a token. Bytes that a caller chose are escaped and cut off, as in the line.

use http::{Method, Version};
use tokio::time::Instant;

use super::value::{Asked, Escaped, shown};
use super::{BodyEnd, CredentialKind, Record};
use crate::metrics::CLIENT_GONE;
use crate::traces::context::SpanId;
use crate::traces::otlp::{Kind, Span};
use crate::traces::span::{Steps, Trace};

// === impl Record ===

impl Record {
    /// Hands over the spans, where there are some: the request's own, and one for each step that took place.
    pub(super) fn send_spans(&self, ended: Instant) {
        let (Some(tracer), Some(trace)) = (&self.recorder.tracer, &self.trace) else { return };
        let Some(steps) = &trace.steps else { return };
        let mut spans = Vec::with_capacity(4);
        spans.push(self.own_span(trace, steps, ended));
        let step = |name, kind, id, from, to| {
            let times = [steps.timeline.at(from), steps.timeline.at(to)];
            Span::new(name, kind, trace.own.at(id), Some(trace.own.span), times)
        };
        if let Some([from, to]) = steps.session {
            let mut span = step("session", Kind::Internal, SpanId::random(), from, to);
            if let Some(verdict) = self.verdict {
                span.say("mintgate.verdict", verdict.as_str());
            }
            if let Some(credential) = self.credential {
                span.say("mintgate.credential", CredentialKind::as_str(credential));
            }
            spans.push(span);
        }
        if let Some((from, to)) = steps.token {
            let mut span = step("token", Kind::Internal, SpanId::random(), from, to.unwrap_or(ended));
            if let Some(token) = self.lookups() {
                span.say("mintgate.token", token);
            }
            spans.push(span);
        }
        if let Some(asked) = steps.upstream {
            let mut span = step("upstream", Kind::Client, trace.onward, asked.from, asked.to.unwrap_or(ended));
            let name = &self.recorder.metrics.names().upstreams[asked.upstream.index()];
            span.say("mintgate.upstream", name.as_str());
            self.say_method(&mut span);
            if self.retried {
                span.say("http.request.resend_count", 1_u16);
            }
            self.say_of_upstream(&mut span);
            spans.push(span);
        }
        tracer.send(spans);
    }

    fn own_span(&self, trace: &Trace, steps: &Steps, ended: Instant) -> Span {
        let recorder = &*self.recorder;
        let times = [steps.timeline.at(self.start), steps.timeline.at(ended)];
        let (method, route) = (self.method(), recorder.metrics.names().routes[self.route.index()].as_str());
        let named = if method == "_OTHER" { "HTTP" } else { method };
        let routed = self.route != recorder.metrics.no_route();
        let name = if routed { format!("{named} {route}") } else { named.to_owned() };
        let mut span = Span::new(name, Kind::Server, trace.own, trace.parent, times);
        self.say_method(&mut span);
        if !steps.scheme.is_empty() {
            span.say("url.scheme", steps.scheme);
        }
        if let Some(path) = self.asked.as_ref().and_then(Asked::path) {
            span.say("url.path", path.to_string());
        }
        if let Some(host) = self.asked.as_ref().and_then(Asked::host) {
            let text = host.to_string();
            let port =
                text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse::<u16>().ok()?)));
            match port.filter(|(host, _)| !host.contains(':') || host.ends_with(']')) {
                Some((host, port)) => {
                    span.say("server.address", host);
                    span.say("server.port", port);
                }
                None => span.say("server.address", text),
            }
        }
        if let Some(version) = version(steps.version) {
            span.say("network.protocol.version", version);
        }
        span.say("mintgate.route", route);
        span.say("mintgate.request_id", self.id.to_string());
        if let Some(token) = self.lookups() {
            span.say("mintgate.token", token);
        }
        if self.degraded {
            span.say("mintgate.degraded", true);
        }
        if let Some(caller) = &self.caller {
            let ids = [("sub", caller.sub()), ("sid", Some(caller.sid())), ("org", caller.org())];
            for (name, id) in ids {
                if let Some(id) = id.and_then(|id| shown(recorder.identity, id)) {
                    span.say(&format!("mintgate.{name}"), id);
                }
            }
        }
        self.say_end(&mut span);
        span
    }

    /// How it ended. A caller's own fault is no failure of the server's (as the conventions have it), but has a name.
    fn say_end(&self, span: &mut Span) {
        let Some(outcome) = self.outcome else {
            span.say("error.type", CLIENT_GONE);
            return;
        };
        let code = self.code(outcome);
        span.say("http.response.status_code", outcome.status.as_u16());
        if let Some(reason) = outcome.reason {
            span.say("mintgate.reason", reason);
        }
        if outcome.status.is_server_error() {
            span.fail(if code.is_empty() { outcome.status.as_str() } else { code });
        } else if self.body_end == BodyEnd::Broken {
            span.fail("upstream-broken");
        } else if !code.is_empty() {
            span.say("error.type", code);
        }
    }

    /// What the upstream answered, or that it did not. To who asks, every error is a failure.
    fn say_of_upstream(&self, span: &mut Span) {
        let Some(outcome) = self.outcome else {
            span.say("error.type", CLIENT_GONE);
            return;
        };
        let code = self.code(outcome);
        if !code.is_empty() {
            span.fail(code);
            return;
        }
        span.say("http.response.status_code", outcome.status.as_u16());
        if outcome.status.is_client_error() || outcome.status.is_server_error() {
            span.fail(outcome.status.as_str());
        }
    }

    /// Every other one is `_OTHER`, so that no caller makes a new name of a span.
    fn method(&self) -> &'static str {
        match self.method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            Method::CONNECT => "CONNECT",
            Method::TRACE => "TRACE",
            _ => "_OTHER",
        }
    }

    fn say_method(&self, span: &mut Span) {
        let method = self.method();
        span.say("http.request.method", method);
        if method == "_OTHER" {
            span.say("http.request.method_original", Escaped(self.method.as_str().as_bytes()).to_string());
        }
    }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}
