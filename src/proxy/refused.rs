//! Whether an answer says in its body that a token was refused: `json` of `retry_rejected`.
//!
//! Whatever is not beyond doubt says nothing: another media type, a coding, what is no JSON from its first byte to its
//! last, and a name on the pointer's way that stands there twice.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::config::{JsonMatch, Scalar, Step};

/// Looks for one of the values at the end of the steps.
#[derive(Clone, Copy)]
struct Walk<'a> {
    steps: &'a [Step],
    equals: &'a [Scalar],
}

/// Whether a name of an object is this one.
struct Name<'a>(&'a str);

/// Whether an answer of this head may be read as JSON: it says so, in one way, and is not coded. A stream of events never
/// is, nor is a call of gRPC.
pub fn is_json(headers: &HeaderMap) -> bool {
    let coding = only(headers, &header::CONTENT_ENCODING);
    if headers.contains_key(header::CONTENT_ENCODING)
        && !coding.is_some_and(|coding| coding.eq_ignore_ascii_case("identity"))
    {
        return false;
    }
    let Some(essence) = only(headers, &header::CONTENT_TYPE).and_then(|kind| kind.split(';').next()) else {
        return false;
    };
    let Some((kind, subtype)) = essence.trim().split_once('/') else { return false };
    let (kind, subtype) = (kind.to_ascii_lowercase(), subtype.to_ascii_lowercase());
    match subtype.rsplit_once('+') {
        None => kind == "application" && subtype == "json",
        Some((base, suffix)) => suffix == "json" && !base.is_empty() && !kind.is_empty() && !base.starts_with("grpc"),
    }
}

/// Whether this whole body says that a token was refused.
pub fn says(body: &[u8], json: &JsonMatch) -> bool {
    // Read as text: of what it passes over, the reader of bytes takes anything.
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = Walk { steps: json.pointer.steps(), equals: &json.equals }.deserialize(&mut reader);
    matches!(found, Ok(true)) && reader.end().is_ok()
}

/// The value of a field that stands in one line alone.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    line.to_str().ok().filter(|_| lines.next().is_none())
}

// === impl Walk ===

