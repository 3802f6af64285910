//! Where a route looks for a session, what it asks of it beyond its being valid, and what it leaves to an application
//! that judges for itself.

use http::header;

use crate::config::raw;
use crate::config::raw::problem::Span;
use crate::config::raw::reader::{At, Field};
use crate::config::raw::shapes::{Named, OneOrMany};
use crate::config::{Injection, OnNoSession, Origin, Requirement, SessionSource};
use crate::headers::NameSet;

use super::clerk::{self, Draft};
use super::context::Context;
use super::{headers, inject, net};

/// `session`. Empty: public, or reported, or of the kind that names a session and proves nothing.
pub(crate) fn session(field: &Field<Vec<At<raw::SessionSource>>>, cx: &mut Context<'_>) -> Vec<SessionSource> {
    let list = match field {
        Field::Absent => return vec![SessionSource::Bearer, SessionSource::Cookie],
        Field::Bad => return Vec::new(),
        Field::Good(list) => list,
    };
    let mut sources = Vec::new();
    let mut seen = NameSet::new();
    for at in &list.value {
        let source = match &at.value {
            raw::SessionSource::Word(word) => match word.as_str() {
                "bearer" => SessionSource::Bearer,
                "cookie" => SessionSource::Cookie,
                _ => {
                    cx.error(&at.span, "not a session source")
                        .advice("the sources are \"bearer\", \"cookie\" and { header = \"...\" }");
                    continue;
                }
            },
            // Of another kind: it proves nothing, or stands in no request's head.
            raw::SessionSource::Id { .. } | raw::SessionSource::Init { .. } => continue,
            raw::SessionSource::Header(header) => match headers::credential(header, cx) {
                Some(name) => SessionSource::Header(name),
                None => continue,
            },
        };
        let twin = matches!(&source, SessionSource::Header(name) if seen.contains(name));
        if twin || sources.contains(&source) {
            cx.error(&at.span, "this session source is listed already");
        }
        if let SessionSource::Header(name) = &source {
            seen.insert(name);
        }
        sources.push(source);
    }
    sources
}

/// The route's own part of `clerk.authorized_parties`, or all of it.
pub(crate) fn authorized_parties(field: &Field<Vec<At<String>>>, clerk: &Draft, cx: &mut Context<'_>) -> Vec<Origin> {
    let all = clerk.authorized_parties();
    let own = clerk::origins(field, cx);
    if own.is_empty() {
        return all.to_vec();
    }
    if let (Some(list), false) = (field.get(), all.is_empty()) {
        for at in &list.value {
            if net::origin(at).is_ok_and(|origin| !all.contains(&origin)) {
                cx.error(&at.span, "`clerk.authorized_parties` does not have this origin")
                    .advice("a route can narrow that list; it cannot widen it");
            }
        }
    }
    own
}

/// `require`. A public route has no session to ask anything of.
pub(crate) fn require(field: &Field<Named<OneOrMany<String>>>, public: bool, cx: &mut Context<'_>) -> Vec<Requirement> {
    let mut all = Vec::new();
    let Some(table) = field.get() else { return all };
    if public && !table.0.is_empty() {
        cx.error(&table.span, "a public route has no session to ask this of").label("`session = []`");
        return all;
    }
    for (name, values) in &table.0 {
        if values.0.is_empty() {
            cx.error(&values.span, "no session could have one of no values").advice("list the values that pass");
        }
        let Some(claim) = inject::claim(name, cx) else { continue };
        all.push(Requirement { claim, one_of: values.0.iter().map(|value| value.value.clone()).collect() });
    }
    all
}

/// `allow_impersonation`. Refusing on a public route would be a promise that nobody keeps.
pub(crate) fn allow_impersonation(field: &Field<bool>, public: bool, cx: &mut Context<'_>) -> bool {
    let allowed = field.or(true);
    if let (Some(at), true, false) = (field.get(), public, allowed) {
        cx.error(&at.span, "a public route does not look who calls").label("`session = []`");
    }
    allowed
}

/// A handshake, say, or a cookie that an SDK finds and this gateway does not.
const UNKNOWN_SESSIONS: &str = "a Clerk application finds sessions where nobody here looks: let it check this itself";

/// `clerk_app`, with what it implies: a key that says otherwise is an error, not a riddle. `session`: the sources, `None`
/// where one is only named.
pub(crate) fn clerk_app(
    raw: &raw::Route,
    session: Option<&[SessionSource]>,
    on_no_session: OnNoSession,
    inject: &[Injection],
    cx: &mut Context<'_>,
) -> bool {
    let Some(at) = raw.clerk_app.get().filter(|on| on.value) else { return false };
    let off = |field: &Field<bool>| field.get().filter(|on| !on.value).map(|on| on.span.clone());
    let rejects = raw.on_no_session.get().filter(|_| on_no_session == OnNoSession::Reject).map(|at| at.span.clone());
    // What is not looked at here, or in another order, the application would believe although nobody has judged it.
    let odd = session.is_some_and(|sources| sources != [SessionSource::Bearer, SessionSource::Cookie]);
    let sources = raw.session.get().filter(|_| odd).map(|at| at.span.clone());
    let denied: [(Option<Span>, &str); 6] = [
        (sources, "a Clerk application reads `Authorization`, then the cookies"),
        (rejects, "a Clerk application gets requests without a session too"),
        (off(&raw.forward_credential), "a Clerk application reads the credential itself"),
        (off(&raw.forward_clerk_cookies), "a Clerk application reads Clerk's cookies itself"),
        (raw.require.get().map(|at| at.span.clone()), UNKNOWN_SESSIONS),
        (off(&raw.allow_impersonation), UNKNOWN_SESSIONS),
    ];
    for (span, why) in denied {
        if let Some(span) = span {
            cx.error(&span, why).also(at.span.clone(), "this says so").advice("leave the key out");
        }
    }
    for name in [header::AUTHORIZATION, header::COOKIE] {
        if inject.iter().any(|injection| injection.header == name) {
            cx.problems
                .warning(
                    &at.span,
                    format!("the route sets `{name}` itself, so the application never gets the caller's"),
                )
                .advice("put the token into a header of its own where the application reads this one");
        }
    }
    true
}
