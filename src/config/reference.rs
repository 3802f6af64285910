//! The reference of the configuration, in Markdown, made of the tables that read the file: `docs/configuration.md`.

use std::fmt::Write as _;

use super::raw::File;
use super::raw::describe::{Describe as _, Form, Key, Preset, Shape, TableShape, text};
use super::restart::needs_a_restart;

const BEFORE: &str = r#"# Configuration reference

<!-- Made by `mintgate schema --markdown`: change src/config/raw, then make this file anew. -->

mintgate reads one TOML file: `--config FILE`, else `$MINTGATE_CONFIG`, else `./mintgate.toml`, else
`/etc/mintgate/mintgate.toml`. `mintgate check` says what is wrong with it, and a key that is not listed here is an error.
[The README](../README.md) explains by examples, [`config/full.toml`](../config/full.toml) shows every key in its place, and
`mintgate init` prints a file to start from. This one is complete:

```toml
# mintgate.toml
[clerk]
secret_key = { env = "CLERK_SECRET_KEY" }
publishable_key = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"
authorized_parties = ["https://app.example.com"]

[upstreams.hasura]
url = "http://127.0.0.1:8090"

[[routes]]
name = "graphql"
match = { path = "/v1/graphql" }
upstream = "hasura"
inject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura", expires_in = "5m" }]
```

**In an editor.** A TOML extension that knows JSON Schema (Even Better TOML, taplo) completes and explains the keys where the
file begins with such a line, after `mintgate schema > mintgate.schema.json`:

```toml
# mintgate.toml
#:schema ./mintgate.schema.json
[[routes]]
name = "all"
upstream = "http://127.0.0.1:3000"
session = []
```

**Types.** A *duration* is a text with units: `"30s"`, `"250ms"`, `"1h 30m"`. A *size* is a text such as `"64KiB"` or `"1MB"`. Where a
duration or a size may be `"off"`, that and `"0"` mean: no limit, or no such feature. A *secret* is never written here: it
is `{ env = "NAME" }` or `{ file = "path" }`. In every text `${NAME}` and `${NAME:-default}` stand for variables of the
environment, and `$$` for a dollar. Relative paths are relative to the directory of the file.

**Changes** are used within two seconds, without a restart and without a lost request, but for the keys that are marked
with *restart*.
"#;

/// The document.
pub fn reference() -> String {
    let mut out = BEFORE.to_owned();
    let shape = File::shape();
    let mut told = Vec::new();
    for table in shape.tables().into_iter().skip(1) {
        // A table that several sections take stands with the first.
        if !told.contains(&table.at) {
            told.push(table.at);
            section(&mut out, table);
        }
    }
    out
}

fn section(out: &mut String, table: &TableShape) {
    let (level, name, written) = heading(table.at);
    put(out, format_args!("\n{level} {name}\n\n{written}{}\n", text(table.about)));
    put(out, format_args!("\n| key | type | default | meaning |\n|---|---|---|---|\n"));
    for key in &table.keys {
        put(out, format_args!("{}\n", row(table, key)));
    }
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    // A `String` takes everything.
    let _ = out.write_fmt(what);
}

/// The level and the text of a heading, and how the table begins in the file.
fn heading(at: &str) -> (&'static str, String, String) {
    let name = at.replace(".*", "").replace("[]", "");
    let inner = name.contains('.');
    let written = match at {
        _ if at.ends_with("[]") && inner => format!("An entry of `{name}`. "),
        _ if inner => String::new(),
        _ if at.ends_with("[]") => format!("Written `[[{name}]]`. "),
        _ => format!("Written `[{}]`. ", at.replace('*', "NAME")),
    };
    (if inner { "###" } else { "##" }, name, written)
}

fn row(table: &TableShape, key: &Key) -> String {
    let default = match key.default {
        Preset::Absent => String::new(),
        Preset::Required => "**needed**".to_owned(),
        Preset::Value(value) => format!("`{value}`"),
    };
    let restart = if needs_a_restart(&format!("{}.{}", table.at, key.name)) { " *restart*" } else { "" };
    let kind = kind(&key.shape, key.form);
    format!("| `{}` | {kind} | {default} | {}{restart} |", key.name, text(key.about))
}

/// What a value may be, in words.
fn kind(shape: &Shape, form: Form) -> String {
    match shape {
        Shape::Text => match form {
            Form::Free | Form::Count(..) => "text".to_owned(),
            Form::Duration => "duration".to_owned(),
            Form::Limit => "duration, `\"off\"`".to_owned(),
            Form::Size => "size".to_owned(),
            Form::SizeLimit => "size, `\"off\"`".to_owned(),
            Form::Rate => "count/duration".to_owned(),
            Form::Words(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        },
        Shape::Flag => "true, false".to_owned(),
        Shape::Integer => match form {
            Form::Count(least, most) => format!("{least} to {most}"),
            _ => "integer".to_owned(),
        },
        Shape::Part => "0 to 1".to_owned(),
        Shape::Secret => "secret".to_owned(),
        Shape::Anything | Shape::Table(_) => "table".to_owned(),
        Shape::List(inner) => match &**inner {
            Shape::Table(_) => "list of tables".to_owned(),
            Shape::Text => "list of texts".to_owned(),
            Shape::Integer => "list of integers".to_owned(),
            inner => format!("list of: {}", kind(inner, form)),
        },
        Shape::OneOrMany(inner) => format!("{}, or a list", kind(inner, form)),
        Shape::Named(inner) => format!("table of: {}", kind(inner, form)),
        Shape::Either(one, other) => format!("{} or {}", kind(one, form), kind(other, form)),
    }
}
