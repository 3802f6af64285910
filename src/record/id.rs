//! Names a request in every log that it passes through.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderValue;

/// Names one request in every log that it passes through.
#[derive(Debug, Clone)]
pub enum RequestId {
    /// Made here.
    Own([u64; 2]),
    /// Kept from a trusted peer.
    Kept(HeaderValue),
}

/// Unique numbers that look random: a caller learns nothing of how many requests there are.
#[derive(Debug)]
pub(super) struct RequestIds {
    worker: u64,
    offset: u64,
    made: AtomicU64,
}

// === impl RequestId, RequestIds ===

impl RequestId {
    /// A peer's id, unless it is longer than 128 bytes or holds anything but visible ASCII without quote, comma and
    /// backslash. In bytes of its own, as what else a record keeps.
    pub(super) fn kept(value: &HeaderValue) -> Option<Self> {
        let plain = |&byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',');
        let bytes = value.as_bytes();
        let fit = (1..=128).contains(&bytes.len()) && bytes.iter().all(plain);
        fit.then(|| HeaderValue::from_bytes(bytes).ok().map(Self::Kept)).flatten()
    }

    /// The id as a header.
    #[expect(clippy::expect_used, reason = "hexadecimal digits are a valid header value")]
    pub fn to_header(&self) -> HeaderValue {
        match self {
            Self::Own(id) => HeaderValue::from_bytes(&hex(*id)).expect("hexadecimal digits"),
            Self::Kept(value) => value.clone(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both are visible ASCII, so neither case is ever empty.
        match self {
            Self::Own(id) => f.write_str(str::from_utf8(&hex(*id)).unwrap_or_default()),
            Self::Kept(value) => f.write_str(value.to_str().unwrap_or_default()),
        }
    }
}

fn hex(id: [u64; 2]) -> [u8; 32] {
    let mut out = [0; 32];
    for (pair, byte) in out.chunks_exact_mut(2).zip(id.into_iter().flat_map(u64::to_be_bytes)) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    out
}

impl RequestIds {
    pub(super) fn new() -> Self {
        // The standard library seeds these from the system's randomness; ids need to be distinct, not secret.
        let random = || RandomState::new().hash_one(());
        Self { worker: random(), offset: random(), made: AtomicU64::new(0) }
    }

    /// One writer, so a load and a store do.
    pub(super) fn next(&self) -> RequestId {
        let count = self.made.load(Relaxed).wrapping_add(1);
        self.made.store(count, Relaxed);
        RequestId::Own([mix(self.offset.wrapping_add(count)), self.worker])
    }
}

/// The finalizer of SplitMix64: each input has an output of its own.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_over_workers_too() {
        let workers = [RequestIds::new(), RequestIds::new()];
        let ids: HashSet<String> = (0..2000).map(|index| workers[index % 2].next().to_string()).collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn an_id_is_the_same_in_a_header_and_in_a_line() {
        let own = RequestId::Own([0x0123_4567_89ab_cdef, 0xf0]);
        assert_eq!(own.to_string(), "0123456789abcdef00000000000000f0");
        assert_eq!(own.to_header(), own.to_string());
        let kept = RequestId::kept(&HeaderValue::from_static("Root=1-67-aZ/9:=")).unwrap();
        assert_eq!(kept.to_header(), kept.to_string());
    }

    #[test]
    fn an_id_that_could_forge_a_line_is_not_kept() {
        let long = "x".repeat(129);
        for bad in ["", "a b", "a\tb", "a\"b", "a,b", "a\\b", &long] {
            assert!(RequestId::kept(&HeaderValue::from_str(bad).unwrap()).is_none(), "{bad:?}");
        }
        assert!(RequestId::kept(&HeaderValue::from_bytes(b"a\xffb").unwrap()).is_none());
    }
}
