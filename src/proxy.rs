//! The path of one request, from its head to the last byte of its answer.
//!
//! [`handle`] is the whole of it: [`decide`] its steps 4 to 7 ([`admit`] has 4 to 6), [`prepare`] 8 and 9, [`forward`] 10.
//! The order matters where a comment says so.

pub mod admit;
pub mod aging;
pub mod aim;
pub mod clean;
pub mod copy;
pub mod error;
pub mod finish;
pub mod forward;
pub mod gateway;
pub mod grpc;
pub mod inject;
pub mod opening;
pub mod owner;
pub mod pool;
pub mod refused;
pub mod request;
pub mod retry;
pub mod shown;
pub mod switch;
pub mod tokens;
pub mod upgrade;
pub mod worker;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, Version, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::config::Wire;
use crate::headers;
use crate::listener::connection::Connection;
use crate::listener::rest::Rest;
use crate::metrics::UpstreamId;
use crate::proxy::admit::Found;
use crate::proxy::aging::Waiting;
use crate::proxy::aim::{Aim, Length};
use crate::proxy::clean::Consumed;
use crate::proxy::error::{Asked, Error};
use crate::proxy::finish::{Body, Finish};
use crate::proxy::forward::{Answer, Exchange, Patience};
use crate::proxy::gateway::{Gateway, Plan, Plans};
use crate::proxy::inject::Injected;
use crate::proxy::owner::{Aging, Whose};
use crate::proxy::pool::Pool;
use crate::proxy::pool::exchange::Want;
use crate::proxy::request::Target;
use crate::proxy::retry::Rejectable;
use crate::proxy::switch::Agreed;
use crate::proxy::tokens::Subject;
use crate::proxy::upgrade::handshake::{self, Wish};
use crate::proxy::upgrade::registry::Member;
use crate::proxy::worker::{Snapshot, Worker};
use crate::record::{Outcome, Peer, Record};
use crate::route::RouteError;
use crate::session::SessionError;
use crate::token::{Mint, MintError};
use crate::transport::body::{RequestBody, ResponseBody};

/// What a request may do: the outcome of steps 4 to 7.
#[derive(Debug)]
pub struct Decision<'a> {
    /// The route that it goes.
    pub plan: &'a Plan,
    /// What is put into it.
    pub injected: Injected,
    /// Where its credential stood.
    pub consumed: Consumed,
    /// Whose it is, and until when what is put into it may be sent.
    pub aging: Aging,
}

/// What came of forwarding.
enum Forwarded {
    /// An answer, and when the whole request has to be over.
    Answer(Response<Incoming>, Option<Instant>),
    /// A WebSocket that the upstream has agreed to, and what ends it.
    Tunnel(Box<Agreed>, Box<Member>),
}

/// A request that is ready to be sent: the outcome of steps 4 to 9, beside its head.
struct Ready<'a> {
    plan: &'a Plan,
    upstream: UpstreamId,
    body: RequestBody,
    aim: Aim,
    /// Whether the caller's credential is not what the upstream gets.
    replaced: bool,
    rejectable: Option<Rejectable<'a>>,
    /// Of an upgrade: what will end the tunnel.
    member: Option<Box<Member>>,
}

