//! gRPC, as far as the gateway has to know it.

use std::error::Error as _;

use http::Method;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;

use crate::grpc::{MESSAGE, STATUS};
use crate::transport::body::AnswerError;

/// The status that means 'try again': unavailable.
pub const UNAVAILABLE: &str = "14";

/// Whether this is a gRPC call, which wants its errors as gRPC statuses. Every call is a POST; a CONNECT would take the 200
/// that they come with for its success.
pub fn is_grpc(head: &Parts) -> bool {
    if head.method != Method::POST {
        return false;
    }
    let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The trailers of an answer that broke off, so that the caller learns what it would learn without us: that the upstream
/// is gone. `None` where the upstream itself has reset the stream: its reason is passed on.
pub fn broken(error: &AnswerError) -> Option<HeaderMap> {
    let message = match error {
        AnswerError::TimedOut => "upstream-timeout",
        AnswerError::Broken(error) => {
            let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
            if causes.any(|cause| cause.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_reset)) {
                return None;
            }
            "upstream-broken"
        }
    };
    let trailers = [(STATUS, UNAVAILABLE), (MESSAGE, message)];
    Some(trailers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect())
}
