//! Clerk's cookies of one request, and which of its two sessions counts (contract section 3.3).

use http::header::HeaderMap;

use super::peek::{Issuer, MAX_TOKEN_BYTES, Peek, Peeked, Peeks, without_scheme};
use crate::clock::Wall;
use crate::config::Clerk;
use crate::session::tag::Tag;
use crate::session::{Reason, SessionError, cookies};

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

/// What the rules chose. Not verified.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    /// `__session` or `__session_<suffix>`.
    pub(super) name: &'a str,
    /// The cookie's value.
    pub(super) token: &'a str,
    /// The `__client_uat` that belongs to it, in seconds since the epoch; never 0.
    pub(super) client_uat: i64,
    /// The token's tag, where choosing has made it.
    pub(super) tag: Option<Tag>,
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

    /// The session cookie that counts, with its `__client_uat`; a text that stands in both cookies is peeked at once.
    ///
    /// # Errors
    /// `Ambiguous` when a name has two tokens; `Invalid` when one is not text, or nobody is signed in.
    pub(super) fn find<'a>(
        &self,
        headers: &'a HeaderMap,
        now: Wall,
        peeks: &impl Peeks,
    ) -> Result<Option<Chosen<'a>>, SessionError> {
        let jar = self.read(headers)?;
        let mut last: Option<(&'a str, Peeked)> = None;
        let half = match &self.0 {
            Some(instance) => {
                let peek = |token: &'a str| match last {
                    Some((text, peeked)) if text == token => peeked.peek,
                    _ => {
                        let peeked = instance.peek(token, peeks);
                        last = Some((token, peeked));
                        peeked.peek
                    }
                };
                if instance.trusts_suffixed(&jar, now, peek) { jar.suffixed } else { jar.plain }
            }
            None => jar.plain,
        };
        let Some((name, token)) = half.session else { return Ok(None) };
        let client_uat = seconds(half.client_uat);
        if client_uat == 0 {
            return Err(SessionError::Invalid(Reason::OutdatedCookie));
        }
        let tag = last.filter(|(text, _)| *text == token).and_then(|(_, peeked)| peeked.tag);
        Ok(Some(Chosen { name, token, client_uat, tag }))
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

// === impl Instance ===

impl Instance {
    /// A text that is too long to be a token is not asked for.
    fn peek(&self, token: &str, peeks: &impl Peeks) -> Peeked {
        if token.len() > MAX_TOKEN_BYTES {
            return Peeked { peek: Peek::default(), tag: None };
        }
        peeks.peek(token, || Peek::of(token, &self.hosts))
    }

