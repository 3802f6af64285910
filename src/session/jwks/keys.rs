//! An immutable set of verification keys, and what a JWKS document (RFC 7517) gives for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::secret::Digest;
use crate::session::KeyId;

/// Keys by `kid`, or one key whatever the `kid`.
#[derive(Clone, Default)]
pub struct KeySet {
    generation: u64,
    pinned: Option<Key>,
    keys: HashMap<Box<str>, Key>,
}

/// One key, parsed once.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    parsed: ParsedPublicKey,
    /// The header of the first session token that it verified in its set, as it stood there. All others have the same.
    header: OnceLock<Box<str>>,
}

/// A JWKS document from which no key can be used.
#[derive(Debug, thiserror::Error)]
pub enum BadJwks {
    /// Not JSON, or without a list of keys.
    #[error("the answer is not a JWKS")]
    NotAJwks(#[source] serde_json::Error),
    /// No public RSA key of 2048 bits or more that signs.
    #[error("the JWKS holds no usable key")]
    NoUsableKey,
}

/// Not an RSA public key of 2048 to 8192 bits in SubjectPublicKeyInfo form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RSA public key of 2048 to 8192 bits")]
pub struct BadKey;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// Clerk's specification also admits other kinds and private keys (contract section 1.4); what a key must not have is
/// listed, so that it is refused and not overlooked.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    n: String,
    e: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    key_ops: Option<Vec<String>>,
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
}

// === impl KeySet ===

impl KeySet {
    /// No keys: nothing verifies.
    pub fn empty() -> Self {
        Self::default()
    }

    /// One key (DER, SubjectPublicKeyInfo) for every `kid`, and for none.
    ///
    /// # Errors
    /// When it is not an RSA key of 2048 bits or more.
    pub fn pinned(spki: &[u8]) -> Result<Self, BadKey> {
        // The parsed key checks its length only when it verifies; this one at once.
        PublicEncryptingKey::from_der(spki).map_err(|_| BadKey)?;
        let parsed = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, spki).map_err(|_| BadKey)?;
        Ok(Self { pinned: Some(Key::new("pinned", parsed)), ..Self::default() })
    }

    /// The usable keys of a JWKS document: public RSA keys of 2048 bits or more with a `kid`, for signatures, for RS256
    /// or not said. Others are passed over; of two different keys with one `kid` neither is used.
    ///
    /// # Errors
    /// When it is no such document, or holds no usable key.
    pub fn parse(document: &[u8]) -> Result<Self, BadJwks> {
        let document: Document<'_> = serde_json::from_slice(document).map_err(BadJwks::NotAJwks)?;
        let mut found: HashMap<Box<str>, Option<Key>> = HashMap::new();
        for (kid, key) in document.keys.into_iter().filter_map(usable) {
            found
                .entry(kid)
                .and_modify(|slot| {
                    slot.take_if(|before| before.id != key.id);
                })
                .or_insert(Some(key));
        }
        let keys: HashMap<_, _> = found.into_iter().filter_map(|(kid, key)| Some((kid, key?))).collect();
        if keys.is_empty() { Err(BadJwks::NoUsableKey) } else { Ok(Self { keys, ..Self::default() }) }
    }

    /// The key that a token names.
    pub fn find(&self, kid: Option<&str>) -> Option<&Key> {
        self.pinned.as_ref().or_else(|| self.keys.get(kid?))
    }

    /// The key that a token with exactly this header names, where it has verified one before: what such a header says,
    /// and which of these keys it names, is known.
    pub fn of_header(&self, header: &str) -> Option<&Key> {
        let of = |key: &&Key| key.header.get().is_some_and(|known| **known == *header);
        self.pinned.iter().chain(self.keys.values()).find(of)
    }

    /// Whether a key that verified something is still here: the same key, not another one with its `kid`.
    pub fn holds(&self, id: &KeyId) -> bool {
        self.pinned.iter().chain(self.keys.values()).any(|key| key.id == *id)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.pinned.is_none() && self.keys.is_empty()
    }

    /// Tells this set from the ones before it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn with_generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    pub(super) fn same_keys(&self, other: &Self) -> bool {
        let all = |set: &Self| set.pinned.iter().chain(set.keys.values()).count();
        all(self) == all(other) && self.keys.values().all(|key| other.holds(&key.id))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.pinned.iter().chain(self.keys.values()).map(|key| key.id.as_str()).collect();
        f.debug_struct("KeySet").field("generation", &self.generation).field("keys", &keys).finish()
    }
}

fn usable(raw: &RawValue) -> Option<(Box<str>, Key)> {
    let jwk: Jwk = serde_json::from_str(raw.get()).ok()?;
    let public = jwk.d.is_none() && jwk.p.is_none() && jwk.q.is_none();
    let verifies = jwk.usage.is_none_or(|usage| usage == "sig")
        && jwk.alg.is_none_or(|alg| alg == "RS256")
        && jwk.key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if jwk.kty != "RSA" || jwk.kid.is_empty() || !public || !verifies {
        return None;
    }
    let (n, e) = (URL_SAFE_NO_PAD.decode(&jwk.n).ok()?, URL_SAFE_NO_PAD.decode(&jwk.e).ok()?);
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    // An exponent of 1 would make every text its own signature.
    let exponent_fits = e.last()? & 1 == 1 && *e != [1];
    if !(2048..=8192).contains(&bits) || !exponent_fits {
        return None;
    }
    let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
    Some((jwk.kid.as_str().into(), Key::new(&jwk.kid, parsed)))
}

