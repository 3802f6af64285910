//! A decision as an answer over HTTP, for proxies that read its headers.

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderName, HeaderValue};

use crate::authz::changes::Changes;

/// In which Envoy is told what to remove (its `external_auth.proto`, `OkHttpResponse.headers_to_remove`).
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// For a proxy that copies what it finds in the answer: an empty header is one to remove, and what is not there is none
/// that it may forward.
pub fn in_headers(changes: Changes) -> Response<Bytes> {
    let mut answer = allowed();
    let headers = answer.headers_mut();
    headers.reserve(changes.removed.len() + changes.kept.len() + changes.set.len());
    for name in changes.removed {
        headers.insert(name, HeaderValue::from_static(""));
    }
    // Last, so that what is set is what is said.
    for (name, value) in changes.kept.into_iter().chain(changes.set) {
        headers.insert(name, value);
    }
    answer
}

/// For Envoy, which leaves alone what is not told of.
pub fn for_envoy(changes: Changes) -> Response<Bytes> {
    let mut answer = allowed();
    let headers = answer.headers_mut();
    let removed: Vec<&str> = changes.removed.iter().map(HeaderName::as_str).collect();
    // Header names joined by commas are a valid header value.
    if let Ok(list) = HeaderValue::try_from(removed.join(", ")) {
        headers.insert(TO_REMOVE, list);
    }
    for (name, value) in changes.set {
        headers.insert(name, value);
    }
    answer
}

fn allowed() -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    // It holds a token.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
