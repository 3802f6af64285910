//! Finding the one credential of a request: no fallback, no guess, and nothing allocated for a bearer token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::clock::Wall;
use crate::config::{Clerk, SessionSource};
use crate::session::cookies;
use crate::session::{Reason, SessionError};

/// A session token is not longer; a longer text is not looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The credential that decides about a request. Not verified.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    /// The session JWT's text.
    pub token: &'a str,
    /// Where it stood.
    pub place: Place<'a>,
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

/// How Clerk's cookies are chosen from (contract section 3.3); one for a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CookieRules(Option<Instance>);

/// What the publishable key tells about the instance. Without it only plain cookies are read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instance {
    session: String,
    client_uat: String,
    /// The hosts that the instance's tokens name as their issuer.
    hosts: Vec<String>,
    development: bool,
}

/// The cookies of one request that matter. An empty value counts as none, as in Clerk's SDK.
#[derive(Default)]
struct Jar<'a> {
    plain: Half<'a>,
    suffixed: Half<'a>,
}

#[derive(Default, Clone, Copy)]
struct Half<'a> {
    /// Name and value.
    session: Option<(&'a str, &'a str)>,
    client_uat: Option<&'a str>,
}

/// What is read from a token before it is verified, to choose between two cookies and for nothing else.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Peek {
    iss: Option<String>,
    iat: Option<f64>,
    exp: Option<f64>,
}

/// Finds the credential: the first of the route's sources that is present decides, whatever comes of it.
///
/// # Errors
/// `Missing` when no source has one; `Ambiguous` when one has two; `Invalid` when what is there cannot be a session
/// token, or is a cookie of somebody who has signed out.
pub fn find<'a>(
    headers: &'a HeaderMap,
    sources: &'a [SessionSource],
    rules: &CookieRules,
    now: Wall,
) -> Result<Credential<'a>, SessionError> {
    // Wherever it stands in the order: of two lines somebody else may read the other one.
    if sources.contains(&SessionSource::Bearer) {
        only(headers, &header::AUTHORIZATION)?;
    }
    for source in sources {
        let found = match source {
            SessionSource::Bearer => bearer(headers)?,
            SessionSource::Header(name) => own_header(headers, name)?,
            SessionSource::Cookie => rules.find(headers, now)?,
        };
        if let Some(credential) = found {
            return credential.plausible();
        }
    }
    Err(SessionError::Missing)
}

fn bearer(headers: &HeaderMap) -> Result<Option<Credential<'_>>, SessionError> {
    let Some(value) = only(headers, &header::AUTHORIZATION)? else { return Ok(None) };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Some(Credential { token: token.trim_ascii_start(), place: Place::Bearer }))
        }
        // Another scheme: not ours to judge.
        Some(_) => Ok(None),
        // One word: a token without a scheme, or a scheme without a token.
        None => Err(SessionError::Invalid(Reason::Malformed)),
    }
}

fn own_header<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> Result<Option<Credential<'a>>, SessionError> {
    let Some(value) = only(headers, name)? else { return Ok(None) };
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_ascii_start(),
        _ => value,
    };
    Ok(Some(Credential { token, place: Place::Header(name) }))
}

/// The header's one line, without surrounding white space; `None` when it is absent or empty.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, SessionError> {
    let mut lines = headers.get_all(name).iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        (Some(line), None) => line,
        (Some(_), Some(_)) => return Err(SessionError::Ambiguous),
    };
    let text = HeaderValue::to_str(line).map_err(|_| SessionError::Invalid(Reason::Malformed))?.trim_ascii();
    Ok(if text.is_empty() { None } else { Some(text) })
}

// === impl Credential ===

impl Credential<'_> {
    /// Refuses early what no verification could make a session token.
    fn plausible(self) -> Result<Self, SessionError> {
        // API keys, OAuth access tokens and machine tokens (contract section 1.8).
        if ["ak_", "oat_", "mt_", "m2m_"].iter().any(|prefix| self.token.starts_with(prefix)) {
            return Err(SessionError::Invalid(Reason::NotASessionToken));
        }
        if self.token.is_empty() || self.token.len() > MAX_TOKEN_BYTES {
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

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("token", &"[secret]").field("place", &self.place).finish()
    }
}

// === impl CookieRules ===

impl CookieRules {
    /// The rules of the configured instance.
    pub fn new(clerk: &Clerk) -> Self {
        Self(clerk.publishable_key.as_ref().map(|key| {
            Instance {
                session: format!("__session_{}", key.cookie_suffix),
                client_uat: format!("__client_uat_{}", key.cookie_suffix),
                hosts: [Some(key.frontend_api.as_str()), clerk.issuer.as_deref().map(without_scheme)]
                    .into_iter()
                    .flatten()
                    .map(str::to_owned)
                    .collect(),
                development: key.development,
            }
        }))
    }

