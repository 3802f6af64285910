//! What the issuer's answers say. Pure readers, tolerant of what they do not need and strict about what they do.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use crate::clock::Wall;
use crate::session::json::Value as Strict;

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

/// The token out of a 200 (contract section 1.1).
pub(super) fn jwt(headers: &HeaderMap, body: &[u8]) -> Result<String, &'static str> {
    plain_json(headers)?;
    let answer = read(body).ok_or("it is not JSON")?;
    match answer.member("jwt").and_then(Strict::text) {
        None => Err("there is no token in it"),
        Some("") => Err("the token is empty"),
        Some(jwt) => Ok(jwt.to_owned()),
    }
}

/// Whether the session is active, out of the 200 of `GET /v1/sessions/{sid}` (contract section 1.3).
pub(super) fn is_active(headers: &HeaderMap, body: &[u8]) -> Result<bool, &'static str> {
    plain_json(headers)?;
    let session = read(body);
    let status = session.as_ref().and_then(|session| session.member("status")?.text()).ok_or("it is not a session")?;
    Ok(status == "active")
}

/// A body that everybody reads alike: an object is one, and nothing else is taken for one.
fn read(body: &[u8]) -> Option<Strict<'_>> {
    serde_json::from_slice(body).ok()
}

fn plain_json(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
        return Err("it is compressed, which nobody asked for");
    }
    let is_json = |kind: &HeaderValue| {
        let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    };
    let kinds = headers.get_all(header::CONTENT_TYPE);
    if kinds.iter().all(is_json) { Ok(()) } else { Err("its content type is not JSON") }
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
    let body = read(body);
    let names = |what: &str| {
        errors(body.as_ref()).iter().any(|error| {
            let names = |text: &str| text.to_ascii_lowercase().replace("session token", "").contains(what);
            ["message", "long_message"]
                .iter()
                .any(|name| names(error.member(name).and_then(Strict::text).unwrap_or("")))
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
    let body = read(body);
    let text = |value: Option<&Strict<'_>>| value.and_then(Strict::text).unwrap_or_default().to_owned();
    let code = errors(body.as_ref()).first().and_then(|error| error.member("code"));
    let trace_id = body.as_ref().and_then(|body| body.member("clerk_trace_id"));
    (
        shown(text(code), |byte| byte.is_ascii_lowercase() || *byte == b'_'),
        shown(text(trace_id), |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
    )
}

/// The list of errors that Clerk answers with (contract section 1.6).
fn errors<'v, 'a>(body: Option<&'v Strict<'a>>) -> &'v [Strict<'a>] {
    match body.and_then(|body| body.member("errors")) {
        Some(Strict::List(errors)) => errors,
        _ => &[],
    }
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

    /// Fails where a list is read as the members of an object in their order, and where one of two members counts.
    #[test]
    fn an_answer_is_one_object_that_everybody_reads_alike() {
        let headers = HeaderMap::new();
        assert_eq!(jwt(&headers, br#"{"object":"token","jwt":"a.b.c"}"#).unwrap(), "a.b.c");
        for body in [r#"["a.b.c"]"#, r#"{"jwt":"a","jwt":"b"}"#, r#"{"jwt":"a","x":{"y":1,"y":2}}"#, r#"{"jwt":["a"]}"#]
        {
            assert!(jwt(&headers, body.as_bytes()).is_err(), "{body}");
        }
        for body in [r#"["active"]"#, r#"{"status":"active","status":"ended"}"#] {
            assert!(is_active(&headers, body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(subject(br#"[[["","Session not found","c"]],null]"#), Subject::Unknown);
    }

    /// Fails where the first line alone is looked at.
    #[test]
    fn every_line_about_the_body_counts() {
        for (name, good, bad) in
            [(header::CONTENT_TYPE, "application/json", "text/html"), (header::CONTENT_ENCODING, "identity", "gzip")]
        {
            let mut headers = HeaderMap::new();
            headers.append(&name, HeaderValue::from_static(good));
            assert!(plain_json(&headers).is_ok());
            headers.append(&name, HeaderValue::from_static(bad));
            assert!(plain_json(&headers).is_err(), "{name}");
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
