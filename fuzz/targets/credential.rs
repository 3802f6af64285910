//! Finding the credential in headers of any bytes: the first place that has one decides, two of them are nobody's, and of
//! Clerk's cookies the one counts that the contract's rules name.
//!
//! The first line of an input says where to look, in order (`b` bearer, `c` cookie, `h` a header of its own), and `d` or
//! `p` that there is a publishable key of a development or a production instance. Then header lines; what stands between
//! two `@` is replaced by a JWT with these claims.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use mintgate::clock::Wall;
use mintgate::config::SessionSource;
use mintgate::session::credential::peek::NothingRead;
use mintgate::session::credential::{self, CookieRules, MAX_TOKEN_BYTES, Place, client_uat_is_plain};
use mintgate::session::{Reason, SessionError};
use mintgate_fuzz::json::{self, Json};
use mintgate_fuzz::{base64url, cookies, gateway_of, unbase64url};

const NOW: i64 = 1_700_000_000;
const OWN: HeaderName = HeaderName::from_static("x-session-token");
const ROUTE: &str = "[[routes]]\nname = \"r\"\nmatch = { path = \"/\" }\nupstream = \"up\"\n";

/// An instance; the suffixes are those of the contract's test vectors.
struct Instance {
    key: &'static str,
    suffix: &'static str,
    host: &'static str,
    development: bool,
}

const DEVELOPMENT: Instance =
    Instance { key: "pk_test_Y2xlcmsuY2xlcmsuZGV2JA", suffix: "QvfNY2dr", host: "clerk.clerk.dev", development: true };
const PRODUCTION: Instance = Instance {
    key: "pk_live_ZmFrZS1jbGVyay10ZXN0LmNsZXJrLmFjY291bnRzLmRldiQ=",
    suffix: "qReyu04C",
    host: "fake-clerk-test.clerk.accounts.dev",
    development: false,
};

/// Without a key, for development, for production.
static RULES: LazyLock<[CookieRules; 3]> = LazyLock::new(|| {
    ["", DEVELOPMENT.key, PRODUCTION.key].map(|key| {
        let clerk = if key.is_empty() { String::new() } else { format!("publishable_key = \"{key}\"\n") };
        CookieRules::new(&gateway_of(&clerk, ROUTE).clerk)
    })
});

/// What is found: the token and where it stood.
type Found = Result<(Vec<u8>, String), SessionError>;

/// The slow reading cannot tell what a reader of JSON makes of it.
struct Unclear;

/// What a token says of itself, for the choice between two cookies.
#[derive(Clone, Copy)]
struct Says {
    /// `None`: no issuer.
    ours: Option<bool>,
    iat: Option<f64>,
    exp: Option<f64>,
}

/// The cookies of one kind, plain or suffixed.
#[derive(Default)]
struct Half {
    session: Option<(String, String)>,
    client_uat: Option<String>,
}

fn malformed<T>() -> Result<T, SessionError> {
    Err(SessionError::Invalid(Reason::Malformed))
}

/// The one line of a header, trimmed; `None` where there is none or nothing stands in it.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, SessionError> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    match lines.as_slice() {
        [] => Ok(None),
        [line] => match std::str::from_utf8(line.as_bytes()) {
            Ok(text) if text.is_ascii() => Ok(Some(text.trim_matches([' ', '\t'])).filter(|text| !text.is_empty())),
            _ => malformed(),
        },
        _ => Err(SessionError::Ambiguous),
    }
}

/// What follows `Bearer` and spaces.
fn after_scheme(text: &str) -> Option<Option<&str>> {
    let (scheme, token) = text.split_once(' ')?;
    Some(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches([' ', '\t'])))
}

fn seconds(text: Option<&str>) -> i64 {
    match text {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().unwrap_or(i64::MAX),
        _ => 0,
    }
}

