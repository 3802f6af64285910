//! `connection_init`: the first message of GraphQL's two protocols over WebSockets, `graphql-transport-ws` and the older
//! `graphql-ws`. Its payload stands for the headers that a browser cannot set.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::config::InPayload;
use crate::headers;
use crate::session::json::{self, Members, Text};

/// Why a message is none in which a token could stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadInit {
    /// Not one JSON object, or one in which two names are equal.
    #[error("the first message is not one JSON object")]
    NotJson,
    /// Another message.
    #[error("the first message is not connection_init")]
    NotInit,
    /// What should hold the token, or hold what holds it, is no object.
    #[error("the payload of connection_init is not as it should be")]
    Payload,
}

/// What stands where the session token should.
#[derive(Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    /// Nothing.
    Nothing,
    /// One text.
    One(Cow<'a, str>),
    /// No text, or several values of which somebody else may read another one.
    Several,
}

/// The session token that a message presents, with what is written before it.
///
/// # Errors
/// When it is no `connection_init` that has a place for one.
pub fn presented<'a>(message: &'a str, at: &InPayload) -> Result<Presented<'a>, BadInit> {
    let (mut here, mut inside) = (payload(&members(message)?)?, at.steps.as_slice());
    while let [step, rest @ ..] = inside {
        let Some(object) = here.filter(|value| value.get() != "null") else { return Ok(Presented::Nothing) };
        let members: Members<'_> = serde_json::from_str(object.get()).map_err(|_| BadInit::Payload)?;
        if rest.is_empty() {
            let mut found = members.0.into_iter().filter(|(name, _)| is_twin(name.as_str(), step));
            return Ok(match (found.next(), found.next()) {
                (None, _) => Presented::Nothing,
                (Some((_, value)), None) => {
                    serde_json::from_str(value.get()).map_or(Presented::Several, |Text(text)| Presented::One(text))
                }
                (Some(_), Some(_)) => Presented::Several,
            });
        }
        (here, inside) = (named(&members, step), rest);
    }
    Ok(Presented::Nothing)
}

/// The message with `token` in its place, behind the prefix, and without whatever a server could take for it. `None`: there
/// is no token. Beside it, what `leaves` names leaves too. Everything else stays as it is written.
///
/// # Errors
/// When it is no `connection_init`, or what should hold the token is no object.
pub fn rewritten(
    message: &str,
    at: &InPayload,
    token: Option<&str>,
    leaves: impl Fn(&str) -> bool,
) -> Result<String, BadInit> {
    let members = members(message)?;
    payload(&members)?;
    let value = token.map(|token| [&at.prefix, token].concat());
    let steps: Vec<&str> = ["payload"].into_iter().chain(at.steps.iter().map(String::as_str)).collect();
    let mut out = String::with_capacity(message.len() + value.as_ref().map_or(0, String::len) + 64);
    write(&members, &steps, value.as_deref(), &leaves, &mut out)?;
    Ok(out)
}

/// Strictly: who reads it after us must not read anything else in it.
fn members(message: &str) -> Result<Members<'_>, BadInit> {
    if !json::is_strict_object(message) {
        return Err(BadInit::NotJson);
    }
    serde_json::from_str(message).map_err(|_| BadInit::NotJson)
}

/// The payload of a `connection_init`.
fn payload<'a>(members: &Members<'a>) -> Result<Option<&'a RawValue>, BadInit> {
    let kind = named(members, "type").ok_or(BadInit::NotInit)?;
    let Text(kind) = serde_json::from_str(kind.get()).map_err(|_| BadInit::NotInit)?;
    if kind == "connection_init" { Ok(named(members, "payload")) } else { Err(BadInit::NotInit) }
}

fn named<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    members.0.iter().find(|(own, _)| own.as_str() == name).map(|(_, value)| *value)
}

