//! Finding the one credential of a request: no fallback, no guess, and nothing allocated for a bearer token.

mod jar;
pub mod peek;

use http::header::{self, HeaderMap, HeaderName};

use crate::clock::Wall;
use crate::config::SessionSource;
use crate::session::cookies;
use crate::session::tag::Tag;
use crate::session::{Reason, SessionError};

pub use jar::CookieRules;
pub use peek::MAX_TOKEN_BYTES;

use peek::Peeks;

/// The text of a session JWT that nobody has verified.
///
/// Invariant: it is UTF-8. That is not written in its type because looking through all of it again costs more than
/// finding the session that it proves; only who reads it has to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenText<'a>(&'a [u8]);

/// The credential that decides about a request. Not verified.
#[derive(Debug, Clone, Copy)]
pub struct Credential<'a> {
    /// The session JWT.
    pub token: TokenText<'a>,
    /// Where it stood.
    pub place: Place<'a>,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The credential.
    pub credential: Credential<'a>,
    /// The token's tag, where finding it has made it. Not kept with the credential, which lives as long as its request.
    pub tag: Option<Tag>,
}

/// Where a credential stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// `Authorization: Bearer`
    Bearer,
    /// A header of its own.
    Header(&'a HeaderName),
    /// A cookie.
    Cookie {
        /// `__session` or `__session_<suffix>`.
        name: &'a str,
        /// The `__client_uat` that belongs to it, in seconds since the epoch; never 0. The check on every request
        /// refuses an older token.
        client_uat: i64,
    },
}

/// Finds the credential: the first of the route's sources that is present decides, whatever comes of it. `peeks` may
/// know what Clerk's rule for cookies asks of a token; the outcome is the same with any.
///
/// # Errors
/// `Missing` when no source has one; `Ambiguous` when one has two; `Invalid` when what is there cannot be a session
/// token, or is a cookie of somebody who has signed out.
pub fn find<'a>(
    headers: &'a HeaderMap,
    sources: &'a [SessionSource],
    rules: &CookieRules,
    now: Wall,
    peeks: &impl Peeks,
) -> Result<Found<'a>, SessionError> {
    // Wherever it stands in the order: of two lines somebody else may read the other one.
    if sources.first() != Some(&SessionSource::Bearer) && sources.contains(&SessionSource::Bearer) {
        only(headers, &header::AUTHORIZATION)?;
    }
    for source in sources {
        let mut tag = None;
        let found = match source {
            SessionSource::Bearer => bearer(headers)?,
            SessionSource::Header(name) => own_header(headers, name)?,
            SessionSource::Cookie => rules.find(headers, now, peeks)?.map(|chosen| {
                tag = chosen.tag;
                let place = Place::Cookie { name: chosen.name, client_uat: chosen.client_uat };
                Credential { token: chosen.token.into(), place }
            }),
        };
        if let Some(credential) = found {
            return Ok(Found { credential: credential.plausible()?, tag });
        }
    }
    Err(SessionError::Missing)
}

/// The credential in a text that stands for `Authorization`, behind this prefix, whose letter case does not matter.
///
/// # Errors
/// `Invalid` when it cannot be a session token.
pub fn behind<'a>(text: &'a str, prefix: &str) -> Result<Credential<'a>, SessionError> {
    let fits = text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if !fits || !text.is_ascii() {
        return Err(SessionError::Invalid(Reason::Malformed));
    }
    Credential { token: text[prefix.len()..].trim_ascii().into(), place: Place::Bearer }.plausible()
}

/// Whether everybody reads the request's `__client_uat` cookies alike: plain numbers, and no name twice with two values.
/// A browser has two of them for each instance; a request with many is not compared, and counts as ambiguous.
pub fn client_uat_is_plain(headers: &HeaderMap) -> bool {
    const MOST: usize = 32;
    let all = cookies::pairs(headers).filter(|pair| pair.name.starts_with(b"__client_uat"));
    let times: Vec<_> = all.take(MOST + 1).collect();
    let plain = |pair: &cookies::Pair<'_>| pair.value.iter().all(u8::is_ascii_digit);
    let alike =
        |pair: &cookies::Pair<'_>| times.iter().all(|other| other.name != pair.name || other.value == pair.value);
    times.len() <= MOST && times.iter().all(|pair| plain(pair) && alike(pair))
}

