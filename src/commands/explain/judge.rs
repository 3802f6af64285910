//! Takes a request through the steps that every request takes, up to where something would be minted or sent.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use http_body_util::Empty;
use serde_json::Value;

use crate::address::{BoundAddress, ListenAddress, PeerAddress};
use crate::app::StartError;
use crate::app::gateway::{Lasting, names};
use crate::clock::{Clock, Now};
use crate::config::{
    Access, CallerToken, Config, HostPattern, Identity, Listen, MintKind, Route, SessionIdSource, Source,
};
use crate::headers;
use crate::lifecycle::Spawner;
use crate::listener::connection::{Connection, Ends};
use crate::metrics::{Metrics, Verdict as Judged};
use crate::proxy::admit::{Admitted, Found, admit, consumed, find_plan};
use crate::proxy::aim;
use crate::proxy::clean::Consumed;
use crate::proxy::error::Error;
use crate::proxy::gateway::{Gateway, Plan, Plans};
use crate::proxy::inject::Injected;
use crate::proxy::request::{self, Target};
use crate::proxy::tokens::{self, Subject};
use crate::record::{Peer, Record, Recorder};
use crate::route::RouteError;
use crate::secret::Secret;
use crate::session::credential::peek::NothingRead;
use crate::session::credential::{self, Credential, Place};
use crate::session::jwks::Jwks;
use crate::session::named::{self, NotACaller};
use crate::session::{Reason, SessionError};
use crate::token::{Mint, MintError, MintRequest, Token};

use super::credential::{NoKeys, believe_caller, keys, passed_over, place, sign_anew};
use super::follow::may_follow;
use super::report::{Injection, Matched, Report, Session, Signature, Step, Verdict, WebSocket};
use super::{carried, websocket};

/// A request that is explained.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) headers: HeaderMap,
    /// The listener that it comes through.
    pub(super) listener: Listen,
    /// Put where the route looks first.
    pub(super) token: Option<Secret>,
    /// Fetch the keys.
    pub(super) online: bool,
}

/// How the request came.
struct Came<'a> {
    connection: &'a Connection,
    trusted: bool,
    signature: Signature,
    /// The caller token is not here; the request's own stands in its place.
    caller_unknown: bool,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The configuration cannot be compiled.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No keys.
    #[error(transparent)]
    Keys(#[from] NoKeys),
}

/// Nothing is minted here.
#[derive(Debug)]
struct Never;

/// Tells what would become of the request.
///
/// # Errors
/// When nothing can be said; that the request would be refused is no error.
pub(super) async fn judge(config: &Config, asked: Asked) -> Result<Report, JudgeError> {
    let clock = Clock::system();
    let metrics = Arc::new(Metrics::new(names(config)));
    let control = Spawner::current();
    let (mut head, ()) = {
        let mut request = Request::new(());
        *request.method_mut() = asked.method;
        *request.uri_mut() = Uri::from(asked.target);
        *request.headers_mut() = asked.headers;
        request.into_parts()
    };
    let plans = Plans::new(config, &[]).map_err(StartError::Value)?;
    let connection = Connection::new(ends(asked.listener), None, &config.server.limits);
    let unused = asked.token.as_ref().is_some_and(|token| !place(&mut head, token, &plans, &connection));
    let believing = believe_caller(config, &head);
    let caller_unknown = believing.is_some();
    let config = believing.as_ref().unwrap_or(config);
    let (keys, signature) = match keys(config, asked.online, &metrics, &clock).await? {
        Some((keys, signature)) => (keys, signature),
        None => (sign_anew(&mut head, config, &clock, &plans, &connection)?, Signature::Unchecked),
    };
    let lasting = Lasting::new(config, &metrics, &clock, &control);
    let plans = Plans::new(config, &[]).map_err(StartError::Value)?;
    let gateway = lasting.gateway(1, config, plans, Jwks::fixed(keys), Never, &metrics);
    let recorder =
        Recorder::new(Arc::clone(&metrics), metrics.shard(), Access::Off, Identity::None, clock.clone(), None);
    let peer = connection.ends.peer;
    let trusted = gateway.plans.trusted.trusts(peer);
    let mut record = recorder
        .begin(&Request::from_parts(head.clone(), ()), Peer { address: peer, trusted, scheme: connection.scheme() });
    let came = Came { connection: &connection, trusted, signature, caller_unknown };
    let mut report = explain(&gateway, config, &head, &came, &clock, &mut record).await;
    if unused {
        report.notes.push("--token is not used: this route looks for no session token".to_owned());
    }
    if head.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
        report.notes.push("methods are told apart by case: GET is not get".to_owned());
    }
    Ok(report)
}

