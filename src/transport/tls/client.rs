//! The client's side of TLS, towards an upstream: whom it believes, what it presents, which versions of HTTP it offers.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, InconsistentKeys, RootCertStore};

use crate::config::{ClientIdentity, Upstream, UpstreamTls, Wire};
use crate::file::File;
use crate::live::Live;
use crate::transport::tls::pem::{self, PemError};
use crate::transport::tls::reload::{Reload, Reloads};
use crate::transport::tls::{provider, roots};

/// The protocols of ALPN (RFC 7301).
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Everything that a handshake needs, out of one state of the files. Sessions that were begun under one state are not
/// resumed under the next, which may believe somebody else.
#[derive(Debug)]
pub struct ClientTls {
    negotiating: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// What a handshake offers by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2 and, unless the upstream is to speak that alone, HTTP/1.1.
    Negotiate,
    /// HTTP/1.1 alone, for what HTTP/2 cannot carry.
    Http1,
}

/// Why TLS with an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// A file is not what it should be.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Certificate and key do not belong together.
    #[error("the private key in {} is not the one of the certificate in {}", .key.display(), .cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or the key is of a kind that cannot be used.
    #[error("the client certificate in {} cannot be used with its key", .cert.display())]
    Identity {
        /// The certificate's file.
        cert: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The machine has no trust roots, so no upstream could be believed.
    #[error("no trust roots were found on this machine; install its CA certificates or set tls.ca_file")]
    NoRoots,
    /// The library refuses.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// Why TLS with one of the upstreams cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS with the upstream {upstream}")]
pub struct UpstreamTlsError {
    /// Its name.
    pub upstream: String,
    /// What is wrong.
    #[source]
    pub source: ClientTlsError,
}

/// TLS with all upstreams of a configuration.
#[derive(Default)]
pub struct Upstreams {
    /// In the order of the upstreams; `None` for one in clear text.
    pub live: Vec<Option<Live<ClientTls>>>,
    /// What has files that may change.
    pub files: Vec<Box<dyn Reloads>>,
}

// === impl Upstreams ===

impl Upstreams {
    /// Sets TLS up wherever it is spoken. The machine's roots are read once, and only where somebody needs them.
    ///
    /// # Errors
    /// For the first upstream that has one.
    pub fn new(upstreams: &[Upstream]) -> Result<Self, UpstreamTlsError> {
        let mut all = Self::default();
        let mut machine: Option<Arc<RootCertStore>> = None;
        for upstream in upstreams {
            let Wire::Tls(tls) = &upstream.wire else {
                all.live.push(None);
                continue;
            };
            let roots = match tls.ca {
                Some(_) => Arc::new(RootCertStore::empty()),
                None => Arc::clone(machine.get_or_insert_with(|| Arc::new(roots::of_the_machine()))),
            };
            let named = |source| UpstreamTlsError { upstream: upstream.name.clone(), source };
            let (live, reload) = ClientTls::reloading(tls, &roots).map_err(named)?;
            all.live.push(Some(live));
            if let Some(reload) = reload {
                all.files.push(Box::new(reload));
            }
        }
        Ok(all)
    }
}

// === impl ClientTls ===

impl ClientTls {
    /// Out of an upstream's `tls`. `machine`: the roots that are believed where it names no file of them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(tls: &UpstreamTls, machine: &Arc<RootCertStore>) -> Result<Self, ClientTlsError> {
        let roots = match &tls.ca {
            Some(file) => Arc::new(pem::roots(file)?),
            None => Arc::clone(machine),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(ClientTlsError::Setup)?
            .with_root_certificates(roots);
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(ClientIdentity { cert, key }) => {
                let (chain, secret) = (pem::chain(cert)?, pem::private_key(key)?);
                builder.with_client_auth_cert(chain, secret).map_err(|error| match error {
                    rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        ClientTlsError::Mismatch { cert: cert.path().to_owned(), key: key.path().to_owned() }
                    }
                    source => ClientTlsError::Identity { cert: cert.path().to_owned(), source },
                })?
            }
        };
        let mut http1 = config.clone();
        http1.alpn_protocols = vec![HTTP1.to_vec()];
        let offered: &[&[u8]] = if tls.http2_only { &[H2] } else { &[H2, HTTP1] };
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { negotiating: Arc::new(config), http1: Arc::new(http1) })
    }

    /// The same, and what reads it again when the files change, where there are files.
    ///
    /// # Errors
    /// See [`ClientTls::new`]; and where nobody could be believed.
    pub fn reloading(
        tls: &UpstreamTls,
        machine: &Arc<RootCertStore>,
    ) -> Result<(Live<Self>, Option<Reload<Self>>), ClientTlsError> {
        if tls.ca.is_none() && machine.is_empty() {
            return Err(ClientTlsError::NoRoots);
        }
        let first = Self::new(tls, machine)?;
        let files: Vec<File> = tls.files().cloned().collect();
        if files.is_empty() {
            return Ok((Live::new(first), None));
        }
        let (tls, machine) = (tls.clone(), Arc::clone(machine));
        let build = move |files: &[File]| Ok(Self::new(&tls.with(files), &machine)?);
        let reload = Reload::with(first, files, Box::new(build));
        Ok((reload.live(), Some(reload)))
    }

    /// For one handshake.
    pub fn config(&self, offer: Offer) -> &Arc<ClientConfig> {
        match offer {
            Offer::Negotiate => &self.negotiating,
            Offer::Http1 => &self.http1,
        }
    }
}

/// Whether ALPN has chosen HTTP/2. A peer that knows no ALPN speaks HTTP/1.1.
pub fn is_http2(chosen: Option<&[u8]>) -> bool {
    chosen == Some(H2)
}
