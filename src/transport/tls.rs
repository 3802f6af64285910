//! TLS by rustls with aws-lc-rs: certificates and keys out of files, both sides of a handshake, and the re-reading of
//! files that changed.

pub mod client;
pub mod pem;
pub mod reload;
pub mod roots;
pub mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one cryptography library.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
