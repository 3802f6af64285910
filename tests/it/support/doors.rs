//! Where the upstreams of a test listen.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use tokio_rustls::TlsAcceptor;

use super::wire::Stream;

/// A listening socket.
pub(crate) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
    Tls(TcpListener, TlsAcceptor, Handshakes),
}

/// What the handshakes at a door have shown.
#[derive(Clone, Default)]
pub(crate) struct Handshakes(Arc<Mutex<Vec<Shaken>>>);

/// A handshake that came about.
#[derive(Debug, Clone)]
pub(crate) struct Shaken {
    /// A session was resumed.
    pub(crate) resumed: bool,
    /// Which name was asked for.
    pub(crate) name: Option<String>,
    /// What was presented.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

/// Who has come through one.
pub(crate) enum Guest {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(TcpStream, TlsAcceptor, Handshakes),
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

    /// TLS on a port that the kernel chooses.
    pub(crate) async fn tls(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::Tls(listener, TlsAcceptor::from(Arc::new(config)), Handshakes::default())
    }

    /// The handshakes at a door with TLS.
    pub(crate) fn handshakes(&self) -> Handshakes {
        match self {
            Self::Tls(_, _, handshakes) => handshakes.clone(),
            Self::Tcp(_) | Self::Unix(_) => panic!("this door has no TLS"),
        }
    }

    /// Its address; a Unix socket has none, and tells nobody's.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, ..) => listener.local_addr().unwrap(),
            Self::Unix(_) => "0.0.0.0:0".parse().unwrap(),
        }
    }

    /// The next connection; `None`: there will be none.
    pub(crate) async fn guest(&self) -> Option<Guest> {
        Some(match self {
            Self::Tcp(listener) => Guest::Tcp(listener.accept().await.ok()?.0),
            Self::Unix(listener) => Guest::Unix(listener.accept().await.ok()?.0),
            Self::Tls(listener, acceptor, handshakes) => {
                Guest::Tls(listener.accept().await.ok()?.0, acceptor.clone(), handshakes.clone())
            }
        })
    }
}

// === impl Guest ===

impl Guest {
    /// The stream; `None`: it never came about.
    pub(crate) async fn stream(self) -> Option<Box<dyn Stream>> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true).ok()?;
                Some(Box::new(stream))
            }
            Self::Unix(stream) => Some(Box::new(stream)),
            Self::Tls(stream, acceptor, handshakes) => {
                stream.set_nodelay(true).ok()?;
                let stream = acceptor.accept(stream).await.ok()?;
                handshakes.note(stream.get_ref().1);
                Some(Box::new(stream))
            }
        }
    }
}

// === impl Handshakes ===

impl Handshakes {
    fn note(&self, connection: &ServerConnection) {
        self.0.lock().unwrap().push(Shaken {
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            name: connection.server_name().map(str::to_owned),
            certificate: connection
                .peer_certificates()
                .and_then(|chain| chain.first())
                .cloned()
                .map(CertificateDer::into_owned),
        });
    }

    /// All of them, in order.
    pub(crate) fn all(&self) -> Vec<Shaken> {
        self.0.lock().unwrap().clone()
    }
}