impl Walk<'_> {
    fn ends_at(&self, scalar: impl Fn(&Scalar) -> bool) -> bool {
        self.steps.is_empty() && self.equals.iter().any(scalar)
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        Ok(self.ends_at(|scalar| matches!(scalar, Scalar::Text(own) if own == text)))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<bool, E> {
        Ok(self.ends_at(|scalar| *scalar == Scalar::Flag(flag)))
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<bool, E> {
        Ok(self.ends_at(|scalar| *scalar == Scalar::Integer(integer)))
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<bool, E> {
        i64::try_from(integer).map_or(Ok(false), |integer| self.visit_i64(integer))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut found = false;
        if let Some((step, steps)) = self.steps.split_first()
            && let Some(index) = step.index
        {
            // As many as there are, and not as many as the pointer says.
            for _ in 0..index {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(false);
                }
            }
            found = list.next_element_seed(Walk { steps, ..self })?.unwrap_or(false);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let Some((step, steps)) = self.steps.split_first() else {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(false);
        };
        let mut found = None;
        while let Some(is_it) = members.next_key_seed(Name(&step.name))? {
            if !is_it {
                members.next_value::<IgnoredAny>()?;
            } else if found.is_some() {
                return Err(A::Error::custom("the name stands here twice"));
            } else {
                found = Some(members.next_value_seed(Walk { steps, ..self })?);
            }
        }
        Ok(found.unwrap_or(false))
    }
}

// === impl Name ===

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Pointer;

    fn rule(pointer: &str, equals: &[Scalar]) -> JsonMatch {
        JsonMatch { pointer: Pointer::parse(pointer).unwrap(), equals: equals.to_vec() }
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn what_stands_at_the_pointer_decides() {
        let hasura = rule("/errors/0/extensions/code", &[text("invalid-jwt"), text("access-denied")]);
        for (body, refused) in [
            (
                r#"{"errors":[{"extensions":{"path":"$","code":"invalid-jwt"},"message":"Could not verify JWT: JWTExpired"}]}"#,
                true,
            ),
            (r#" { "data" : null , "errors" : [ { "extensions" : { "code" : "access-denied" } } , 1 ] } "#, true),
            // As it is read, and not as it is written.
            (r#"{"\u0065rrors":[{"extensions":{"code":"invalid\u002djwt"}}]}"#, true),
            // A twin that is not on the way is nobody's business.
            (r#"{"a":1,"a":2,"errors":[{"b":1,"extensions":{"code":"invalid-jwt"},"b":2}]}"#, true),
            (r#"{"errors":[{"extensions":{"code":"validation-failed"}}]}"#, false),
            (r#"{"errors":[{"extensions":{"code":"invalid-jwt "}}]}"#, false),
            (r#"{"errors":[{"extensions":{"code":["invalid-jwt"]}}]}"#, false),
            (r#"{"errors":[{"extensions":{"code":{"invalid-jwt":1}}}]}"#, false),
            (r#"{"errors":[{"extensions":{"code":null}}]}"#, false),
            (r#"{"errors":[{"extensions":{"Code":"invalid-jwt"}}]}"#, false),
            (r#"{"errors":[{},{"extensions":{"code":"invalid-jwt"}}]}"#, false),
            (r#"{"errors":{"0":{"extensions":{"code":"invalid-jwt"}}}}"#, true),
            (r#"[{"errors":[{"extensions":{"code":"invalid-jwt"}}]}]"#, false),
            (r#"{"errors":[]}"#, false),
            (r#"{"data":{"notes":[{"id":1}]}}"#, false),
            ("null", false),
            ("\"invalid-jwt\"", false),
        ] {
            assert_eq!(says(body.as_bytes(), &hasura), refused, "{body}");
        }
    }

    /// Fails for each of the reader's doubts that is taken out: the end, the twin names, the text.
    #[test]
    fn what_is_not_beyond_doubt_says_nothing() {
        let code = rule("/a/code", &[text("x")]);
        assert!(says(br#"{"a":{"code":"x"}}"#, &code));
        for body in [
            &br#"{"a":{"code":"x"}} {"#[..],
            br#"{"a":{"code":"x"}}{}"#,
            br#"{"a":{"code":"x"},"a":{}}"#,
            br#"{"a":{},"\u0061":{"code":"x"}}"#,
            br#"{"a":{"code":"x","code":"x"}}"#,
            br#"{"a":{"code":"x"}"#,
            br#"{"a":{"code":"x"},}"#,
            br#"{"a":{"code":"x"},"b":[1,]}"#,
            br#"{"a":{"code":"x"},"b":nul}"#,
            b"{\"a\":{\"code\":\"x\"},\"b\":\"\xff\xfe\"}",
            b"\xef\xbb\xbf{\"a\":{\"code\":\"x\"}}",
            br"{'a':{'code':'x'}}",
            b"",
            b" ",
            b"x",
        ] {
            assert!(!says(body, &code), "{}", String::from_utf8_lossy(body));
        }
        // Deeper than any reader's stack.
        for deep in [b"[".repeat(60_000), [&br#"{"a":{"code":"x"},"b":"#[..], &b"[".repeat(60_000)].concat()] {
            assert!(!says(&deep, &code));
        }
        let beside = [&br#"{"a":{"code":"x"},"b":"#[..], &b"[".repeat(30_000), &b"]".repeat(30_000), b"}"].concat();
        assert!(says(&beside, &code), "what is not on the way may be as deep as it likes");
    }

    #[test]
    fn places_of_lists_and_names_of_objects() {
        for (pointer, body, refused) in [
            ("", "\"x\"", true),
            ("", "[\"x\"]", false),
            ("/0/errors/0/code", r#"[{"errors":[{"code":"x"}]},{}]"#, true),
            ("/1", r#"["y","x"]"#, true),
            ("/2", r#"["y","x"]"#, false),
            ("/01", r#"["y","x"]"#, false),
            ("/01", r#"{"01":"x"}"#, true),
            ("/-", r#"["x"]"#, false),
            ("/-", r#"{"-":"x"}"#, true),
            ("/a~1b/c~0d", r#"{"a/b":{"c~d":"x"}}"#, true),
            ("/~01", r#"{"~1":"x"}"#, true),
            ("/~01", r#"{"/":"x"}"#, false),
            ("/", r#"{"":"x"}"#, true),
            ("//", r#"{"":{"":"x"}}"#, true),
            ("/18446744073709551615", r#"["x"]"#, false),
        ] {
            assert_eq!(says(body.as_bytes(), &rule(pointer, &[text("x")])), refused, "{pointer} {body}");
        }
    }

    #[test]
    fn a_value_is_equal_to_its_like_alone() {
        for (scalar, same, others) in [
            (Scalar::Integer(401), &["401"][..], &["401.0", "4.01e2", "\"401\"", "true", "-401", "1e400"][..]),
            (Scalar::Integer(-1), &["-1"], &["1", "18446744073709551615"]),
            (Scalar::Integer(0), &["0"], &["false", "null", "0.0", "\"\""]),
            (Scalar::Flag(true), &["true"], &["1", "\"true\"", "false"]),
            (text("true"), &["\"true\"", "\"\\u0074rue\""], &["true", "\"True\""]),
        ] {
            let rule = rule("/a", &[text("other"), scalar]);
            let body = |value: &&str| format!("{{\"a\":{value}}}");
            assert!(same.iter().all(|value| says(body(value).as_bytes(), &rule)), "{rule:?}");
            assert!(others.iter().all(|value| !says(body(value).as_bytes(), &rule)), "{rule:?}");
        }
    }

    #[test]
    fn only_json_that_is_not_coded_is_read() {
        let head = |lines: &[(HeaderName, &'static str)]| -> HeaderMap {
            lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        let many = |lines: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_static(value));
            }
            headers
        };
        for (kind, read) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/graphql-response+json;charset=utf-8", true),
            ("application/problem+json", true),
            ("application/vnd.pgrst.object+json", true),
            ("text/event-stream", false),
            ("multipart/mixed; boundary=\"application/json\"", false),
            ("text/json", false),
            ("application/jsonl", false),
            ("application/x-ndjson", false),
            ("application/json-seq", false),
            ("application/grpc+json", false),
            ("application/grpc-web+json", false),
            ("application/+json", false),
            ("application", false),
            ("", false),
        ] {
            assert_eq!(is_json(&head(&[(header::CONTENT_TYPE, kind)])), read, "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
        let json = (header::CONTENT_TYPE, "application/json");
        for (coding, read) in
            [("identity", true), ("Identity", true), ("gzip", false), ("identity, gzip", false), ("", false)]
        {
            let coding = (header::CONTENT_ENCODING, coding);
            assert_eq!(is_json(&head(&[json.clone(), coding.clone()])), read, "{coding:?}");
            assert!(!is_json(&many(&[json.clone(), coding.clone(), coding])));
        }
        assert!(!is_json(&many(&[json.clone(), (header::CONTENT_TYPE, "text/html")])));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
            "[ab01~/]{0,2}".prop_map(Value::from),
            Just(json!(1.5)),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab01~/]{0,2}", inner, 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Another reader of pointers finds the same.
        #[test]
        fn it_finds_what_another_reader_finds(
            value in values(),
            names in proptest::collection::vec("[ab01~/]{0,2}", 0..4),
            equals in proptest::collection::vec(
                prop_oneof![(0..3_i64).prop_map(Scalar::Integer), any::<bool>().prop_map(Scalar::Flag), "[ab01~/]{0,2}".prop_map(Scalar::Text)],
                1..4,
            ),
        ) {
            let names = names.iter().map(|name| name.replace('~', "~0").replace('/', "~1"));
            let pointer: String = names.flat_map(|name| ["/".to_owned(), name]).collect();
            let found = value.pointer(&pointer);
            let same = |scalar: &Scalar| found == Some(&match scalar {
                Scalar::Text(text) => json!(text),
                Scalar::Integer(integer) => json!(integer),
                Scalar::Flag(flag) => json!(flag),
            });
            prop_assert_eq!(says(value.to_string().as_bytes(), &rule(&pointer, &equals)), equals.iter().any(same));
        }
    }
}
