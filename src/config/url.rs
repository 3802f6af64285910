//! Where the issuer is, and which origins are the application's.

use std::sync::Arc;

/// An absolute `http` or `https` URL without user info, query, fragment or trailing slash; `http` only to loopback.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiUrl(pub(crate) Arc<str>);

/// A serialised web origin, lower case: `https://app.example.com`, with a port where it is not the default one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(pub(crate) String);

// === impl ApiUrl ===

impl ApiUrl {
    /// The URL, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Origin ===

impl Origin {
    /// The origin as a browser sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
