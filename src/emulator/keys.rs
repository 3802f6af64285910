//! The emulated instance's signing key, the form of what it signs, and random identifiers.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// An RSA-2048 key with exponent 65537: the official JavaScript SDK reads a PEM of no other shape (contract section
/// 3.4).
pub(crate) struct SigningKey {
    pair: KeyPair,
    /// Base64url, as in a JWK.
    modulus: String,
    rng: SystemRandom,
}

/// The cryptography library, or the machine's source of randomness, refused.
#[derive(Debug, thiserror::Error)]
#[error("the cryptography library refused")]
pub struct CryptoError(#[from] Unspecified);

/// What stands before the 256 bytes of the modulus in an RSAPublicKey (RFC 8017 appendix A.1.1): a sequence, and an
/// integer whose first byte is 0.
const DER_HEAD: &[u8] = &[0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
/// What stands behind: the exponent 65537.
const DER_TAIL: &[u8] = &[0x02, 0x03, 0x01, 0x00, 0x01];

// === impl SigningKey ===

impl SigningKey {
    /// A new key. Takes some hundred milliseconds.
    pub(crate) fn generate() -> Result<Self, CryptoError> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let public = pair.public_key().as_ref();
        let modulus = public.strip_prefix(DER_HEAD).and_then(|rest| rest.strip_suffix(DER_TAIL)).ok_or(Unspecified)?;
        Ok(Self { modulus: URL_SAFE_NO_PAD.encode(modulus), pair, rng: SystemRandom::new() })
    }

    /// A JWS in compact form, RS256.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> Result<String, CryptoError> {
        self.sign_input(signing_input(header, claims))
    }

    /// Signs what stands before the second dot of a JWS, as it is.
    pub(crate) fn sign_input(&self, input: String) -> Result<String, CryptoError> {
        let mut signed = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&signature::RSA_PKCS1_SHA256, &self.rng, input.as_bytes(), &mut signed)?;
        Ok(with_signature(input, &signed))
    }

    /// The public half as a JWK (RFC 7517).
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        json!({ "use": "sig", "kty": "RSA", "kid": kid, "alg": "RS256", "n": self.modulus, "e": "AQAB" })
    }

    /// The public half as PEM (SubjectPublicKeyInfo): what Clerk calls the JWT key.
    pub(crate) fn pem(&self) -> Result<String, CryptoError> {
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(self.pair.public_key())?;
        let text = STANDARD.encode(der.as_ref());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            // Base64 is ASCII: every index is a character border.
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        Ok(pem)
    }
}

/// Header and claims, as they are signed (RFC 7515 section 5.1).
pub(crate) fn signing_input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The JWS in compact form.
pub(crate) fn with_signature(mut input: String, signature: &[u8]) -> String {
    input.push('.');
    input.push_str(&URL_SAFE_NO_PAD.encode(signature));
    input
}

/// `prefix` and 27 random letters and digits, in the shape of Clerk's identifiers.
pub(crate) fn random_id(prefix: &str) -> Result<String, CryptoError> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut random = [0; 27];
    rand::fill(&mut random)?;
    let letters = random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    Ok(prefix.chars().chain(letters).collect())
}

/// `bytes` random bytes in hexadecimal digits.
pub(crate) fn random_hex<const BYTES: usize>() -> Result<String, CryptoError> {
    let mut random = [0; BYTES];
    rand::fill(&mut random)?;
    Ok(hex(&random))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_implementation_accepts_the_signature() {
        use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let token = key.sign(&json!({"alg": "RS256"}), &json!({"sub": "user_1"})).unwrap();
        let mut rules = Validation::new(Algorithm::RS256);
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        let public =
            |key: &SigningKey| DecodingKey::from_jwk(&serde_json::from_value(key.jwk("ins_1")).unwrap()).unwrap();
        assert_eq!(decode::<Value>(&token, &public(&key), &rules).unwrap().claims["sub"], "user_1");
        assert!(decode::<Value>(&token, &public(&other), &rules).is_err());
    }

    #[test]
    fn the_pem_is_the_key_that_signs() {
        use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
        use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
        let key = SigningKey::generate().unwrap();
        let token = key.sign(&json!({"alg": "RS256"}), &json!({})).unwrap();
        let (input, signed) = token.rsplit_once('.').unwrap();
        let der = SubjectPublicKeyInfoDer::from_pem_slice(key.pem().unwrap().as_bytes()).unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &*der);
        public.verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signed).unwrap()).unwrap();
    }

    #[test]
    fn identifiers_can_stand_in_a_url_and_differ() {
        let (one, two) = (random_id("sess_").unwrap(), random_id("sess_").unwrap());
        assert_ne!(one, two);
        assert!(crate::session::SessionId::new(&one).is_ok());
        assert_eq!(random_hex::<8>().unwrap().len(), 16);
    }
}
