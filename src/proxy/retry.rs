//! A request whose minted token is refused: the token is replaced, and the request sent once more.
//!
//! Only the token that was sent is replaced, only when it is old enough to be at fault, and by at most one forced mint of
//! its key in 10 s; the cache decides that ([`TokenCache::replace`](crate::token::cache::TokenCache::replace)). Where no
//! better token is to be had, or the request's body cannot be sent again, the refusal is the answer.
//!
//! Where the answer's body has to say so, its beginning is held back until it is known: a bounded number of bytes, for a
//! bounded time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{JsonMatch, RetryRejected};
use crate::proxy::aging::Waiting;
use crate::proxy::copy::Copy;
use crate::proxy::error::Error;
use crate::proxy::forward::Answer;
use crate::proxy::gateway::Plan;
use crate::proxy::inject::{Slot, SlotSource};
use crate::proxy::owner::Owner;
use crate::proxy::pool::exchange::Want;
use crate::proxy::upgrade::handshake;
use crate::proxy::{refused, request, tokens};
use crate::record::Record;
use crate::session::memory::Remembered;
use crate::token::{Mint, Token};
use crate::transport::body::ahead::Ahead;
use crate::transport::body::tee::Tee;
use crate::transport::body::{BodyFate, RequestBody};

/// Bytes of a refusal's body that are read so that its connection can serve again.
const DRAINED: usize = 64 * 1024;

/// How long that may take.
const DRAINING: Duration = Duration::from_millis(20);

/// How long an answer is held back whose body may say that a token was refused. One that takes longer streams on.
const HELD: Duration = Duration::from_secs(1);

/// A request whose refusal could be the fault of a token that we have put into it.
#[derive(Debug)]
pub struct Rejectable<'a> {
    rules: &'a RetryRejected,
    plan: &'a Plan,
    session: Arc<Remembered>,
}

/// What is kept of it until its answer's head has come.
#[derive(Debug)]
pub struct Retry<'a> {
    request: Rejectable<'a>,
    copy: Copy,
    /// `None`: it has no body.
    tee: Option<Arc<Tee>>,
}

// === impl Rejectable ===

impl<'a> Rejectable<'a> {
    /// A request of this session, with every minted token of the route in it. A wish for a WebSocket is none: it is
    /// no exchange that could be repeated.
    pub fn new(plan: &'a Plan, session: Option<&Arc<Remembered>>, headers: &HeaderMap, degraded: bool) -> Option<Self> {
        let rules = plan.route.retry_rejected.as_ref()?;
        let minted = plan.slots.iter().any(|slot| matches!(slot.source, SlotSource::Token { .. }));
        let once = degraded || handshake::wishes_websocket(headers);
        session.filter(|_| minted && !once).map(|session| Self { rules, plan, session: Arc::clone(session) })
    }

    /// Keeps what is needed to send it again: its head, and its body while that passes. `None`: the body is known to be
    /// too long. Boxed, so that the future of every request stays small.
    pub fn keep(self, request: &mut Request<RequestBody>, fate: Option<&Arc<BodyFate>>) -> Option<Box<Retry<'a>>> {
        let tee = match fate {
            None => None,
            Some(_) => Some(request.body_mut().tee(self.rules.max_body, &self.plan.kept)?),
        };
        Some(Box::new(Retry { copy: Copy::of(request), tee, request: self }))
    }
}

// === impl Retry ===

