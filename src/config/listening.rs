//! What listeners of every kind have in common: their certificate, and whom they believe.

use ipnet::IpNet;

use crate::address::PeerAddress;
use crate::file::File;

/// `tls = { ... }` of a listener, with its files read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM, the leaf first.
    pub cert: File,
    /// The leaf's private key, PEM.
    pub key: File,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
}

/// `client_auth`, with `client_ca` where it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    Off,
    /// One is asked for; one that is shown must be good.
    Optional(File),
    /// Without a good one there is no connection.
    Required(File),
}

/// Peers that are believed: `trusted_proxies`, `allow_from`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Address ranges.
    pub networks: Vec<IpNet>,
    /// Whoever may connect to a Unix socket.
    pub unix: bool,
}

// === impl Tls, ClientAuth ===

impl Tls {
    /// Every file of it.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        [&self.cert, &self.key].into_iter().chain(self.client_auth.ca())
    }
}

impl ClientAuth {
    /// The authorities that sign clients' certificates, where they are asked for.
    pub fn ca(&self) -> Option<&File> {
        match self {
            Self::Off => None,
            Self::Optional(ca) | Self::Required(ca) => Some(ca),
        }
    }
}

// === impl Trusted ===

impl Trusted {
    /// Whether this peer is one of them.
    pub fn trusts(&self, peer: PeerAddress) -> bool {
        match peer {
            PeerAddress::Unix => self.unix,
            PeerAddress::Tcp(address) => {
                let ip = address.ip().to_canonical();
                self.networks.iter().any(|network| network.contains(&ip))
            }
        }
    }
}
