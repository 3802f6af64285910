//! The cookie guard: a browser sends cookies wherever a page tells it to, so the page must be trustworthy.

use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Method};

use crate::config::Origin;
use crate::headers;

/// The origin under which the request itself was made: the connection's scheme with `Host`, or what a trusted peer
/// says. The caller decides which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnOrigin<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `host[:port]`, of any letter case; empty when it is not known.
    pub authority: &'a str,
}

/// A credential from a cookie, sent by a page that is not known to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's origin is not trusted with a cookie")]
pub struct OriginForbidden;

/// Checks a request whose credential came from a cookie.
///
/// Anything but GET, HEAD and OPTIONS, and every wish for a WebSocket, needs an `Origin` that is an authorized party or the
/// request's own; without `Origin` only `Sec-Fetch-Site: same-origin` passes. `null` and two `Origin` lines never do.
///
/// # Errors
/// When the page is not trustworthy.
pub fn check(
    method: &Method,
    headers: &HeaderMap,
    websocket: bool,
    own: OwnOrigin<'_>,
    parties: &[Origin],
) -> Result<(), OriginForbidden> {
    if !websocket && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let trusted = match one(headers, &header::ORIGIN) {
        Lines::None => {
            matches!(one(headers, &headers::SEC_FETCH_SITE), Lines::One(site) if site == "same-origin")
        }
        Lines::One(origin) => {
            origin.to_str().is_ok_and(|origin| parties.iter().any(|party| party.as_str() == origin) || own.is(origin))
        }
        Lines::Several => false,
    };
    if trusted { Ok(()) } else { Err(OriginForbidden) }
}

enum Lines<'a> {
    None,
    One(&'a HeaderValue),
    Several,
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Lines<'a> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Lines::None,
        (Some(line), None) => Lines::One(line),
        (Some(_), Some(_)) => Lines::Several,
    }
}

// === impl OwnOrigin ===

impl OwnOrigin<'_> {
    /// Whether a serialised origin (RFC 6454 section 6.2) is this one. Browsers leave the default port out.
    fn is(self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let default = match self.scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return false,
        };
        let own = self.authority.strip_suffix(default).unwrap_or(self.authority);
        scheme == self.scheme && !own.is_empty() && own.eq_ignore_ascii_case(authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    const OWN: OwnOrigin<'_> = OwnOrigin { scheme: "https", authority: "API.example.com:443" };

    fn passes(method: &Method, upgrade: bool, own: OwnOrigin<'_>, of: &[(&'static str, &'static str)]) -> bool {
        let parties = [Origin("https://app.example.com".to_owned())];
        check(method, &headers(of), upgrade, own, &parties).is_ok()
    }

    #[test]
    fn reading_needs_no_origin_and_writing_does() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(passes(&method, false, OWN, &[("origin", "https://evil.example")]), "{method}");
            assert!(!passes(&method, true, OWN, &[("origin", "https://evil.example")]), "{method} upgrade");
        }
        for method in
            [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE, Method::from_bytes(b"X").unwrap()]
        {
            assert!(!passes(&method, false, OWN, &[]), "{method}");
            assert!(passes(&method, false, OWN, &[("origin", "https://app.example.com")]), "{method}");
        }
    }

    #[test]
    fn only_a_party_or_the_own_origin_passes() {
        for good in ["https://app.example.com", "https://api.example.com"] {
            assert!(passes(&Method::POST, false, OWN, &[("origin", good)]), "{good}");
        }
        let bad = [
            "null",
            "",
            "https://evil.example",
            "http://app.example.com",
            "http://api.example.com",
            "https://api.example.com:8443",
            "https://api.example.com.evil.example",
            "https://app.example.com/",
            "app.example.com",
        ];
        for origin in bad {
            assert!(
                !passes(&Method::POST, false, OWN, &[("origin", origin), ("sec-fetch-site", "same-origin")]),
                "{origin}"
            );
        }
        let twice = [("origin", "https://app.example.com"), ("origin", "https://app.example.com")];
        assert!(!passes(&Method::POST, false, OWN, &twice));
    }

    #[test]
    fn an_own_port_counts() {
        let own = OwnOrigin { scheme: "http", authority: "localhost:3000" };
        assert!(passes(&Method::POST, false, own, &[("origin", "http://localhost:3000")]));
        assert!(!passes(&Method::POST, false, own, &[("origin", "http://localhost")]));
        let unknown = OwnOrigin { scheme: "http", authority: "" };
        assert!(!passes(&Method::POST, false, unknown, &[("origin", "http://")]));
        assert!(!passes(&Method::POST, false, OwnOrigin { scheme: "null", authority: "" }, &[("origin", "null")]));
    }

    #[test]
    fn without_origin_fetch_metadata_decides() {
        assert!(passes(&Method::POST, false, OWN, &[("sec-fetch-site", "same-origin")]));
        for other in ["same-site", "cross-site", "none", ""] {
            assert!(!passes(&Method::POST, false, OWN, &[("sec-fetch-site", other)]), "{other}");
        }
        assert!(!passes(
            &Method::POST,
            false,
            OWN,
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")]
        ));
    }
}
