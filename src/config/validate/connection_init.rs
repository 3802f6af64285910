//! The first message of a WebSocket: which minted token is put where into it (`rewrite_connection_init`), and whether the
//! session comes in it (`session`).

use crate::config::raw;
use crate::config::raw::problem::Span;
use crate::config::raw::reader::{At, Field, Table};
use crate::config::raw::shapes::Toggle;
use crate::config::{ConnectionInit, InPayload, Injection, MintKind, OnNoSession, Pointer, Source};

use super::context::Context;
use super::inject;

/// Whether the route's session is to be found in the message, well written or not.
pub(crate) fn is_source(field: &Field<Vec<At<raw::SessionSource>>>) -> bool {
    field.get().is_some_and(|list| list.iter().any(|at| matches!(at.value, raw::SessionSource::Init { .. })))
}

/// Both keys; `None` when neither is there or one was reported.
pub(crate) fn read(
    raw: &raw::Route,
    on_no_session: OnNoSession,
    inject: &[Injection],
    cx: &mut Context<'_>,
) -> Option<ConnectionInit> {
    let rewrite = match raw.websocket.get().map(|at| &at.value) {
        Some(Toggle::Table(websocket)) => &websocket.rewrite_connection_init,
        _ => &Field::Absent,
    };
    let source = source(raw, on_no_session, inject, cx);
    let at = match (&source, rewrite) {
        (_, Field::Good(at)) => at,
        // What the session token leaves is the minted one's.
        (Some((at, session)), Field::Absent) => {
            let injection = only(&at.span, inject, cx)?;
            return Some(ConnectionInit { session: Some(session.clone()?), token: session.clone()?, injection });
        }
        (None, _) | (_, Field::Bad) => return None,
    };
    if raw.upstream.is_absent() && source.is_none() {
        nowhere(&at.span, cx);
    }
    let token = pointer(at, cx);
    let injection = injection(at, inject, cx);
    let session = source.map_or(Some(None), |(_, session)| session.map(Some));
    Some(ConnectionInit { session: session?, token: token?, injection: injection? })
}

/// The session source, where there is one; its place, unless that was reported. What the route cannot have beside it is
/// reported: when the session is known, the request has long been forwarded.
fn source<'a>(
    raw: &'a raw::Route,
    on_no_session: OnNoSession,
    inject: &[Injection],
    cx: &mut Context<'_>,
) -> Option<(&'a At<raw::SessionSource>, Option<InPayload>)> {
    let list = raw.session.get()?;
    let (at, steps, prefix) = list.iter().find_map(|at| match &at.value {
        raw::SessionSource::Init { pointer, prefix } => Some((at, pointer, prefix)),
        _ => None,
    })?;
    if list.len() > 1 {
        cx.error(&at.span, "a session that comes in the first message has a route of its own")
            .advice("a second route, on another path, can take sessions from the request");
    }
    if raw.upstream.is_absent() {
        nowhere(&at.span, cx);
    }
    let on = |field: &Field<bool>| field.get().filter(|on| on.value).map(|on| on.span.clone());
    let off = raw.websocket.get().filter(|at| matches!(at.value, Toggle::Flag(false))).map(|at| at.span.clone());
    let passes = raw.on_no_session.get().filter(|_| on_no_session == OnNoSession::Pass).map(|at| at.span.clone());
    let denied: [(Option<Span>, &str); 6] = [
        (off, "the session comes in the first message of a WebSocket, and the route opens none"),
        (passes, "without a session the WebSocket is closed"),
        (on(&raw.clerk_app), "a Clerk application does not find a session there"),
        (on(&raw.forward_credential), "the request has no credential that could be forwarded"),
        (on(&raw.forward_clerk_cookies), "no cookie of Clerk's passes before the session is known"),
        (raw.retry_rejected.get().map(|at| at.span.clone()), "no request is sent again"),
    ];
    for (span, why) in denied {
        if let Some(span) = span {
            cx.error(&span, why).also(at.span.clone(), "this says so").advice("leave the key out");
        }
    }
    if inject.iter().any(|injection| matches!(injection.source, Source::Claim(_) | Source::SessionToken)) {
        let span = raw.inject.get().map_or(&at.span, |list| &list.span);
        cx.error(span, "nothing is known of the session when the headers are sent")
            .also(at.span.clone(), "the session comes later")
            .advice("beside the one minted token, which goes into the message, only a `value` can be injected");
    }
    Some((at, place(steps, prefix, cx)))
}

fn nowhere(span: &Span, cx: &mut Context<'_>) {
    cx.error(span, "a route without `upstream` opens no WebSocket here, and sees no message of one")
        .advice("the proxy that asks for the decision forwards it: put the token into a header there");
}

fn pointer(table: &At<raw::RewriteInit>, cx: &mut Context<'_>) -> Option<InPayload> {
    match &table.pointer {
        Field::Good(at) => place(at, &table.prefix, cx),
        Field::Bad => None,
        Field::Absent => {
            if !table.value.reported() {
                cx.error(&table.span, "a `pointer` says where in the payload the token is put")
                    .advice("Hasura reads it at \"/headers/Authorization\"");
            }
            None
        }
    }
}

/// A pointer into the payload, and the prefix.
fn place(at: &At<String>, prefix: &Field<String>, cx: &mut Context<'_>) -> Option<InPayload> {
    let prefix = inject::prefix(prefix, cx);
    let pointer = Pointer::parse(at).ok();
    let names = pointer.iter().flat_map(Pointer::steps).map(|step| step.name.to_string());
    let steps: Vec<String> = names.collect();
    if steps.is_empty() || steps.iter().any(String::is_empty) {
        cx.error(&at.span, "not a JSON pointer to a member of the payload")
            .advice("write \"/headers/Authorization\"; `~` is written `~0`, and a `/` inside a name `~1`");
        return None;
    }
    Some(InPayload { steps, prefix })
}

/// Which of the injections is meant.
fn injection(at: &At<raw::RewriteInit>, inject: &[Injection], cx: &mut Context<'_>) -> Option<usize> {
    if let Field::Good(wanted) = &at.template {
        let found = inject.iter().position(|injection| {
            matches!(&injection.source, Source::Minted(spec)
                if matches!(&spec.kind, MintKind::Template(name) if name.as_str() == wanted.value))
        });
        if found.is_none() {
            cx.error(&wanted.span, "the route injects no token of this template")
                .advice("name one of the templates in the route's `inject`");
        }
        return found;
    }
    if matches!(at.template, Field::Bad) { None } else { only(&at.span, inject, cx) }
}

/// The only one that is minted.
fn only(span: &Span, inject: &[Injection], cx: &mut Context<'_>) -> Option<usize> {
    let minted = |injection: &Injection| matches!(injection.source, Source::Minted(_));
    let mut all = inject.iter().enumerate().filter(|(_, injection)| minted(injection)).map(|(index, _)| index);
    match (all.next(), all.next()) {
        (Some(only), None) => Some(only),
        (None, _) => {
            cx.error(span, "the route injects no minted token that could be put there")
                .advice("inject a `template`: its token is put into the message");
            None
        }
        (Some(_), Some(_)) => {
            cx.error(span, "the route injects several minted tokens, and this does not say which one is meant")
                .advice("add template = \"...\" to `rewrite_connection_init`, one of those in the route's `inject`");
            None
        }
    }
}
