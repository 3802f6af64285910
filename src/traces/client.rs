//! One message to the collector, over gRPC or over HTTP, and what its answer means.
//!
//! No redirects, no proxies from the environment, no compression. It connects by hyper, as the client of the issuer does: what
//! is needed of gRPC is one call with a prefix of five bytes, so it takes no library of its own.

use std::error::Error;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use prost::Message;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::otlp::{ExportTraceServiceResponse, RetryInfo, RpcStatus};
use crate::clock::Clock;
use crate::config::{self, OtlpProtocol};
use crate::grpc;
use crate::lifecycle::Spawner;
use crate::transport::tls::{provider, roots};

/// Bytes of an answer; a collector says `{}`, or why not.
const MAX_ANSWER: usize = 64 * 1024;

/// An idle connection is kept so long: longer than between two batches.
const IDLE: Duration = Duration::from_secs(30);

/// Pings on HTTP/2, and probes on TCP, so that a connection that died silently is found.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Peers leave the padding of `-bin` values out, and may not.
const BINARY: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Taken, apart from so many spans.
    Taken {
        /// Spans that were not.
        rejected: u64,
    },
    /// Another attempt may do better, not before this.
    Later(Option<Duration>),
    /// It will never be taken.
    Refused,
}

/// Takes messages; a collector, or what a test puts in its place.
pub trait Deliver: Send + Sync + 'static {
    /// Delivers an `ExportTraceServiceRequest`. What went wrong is told beside.
    fn deliver(&self, message: Bytes) -> impl Future<Output = (Delivery, Option<String>)> + Send;
}

/// Why there is no client for the collector.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up for traces.endpoint")]
    Tls(#[source] rustls::Error),
    /// The machine has no trust roots, so no collector could be trusted.
    #[error("no trust roots were found on this machine for traces.endpoint; install its CA certificates")]
    NoRoots,
    /// A value could not stand in a header.
    #[error("a value of traces.headers cannot stand in a header")]
    Header(#[source] crate::secret::NotHeaderSafe),
}

/// The way to the collector.
#[derive(Debug)]
pub struct Collector {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    protocol: OtlpProtocol,
    timeout: Duration,
    clock: Clock,
}

// === impl Collector ===

impl Collector {
    /// Connects when there is something to deliver. `connections` runs what is connected; nobody should wait for that.
    ///
    /// # Errors
    /// When TLS or a header cannot be set up.
    pub fn new(config: &config::Traces, clock: Clock, connections: Spawner) -> Result<Self, BuildError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.timeout));
        tcp.set_keepalive(Some(PING_EVERY));
        let https = config.url.scheme() == Some(&http::uri::Scheme::HTTPS);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(https)?).https_or_http();
        let grpc = config.protocol == OtlpProtocol::Grpc;
        let connector = if grpc {
            builder.enable_http2().wrap_connector(tcp)
        } else {
            builder.enable_all_versions().wrap_connector(tcp)
        };
        let http = legacy::Client::builder(connections)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            // In clear text nothing else says so.
            .http2_only(grpc)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http1_max_buf_size(MAX_ANSWER)
            .build(connector);
        let headers = headers(config)?;
        Ok(Self { http, url: config.url.clone(), headers, protocol: config.protocol, timeout: config.timeout, clock })
    }

    async fn exchange(&self, message: Bytes) -> Result<(Delivery, Option<String>), Box<dyn Error + Send + Sync>> {
        let body = match self.protocol {
            OtlpProtocol::Http => message,
            OtlpProtocol::Grpc => framed(&message),
        };
        let mut request = Request::post(self.url.clone()).body(Full::new(body))?;
        request.headers_mut().clone_from(&self.headers);
        let (head, body) = self.http.request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        Ok(match self.protocol {
            OtlpProtocol::Http => of_http(head.status, &head.headers, &body, &self.clock),
            OtlpProtocol::Grpc => of_grpc(head.status, trailers.as_ref().unwrap_or(&head.headers), body),
        })
    }
}

impl Deliver for Collector {
    async fn deliver(&self, message: Bytes) -> (Delivery, Option<String>) {
        match timeout(self.timeout, self.exchange(message)).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => (Delivery::Later(None), Some(crate::telemetry::chain(&*error))),
            Err(_) => (Delivery::Later(None), Some("the collector did not answer in time".to_owned())),
        }
    }
}

fn headers(config: &config::Traces) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    let agent = concat!("mintgate/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    let kind = match config.protocol {
        OtlpProtocol::Http => "application/x-protobuf",
        OtlpProtocol::Grpc => {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            // At most eight digits; a number of milliseconds is a header value.
            let millis = config.timeout.as_millis().min(99_999_999);
            if let Ok(limit) = HeaderValue::try_from(format!("{millis}m")) {
                headers.insert(GRPC_TIMEOUT, limit);
            }
            "application/grpc"
        }
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in &config.headers {
        headers.insert(name.clone(), value.header("").map_err(BuildError::Header)?);
    }
    Ok(headers)
}

fn tls(https: bool) -> Result<ClientConfig, BuildError> {
    let roots = if https { roots::of_the_machine() } else { RootCertStore::empty() };
    if https && roots.is_empty() {
        return Err(BuildError::NoRoots);
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Ok(builder.map_err(BuildError::Tls)?.with_root_certificates(roots).with_no_client_auth())
}

fn framed(message: &[u8]) -> Bytes {
    [&grpc::prefix(message.len()), message].concat().into()
}

/// What was taken, of an answer that says that something was.
fn taken(message: &[u8]) -> Delivery {
    // What cannot be read says no more than that it was taken.
    let rejected = ExportTraceServiceResponse::decode(message).ok().and_then(|answer| answer.partial_success);
    Delivery::Taken { rejected: rejected.map_or(0, |part| u64::try_from(part.rejected_spans).unwrap_or(0)) }
}

fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8], clock: &Clock) -> (Delivery, Option<String>) {
    let said = || Some(format!("the collector answered with status {}", status.as_u16()));
    match status.as_u16() {
        200..=299 => (taken(body), None),
        429 | 502..=504 => (Delivery::Later(retry_after(headers, clock)), said()),
        _ => (Delivery::Refused, said()),
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, clock: &Clock) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok().map(|date| date.duration_since(clock.wall().to_system()).unwrap_or_default())
}

