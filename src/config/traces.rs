//! `[traces]`: which requests leave spans, and where these go.

use std::time::Duration;

use http::{HeaderName, Uri};

use crate::secret::Secret;

/// `[traces]`
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// What is asked, with the path of the service.
    pub url: Uri,
    /// What is spoken there.
    pub protocol: OtlpProtocol,
    /// The part of requests that is recorded, 0 to 1.
    pub sample: f64,
    /// `service.name`
    pub service: String,
    /// What each message carries besides, as a token for the collector.
    pub headers: Vec<(HeaderName, Secret)>,
    /// One attempt to send a batch.
    pub timeout: Duration,
}

/// `traces.protocol`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with binary messages.
    Http,
}
