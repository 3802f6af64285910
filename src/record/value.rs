//! The values of an access line and how they are written.

use std::fmt;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, header};

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

/// The path and the host that a request asked for, in bytes of their own: what is under way, maybe for hours, keeps nothing
/// of the buffer that its head was read into.
pub(super) struct Asked {
    /// The path, then the host.
    bytes: Box<[u8]>,
    path: usize,
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

// === impl Asked, Lookups ===

impl Asked {
    /// HTTP/1 names the host in a header, HTTP/2 in the target. User info is refused with 400, and the line about that must
    /// not show it.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let named = || request.headers().get(header::HOST).map(HeaderValue::as_bytes);
        let host = uri.authority().map(|authority| authority.as_str().as_bytes()).or_else(named).unwrap_or_default();
        let host = host.rsplit(|&byte| byte == b'@').next().unwrap_or_default();
        let path = uri.path_and_query().map_or("", PathAndQuery::path).as_bytes();
        Self { bytes: [path, host].concat().into(), path: path.len() }
    }

    /// Without the query; `None`: a target that has none.
    pub(super) fn path(&self) -> Option<Escaped<'_>> {
        self.bytes.get(..self.path).filter(|path| !path.is_empty()).map(Escaped)
    }

    /// With the port, where one is said.
    pub(super) fn host(&self) -> Option<Escaped<'_>> {
        self.bytes.get(self.path..).filter(|host| !host.is_empty()).map(Escaped)
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
        let asked = |target: &str, host: &str| {
            let asked = Asked::of(&Request::get(target).header(header::HOST, host).body(()).unwrap());
            [asked.path(), asked.host()].map(|said| said.map(|said| said.to_string()))
        };
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(asked("http://alice:canary@example.com:80/a?b", "other"), [said("/a"), said("example.com:80")]);
        assert_eq!(asked("/", "canary@example.com"), [said("/"), said("example.com")]);
        assert_eq!(asked("example.com:443", ""), [None, said("example.com:443")]);
        assert_eq!(asked("*", ""), [said("*"), None]);
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
