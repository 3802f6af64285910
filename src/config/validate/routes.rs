//! `[[routes]]`: what is matched, where it goes and under which rules.

use http::Method;

use crate::config::raw;
use crate::config::raw::problem::{Span, nearest};
use crate::config::raw::reader::{At, Field, Table};
use crate::config::{
    HostPattern, Listen, Matcher, MintKind, OnMintError, OnNoSession, Preflight, Rewrite, Route, SessionRules,
    SessionSource,
};
use crate::headers::NameSet;
use crate::metrics::{ListenerId, RouteId, TemplateId};

use super::clerk::{Draft, Needs};
use super::context::Context;
use super::names::{LABEL, MOST, is_label};
use super::upstreams::Upstreams;
use super::{connection_init, guards, headers, inject, net, retry, session_id, websocket};

/// Those that callers use, out of IANA's registry.
const KNOWN_METHODS: [&str; 18] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "QUERY",
    "COPY",
    "LOCK",
    "MKCOL",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "REPORT",
    "SEARCH",
    "UNLOCK",
];

/// What all routes together are made of.
pub(crate) struct Routes {
    /// What `match.listener` can name.
    listeners: Vec<Listen>,
    /// Whether proxies ask for decisions, and forward what has no upstream here.
    carried: bool,
    pub(crate) list: Vec<Route>,
    pub(crate) minted: Vec<MintKind>,
    pub(crate) needs: Needs,
}

/// The section, in the order of the file.
pub(crate) fn read(
    field: Field<Vec<At<raw::Route>>>,
    listeners: &[Listen],
    carried: bool,
    clerk: &Draft,
    upstreams: &mut Upstreams,
    cx: &mut Context<'_>,
) -> Routes {
    let listeners = listeners.to_vec();
    let mut routes = Routes { listeners, carried, list: Vec::new(), minted: Vec::new(), needs: Needs::default() };
    let mut places: Vec<Span> = Vec::new();
    for At { value: raw, span } in field.or_default() {
        if places.len() == MOST {
            cx.error(&span, "too many routes").label("at most 1000");
            break;
        }
        let place = raw.name.get().map_or(span, |name| name.span.clone());
        let id = RouteId::new(routes.list.len());
        if let Some(route) = route(id, raw, &place, clerk, upstreams, &mut routes, cx) {
            compare(&route, &place, &routes.list, &places, cx);
            routes.list.push(route);
            places.push(place);
        }
    }
    routes
}

// === impl Routes ===

impl inject::Minting for Routes {
    fn label(&mut self, kind: &MintKind) -> TemplateId {
        let known = self.minted.iter().position(|own| own == kind);
        TemplateId::new(known.unwrap_or_else(|| {
            self.minted.push(kind.clone());
            self.minted.len() - 1
        }))
    }

    fn mints(&mut self, place: &Span) {
        self.needs.mint.get_or_insert_with(|| place.clone());
    }
}

/// Reports what a route has in common with an earlier one and must not.
fn compare(route: &Route, place: &Span, earlier: &[Route], places: &[Span], cx: &mut Context<'_>) {
    for (other, first) in earlier.iter().zip(places) {
        if other.name == route.name {
            cx.error(place, "two routes have the same name").also(first.clone(), "the first one");
        }
        let (a, b) = (&other.matcher, &route.matcher);
        let overlap =
            a.methods.is_empty() || b.methods.is_empty() || a.methods.iter().any(|own| b.methods.contains(own));
        if a.listener == b.listener && a.host == b.host && a.path == b.path && overlap {
            cx.error(place, "two routes match the same requests")
                .also(first.clone(), "this one has the same host, path and a common method")
                .advice("give them different hosts, paths or methods");
        }
    }
}

