//! `inject`: which header is set from what.

use std::time::Duration;

use crate::config::raw;
use crate::config::raw::problem::{Span, nearest};
use crate::config::raw::reader::{At, Field, Table};
use crate::config::{Claim, Expectation, Injection, MintKind, MintSpec, Pointer, Source, TemplateName};
use crate::headers::NameSet;
use crate::metrics::TemplateId;
use crate::secret;

use super::context::Context;
use super::headers;

/// The shortest life that the issuer gives (contract section 1.1).
const SHORTEST: Duration = Duration::from_secs(30);
/// Below this a token is minted again so often that the instance's budget feels it.
const SHORT: Duration = Duration::from_mins(2);

/// Headers that one route may set.
const MOST: usize = 64;

/// Values of a session that have a name.
const CLAIMS: [(&str, Claim); 6] = [
    ("sid", Claim::Sid),
    ("sub", Claim::Sub),
    ("org_id", Claim::OrgId),
    ("org_role", Claim::OrgRole),
    ("org_slug", Claim::OrgSlug),
    ("azp", Claim::Azp),
];

/// What an injection adds to all routes' needs.
pub(crate) trait Minting {
    /// The label's id, the same for the same kind.
    fn label(&mut self, kind: &MintKind) -> TemplateId;

    /// Something here has to be minted.
    fn mints(&mut self, place: &Span);
}

/// The list of one route. A public route has no session to take values from.
pub(crate) fn read(
    field: &Field<Vec<At<raw::Inject>>>,
    public: bool,
    minting: &mut dyn Minting,
    cx: &mut Context<'_>,
) -> Vec<Injection> {
    let mut injections = Vec::new();
    let mut seen = NameSet::new();
    if let Some(list) = field.get().filter(|list| list.len() > MOST) {
        cx.error(&list.span, "too many injections").label("at most 64");
        return injections;
    }
    for at in field.get().into_iter().flat_map(|list| &list.value) {
        let header = match &at.header {
            Field::Good(header) => headers::settable(header, cx),
            Field::Bad => None,
            Field::Absent => {
                if !at.reported() {
                    cx.error(&at.span, "an injection needs a `header`");
                }
                None
            }
        };
        let prefix = prefix(&at.prefix, cx);
        let source = source(at, &prefix, public, minting, cx);
        let Some(header) = header else { continue };
        if seen.contains(&header) {
            let span = at.header.get().map_or(&at.span, |header| &header.span);
            cx.error(span, "the route sets this header already")
                .advice("`-` and `_` are one character to many servers");
        }
        seen.insert(&header);
        if let Some(source) = source {
            injections.push(Injection { header, prefix, source, required: at.required.or(false) });
        }
    }
    injections
}

/// What stands before a value.
pub(crate) fn prefix(field: &Field<String>, cx: &mut Context<'_>) -> String {
    let Some(at) = field.get() else { return String::new() };
    if secret::sensitive(at.value.clone()).is_err() || at.starts_with([' ', '\t']) {
        cx.error(&at.span, "this cannot stand at the beginning of a header's value")
            .advice("visible ASCII characters, and spaces after them: \"Bearer \"");
    } else if at.ends_with("Bearer") || at.ends_with("bearer") {
        cx.problems
            .warning(&at.span, "no space follows the scheme")
            .advice("write \"Bearer \", with a space at the end");
    }
    at.value.clone()
}