fn says(token: &str, instance: &Instance) -> Result<Says, Unclear> {
    let nothing = Says { ours: None, iat: None, exp: None };
    let parts: Vec<&str> = token.split('.').collect();
    if parts.len() != 3 || token.len() > MAX_TOKEN_BYTES {
        return Ok(nothing);
    }
    let Some(payload) = unbase64url(parts[1]) else { return Ok(nothing) };
    let claims = match std::str::from_utf8(&payload).ok().and_then(json::read) {
        Some(claims @ Json::Object(_)) => claims,
        None if matches!(payload.trim_ascii_start().first(), Some(b'{' | b'[')) => return Err(Unclear),
        Some(Json::List(_)) => return Err(Unclear),
        _ => return Ok(nothing),
    };
    let number = |name| match claims.get(name) {
        None | Some(Json::Null) => Some(None),
        Some(Json::Number(digits)) => Some(Some(digits.parse::<f64>().unwrap())),
        Some(_) => None,
    };
    let issuer = match claims.get("iss") {
        None | Some(Json::Null) => Some(""),
        Some(issuer) => issuer.text(),
    };
    let (Some(issuer), Some(iat), Some(exp)) = (issuer, number("iat"), number("exp")) else { return Ok(nothing) };
    let host = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://")).unwrap_or(issuer);
    // The issuer that the configuration names is ours as well.
    let ours = if issuer.is_empty() { None } else { Some(host == instance.host || host == "clerk.example.com") };
    Ok(Says { ours, iat, exp })
}

/// The contract's choice between the two kinds, line by line.
fn trusts_suffixed(plain: &Half, suffixed: &Half, instance: &Instance) -> Result<bool, Unclear> {
    let out = |half: &Half| half.client_uat.as_deref() == Some("0");
    let of = |half: &Half| half.session.as_ref().map(|(_, token)| says(token, instance)).transpose();
    let own = of(plain)?;
    if let Some(own) = own {
        match own.ours {
            // A plain one without an issuer: it counts.
            None => return Ok(false),
            // Another instance's.
            Some(false) => return Ok(true),
            Some(true) => {}
        }
    }
    if suffixed.session.is_none() && suffixed.client_uat.is_none() {
        return Ok(false);
    }
    let other = of(suffixed)?;
    let iat = |says: Option<Says>| says.and_then(|says| says.iat).unwrap_or(0.0);
    let both_in = !out(plain) && !out(suffixed);
    let newer = both_in && iat(own) > iat(other);
    let only_plain_in = out(suffixed) && !out(plain);
    let expired = other.and_then(|says| says.exp).is_some_and(|exp| exp <= NOW as f64);
    let stale = instance.development && out(plain) && !out(suffixed) && expired;
    let without_time = suffixed.session.is_some() && suffixed.client_uat.is_none();
    Ok(!(newer || only_plain_in || stale || without_time))
}

/// The cookie that counts.
fn cookie(
    headers: &HeaderMap,
    instance: Option<&Instance>,
) -> Result<Result<Option<(String, String)>, SessionError>, Unclear> {
    let (mut plain, mut suffixed) = (Half::default(), Half::default());
    let suffix = instance.map(|instance| instance.suffix);
    let lines = headers.get_all(header::COOKIE);
    for (name, value) in lines.iter().flat_map(|line| cookies(line.as_bytes())).filter(|(_, value)| !value.is_empty()) {
        let (is_session, half) = match std::str::from_utf8(&name).unwrap_or("") {
            "__session" => (true, &mut plain),
            "__client_uat" => (false, &mut plain),
            name if suffix.is_some_and(|suffix| name == format!("__session_{suffix}")) => (true, &mut suffixed),
            name if suffix.is_some_and(|suffix| name == format!("__client_uat_{suffix}")) => (false, &mut suffixed),
            _ => continue,
        };
        let Ok(value) = String::from_utf8(value) else { return Ok(malformed()) };
        if is_session {
            if half.session.as_ref().is_some_and(|(_, before)| *before != value) {
                return Ok(Err(SessionError::Ambiguous));
            }
            half.session = Some((String::from_utf8(name).unwrap(), value));
        } else {
            // Signed out is the strictest, then the later sign-in.
            let rank = |text: &str| Some(seconds(Some(text))).filter(|&at| at > 0).unwrap_or(i64::MAX);
            if half.client_uat.as_deref().is_none_or(|before| rank(&value) > rank(before)) {
                half.client_uat = Some(value);
            }
        }
    }
    let half = match instance {
        Some(instance) if trusts_suffixed(&plain, &suffixed, instance)? => suffixed,
        _ => plain,
    };
    let Some((name, token)) = half.session else { return Ok(Ok(None)) };
    Ok(match seconds(half.client_uat.as_deref()) {
        0 => Err(SessionError::Invalid(Reason::OutdatedCookie)),
        at => Ok(Some((token, format!("{name}@{at}")))),
    })
}

