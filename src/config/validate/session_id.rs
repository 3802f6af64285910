//! `session_id_header`: a session that a trusted program names and nobody verifies, and where that may be believed.

use crate::address::ListenAddress;
use crate::config::raw;
use crate::config::raw::problem::Span;
use crate::config::raw::reader::{At, Field};
use crate::config::raw::shapes::Toggle;
use crate::config::{CallerToken, Injection, Listen, OnMintError, SessionIdSource, SessionRules, Source};
use crate::metrics::ListenerId;

use super::context::Context;
use super::headers;

/// What the rest of the route must agree with.
pub(crate) struct Around<'a> {
    pub(crate) listeners: &'a [Listen],
    /// The one that the route names.
    pub(crate) listener: Option<ListenerId>,
    pub(crate) rules: &'a SessionRules,
    pub(crate) inject: &'a [Injection],
    pub(crate) on_mint_error: OnMintError,
}

/// Whether the route has such a source, good or not.
pub(crate) fn is_named(field: &Field<Vec<At<raw::SessionSource>>>) -> bool {
    field.get().is_some_and(|list| list.iter().any(|at| matches!(at.value, raw::SessionSource::Id { .. })))
}

/// The source; `None` when there is none or it was reported.
pub(crate) fn read(raw: &raw::Route, around: &Around<'_>, cx: &mut Context<'_>) -> Option<SessionIdSource> {
    let list = raw.session.get()?;
    let (at, header, trust, token) = list.iter().find_map(|at| match &at.value {
        raw::SessionSource::Id { header, trust, caller_token } => Some((at, header, trust, caller_token)),
        _ => None,
    })?;
    if list.len() > 1 {
        cx.error(&at.span, "a session that is only named has a route of its own")
            .advice("a second route, on another listener or path, can take verified sessions");
    }
    match trust {
        Field::Good(word) if word.value == "unverified" => {}
        Field::Good(word) => {
            cx.error(&word.span, "nobody verifies a session that is only named").label("write \"unverified\"");
        }
        Field::Bad => {}
        Field::Absent => {
            cx.error(&at.span, "nobody verifies a session that is only named, and the file has to say so")
                .advice("add trust = \"unverified\"");
        }
    }
    unknown(raw, &at.span, around, cx);
    let caller = match token {
        Field::Good(reference) => CallerToken::Needed(cx.secret(reference)),
        Field::Bad => return None,
        Field::Absent => CallerToken::Needless,
    };
    reachable(&at.span, &caller, around, cx);
    Some(SessionIdSource { header: headers::credential(header, cx)?, caller })
}

/// What the route asks of claims that nobody knows.
fn unknown(raw: &raw::Route, place: &Span, around: &Around<'_>, cx: &mut Context<'_>) {
    let mut refuse = |span: Option<&Span>, what: &str| {
        if let Some(span) = span {
            cx.error(span, format!("{what}: nothing is known of a session that is only named"))
                .also(place.clone(), "named here");
        }
    };
    if !around.rules.require.is_empty() {
        refuse(span(&raw.require), "nothing can be required");
    }
    if !around.rules.allow_impersonation {
        refuse(span(&raw.allow_impersonation), "nobody can tell who acts as another");
    }
    refuse(span(&raw.authorized_parties), "there is no `azp` to compare with");
    refuse(span(&raw.allow_pending), "nobody can tell whether it is pending");
    if raw.clerk_app.or(false) {
        refuse(span(&raw.clerk_app), "a Clerk application cannot read it");
    }
    if raw.websocket.get().is_some_and(|at| !matches!(at.value, Toggle::Flag(false))) {
        refuse(span(&raw.websocket), "no WebSocket could be closed when it ends");
    }
    refuse(span(&raw.retry_rejected), "no request is sent again");
    if around.on_mint_error == OnMintError::Session {
        refuse(span(&raw.on_mint_error), "there is no session token to inject");
    }
    let needs = |injection: &Injection| match &injection.source {
        Source::Claim(_) | Source::SessionToken => true,
        Source::Minted(spec) => !spec.expect.is_empty() || !spec.vary.is_empty(),
        Source::Value(_) => false,
    };
    if around.inject.iter().any(needs) {
        refuse(span(&raw.inject), "`claim`, `session_token`, `expect` and `vary` have nothing to read");
    }
}

fn span<T>(field: &Field<T>) -> Option<&Span> {
    field.get().map(|at| &at.span)
}

/// Every listener through which the route can be reached must be one whose callers may be believed.
fn reachable(place: &Span, caller: &CallerToken, around: &Around<'_>, cx: &mut Context<'_>) {
    for listen in around.listeners.iter().filter(|listen| around.listener.is_none_or(|own| own == listen.id)) {
        let name = &listen.name;
        match &listen.address {
            address if address.is_exposed() => {
                cx.error(place, format!("the listener `{name}` can be reached from other machines"))
                    .label("whoever names a session there gets its tokens")
                    .advice("give the route a listener on a Unix socket or a loopback address: match = { listener = \"...\" }");
            }
            // Who may open the socket's file is known, where the route has chosen that file.
            ListenAddress::Unix(_) if around.listener.is_some() => {}
            _ if *caller == CallerToken::Needless => {
                cx.error(place, format!("a caller token is needed on the listener `{name}`")).advice(
                    "add caller_token = { file = \"...\" }; without one, name a listener on a Unix socket in `match`",
                );
            }
            // Where a socket of systemd's is bound is known when it is there; each request is judged by that.
            _ => {}
        }
    }
}