fn source(
    at: &At<raw::Inject>,
    prefix: &str,
    public: bool,
    minting: &mut dyn Minting,
    cx: &mut Context<'_>,
) -> Option<Source> {
    let raw = &at.value;
    let written = [
        ("template", span(&raw.template)),
        ("claim", span(&raw.claim)),
        ("session_token", span(&raw.session_token)),
        ("minted_session_token", span(&raw.minted_session_token)),
        ("value", span(&raw.value)),
    ];
    let bad = [
        matches!(raw.template, Field::Bad),
        matches!(raw.claim, Field::Bad),
        matches!(raw.session_token, Field::Bad),
        matches!(raw.minted_session_token, Field::Bad),
        matches!(raw.value, Field::Bad),
    ];
    let mut given: Vec<(&str, Span)> = written.into_iter().filter_map(|(key, span)| Some((key, span?))).collect();
    given.sort_by_key(|(_, span)| span.start);
    if let [(_, first), (_, second), ..] = &given[..] {
        cx.error(second, "an injection has one source").also(first.clone(), "the first one");
        return None;
    }
    let Some((key, place)) = given.pop() else {
        if !bad.contains(&true) && !raw.reported() {
            cx.error(&at.span, "an injection needs a source").advice(
                "one of `template`, `claim`, `session_token = true`, `minted_session_token = true` and `value`",
            );
        }
        return None;
    };
    if !matches!(key, "template" | "minted_session_token") {
        let for_minting =
            [("expires_in", span(&raw.expires_in)), ("expect", span(&raw.expect)), ("vary", span(&raw.vary))];
        for (key, place) in for_minting.into_iter().filter_map(|(key, place)| Some((key, place?))) {
            cx.error(&place, format!("`{key}` is for a `template` or a `minted_session_token`"));
        }
    }
    if public && key != "value" {
        cx.error(&place, "a public route has no session to take this from")
            .label("`session = []`")
            .advice("a public route can inject a `value` alone");
        return None;
    }
    for (key, field) in [("session_token", &raw.session_token), ("minted_session_token", &raw.minted_session_token)] {
        if let Some(off) = field.get().filter(|on| !on.value) {
            cx.error(&off.span, format!("write `{key} = true`, or leave the injection out"));
        }
    }
    match (&raw.template, &raw.claim, &raw.session_token, &raw.minted_session_token, &raw.value) {
        (Field::Good(name), ..) => {
            minting.mints(&name.span);
            let template = TemplateName::new(name);
            if let Err(bad) = &template {
                cx.error(&name.span, bad.to_string());
            }
            mint_spec(template.ok().map(MintKind::Template), raw, minting, cx).map(Source::Minted)
        }
        (_, Field::Good(name), ..) => claim(name, cx).map(Source::Claim),
        (_, _, Field::Good(_), ..) => Some(Source::SessionToken),
        (_, _, _, Field::Good(on), _) => {
            minting.mints(&on.span);
            mint_spec(Some(MintKind::Session), raw, minting, cx).map(Source::Minted)
        }
        (.., Field::Good(reference)) => {
            let value = cx.secret(reference);
            if value.as_ref().is_some_and(|value| value.header(prefix).is_err()) {
                cx.error(&reference.span, "the value cannot stand in a header");
            }
            Some(Source::Value(value))
        }
        _ => None,
    }
}

fn span<T>(field: &Field<T>) -> Option<Span> {
    field.get().map(|at| at.span.clone())
}

fn mint_spec(
    kind: Option<MintKind>,
    raw: &raw::Inject,
    minting: &mut dyn Minting,
    cx: &mut Context<'_>,
) -> Option<MintSpec> {
    let expires_in = raw.expires_in.get().and_then(|at| {
        let duration = cx.duration(at)?;
        if duration < SHORTEST || duration.subsec_nanos() != 0 {
            cx.error(&at.span, "the issuer gives whole seconds, 30 or more").label("not a life time of a token");
        } else if duration < SHORT {
            cx.problems
                .warning(&at.span, "such a short life costs a mint for each session and minute or so")
                .advice("\"5m\" is a good value; the instance's rate limit is shared by everything that uses it");
        }
        u32::try_from(duration.as_secs()).ok()
    });
    let mut expect = Vec::new();
    for (pointer, value) in raw.expect.get().into_iter().flat_map(|named| &named.value.0) {
        if !pointer.starts_with('/') {
            cx.error(&pointer.span, "not a JSON pointer")
                .advice("it points into the minted token's claims: \"/org_id\" = \"org_id\"");
            continue;
        }
        let (Some(Claim::Pointer(pointer)), Some(claim)) = (claim(pointer, cx), claim(value, cx)) else { continue };
        expect.push(Expectation { pointer, claim });
    }
    let mut vary = Vec::new();
    for at in raw.vary.get().into_iter().flat_map(|list| &list.value) {
        let Some(claim) = claim(at, cx) else { continue };
        if vary.contains(&claim) {
            cx.error(&at.span, "this value is listed already");
        }
        vary.push(claim);
    }
    let kind = kind?;
    Some(MintSpec { id: minting.label(&kind), kind, expires_in, expect, vary })
}

/// A value of a session, by its name or by a pointer into the claims.
pub(crate) fn claim(at: &At<String>, cx: &mut Context<'_>) -> Option<Claim> {
    if at.starts_with('/') {
        return match Pointer::parse(at) {
            Ok(_) => Some(Claim::Pointer(at.value.clone())),
            Err(bad) => {
                cx.error(&at.span, bad.to_string()).advice(bad.advice());
                None
            }
        };
    }
    if let Some((_, claim)) = CLAIMS.into_iter().find(|(name, _)| *name == at.value) {
        return Some(claim);
    }
    let near = nearest(at, CLAIMS.iter().map(|(name, _)| *name)).map(|near| format!("did you mean \"{near}\"?"));
    let names = CLAIMS.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let problem = cx.error(&at.span, "not a value of a session");
    problem.advice(format!("name one of {names}, or point into the claims: \"/metadata/role\""));
    if let Some(near) = near {
        problem.label(near);
    }
    None
}