fn route(
    id: RouteId,
    mut raw: raw::Route,
    place: &Span,
    clerk: &Draft,
    upstreams: &mut Upstreams,
    routes: &mut Routes,
    cx: &mut Context<'_>,
) -> Option<Route> {
    let name = name(&raw, place, cx);
    let session = guards::session(&raw.session, cx);
    // As it was written: a list of words that were refused makes no route public.
    let public = raw.session.get().is_some_and(|list| list.is_empty());
    let rules = SessionRules {
        allow_pending: raw.allow_pending.or(false),
        authorized_parties: guards::authorized_parties(&raw.authorized_parties, clerk, cx),
        require: guards::require(&raw.require, public, cx),
        allow_impersonation: guards::allow_impersonation(&raw.allow_impersonation, public, cx),
    };
    let late = connection_init::is_source(&raw.session);
    note_needs(&session, late, &rules, place, &mut routes.needs);
    let matcher = matcher(&std::mem::take(&mut raw.matching).or_default(), &routes.listeners, cx);
    let rewrite = rewrite(&raw.strip_prefix, &raw.rewrite_prefix, matcher.as_ref(), cx);
    let inject = inject::read(&raw.inject, public, routes, cx);
    let upstream = match &raw.upstream {
        Field::Good(at) => upstreams.resolve(at, cx).map(Some),
        Field::Bad => None,
        Field::Absent if routes.carried => Some(None),
        Field::Absent => {
            if !raw.reported() {
                cx.error(place, "the route needs an `upstream`").advice(
                    "name a table of [upstreams], or write a URL; only where [authz] is there may it be left out",
                );
            }
            None
        }
    };
    let no_session = [("reject", OnNoSession::Reject), ("pass", OnNoSession::Pass)];
    let mint_error = [("fail", OnMintError::Fail), ("pass", OnMintError::Pass), ("session", OnMintError::Session)];
    let preflight = [("pass", Preflight::Pass), ("reject", Preflight::Reject)];
    let on_no_session = cx.choice(&raw.on_no_session, &no_session, OnNoSession::Reject);
    let sources = (!session_id::is_named(&raw.session) && !late).then_some(&*session);
    let clerk_app = guards::clerk_app(&raw, sources, on_no_session, &inject, cx);
    let on_no_session = if clerk_app { OnNoSession::Pass } else { on_no_session };
    let on_mint_error = cx.choice(&raw.on_mint_error, &mint_error, OnMintError::Fail);
    let preflight = cx.choice(&raw.preflight, &preflight, Preflight::Pass);
    let around = session_id::Around {
        listeners: &routes.listeners,
        listener: matcher.as_ref().and_then(|matcher| matcher.listener),
        rules: &rules,
        inject: &inject,
        on_mint_error,
    };
    let session_id = session_id::read(&raw, &around, cx);
    let log_access = cx.choice(&raw.access, &[("on", true), ("off", false)], true);
    let timeout = cx.limit(&raw.timeout, None);
    let websocket = websocket::read(&raw.websocket, late || !session.is_empty(), &inject, cx)
        .filter(|_| !session_id::is_named(&raw.session));
    let connection_init = connection_init::read(&raw, on_no_session, &inject, cx);
    let retry_rejected = retry::read(&raw.retry_rejected, &inject, cx);
    let upstream = upstream.map(|id| id.map(|id| upstreams.get(id)));
    let removed = upstream.flatten().map(|upstream| &upstream.remove_headers);
    let keep_headers = keep_headers(&raw.keep_headers, removed, cx);
    let upstream = upstream?;
    Some(Route {
        id,
        name: name?,
        matcher: matcher?,
        upstream: upstream.map(|upstream| upstream.id),
        rewrite: rewrite?,
        preserve_host: raw
            .preserve_host
            .or(upstream.is_none_or(|to| to.addresses.iter().all(|address| address.loopback))),
        session,
        session_id,
        rules,
        on_no_session,
        on_mint_error,
        preflight,
        clerk_app,
        forward_credential: clerk_app || raw.forward_credential.or(false),
        forward_clerk_cookies: clerk_app || raw.forward_clerk_cookies.or(false),
        keep_headers,
        timeout,
        websocket,
        connection_init,
        log_access,
        show_token: raw.show_token.or(false),
        inject,
        retry_rejected,
        allow_odd_paths: raw.allow_odd_paths.or(false),
    })
}

fn name(raw: &raw::Route, place: &Span, cx: &mut Context<'_>) -> Option<String> {
    let Some(at) = raw.name.get() else {
        if raw.name.is_absent() {
            cx.error(place, "the route needs a `name`").advice("it is the route's label in metrics and logs");
        }
        return None;
    };
    if !is_label(at) {
        cx.error(&at.span, "not a name").advice(LABEL);
        return None;
    }
    Some(at.value.clone())
}

fn note_needs(session: &[SessionSource], late: bool, rules: &SessionRules, place: &Span, needs: &mut Needs) {
    if late || !session.is_empty() {
        needs.session.get_or_insert_with(|| place.clone());
    }
    if session.contains(&SessionSource::Cookie) {
        needs.cookie.get_or_insert_with(|| place.clone());
        if rules.authorized_parties.is_empty() {
            needs.open_cookie.get_or_insert_with(|| place.clone());
        }
    }
}

fn matcher(raw: &raw::Match, listeners: &[Listen], cx: &mut Context<'_>) -> Option<Matcher> {
    let exact = raw.exact.or(false);
    let host = match raw.host.get().map(|at| (at, net::host_pattern(at))) {
        None => Some(HostPattern::Any),
        Some((_, Ok(host))) => Some(host),
        Some((at, Err(bad))) => {
            cx.error(&at.span, bad.to_string())
                .advice("write \"api.example.com\" or \"*.example.com\"; leave it out for every host");
            None
        }
    };
    let path = match raw.path.get() {
        None => Some("/".to_owned()),
        Some(at) => path(at, exact, cx),
    };
    let methods = methods(&raw.methods, cx);
    let listener = match &raw.listener {
        Field::Absent => Some(None),
        Field::Bad => None,
        Field::Good(at) => listener(at, listeners, cx).map(Some),
    };
    Some(Matcher { host: host?, path: path?, exact, methods, listener: listener? })
}

