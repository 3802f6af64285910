//! Publishable keys and verification keys: what is written in them.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE;

use crate::config::PublishableKey;

use super::net;

/// Publishable keys are found with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why a PEM text holds no key that verifies sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    #[error("this is a private key")]
    Private,
    #[error("not a public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
    NotPem,
    #[error("not an RSA key of 2048 to 8192 bits")]
    NotRsa,
}

/// `pk_live_` or `pk_test_`, then the Frontend API host and a `$` in base64 (contract section 1.4).
pub(crate) fn publishable(text: &str) -> Option<PublishableKey> {
    let (development, encoded) = match text.strip_prefix("pk_test_") {
        Some(encoded) => (true, encoded),
        None => (false, text.strip_prefix("pk_live_")?),
    };
    let decoded = String::from_utf8(LENIENT.decode(encoded).ok()?).ok()?;
    let frontend_api = decoded.strip_suffix('$')?;
    let name = frontend_api.rsplit_once(':').map_or(frontend_api, |(name, _)| name);
    let sound = net::issuer(&format!("https://{frontend_api}")).is_ok() && name.contains('.');
    if !sound || frontend_api.contains('/') {
        return None;
    }
    let frontend_api = frontend_api.to_owned();
    Some(PublishableKey { text: text.to_owned(), frontend_api, cookie_suffix: cookie_suffix(text), development })
}

/// The public key in a PEM text, as DER (SubjectPublicKeyInfo). As in Clerk's SDK, white space means nothing, so a key
/// that came through an environment variable in one line, or with `\n` spelt out, is read too.
pub(crate) fn rsa_public(pem: &str) -> Result<Vec<u8>, BadKey> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(BadKey::Private);
    }
    let body = pem.split_once("-----BEGIN PUBLIC KEY-----").ok_or(BadKey::NotPem)?.1;
    let body = body.split_once("-----END PUBLIC KEY-----").ok_or(BadKey::NotPem)?.0;
    let body: String = body.replace("\\n", "").split_whitespace().collect();
    let der = LENIENT.decode(body).map_err(|_| BadKey::NotPem)?;
    ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der).map_err(|_| BadKey::NotRsa)?;
    Ok(der)
}

/// What follows `__session_` (contract section 3.3).
fn cookie_suffix(publishable_key: &str) -> String {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, publishable_key.as_bytes());
    let mut suffix = BASE64_URL_SAFE.encode(digest);
    suffix.truncate(8);
    suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2048 bits, exponent 65537; made for this test.
    const PEM: &str = include_str!("tests/public.pem");

    #[test]
    fn the_suffixes_are_those_of_the_javascript_sdk() {
        for (key, host, suffix) in [
            ("pk_test_Y2xlcmsuY2xlcmsuZGV2JA", "clerk.clerk.dev", "QvfNY2dr"),
            (
                "pk_live_ZmFrZS1jbGVyay10ZXN0LmNsZXJrLmFjY291bnRzLmRldiQ=",
                "fake-clerk-test.clerk.accounts.dev",
                "qReyu04C",
            ),
            (
                "pk_test_ZW5vdWdoLWFscGFjYS04Mi5jbGVyay5hY2NvdW50cy5sY2xjbGVyay5jb20k",
                "enough-alpaca-82.clerk.accounts.lclclerk.com",
                "jtYvyt_H",
            ),
            (
                "pk_test_eHh4eHh4LXhhYWFhYS1hYS5jbGVyay5hY2NvdW50cy5sY2xjbGVyay5jb20k",
                "xxxxxx-xaaaaa-aa.clerk.accounts.lclclerk.com",
                "tZJdb-5s",
            ),
        ] {
            let parsed = publishable(key).unwrap();
            assert_eq!((parsed.frontend_api.as_str(), parsed.cookie_suffix.as_str()), (host, suffix));
            assert_eq!(parsed.development, key.starts_with("pk_test_"));
            assert_eq!(parsed.text, key);
        }
    }

    #[test]
    fn what_encodes_no_host_is_no_publishable_key() {
        let encode = |text: &str| format!("pk_live_{}", LENIENT.encode(text));
        assert!(publishable(&encode("clerk.example.com$")).is_some());
        for bad in ["clerk.example.com", "nodot$", "a/b.c$", "u@a.b$", "a.b?c$", "$", ""] {
            assert_eq!(publishable(&encode(bad)), None, "{bad}");
        }
        for bad in ["", "pk_live_", "pk_live_!!", "sk_live_Y2xlcmsuY2xlcmsuZGV2JA", "pk_other_Y2xlcmsuY2xlcmsuZGV2JA"] {
            assert_eq!(publishable(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_is_read_however_its_lines_are_broken() {
        let der = rsa_public(PEM).unwrap();
        assert_eq!(rsa_public(&PEM.replace('\n', " ")), Ok(der.clone()));
        assert_eq!(rsa_public(&PEM.replace('\n', "\\n")), Ok(der.clone()));
        assert_eq!(rsa_public(&PEM.replace('\n', "\r\n")), Ok(der));
    }

    #[test]
    fn other_keys_are_refused() {
        let pem = |der: &[u8]| format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", LENIENT.encode(der));
        // RFC 8410 section 10.1: an Ed25519 key.
        let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----";
        assert_eq!(rsa_public(ed25519), Err(BadKey::NotRsa));
        assert_eq!(rsa_public(&pem(b"nonsense")), Err(BadKey::NotRsa));
        assert_eq!(rsa_public(&pem(&[])), Err(BadKey::NotRsa));
        assert_eq!(rsa_public("nonsense"), Err(BadKey::NotPem));
        assert_eq!(rsa_public("-----BEGIN RSA PRIVATE KEY-----"), Err(BadKey::Private));
        assert_eq!(rsa_public("-----BEGIN CERTIFICATE-----"), Err(BadKey::NotPem));
    }
}