fn bearer(headers: &HeaderMap) -> Result<Option<Credential<'_>>, SessionError> {
    let Some(value) = only(headers, &header::AUTHORIZATION)? else { return Ok(None) };
    match split_scheme(value) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer") => {
            Ok(Some(Credential { token: TokenText(token), place: Place::Bearer }))
        }
        // Another scheme: not ours to judge.
        Some(_) => Ok(None),
        // One word: a token without a scheme, or a scheme without a token.
        None => Err(SessionError::Invalid(Reason::Malformed)),
    }
}

fn own_header<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> Result<Option<Credential<'a>>, SessionError> {
    let Some(value) = only(headers, name)? else { return Ok(None) };
    let token = match split_scheme(value) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer") => token,
        _ => value,
    };
    Ok(Some(Credential { token: TokenText(token), place: Place::Header(name) }))
}

fn split_scheme(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = value.iter().position(|&byte| byte == b' ')?;
    Some((&value[..space], value[space..].trim_ascii_start()))
}

/// The ASCII text of the header's one line, without surrounding white space; `None` when it is absent or empty.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, SessionError> {
    let mut lines = headers.get_all(name).iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        (Some(line), None) => line.as_bytes(),
        (Some(_), Some(_)) => return Err(SessionError::Ambiguous),
    };
    // A header value holds no control characters but the tab, so that this is all there is to look for.
    if !line.is_ascii() {
        return Err(SessionError::Invalid(Reason::Malformed));
    }
    Ok(Some(line.trim_ascii()).filter(|text| !text.is_empty()))
}

// === impl TokenText ===

impl<'a> TokenText<'a> {
    /// For who knows it by its bytes alone.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// For who reads it.
    pub fn as_str(self) -> &'a str {
        // Never empty by this: see the invariant.
        str::from_utf8(self.0).unwrap_or_default()
    }
}

impl<'a> From<&'a str> for TokenText<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl std::fmt::Debug for TokenText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

// === impl Credential ===

