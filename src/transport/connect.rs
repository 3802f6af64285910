//! Connects to an upstream within its time.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::config::{Place, UpstreamAddress};
use crate::transport::io::Stream;

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

/// A connection; names are resolved and every address behind one is tried in turn.
///
/// # Errors
/// When there is none within its time.
pub async fn connect(address: &UpstreamAddress, within: Option<Duration>) -> Result<Stream, ConnectError> {
    let dial = dial(&address.place);
    let dialled = match within {
        Some(limit) => tokio::time::timeout(limit, dial)
            .await
            .map_err(|_| ConnectError::TimedOut { address: address.to_string(), after: limit })?,
        None => dial.await,
    };
    dialled.map_err(|source| ConnectError::Failed { address: address.to_string(), source })
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