/// Writes an object in which the last of the steps has this value. An object that is missing is made, but not for nothing.
fn write(
    members: &Members<'_>,
    steps: &[&str],
    value: Option<&str>,
    leaves: &impl Fn(&str) -> bool,
    out: &mut String,
) -> Result<(), BadInit> {
    let [step, rest @ ..] = steps else { return Err(BadInit::Payload) };
    out.push('{');
    let mut written = false;
    for (name, raw) in &members.0 {
        let is_last = rest.is_empty();
        if is_last && (is_twin(name.as_str(), step) || leaves(name.as_str()) || leaves(&folded(name.as_str()))) {
            continue;
        }
        key(name.as_str(), out);
        let missing = raw.get() == "null";
        if is_last || name.as_str() != *step || (missing && value.is_none()) {
            out.push_str(raw.get());
        } else {
            let inner = if missing { Ok(Members(Vec::new())) } else { serde_json::from_str(raw.get()) };
            write(&inner.map_err(|_| BadInit::Payload)?, rest, value, leaves, out)?;
            written = true;
        }
    }
    if let (Some(text), false) = (value, written) {
        key(step, out);
        if rest.is_empty() {
            out.push_str(&quoted(text));
        } else {
            write(&Members(Vec::new()), rest, value, leaves, out)?;
        }
    }
    out.push('}');
    Ok(())
}

/// The name of a member, and what stands before it.
fn key(name: &str, out: &mut String) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(&quoted(name));
    out.push(':');
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether some server takes one name for the other: they are read as the names of headers are.
fn is_twin(name: &str, key: &str) -> bool {
    headers::are_twin_names(name, key) || headers::are_twin_names(&folded(name), &folded(key))
}