    fn find<'a>(&self, headers: &'a HeaderMap, now: Wall) -> Result<Option<Credential<'a>>, SessionError> {
        let jar = self.read(headers)?;
        let half = match &self.0 {
            Some(instance) if instance.trusts_suffixed(&jar, now) => jar.suffixed,
            _ => jar.plain,
        };
        let Some((name, token)) = half.session else { return Ok(None) };
        let client_uat = seconds(half.client_uat);
        if client_uat == 0 {
            return Err(SessionError::Invalid(Reason::OutdatedCookie));
        }
        Ok(Some(Credential { token, place: Place::Cookie { name, client_uat } }))
    }

    fn read<'a>(&self, headers: &'a HeaderMap) -> Result<Jar<'a>, SessionError> {
        let (suffixed, suffixed_uat) = match &self.0 {
            Some(instance) => (instance.session.as_bytes(), instance.client_uat.as_bytes()),
            None => (&b""[..], &b""[..]),
        };
        let mut jar = Jar::default();
        for pair in cookies::pairs(headers) {
            if !pair.name.starts_with(b"__") || pair.value.is_empty() {
                continue;
            }
            match pair.name {
                b"__session" => put_session(&mut jar.plain, pair)?,
                b"__client_uat" => put_client_uat(&mut jar.plain, pair)?,
                name if name == suffixed => put_session(&mut jar.suffixed, pair)?,
                name if name == suffixed_uat => put_client_uat(&mut jar.suffixed, pair)?,
                _ => {}
            }
        }
        Ok(jar)
    }
}

fn text(bytes: &[u8]) -> Result<&str, SessionError> {
    std::str::from_utf8(bytes).map_err(|_| SessionError::Invalid(Reason::Malformed))
}

/// Two session cookies of one name are one too many, unless they are equal.
fn put_session<'a>(half: &mut Half<'a>, pair: cookies::Pair<'a>) -> Result<(), SessionError> {
    let (name, value) = (text(pair.name)?, text(pair.value)?);
    if half.session.is_some_and(|(_, before)| before != value) {
        return Err(SessionError::Ambiguous);
    }
    half.session = Some((name, value));
    Ok(())
}

/// Of two `__client_uat` the stricter counts: signed out, else the later sign-in. A browser may well hold one for the
/// host and one for its parent domain, and a planted one can only refuse.
fn put_client_uat<'a>(half: &mut Half<'a>, pair: cookies::Pair<'a>) -> Result<(), SessionError> {
    let value = text(pair.value)?;
    let strictness = |text: &str| match seconds(Some(text)) {
        0 => i64::MAX,
        seconds => seconds,
    };
    if half.client_uat.is_none_or(|before| strictness(before) < strictness(value)) {
        half.client_uat = Some(value);
    }
    Ok(())
}

/// Seconds since the epoch; 0 for what is absent or not a plain number. What does not fit is later than any token.
fn seconds(text: Option<&str>) -> i64 {
    match text {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().unwrap_or(i64::MAX),
        _ => 0,
    }
}

fn without_scheme(issuer: &str) -> &str {
    let scheme_end = issuer.find("://").filter(|&end| matches!(&issuer.as_bytes()[..end], b"http" | b"https"));
    scheme_end.map_or(issuer, |end| &issuer[end + 3..])
}

// === impl Instance ===

impl Instance {
    /// `usesSuffixedCookies` of Clerk's SDK (`authenticateContext.ts`), step by step. It compares the texts of
    /// `__client_uat`, so an absent one is not `0`.
    fn trusts_suffixed(&self, jar: &Jar<'_>, now: Wall) -> bool {
        let signed_out = |half: &Half<'_>| half.client_uat == Some("0");
        let plain = jar.plain.session.map(|(_, token)| Peek::of(token));
        if let Some(plain) = &plain {
            let Some(issuer) = plain.iss.as_deref().filter(|issuer| !issuer.is_empty()) else { return false };
            if !self.hosts.iter().any(|host| host == without_scheme(issuer)) {
                return true;
            }
        }
        if jar.suffixed.client_uat.is_none() && jar.suffixed.session.is_none() {
            return false;
        }
        let suffixed = jar.suffixed.session.map(|(_, token)| Peek::of(token));
        let issued = |peek: &Option<Peek>| peek.as_ref().and_then(|peek| peek.iat).unwrap_or(0.0);
        if !signed_out(&jar.suffixed) && !signed_out(&jar.plain) && issued(&plain) > issued(&suffixed) {
            return false;
        }
        if signed_out(&jar.suffixed) && !signed_out(&jar.plain) {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are far below 2^53")]
        let now = now.as_seconds() as f64;
        let expired = suffixed.as_ref().and_then(|peek| peek.exp).is_some_and(|exp| exp <= now);
        if self.development && !signed_out(&jar.suffixed) && signed_out(&jar.plain) && expired {
            return false;
        }
        jar.suffixed.client_uat.is_some() || jar.suffixed.session.is_none()
    }
}

// === impl Peek ===

impl Peek {
    /// Empty when the text is not a JWT.
    fn of(token: &str) -> Self {
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Self::default();
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Self::default();
        }
        let claims = URL_SAFE_NO_PAD.decode(payload).ok();
        claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default()
    }
}
