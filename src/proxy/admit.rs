//! Steps 4 to 6: the route of a request and whose it is, or why it may not go on. Nobody is asked but the keys.

use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::request::Parts;

use crate::clock::{Clock, Now, Wall};
use crate::config::{OnNoSession, Preflight, Route, SessionIdSource};
use crate::metrics::Verdict;
use crate::proxy::clean::Consumed;
use crate::proxy::error::Error;
use crate::proxy::gateway::{Gateway, Plan, VerifyError};
use crate::proxy::request::{self, Carrier, Target};
use crate::proxy::upgrade::handshake;
use crate::record::{Caller, CredentialKind, Record};
use crate::route::RouteError;
use crate::session::credential::{self, Credential, Place};
use crate::session::guard;
use crate::session::memory::Remembered;
use crate::session::named::{self, Named, NotACaller};
use crate::session::tag::Tag;
use crate::session::{Reason, SessionError};
use crate::token::{Mint, MintError};

/// A request that may go its way.
#[derive(Debug)]
pub struct Admitted<'g, 'h> {
    /// The route that it goes.
    pub plan: &'g Plan,
    /// Whose it is.
    pub caller: Found<'h>,
}

/// What step 5 ends with.
#[derive(Debug)]
pub enum Found<'h> {
    /// A credential, and the session that it proves.
    Session(Credential<'h>, Arc<Remembered>),
    /// A session that a trusted program of this machine names.
    Named(Arc<Named>),
    /// The route is public, or lets requests without a session pass.
    Nobody(Consumed),
    /// A preflight to a route on which everything else needs a session.
    Preflight,
}

/// The three steps. `now` is brought up to date where they had to wait.
///
/// # Errors
/// The first reason not to forward the request.
pub async fn admit<'g: 'h, 'h, M: Mint>(
    gateway: &'g Gateway<M>,
    head: &'h Parts,
    target: &Target<'_>,
    trusted: bool,
    clock: &Clock,
    now: &mut Now,
    record: &mut Record,
) -> Result<Admitted<'g, 'h>, Error> {
    // 4. Route: without one, no credential is parsed.
    let (plan, preflight) = find_plan(gateway, head, target)?;
    record.route(plan.route.id, plan.route.log_access);
    if let Some(source) = &plan.route.session_id {
        // Also a preflight: it comes from a browser, which has no business there.
        return Ok(Admitted { plan, caller: name(gateway, plan, source, head, target, *now, record)? });
    }
    if plan.route.late_session().is_some() {
        return Ok(Admitted { plan, caller: later(plan, head, target, trusted, record)? });
    }
    if preflight {
        // A browser sends no credential with a preflight; whoever does so gets it removed. What is injected for who has shown
        // a session is not for who has not.
        let guarded = !plan.route.session.is_empty() && plan.route.on_no_session == OnNoSession::Reject;
        let caller = if guarded { Found::Preflight } else { Found::Nobody(Consumed::Any) };
        return Ok(Admitted { plan, caller });
    }
    // 5. Session.
    let caller = session(gateway, plan, head, clock, now, record).await?;
    // 6. Guard: a browser sends a cookie on its own account, whoever wrote the page.
    if let Found::Session(credential, _) = &caller
        && credential.is_cookie()
    {
        let (upgrade, own) = (handshake::wishes_websocket(&head.headers), target.origin(head, trusted)?);
        guard::check(&head.method, &head.headers, upgrade, own, &plan.route.rules.authorized_parties)
            .map_err(|_| Error::OriginForbidden)?;
    }
    Ok(Admitted { plan, caller })
}

/// Where a credential that was good stood, for the cleaning.
pub fn consumed(plan: &Plan, credential: &Credential<'_>) -> Consumed {
    match credential.place {
        Place::Bearer => Consumed::Authorization,
        Place::Cookie { name, .. } if plan.route.forward_credential => Consumed::KeptCookie(name.into()),
        Place::Cookie { .. } | Place::Header(_) => Consumed::Other,
    }
}