fn listener(at: &At<String>, listeners: &[Listen], cx: &mut Context<'_>) -> Option<ListenerId> {
    let found = listeners.iter().find(|listen| listen.name == at.value).map(|listen| listen.id);
    if found.is_none() {
        let near = nearest(at, listeners.iter().map(|listen| listen.name.as_str()));
        let near = near.map(|near| format!("did you mean `{near}`?"));
        let problem = cx.error(&at.span, "no listener has this name");
        problem.advice("name one in [server]: listen = [{ name = \"...\", address = \"...\" }]");
        if let Some(near) = near {
            problem.label(near);
        }
    }
    found
}

fn methods(field: &Field<Vec<At<String>>>, cx: &mut Context<'_>) -> Vec<Method> {
    let Some(list) = field.get() else { return Vec::new() };
    if list.is_empty() {
        cx.error(&list.span, "no method would match").advice("leave `methods` out for every method");
    }
    let mut methods = Vec::new();
    for at in &list.value {
        match Method::from_bytes(at.as_bytes()) {
            Ok(Method::CONNECT) => {
                cx.error(&at.span, "CONNECT is never forwarded");
            }
            Ok(method) if at.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                cx.error(&at.span, "methods are written in capitals").label(method.as_str().to_ascii_uppercase());
            }
            Ok(method) if methods.contains(&method) => {
                cx.error(&at.span, "this method is listed already");
            }
            Ok(method) => {
                if !KNOWN_METHODS.contains(&method.as_str()) {
                    cx.problems
                        .warning(&at.span, "no registered method has this name")
                        .label("matches requests with this very method");
                }
                methods.push(method);
            }
            Err(_) => {
                cx.error(&at.span, "not a method");
            }
        }
    }
    methods
}

fn path(at: &At<String>, exact: bool, cx: &mut Context<'_>) -> Option<String> {
    let result = if exact { net::path(at) } else { net::prefix(at) };
    match result {
        Ok(()) => {
            not_a_pattern(at, cx);
            Some(at.value.clone())
        }
        Err(bad) => {
            let advice = match bad {
                net::Bad::TrailingSlash => "leave the last `/` out",
                net::Bad::Odd => "no dot segments, `//`, `\\`, and no encoded `/`, `\\`, `.`, `%` or NUL",
                _ => "write \"/v1/graphql\"",
            };
            cx.error(&at.span, bad.to_string()).advice(advice);
            None
        }
    }
}

/// Warns of what other gateways take for a pattern: these characters are legal in a path, and mean themselves.
fn not_a_pattern(at: &At<String>, cx: &mut Context<'_>) {
    let pattern = |part: &str| part.contains('*') || part.starts_with(':') || part.starts_with('{');
    let mut before = 0;
    for part in at.split('/').skip(1) {
        if pattern(part) {
            let covers = if before == 0 { "/" } else { &at[..before] };
            cx.problems
                .warning(&at.span, "a path is no pattern: `*`, `:name` and `{name}` stand for themselves")
                .label("matches these characters only")
                .advice(format!("a path covers everything below it: write \"{covers}\""));
            return;
        }
        before += 1 + part.len();
    }
}

fn rewrite(
    strip: &Field<String>,
    replace: &Field<String>,
    requests: Option<&Matcher>,
    cx: &mut Context<'_>,
) -> Option<Rewrite> {
    if let (Field::Good(_), Field::Good(at)) = (strip, replace) {
        cx.error(&at.span, "a route has one of `strip_prefix` and `rewrite_prefix`");
        return None;
    }
    if let Some(at) = strip.get() {
        let prefix = path(at, false, cx)?;
        let matched = requests?;
        if !net::covers(&prefix, &matched.path) {
            cx.error(&at.span, "the route's path does not begin with this prefix")
                .advice("a prefix that is taken away is a part of `match.path`, in whole segments");
            return None;
        }
        // To take `/` away changes nothing.
        return Some(if prefix == "/" { Rewrite::Keep } else { Rewrite::Strip(prefix) });
    }
    if let Some(at) = replace.get() {
        let to = path(at, requests.is_some_and(|matched| matched.exact), cx)?;
        let matched = requests?;
        return Some(Rewrite::Replace { from: matched.path.clone(), to });
    }
    if matches!(strip, Field::Bad) || matches!(replace, Field::Bad) { None } else { Some(Rewrite::Keep) }
}

fn keep_headers(field: &Field<Vec<At<String>>>, removed: Option<&NameSet>, cx: &mut Context<'_>) -> NameSet {
    let mut kept = NameSet::new();
    for at in field.get().into_iter().flat_map(|list| &list.value) {
        let Some(pattern) = headers::pattern(at, cx) else { continue };
        if !at.ends_with('*') && removed.is_some_and(|removed| !removed.contains_str(at)) {
            cx.problems
                .warning(&at.span, "the upstream's `remove_headers` does not remove this header")
                .label("has no effect");
        }
        kept.extend(&pattern);
    }
    kept
}
