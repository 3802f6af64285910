//! Secrets that cannot print, and the digests that stand for them in keys and logs.

use std::fmt;

use aws_lc_rs::{constant_time, digest};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

/// A secret text. It is wiped when dropped, and no formatting ever shows it.
#[derive(Clone)]
pub struct Secret(SecretString);

/// SHA-256 of a credential: what maps and logs may hold in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// The text is not allowed in a header (RFC 9110 section 5.5): control characters or bytes outside ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid header value")]
pub struct NotHeaderSafe;

// === impl Secret ===

impl Secret {
    /// Takes the text; nothing else keeps a copy.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself. Every call is a place to review.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Compares in constant time: how long it takes tells nothing but the length.
    pub fn matches(&self, presented: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(self.expose().as_bytes(), presented).is_ok()
    }

    /// `{prefix}{secret}` as a header value that is marked sensitive.
    ///
    /// # Errors
    /// When the text could not stand in a header.
    pub fn header(&self, prefix: &str) -> Result<HeaderValue, NotHeaderSafe> {
        sensitive(format!("{prefix}{}", self.expose()))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

// === impl Digest ===

impl Digest {
    /// SHA-256 of the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(out)
    }

    /// SHA-256 over parts, each preceded by its length, so that no two lists of parts share a digest.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Self(out)
    }

    /// The bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes: already uniformly spread, so a map needs no further hashing.
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

/// Shows 8 of the 64 hexadecimal digits: enough to tell entries apart in a log.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A header value that is marked sensitive: `Debug` hides it and HPACK never indexes it.
///
/// # Errors
/// When the text could not stand in a header.
pub fn sensitive(text: impl Into<bytes::Bytes>) -> Result<HeaderValue, NotHeaderSafe> {
    let text = text.into();
    // Tab and visible ASCII alone: `HeaderValue` would take opaque bytes above 0x7f, which peers read differently.
    if !text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(NotHeaderSafe);
    }
    let mut value = HeaderValue::from_maybe_shared(text).map_err(|_| NotHeaderSafe)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("sk_live_canary");
        let header = secret.header("Bearer ").unwrap();
        let seen = format!("{secret} {secret:?} {secret:#?} {header:?}");
        assert!(!seen.contains("canary"), "{seen}");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let split = |parts: [&str; 2]| Digest::of_parts(parts.map(str::as_bytes));
        assert_ne!(split(["ab", "c"]), split(["a", "bc"]));
        assert_eq!(split(["ab", "c"]), split(["ab", "c"]));
    }

    #[test]
    fn what_is_not_header_safe_is_refused() {
        for bad in ["a\r\nb", "a\nb", "a\0b", "é", "\x7f"] {
            assert_eq!(sensitive(bad.to_owned()), Err(NotHeaderSafe), "{bad:?}");
        }
        assert!(sensitive("a b\tc".to_owned()).is_ok());
    }
}
