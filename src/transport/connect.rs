//! Connects to an upstream within its time: TCP, a Unix socket, TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::{Place, UpstreamAddress};
use crate::transport::io::Stream;
use crate::transport::tls::client::{ClientTls, Offer};

/// A Unix socket whose backlog is full refuses at once; after so long it is tried again.
const FULL_BACKLOG: Duration = Duration::from_millis(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Resolving or connecting failed.
    #[error("cannot connect to {address}")]
    Failed {
        /// `host:port`, or the path of a socket.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It took longer than `connect_timeout`.
    #[error("connecting to {address} took longer than {} ms", .after.as_millis())]
    TimedOut {
        /// `host:port`, or the path of a socket.
        address: String,
        /// The limit.
        after: Duration,
    },
    /// The handshake of TLS failed: a certificate that is not believed, a name that it does not have, or an alert.
    #[error("no TLS with {address}")]
    Tls {
        /// `host:port`
        address: String,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// ALPN did not choose HTTP/2, and nothing else will do.
    #[error("{address} does not speak HTTP/2 over TLS, which `http2 = true` asks for")]
    NotHttp2 {
        /// `host:port`
        address: String,
    },
    /// The HTTP/2 preface failed.
    #[error("{address} does not speak the configured HTTP version")]
    Handshake {
        /// `host:port`, or the path of a socket.
        address: String,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
}

/// What a connection over TLS needs beside its address.
#[derive(Debug, Clone, Copy)]
pub struct Secure<'a> {
    /// Whom to believe, what to present.
    pub tls: &'a ClientTls,
    /// Who has to answer.
    pub name: &'a ServerName<'static>,
    /// In which version of HTTP.
    pub offer: Offer,
}

/// A connection; names are resolved and every address behind one is tried in turn. The handshake of TLS is part of the
/// time.
///
/// # Errors
/// When there is none within its time.
pub async fn connect(
    address: &UpstreamAddress,
    secure: Option<Secure<'_>>,
    within: Option<Duration>,
) -> Result<Stream, ConnectError> {
    let connecting = async {
        let failed = |source| ConnectError::Failed { address: address.to_string(), source };
        match (dial(&address.place).await.map_err(failed)?, secure) {
            (Stream::Tcp(stream), Some(secure)) => shake_hands(address, stream, secure).await,
            (stream, _) => Ok(stream),
        }
    };
    match within {
        Some(limit) => tokio::time::timeout(limit, connecting)
            .await
            .unwrap_or_else(|_| Err(ConnectError::TimedOut { address: address.to_string(), after: limit })),
        None => connecting.await,
    }
}

async fn dial(place: &Place) -> io::Result<Stream> {
    match place {
        Place::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Place::Unix(path) => loop {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(FULL_BACKLOG).await,
                connected => return connected.map(Stream::Unix),
            }
        },
    }
}

async fn shake_hands(address: &UpstreamAddress, stream: TcpStream, secure: Secure<'_>) -> Result<Stream, ConnectError> {
    let connector = TlsConnector::from(Arc::clone(secure.tls.config(secure.offer)));
    let shaken = connector.connect(secure.name.clone(), stream).await;
    let stream = shaken.map_err(|source| ConnectError::Tls { address: address.to_string(), source })?;
    Ok(Stream::Tls(Box::new(stream)))
}
