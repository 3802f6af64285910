//! `rewrite_connection_init`: which minted token is put where into the first message of a WebSocket.

use crate::config::raw;
use crate::config::raw::reader::{At, Field, Table};
use crate::config::raw::shapes::Toggle;
use crate::config::{ConnectionInit, InPayload, Injection, MintKind, Source};

use super::context::Context;
use super::inject;

/// The key; `None` when it is not there or was reported.
pub(crate) fn read(raw: &raw::Route, inject: &[Injection], cx: &mut Context<'_>) -> Option<ConnectionInit> {
    let Some(Toggle::Table(websocket)) = raw.websocket.get().map(|at| &at.value) else { return None };
    let at = websocket.rewrite_connection_init.get()?;
    if raw.upstream.is_absent() {
        cx.error(&at.span, "a route without `upstream` opens no WebSocket here, and sees no message of one")
            .advice("the proxy that asks for the decision forwards it: put the token into a header there");
    }
    let token = place(at, &at.pointer, &at.prefix, cx);
    let injection = injection(at, inject, cx);
    Some(ConnectionInit { token: token?, injection: injection? })
}

/// A pointer into the payload, and the prefix.
fn place<T: Table>(
    table: &At<T>,
    pointer: &Field<String>,
    prefix: &Field<String>,
    cx: &mut Context<'_>,
) -> Option<InPayload> {
    let prefix = inject::prefix(prefix, cx);
    let at = match pointer {
        Field::Good(at) => at,
        Field::Bad => return None,
        Field::Absent => {
            if !table.value.reported() {
                cx.error(&table.span, "a `pointer` says where in the payload the token is put")
                    .advice("Hasura reads it at \"/headers/Authorization\"");
            }
            return None;
        }
    };
    let steps = at.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
    let mut steps: Vec<String> = steps.collect();
    let escapes = at.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !escapes || steps.len() < 2 || !steps.remove(0).is_empty() || steps.iter().any(String::is_empty) {
        cx.error(&at.span, "not a JSON pointer to a member of the payload")
            .advice("write \"/headers/Authorization\"; `~` is written `~0`, and a `/` inside a name `~1`");
        return None;
    }
    Some(InPayload { steps, prefix })
}

/// Which of the injections is meant.
fn injection(at: &At<raw::RewriteInit>, inject: &[Injection], cx: &mut Context<'_>) -> Option<usize> {
    let minted = |injection: &Injection| matches!(injection.source, Source::Minted(_));
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
    let mut all = inject.iter().enumerate().filter(|(_, injection)| minted(injection)).map(|(index, _)| index);
    match (all.next(), all.next()) {
        (Some(only), None) => Some(only),
        _ if matches!(at.template, Field::Bad) => None,
        (None, _) => {
            cx.error(&at.span, "the route injects no minted token that could be put there")
                .advice("inject a `template`: its token stands in the upgrade's header and in the message");
            None
        }
        (Some(_), Some(_)) => {
            cx.error(&at.span, "the route injects several minted tokens, and this does not say which one is meant")
                .advice("add template = \"...\", one of the templates in the route's `inject`");
            None
        }
    }
}
