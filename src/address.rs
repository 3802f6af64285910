//! The two ends of a downstream connection, and what a listener is asked for: TCP addresses and Unix sockets.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Where a listener shall listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// Port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// The path of a Unix socket, `unix:/path`.
    Unix(Arc<Path>),
    /// The sockets that systemd passes under this name (`FileDescriptorName=`), `systemd:NAME`.
    Systemd(Arc<str>),
}

/// Where a listener does listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundAddress {
    /// With the real port.
    Tcp(SocketAddr),
    /// The path of a Unix socket; empty for one without a path.
    Unix(Arc<Path>),
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A process of this machine, of which nothing more is known.
    Unix,
}

// === impl ListenAddress ===

impl ListenAddress {
    /// Whether other machines can reach it. Of systemd's sockets nothing is known.
    pub fn is_exposed(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

// === impl BoundAddress ===

impl BoundAddress {
    /// The TCP address, where it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether only this machine can reach it: a Unix socket, or a loopback address.
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

// === impl Display ===

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}