/// Step 4. The flag: a preflight that passes without a session.
///
/// # Errors
/// When no route takes the request.
pub fn find_plan<'a, M: Mint>(
    gateway: &'a Gateway<M>,
    head: &Parts,
    target: &Target<'_>,
) -> Result<(&'a Plan, bool), Error> {
    let plans = &gateway.plans;
    if let Some(method) = request::preflight(head)
        && let Ok(route) = plans.router.find(target.listener, target.host.as_str(), target.path, &method)
        && plans.routes[route.index()].route.preflight == Preflight::Pass
    {
        return Ok((carried(&plans.routes[route.index()], target)?, true));
    }
    let route = plans.router.find(target.listener, target.host.as_str(), target.path, &head.method)?;
    Ok((carried(&plans.routes[route.index()], target)?, false))
}

/// A route that leads nowhere from here is one for the requests alone that a proxy forwards.
fn carried<'a>(plan: &'a Plan, target: &Target<'_>) -> Result<&'a Plan, RouteError> {
    if plan.route.upstream.is_none() && target.carrier != Carrier::Proxy {
        return Err(RouteError::NoRoute);
    }
    Ok(plan)
}

/// Step 5.
async fn session<'a, M: Mint>(
    gateway: &'a Gateway<M>,
    plan: &'a Plan,
    head: &'a Parts,
    clock: &Clock,
    now: &mut Now,
    record: &mut Record,
) -> Result<Found<'a>, Error> {
    let route = &plan.route;
    if route.session.is_empty() {
        return Ok(Found::Nobody(Consumed::Nothing));
    }
    let from_cookie;
    // In a function of its own, so that nothing of it waits with the request.
    let verified = match find(gateway, route, &head.headers, now.wall) {
        Err(error) => {
            // Only a cookie can be found and be out of date before it is verified.
            from_cookie = error == SessionError::Invalid(Reason::OutdatedCookie);
            Err(error.into())
        }
        Ok((credential, tag)) => {
            from_cookie = credential.is_cookie();
            record.credential(kind(credential.place));
            gateway.verify(&credential, tag, plan, clock, now).await.map(|remembered| (credential, remembered))
        }
    };
    match verified {
        Ok((credential, remembered)) => {
            record.verdict(Verdict::Valid);
            let caller: Arc<dyn Caller> = Arc::<Remembered>::clone(&remembered);
            record.caller(caller);
            Ok(Found::Session(credential, remembered))
        }
        Err(error @ (VerifyError::NoKeys | VerifyError::KeyRejected)) => Err(judged(error, record)),
        Err(VerifyError::Session(error)) => {
            record.verdict(error.verdict());
            let consumed = match error {
                // Good, and not wanted: to let it pass as nobody would be to let it pass.
                SessionError::Forbidden => None,
                _ if route.clerk_app => Some(left_to_the_application(error, &head.headers)),
                SessionError::Missing => Some(Consumed::Nothing),
                // A browser always carries a cookie, also one that has run out: that counts as none.
                SessionError::Expired | SessionError::Invalid(Reason::OutdatedCookie) if from_cookie => {
                    Some(Consumed::Nothing)
                }
                _ => None,
            };
            match consumed {
                Some(consumed) if route.on_no_session == OnNoSession::Pass => Ok(Found::Nobody(consumed)),
                _ => Err(error.into()),
            }
        }
    }
}

/// Why a credential proves no session, recorded.
pub fn judged(error: VerifyError, record: &mut Record) -> Error {
    match error {
        VerifyError::Session(error) => {
            record.verdict(error.verdict());
            error.into()
        }
        VerifyError::NoKeys => {
            record.settled();
            Error::NoKeys
        }
        VerifyError::KeyRejected => {
            record.settled();
            MintError::RejectedKey.into()
        }
    }
}

