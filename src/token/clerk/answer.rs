//! What the issuer's answers say. Pure readers, tolerant of what they do not need and strict about what they do.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::Value;

use crate::clock::Wall;

/// Bytes of a code or a trace id; Clerk's are shorter.
const LONGEST_SHOWN: usize = 64;

/// What a minted token says of itself. All optional: a token is opaque, and may be no JWT at all.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) exp: Option<Wall>,
    pub(super) iat: Option<Wall>,
    pub(super) sid: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) iss: Option<String>,
}

/// Whom the text of an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Template,
    Session,
    Unknown,
}

/// The list of errors that Clerk answers with (contract section 1.6).
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Problem>,
    clerk_trace_id: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    message: String,
    #[serde(default)]
    long_message: String,
    #[serde(default)]
    code: String,
}

/// The token out of a 200 (contract section 1.1).
pub(super) fn jwt(headers: &HeaderMap, body: &[u8]) -> Result<String, &'static str> {
    #[derive(Deserialize)]
    struct Minted {
        jwt: String,
    }
    plain_json(headers)?;
    match serde_json::from_slice(body) {
        Ok(Minted { jwt }) if jwt.is_empty() => Err("the token is empty"),
        Ok(Minted { jwt }) => Ok(jwt),
        Err(error) if error.is_data() => Err("there is no token in it"),
        Err(_) => Err("it is not JSON"),
    }
}

/// Whether the session is active, out of the 200 of `GET /v1/sessions/{sid}` (contract section 1.3).
pub(super) fn is_active(headers: &HeaderMap, body: &[u8]) -> Result<bool, &'static str> {
    #[derive(Deserialize)]
    struct Session {
        status: String,
    }
    plain_json(headers)?;
    let session: Session = serde_json::from_slice(body).map_err(|_| "it is not a session")?;
    Ok(session.status == "active")
}

fn plain_json(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err("it is compressed, which nobody asked for");
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err("its content type is not JSON") }
}

/// Reads the payload of a JWS in compact form, verifying nothing: it may be signed with a key that only the upstream
/// knows, and it came from the issuer over TLS. Whatever cannot be read is absent.
pub(super) fn claims(jwt: &str) -> Claims {
    let mut parts = jwt.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Claims::default();
    };
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
    let Ok(Value::Object(mut claims)) = serde_json::from_slice(&json) else { return Claims::default() };
    let mut text = |name| match claims.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (sid, sub, iss) = (text("sid"), text("sub"), text("iss"));
    let time = |name| claims.get(name).and_then(numeric_date);
    Claims { exp: time("exp"), iat: time("iat"), sid, sub, iss }
}

/// RFC 7519 section 2: seconds since the epoch, perhaps with a fraction, which is cut.
fn numeric_date(value: &Value) -> Option<Wall> {
    if let Some(seconds) = value.as_i64() {
        return Some(Wall::from_seconds(seconds));
    }
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite())?;
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, as the sum does")]
    let seconds = seconds.floor() as i64;
    Some(Wall::from_seconds(seconds))
}

/// Whom an error is about. `resource_not_found` is the code for both, so only the text tells; the template is looked for
/// first, because a template may be called `session`, while no session is called `jwt template`.
pub(super) fn subject(body: &[u8]) -> Subject {
    let Ok(Errors { errors, .. }) = serde_json::from_slice(body) else { return Subject::Unknown };
    let names = |what: &str| {
        errors.iter().any(|error| {
            let names = |text: &str| text.to_ascii_lowercase().replace("session token", "").contains(what);
            names(&error.message) || names(&error.long_message)
        })
    };
    if names("jwt template") {
        Subject::Template
    } else if names("session") {
        Subject::Session
    } else {
        Subject::Unknown
    }
}

/// Clerk's code and trace id of an error, for the log. What does not look like them is not shown: an answer may repeat
/// what it was asked with, and a secret key is letters, digits and `_` too.
pub(super) fn describe(body: &[u8]) -> (String, String) {
    let shown = |text: String, fits: fn(&u8) -> bool| {
        if text.len() <= LONGEST_SHOWN && text.as_bytes().iter().all(fits) { text } else { "[not shown]".to_owned() }
    };
    let Ok(Errors { errors, clerk_trace_id }) = serde_json::from_slice(body) else { return Default::default() };
    let code = errors.into_iter().next().map(|error| error.code).unwrap_or_default();
    (
        shown(code, |byte| byte.is_ascii_lowercase() || *byte == b'_'),
        shown(clerk_trace_id.unwrap_or_default(), |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
    )
}

/// `Retry-After` (RFC 9110 section 10.2.3), in seconds or as a date that is held against the issuer's own clock.
pub(super) fn retry_after(headers: &HeaderMap, issuer_now: Wall) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean "long".
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    Some(wall(text)?.since(issuer_now))
}