impl Credential<'_> {
    /// Refuses early what no verification could make a session token.
    fn plausible(self) -> Result<Self, SessionError> {
        // API keys, OAuth access tokens and machine tokens (contract section 1.8).
        if ["ak_", "oat_", "mt_", "m2m_"].iter().any(|prefix| self.token.0.starts_with(prefix.as_bytes())) {
            return Err(SessionError::Invalid(Reason::NotASessionToken));
        }
        if self.token.0.is_empty() || self.token.0.len() > MAX_TOKEN_BYTES {
            return Err(SessionError::Invalid(Reason::Malformed));
        }
        Ok(self)
    }

    /// For the check on every request: present only for a cookie.
    pub fn client_uat(&self) -> Option<i64> {
        match self.place {
            Place::Cookie { client_uat, .. } => Some(client_uat),
            Place::Bearer | Place::Header(_) => None,
        }
    }

    /// Whether a browser sends it by itself, so that the guard must look and an expired one may count as none.
    pub fn is_cookie(&self) -> bool {
        matches!(self.place, Place::Cookie { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use peek::NothingRead;
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000;
    const BEARER: &[SessionSource] = &[SessionSource::Bearer];
    const COOKIE: &[SessionSource] = &[SessionSource::Cookie];
    const BOTH: &[SessionSource] = &[SessionSource::Bearer, SessionSource::Cookie];

    fn rules(development: bool) -> CookieRules {
        CookieRules::sample("clerk.example.com", development)
    }

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    /// What is found: the token and its kind, or the error.
    fn seen(sources: &[SessionSource], of: &[(&str, &str)]) -> Result<String, SessionError> {
        let headers = headers(of);
        let found = find(&headers, sources, &rules(false), Wall::from_seconds(NOW), &NothingRead)?.credential;
        let place = match found.place {
            Place::Bearer => "bearer".to_owned(),
            Place::Header(name) => name.to_string(),
            Place::Cookie { name, client_uat } => format!("{name}@{client_uat}"),
        };
        Ok(format!("{} {place}", found.token.as_str()))
    }

    const MALFORMED: SessionError = SessionError::Invalid(Reason::Malformed);

    #[test]
    fn the_scheme_is_bearer_in_any_letter_case() {
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            assert_eq!(seen(BEARER, &[("authorization", &format!("{scheme} a.b.c"))]), Ok("a.b.c bearer".to_owned()));
        }
        assert_eq!(seen(BEARER, &[("authorization", " Bearer   a.b.c ")]), Ok("a.b.c bearer".to_owned()));
    }

    #[test]
    fn another_scheme_is_no_credential_and_a_bare_token_is_a_bad_one() {
        for other in ["Basic dTpw", "Digest a=b, c=d", "Negotiate x", ""] {
            assert_eq!(seen(BEARER, &[("authorization", other)]), Err(SessionError::Missing), "{other}");
        }
        for bad in ["a.b.c", "Bearer", "Bearer ", "Bearer\ta.b.c", "Bearer é"] {
            assert_eq!(seen(BEARER, &[("authorization", bad)]), Err(MALFORMED), "{bad}");
        }
        let cookie = ("cookie", "__session=a.b.c; __client_uat=5");
        // No fallback from a bad header; but one that is no credential leaves the cookie to decide.
        assert_eq!(seen(BOTH, &[("authorization", "a.b.c"), cookie]), Err(MALFORMED));
        assert_eq!(seen(BOTH, &[("authorization", "Basic dTpw"), cookie]), Ok("a.b.c __session@5".to_owned()));
    }

    #[test]
    fn the_first_source_that_is_present_decides() {
        let all = [("authorization", "Bearer b"), ("cookie", "__session=c; __client_uat=5"), ("x-session-token", "h")];
        let own = SessionSource::Header(HeaderName::from_static("x-session-token"));
        assert_eq!(seen(BOTH, &all), Ok("b bearer".to_owned()));
        assert_eq!(seen(&[SessionSource::Cookie, SessionSource::Bearer], &all), Ok("c __session@5".to_owned()));
        assert_eq!(seen(&[own.clone(), SessionSource::Bearer], &all), Ok("h x-session-token".to_owned()));
        assert_eq!(
            seen(std::slice::from_ref(&own), &[("x-session-token", "bearer h")]),
            Ok("h x-session-token".to_owned())
        );
        assert_eq!(seen(&[own], &[("x-session-token", "")]), Err(SessionError::Missing));
        assert_eq!(seen(&[], &all), Err(SessionError::Missing));
    }

    #[test]
    fn two_credentials_are_ambiguous() {
        let two = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert_eq!(seen(BEARER, &two), Err(SessionError::Ambiguous));
        let behind =
            [("cookie", "__session=c; __client_uat=5"), ("authorization", "Basic x"), ("authorization", "Bearer a")];
        assert_eq!(seen(&[SessionSource::Cookie, SessionSource::Bearer], &behind), Err(SessionError::Ambiguous));
        for lines in [
            &[("cookie", "__session=a; __client_uat=5; __session=b")][..],
            // Crumbs of one HTTP/2 header.
            &[("cookie", "__session=a; __client_uat=5"), ("cookie", "__session=b")],
            &[("cookie", "__session_QvfNY2dr=a; __client_uat_QvfNY2dr=5"), ("cookie", "__session_QvfNY2dr=b")],
        ] {
            assert_eq!(seen(COOKIE, lines), Err(SessionError::Ambiguous), "{lines:?}");
        }
        assert_eq!(
            seen(COOKIE, &[("cookie", "__session=a; __session=a"), ("cookie", "__client_uat=5")]),
            Ok("a __session@5".to_owned())
        );
    }

    #[test]
    fn other_kinds_of_token_are_named() {
        for text in ["ak_x", "oat_x", "mt_x", "m2m_x"] {
            let of = [("authorization", &*format!("Bearer {text}"))];
            assert_eq!(seen(BEARER, &of), Err(SessionError::Invalid(Reason::NotASessionToken)), "{text}");
        }
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        assert_eq!(seen(BEARER, &[("authorization", &long)]), Err(MALFORMED));
    }

    #[test]
    fn a_cookie_needs_a_client_uat() {
        let outdated = Err(SessionError::Invalid(Reason::OutdatedCookie));
        for uat in
            ["", "; __client_uat=0", "; __client_uat=", "; __client_uat=x", "; __client_uat=-5", "; __client_uat=5.5"]
        {
            assert_eq!(seen(COOKIE, &[("cookie", &format!("__session=a{uat}"))]), outdated, "{uat}");
        }
        assert_eq!(seen(COOKIE, &[("cookie", "__client_uat=5; a=b")]), Err(SessionError::Missing));
        assert_eq!(seen(COOKIE, &[("cookie", "__session=; __client_uat=5")]), Err(SessionError::Missing));
        // Of two the stricter counts.
        let two =
            |a: &str, b: &str| seen(COOKIE, &[("cookie", &format!("__session=t; __client_uat={a}; __client_uat={b}"))]);
        assert_eq!(two("5", "9"), Ok("t __session@9".to_owned()));
        assert_eq!(two("9", "5"), Ok("t __session@9".to_owned()));
        assert_eq!(two("9", "0"), outdated);
        assert_eq!(two("0", "9"), outdated);
    }

    #[test]
    fn without_a_publishable_key_only_the_plain_cookie_is_read() {
        let headers = headers(&[("cookie", "__session_QvfNY2dr=s; __client_uat_QvfNY2dr=5; __client_uat=5")]);
        let found = find(&headers, COOKIE, &CookieRules::default(), Wall::from_seconds(NOW), &NothingRead);
        assert_eq!(found.unwrap_err(), SessionError::Missing);
    }

    #[test]
    fn ten_thousand_cookies_are_read_once() {
        let line = format!("{}__session=t; __client_uat=5", "__session_x=1; ".repeat(10_000));
        assert_eq!(seen(COOKIE, &[("cookie", &line)]), Ok("t __session@5".to_owned()));
    }

    #[test]
    fn a_credential_does_not_print() {
        let headers = headers(&[("authorization", "Bearer canary")]);
        let found = find(&headers, BEARER, &rules(false), Wall::from_seconds(NOW), &NothingRead).unwrap().credential;
        assert!(!format!("{found:?}").contains("canary"));
    }

    proptest! {
        #[test]
        fn find_never_panics_and_never_guesses(
            authorization in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b' '), Just(b'.'), 33u8..=126, 128u8..=255], 0..30), 0..3),
            cookies in proptest::collection::vec("((__session|__client_uat|__session_QvfNY2dr|__client_uat_QvfNY2dr|a)[ =;\"]{0,2}([0-9]{1,3}|e30[.]e30[.]x|[ -~]{0,4})[; ]{0,2}){0,5}", 0..3),
            development: bool,
        ) {
            let mut headers = HeaderMap::new();
            for value in &authorization {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
            }
            for line in &cookies {
                headers.append(header::COOKIE, HeaderValue::from_str(line).unwrap());
            }
            let found = find(&headers, BOTH, &rules(development), Wall::from_seconds(NOW), &NothingRead);
            if authorization.len() > 1 {
                prop_assert_eq!(found.unwrap_err(), SessionError::Ambiguous);
            } else if let Ok(Found { credential: found, .. }) = found {
                prop_assert!(!found.token.as_str().is_empty());
                prop_assert!(found.client_uat().is_none_or(|uat| uat > 0));
            }
        }
    }
}
