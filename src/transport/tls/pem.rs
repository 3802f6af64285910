//! Certificates and keys out of PEM files, with errors that say what is wrong with which file.

use std::path::PathBuf;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::Decode as _;

use crate::clock::Wall;
use crate::file::File;

/// What to do about a key with a passphrase,
pub const ENCRYPTED_KEY: &str = "take its passphrase away: openssl pkey -in encrypted.pem -out key.pem";
/// and about a certificate without extensions.
pub const VERSION_3: &str =
    "make it version 3: give `openssl x509 -req` an -extfile, with subjectAltName = DNS:your.name for a server";

/// Why a file is not what it should be. The texts hold paths, never contents.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// No certificate in it.
    #[error("{} holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`)", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate that cannot be read.
    #[error("{} holds a certificate that cannot be read", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Broken,
    },
    /// No private key in it.
    #[error("{} holds no private key in PEM (`-----BEGIN PRIVATE KEY-----`, not encrypted)", .0.display())]
    NoKey(PathBuf),
    /// A private key that only a passphrase opens.
    #[error("the private key in {} is encrypted; take its passphrase away: openssl pkey -in KEY -out PLAIN", .0.display())]
    EncryptedKey(PathBuf),
    /// A certificate of version 1, as `openssl x509 -req` makes it without extensions: no peer would take it.
    #[error("{} holds an X.509 certificate of version 1; version 3 is needed", .0.display())]
    Version1(PathBuf),
}

/// What is wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The armour.
    #[error("not valid PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// What is inside.
    #[error("not a certificate")]
    Certificate(#[source] rustls::Error),
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: Wall,
    /// The last one.
    pub until: Wall,
}

/// A chain: the leaf first, as the file has it.
///
/// # Errors
/// When the file holds none, or one that cannot be read.
pub fn certificates(file: &File) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.contents()).collect();
    let found =
        read.map_err(|error| PemError::Certificate { path: file.path().to_owned(), source: Broken::Pem(error) })?;
    if found.is_empty() { Err(PemError::NoCertificate(file.path().to_owned())) } else { Ok(found) }
}

/// The first private key, of any of the usual shapes (PKCS #8, PKCS #1, SEC 1).
///
/// # Errors
/// When the file holds none that is not encrypted.
pub fn private_key(file: &File) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(file.contents()).map_err(|_| {
        let path = file.path().to_owned();
        // PKCS #8 says so in its first line, the older shapes in a line below it (RFC 1421).
        let marks: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
        let has = |mark: &[u8]| file.contents().windows(mark.len()).any(|own| own == mark);
        if marks.into_iter().any(has) { PemError::EncryptedKey(path) } else { PemError::NoKey(path) }
    })
}

/// The chain that is presented to a peer: its first certificate is one's own.
///
/// # Errors
/// When the file holds none, one that cannot be read, or one's own is of version 1.
pub fn chain(file: &File) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let chain = certificates(file)?;
    let own = chain.first().and_then(|own| Certificate::from_der(own).ok());
    match own.map(|own| own.tbs_certificate().version()) {
        Some(Version::V1) => Err(PemError::Version1(file.path().to_owned())),
        _ => Ok(chain),
    }
}

/// Every certificate of the file as a root of trust.
///
/// # Errors
/// When the file holds none, or one that cannot be read.
pub fn roots(file: &File) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| PemError::Certificate {
            path: file.path().to_owned(),
            source: Broken::Certificate(error),
        })?;
    }
    Ok(roots)
}

/// When a certificate is valid; `None` where it cannot be told.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let validity = parsed.tbs_certificate().validity();
    let wall = |since: Duration| Wall::from_seconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    Some(Validity {
        from: wall(validity.not_before.to_unix_duration()),
        until: wall(validity.not_after.to_unix_duration()),
    })
}