    /// `usesSuffixedCookies` of Clerk's SDK (`authenticateContext.ts`), step by step. It compares the texts of
    /// `__client_uat`, so an absent one is not `0`.
    fn trusts_suffixed<'a>(&self, jar: &Jar<'a>, now: Wall, mut peek: impl FnMut(&'a str) -> Peek) -> bool {
        let signed_out = |half: &Half<'_>| half.client_uat == Some("0");
        let plain = jar.plain.session.map(|(_, token)| peek(token));
        match plain.map(|plain| plain.issuer) {
            Some(Issuer::Nobody) => return false,
            Some(Issuer::Other) => return true,
            Some(Issuer::Ours) | None => {}
        }
        if jar.suffixed.client_uat.is_none() && jar.suffixed.session.is_none() {
            return false;
        }
        let suffixed = jar.suffixed.session.map(|(_, token)| peek(token));
        let issued = |peek: Option<Peek>| peek.and_then(|peek| peek.iat).unwrap_or(0.0);
        if !signed_out(&jar.suffixed) && !signed_out(&jar.plain) && issued(plain) > issued(suffixed) {
            return false;
        }
        if signed_out(&jar.suffixed) && !signed_out(&jar.plain) {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are far below 2^53")]
        let now = now.as_seconds() as f64;
        let expired = suffixed.and_then(|peek| peek.exp).is_some_and(|exp| exp <= now);
        if self.development && !signed_out(&jar.suffixed) && signed_out(&jar.plain) && expired {
            return false;
        }
        jar.suffixed.client_uat.is_some() || jar.suffixed.session.is_none()
    }
}

#[cfg(test)]
impl CookieRules {
    /// Those of an instance at `host` whose suffix is `QvfNY2dr`.
    pub(crate) fn sample(host: &str, development: bool) -> Self {
        Self(Some(Instance {
            session: "__session_QvfNY2dr".to_owned(),
            client_uat: "__client_uat_QvfNY2dr".to_owned(),
            hosts: vec![host.to_owned()],
            development,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::credential::peek::NothingRead;
    use crate::session::testing::part;
    use http::header::{self, HeaderValue};
    use serde_json::json;

    const NOW: i64 = 1_700_000_000;

    /// A token that nobody signed.
    fn token(iss: Option<&str>, iat: i64, exp: i64) -> String {
        let claims = json!({ "iss": iss, "iat": iat, "exp": exp });
        format!("{}.{}.x", part(r#"{"alg":"RS256"}"#), part(claims.to_string()))
    }

    /// Which of the two sessions is chosen, for the cookies of contract section 3.3.
    fn chosen(
        development: bool,
        plain: (Option<&str>, Option<&str>),
        suffixed: (Option<&str>, Option<&str>),
    ) -> &'static str {
        let names = ["__session", "__client_uat", "__session_QvfNY2dr", "__client_uat_QvfNY2dr"];
        let values = [plain.0, plain.1, suffixed.0, suffixed.1];
        let line: Vec<String> =
            names.iter().zip(values).filter_map(|(name, value)| Some(format!("{name}={}", value?))).collect();
        let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&line.join("; ")).unwrap())]);
        let rules = CookieRules::sample("clerk.example.com", development);
        match rules.find(&headers, Wall::from_seconds(NOW), &NothingRead) {
            Ok(Some(Chosen { name: "__session", .. })) => "plain",
            Ok(Some(_)) => "suffixed",
            Ok(None) => "none",
            Err(SessionError::Invalid(Reason::OutdatedCookie)) => "outdated",
            Err(_) => "error",
        }
    }

    #[test]
    fn the_cookie_is_chosen_as_clerks_sdk_does() {
        let ours = Some("https://clerk.example.com");
        let (old, new) = (token(ours, NOW - 50, NOW + 10), token(ours, NOW - 5, NOW + 55));
        let (expired, foreign) =
            (token(ours, NOW - 90, NOW - 30), token(Some("https://clerk.other.dev"), NOW - 5, NOW + 55));
        let nameless = token(None, NOW - 5, NOW + 55);
        let (old, new, expired) = (Some(&*old), Some(&*new), Some(&*expired));
        let (foreign, nameless, uat, zero) = (Some(&*foreign), Some(&*nameless), Some("1600000000"), Some("0"));
        let table = [
            // development, plain, suffixed, expected
            (false, (nameless, uat), (new, uat), "plain"),
            (false, (Some("garbage"), uat), (new, uat), "plain"),
            (false, (foreign, uat), (new, uat), "suffixed"),
            (false, (foreign, uat), (None, None), "none"),
            (false, (foreign, uat), (new, None), "outdated"),
            (false, (old, uat), (None, None), "plain"),
            (false, (new, uat), (old, uat), "plain"),
            (false, (old, uat), (new, uat), "suffixed"),
            (false, (new, uat), (new, uat), "suffixed"),
            (false, (new, None), (old, uat), "outdated"),
            (false, (old, uat), (new, zero), "plain"),
            (false, (None, uat), (new, zero), "none"),
            (false, (old, zero), (new, zero), "outdated"),
            (false, (new, zero), (old, uat), "suffixed"),
            (false, (new, zero), (expired, uat), "suffixed"),
            (true, (new, zero), (expired, uat), "outdated"),
            (true, (new, zero), (old, uat), "suffixed"),
            (false, (old, uat), (new, None), "plain"),
            (false, (None, None), (new, None), "none"),
            (false, (None, None), (new, uat), "suffixed"),
            (false, (None, None), (None, uat), "none"),
            (false, (old, uat), (None, uat), "plain"),
            (false, (old, zero), (None, uat), "none"),
        ];
        for (index, (development, plain, suffixed, expected)) in table.into_iter().enumerate() {
            assert_eq!(chosen(development, plain, suffixed), expected, "row {index}");
        }
    }
}
