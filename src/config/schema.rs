//! The JSON Schema of the file (2020-12), made of the tables that read it. Editors complete, explain and check by it.
//!
//! Every definition stands where it is used: no reference has to be followed, which not every editor does alike.

use serde_json::{Map, Value, json};

use super::raw::File;
use super::raw::describe::{Describe as _, Form, Key, Preset, Shape, TableShape, text};
use super::raw::expand;

/// A number with a unit, once or oftener: what `humantime` reads.
const DURATION: &str = r"(?:[0-9]+(?:\.[0-9]+)?\s*(?:nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|wks?|w|months?|M|years?|yrs?|y)\s*)+";

/// A number, perhaps with a unit: what `bytesize` reads.
const SIZE: &str = r"[0-9]+(?:\.[0-9]+)?\s*(?:[bB]|[kKmMgGtTpPeE][iI]?[bB]?)?";

/// The schema.
pub fn schema() -> Value {
    let mut schema = match File::shape() {
        Shape::Table(table) => table_schema(&table),
        _ => Map::new(),
    };
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("mintgate.toml"));
    Value::Object(schema)
}

fn table_schema(table: &TableShape) -> Map<String, Value> {
    let properties: Map<String, Value> = table.keys.iter().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let mut schema = object(json!({
        "type": "object",
        "description": text(table.about),
        "properties": properties,
        "additionalProperties": false,
    }));
    let required: Vec<&str> =
        table.keys.iter().filter(|key| key.default == Preset::Required).map(|key| key.name).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn key_schema(key: &Key) -> Value {
    let mut schema = shape_schema(&key.shape, key.form);
    // What the key means goes before what its table is.
    schema.insert("description".to_owned(), json!(text(key.about)));
    if let Preset::Value(default) = key.default
        && let Ok(default) = serde_json::from_str::<Value>(default)
    {
        schema.insert("default".to_owned(), default);
    }
    Value::Object(schema)
}

fn shape_schema(shape: &Shape, form: Form) -> Map<String, Value> {
    match shape {
        Shape::Text => text_schema(form),
        Shape::Flag => object(json!({ "type": "boolean" })),
        Shape::Integer => match form {
            Form::Count(least, most) => object(json!({ "type": "integer", "minimum": least, "maximum": most })),
            _ => object(json!({ "type": "integer" })),
        },
        Shape::Part => object(json!({ "type": "number", "minimum": 0, "maximum": 1 })),
        Shape::Secret => object(json!({
            "type": "object",
            "properties": {
                "env": { "type": "string", "description": "The name of an environment variable.", "pattern": "^[A-Za-z_$]" },
                "file": { "type": "string", "description": "The path of a file; one line end at its end is no part of it." },
            },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        })),
        Shape::Anything => object(json!({ "type": "object" })),
        Shape::List(inner) => object(json!({ "type": "array", "items": shape_schema(inner, form) })),
        Shape::OneOrMany(inner) => {
            let one = shape_schema(inner, form);
            object(json!({ "anyOf": [one, { "type": "array", "items": one }] }))
        }
        Shape::Named(inner) => object(json!({ "type": "object", "additionalProperties": shape_schema(inner, form) })),
        Shape::Table(table) => table_schema(table),
        Shape::Either(one, other) => object(json!({ "anyOf": [shape_schema(one, form), shape_schema(other, form)] })),
    }
}

/// In every text a variable may stand for a part, of which nothing is known.
fn text_schema(form: Form) -> Map<String, Value> {
    let matching = |pattern: String| {
        object(json!({ "type": "string", "pattern": format!(r"^(?:{pattern})$|{}", expand::PATTERN) }))
    };
    match form {
        Form::Free | Form::Count(..) => object(json!({ "type": "string" })),
        Form::Duration => matching(format!("0|{DURATION}")),
        Form::Limit => matching(format!("off|0|{DURATION}")),
        Form::Size => matching(SIZE.to_owned()),
        Form::SizeLimit => matching(format!("off|{SIZE}")),
        Form::Rate => matching(format!(r"[0-9]+\s*/\s*{DURATION}")),
        Form::Words(words) => {
            object(json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": expand::PATTERN }] }))
        }
    }
}

/// The members of an object that was written out.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::config::validate::units;

    fn pattern(form: Form) -> Regex {
        Regex::new(text_schema(form)["pattern"].as_str().unwrap()).unwrap()
    }

    /// Fails for each unit that one of the two does not know.
    #[test]
    fn a_pattern_takes_what_the_validation_takes() {
        let units = "nanos nsec ns usec us µs millis msec ms seconds second secs sec s minutes minute min mins m hours hour hr hrs h \
                     days day d weeks week wk wks w months month M years year yr yrs y";
        let durations = units.split_whitespace().map(|unit| format!("1{unit}"));
        for text in durations.chain(["0", "1h 30m", "1.5s", "1h30m", "30 s"].map(str::to_owned)) {
            assert!(units::duration(&text).is_some() && pattern(Form::Duration).is_match(&text), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1e9s", "30 s s", "off", "1sek", "1H"] {
            assert!(units::duration(text).is_none() && !pattern(Form::Duration).is_match(text), "{text}");
        }
        let sizes = ["", "k", "m", "g", "t", "p", "e"].iter().flat_map(|unit| {
            ["", "b", "B", "i", "ib", "iB"]
                .map(|rest| format!("1{}{rest}", if rest.len() > 1 { unit.to_uppercase() } else { (*unit).to_owned() }))
        });
        for text in sizes.chain(["0", "1 MiB", "1.5KiB"].map(str::to_owned)) {
            assert_eq!(units::size(&text).is_some(), pattern(Form::Size).is_match(&text), "{text}");
        }
        for text in ["", "KiB", "-1", "1 apple", "off"] {
            assert!(units::size(text).is_none() && !pattern(Form::Size).is_match(text), "{text}");
        }
        for (text, good) in [("20/10s", true), ("20", false), ("20/", false), ("/10s", false), ("20/10", false)] {
            assert_eq!((units::rate(text).is_some(), pattern(Form::Rate).is_match(text)), (good, good), "{text}");
        }
        for form in [Form::Limit, Form::SizeLimit] {
            assert!(pattern(form).is_match("off") && pattern(form).is_match("0") && !pattern(form).is_match("on"));
        }
        assert!(pattern(Form::Duration).is_match("${TIMEOUT:-30s}") && !pattern(Form::Duration).is_match("$$"));
    }
}
