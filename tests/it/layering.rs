//! The layers of the code: a file imports only files of strictly lower layers; and what a file may look like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Layer of each file, without `src/` and `.rs`. The first number is the design's layer; the second one orders the files
/// within it, which may import those before them.
const LAYERS: &[(&str, (u8, u8))] = &[
    // 0: leaves
    ("address", (0, 0)),
    ("secret", (0, 0)),
    ("bounded", (0, 0)),
    ("clock", (0, 0)),
    ("file", (0, 0)),
    ("grpc", (0, 0)),
    ("headers", (0, 0)),
    ("lapsing", (0, 0)),
    ("lifecycle", (0, 0)),
    ("manager", (0, 0)),
    ("live", (0, 0)),
    ("version", (0, 0)),
    ("metrics/id", (0, 0)),
    ("metrics/label", (0, 0)),
    ("metrics/value", (0, 0)),
    ("metrics/control", (0, 1)),
    ("metrics", (0, 2)),
    ("metrics/ledger", (0, 3)),
    ("traces/context", (0, 0)),
    ("traces/otlp", (0, 1)),
    ("traces/span", (0, 3)),
    ("traces", (0, 4)),
    ("traces/mint", (0, 5)),
    ("telemetry/sink", (0, 0)),
    ("telemetry", (0, 1)),
    // 1: configuration and record
    ("config/raw/describe", (1, 0)),
    ("config/raw/expand", (1, 0)),
    ("config/raw/problem", (1, 0)),
    ("config/raw/reader", (1, 1)),
    ("config/raw/shapes", (1, 2)),
    ("config/raw/issuer", (1, 3)),
    ("config/raw/routes", (1, 3)),
    ("config/raw/shared", (1, 3)),
    ("config/raw/serving", (1, 4)),
    ("config/raw/traces", (1, 3)),
    ("config/raw/upstreams", (1, 3)),
    ("config/raw/ways", (1, 5)),
    ("config/raw", (1, 6)),
    ("config/url", (1, 0)),
    ("config/listening", (1, 0)),
    ("config/connection_init", (1, 0)),
    ("config/pointer", (1, 0)),
    ("config/rejected", (1, 1)),
    ("config/route", (1, 2)),
    ("config/shared", (1, 0)),
    ("config/traces", (1, 1)),
    ("config/upstream", (1, 1)),
    ("config/ways", (1, 3)),
    ("config", (1, 4)),
    ("config/restart", (1, 5)),
    ("record/id", (1, 0)),
    ("record/value", (1, 0)),
    ("record", (1, 1)),
    ("record/line", (1, 2)),
    ("record/spans", (1, 2)),
    ("config/schema", (1, 7)),
    ("config/reference", (1, 7)),
    // 2: validation, routes, transport, session types
    ("config/validate/names", (2, 0)),
    ("config/validate/diagnostics", (2, 0)),
    ("config/validate/net", (2, 0)),
    ("config/validate/units", (2, 0)),
    ("config/validate/context", (2, 1)),
    ("config/validate/keys", (2, 1)),
    ("config/validate/clerk", (2, 2)),
    ("config/validate/headers", (2, 2)),
    ("config/validate/listen", (2, 4)),
    ("config/validate/retry", (2, 2)),
    ("config/validate/websocket", (2, 2)),
    ("config/validate/shared", (2, 3)),
    ("config/validate/traces", (2, 3)),
    ("config/validate/server", (2, 5)),
    ("config/validate/inject", (2, 3)),
    ("config/validate/upstream_tls", (2, 3)),
    ("config/validate/upstreams", (2, 4)),
    ("config/validate/guards", (2, 4)),
    ("config/validate/session_id", (2, 4)),
    ("config/validate/connection_init", (2, 4)),
    ("config/validate/ways", (2, 5)),
    ("config/validate/routes", (2, 5)),
    ("config/validate", (2, 6)),
    ("route/by_text", (2, 0)),
    ("route/reading", (2, 0)),
    ("route", (2, 1)),
    ("transport/body/room", (2, 0)),
    ("transport/body/ahead", (2, 1)),
    ("transport/body/upload", (2, 0)),
    ("transport/body/tee", (2, 1)),
    ("transport/body", (2, 2)),
    ("transport/quiet", (2, 0)),
    ("transport/io", (2, 1)),
    ("transport/tls", (2, 0)),
    ("transport/tls/pem", (2, 0)),
    ("transport/tls/reload", (2, 0)),
    ("transport/tls/roots", (2, 0)),
    ("transport/tls/client", (2, 1)),
    ("transport/tls/server", (2, 1)),
    ("transport/connect", (2, 2)),
    ("transport", (2, 3)),
    ("session/json", (2, 0)),
    ("session/tag", (2, 0)),
    ("session", (2, 1)),
    // 3: parts of sessions and tokens, listeners
    ("session/cookies", (3, 0)),
    ("session/guard", (3, 0)),
    ("session/credential/peek", (3, 0)),
    ("session/credential/jar", (3, 1)),
    ("session/credential", (3, 2)),
    ("session/jwks/keys", (3, 0)),
    ("session/jwks", (3, 1)),
    ("session/revoked", (3, 0)),
    ("token/freshness", (3, 0)),
    ("token/expect", (3, 0)),
    ("token/spent", (3, 0)),
    ("token", (3, 1)),
    ("token/scope", (3, 2)),
    ("listener/refusals", (3, 0)),
    ("listener/rest", (3, 0)),
    ("listener/sequel", (3, 0)),
    ("listener/timer", (3, 0)),
    ("listener/turns", (3, 0)),
    ("listener/connection", (3, 1)),
    ("listener/socket", (3, 2)),
    ("listener/streams", (3, 2)),
    ("listener/bound", (3, 3)),
    ("listener/opened", (3, 3)),
    ("listener/watched", (3, 3)),
    ("listener", (3, 4)),
    // 4: verification, the ways to a token, small HTTP surfaces
    ("session/verify/claims/permissions", (4, 0)),
    ("session/verify/claims", (4, 1)),
    ("session/verify/jws", (4, 0)),
    ("session/verify", (4, 2)),
    ("session/memory", (4, 0)),
    ("session/named", (4, 0)),
    ("token/clerk/answer", (4, 0)),
    ("token/clerk/http", (4, 0)),
    ("token/clerk/judge", (4, 1)),
    ("token/clerk", (4, 2)),
    ("token/clerk/instance", (4, 3)),
    ("token/clerk/passage", (4, 3)),
    ("token/budget/bucket", (4, 0)),
    ("token/budget/place", (4, 0)),
    ("token/budget/purse", (4, 0)),
    ("token/budget", (4, 1)),
    ("token/breaker", (4, 0)),
    ("token/retry", (4, 0)),
    ("token/shared/seal", (4, 1)),
    ("token/shared/store", (4, 2)),
    ("token/shared/outbox", (4, 2)),
    ("token/shared/journal", (4, 3)),
    ("token/shared/vault", (4, 3)),
    ("token/shared/redis/way", (4, 3)),
    ("token/shared/redis", (4, 4)),
    ("token/shared/redis/examine", (4, 5)),
    ("token/shared/redis/stream", (4, 5)),
    ("token/shared/redis/vault", (4, 5)),
    ("token/shared/memory", (4, 4)),
    ("token/shared/gate", (4, 3)),
    ("token/shared/level", (4, 5)),
    ("token/shared/herald", (4, 6)),
    ("token/shared/follow", (4, 6)),
    ("token/shared/fund", (4, 6)),
    ("token/shared", (4, 7)),
    ("token/capacity", (4, 0)),
    ("traces/client", (4, 0)),
    ("traces/export", (4, 1)),
    ("surface", (4, 0)),
    // 5: the cache
    ("token/cache/entries", (5, 0)),
    ("token/cache/settings", (5, 0)),
    ("token/cache/flights", (5, 1)),
    ("token/cache", (5, 2)),
    // 6 to 9: the data path
    ("proxy/pool/exchange", (6, 0)),
    ("proxy/pool/balance", (6, 0)),
    ("proxy/pool/http1", (6, 1)),
    ("proxy/pool/http2", (6, 1)),
    ("proxy/pool/endpoint", (6, 2)),
    ("proxy/pool", (6, 3)),
    ("proxy/inject", (6, 0)),
    ("proxy/clean", (6, 0)),
    ("proxy/owner", (6, 0)),
    ("proxy/upgrade/frames", (6, 0)),
    ("proxy/upgrade/handshake", (6, 0)),
    ("proxy/upgrade/registry", (6, 0)),
    ("proxy/upgrade/init", (6, 0)),
    ("proxy/upgrade/first", (6, 1)),
    ("proxy/upgrade/flow", (6, 2)),
    ("proxy/upgrade/tunnel", (6, 3)),
    ("proxy/upgrade", (6, 4)),
    ("proxy/grpc", (6, 0)),
    ("proxy/copy", (7, 0)),
    ("proxy/aim", (7, 0)),
    ("proxy/forward", (7, 1)),
    ("proxy/error/code", (8, 0)),
    ("proxy/error", (8, 1)),
    ("proxy/finish", (8, 0)),
    ("proxy/gateway", (8, 0)),
    ("proxy/request", (8, 2)),
    ("proxy/tokens", (8, 2)),
    ("proxy/aging", (8, 3)),
    ("proxy/refused", (8, 0)),
    ("proxy/retry", (8, 4)),
    ("proxy/admit", (8, 3)),
    ("proxy/shown", (8, 3)),
    ("proxy/worker", (8, 2)),
    ("proxy/opening", (8, 4)),
    ("proxy/switch", (8, 5)),
    ("proxy", (9, 0)),
    ("revocation", (9, 1)),
    // 10: what serves
    ("authz/dialect", (10, 0)),
    ("authz/changes", (10, 0)),
    ("authz/message", (10, 0)),
    ("authz/answer", (10, 1)),
    ("authz/grpc", (10, 1)),
    ("authz", (10, 2)),
    ("server/reception", (10, 3)),
    ("server", (10, 4)),
    ("admin/exposition/format", (10, 0)),
    ("admin/exposition/text", (10, 0)),
    ("admin/exposition", (10, 1)),
    ("control", (10, 0)),
    ("token_api/answer", (10, 0)),
    ("token_api/call", (10, 1)),
    ("token_api/callers", (10, 1)),
    ("token_api/passing", (10, 1)),
    ("token_api", (10, 2)),
    ("webhooks/signature", (10, 0)),
    ("webhooks/event", (10, 0)),
    ("webhooks/replays", (10, 1)),
    ("webhooks", (10, 2)),
    ("admin/facts", (10, 0)),
    ("admin/fix", (10, 0)),
    ("admin/page", (10, 0)),
    ("admin/traffic", (10, 0)),
    ("admin/history", (10, 1)),
    ("admin/status", (10, 2)),
    ("admin/events", (10, 3)),
    ("admin", (10, 4)),
    // 11: the emulator
    ("emulator/echo", (11, 0)),
    ("emulator/keys", (11, 0)),
    ("emulator/limit", (11, 0)),
    ("emulator/error", (11, 1)),
    ("emulator/own_key", (11, 1)),
    ("emulator/ring", (11, 1)),
    ("emulator/webhooks", (11, 1)),
    ("emulator/webhooks/courier", (11, 2)),
    ("emulator/model", (11, 2)),
    ("emulator/params", (11, 3)),
    ("emulator/version", (11, 2)),
    ("emulator/faults", (11, 4)),
    ("emulator/seed", (11, 3)),
    ("emulator/shapes", (11, 4)),
    ("emulator/shortcodes", (11, 3)),
    ("emulator/claims", (11, 4)),
    ("emulator/seed/raw", (11, 0)),
    ("emulator/seed/file", (11, 5)),
    ("emulator/state", (11, 5)),
    ("emulator/state/people", (11, 6)),
    ("emulator/state/sessions", (11, 6)),
    ("emulator/guard", (11, 6)),
    ("emulator/broken", (11, 7)),
    ("emulator/sessions", (11, 7)),
    ("emulator/helpers", (11, 8)),
    ("emulator/templates", (11, 8)),
    ("emulator", (11, 9)),
    // 11: the simulator
    ("simulate/arrivals", (11, 0)),
    ("simulate/keys", (11, 0)),
    ("simulate/time", (11, 0)),
    ("simulate/case", (11, 1)),
    ("simulate/sample", (11, 2)),
    ("simulate/tally", (11, 3)),
    ("simulate/issuer", (11, 4)),
    ("simulate/plot", (11, 4)),
    ("simulate/level", (11, 4)),
    ("simulate/fleet", (11, 5)),
    ("simulate", (11, 6)),
    // 12 to 15: the process
    ("reload", (11, 0)),
    ("app/gateway", (12, 0)),
    ("app/issuance", (12, 0)),
    ("app/ways", (12, 1)),
    ("app/traces", (12, 1)),
    ("app/start", (12, 1)),
    ("app/renewal", (12, 2)),
    ("app/surfaces", (12, 2)),
    ("app", (12, 3)),
    ("commands/check/finding", (13, 0)),
    ("commands/check/online", (13, 1)),
    ("commands/check/shared", (13, 1)),
    ("commands/check", (13, 2)),
    ("commands/completions", (13, 0)),
    ("commands/console", (13, 0)),
    ("commands/door", (13, 0)),
    ("commands/env_file", (13, 0)),
    ("commands/handed", (13, 0)),
    ("commands/probe", (13, 3)),
    ("commands/revoke", (13, 3)),
    ("commands/seal", (13, 0)),
    ("commands/signals", (13, 0)),
    ("commands/simulate/table", (13, 0)),
    ("commands/simulate/values", (13, 0)),
    ("commands/simulate", (13, 3)),
    ("commands/usage", (13, 0)),
    ("commands/init", (13, 1)),
    ("commands/token", (13, 3)),
    ("commands/schema", (13, 0)),
    ("commands/emulator", (13, 3)),
    ("commands/run", (13, 3)),
    ("commands/dev/guide", (13, 1)),
    ("commands/dev/key", (13, 1)),
    ("commands/dev/stage", (13, 1)),
    ("commands/dev", (13, 4)),
    ("commands/explain/report", (13, 0)),
    ("commands/explain/credential", (13, 1)),
    ("commands/explain/carried", (13, 1)),
    ("commands/explain/follow", (13, 1)),
    ("commands/explain/websocket", (13, 1)),
    ("commands/explain/judge", (13, 3)),
    ("commands/explain", (13, 4)),
    ("commands", (13, 5)),
    ("lib", (14, 0)),
    ("main", (15, 0)),
];

