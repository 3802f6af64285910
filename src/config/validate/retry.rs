//! `retry_rejected`: which answers mean that a token was refused.

use http::StatusCode;

use crate::config::raw;
use crate::config::raw::reader::{At, Field, Table};
use crate::config::{Injection, RetryRejected, Source};

use super::context::Context;

/// Bytes of a body that are kept, unless the file says otherwise.
const MAX_BODY: u64 = 64 << 10;

/// More than this would be kept for each request that is under way.
const MOST: u64 = 16 << 20;

/// Answers that are never about the token: the upstream asks for time, not for another one.
const LATER: [u16; 3] = [408, 425, 429];

const ADVICE: &str = "name what the upstream answers to a token that it refuses, before it has done anything: [401]";

/// The table.
pub(crate) fn read(
    field: &Field<raw::RetryRejected>,
    inject: &[Injection],
    cx: &mut Context<'_>,
) -> Option<RetryRejected> {
    let table = field.get()?;
    let mut statuses = Vec::new();
    match &table.value.statuses {
        Field::Good(list) => {
            if list.value.is_empty() {
                cx.error(&list.span, "no answer would be retried").advice(ADVICE);
            }
            for at in &list.value {
                statuses.extend(status(at, &statuses, cx));
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
    Some(RetryRejected { statuses, max_body: usize::try_from(max_body).unwrap_or(usize::MAX) })
}

fn status(at: &At<i64>, seen: &[StatusCode], cx: &mut Context<'_>) -> Option<StatusCode> {
    let code = u16::try_from(at.value).ok().filter(|code| (400..500).contains(code));
    let Some(status) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
        cx.error(&at.span, "not a status that refuses a request").label("from 400 to 499").advice(ADVICE);
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
