//! The server's side of TLS: what a listener presents and asks for, and which names its certificate covers.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoClientAuth, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier, danger};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig, version};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::config::{ClientAuth, Tls};
use crate::file::File;
use crate::transport::tls::pem::{self, PemError, Validity};
use crate::transport::tls::provider;
use crate::transport::tls::reload::Reload;

/// The protocols that are offered, the best one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Everything that a handshake needs, out of one state of the files.
///
/// Tickets of one state are worth nothing to the next: a session that was begun under another list of client
/// authorities is not resumed past it.
#[derive(Debug)]
pub struct ServerTls {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    /// What is presented.
    pub leaf: Arc<Leaf>,
}

/// A server's own certificate.
#[derive(Debug)]
pub struct Leaf(CertificateDer<'static>);

/// Why files cannot serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// A file is not what it should be.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The key is of a kind that cannot sign, or too short.
    #[error("the private key in {} cannot be used", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// They do not belong together.
    #[error("the private key in {} is not the one of the certificate in {}", .key.display(), .cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate cannot be used.
    #[error("the certificate in {} cannot be used", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// No client could be verified.
    #[error("clients cannot be verified by {}", .path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        #[source]
        source: VerifierBuilderError,
    },
    /// The library refuses.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

// === impl ServerTls ===

impl ServerTls {
    /// Out of the files of a listener's `tls`.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn new(tls: &Tls) -> Result<Self, ServerTlsError> {
        let chain = pem::chain(&tls.cert)?;
        let key = pem::private_key(&tls.key)?;
        let provider = provider();
        let unusable = |source| ServerTlsError::Key { path: tls.key.path().to_owned(), source };
        let signing = provider.key_provider.load_private_key(key).map_err(unusable)?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                ServerTlsError::Mismatch { cert: tls.cert.path().to_owned(), key: tls.key.path().to_owned() }
            }
            source => ServerTlsError::Certificate { path: tls.cert.path().to_owned(), source },
        })?;
        // `keys_match` has seen the leaf.
        let leaf = Arc::new(Leaf(certified.cert[0].clone()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(ServerTlsError::Setup)?
            .with_client_cert_verifier(client_verifier(&tls.client_auth)?)
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        config.ticketer = Ticketer::new().map_err(ServerTlsError::Setup)?;
        Ok(Self { config: Arc::new(config), leaf })
    }

    /// The same, to be read again when the files change.
    ///
    /// # Errors
    /// See [`ServerTls::new`].
    pub fn reloading(tls: &Tls) -> Result<Reload<Self>, ServerTlsError> {
        let first = Self::new(tls)?;
        let mut files = vec![tls.cert.clone(), tls.key.clone()];
        files.extend(tls.client_auth.ca().cloned());
        let kind = tls.client_auth.clone();
        let build = move |files: &[File]| {
            let client_auth = match (&kind, files.get(2)) {
                (ClientAuth::Optional(_), Some(ca)) => ClientAuth::Optional(ca.clone()),
                (ClientAuth::Required(_), Some(ca)) => ClientAuth::Required(ca.clone()),
                (kind, _) => kind.clone(),
            };
            let tls = Tls { cert: files[0].clone(), key: files[1].clone(), client_auth };
            let built = Self::new(&tls)?;
            if let Some(problem) = built.leaf.expired(crate::clock::Clock::system().wall()) {
                tracing::warn!(file = %tls.cert.path().display(), "{problem}");
            }
            Ok(built)
        };
        Ok(Reload::with(first, files, Box::new(build)))
    }
}

fn client_verifier(auth: &ClientAuth) -> Result<Arc<dyn danger::ClientCertVerifier>, ServerTlsError> {
    let Some(ca) = auth.ca() else { return Ok(Arc::new(NoClientAuth)) };
    let roots = Arc::new(pem::roots(ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = match auth {
        ClientAuth::Optional(_) => builder.allow_unauthenticated(),
        ClientAuth::Off | ClientAuth::Required(_) => builder,
    };
    builder.build().map_err(|source| ServerTlsError::ClientCa { path: ca.path().to_owned(), source })
}

// === impl Leaf ===

impl Leaf {
    /// Whether it is valid for a host, `host[:port]` as in `Host`.
    pub fn covers(&self, authority: &str) -> bool {
        let host =
            authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        match (ServerName::try_from(bare), ParsedCertificate::try_from(&self.0)) {
            (Ok(name), Ok(parsed)) => verify_server_name(&parsed, &name).is_ok(),
            _ => false,
        }
    }

    /// When it is valid; `None` where it cannot be told.
    pub fn validity(&self) -> Option<Validity> {
        pem::validity(&self.0)
    }

    /// What is wrong with its time, if something is.
    pub fn expired(&self, now: crate::clock::Wall) -> Option<&'static str> {
        let validity = self.validity()?;
        if now > validity.until {
            Some("the certificate has expired")
        } else if now < validity.from {
            Some("the certificate is not valid yet")
        } else {
            None
        }
    }
}
