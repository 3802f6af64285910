//! A session that a trusted program on this machine only names. Nobody has verified it here, so nothing but its id is
//! known: no user, no claims, no expiry.

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;

use http::header::{self, HeaderMap};

use crate::address::BoundAddress;
use crate::config::{CallerToken, SessionIdSource};
use crate::headers;
use crate::record::Caller;
use crate::session::{Reason, SessionError, SessionId};
use crate::token::TokenKey;

/// The session, for one request.
pub struct Named {
    /// Its id.
    pub sid: SessionId,
    keys: Box<[OnceLock<TokenKey>]>,
}

/// Why a request may not name a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotACaller {
    /// It came through a listener that others than this machine's programs can reach.
    #[error("a session was named through a listener that is not local to this machine")]
    NotLocal,
    /// A browser sent it.
    #[error("a session was named by a web page: Origin, Sec-Fetch-* or a Host that is not loopback")]
    WebPage,
    /// `x-mintgate-caller` is missing or wrong.
    #[error("a session was named without the caller token")]
    Unknown,
}

/// Whether the request may name a session at all.
///
/// A web page can make a browser on this machine send requests to loopback, under a host name of its own when it has
/// bound that to 127.0.0.1. It cannot keep the browser from saying so, nor know the token.
///
/// # Errors
/// The first condition that it fails.
pub fn admit(
    headers: &HeaderMap,
    host: &str,
    local: &BoundAddress,
    source: &SessionIdSource,
) -> Result<(), NotACaller> {
    if !local.is_local() {
        return Err(NotACaller::NotLocal);
    }
    let from_browser =
        headers.contains_key(header::ORIGIN) || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
    if from_browser || !is_loopback(host) {
        return Err(NotACaller::WebPage);
    }
    let known = match &source.caller {
        // Only who may open the socket's file can be here.
        CallerToken::Needless => local.tcp().is_none(),
        CallerToken::Needed(token) => {
            let mut lines = headers.get_all(headers::CALLER).iter();
            match (token, lines.next(), lines.next()) {
                (Some(token), Some(line), None) => token.matches(line.as_bytes()),
                _ => false,
            }
        }
    };
    if known { Ok(()) } else { Err(NotACaller::Unknown) }
}

/// The session that a request names.
///
/// # Errors
/// `Missing` without the header, `Ambiguous` when it stands there twice, `Invalid` when it holds no id.
pub fn find(headers: &HeaderMap, source: &SessionIdSource) -> Result<SessionId, SessionError> {
    let mut lines = headers.get_all(&source.header).iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) => return Err(SessionError::Missing),
        (Some(line), None) => line.to_str().map_err(|_| SessionError::Invalid(Reason::Malformed))?.trim_ascii(),
        (Some(_), Some(_)) => return Err(SessionError::Ambiguous),
    };
    if line.is_empty() {
        return Err(SessionError::Missing);
    }
    SessionId::new(line).map_err(|_| SessionError::Invalid(Reason::Malformed))
}

/// Whether a `Host` can only mean this machine. A name that resolves to it may be anybody's.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || literal.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

// === impl Named ===

impl Named {
    /// With room for so many keys.
    pub fn new(sid: SessionId, keys: usize) -> Self {
        Self { sid, keys: (0..keys).map(|_| OnceLock::new()).collect() }
    }

    /// The key of the `slot`th thing to mint, made on first use.
    ///
    /// # Panics
    /// Beyond the number of keys that it was made with.
    pub fn token_key(&self, slot: usize, make: impl FnOnce(&SessionId) -> TokenKey) -> &TokenKey {
        self.keys[slot].get_or_init(|| make(&self.sid))
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("sid", &self.sid).finish_non_exhaustive()
    }
}

impl Caller for Named {
    fn sub(&self) -> Option<&str> {
        None
    }

    fn sid(&self) -> &str {
        self.sid.as_str()
    }

    fn org(&self) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::secret::Secret;