// === impl Key ===

impl Key {
    fn new(name: &str, parsed: ParsedPublicKey) -> Self {
        let digest = URL_SAFE_NO_PAD.encode(Digest::of(parsed.as_ref()).as_bytes());
        Self { id: KeyId::new(&format!("{name}#{digest}")), parsed, header: OnceLock::new() }
    }

    /// Its `kid` with a digest of the key: Clerk's `kid` is the instance's id and may stay when the key changes.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// For [`KeySet::of_header`]. Only the header of a session token whose signature fits, found in this key's set by
    /// what it says, may come here.
    pub fn remember_header(&self, header: &str) {
        self.header.get_or_init(|| header.into());
    }

    /// For verifying.
    pub fn parsed(&self) -> &ParsedPublicKey {
        &self.parsed
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::{jwks, signer, stranger, with};
    use serde_json::json;

    /// Fails when one of the bounds on the modulus, the exponent, `d`, `p`, `q`, `use`, `alg` and `key_ops` is not
    /// looked at.
    #[test]
    fn only_public_rsa_keys_that_sign_are_taken() {
        let good = signer().jwk();
        for change in [json!({}), json!({ "use": null }), json!({ "alg": null }), json!({ "key_ops": ["verify"] })] {
            let set = KeySet::parse(&jwks(&[with(good.clone(), change.clone())])).unwrap();
            assert!(set.find(Some("ins_test")).is_some() && set.find(None).is_none(), "{change}");
        }
        let bad = [
            json!({ "use": "enc" }),
            json!({ "alg": "RS512" }),
            json!({ "alg": "PS256" }),
            json!({ "kty": "EC" }),
            json!({ "kid": null }),
            json!({ "kid": "" }),
            json!({ "kid": 1 }),
            json!({ "key_ops": ["encrypt"] }),
            json!({ "d": "AQAB" }),
            json!({ "p": "AQAB" }),
            json!({ "q": "AQAB" }),
            json!({ "n": "AQAB" }),
            // 1024, 2047, 8193 and 65 536 bits: too weak, or so long that verifying takes what others need.
            json!({ "n": URL_SAFE_NO_PAD.encode([0xff; 128]) }),
            json!({ "n": URL_SAFE_NO_PAD.encode([&[0x7f][..], &[0xff; 255]].concat()) }),
            json!({ "n": URL_SAFE_NO_PAD.encode([&[1][..], &[0xff; 1024]].concat()) }),
            json!({ "n": URL_SAFE_NO_PAD.encode([0xff; 8192]) }),
            json!({ "n": format!("{}==", good["n"].as_str().unwrap()) }),
            json!({ "e": "AQ" }),
            json!({ "e": "" }),
            json!({ "e": "BA" }),
        ];
        for change in bad {
            let set = KeySet::parse(&jwks(&[with(good.clone(), change.clone())]));
            assert!(matches!(set, Err(BadJwks::NoUsableKey)), "{change}");
            // It is passed over; the good one beside it serves.
            let both = KeySet::parse(&jwks(&[with(good.clone(), change), stranger().jwk()])).unwrap();
            assert!(both.find(Some("ins_other")).is_some() && both.find(Some("ins_test")).is_none());
        }
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        for bad in ["", "null", "{}", "[]", r#"{"keys":null}"#, r#"{"keys":{}}"#, "<html>"] {
            assert!(matches!(KeySet::parse(bad.as_bytes()), Err(BadJwks::NotAJwks(_))), "{bad}");
        }
        assert!(matches!(KeySet::parse(br#"{"keys":[]}"#), Err(BadJwks::NoUsableKey)));
    }

    /// Fails when the first of them is.
    #[test]
    fn of_two_keys_with_one_kid_neither_is_used() {
        let twin = with(stranger().jwk(), json!({ "kid": "ins_test" }));
        let third = signer().jwk();
        assert!(KeySet::parse(&jwks(&[signer().jwk(), twin.clone(), third])).is_err());
        // The same key twice is one key.
        let set = KeySet::parse(&jwks(&[signer().jwk(), signer().jwk(), stranger().jwk()])).unwrap();
        assert!(set.find(Some("ins_test")).is_some());
    }

    #[test]
    fn another_key_with_the_same_kid_is_another_key() {
        let before = signer().keys();
        let after = KeySet::parse(&jwks(&[with(stranger().jwk(), json!({ "kid": "ins_test" }))])).unwrap();
        let id = before.find(Some("ins_test")).unwrap().id();
        assert!(before.holds(id) && !after.holds(id) && !before.same_keys(&after));
    }

    /// Fails for the short key without `PublicEncryptingKey`: `ParsedPublicKey` takes it, and refuses every signature.
    #[test]
    fn a_pinned_key_serves_every_kid() {
        let set = KeySet::pinned(&signer().spki()).unwrap();
        assert!(set.find(None).is_some() && set.find(Some("any")).is_some() && !set.is_empty());
        let mut broken = signer().spki();
        broken.truncate(200);
        // The DER of every RSA key of 1024 bits with the exponent 65537, before and after its modulus.
        let before = b"\x30\x81\x9f\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\
            \x03\x81\x8d\x00\x30\x81\x89\x02\x81\x81\x00";
        let short = [&before[..], &[0xff; 128], b"\x02\x03\x01\x00\x01"].concat();
        for bad in [&broken[..], &short, b"", b"-----BEGIN PUBLIC KEY-----"] {
            assert_eq!(KeySet::pinned(bad).unwrap_err(), BadKey);
        }
    }
}