/// The `Date` of the answer.
pub(super) fn date(headers: &HeaderMap) -> Option<Wall> {
    wall(headers.get(header::DATE)?.to_str().ok()?)
}

fn wall(http_date: &str) -> Option<Wall> {
    let since = httpdate::parse_http_date(http_date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Wall::from_millis(0).plus(since))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn jws(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    fn error(message: &str, long: &str) -> String {
        format!(r#"{{"errors":[{{"message":"{message}","long_message":"{long}","code":"resource_not_found"}}]}}"#)
    }

    #[test]
    fn the_text_of_an_error_tells_whom_it_is_about() {
        for (body, expected) in [
            (error("Session not found", "No session was found with id sess_1"), Subject::Session),
            (error("JWT template not found", "No JWT template exists with name: hasura"), Subject::Template),
            (error("JWT template not found", "No JWT template exists with name: session"), Subject::Template),
            (error("not found", "No user was found with id user_1"), Subject::Unknown),
            (error("is invalid", "the session token life time is out of range"), Subject::Unknown),
            ("<html>no such session</html>".to_owned(), Subject::Unknown),
            (r#"{"errors":[]}"#.to_owned(), Subject::Unknown),
            (r#"{"errors":"session"}"#.to_owned(), Subject::Unknown),
            (String::new(), Subject::Unknown),
        ] {
            assert_eq!(subject(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn times_are_read_where_they_are_numbers() {
        for (payload, exp, iat) in [
            (r#"{"exp":60,"iat":1}"#, Some(60), Some(1)),
            (r#"{"exp":60.9}"#, Some(60), None),
            (r#"{"exp":6e1,"iat":-5}"#, Some(60), Some(-5)),
            (r#"{"exp":"60","iat":null}"#, None, None),
            (r#"{"exp":99999999999999999999}"#, Some(i64::MAX / 1000), None),
            (r#"{"exp":true,"iat":[1]}"#, None, None),
            ("[1]", None, None),
            ("not json", None, None),
        ] {
            let claims = claims(&jws(payload));
            let seconds = |wall: Option<Wall>| wall.map(Wall::as_seconds);
            assert_eq!((seconds(claims.exp), seconds(claims.iat)), (exp, iat), "{payload}");
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let now =
            date(&HeaderMap::from_iter([(header::DATE, HeaderValue::from_static("Fri, 07 Aug 2026 10:00:00 GMT"))]))
                .unwrap();
        for (text, expected) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("99999999999999999999999", Some(u64::from(u32::MAX))),
            ("Fri, 07 Aug 2026 10:00:30 GMT", Some(30)),
            ("Fri, 07 Aug 2026 09:00:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
    }

    /// Fails with any text that is letters, digits, `_` and `-`, which a secret key and each part of a token are.
    #[test]
    fn what_is_logged_of_an_error_is_a_code_and_a_trace_id_or_not_shown() {
        let hidden = "[not shown]";
        let long = "c".repeat(LONGEST_SHOWN + 1);
        for (code, trace, expected) in [
            ("resource_not_found", "0f1e2d3c4b5a6978", ("resource_not_found", "0f1e2d3c4b5a6978")),
            ("", "", ("", "")),
            ("a\\nb\\u001b[31m", "0f-1<x>", (hidden, hidden)),
            (&long, &long, (hidden, hidden)),
            ("sk_live_0f1e", "sk_live_0f1e", (hidden, hidden)),
            ("sk_live_LettersAlone", "eyJhbGciOi", (hidden, hidden)),
        ] {
            let body = format!(r#"{{"errors":[{{"code":"{code}"}}],"clerk_trace_id":"{trace}"}}"#);
            let (code, trace) = describe(body.as_bytes());
            assert_eq!((code.as_str(), trace.as_str()), expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_reader_panic(body in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let headers = HeaderMap::new();
            for body in [body.as_bytes(), &bytes] {
                let _ = (jwt(&headers, body), is_active(&headers, body), subject(body), describe(body));
            }
            let _ = (claims(&body), claims(&jws(&body)), claims(&format!("a.{body}.b")));
        }
    }
}