    fn source(token: Option<&str>) -> SessionIdSource {
        let caller = token.map_or(CallerToken::Needless, |token| CallerToken::Needed(Some(Secret::new(token))));
        SessionIdSource { header: HeaderName::from_static("x-clerk-session-id"), caller }
    }

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in of {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn tcp(address: &str) -> BoundAddress {
        BoundAddress::Tcp(address.parse().unwrap())
    }

    fn unix() -> BoundAddress {
        BoundAddress::Unix(std::path::Path::new("/run/x").into())
    }

    #[test]
    fn a_host_of_this_machine_is_told_from_a_name() {
        for loopback in
            ["localhost", "LocalHost:6468", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:80", "[::ffff:127.0.0.1]"]
        {
            assert!(is_loopback(loopback), "{loopback}");
        }
        for other in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "10.0.0.1",
            "[::]:80",
            "2130706433",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn only_a_local_program_that_knows_the_token_may_name_a_session() {
        let good = [("x-mintgate-caller", "right")];
        let ask = |of: &[(&'static str, &'static str)], host: &str, local: &BoundAddress, token: Option<&str>| {
            admit(&headers(of), host, local, &source(token))
        };
        assert_eq!(ask(&good, "localhost", &tcp("127.0.0.1:80"), Some("right")), Ok(()));
        assert_eq!(ask(&good, "localhost", &unix(), Some("right")), Ok(()));
        assert_eq!(ask(&[], "localhost", &unix(), None), Ok(()));
        for local in ["0.0.0.0:80", "10.0.0.1:80", "[::]:80"] {
            assert_eq!(ask(&good, "localhost", &tcp(local), Some("right")), Err(NotACaller::NotLocal), "{local}");
        }
        for bad in [&[][..], &[("x-mintgate-caller", "wrong")], &[good[0], good[0]], &[("x-mintgate-caller", "")]] {
            for local in [tcp("127.0.0.1:80"), unix()] {
                assert_eq!(ask(bad, "localhost", &local, Some("right")), Err(NotACaller::Unknown), "{bad:?}");
            }
        }
        assert_eq!(
            ask(&[], "localhost", &tcp("[::1]:80"), None),
            Err(NotACaller::Unknown),
            "only a file needs no token"
        );
        let unknown = SessionIdSource { caller: CallerToken::Needed(None), ..source(None) };
        assert_eq!(
            admit(&headers(&[("x-mintgate-caller", "")]), "localhost", &unix(), &unknown),
            Err(NotACaller::Unknown)
        );
        for page in
            [("origin", "http://localhost"), ("origin", "null"), ("sec-fetch-site", "none"), ("sec-fetch-mode", "")]
        {
            for local in [tcp("127.0.0.1:80"), unix()] {
                assert_eq!(
                    ask(&[good[0], page], "localhost", &local, Some("right")),
                    Err(NotACaller::WebPage),
                    "{page:?}"
                );
            }
        }
        assert_eq!(ask(&good, "rebound.example", &tcp("127.0.0.1:80"), Some("right")), Err(NotACaller::WebPage));
    }

    #[test]
    fn a_session_is_named_once_and_well() {
        let name = |of: &[(&'static str, &'static str)]| find(&headers(of), &source(None));
        let id = "x-clerk-session-id";
        assert_eq!(name(&[(id, " sess_1 ")]), Ok(SessionId::new("sess_1").unwrap()));
        assert_eq!(name(&[]), Err(SessionError::Missing));
        assert_eq!(name(&[(id, "")]), Err(SessionError::Missing));
        assert_eq!(name(&[(id, "sess_1"), (id, "sess_1")]), Err(SessionError::Ambiguous));
        for bad in ["sess/1", "..", "sess_1?x", "sess_1, sess_2", "sess%2f"] {
            assert_eq!(name(&[(id, bad)]), Err(SessionError::Invalid(Reason::Malformed)), "{bad}");
        }
    }
}
