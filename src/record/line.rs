//! The line that an access record writes.

use std::time::Duration;

use tracing::field::display;

use super::value::{Asked, Escaped, shown};
use super::{BodyEnd, CredentialKind, Outcome, Record, TARGET};
use crate::metrics::{CLIENT_GONE, Verdict};
use crate::telemetry::Access;

// === impl Record ===

impl Record {
    /// Whether there is one.
    pub(super) fn is_logged(&self) -> bool {
        match self.recorder.access {
            _ if !self.route_logs => false,
            Access::Off => false,
            Access::All => true,
            Access::Errors => {
                let failed = |outcome: Outcome| outcome.status.is_server_error() || !self.code(outcome).is_empty();
                self.body_end == BodyEnd::Broken || self.outcome.is_some_and(failed)
            }
        }
    }

    /// Our error code; empty for an upstream's answer.
    pub(super) fn code(&self, outcome: Outcome) -> &'static str {
        self.recorder.metrics.names().outcomes[outcome.id.index()].code
    }

    /// Writes it.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for a reader")]
    pub(super) fn log(&self, total: Duration) {
        let millis = |time: Duration| (time.as_micros() as f64) / 1000.0;
        let recorder = &*self.recorder;
        let began = recorder.clock.wall().minus(total).to_system();
        let code = self.outcome.map_or(CLIENT_GONE, |outcome| self.code(outcome));
        let host = self.asked.as_ref().and_then(Asked::host).map(display);
        let path = self.asked.as_ref().and_then(Asked::path).map(display);
        let (sub, sid, org) = match &self.caller {
            Some(caller) => (caller.sub(), Some(caller.sid()), caller.org()),
            None => (None, None, None),
        };
        tracing::info!(
            target: TARGET,
            began = %humantime::format_rfc3339_millis(began),
            request_id = %self.id,
            trace_id = self.trace.as_ref().map(|trace| display(trace.own.trace)),
            route = recorder.metrics.names().routes[self.route.index()],
            method = %Escaped(self.method.as_str().as_bytes()),
            host,
            path,
            status = self.outcome.map_or(499, |outcome| outcome.status.as_u16()),
            code = (!code.is_empty()).then_some(code),
            reason = self.outcome.and_then(|outcome| outcome.reason),
            cause = self.cause.as_deref(),
            body = self.outcome.map(|_| self.body_end.as_str()),
            credential = self.credential.map(CredentialKind::as_str),
            verdict = self.verdict.map(Verdict::as_str),
            token = self.lookups.iter().next().map(|_| display(self.lookups)),
            degraded = self.degraded.then_some(true),
            retried = self.retried.then_some(true),
            total_ms = millis(total),
            overhead_ms = millis(self.overhead(total)),
            upstream_ms = (!self.upstream_wait.is_zero()).then(|| millis(self.upstream_wait)),
            bytes = self.bytes,
            received = self.received,
            peer = %self.peer,
            sub = sub.and_then(|id| shown(recorder.identity, id)).map(display),
            sid = sid.and_then(|id| shown(recorder.identity, id)).map(display),
            org = org.and_then(|id| shown(recorder.identity, id)).map(display),
            "request"
        );
    }
}
