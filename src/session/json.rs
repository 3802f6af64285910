//! Strict reading of JSON from outside: no duplicate keys at any depth, and a way to tell `null` from absent.

use std::borrow::Cow;
use std::fmt;

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::Step;

/// A string that borrows from the input unless it holds an escape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

/// A JSON value in which no object has two equal keys.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    /// Written with a fraction or an exponent.
    Float(f64),
    Text(Text<'a>),
    List(Vec<Value<'a>>),
    /// Its members, in the order of their names.
    Object(Vec<(Text<'a>, Value<'a>)>),
    /// A boolean, or a whole number that is no `Integer`.
    Other,
}

/// The same where what it holds does not matter.
pub(crate) struct Unique;

/// The members of an object, in their order, each as it is written. That no two names are equal is for
/// [`is_strict_object`] to say.
pub(crate) struct Members<'a>(pub(crate) Vec<(Text<'a>, &'a RawValue)>);

struct TextVisitor;

struct ValueVisitor;

struct UniqueVisitor;

struct MembersVisitor;

/// Whether the text is one JSON object without duplicate keys, at any depth. Keys count as they are read, so an
/// escaped twin is a duplicate. Numbers beyond a double and unpaired surrogates are refused too.
pub(crate) fn is_strict_object(text: &str) -> bool {
    matches!(serde_json::from_str(text), Ok(Value::Object(_)))
}

/// Whether no two of the names are equal. Sorted, not compared pair by pair: who writes the JSON chooses how many there
/// are. Most have sorted them already.
pub(crate) fn are_distinct(names: &mut [Text<'_>]) -> bool {
    let ascend = |names: &[Text<'_>]| names.is_sorted_by(|a, b| a < b);
    ascend(names) || {
        names.sort_unstable();
        ascend(names)
    }
}

/// For `#[serde(default, deserialize_with)]`: an absent field is `None`, but `null` is not absent.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// What a JSON pointer (RFC 6901) points to, as it is written there. One object after the other is read, and never the
/// whole as values: a number keeps all its digits.
pub(crate) fn at<'a>(json: &'a RawValue, pointer: &str) -> Option<&'a RawValue> {
    pointer.split('/').skip(1).map(Step::read).try_fold(json, |here, step| {
        if here.get().trim_start().starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(here.get()).ok()?;
            list.get(step.index?).copied()
        } else {
            let members: BTreeMap<Text<'_>, &RawValue> = serde_json::from_str(here.get()).ok()?;
            members.get(&Text(step.name.into_string().into())).copied()
        }
    })
}

// === impl Text ===

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TextVisitor)
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

// === impl Value ===

impl Value<'_> {
    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The value under a name, if this is an object that has it.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let at = members.binary_search_by(|(own, _)| own.as_str().cmp(name)).ok()?;
        Some(&members[at].1)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ValueVisitor)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(number).map_or(Value::Other, Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        TextVisitor.visit_borrowed_str(text).map(Value::Text)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'de>, E> {
        TextVisitor.visit_str(text).map(Value::Text)
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        // Room for an organization.
        let mut members: Vec<(Text<'de>, Value<'de>)> = Vec::with_capacity(6);
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        let ascend = |members: &[(Text<'de>, _)]| members.is_sorted_by(|(a, _), (b, _)| a < b);
        if !ascend(&members) {
            members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        }
        if ascend(&members) { Ok(Value::Object(members)) } else { Err(Error::custom("duplicate key")) }
    }
}

// === impl Unique ===

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(UniqueVisitor).map(|()| Self)
    }
}

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<Unique>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys: Vec<Text<'de>> = Vec::new();
        while let Some((key, Unique)) = map.next_entry()? {
            keys.push(key);
        }
        if are_distinct(&mut keys) { Ok(()) } else { Err(Error::custom("duplicate key")) }
    }
}

// === impl Members ===

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor)
    }
}

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_what_is_written() {
        let text = r#" {"a": {"b/c": [1.50, "x"], "~": null, "": 3}, "k\u0065y": "v", "0": [[7]]} "#;
        let json: Box<RawValue> = serde_json::from_str(text).unwrap();
        for (pointer, found) in [
            ("/a/b~1c/0", Some("1.50")),
            ("/a/b~1c/1", Some("\"x\"")),
            ("/a/~0", Some("null")),
            ("/a/", Some("3")),
            ("/key", Some("\"v\"")),
            ("/0/0/0", Some("7")),
            ("/a/b~1c/2", None),
            ("/a/b~1c/00", None),
            ("/a/b~1c/-", None),
            ("/a/b~1c/+1", None),
            ("/a/b", None),
            ("/key/0", None),
            ("/missing/deeper", None),
        ] {
            assert_eq!(at(&json, pointer).map(RawValue::get), found, "{pointer}");
        }
    }

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        for good in ["{}", r#"{"a":1,"b":{"a":[{"a":null}]}}"#, r#" {"a":[1.5,-1,true,"\u00e9"]} "#] {
            assert!(is_strict_object(good), "{good}");
        }
        let bad = [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"b":{"a":1,"c":2,"a":1}}"#,
            r#"{"b":[{"a":1,"a":1}]}"#,
            "[]",
            "1",
            "",
            "{} {}",
            r#"{"a":NaN}"#,
            r#"{"a":1e400}"#,
            r#"{"a":"\ud800"}"#,
        ];
        for text in bad {
            assert!(!is_strict_object(text), "{text}");
        }
    }
}