/// Steps 5 and 6 where the session comes in the first message of a WebSocket: nothing but the wish for one passes, and from
/// a page only where the page is trusted, as it would have to be for a cookie. The upgrade gets nothing of a session.
fn later(
    plan: &Plan,
    head: &Parts,
    target: &Target<'_>,
    trusted: bool,
    record: &mut Record,
) -> Result<Found<'static>, Error> {
    // What a proxy forwards is nothing whose messages come by here.
    if target.carrier == Carrier::Proxy || !handshake::wishes_websocket(&head.headers) {
        record.verdict(Verdict::Missing);
        return Err(SessionError::Missing.into());
    }
    if head.headers.contains_key(header::ORIGIN) {
        let parties = &plan.route.rules.authorized_parties;
        guard::check(&head.method, &head.headers, true, target.origin(head, trusted)?, parties)
            .map_err(|_| Error::OriginForbidden)?;
    }
    Ok(Found::Nobody(Consumed::Any))
}

fn find<'a, M: Mint>(
    gateway: &Gateway<M>,
    route: &'a Route,
    headers: &'a HeaderMap,
    now: Wall,
) -> Result<(Credential<'a>, Tag), SessionError> {
    let sessions = &gateway.sessions;
    let read = sessions.memory.read_in(gateway.number);
    let found = credential::find(headers, &route.session, &sessions.cookies, now, &read)?;
    let tag = found.tag.unwrap_or_else(|| sessions.memory.tag(found.credential.token.as_bytes()));
    Ok((found.credential, tag))
}

/// What a Clerk application may get of a credential that is not good. Its SDK judges for itself, so all of it, unless the
/// SDK could believe what is revoked here, or what could not be judged here because the SDK reads it more leniently: it
/// takes a bare token, padding, escaped cookies, and the first of two (contract section 3.3).
fn left_to_the_application(error: SessionError, headers: &HeaderMap) -> Consumed {
    match error {
        // Clerk's SDK asks nobody about a token that has not expired.
        SessionError::Revoked | SessionError::Ambiguous | SessionError::Invalid(Reason::Malformed) => Consumed::Any,
        SessionError::Invalid(Reason::OutdatedCookie) if !credential::client_uat_is_plain(headers) => Consumed::Any,
        _ => Consumed::Nothing,
    }
}

/// Steps 5 and 6 for a session that is only named: nobody verifies it, so the caller must be one that may name it.
fn name<M: Mint>(
    gateway: &Gateway<M>,
    plan: &Plan,
    source: &SessionIdSource,
    head: &Parts,
    target: &Target<'_>,
    now: Now,
    record: &mut Record,
) -> Result<Found<'static>, Error> {
    // What a proxy forwards may come from anywhere, whatever this machine's listeners are bound to.
    let Carrier::Gateway(local) = target.carrier else { return Err(NotACaller::NotLocal.into()) };
    named::admit(&head.headers, target.host.as_str(), local, source)?;
    let found = named::find(&head.headers, source).and_then(|sid| {
        record.credential(CredentialKind::SessionId);
        if gateway.sessions.revoked.refuses(&sid, None, now.mono) { Err(SessionError::Revoked) } else { Ok(sid) }
    });
    match found {
        Ok(sid) => {
            record.verdict(Verdict::Unverified);
            let named = Arc::new(Named::new(sid, gateway.plans.slots.keys));
            let caller: Arc<dyn Caller> = Arc::<Named>::clone(&named);
            record.caller(caller);
            Ok(Found::Named(named))
        }
        Err(error) => {
            record.verdict(error.verdict());
            let none = error == SessionError::Missing && plan.route.on_no_session == OnNoSession::Pass;
            if none { Ok(Found::Nobody(Consumed::Nothing)) } else { Err(error.into()) }
        }
    }
}

fn kind(place: Place<'_>) -> CredentialKind {
    match place {
        Place::Bearer => CredentialKind::Bearer,
        Place::Header(_) => CredentialKind::Header,
        Place::Cookie { .. } => CredentialKind::Cookie,
    }
}
