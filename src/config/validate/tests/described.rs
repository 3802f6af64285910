//! What the tables say of their keys is what the validation does: defaults, words, bounds, and what cannot be left out.

use super::*;
use crate::config::raw::describe::{self, Form, Key, Preset, Shape, TableShape};

/// A configuration in parts: what a table is called, and its lines.
const PARTS: [(&str, &str); 21] = [
    ("clerk", "[clerk]\nsecret_key = { env = \"CLERK_SECRET_KEY\" }\nissuer = \"https://clerk.example.com\""),
    ("clerk.budget", "[clerk.budget]"),
    ("server", "[server]"),
    ("admin", "[admin]"),
    ("authz", "[authz]\nlisten = \"127.0.0.1:6473\""),
    ("token_api", "[token_api]\nlisten = \"127.0.0.1:6474\""),
    ("token_api.callers[]", "[[token_api.callers]]\nname = \"a\"\ntoken = { env = \"CALLER\" }\ntemplates = [\"t\"]"),
    ("webhooks", "[webhooks]\nlisten = \"127.0.0.1:6475\"\nsigning_secret = { env = \"SIGNING\" }"),
    ("log", "[log]"),
    ("traces", "[traces]"),
    ("cache", "[cache]"),
    ("cache.shared", "[cache.shared]\nurl = \"redis://127.0.0.1\"\nencryption_key = { env = \"CACHE_KEY\" }"),
    ("upstreams.*", "[upstreams.up]\nurl = \"https://api.example.com\""),
    ("upstreams.*.tls", "[upstreams.up.tls]"),
    ("upstreams.*.pool", "[upstreams.up.pool]"),
    ("routes[]", "[[routes]]\nname = \"a\"\nupstream = \"up\""),
    ("routes[].match", "[routes.match]"),
    ("routes[].websocket", "[routes.websocket]"),
    ("routes[].retry_rejected", "[routes.retry_rejected]\nstatuses = [401]"),
    ("routes[].retry_rejected.json", "[routes.retry_rejected.json]\npointer = \"/code\"\nequals = [\"invalid-jwt\"]"),
    ("routes[].inject[]", "[[routes.inject]]\nheader = \"authorization\"\ntemplate = \"t\""),
];

/// Tables that a line cannot simply be added to: their keys have tests of their own.
const ELSEWHERE: [&str; 5] =
    ["", "server.listen[]", "server.tls", "routes[].session[]", "routes[].websocket.rewrite_connection_init"];

/// The configuration with a further line in one table, in the place of the same key and of the table that it stands for.
fn with(at: &str, key: &str, value: Option<&str>) -> String {
    let replaced =
        |of: &str| of.strip_prefix(at).is_some_and(|rest| rest == format!(".{key}") || rest == format!(".{key}[]"));
    let mut out = String::new();
    for (of, lines) in PARTS.iter().filter(|(of, _)| !replaced(of)) {
        for line in lines.lines().filter(|line| *of != at || !line.starts_with(&format!("{key} ="))) {
            out.push_str(line);
            out.push('\n');
        }
        if let (true, Some(value)) = (*of == at, value) {
            out.extend([key, " = ", value, "\n"]);
        }
    }
    out
}

/// What is wrong with the text, errors and warnings; empty when nothing is.
fn problems(text: &str) -> String {
    match parse(text) {
        Ok((_, warnings)) => warnings.to_string(),
        Err(problems) => problems.to_string(),
    }
}

