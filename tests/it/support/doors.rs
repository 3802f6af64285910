//! Where the upstreams of a test listen.

use std::net::SocketAddr;
use std::path::Path;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::wire::Stream;

/// A listening socket.
pub(crate) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who has come through one.
pub(crate) enum Guest {
    Tcp(TcpStream),
    Unix(UnixStream),
}

// === impl Door ===

impl Door {
    /// TCP on a port that the kernel chooses.
    pub(crate) async fn tcp() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        Self::Tcp(TcpListener::bind(address).await.unwrap())
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::Unix(UnixListener::bind(path).unwrap())
    }

    /// Its address; a Unix socket has none, and tells nobody's.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(listener) => listener.local_addr().unwrap(),
            Self::Unix(_) => "0.0.0.0:0".parse().unwrap(),
        }
    }

    /// The next connection; `None`: there will be none.
    pub(crate) async fn guest(&self) -> Option<Guest> {
        Some(match self {
            Self::Tcp(listener) => Guest::Tcp(listener.accept().await.ok()?.0),
            Self::Unix(listener) => Guest::Unix(listener.accept().await.ok()?.0),
        })
    }
}

// === impl Guest ===

impl Guest {
    /// The stream; `None`: it never came about.
    pub(crate) fn stream(self) -> Option<Box<dyn Stream>> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true).ok()?;
                Some(Box::new(stream))
            }
            Self::Unix(stream) => Some(Box::new(stream)),
        }
    }
}
