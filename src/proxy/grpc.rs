//! gRPC, as far as the gateway has to know it.

use http::header::{self, HeaderValue};
use http::request::Parts;

/// Whether this is a gRPC call, which wants its errors as gRPC statuses.
pub fn is_grpc(head: &Parts) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
