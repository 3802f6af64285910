//! `retry_rejected`, validated: by which answers an upstream says that it did not take a token.

use http::StatusCode;

use crate::config::pointer::Pointer;

/// `retry_rejected`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryRejected {
    /// Answers that mean 'the token was refused, and nothing was done'; with `json`, those that may mean it.
    pub statuses: Vec<StatusCode>,
    /// What such an answer has to say besides. `None`: its status says it all.
    pub json: Option<JsonMatch>,
    /// Bytes of a request's body that are kept for it, and of an answer's that are read for `json`.
    pub max_body: usize,
}

/// `json = { ... }`: one of these values stands at the pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonMatch {
    /// Where it stands.
    pub pointer: Pointer,
    /// Which they are; never none.
    pub equals: Vec<Scalar>,
}

/// A value that holds no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A whole number, written without a fraction or an exponent.
    Integer(i64),
    /// `true` or `false`.
    Flag(bool),
}
