//! The signing key of one template that an upstream shares with the issuer, instead of the instance's own key.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{self, RsaEncoding};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use crate::emulator::keys::{CryptoError, signing_input, with_signature};
use crate::secret::Secret;

/// A key with which a template signs.
#[derive(Debug, Clone)]
pub(crate) struct OwnKey {
    algorithm: Algorithm,
    /// As it was given: another algorithm may come to be used with it.
    text: Secret,
    /// The parsed key of an RSA algorithm.
    pair: Option<Arc<KeyPair>>,
}

/// The algorithms of RFC 7518 sections 3.2 and 3.3. Which ones Clerk takes is not documented; its pages show HS256 and
/// RS256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
}

/// Why there is no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadOwnKey {
    #[error("the algorithms are HS256, HS384, HS512, RS256, RS384 and RS512")]
    Algorithm,
    #[error("the key of an RSA algorithm is a private key in PEM, of 2048 bits or more")]
    Key,
}

// === impl OwnKey ===

impl OwnKey {
    /// The key of an HMAC algorithm is the text's bytes, that of an RSA algorithm a private key in PEM.
    pub(crate) fn new(algorithm: &str, text: Secret) -> Result<Self, BadOwnKey> {
        let algorithm = Algorithm::from_name(algorithm).ok_or(BadOwnKey::Algorithm)?;
        let pair = match algorithm.rsa() {
            None if text.expose().is_empty() => return Err(BadOwnKey::Key),
            None => None,
            Some(_) => Some(Arc::new(rsa_pair(text.expose()).ok_or(BadOwnKey::Key)?)),
        };
        Ok(Self { algorithm, text, pair })
    }

    /// What was given as the key.
    pub(crate) fn text(&self) -> &Secret {
        &self.text
    }

    /// The JOSE name.
    pub(crate) fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// A JWS in compact form.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> Result<String, CryptoError> {
        let input = signing_input(header, claims);
        if let (Some(pair), Some(padding)) = (&self.pair, self.algorithm.rsa()) {
            let mut signed = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &SystemRandom::new(), input.as_bytes(), &mut signed)?;
            return Ok(with_signature(input, &signed));
        }
        let key = hmac::Key::new(self.algorithm.hmac(), self.text.expose().as_bytes());
        let tag = hmac::sign(&key, input.as_bytes());
        Ok(with_signature(input, tag.as_ref()))
    }
}

/// PKCS#8 or PKCS#1.
fn rsa_pair(pem: &str) -> Option<KeyPair> {
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()? {
        PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()).ok(),
        _ => None,
    }
}

// === impl Algorithm ===

impl Algorithm {
    const ALL: [Self; 6] = [Self::Hs256, Self::Hs384, Self::Hs512, Self::Rs256, Self::Rs384, Self::Rs512];

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
        }
    }

    const fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Hs256 | Self::Rs256 => hmac::HMAC_SHA256,
            Self::Hs384 | Self::Rs384 => hmac::HMAC_SHA384,
            Self::Hs512 | Self::Rs512 => hmac::HMAC_SHA512,
        }
    }

    fn rsa(self) -> Option<&'static dyn RsaEncoding> {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => None,
            Self::Rs256 => Some(&signature::RSA_PKCS1_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_SHA512),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use serde_json::json;

    use super::*;

    fn rules(algorithm: &str) -> Validation {
        let mut rules = Validation::new(algorithm.parse().unwrap());
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        rules
    }

    #[test]
    fn a_second_implementation_accepts_hmac_signatures() {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let key = OwnKey::new(algorithm, Secret::new("canary")).unwrap();
            let token = key.sign(&json!({"alg": algorithm}), &json!({"sub": "user_1"})).unwrap();
            let read = decode::<Value>(&token, &DecodingKey::from_secret(b"canary"), &rules(algorithm)).unwrap();
            assert_eq!(read.claims["sub"], "user_1");
            assert!(decode::<Value>(&token, &DecodingKey::from_secret(b"other"), &rules(algorithm)).is_err());
        }
    }

    #[test]
    fn a_second_implementation_accepts_rsa_signatures() {
        use aws_lc_rs::signature::KeyPair as _;
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", STANDARD.encode(der.as_ref()));
        for algorithm in ["RS256", "RS384", "RS512"] {
            let key = OwnKey::new(algorithm, Secret::new(&*pem)).unwrap();
            let token = key.sign(&json!({"alg": algorithm}), &json!({"sub": "user_1"})).unwrap();
            let public = DecodingKey::from_rsa_der(pair.public_key().as_ref());
            assert_eq!(decode::<Value>(&token, &public, &rules(algorithm)).unwrap().claims["sub"], "user_1");
        }
        assert_eq!(OwnKey::new("RS256", Secret::new("canary")).unwrap_err(), BadOwnKey::Key);
        assert_eq!(OwnKey::new("ES256", Secret::new(pem)).unwrap_err(), BadOwnKey::Algorithm);
        assert_eq!(OwnKey::new("HS256", Secret::new("")).unwrap_err(), BadOwnKey::Key);
    }
}
