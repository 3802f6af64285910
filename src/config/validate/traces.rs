//! `[traces]`: the collector, and what is sent to it.

use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, header};

use crate::config::raw;
use crate::config::raw::reader::{At, Field};
use crate::config::raw::shapes::{Named, SecretRef};
use crate::config::{OtlpProtocol, Traces};
use crate::headers::HOP_BY_HOP;
use crate::secret::Secret;

use super::clerk::part;
use super::context::Context;
use super::net;

/// The method that takes spans, of `opentelemetry/proto/collector/trace/v1/trace_service.proto`.
const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP: &str = "/v1/traces";

/// The section, which is off when it is absent.
pub(crate) fn read(field: Field<raw::Traces>, cx: &mut Context<'_>) -> Option<Traces> {
    let Field::Good(At { value: raw, .. }) = field else { return None };
    let protocols = [("grpc", OtlpProtocol::Grpc), ("http", OtlpProtocol::Http)];
    let protocol = cx.choice(&raw.protocol, &protocols, OtlpProtocol::Grpc);
    let url = url(&raw.endpoint, protocol, cx);
    let headers = headers(&raw.headers, cx);
    if let (Some(at), Some(endpoint), false) = (raw.headers.get(), &url, headers.is_empty())
        && endpoint.scheme_str() == Some("http")
        && !endpoint.host().is_some_and(net::is_loopback)
    {
        cx.problems
            .warning(&at.span, "these secrets go to the collector in clear text")
            .advice("write an `endpoint` that begins with https");
    }
    let service = raw.service.or("mintgate".to_owned());
    if let (Some(at), true) = (raw.service.get(), service.is_empty()) {
        cx.error(&at.span, "a service has a name");
    }
    let sample = part(&raw.sample, 0.1, cx);
    let timeout = cx.period(&raw.timeout, Duration::from_secs(10), Duration::from_millis(1));
    Some(Traces { url: url?, protocol, sample, service, headers, timeout })
}

/// The whole URL; `None` where that was reported.
fn url(field: &Field<String>, protocol: OtlpProtocol, cx: &mut Context<'_>) -> Option<Uri> {
    let (usual, path) = match protocol {
        OtlpProtocol::Grpc => ("http://127.0.0.1:4317", GRPC),
        OtlpProtocol::Http => ("http://127.0.0.1:4318", HTTP),
    };
    let text = field.or(usual.to_owned());
    let uri = match (net::absolute(&text), field.get()) {
        (Ok((uri, _)), _) => uri,
        (Err(bad), at) => {
            if let Some(at) = at {
                cx.error(&at.span, bad.to_string()).advice(format!("write \"{usual}\""));
            }
            return None;
        }
    };
    let base = uri.path().trim_end_matches('/').to_owned();
    let problem = match protocol {
        OtlpProtocol::Grpc if !base.is_empty() => Some("over gRPC the URL of a collector has no path"),
        OtlpProtocol::Http if base.ends_with(HTTP) => Some("this URL ends before `/v1/traces`"),
        OtlpProtocol::Grpc | OtlpProtocol::Http => None,
    };
    if let (Some(problem), Some(at)) = (problem, field.get()) {
        cx.error(&at.span, problem).advice("with protocol = \"http\" it is what comes before `/v1/traces`");
        return None;
    }
    let mut parts = uri.into_parts();
    parts.path_and_query = PathAndQuery::try_from(format!("{base}{path}")).ok();
    Uri::from_parts(parts).ok()
}

fn headers(field: &Field<Named<SecretRef>>, cx: &mut Context<'_>) -> Vec<(HeaderName, Secret)> {
    let ours =
        [header::HOST, header::TE, header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRAILER, header::EXPECT];
    let mut headers = Vec::new();
    for (name, value) in field.get().into_iter().flat_map(|named| &named.0) {
        let advice = "write a header name, such as authorization = { env = \"OTLP_TOKEN\" }";
        let Ok(known) = name.parse::<HeaderName>() else {
            cx.error(&name.span, "not a header name").advice(advice);
            continue;
        };
        if HOP_BY_HOP.contains(&known) || ours.contains(&known) || known.as_str().starts_with("grpc-") {
            cx.error(&name.span, "this header is the message's own").advice("leave it out");
            continue;
        }
        let Some(secret) = cx.secret(value) else { continue };
        if secret.header("").is_err() {
            cx.error(&value.span, "the value holds characters that cannot stand in a header");
        }
        headers.push((known, secret));
    }
    headers
}
