//! The JSON Schema and the reference are what the commands print, and every configuration of the project fits the schema.

use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::{Value, json};

use crate::documents::configurations;

/// What the binary prints.
fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mintgate")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Everything of the document that does not fit: the part of JSON Schema that ours is made of, and no more. An
/// independent one is asked by `tests/sdk/schema.py`.
fn misfits(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let fits = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "properties" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                "number" => value.is_number(),
                other => panic!("{other}"),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "pattern" => value.as_str().is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "required" => value.as_object().is_none_or(|members| {
                rule.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
            }),
            "minProperties" => value.as_object().is_none_or(|members| members.len() as u64 >= rule.as_u64().unwrap()),
            "maxProperties" => value.as_object().is_none_or(|members| members.len() as u64 <= rule.as_u64().unwrap()),
            "additionalProperties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}.{name}");
                    match (schema["properties"].get(name), rule) {
                        (Some(own), _) => misfits(own, member, &at, found),
                        (None, Value::Bool(false)) => found.push(format!("{at}: unknown")),
                        (None, rule) => misfits(rule, member, &at, found),
                    }
                }
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    misfits(rule, item, &format!("{at}[{index}]"), found);
                }
                true
            }
            "anyOf" => rule.as_array().unwrap().iter().any(|one| {
                let mut within = Vec::new();
                misfits(one, value, at, &mut within);
                within.is_empty()
            }),
            other => panic!("{other}"),
        };
        if !fits {
            found.push(format!("{at}: {keyword}: {value}"));
        }
    }
}

fn check(schema: &Value, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    misfits(schema, &toml::from_str(text).unwrap(), "", &mut found);
    found
}

fn schema() -> Value {
    serde_json::from_str(&printed(&["schema"])).unwrap()
}

/// Fails when a table is changed and the two files are not made anew.
#[test]
fn the_files_are_what_the_commands_print() {
    for (name, arguments) in
        [("config/mintgate.schema.json", &["schema"][..]), ("docs/configuration.md", &["schema", "--markdown"])]
    {
        let command = arguments.join(" ");
        assert!(file(name) == printed(arguments), "{name} is old; make it anew: mintgate {command} > {name}");
    }
}

#[test]
fn every_configuration_of_the_project_fits_the_schema() {
    let schema = schema();
    let samples = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap();
    let mut seen = 0;
    for sample in
        samples.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|is| is == "toml"))
    {
        let text = std::fs::read_to_string(&sample).unwrap();
        // An editor finds the schema beside the sample by this line.
        assert!(text.starts_with("#:schema ./mintgate.schema.json\n"), "{}", sample.display());
        assert_eq!(check(&schema, &text), Vec::<String>::new(), "{}", sample.display());
        seen += 1;
    }
    for (name, text) in configurations() {
        assert_eq!(check(&schema, &text), Vec::<String>::new(), "{name}:\n{text}");
        seen += 1;
    }
    assert!(seen > 15, "only {seen} were found");
}

/// Fails where a table loses `additionalProperties`, a text its pattern, or a number its bounds.
#[test]
fn what_does_not_fit_is_found() {
    let schema = schema();
    let route = "[[routes]]\nname = \"a\"\nupstream = \"http://127.0.0.1:1\"\n";
    assert_eq!(check(&schema, route), Vec::<String>::new());
    for bad in [
        "[webhooks]",
        "[servre]",
        "[server]\nlistne = []",
        "[server]\nlisten = \"127.0.0.1:1\"",
        "[server]\nlisten = [{ adress = \"127.0.0.1:1\" }]",
        "[server]\nworkers = \"4\"",
        "[server]\nworkers = 2000",
        "[server]\nidle_timeout = \"30\"",
        "[server]\nidle_timeout = 30",
        "[server]\nmax_header_bytes = \"off\"",
        "[server]\nmax_header_bytes = \"1 apple\"",
        "[clerk]\nsecret_key = \"sk_live_1\"",
        "[clerk]\nsecret_key = { env = \"A\", file = \"b\" }",
        "[clerk]\ntimeout = \"off\"",
        "[clerk.budget]\nper_session = \"20\"",
        "[clerk.budget]\nshare = 1.5",
        "[cache]\nrefresh_at = \"never\"",
        "[log]\nformat = \"xml\"",
        "[upstreams.a.pool]\nmax_idel = 1",
    ] {
        let text = format!("{bad}\n{route}");
        assert_ne!(check(&schema, &text), Vec::<String>::new(), "{bad}");
    }
    for bad in
        ["session = [\"header\"]", "websocket = { close = 1 }", "inject = [{ template = \"a\" }]", "match = \"/\""]
    {
        assert_ne!(check(&schema, &format!("{route}{bad}\n")), Vec::<String>::new(), "{bad}");
    }
    for good in [
        "[server]\nidle_timeout = \"${IDLE:-75s}\"\nrequest_body_limit = \"off\"",
        "[log]\nformat = \"${FORMAT}\"",
        "[cache]\nrefresh_at = \"off\"",
        "[clerk]\nsecret_key = [{ env = \"A\" }, { file = \"b\" }]",
    ] {
        assert_eq!(check(&schema, &format!("{good}\n{route}")), Vec::<String>::new(), "{good}");
    }
    assert_eq!(schema["properties"]["server"]["properties"]["idle_timeout"]["default"], json!("75s"));
    assert_eq!(schema["additionalProperties"], json!(false));
}