/// Without capitals. Beyond ASCII there are letters that have one of its letters for a capital.
fn folded(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(steps: &[&str], prefix: &str) -> InPayload {
        InPayload { steps: steps.iter().map(|&step| step.to_owned()).collect(), prefix: prefix.to_owned() }
    }

    fn headers_at() -> InPayload {
        at(&["headers", "Authorization"], "Bearer ")
    }

    fn seen(message: &str, at: &InPayload, token: Option<&str>) -> Result<String, BadInit> {
        rewritten(message, at, token, |_| false)
    }

    #[test]
    fn the_token_stands_where_it_should_and_the_rest_stays_as_it_was() {
        for (message, expected) in [
            (
                r#"{"type":"connection_init"}"#,
                r#"{"type":"connection_init","payload":{"headers":{"Authorization":"Bearer t"}}}"#,
            ),
            (
                r#"{"type":"connection_init","payload":null}"#,
                r#"{"type":"connection_init","payload":{"headers":{"Authorization":"Bearer t"}}}"#,
            ),
            (
                r#" { "payload" : { "n" : 1.50 , "headers" : null } , "type" : "connection_init" , "é" : [ 1 ] } "#,
                r#"{"payload":{"n":1.50,"headers":{"Authorization":"Bearer t"}},"type":"connection_init","é":[ 1 ]}"#,
            ),
            (
                r#"{"type":"connection_init","payload":{"headers":{"x":"\u0041\n","Authorization":{"a":1}}}}"#,
                r#"{"type":"connection_init","payload":{"headers":{"x":"\u0041\n","Authorization":"Bearer t"}}}"#,
            ),
            (
                r#"{"t\u0079pe":"connection\u005finit","p\u0061yload":{}}"#,
                r#"{"type":"connection\u005finit","payload":{"headers":{"Authorization":"Bearer t"}}}"#,
            ),
        ] {
            let written = seen(message, &headers_at(), Some("t")).unwrap();
            assert_eq!(written, expected, "{message}");
            assert!(json::is_strict_object(&written), "{written}");
        }
    }

    /// Fails when `write` compares names byte for byte.
    #[test]
    fn what_the_caller_put_there_is_gone_with_its_twins() {
        let spoofed = r#"{"type":"connection_init","payload":{"headers":{"authorization":"a","AUTHORIZATION":"b","Author\u0069zation":"c","kee_p":"d"}}}"#;
        let written = seen(spoofed, &headers_at(), Some("t")).unwrap();
        assert_eq!(
            written,
            r#"{"type":"connection_init","payload":{"headers":{"kee_p":"d","Authorization":"Bearer t"}}}"#
        );
        let spoofed = "{\"type\":\"connection_init\",\"payload\":{\"x_hasura_to\u{212a}en\":1,\"X-Hasura-Token\":2,\"x.hasura.token\":3}}";
        let written = seen(spoofed, &at(&["x-hasura-token"], ""), Some("t")).unwrap();
        assert_eq!(written, r#"{"type":"connection_init","payload":{"x-hasura-token":"t"}}"#);
        let none = seen(spoofed, &at(&["x-hasura-token"], ""), None).unwrap();
        assert_eq!(none, r#"{"type":"connection_init","payload":{}}"#);
    }

    /// Fails when `write` asks for the name alone as it is written.
    #[test]
    fn what_leaves_as_a_header_leaves_beside_the_token_and_nowhere_else() {
        let message = "{\"type\":\"connection_init\",\"payload\":{\"role\":1,\"headers\":{\"role\":2,\"\u{17f}ecret\":3,\"x\":{\"role\":4}}}}";
        let leaves = |name: &str| ["role", "secret"].contains(&name);
        let written = rewritten(message, &headers_at(), Some("t"), leaves).unwrap();
        let expected =
            r#"{"type":"connection_init","payload":{"role":1,"headers":{"x":{"role":4},"Authorization":"Bearer t"}}}"#;
        assert_eq!(written, expected);
    }

    #[test]
    fn without_a_token_nothing_is_made() {
        for message in [
            r#"{"type":"connection_init"}"#,
            r#"{"type":"connection_init","payload":null}"#,
            r#"{"type":"connection_init","payload":{"a":1}}"#,
        ] {
            assert_eq!(seen(message, &headers_at(), None).as_deref(), Ok(message));
        }
    }

    #[test]
    fn a_token_is_written_as_json() {
        let written = seen(r#"{"type":"connection_init"}"#, &at(&["a\"b"], "\\"), Some("x\"\n")).unwrap();
        assert_eq!(written, r#"{"type":"connection_init","payload":{"a\"b":"\\x\"\n"}}"#);
    }

    #[test]
    fn another_message_is_none() {
        for (message, bad) in [
            ("", BadInit::NotJson),
            ("[]", BadInit::NotJson),
            ("{} {}", BadInit::NotJson),
            (r#"{"type":"connection_init","type":"connection_init"}"#, BadInit::NotJson),
            (r#"{"type":"connection_init","payload":{"headers":{"a":1,"\u0061":2}}}"#, BadInit::NotJson),
            ("{}", BadInit::NotInit),
            (r#"{"type":"subscribe"}"#, BadInit::NotInit),
            (r#"{"type":["connection_init"]}"#, BadInit::NotInit),
            (r#"{"Type":"connection_init"}"#, BadInit::NotInit),
            (r#"{"type":"connection_init","payload":"a"}"#, BadInit::Payload),
            (r#"{"type":"connection_init","payload":[]}"#, BadInit::Payload),
            (r#"{"type":"connection_init","payload":{"headers":"a"}}"#, BadInit::Payload),
            (r#"{"type":"connection_init","payload":{"headers":[{}]}}"#, BadInit::Payload),
        ] {
            assert_eq!(seen(message, &headers_at(), Some("t")), Err(bad), "{message}");
            assert_eq!(presented(message, &headers_at()), Err(bad), "{message}");
        }
        let deep = format!(r#"{{"type":"connection_init","a":{}{}}}"#, "[".repeat(60_000 / 2), "]".repeat(60_000 / 2));
        assert_eq!(seen(&deep, &headers_at(), None), Err(BadInit::NotJson));
    }

    #[test]
    fn a_session_token_is_found_under_any_spelling_and_never_guessed() {
        let found_in = |headers: &str| {
            let message = format!(r#"{{"type":"connection_init","payload":{{"headers":{headers}}}}}"#);
            match presented(&message, &headers_at()).unwrap() {
                Presented::Nothing => "-".to_owned(),
                Presented::One(text) => text.into_owned(),
                Presented::Several => "?".to_owned(),
            }
        };
        for (headers, found) in [
            (r#"{"Authorization":"Bearer a"}"#, "Bearer a"),
            (r#"{"authorization":"Bearer \u0061"}"#, "Bearer a"),
            (r#"{"Authorization":"a","authorization":"a"}"#, "?"),
            (r#"{"Authorization":["a"]}"#, "?"),
            (r#"{"Authorization":null}"#, "?"),
            ("{}", "-"),
            ("null", "-"),
        ] {
            assert_eq!(found_in(headers), found, "{headers}");
        }
        assert_eq!(presented(r#"{"type":"connection_init"}"#, &headers_at()), Ok(Presented::Nothing));
    }
}