/// A caller on this machine.
fn ends(listener: Listen) -> Ends {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (peer, local) = match listener.address {
        ListenAddress::Tcp(address) => (PeerAddress::Tcp(loopback), BoundAddress::Tcp(address)),
        ListenAddress::Unix(path) => (PeerAddress::Unix, BoundAddress::Unix(path)),
        // What systemd passes is not known here.
        ListenAddress::Systemd(_) => (PeerAddress::Tcp(loopback), BoundAddress::Tcp(loopback)),
    };
    Ends { peer, local, listener: listener.id }
}

/// The steps themselves, each by the code that serves requests.
async fn explain(
    gateway: &Gateway<Never>,
    config: &Config,
    head: &Parts,
    came: &Came<'_>,
    clock: &Clock,
    record: &mut Record,
) -> Report {
    let (trusted, signature) = (came.trusted, came.signature);
    let mut report = Report::new(head);
    let mut now = clock.now();
    let target = match request::target(head, &Empty::<Bytes>::new(), &gateway.plans, came.connection) {
        Ok(target) => target,
        Err(error) => return report.refused(Step::Head, &error),
    };
    report.host = target.host.as_str().to_owned();
    let mut handshake = None;
    let found = find_plan(gateway, head, &target).ok();
    report.notes.extend(carried::note(gateway, head, &target));
    if let Some((Plan { route, .. }, preflight)) = found {
        report.preflight = preflight;
        report.route = Some(matched(route, config, head));
        if route.takes_sessions() && !preflight {
            report.session = Some(Session::new(websocket::sources(route), signature));
        }
        let rules = &gateway.sessions.cookies;
        if let (Some(session), Ok(found)) =
            (&mut report.session, credential::find(&head.headers, &route.session, rules, now.wall, &NothingRead))
        {
            let found = found.credential;
            session.found(&where_it_stood(&found), &claims(found.token.as_str()), now.wall);
        } else if report.session.is_some() {
            report.notes.extend(passed_over(head, route));
        }
        if let Some(source) = &route.session_id {
            report.session = Some(named(source, head, &target, came));
        }
        if let Some((websocket, ask)) = websocket::judge(head, route) {
            (report.websocket, handshake) = (Some(websocket), ask);
        }
    }
    let admitted = match admit(gateway, head, &target, trusted, clock, &mut now, record).await {
        Ok(admitted) => admitted,
        Err(error) => {
            let step = match (&error, found) {
                (Error::OriginForbidden | Error::NotACaller(_), _) => Step::Guard,
                (Error::Route(RouteError::MethodNotAllowed { allow }), None) => {
                    report.route = allow.first().and_then(|method| {
                        let mut taken = head.clone();
                        taken.method = method.clone();
                        let (plan, _) = find_plan(gateway, &taken, &target).ok()?;
                        Some(matched(&plan.route, config, head))
                    });
                    let allowed: Vec<&str> = allow.iter().map(Method::as_str).collect();
                    report.notes.push(format!("methods that are allowed there: {}", allowed.join(", ")));
                    Step::Route
                }
                (_, None) => Step::Route,
                (Error::Session(SessionError::Invalid(Reason::Issuer)), _) => {
                    let issuer = config.clerk.issuer.as_deref().unwrap_or("that of the instance");
                    report.expects(format!("iss \"{issuer}\""));
                    Step::Session
                }
                (Error::Session(SessionError::Invalid(Reason::Azp)), Some((plan, _))) => {
                    let parties = plan.route.rules.authorized_parties.iter();
                    let parties: Vec<String> = parties.map(|party| format!("\"{}\"", party.as_str())).collect();
                    report.expects(format!("azp {}", parties.join(" or ")));
                    Step::Session
                }
                _ => Step::Session,
            };
            return report.refused(step, &error);
        }
    };
    if let Some(session) = &mut report.session {
        match &admitted.caller {
            Found::Session(..) => session.valid = true,
            Found::Named(_) => {}
            Found::Nobody(_) | Found::Preflight => session.counts_as_none = record.judged().map(Judged::as_str),
        }
    }
    let mut left = head.headers.clone();
    let consumed = match &admitted.caller {
        Found::Session(credential, _) => consumed(admitted.plan, credential),
        Found::Named(_) => Consumed::Other,
        Found::Nobody(consumed) => consumed.clone(),
        Found::Preflight => Consumed::Any,
    };
    if let Err(bad) = admitted.plan.cleaner.request(&mut left, &consumed, trusted) {
        return report.refused(Step::Clean, &Error::Malformed(bad.reason()));
    }
    if let Some(handshake) = handshake {
        handshake.ask(&mut left, admitted.plan.route.connection_init.is_none());
    }
    if let Some(WebSocket::Opens { verified, .. }) = &mut report.websocket {
        *verified = matches!(admitted.caller, Found::Session(..)) || admitted.plan.route.late_session().is_some();
    }
    report.removed = removed(&head.headers, &left);
    if let Err(error) = inject(&mut report, &admitted, now) {
        return report.refused(Step::Inject, &error);
    }
    report.may_follow = may_follow(&admitted, config);
    report.verdict = Verdict::Forwarded;
    report
}