/// Serves one request. Every way out of it is counted and logged once, by the record.
///
/// The future of every request is moved into its connection, so it is kept small: what is rare is boxed, what is over
/// ends with a block, and this is no `async fn`, which would keep twice what it is given.
#[expect(clippy::manual_async_fn, reason = "an async fn would keep the request twice")]
pub fn handle<M: Mint>(
    worker: Arc<Worker<M>>,
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> {
    async move {
        connection.begin_request();
        // 2. A reload never changes a request that is under way.
        let snapshot = worker.snapshot();
        if *request.method() == Method::CONNECT {
            handshake::extended(&mut request);
        }
        // 3.
        let trusted = snapshot.gateway.plans.trusted.trusts(connection.ends.peer);
        let peer = Peer { address: connection.ends.peer, trusted, scheme: connection.scheme() };
        let record = snapshot.recorder.begin(&request, peer);
        let (asked, wish, rest, mut finish);
        let mut unread = Rest::NONE;
        let forwarded = {
            let (mut head, body) = request.into_parts();
            wish = Wish::of(&mut head, &body).map(Box::new);
            rest = Rest::of(&body);
            asked = Asked::of(&head, &snapshot.gateway.plans.parties);
            finish = Finish::new(record, &connection, asked.grpc && !asked.closes);
            exchange(&worker, &snapshot, &mut finish, head, body, trusted, wish.as_deref())
        };
        let mut answer = match forwarded.await {
            Ok(Forwarded::Answer(answer, deadline)) => {
                let (head, incoming) = answer.into_parts();
                let (ahead, forbidden) = (finish.ahead.take(), &snapshot.gateway.plans.response_trailers);
                let body = ResponseBody::incoming(incoming, ahead, forbidden, finish, deadline);
                Response::from_parts(head, body)
            }
            Ok(Forwarded::Tunnel(agreed, member)) => {
                let Some(wish) = wish else { unreachable!("without a wish nothing is agreed to") };
                return switch::open(&worker, &snapshot, &connection, *wish, *agreed, *member, finish);
            }
            Err(error) => {
                if !finish.has_taken_the_body() {
                    connection.leave_unread(rest);
                    unread = rest;
                }
                refuse(&error, &asked, finish)
            }
        };
        let refused = wish.is_some_and(|wish| switch::refuse(&connection, *wish));
        if refused || connection.says_goodbye(unread) {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

#[expect(clippy::manual_async_fn, reason = "an async fn would keep the head twice")]
fn exchange<'a, M: Mint>(
    worker: &'a Worker<M>,
    snapshot: &'a Snapshot<M>,
    finish: &'a mut Finish,
    mut head: Parts,
    incoming: Incoming,
    trusted: bool,
    wish: Option<&'a Wish>,
) -> impl Future<Output = Result<Forwarded, Error>> {
    async move {
        // 4. to 9.
        let ready = ready(worker, snapshot, finish, &mut head, incoming, trusted, wish).await?;
        let Ready { plan, upstream, body, aim, replaced, rejectable, member } = ready;
        let plans = &snapshot.gateway.plans;
        let pool = snapshot.pool(upstream);
        // 10.
        let whole = plan.route.timeout.map(|limit| finish.record.start() + limit);
        let patience = Patience { response: plan.response_timeout, whole };
        let now = finish.record.upstream_begins(upstream);
        let exchange = Exchange { pool, aim, connection: &finish.connection, fate: finish.body.as_deref(), patience };
        if let (Some(handshake), Some(mut member)) = (wish.and_then(Wish::handshake), member) {
            handshake.ask(&mut head.headers, plan.route.connection_init.is_none());
            request::fits(&head, 0, pool.upstream().max_header_bytes)?;
            let waiting = Waiting::new(&exchange, &snapshot.gateway, plan, worker.clock(), &finish.aging);
            let asked = Box::pin(switch::ask(waiting, handshake, head, &mut member, &mut finish.record));
            return match asked.await? {
                switch::Asked::Agreed(agreed) => Ok(Forwarded::Tunnel(agreed, member)),
                switch::Asked::Refused(answer) => {
                    let response = answered(*answer, finish, plan, plans, replaced);
                    Ok(Forwarded::Answer(response, whole))
                }
            };
        }
        let (mut lease, now) = if let Some(lease) = pool.ready(now) {
            (lease, now)
        } else {
            // What was alive before the wait may not be any more.
            let waiting = Waiting::new(&exchange, &snapshot.gateway, plan, worker.clock(), &finish.aging);
            let (head, record) = (&mut head, &mut finish.record);
            let leased = Box::pin(async move { waiting.lease(Want::Any, head, record).await });
            (leased.await?.0, Instant::now())
        };
        // Which version of HTTP and whose `Host` the head speaks is known only now.
        aim.at(&lease, &mut head)?;
        let (sent, retry, copy) = {
            let mut request = Request::from_parts(head, body);
            let retry = rejectable.and_then(|rejectable| rejectable.keep(&mut request, finish.body.as_ref()));
            let copy = exchange.copy(&request, lease.protocol());
            (lease.send(request), retry, copy)
        };
        let mut answer = match exchange.in_time(sent, now).await? {
            Ok(response) => exchange.accept(response, lease)?,
            Err(error) => {
                // Before another one is asked for: it may hold the last place among `max_connections`.
                drop(lease);
                let waiting = Waiting::new(&exchange, &snapshot.gateway, plan, worker.clock(), &finish.aging);
                let record = &mut finish.record;
                Box::pin(async move { waiting.send_again(*error, copy, record).await }).await?
            }
        };
        if let Some(retry) = retry.filter(|retry| retry.may_be_refusal(&answer.response)) {
            let waiting = Waiting::new(&exchange, &snapshot.gateway, plan, worker.clock(), &finish.aging);
            answer = Box::pin(retry.again(waiting, answer, &mut finish.record)).await?;
        }
        Ok(Forwarded::Answer(answered(answer, finish, plan, plans, replaced), whole))
    }
}

/// Steps 4 to 9: decides about the request, and makes of its head what the upstream gets.
async fn ready<'a, M: Mint>(
    worker: &Worker<M>,
    snapshot: &'a Snapshot<M>,
    finish: &mut Finish,
    head: &mut Parts,
    incoming: Incoming,
    trusted: bool,
    wish: Option<&Wish>,
) -> Result<Ready<'a>, Error> {
    // 4. to 7.
    let target = request::target(head, &incoming, &snapshot.gateway.plans, &finish.connection)?;
    if let Some(fault) = wish.and_then(Wish::fault) {
        return Err(Error::Malformed(fault.0));
    }
    let mut decision = decide(worker, &snapshot.gateway, head, &target, trusted, &mut finish.record).await?;
    // 8. and 9.
    let (plan, host) = (decision.plan, target.host.into_header());
    // Where there is none, step 4 has found no route.
    let upstream = plan.route.upstream.ok_or(RouteError::NoRoute)?;
    let pool = snapshot.pool(upstream);
    let replaced = !matches!(decision.consumed, Consumed::Nothing | Consumed::Any);
    let (body, fate) = RequestBody::streaming(incoming, &plan.body);
    finish.body = fate;
    let length = match &finish.body {
        None => Length::Empty,
        Some(_) if http_body::Body::size_hint(&body).exact().is_some() => Length::Known,
        Some(_) => Length::Unknown,
    };
    let aim = Aim {
        preserve_host: plan.route.preserve_host,
        trailers: !matches!(pool.upstream().wire, Wire::Http1) && request::accepts_trailers(head),
        body: length,
    };
    let session = decision.aging.whose.verified();
    let rejectable = Rejectable::new(plan, session, &head.headers, finish.record.is_degraded());
    let member = wish.and_then(Wish::handshake).and(plan.route.websocket).map(|rules| {
        let (session, now) = (session.map(|session| &**session), worker.clock().now());
        Box::new(opening::member(&snapshot.gateway, plan, rules, session, &mut decision.injected, now))
    });
    if member.is_none() && wish.is_some_and(|wish| wish.is_stream) {
        // As an ordinary request it would open one all the same, with any success.
        return Err(Error::NotSpoken("the route opens no WebSockets"));
    }
    if member.is_none() && plan.route.late_session().is_some() {
        return Err(SessionError::Missing.into());
    }
    if plan.route.show_token {
        let (owner, now) = (decision.aging.whose.owner(), worker.clock().now());
        finish.shown = shown::shown(&snapshot.gateway, plan, owner, now, &finish.record);
    }
    finish.aging = prepare(head, decision, finish, pool, &host, length, trusted)?;
    Ok(Ready { plan, upstream, body, aim, replaced, rejectable, member })
}

/// The upstream's answer as the caller gets it; its connection is kept until both bodies are over.
fn answered(answer: Answer, finish: &mut Finish, plan: &Plan, plans: &Plans, replaced: bool) -> Response<Incoming> {
    let Answer { mut response, ahead, lease } = answer;
    (finish.lease, finish.ahead, finish.aging) = (Some(lease), ahead, Aging::NONE);
    present(response.headers_mut(), plan, plans, replaced);
    if let Some(shown) = finish.shown.take() {
        response.headers_mut().insert(headers::TOKEN, shown);
    }
    // Ours, not the upstream's (RFC 9112 section 2.3); hyper writes what the caller's connection speaks.
    *response.version_mut() = Version::HTTP_11;
    let status = response.status();
    finish.record.responds(Outcome { id: error::upstream_outcome(status), status, reason: None });
    response
}

/// Steps 8 and 9, and the head that the upstream gets, as far as it is the same on every connection.
fn prepare(
    head: &mut Parts,
    decision: Decision<'_>,
    finish: &Finish,
    pool: &Pool,
    host: &HeaderValue,
    length: Length,
    trusted: bool,
) -> Result<Aging, Error> {
    let plan = decision.plan;
    // 8. Before injection: nothing that the caller says may remove what we set.
    plan.cleaner
        .request(&mut head.headers, &decision.consumed, trusted)
        .map_err(|bad| Error::Malformed(bad.reason()))?;
    // 9. Room for these and for what tells who called, made at once.
    head.headers.reserve(decision.injected.len() + 6);
    let injected = decision.injected.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    inject::inject(&mut head.headers, decision.injected);
    head.headers.insert(headers::REQUEST_ID, finish.record.id().to_header());
    if let Some(trace) = finish.record.trace() {
        trace.write(&mut head.headers);
    }
    aim::write(head, &plan.route, pool, &finish.connection, host, trusted, length)?;
    request::fits(head, injected, pool.upstream().max_header_bytes)?;
    Ok(decision.aging)
}

/// The upstream's head as the caller gets it.
fn present(headers: &mut HeaderMap, plan: &Plan, plans: &Plans, replaced: bool) {
    clean::response(headers, &plans.response);
    if let Some(vary) = &plan.vary {
        headers.append(header::VARY, vary.clone());
    }
    if replaced {
        // A shared cache in front sees no credential any more, and would serve one caller's answer to another.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private"));
    }
}

/// Steps 4 to 7: which route, whose session, which tokens. Changes nothing but the record.
///
/// # Errors
/// The first reason not to forward the request.
pub async fn decide<'a, M: Mint>(
    worker: &Worker<M>,
    gateway: &'a Gateway<M>,
    head: &Parts,
    target: &Target<'_>,
    trusted: bool,
    record: &mut Record,
) -> Result<Decision<'a>, Error> {
    // 4. to 6.
    let mut now = worker.clock().at(record.start());
    let admitted = admit::admit(gateway, head, target, trusted, worker.clock(), &mut now, record).await?;
    let plan = admitted.plan;
    let (credential, remembered) = match admitted.caller {
        Found::Session(credential, remembered) => (credential, remembered),
        Found::Named(named) => {
            // Rare, and its future big: boxed, so that the future of every request stays small.
            let subject = Subject::Named(&named);
            let injecting = Box::pin(tokens::injected(gateway, plan, &subject, worker.clock(), now, record));
            let (injected, end) = injecting.await?;
            let aging = Aging { whose: Whose::Named(named), end };
            return Ok(Decision { plan, injected, consumed: Consumed::Other, aging });
        }
        Found::Preflight => {
            return Ok(Decision { plan, injected: Injected::new(), consumed: Consumed::Any, aging: Aging::NONE });
        }
        Found::Nobody(consumed) => {
            return Ok(Decision { plan, injected: tokens::fixed(plan), consumed, aging: Aging::NONE });
        }
    };
    // 7. Tokens.
    let subject = Subject::Verified { remembered: &remembered, token: credential.token };
    let (injected, end) = match tokens::injected(gateway, plan, &subject, worker.clock(), now, record).await {
        Err(Error::Mint(MintError::SessionEnded | MintError::Revoked)) if plan.route.clerk_app => {
            let (injected, consumed) = (tokens::fixed(plan), Consumed::Any);
            return Ok(Decision { plan, injected, consumed, aging: Aging::NONE });
        }
        injected => injected?,
    };
    let consumed = admit::consumed(plan, &credential);
    Ok(Decision { plan, injected, consumed, aging: Aging { whose: Whose::Verified(remembered), end } })
}

/// Answers a request that is not forwarded, or whose upstream did not answer.
pub fn refuse(error: &Error, asked: &Asked, mut finish: Box<Finish>) -> Response<Body> {
    refusal(error, asked, &mut finish.record).map(|body| ResponseBody::full(body, finish))
}

/// The same answer for whoever passes it on.
pub fn refusal(error: &Error, asked: &Asked, record: &mut Record) -> Response<Bytes> {
    let code = error.code();
    record.cause(error);
    record.responds(Outcome { id: code.outcome(), status: code.status(), reason: error.reason() });
    let request_id = record.id().to_string();
    error.answer(asked, &request_id)
}
