//! What ages in a request while it waits for a connection: judged again after the wait, and renewed where it is over.
//!
//! Tokens are judged at step 7. Where `max_connections` are in use, or a connection has to be opened first, the head is
//! written long after that. Who need not wait comes to none of this.

use http::request::Parts;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{OnMintError, Route};
use crate::proxy::copy::Copy;
use crate::proxy::error::Error;
use crate::proxy::forward::{Answer, Exchange};
use crate::proxy::gateway::{Gateway, Plan};
use crate::proxy::inject::{Slot, SlotSource};
use crate::proxy::owner::Aging;
use crate::proxy::pool::Lease;
use crate::proxy::pool::exchange::{SendError, Want};
use crate::proxy::request;
use crate::proxy::tokens;
use crate::record::Record;
use crate::token::freshness::Border;
use crate::token::{Mint, MintError};

/// A request that waits for a connection.
#[derive(Debug)]
pub struct Waiting<'a, M: Mint> {
    /// Its way to the upstream.
    pub exchange: &'a Exchange<'a>,
    /// Has the tokens.
    pub gateway: &'a Gateway<M>,
    /// Its route.
    pub plan: &'a Plan,
    /// By which it is judged.
    pub clock: &'a Clock,
    /// What ages in it.
    pub aging: &'a Aging,
}

// === impl Waiting ===

impl<'a, M: Mint> Waiting<'a, M> {
    /// Made where a request has to wait, so that the future of every request stays small.
    pub fn new(
        exchange: &'a Exchange<'a>,
        gateway: &'a Gateway<M>,
        plan: &'a Plan,
        clock: &'a Clock,
        aging: &'a Aging,
    ) -> Self {
        Self { exchange, gateway, plan, clock, aging }
    }

    /// A connection, waited for; the head is then as alive as it was before. Says whether it had to be renewed for that.
    ///
    /// # Errors
    /// Where there is no connection, or nothing that is alive, or whose it is was revoked meanwhile.
    pub async fn lease(&self, want: Want, head: &mut Parts, record: &mut Record) -> Result<(Lease, bool), Error> {
        let lease = self.exchange.lease(want).await?;
        let revoked = &self.gateway.sessions.revoked;
        if self.aging.whose.owner().is_some_and(|owner| owner.is_revoked(revoked, Instant::now())) {
            return Err(MintError::Revoked.into());
        }
        let renewed = self.renew(head, record).await?;
        Ok((lease, renewed))
    }

    /// Sends a request again, once, on a new connection, where [`Exchange::again`] says that it may be.
    ///
    /// # Errors
    /// What the first attempt met, where that is not safe; else what the second one meets.
    pub async fn send_again(&self, error: SendError, copy: Option<Copy>, record: &mut Record) -> Result<Answer, Error> {
        let (mut head, body) = self.exchange.again(error, copy)?;
        let (lease, _) = self.lease(Want::New, &mut head, record).await?;
        Ok(self.exchange.send_last(lease, head, body).await?)
    }

    /// Puts into the head what is alive in the place of what is not any more, minted anew where nobody else has done so,
    /// or takes it out where the route wants that; says whether there was need. The connection is held meanwhile: at the
    /// end of the line the next token would grow old as well.
    ///
    /// # Errors
    /// Where the route wants an error instead. Then nothing is sent.
    pub async fn renew(&self, head: &mut Parts, record: &mut Record) -> Result<bool, Error> {
        if !self.is_over(self.aging.end) {
            return Ok(false);
        }
        let Self { plan, gateway, .. } = self;
        let whole = self.exchange.patience.whole;
        let origin = record.origin();
        let found =
            tokens::minted(gateway, &plan.slots, self.aging.whose.owner(), self.clock, whole, origin.as_deref()).await;
        let (mut end, mut ours) = (None, 0);
        for (slot, found) in found {
            let token = match found {
                Some((_, Ok(token))) => {
                    end = Border::first(end, gateway.tokens.end(&token));
                    Some(tokens::value_of(slot, &token)?)
                }
                Some((_, Err(error))) => {
                    without(&plan.route, error)?;
                    record.degraded();
                    None
                }
                // The head has it, or had none.
                None => head.headers.get(&slot.header).filter(|_| self.stays(slot)).cloned(),
            };
            match token {
                Some(value) => {
                    ours += slot.header.as_str().len() + value.len() + 4;
                    head.headers.insert(slot.header.clone(), value);
                }
                None if slot.required => return Err(tokens::absent()),
                None => drop(head.headers.remove(&slot.header)),
            }
        }
        // One of them took so long that another is over: there is no end to that.
        if self.is_over(end) {
            return Err(MintError::Timeout.into());
        }
        request::fits(head, ours, self.exchange.pool.upstream().max_header_bytes)?;
        tracing::debug!(route = plan.route.name, "tokens were renewed after a wait for a connection");
        Ok(true)
    }

    /// Whether what needs no mint may still be sent: all but a session token that has expired.
    fn stays(&self, slot: &Slot) -> bool {
        let over = || self.aging.whose.owner().is_some_and(|owner| owner.has_expired(self.clock.wall()));
        !matches!(slot.source, SlotSource::SessionToken) || !over()
    }

    fn is_over(&self, end: Option<Border>) -> bool {
        end.is_some_and(|end| end.reached(self.clock.at(Instant::now())))
    }
}

/// Whether the route lets a request go on without this token. The session token that `session` puts in its place is not
/// at hand any more: the issuer's failure is the answer.
fn without(route: &Route, error: MintError) -> Result<(), Error> {
    let passes = route.on_mint_error == OnMintError::Pass && tokens::is_issuers_failure(&error);
    if passes { Ok(()) } else { Err(error.into()) }
}
