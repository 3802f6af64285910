//! The certificate authorities that this machine trusts.

use rustls::RootCertStore;

/// Reads them. Some machines carry roots that no TLS library takes; the others still count.
pub fn of_the_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a trust root of this machine cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    roots
}
