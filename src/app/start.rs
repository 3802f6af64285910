//! Why a gateway does not start.

use super::issuance::IssuanceError;
use crate::address::{BoundAddress, ListenAddress};
use crate::listener::bound::BindError;
use crate::secret::NotHeaderSafe;
use crate::traces::client;
use crate::transport::tls::client::UpstreamTlsError;
use crate::transport::tls::server::ServerTlsError;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// What was asked for.
        address: ListenAddress,
        /// Why not.
        #[source]
        source: BindError,
    },
    /// Secret keys and tokens would pass in clear text.
    #[error("other machines could reach [token_api] at {0} in clear text: it needs `tls` there")]
    Exposed(BoundAddress),
    /// The files of a listener's `tls` cannot be used.
    #[error("cannot serve TLS")]
    Tls(#[source] ServerTlsError),
    /// Some upstream's `tls` cannot be used.
    #[error("cannot set up TLS")]
    UpstreamTls(#[source] UpstreamTlsError),
    /// The issuer cannot be called, or its key not be used.
    #[error(transparent)]
    Issuance(#[from] IssuanceError),
    /// There is no way to the collector of traces.
    #[error("cannot send traces")]
    Traces(#[source] client::BuildError),
    /// A fixed value cannot stand in a header.
    #[error("a value of a route's inject cannot stand in a header")]
    Value(#[source] NotHeaderSafe),
    /// A worker cannot be started.
    #[error("cannot start the workers")]
    Workers(#[source] std::io::Error),
}
