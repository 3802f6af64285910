//! `retry_rejected`: which answers mean that a token was refused.

use http::StatusCode;

use crate::config::raw;
use crate::config::raw::reader::{At, Field, Table};
use crate::config::raw::shapes;
use crate::config::{Injection, JsonMatch, Pointer, RetryRejected, Scalar, Source};

use super::context::Context;

/// Bytes of a body that are kept, unless the file says otherwise.
const MAX_BODY: u64 = 64 << 10;

/// More than this would be kept for each request that is under way.
const MOST: u64 = 16 << 20;

/// Answers that are never about the token: the upstream asks for time, not for another one.
const LATER: [u16; 3] = [408, 425, 429];

const ADVICE: &str = "name what the upstream answers to a token that it refuses, before it has done anything: [401]";

const JSON_ADVICE: &str =
    "write what the body says then: json = { pointer = \"/errors/0/extensions/code\", equals = [\"invalid-jwt\"] }";

/// The table.
pub(crate) fn read(
    field: &Field<raw::RetryRejected>,
    inject: &[Injection],
    cx: &mut Context<'_>,
) -> Option<RetryRejected> {
    let table = field.get()?;
    let with_json = !table.value.json.is_absent();
    let mut statuses = Vec::new();
    match &table.value.statuses {
        Field::Good(list) => {
            if list.value.is_empty() {
                cx.error(&list.span, "no answer would be retried").advice(ADVICE);
            }
            for at in &list.value {
                statuses.extend(status(at, &statuses, with_json, cx));
            }
        }
        Field::Bad => {}
        Field::Absent => {
            if !table.value.reported() {
                cx.error(&table.span, "`retry_rejected` needs `statuses`").advice(ADVICE);
            }
        }
    }
    if !inject.iter().any(|injection| matches!(injection.source, Source::Minted(_))) {
        let advice = "only a token that mintgate has minted can be replaced by a newer one";
        cx.problems.warning(&table.span, "this route injects no minted token").label("has no effect").advice(advice);
    }
    let max_body = match table.value.max_body.get() {
        Some(at) if at.value == "off" => 0,
        _ => cx.size(&table.value.max_body, MAX_BODY, 0..=MOST),
    };
    if let (true, 0, Field::Good(at)) = (with_json, max_body, &table.value.max_body) {
        cx.error(&at.span, "no answer would be read for `json`").advice("`max_body` is for answers too: \"64KiB\"");
    }
    let json = table.value.json.get().and_then(|at| json(at, cx));
    Some(RetryRejected { statuses, json, max_body: usize::try_from(max_body).unwrap_or(usize::MAX) })
}

fn status(at: &At<i64>, seen: &[StatusCode], with_json: bool, cx: &mut Context<'_>) -> Option<StatusCode> {
    let refuses = |code: u16| (400..500).contains(&code) || code == 200 && with_json;
    let code = u16::try_from(at.value).ok().filter(|code| refuses(*code));
    let Some(status) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
        let problem = cx.error(&at.span, "not a status that refuses a request");
        if at.value == 200 {
            problem.label("only with `json`").advice(JSON_ADVICE);
        } else {
            problem.label(if with_json { "200, or from 400 to 499" } else { "from 400 to 499" }).advice(ADVICE);
        }
        return None;
    };
    if LATER.contains(&status.as_u16()) {
        cx.error(&at.span, "this status asks for time, not for another token").advice(ADVICE);
        return None;
    }
    if seen.contains(&status) {
        cx.error(&at.span, "this status is listed already");
        return None;
    }
    Some(status)
}

fn json(table: &At<raw::RetryJson>, cx: &mut Context<'_>) -> Option<JsonMatch> {
    for (name, absent) in [("pointer", table.pointer.is_absent()), ("equals", table.equals.is_absent())] {
        if absent && !table.reported() {
            cx.error(&table.span, format!("`json` needs `{name}`")).advice(JSON_ADVICE);
        }
    }
    let pointer = table.pointer.get().and_then(|at| {
        let parsed = Pointer::parse(at);
        if let Err(bad) = &parsed {
            cx.error(&at.span, bad.to_string()).advice(bad.advice());
        }
        parsed.ok()
    });
    let list = table.equals.get()?;
    if list.value.is_empty() {
        cx.error(&list.span, "no answer would be retried").advice(JSON_ADVICE);
    }
    let mut equals = Vec::new();
    for at in &list.value {
        let scalar = match &at.value {
            shapes::Scalar::Text(text) => Scalar::Text(text.clone()),
            shapes::Scalar::Integer(integer) => Scalar::Integer(*integer),
            shapes::Scalar::Flag(flag) => Scalar::Flag(*flag),
        };
        if equals.contains(&scalar) {
            cx.error(&at.span, "this value is listed already");
        }
        equals.push(scalar);
    }
    Some(JsonMatch { pointer: pointer?, equals })
}
