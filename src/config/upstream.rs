//! `[upstreams]`, validated: where an upstream listens, what is spoken with it, and what it is spared.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use rustls_pki_types::ServerName;

use crate::file::File;
use crate::headers::NameSet;
use crate::metrics::UpstreamId;

/// `[upstreams.NAME]`
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its place in metrics.
    pub id: UpstreamId,
    /// The name, or the URL when it was written into a route.
    pub name: String,
    /// A request may go to any of them.
    pub addresses: Addresses,
    /// What is spoken on its connections.
    pub wire: Wire,
    /// To a connection.
    pub connect_timeout: Option<Duration>,
    /// From the request's end to the response head.
    pub response_timeout: Option<Duration>,
    /// Connections of one worker.
    pub pool: Pool,
    /// The whole request head that this upstream accepts, in bytes.
    pub max_header_bytes: usize,
    /// Never taken from a caller.
    pub remove_headers: NameSet,
}

/// What is spoken on an upstream's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1 in clear text.
    Http1,
    /// HTTP/2 in clear text, with prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// TLS; ALPN decides which version of HTTP.
    Tls(UpstreamTls),
}

/// `tls = { ... }` of an upstream, with its files read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whose certificates are believed; absent: the machine's own roots.
    pub ca: Option<File>,
    /// What is presented to an upstream that asks for it.
    pub identity: Option<ClientIdentity>,
    /// The name that is asked for (SNI) and that the certificate must have, for each address in its order.
    pub names: Box<[ServerName<'static>]>,
    /// Only HTTP/2 will do.
    pub http2_only: bool,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The chain, PEM, the leaf first.
    pub cert: File,
    /// The leaf's private key, PEM.
    pub key: File,
}

/// At least one address, all of one scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<UpstreamAddress>);

/// Where an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// Where a connection leads.
    pub place: Place,
    /// `host[:port]` as it stands in `Host`.
    pub authority: Authority,
    /// Whether it can only be this machine: then the caller's `Host` is kept by default.
    pub loopback: bool,
}

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Tcp {
        /// A name or an address literal (IPv6 without brackets).
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// `pool = { ... }`, for one worker and one address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections that are kept.
    pub max_idle: usize,
    /// After which an idle one is closed. Shorter than the upstream's own: Node closes at 5 s.
    pub idle_timeout: Option<Duration>,
    /// Open ones at most; `None`: no limit.
    pub max_connections: Option<usize>,
    /// HTTP/2 streams on one.
    pub max_streams: usize,
}

// === impl Upstream ===

impl Upstream {
    /// Whether connections of one serve the other as well: everything that they depend on is the same. Where files of TLS
    /// are looked at again, each configuration looks for itself.
    pub fn shares_connections_with(&self, other: &Self) -> bool {
        let has_files = matches!(&self.wire, Wire::Tls(tls) if tls.files().next().is_some());
        !has_files
            && self.addresses == other.addresses
            && self.wire == other.wire
            && self.connect_timeout == other.connect_timeout
            && self.response_timeout == other.response_timeout
            && self.pool == other.pool
            && self.max_header_bytes == other.max_header_bytes
            && self.name == other.name
    }
}

// === impl UpstreamTls ===

impl UpstreamTls {
    /// Every file that it was read from.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.ca.iter().chain(self.identity.iter().flat_map(|identity| [&identity.cert, &identity.key]))
    }

    /// The same out of these files, which stand as [`UpstreamTls::files`] gives them.
    pub fn with(&self, files: &[File]) -> Self {
        let mut files = files.iter().cloned();
        let mut next = |old: &File| files.next().unwrap_or_else(|| old.clone());
        Self {
            ca: self.ca.as_ref().map(&mut next),
            identity: self.identity.as_ref().map(|old| ClientIdentity { cert: next(&old.cert), key: next(&old.key) }),
            ..self.clone()
        }
    }
}

// === impl Addresses ===

impl Addresses {
    /// These addresses; `None`: there is none.
    pub fn new(addresses: Vec<UpstreamAddress>) -> Option<Self> {
        (!addresses.is_empty()).then_some(Self(addresses))
    }
}

impl From<UpstreamAddress> for Addresses {
    fn from(one: UpstreamAddress) -> Self {
        Self(vec![one])
    }
}

impl Deref for Addresses {
    type Target = [UpstreamAddress];

    fn deref(&self) -> &[UpstreamAddress] {
        &self.0
    }
}

// === impl UpstreamAddress ===

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { .. } => f.write_str(self.authority.as_str()),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
