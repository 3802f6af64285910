//! Short names for credentials, under which verified sessions are remembered.
//!
//! A tag is the universal hash inside AES-GCM (GHASH, NIST SP 800-38D section 6.4) under a random key of this process:
//! two different credentials of up to 16 KiB share one with a probability of at most 2^-117, whoever chooses them, as long
//! as neither key nor tags leave the process. They do not: a tag cannot print. It costs a quarter of a SHA-256, which
//! was the largest single cost of a warm request.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Bytes of a tag.
const BYTES: usize = 16;

/// Stands for one credential in this process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; BYTES]);

/// Makes tags.
pub struct Tagger(LessSafeKey);

// === impl Tag ===

impl Tag {
    /// The first eight bytes: already uniformly spread, so a map needs no further hashing.
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag")
    }
}

// === impl Tagger ===

impl Tagger {
    /// With a key of its own.
    ///
    /// # Panics
    /// Where the system has no randomness.
    #[expect(clippy::expect_used, reason = "without randomness no map of the standard library can be made either")]
    pub fn new() -> Self {
        // Not the library's own generator: its first number takes 50 ms, which the start would wait for.
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("the system's randomness");
        Self(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("16 bytes are a key of AES-128")))
    }

    /// The credential's tag.
    ///
    /// # Panics
    /// Never for what can be a credential, 16 KiB at most.
    #[expect(clippy::expect_used, reason = "what is hashed is far shorter than GCM's limit of 2^61 bytes")]
    pub fn tag(&self, credential: &[u8]) -> Tag {
        // One nonce for all is safe here and only here: nothing is encrypted, and no tag is shown to anybody.
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(credential), &mut []).expect("a short text");
        let mut out = [0; BYTES];
        out.copy_from_slice(tag.as_ref());
        Tag(out)
    }
}

impl Default for Tagger {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tagger")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_byte_and_the_length_of_a_credential_count() {
        let tagger = Tagger::new();
        let credential = [b'a'; 100];
        let mut seen = HashSet::from([tagger.tag(&credential).0]);
        assert_eq!(tagger.tag(&credential).0, tagger.tag(&credential.clone()).0);
        for at in 0..credential.len() {
            let mut other = credential;
            other[at] ^= 1;
            assert!(seen.insert(tagger.tag(&other).0), "byte {at}");
            assert!(seen.insert(tagger.tag(&credential[..at]).0), "{at} bytes");
            assert!(seen.insert(tagger.tag(&[&credential[..], &vec![0; at + 1]].concat()).0), "{at} zeros more");
        }
    }

    #[test]
    fn another_process_has_other_tags() {
        assert_ne!(Tagger::new().tag(b"a"), Tagger::new().tag(b"a"));
    }

    #[test]
    fn a_tag_does_not_print() {
        let tagger = Tagger::new();
        assert_eq!(format!("{:?} {tagger:?}", tagger.tag(b"a")), "Tag Tagger");
    }
}