fn slow(headers: &HeaderMap, sources: &[SessionSource], instance: Option<&Instance>) -> Result<Found, Unclear> {
    // Two lines of `Authorization` are two, wherever it stands in the order.
    if sources.contains(&SessionSource::Bearer)
        && sources.first() != Some(&SessionSource::Bearer)
        && let Err(error) = one(headers, &header::AUTHORIZATION)
    {
        return Ok(Err(error));
    }
    for source in sources {
        let found = match source {
            SessionSource::Bearer => {
                one(headers, &header::AUTHORIZATION).and_then(|text| match text.map(after_scheme) {
                    None | Some(Some(None)) => Ok(None),
                    Some(Some(Some(token))) => Ok(Some((token.to_owned(), "bearer".to_owned()))),
                    Some(None) => malformed(),
                })
            }
            SessionSource::Header(name) => one(headers, name).map(|text| {
                let text = text?;
                Some((after_scheme(text).flatten().unwrap_or(text).to_owned(), "header".to_owned()))
            }),
            SessionSource::Cookie => cookie(headers, instance)?,
        };
        let (token, place) = match found {
            Ok(None) => continue,
            Ok(Some(found)) => found,
            Err(error) => return Ok(Err(error)),
        };
        if ["ak_", "oat_", "mt_", "m2m_"].iter().any(|start| token.starts_with(start)) {
            return Ok(Err(SessionError::Invalid(Reason::NotASessionToken)));
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Ok(malformed());
        }
        return Ok(Ok((token.into_bytes(), place)));
    }
    Ok(Err(SessionError::Missing))
}

/// The line with a JWT for whatever stands between two `@`.
fn expanded(line: &[u8]) -> Vec<u8> {
    let pieces = line.split(|&byte| byte == b'@').enumerate();
    let piece = |(index, piece): (usize, &[u8])| {
        if index % 2 == 0 { piece.to_vec() } else { format!("e30.{}.c2ln", base64url(piece)).into_bytes() }
    };
    pieces.flat_map(piece).collect()
}

/// Whether two readers take the request's `__client_uat` cookies for the same: plain numbers, no name with two values.
fn slow_is_plain(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::COOKIE);
    let all =
        lines.iter().flat_map(|line| cookies(line.as_bytes())).filter(|(name, _)| name.starts_with(b"__client_uat"));
    let mut all: Vec<_> = all.collect();
    if all.len() > 32 || all.iter().any(|(_, value)| !value.iter().all(u8::is_ascii_digit)) {
        return false;
    }
    all.sort();
    all.dedup();
    all.windows(2).all(|two| two[0].0 != two[1].0)
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|&byte| byte == b'\n');
    let Some(first) = lines.next() else { return };
    let mut sources: Vec<SessionSource> = Vec::new();
    for letter in first {
        let source = match letter {
            b'b' => SessionSource::Bearer,
            b'c' => SessionSource::Cookie,
            b'h' => SessionSource::Header(OWN),
            _ => continue,
        };
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    let (rules, instance) = if first.contains(&b'd') {
        (&RULES[1], Some(&DEVELOPMENT))
    } else if first.contains(&b'p') {
        (&RULES[2], Some(&PRODUCTION))
    } else {
        (&RULES[0], None)
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&expanded(&line[colon + 1..])));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let found = credential::find(&headers, &sources, rules, Wall::from_seconds(NOW), &NothingRead);
    let told = found.map(|found| {
        let credential = found.credential;
        assert!(!credential.token.as_str().is_empty() && credential.token.as_bytes().len() <= MAX_TOKEN_BYTES);
        let place = match credential.place {
            Place::Bearer => "bearer".to_owned(),
            Place::Header(_) => "header".to_owned(),
            Place::Cookie { name, client_uat } => format!("{name}@{client_uat}"),
        };
        (credential.token.as_bytes().to_vec(), place)
    });
    if let Ok(expected) = slow(&headers, &sources, instance) {
        assert_eq!(told, expected, "{sources:?} {headers:?}");
    }
    assert_eq!(client_uat_is_plain(&headers), slow_is_plain(&headers), "{headers:?}");
});
