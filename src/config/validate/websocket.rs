//! `websocket` on a route: whether one opens, and what closes it.

use std::time::Duration;

use crate::config::raw;
use crate::config::raw::reader::Field;
use crate::config::raw::shapes::Toggle;
use crate::config::{CloseAt, Injection, MintSpec, Source, WebSocket};

use super::context::Context;

/// Whoever is closed oftener than this spends its time connecting.
const SHORT: Duration = Duration::from_mins(5);

/// The key; `None`: no WebSocket opens.
pub(crate) fn read(
    field: &Field<Toggle<raw::WebSocket>>,
    has_session: bool,
    inject: &[Injection],
    cx: &mut Context<'_>,
) -> Option<WebSocket> {
    let raw = match field.get().map(|at| &at.value) {
        None | Some(Toggle::Flag(true)) => return Some(WebSocket::default()),
        Some(Toggle::Flag(false)) => return None,
        Some(Toggle::Table(raw)) => raw,
    };
    let words = [("never", CloseAt::Never), ("token", CloseAt::Token), ("session", CloseAt::Session)];
    let close_at = cx.choice(&raw.close_at, &words, CloseAt::Never);
    if let Some(at) = raw.close_at.get() {
        let advice = "write \"token\" with an `expires_in` of 5m or more, or \"never\" with a `max_lifetime`";
        if close_at == CloseAt::Session && !has_session {
            cx.error(&at.span, "the route has no session that could expire")
                .advice("name the places of the credential in `session`, or write \"never\"");
        } else if close_at == CloseAt::Session {
            cx.problems
                .warning(&at.span, "every WebSocket would be closed within a minute or so")
                .label("a session token lives for 60 s")
                .advice(advice);
        }
        let minted =
            || inject.iter().filter_map(|one| if let Source::Minted(spec) = &one.source { Some(spec) } else { None });
        if close_at == CloseAt::Token && minted().next().is_none() {
            cx.error(&at.span, "the route injects no minted token that could expire")
                .advice("inject a `template`, or write \"session\" or \"never\"");
        } else if let (CloseAt::Token, Some(life)) =
            (close_at, minted().filter_map(life).min().filter(|life| *life < SHORT))
        {
            cx.problems
                .warning(&at.span, "WebSockets would be closed within five minutes")
                .label(format!("the first of the route's tokens lives for {}", humantime::format_duration(life)))
                .advice(advice);
        }
    }
    Some(WebSocket { close_at, max_lifetime: cx.limit(&raw.max_lifetime, None) })
}

/// How long a token lives, where the configuration says it.
fn life(spec: &MintSpec) -> Option<Duration> {
    spec.expires_in.map(|seconds| Duration::from_secs(seconds.into()))
}