/// Lines of a file, without its tests and with them.
const CAP: usize = 400;
const CAP_WITH_TESTS: usize = 600;
/// Lines of `main.rs`.
const CAP_MAIN: usize = 80;

/// Every file, by its name without `src/` and `.rs`.
type Tree = BTreeMap<String, String>;

fn read(directory: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let name = if prefix.is_empty() { stem.to_owned() } else { format!("{prefix}/{stem}") };
        if path.is_dir() {
            read(&path, &name, tree);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            tree.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

/// The text with every comment, string and character literal blanked; line ends stay.
fn code(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|rest| rest.trim_start_matches('#')).filter(|rest| rest.starts_with('"'));
        let in_word = out.ends_with(|of: char| of.is_alphanumeric() || of == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let (Some(opened), false) = (raw, in_word) {
            let open = rest.len() - opened.len();
            let close = format!("\"{}", "#".repeat(open - 1));
            opened[1..].find(&close).map_or(rest.len(), |at| open + 1 + at + close.len())
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.extend(rest[..length].chars().filter(|of| *of == '\n'));
        out.push(' ');
        rest = &rest[length..];
    }
    out
}

/// How long the string is that begins here.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, of) in text.char_indices().skip(1) {
        match of {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// How long the character literal is that begins here; 1 for the mark of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, of))) => {
            text[at + of.len_utf8()..].find('\'').map_or(1, |end| at + of.len_utf8() + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The code without what stands under `#[cfg(test)]`; and the modules in files of their own that do.
fn split(code: &str) -> (String, BTreeSet<String>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut out, mut tests, mut rest) = (String::new(), BTreeSet::new(), code);
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let after = &rest[at + MARK.len()..];
        let end = after.find([';', '{', ',']).unwrap_or(after.len());
        let head = &after[..end];
        if let (Some(name), true) = (head.split("mod ").nth(1), after[end..].starts_with(';')) {
            tests.insert(name.trim().to_owned());
        }
        let length =
            if after[end..].starts_with('{') { end + block(&after[end..]) } else { (end + 1).min(after.len()) };
        rest = &after[length..];
    }
    out.push_str(rest);
    (out, tests)
}

/// How long the block is that begins here.
fn block(code: &str) -> usize {
    let mut depth = 0;
    for (at, of) in code.char_indices() {
        depth += match of {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The paths of a `use` tree.
fn leaves(tree: &str, prefix: &str, found: &mut Vec<String>) {
    let Some((before, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        found.push(format!("{prefix}{}", path.split_whitespace().collect::<String>()));
        return;
    };
    let prefix = format!("{prefix}{}", before.split_whitespace().collect::<String>());
    let (mut depth, mut begin, inner) = (0, 0, inner.trim_end().strip_suffix('}').unwrap_or(inner));
    for (at, of) in inner.char_indices() {
        match of {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                leaves(&inner[begin..at], &prefix, found);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if !inner[begin..].trim().is_empty() {
        leaves(&inner[begin..], &prefix, found);
    }
}

/// The files that a file's code names: in `use` and in paths that stand in the code.
fn imports(name: &str, code: &str, tree: &Tree) -> BTreeSet<String> {
    let own: Vec<&str> = if name == "lib" || name == "main" { Vec::new() } else { name.split('/').collect() };
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("use ") {
        if code[..at].ends_with(|of: char| of.is_alphanumeric() || of == '_') {
            continue;
        }
        let end = code[at..].find(';').map_or(code.len(), |end| at + end);
        leaves(&code[at + 4..end], "", &mut paths);
    }
    // A word that ends in a colon begins a tree, of which the leaves are known already.
    let is_path = |of: char| of.is_alphanumeric() || of == '_' || of == ':';
    paths.extend(
        code.split(|of: char| !is_path(of))
            .filter(|word| word.contains("::") && !word.ends_with(':'))
            .map(str::to_owned),
    );
    let mut found = BTreeSet::new();
    for path in paths {
        let mut segments: Vec<&str> = path.split("::").filter(|segment| !segment.is_empty()).collect();
        let mut base = own.clone();
        match segments.first() {
            Some(&("crate" | "mintgate")) => base.clear(),
            Some(&"super") => {
                base.pop();
            }
            Some(&"self") => {}
            // A child, by its name alone.
            Some(first) => {
                let child = [&own[..], &[*first]].concat().join("/");
                if own.is_empty() || !tree.contains_key(&child) {
                    continue;
                }
                base.push(first);
            }
            None => continue,
        }
        segments.remove(0);
        while segments.first() == Some(&"super") {
            base.pop();
            segments.remove(0);
        }
        base.extend(segments);
        // The longest beginning that is a file.
        let file = (1..=base.len()).rev().map(|length| base[..length].join("/")).find(|file| tree.contains_key(file));
        found.extend(file.filter(|file| file != name));
    }
    found
}

/// Everything that is wrong with a tree.
fn problems(tree: &Tree) -> Vec<String> {
    let layers: BTreeMap<&str, (u8, u8)> = LAYERS.iter().copied().collect();
    assert_eq!(layers.len(), LAYERS.len(), "a file stands twice in the table");
    let mut found = Vec::new();
    let codes: BTreeMap<&str, (String, BTreeSet<String>)> =
        tree.iter().map(|(name, text)| (name.as_str(), split(&code(text)))).collect();
    // Files that are compiled for tests alone: named under `#[cfg(test)]`, or below one that is.
    let tests: BTreeSet<String> =
        codes.iter().flat_map(|(name, (_, tests))| tests.iter().map(move |test| format!("{name}/{test}"))).collect();
    let is_test = |name: &str| tests.iter().any(|test| name == test || name.starts_with(&format!("{test}/")));
    for (name, text) in tree {
        let (code, _) = &codes[name.as_str()];
        if name.ends_with("mod") && name.rsplit('/').next() == Some("mod") {
            found.push(format!("{name}.rs: write foo.rs beside foo/"));
        }
        if !text.starts_with("//! ") {
            found.push(format!("{name}.rs: the first line does not say what the file is for"));
        }
        let (lines, with_tests) = (without_tests(text), text.lines().count());
        let cap = if name == "main" { CAP_MAIN } else { CAP };
        if with_tests > CAP_WITH_TESTS || (lines > cap && !is_test(name)) {
            found.push(format!("{name}.rs: {lines} lines, {with_tests} with tests"));
        }
        if is_test(name) {
            continue;
        }
        let Some(layer) = layers.get(name.as_str()) else {
            found.push(format!("{name}.rs: not in the table of layers"));
            continue;
        };
        for import in imports(name, code, tree) {
            match layers.get(import.as_str()) {
                _ if is_test(&import) => found.push(format!("{name}.rs imports {import}.rs, which is for tests")),
                Some(below) if below < layer => {}
                Some(_) => found.push(format!("{name}.rs imports {import}.rs, which is not below it")),
                None => {}
            }
        }
    }
    found
        .extend(layers.keys().filter(|name| !tree.contains_key(**name)).map(|name| format!("{name}.rs: no such file")));
    found
}

/// The lines before the tests at the end of a file.
fn without_tests(text: &str) -> usize {
    let tests = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].lines().count()
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut tree);
    tree
}

#[test]
fn a_file_imports_only_what_lies_below_it() {
    let found = problems(&tree());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The test above is worth as much as what it finds.
#[test]
fn every_seeded_violation_is_found() {
    let clean = tree();
    let seeds: [(&str, &str, &str); 15] = [
        ("secret", "use crate::clock::Clock;", "secret.rs imports clock.rs"),
        ("session", "use crate::{clock, token::{self, cache::TokenCache}};", "session.rs imports token/cache.rs"),
        ("session", "use crate::{clock, token::{self, cache::TokenCache}};", "session.rs imports token.rs"),
        ("metrics/id", "use super::Metrics;", "metrics/id.rs imports metrics.rs"),
        ("metrics/id", "use super::super::app;", "metrics/id.rs imports app.rs"),
        (
            "token/budget/bucket",
            "pub(super) use super::Limiter as L;",
            "token/budget/bucket.rs imports token/budget.rs",
        ),
        ("route", "fn f(g: &crate::proxy::gateway::Plans) {}", "route.rs imports proxy/gateway.rs"),
        ("token", "fn f() { self::cache::now() }", "token.rs imports token/cache.rs"),
        ("session", "fn f() { guard::check() }", "session.rs imports session/guard.rs"),
        ("clock", "fn f() -> char { '\"' }\nuse crate::app;\nfn g() -> char { '\"' }", "clock.rs imports app.rs"),
        ("token/clerk", "use super::fake::Fake;", "token/clerk.rs imports token/fake.rs"),
        ("brand_new", "//! New.\n", "brand_new.rs: not in the table"),
        ("transport/mod", "//! Old.\n", "transport/mod.rs: write"),
        ("commands", "", "commands.rs: the first line"),
        ("server", &"fn f() {}\n".repeat(400), "server.rs: "),
    ];
    for (name, seed, expected) in seeds {
        let mut tree = clean.clone();
        let text = tree.remove(name).unwrap_or_default();
        // An empty seed takes the first line away.
        let text = if seed.is_empty() { text.replacen("//! ", "// ", 1) } else { before_tests(&text, seed) };
        tree.insert(name.to_owned(), text);
        let found = problems(&tree);
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{name}: {seed}\n{}", found.join("\n"));
    }
    // What stands in comments, in texts and in tests is no import.
    for seed in [
        "// use crate::app;",
        "const A: &str = \"use crate::app;\";",
        "const A: &str = r#\"\" crate::app::bind\"#;",
        "#[cfg(test)]\nmod more { use crate::app; }",
    ] {
        let mut tree = clean.clone();
        tree.insert("clock".to_owned(), before_tests(&tree["clock"], seed));
        assert_eq!(problems(&tree), Vec::<String>::new(), "{seed}");
    }
}

/// A file with more in it.
fn before_tests(text: &str, seed: &str) -> String {
    match text.split_once("\n#[cfg(test)]\nmod tests {") {
        Some((before, tests)) => format!("{before}\n{seed}\n\n#[cfg(test)]\nmod tests {{{tests}"),
        None => format!("{text}\n{seed}\n"),
    }
}

/// The page for readers is shorter than [`LAYERS`], and says nothing else. Fails when one of the two gives a file another
/// layer, or when the page leaves out a file of the first level.
#[test]
fn the_layers_in_the_architecture_page_are_these() {
    let layers: BTreeMap<&str, (u8, u8)> = LAYERS.iter().copied().collect();
    let page = include_str!("../../docs/architecture.md");
    let (_, page) = page.split_once("\n## Layers\n").unwrap();
    let mut told = BTreeSet::new();
    for row in page.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Ok(layer) = cells[1].parse::<u8>() else { continue };
        for name in cells[2].split_whitespace().map(|name| name.trim_matches('`')) {
            assert_eq!(layers.get(name).map(|(layer, _)| *layer), Some(layer), "{name}");
            told.insert(name);
        }
    }
    for (name, _) in LAYERS.iter().filter(|(name, _)| !name.contains('/')) {
        assert!(told.contains(name), "{name} is not in docs/architecture.md");
    }
}
