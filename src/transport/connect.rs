//! Connects to an upstream within its time.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::UpstreamAddress;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Resolving or connecting failed.
    #[error("cannot connect to {address}")]
    Failed {
        /// `host:port`
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It took longer than `connect_timeout`.
    #[error("connecting to {address} took longer than {} ms", .after.as_millis())]
    TimedOut {
        /// `host:port`
        address: String,
        /// The limit.
        after: Duration,
    },
    /// The HTTP/2 preface failed.
    #[error("{address} does not speak the configured HTTP version")]
    Handshake {
        /// `host:port`
        address: String,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
}

/// A TCP connection; names are resolved and every address is tried in turn.
pub async fn connect(address: &UpstreamAddress, within: Option<Duration>) -> Result<TcpStream, ConnectError> {
    let shown = || address.authority.to_string();
    let dial = TcpStream::connect((address.host.as_str(), address.port));
    let dialled = match within {
        Some(limit) => tokio::time::timeout(limit, dial)
            .await
            .map_err(|_| ConnectError::TimedOut { address: shown(), after: limit })?,
        None => dial.await,
    };
    let failed = |source| ConnectError::Failed { address: shown(), source };
    let stream = dialled.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}
