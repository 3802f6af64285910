//! A signing key and good claims, for tests.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::session::jwks::keys::KeySet;

/// An RSA-2048 key with a `kid`.
pub(crate) struct Signer {
    pair: KeyPair,
    pub(crate) kid: &'static str,
}

/// The key that tests trust, made once in a test binary.
pub(crate) fn signer() -> &'static Signer {
    static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new("ins_test"));
    &SIGNER
}

/// Another key with another `kid`.
pub(crate) fn stranger() -> &'static Signer {
    static STRANGER: LazyLock<Signer> = LazyLock::new(|| Signer::new("ins_other"));
    &STRANGER
}

/// The claims of a session token (v2, no organization) that was issued at `iat` and lives a minute.
pub(crate) fn claims(iat: i64) -> Value {
    json!({
        "azp": "https://app.example.com", "exp": iat + 60, "iat": iat, "nbf": iat - 10, "v": 2, "jti": "j", "fva": [0, -1],
        "iss": "https://clerk.example.com", "sid": "sess_1", "sub": "user_1", "sts": "active", "pla": "u:free", "fea": "",
    })
}

/// `claims` with members set, or removed where the value is `null`.
pub(crate) fn with(mut claims: Value, changes: Value) -> Value {
    let (Value::Object(claims_map), Value::Object(changes)) = (&mut claims, changes) else { panic!("objects") };
    for (name, value) in changes {
        if value.is_null() { drop(claims_map.remove(&name)) } else { drop(claims_map.insert(name, value)) }
    }
    claims
}

pub(crate) fn part(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

impl Signer {
    pub(crate) fn new(kid: &'static str) -> Self {
        Self { pair: KeyPair::generate(KeySize::Rsa2048).unwrap(), kid }
    }

    /// The header that Clerk writes.
    pub(crate) fn header(&self) -> Value {
        json!({ "alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": self.kid, "typ": "JWT" })
    }

    /// A session token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_texts(&self.header().to_string(), &claims.to_string())
    }

    /// A token of these two texts, whatever they hold.
    pub(crate) fn sign_texts(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", part(header), part(payload));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", part(signature))
    }

    /// Modulus and exponent, base64url.
    pub(crate) fn components(&self) -> (String, String) {
        let key = self.pair.public_key();
        (part(key.modulus().big_endian_without_leading_zero()), part(key.exponent().big_endian_without_leading_zero()))
    }

    pub(crate) fn jwk(&self) -> Value {
        let (n, e) = self.components();
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e })
    }

    /// DER, SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Vec<u8> {
        self.pair.public_key().as_der().unwrap().as_ref().to_vec()
    }

    pub(crate) fn keys(&self) -> KeySet {
        KeySet::parse(&jwks(&[self.jwk()])).unwrap()
    }
}

/// A JWKS document.
pub(crate) fn jwks(keys: &[Value]) -> Bytes {
    json!({ "keys": keys }).to_string().into()
}
