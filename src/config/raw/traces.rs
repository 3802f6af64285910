//! `[traces]` as it is written: which requests leave spans, and where these go.

use super::describe::Form::{Duration, Words};
use super::reader::{Field, Read, Reader, Table, tables};
use super::shapes::{Named, SecretRef};

tables! {
    /// OpenTelemetry traces, sent by OTLP; without this section there are none, and `traceparent` passes as it came. OpenTelemetry's
    /// own variables are not read, but every text takes them, as in `"${OTEL_EXPORTER_OTLP_ENDPOINT}"`.
    Traces at "traces" {
        /// The collector; with `protocol = "http"` what comes before `/v1/traces`, and then the default is `"http://127.0.0.1:4318"`.
        /// In clear text to any machine: spans hold no token, but paths and what `log.identity` lets them.
        endpoint: String = "http://127.0.0.1:4317",
        /// `http`: binary messages in a POST.
        protocol: String = "grpc" as Words(&["grpc", "http"]),
        /// The part of requests that is recorded. Where a peer of `server.trusted_proxies` sends a `traceparent`, that decides instead.
        sample: f64 = 0.1,
        /// What these spans are the service of.
        service: String = "mintgate",
        /// What each message carries besides, as a token for the collector.
        headers: Named<SecretRef>,
        /// One attempt to send a batch, and at the end of the process the last ones together.
        timeout: String = "10s" as Duration,
    }
}
