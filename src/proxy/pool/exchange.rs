//! What pools of either protocol are asked, and how they fail.

use http::Request;

use crate::transport::body::RequestBody;

/// Which connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// An idle one, else a new one.
    Any,
    /// A new one: the last one turned out to be dead, and its neighbours are as old.
    New,
    /// A new one that speaks HTTP/1.1, serves no other request and may become a tunnel.
    Own,
}

/// What is spoken on a connection. Over TLS it is known only once there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// Why a request got no response head.
#[derive(Debug)]
pub struct SendError {
    /// What hyper said.
    pub error: hyper::Error,
    /// The request, when nothing of it was sent.
    pub unsent: Option<Request<RequestBody>>,
    /// Whether a byte of the answer had arrived. Certain on HTTP/1; on HTTP/2 true unless the stream was refused unseen.
    pub answered: bool,
}