fn parse(text: &str) -> Result<(Config, Diagnostics), Diagnostics> {
    let outside = Outside::default()
        .var("CLERK_SECRET_KEY", "sk_live_1")
        .var("CALLER", "caller")
        .var("CACHE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        .var("SIGNING", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    parse_in(&outside, text)
}

fn each(mut look: impl FnMut(&TableShape, &Key)) {
    let shape = raw::File::shape();
    for table in shape.tables() {
        assert_eq!(
            ELSEWHERE.contains(&table.at),
            PARTS.iter().all(|(at, _)| *at != table.at),
            "{} has to be in one of the lists",
            table.at
        );
        if !ELSEWHERE.contains(&table.at) {
            table.keys.iter().for_each(|key| look(table, key));
        }
    }
}

#[test]
fn every_key_is_described() {
    let shape = raw::File::shape();
    for table in shape.tables() {
        assert!(!table.about.is_empty(), "{}", table.at);
        for key in &table.keys {
            let text = describe::text(key.about);
            assert!(text.ends_with('.') && !text.contains('|'), "{}.{}: {text}", table.at, key.name);
        }
    }
}

/// Fails for each default that is changed in one of the two places.
#[test]
fn a_default_is_what_holds_without_its_key() {
    let mut compared = 0;
    each(|table, key| {
        let Preset::Value(default) = key.default else { return };
        let (without, written) = (with(table.at, key.name, None), with(table.at, key.name, Some(default)));
        let debug =
            |text: &str| format!("{:#?}", parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems}")).0);
        assert_eq!(debug(&without), debug(&written), "{}.{} = {default}", table.at, key.name);
        // It is the key that was written, and not passed over.
        assert!(problems(&with(table.at, key.name, Some("{ x = 1979-05-27 }"))).contains("error"), "{}", key.name);
        compared += 1;
    });
    assert!(compared > 60, "only {compared} were compared");
}

#[test]
fn the_words_of_a_key_are_those_that_it_takes() {
    let mut compared = 0;
    each(|table, key| {
        let Form::Words(words) = key.form else { return };
        let list = matches!(key.shape, Shape::List(_));
        let said = |word: &str| {
            let value = if list { format!("[\"{word}\"]") } else { format!("\"{word}\"") };
            problems(&with(table.at, key.name, Some(&value)))
        };
        for word in words {
            let said = said(word);
            assert!(!said.contains("not one of") && !said.contains("not a "), "{}: {word}: {said}", key.name);
        }
        let wrong = said("nonsense");
        let all = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        assert!(wrong.contains("error"), "{}: {wrong}", key.name);
        if wrong.contains("not one of the values") {
            assert!(wrong.contains(&format!("it takes {all}\n")), "{}: {all}: {wrong}", key.name);
        }
        compared += 1;
    });
    assert!(compared > 8, "only {compared} were compared");
}

#[test]
fn a_number_has_the_bounds_that_are_told() {
    each(|table, key| {
        let Form::Count(least, most) = key.form else {
            assert!(!matches!(key.shape, Shape::Integer), "{}: bounds", key.name);
            return;
        };
        for beyond in [least - 1, most + 1] {
            let said = problems(&with(table.at, key.name, Some(&beyond.to_string())));
            assert!(said.contains(&format!("from {least} to {most}")), "{}: {beyond}: {said}", key.name);
        }
    });
}

#[test]
fn what_can_be_off_is_told_to_be() {
    each(|table, key| {
        let said = |value: &str| problems(&with(table.at, key.name, Some(value)));
        let (bad, off) = match key.form {
            Form::Duration => ("not a duration", false),
            Form::Limit => ("not a duration", true),
            Form::Size => ("not a size", false),
            Form::SizeLimit => ("not a size", true),
            Form::Rate => ("not a rate", false),
            Form::Free | Form::Words(_) | Form::Count(..) => return,
        };
        assert!(said("\"nonsense\"").contains(bad), "{}", key.name);
        assert_eq!(said("\"off\"").contains(bad), !off, "{}: {}", key.name, said("\"off\""));
    });
}

#[test]
fn what_is_needed_cannot_be_left_out() {
    each(|table, key| {
        let without = with(table.at, key.name, None);
        let in_parts = PARTS.iter().any(|(at, lines)| *at == table.at && lines.contains(&format!("\n{} =", key.name)));
        if key.default == Preset::Required {
            assert!(in_parts && parse(&without).is_err(), "{}.{}", table.at, key.name);
        }
    });
}