fn matched(route: &Route, config: &Config, head: &Parts) -> Matched {
    let matcher = &route.matcher;
    let path = match aim::rewrite(&head.uri, &route.rewrite) {
        Ok(Some(target)) => target.path().to_owned(),
        _ => head.uri.path().to_owned(),
    };
    Matched {
        name: route.name.clone(),
        host: match &matcher.host {
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Suffix(suffix) => format!("*{suffix}"),
            HostPattern::Any => "any".to_owned(),
        },
        path: if matcher.exact { format!("{} exactly", matcher.path) } else { format!("{} and below", matcher.path) },
        methods: match &matcher.methods[..] {
            [] => "any".to_owned(),
            methods => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "),
        },
        listener: match matcher.listener {
            Some(id) => config.server.listen[id.index()].name.clone(),
            None => "any".to_owned(),
        },
        upstream: config
            .upstream_of(route)
            .map_or_else(|| "nowhere: a proxy forwards it".to_owned(), |to| to.name.clone()),
        path_there: path,
    }
}

/// A session that is only named, and whether the caller may do so: by the check that serves requests.
fn named(source: &SessionIdSource, head: &Parts, target: &Target<'_>, came: &Came<'_>) -> Session {
    let mut session = Session::new(vec![format!("header {}, which names a session", source.header)], Signature::Absent);
    if head.headers.contains_key(&source.header) {
        session.named(format!("header {}, by its id", source.header));
    }
    let shown = head.headers.contains_key(headers::CALLER);
    let local = &came.connection.ends.local;
    session.caller_token = Some(match named::admit(&head.headers, target.host.as_str(), local, source) {
        Ok(()) if source.caller == CallerToken::Needless => "needs no token: who may open the socket may name sessions",
        Ok(()) if came.caller_unknown => "x-mintgate-caller NOT checked: the configured token is not here",
        Ok(()) => "x-mintgate-caller is the configured token",
        Err(NotACaller::Unknown) if shown => "x-mintgate-caller is not the configured token",
        Err(NotACaller::Unknown) => "x-mintgate-caller is missing",
        Err(NotACaller::NotLocal) => "refused before the token: the listener is not local to this machine",
        Err(NotACaller::WebPage) => {
            "refused before the token: Origin, Sec-Fetch-* or a Host that is not localhost or a loopback address"
        }
    });
    session
}