fn of_grpc(status: StatusCode, trailers: &HeaderMap, body: Bytes) -> (Delivery, Option<String>) {
    let code = trailers.get(grpc::STATUS).and_then(|value| value.to_str().ok()?.parse::<u16>().ok());
    let said = |what| Some(format!("the collector answered with {what}"));
    let Some(code) = code else {
        // Something between that speaks no gRPC (its statuses, as gRPC maps them).
        let later = matches!(status.as_u16(), 429 | 502..=504);
        let delivery = if later { Delivery::Later(None) } else { Delivery::Refused };
        return (delivery, said(format!("status {} and no grpc-status", status.as_u16())));
    };
    let delivery = match code {
        0 => return (taken(&grpc::unframed(body).unwrap_or_default()), None),
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        1 | 4 | 10 | 11 | 14 | 15 => Delivery::Later(retry_info(trailers)),
        // RESOURCE_EXHAUSTED: only where it says that it will recover.
        8 => retry_info(trailers).map_or(Delivery::Refused, |after| Delivery::Later(Some(after))),
        _ => Delivery::Refused,
    };
    (delivery, said(format!("grpc-status {code}")))
}

fn retry_info(trailers: &HeaderMap) -> Option<Duration> {
    let bytes = BINARY.decode(trailers.get(GRPC_DETAILS)?.as_bytes()).ok()?;
    let details = RpcStatus::decode(&*bytes).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?.min(999_999_999)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::otlp::{Detail, PartialSuccess, Period};

    fn trailers(code: &str, details: Option<RpcStatus>) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert(grpc::STATUS, HeaderValue::from_str(code).unwrap());
        if let Some(details) = details {
            let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(details.encode_to_vec());
            trailers.insert(GRPC_DETAILS, HeaderValue::from_str(&text).unwrap());
        }
        trailers
    }

    fn after(seconds: i64) -> RpcStatus {
        let info = RetryInfo { retry_delay: Some(Period { seconds, nanos: 500_000_000 }) };
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        RpcStatus { details: vec![Detail { type_url, value: info.encode_to_vec() }] }
    }

    /// Fails where a status that OTLP calls retryable is given up, or another one is repeated.
    #[test]
    fn what_grpc_answers_is_repeated_or_not_as_otlp_says() {
        let of = |code: &str, details| of_grpc(StatusCode::OK, &trailers(code, details), Bytes::new()).0;
        for later in ["1", "4", "10", "11", "14", "15"] {
            assert_eq!(of(later, None), Delivery::Later(None), "{later}");
            assert_eq!(of(later, Some(after(7))), Delivery::Later(Some(Duration::from_millis(7500))), "{later}");
        }
        for never in ["2", "3", "5", "6", "7", "8", "9", "12", "13", "16", "99"] {
            assert_eq!(of(never, None), Delivery::Refused, "{never}");
        }
        assert_eq!(of("8", Some(after(2))), Delivery::Later(Some(Duration::from_millis(2500))));
        assert_eq!(of("14", Some(after(-1))), Delivery::Later(None));
        assert_eq!(of_grpc(StatusCode::BAD_GATEWAY, &HeaderMap::new(), Bytes::new()).0, Delivery::Later(None));
        assert_eq!(of_grpc(StatusCode::NOT_FOUND, &HeaderMap::new(), Bytes::new()).0, Delivery::Refused);
    }

    #[test]
    fn what_http_answers_is_repeated_or_not_as_otlp_says() {
        let clock = Clock::system();
        let date = httpdate::fmt_http_date(clock.wall().plus(Duration::from_mins(1)).to_system());
        let of = |status: u16, after: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(after) = after {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_str(after).unwrap());
            }
            of_http(StatusCode::from_u16(status).unwrap(), &headers, b"", &clock).0
        };
        for later in [429, 502, 503, 504] {
            assert_eq!(of(later, None), Delivery::Later(None), "{later}");
            assert_eq!(of(later, Some("7")), Delivery::Later(Some(Duration::from_secs(7))), "{later}");
        }
        let Delivery::Later(Some(wait)) = of(503, Some(&date)) else { panic!("a date") };
        assert!(wait <= Duration::from_mins(1) && wait > Duration::from_secs(50), "{wait:?}");
        assert_eq!(of(503, Some("soon")), Delivery::Later(None));
        // A redirect is no place to go with the headers of another one.
        for never in [301, 307, 400, 401, 403, 404, 413, 500, 501] {
            assert_eq!(of(never, Some("7")), Delivery::Refused, "{never}");
        }
    }

    #[test]
    fn what_was_not_taken_is_told() {
        let answer = ExportTraceServiceResponse { partial_success: Some(PartialSuccess { rejected_spans: 3 }) };
        let (message, clock) = (answer.encode_to_vec(), Clock::system());
        let taken = |rejected| (Delivery::Taken { rejected }, None);
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), &message, &clock), taken(3));
        assert_eq!(of_grpc(StatusCode::OK, &trailers("0", None), framed(&message)), taken(3));
        assert_eq!(of_grpc(StatusCode::OK, &trailers("0", None), Bytes::new()), taken(0));
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), b"{}", &clock), taken(0));
    }
}
