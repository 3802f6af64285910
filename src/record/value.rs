//! The values of an access line and how they are written.

use std::fmt;

use http::HeaderValue;
use http::uri::Authority;

use crate::metrics::Lookup;
use crate::secret::Digest;
use crate::telemetry::Identity;

/// Bytes of one value that a caller chose which a line shows; the rest is cut off.
const SHOWN: usize = 1024;

/// Where the credential was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// `Authorization: Bearer`
    Bearer,
    /// One of Clerk's session cookies.
    Cookie,
    /// A header of its own.
    Header,
    /// A header that names a session which nobody has verified here.
    SessionId,
    /// The first message of a WebSocket.
    ConnectionInit,
}

/// How the body of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// The caller went away before its end; what a record says that was told nothing else.
    Cut,
    /// All of it was handed over.
    Complete,
    /// The upstream broke off.
    Broken,
}

/// HTTP/1 names the host in a header, HTTP/2 in the target. Both are handles on the request's own bytes.
pub(super) enum Host {
    Header(HeaderValue),
    Authority(Authority),
}

/// How many token look-ups of one request had which result.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lookups([u8; Lookup::ALL.len()]);

/// Visible ASCII as it is; every other byte, space and backslash as `\xNN`.
pub(super) struct Escaped<'a>(pub(super) &'a [u8]);

/// What a line shows of one id.
pub(super) fn shown(identity: Identity, id: &str) -> Option<String> {
    match identity {
        Identity::None => None,
        Identity::Hash => Some(Digest::of(id.as_bytes()).to_string()),
        Identity::Plain => Some(Escaped(id.as_bytes()).to_string()),
    }
}

// === impl Host, Lookups ===

impl Host {
    /// The same, in bytes of its own.
    pub(super) fn owned(self) -> Self {
        match self {
            Self::Header(value) => Self::Header(HeaderValue::from_bytes(value.as_bytes()).unwrap_or(value)),
            Self::Authority(authority) => Self::Authority(Authority::try_from(authority.as_str()).unwrap_or(authority)),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        let bytes = match self {
            Self::Header(value) => value.as_bytes(),
            Self::Authority(authority) => authority.as_str().as_bytes(),
        };
        // User info is refused with 400, and the line about that must not show it.
        bytes.rsplit(|&byte| byte == b'@').next().unwrap_or_default()
    }
}

impl Lookups {
    pub(super) fn insert(&mut self, result: Lookup) {
        let count = &mut self.0[result.index()];
        *count = count.saturating_add(1);
    }

    /// The results that occurred, and how often.
    pub(super) fn iter(self) -> impl Iterator<Item = (Lookup, u8)> {
        Lookup::ALL.iter().copied().zip(self.0).filter(|&(_, count)| count > 0)
    }
}

/// `hit`, or `hit+mint` where injections of one request went different ways.
impl fmt::Display for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (result, _)) in self.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "+" })?;
            f.write_str(result.as_str())?;
        }
        Ok(())
    }
}

// === impl CredentialKind, BodyEnd ===

impl CredentialKind {
    /// The name in a line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
            Self::Header => "header",
            Self::SessionId => "session-id",
            Self::ConnectionInit => "connection-init",
        }
    }
}

impl BodyEnd {
    /// The name in a line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Complete => "complete",
            Self::Broken => "broken",
        }
    }
}

// === impl Escaped ===

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN)];
        for chunk in shown.chunk_by(|a, b| is_plain(*a) == is_plain(*b)) {
            match std::str::from_utf8(chunk) {
                Ok(text) if is_plain(chunk[0]) => f.write_str(text)?,
                _ => chunk.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?,
            }
        }
        if shown.len() < self.0.len() { f.write_str("...") } else { Ok(()) }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_can_end_a_line_or_begin_a_field(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let text = Escaped(&bytes).to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(text.len() <= 4 * SHOWN + 3);
        }
    }

    #[test]
    fn what_is_escaped_can_be_told_from_what_looks_so() {
        assert_eq!(Escaped(b"/a\r\nb").to_string(), r"/a\x0d\x0ab");
        assert_eq!(Escaped(br"/a\x0d").to_string(), r"/a\x5cx0d");
        assert_eq!(Escaped("/\u{202e}".as_bytes()).to_string(), r"/\xe2\x80\xae");
    }

    #[test]
    fn user_info_is_not_part_of_a_host() {
        let authority = |text: &'static str| Host::Authority(Authority::from_static(text));
        assert_eq!(authority("alice:canary@example.com:80").as_bytes(), b"example.com:80");
        assert_eq!(Host::Header(HeaderValue::from_static("canary@example.com")).as_bytes(), b"example.com");
    }

    #[test]
    fn every_result_of_a_request_is_kept() {
        let mut lookups = Lookups::default();
        assert_eq!(lookups.to_string(), "");
        for result in [Lookup::Mint, Lookup::Hit, Lookup::Hit] {
            lookups.insert(result);
        }
        assert_eq!(lookups.to_string(), "hit+mint");
        assert!(lookups.iter().eq([(Lookup::Hit, 2), (Lookup::Mint, 1)]));
    }
}