fn where_it_stood(credential: &Credential<'_>) -> String {
    match credential.place {
        Place::Bearer => "Authorization: Bearer".to_owned(),
        Place::Header(name) => format!("header {name}"),
        Place::Cookie { name, client_uat } => format!("cookie {name}, with __client_uat {client_uat}"),
    }
}

/// What leaves: headers by name, and the names of cookies that leave a header which stays.
fn removed(before: &HeaderMap, after: &HeaderMap) -> Vec<String> {
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(ToString::to_string);
    let mut gone: Vec<String> = gone.collect();
    let cookies = |headers: &HeaderMap| -> BTreeSet<String> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let names = lines.flat_map(|line| line.split(';')).filter_map(|cookie| Some(cookie.split_once('=')?.0.trim()));
        names.map(str::to_owned).collect()
    };
    if after.contains_key(header::COOKIE) {
        let left = cookies(after);
        gone.extend(
            cookies(before).into_iter().filter(|name| !left.contains(name)).map(|name| format!("cookie {name}")),
        );
    }
    gone.sort();
    gone
}

/// What is put in. Values are never told, only whether there is one.
fn inject(report: &mut Report, admitted: &Admitted<'_, '_>, now: Now) -> Result<(), Error> {
    let plan = admitted.plan;
    let subject = match &admitted.caller {
        Found::Session(credential, remembered) => Some(Subject::Verified { remembered, token: credential.token }),
        Found::Named(named) => Some(Subject::Named(named)),
        Found::Nobody(_) | Found::Preflight => None,
    };
    let preflight = matches!(admitted.caller, Found::Preflight);
    for injection in &plan.route.inject {
        let slot = plan.slots.iter().find(|slot| slot.header == injection.header);
        let (from, expires_in) = described(&injection.source);
        let state = match (&subject, slot, &injection.source) {
            (_, None, _) => Some("a secret that is not set here"),
            _ if preflight => Some("absent: nothing is put into a preflight here"),
            (None, _, Source::Value(_)) | (Some(_), _, Source::Minted(_)) => None,
            (None, ..) => Some("absent: there is no session"),
            (Some(subject), Some(slot), _) => {
                let value = tokens::without_token(slot, &slot.source, subject, now)?;
                let there = value.is_some();
                tokens::push(&mut Injected::new(), slot, value)?;
                (!there).then_some("absent: the session has no such value, or it is not safe in a header")
            }
        };
        report.injected.push(Injection {
            header: injection.header.to_string(),
            prefix: injection.prefix.clone(),
            from,
            expires_in,
            state: state.map(str::to_owned),
        });
    }
    Ok(())
}

fn described(source: &Source) -> (String, Option<u32>) {
    match source {
        Source::Minted(spec) => match &spec.kind {
            MintKind::Template(name) => (format!("token minted from the template {}", name.as_str()), spec.expires_in),
            MintKind::Session => ("session token that is minted".to_owned(), spec.expires_in),
        },
        Source::Claim(claim) => (format!("{} of the session", claim.as_str()), None),
        Source::SessionToken => ("the caller's session token".to_owned(), None),
        Source::Value(_) => ("a fixed secret".to_owned(), None),
    }
}

/// What a token says, for a person to look at; nothing is decided by it.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

// === impl Never ===

impl Mint for Never {
    async fn mint(&self, _: MintRequest) -> Result<Token, MintError> {
        Err(MintError::Timeout)
    }
}