impl Retry<'_> {
    /// Whether a token was refused, as the answer's head says; with `json`, whether its body may say so.
    pub fn may_be_refusal(&self, response: &Response<Incoming>) -> bool {
        let rules = self.request.rules;
        rules.statuses.contains(&response.status())
            && rules.json.as_ref().is_none_or(|_| {
                let body = response.body();
                let short = body.size_hint().lower() <= rules.max_body as u64;
                !body.is_end_stream() && short && refused::is_json(response.headers())
            })
    }

    /// The answer to the request with another token, or the one that has come where it is no refusal or there is no better
    /// token.
    ///
    /// # Errors
    /// What the second sending meets.
    pub async fn again<M: Mint>(
        self,
        waiting: Waiting<'_, M>,
        mut refusal: Answer,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let exchange = waiting.exchange;
        let Self { request: Rejectable { plan, session, rules }, copy, tee } = self;
        if tee.as_ref().is_some_and(|tee| !tee.can_be_taken()) {
            return Ok(refusal);
        }
        if let Some(json) = &rules.json {
            let end = Instant::now() + HELD;
            let end = exchange.patience.whole.map_or(end, |whole| whole.min(end));
            if !says(&mut refusal, json, rules.max_body, plan, end).await {
                return Ok(refusal);
            }
        }
        let mut head = copy.into_head();
        let values = values(plan, &session, &head.headers, &waiting, record).await;
        let injected = values.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let none = values.is_empty();
        for (name, value) in values {
            head.headers.insert(name, value);
        }
        if none || request::fits(&head, injected, exchange.pool.upstream().max_header_bytes).is_err() {
            return Ok(refusal);
        }
        // Before the body is taken back: what is left of it will not come on the first connection.
        let whole = exchange.fate.is_none_or(BodyFate::is_whole);
        let body = match tee.map(|tee| tee.take()) {
            None => RequestBody::empty(),
            Some(Some(again)) => RequestBody::again(again),
            // More of it has come meanwhile than is kept.
            Some(None) => return Ok(refusal),
        };
        tracing::debug!(route = plan.route.name, status = %refusal.response.status(), "sent once more with another token");
        record.retried();
        discard(refusal, whole).await;
        let mut lease = match exchange.pool.ready(Instant::now()) {
            Some(lease) => lease,
            None => exchange.lease(Want::Any).await?,
        };
        // What was not replaced has waited for what was, and all of it for the connection.
        waiting.renew(&mut head, record).await?;
        exchange.aim.at(&lease, &mut head)?;
        let request = Request::from_parts(head, body);
        let copy = exchange.copy(&request, lease.protocol());
        let sent = lease.send(request);
        match exchange.in_time(sent, Instant::now()).await? {
            Ok(response) => Ok(exchange.accept(response, lease)?),
            Err(error) => {
                drop(lease);
                waiting.send_again(*error, copy, record).await
            }
        }
    }
}

/// Whether the answer's body says that a token was refused; as far as it was read for that, it passes on all the same.
async fn says(answer: &mut Answer, json: &JsonMatch, limit: usize, plan: &Plan, end: Instant) -> bool {
    let ahead = answer.ahead.insert(Box::new(Ahead::new(&plan.kept)));
    // Too late: there is no whole body then, and what has come of it streams on.
    let _ = timeout_at(end, ahead.read(answer.response.body_mut(), limit)).await;
    ahead.whole().is_some_and(|body| refused::says(body, json))
}

/// The header values that stand in the place of those that were `sent`; none where there is no better token.
async fn values<M: Mint>(
    plan: &Plan,
    session: &Remembered,
    sent: &HeaderMap,
    waiting: &Waiting<'_, M>,
    record: &Record,
) -> Vec<(HeaderName, HeaderValue)> {
    let Waiting { exchange, gateway, .. } = *waiting;
    let now = waiting.clock.now();
    let waits = plan.slots.iter().filter_map(|slot| {
        let SlotSource::Token { spec, key } = &slot.source else { return None };
        let key = Owner::Verified(session).key(gateway.issuer, *key, spec);
        let mut asked = tokens::request(gateway, session.session.issued_at, spec, key, now);
        asked.trace = record.origin();
        asked.deadline = exchange.patience.whole.map_or(asked.deadline, |end| asked.deadline.min(end));
        let sent = sent.get(&slot.header)?;
        let was_sent = move |token: &Token| value(slot, token).is_some_and(|own| own == *sent);
        Some(async move {
            let token = gateway.tokens.replace(asked, was_sent, &gateway.mint).await?;
            Some((slot.header.clone(), value(slot, &token)?))
        })
    });
    join_all(waits).await.into_iter().flatten().collect()
}

fn value(slot: &Slot, token: &Token) -> Option<HeaderValue> {
    slot.prefix.token(token).ok()
}

/// Reads what is left of an answer that nobody gets, so that its connection can serve again; one with more to say, or
/// to take, is closed.
async fn discard(answer: Answer, whole: bool) {
    let Answer { response, lease, .. } = answer;
    let (mut body, mut left) = (response.into_body(), DRAINED);
    let drain = async {
        while let Some(frame) = body.frame().await {
            let bytes = frame.ok()?.into_data().map_or(0, |data| data.len());
            left = left.checked_sub(bytes)?;
        }
        Some(())
    };
    if whole && matches!(timeout(DRAINING, drain).await, Ok(Some(()))) {
        lease.finish(Instant::now());
    }
}
