//! Step 7: what a route injects for one session.
//!
//! What is in memory is taken in one pass; only what is not there is waited for, all of it at once.

use std::sync::Arc;

use futures_util::future::join_all;
use http::HeaderValue;
use tokio::time::Instant;

use crate::clock::{Clock, Now, Wall};
use crate::config::{MintSpec, OnMintError};
use crate::metrics::Lookup;
use crate::proxy::error::Error;
use crate::proxy::gateway::{Gateway, Plan};
use crate::proxy::inject::{Injected, Slot, SlotSource};
use crate::proxy::owner::Owner;
use crate::record::Record;
use crate::session::Session;
use crate::session::credential::TokenText;
use crate::session::memory::Remembered;
use crate::session::named::Named;
use crate::token::freshness::{Border, Freshness};
use crate::token::spent::Spent;
use crate::token::{Mint, MintError, MintRequest, Token, TokenKey, Urgency};
use crate::traces::mint::Origin;

/// For whom values are injected.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A verified session.
    Verified {
        /// What was verified.
        remembered: &'a Remembered,
        /// Its token, as the caller sent it.
        token: TokenText<'a>,
    },
    /// One that a trusted program names: it has tokens, and no values of its own.
    Named(&'a Named),
}

impl<'a> Subject<'a> {
    fn owner(&self) -> Owner<'a> {
        match self {
            Self::Verified { remembered, .. } => Owner::Verified(remembered),
            Self::Named(named) => Owner::Named(named),
        }
    }
}

/// What a route injects where there is no session: fixed values alone.
pub fn fixed(plan: &Plan) -> Injected {
    let values = plan.slots.iter().filter_map(|slot| match &slot.source {
        SlotSource::Value(value) => Some((slot.header.clone(), value.clone())),
        SlotSource::Token { .. } | SlotSource::Claim { .. } | SlotSource::SessionToken => None,
    });
    values.collect()
}

/// What a route injects for a session, and when the first of it is not to be sent any more.
///
/// # Errors
/// The first injection that fails and may not be left out.
pub async fn injected<M: Mint>(
    gateway: &Gateway<M>,
    plan: &Plan,
    subject: &Subject<'_>,
    clock: &Clock,
    now: Now,
    record: &mut Record,
) -> Result<(Injected, Option<Border>), Error> {
    let (mut injected, mut first, owner) = (Injected::new(), None, subject.owner());
    for slot in &plan.slots {
        let (value, end) = match &slot.source {
            SlotSource::Token { spec, key } => {
                let key = owner.key(gateway.issuer, *key, spec);
                let Some((token, freshness, end)) = gateway.tokens.get_lasting(key, now) else {
                    // Rare beside the hits, and big: boxed, so that the future of every request stays small.
                    return Box::pin(injected_after_mint(gateway, plan, subject, clock, record)).await;
                };
                if owner.is_revoked_users(&token, &gateway.sessions.revoked, now.mono) {
                    return Err(MintError::Revoked.into());
                }
                if freshness == Freshness::RefreshDue {
                    let asked = request(gateway, owner.issued_at(), spec, key, now);
                    gateway.tokens.refresh(MintRequest { trace: record.origin(), ..asked }, &gateway.mint);
                }
                (Some(value_of(slot, &token)?), Some(end))
            }
            other => aging(without_token(slot, other, subject, now)?, other, owner, now),
        };
        first = Border::first(first, end);
        push(&mut injected, slot, value)?;
    }
    if plan.slots.iter().any(|slot| matches!(slot.source, SlotSource::Token { .. })) {
        record.looked_up(Lookup::Hit);
    }
    Ok((injected, first))
}

/// A value that was not minted, with its end: of these a session token alone has one.
fn aging(
    value: Option<HeaderValue>,
    source: &SlotSource,
    owner: Owner<'_>,
    now: Now,
) -> (Option<HeaderValue>, Option<Border>) {
    let end = matches!(source, SlotSource::SessionToken) && value.is_some();
    (value, end.then(|| owner.end(now)).flatten())
}

/// Waits for every token that is not in memory, all at once, and judges every value by the time after the wait: what was
/// alive before it may not be any more.
async fn injected_after_mint<M: Mint>(
    gateway: &Gateway<M>,
    plan: &Plan,
    subject: &Subject<'_>,
    clock: &Clock,
    record: &mut Record,
) -> Result<(Injected, Option<Border>), Error> {
    record.waits_for_tokens();
    let origin = record.origin();
    let found = minted(gateway, &plan.slots, Some(subject.owner()), clock, None, origin.as_deref()).await;
    let (now, owner) = (clock.now(), subject.owner());
    let (mut injected, mut first) = (Injected::new(), None);
    for (slot, found) in found {
        let (value, end) = match found {
            None => aging(without_token(slot, &slot.source, subject, now)?, &slot.source, owner, now),
            Some((lookup, minted)) => {
                record.looked_up(lookup);
                match minted {
                    Ok(token) => (Some(value_of(slot, &token)?), gateway.tokens.end(&token)),
                    Err(error) => {
                        let value = instead_of_token(plan, slot, error, subject, now, record)?;
                        aging(value, &SlotSource::SessionToken, owner, now)
                    }
                }
            }
        };
        first = Border::first(first, end);
        push(&mut injected, slot, value)?;
    }
    Ok((injected, first))
}

/// Every token of these slots, out of memory or minted, waited for all at once, until `whole` at most; `None` for what is no
/// token. What has died while others were waited for is asked for once more.
pub async fn minted<'a, M: Mint>(
    gateway: &Gateway<M>,
    slots: &'a [Slot],
    owner: Option<Owner<'_>>,
    clock: &Clock,
    whole: Option<Instant>,
    origin: Option<&Origin>,
) -> Vec<(&'a Slot, Option<(Lookup, Result<Arc<Token>, MintError>)>)> {
    let begun = clock.now();
    let asked = |slot: &Slot| {
        let SlotSource::Token { spec, key } = &slot.source else { return None };
        let owner = owner?;
        let mut asked = request(gateway, owner.issued_at(), spec, owner.key(gateway.issuer, *key, spec), begun);
        asked.deadline = whole.map_or(asked.deadline, |end| asked.deadline.min(end));
        asked.trace = origin.cloned().map(Box::new);
        Some(asked)
    };
    let waits = slots.iter().map(|slot| async move {
        match asked(slot) {
            None => (slot, None),
            Some(asked) => (slot, Some(gateway.tokens.get(asked, &gateway.mint).await)),
        }
    });
    let mut found = join_all(waits).await;
    for (slot, found) in &mut found {
        let Some((lookup, Ok(token))) = found else { continue };
        if (*lookup == Lookup::Hit || gateway.tokens.is_dead(token))
            && let Some(asked) = asked(slot)
        {
            let (_, again) = gateway.tokens.get(asked, &gateway.mint).await;
            *found = Some((*lookup, again));
        }
    }
    // Who was revoked during the wait is given nothing, whenever the mint began.
    let (Some(owner), revoked, now) = (owner, &gateway.sessions.revoked, clock.now().mono) else { return found };
    let all = owner.is_revoked(revoked, now);
    for (_, minted) in found.iter_mut().filter_map(|(_, found)| found.as_mut()) {
        if all || minted.as_ref().is_ok_and(|token| owner.is_revoked_users(token, revoked, now)) {
            *minted = Err(MintError::Revoked);
        }
    }
    found
}

/// A value that needs no mint; none for a token.
///
/// # Errors
/// When the session token cannot stand in a header.
pub fn without_token(
    slot: &Slot,
    source: &SlotSource,
    subject: &Subject<'_>,
    now: Now,
) -> Result<Option<HeaderValue>, Error> {
    match source {
        SlotSource::Claim { claim, value } => {
            let Subject::Verified { remembered, .. } = subject else { return Ok(None) };
            let made = |session: &Session| slot.prefix.text(&session.value(claim)?).ok();
            Ok(remembered.value(*value, made).cloned())
        }
        SlotSource::SessionToken => session_token(slot, subject, now),
        SlotSource::Value(value) => Ok(Some(value.clone())),
        SlotSource::Token { .. } => Ok(None),
    }
}

/// What the route wants where the issuer gave no token.
fn instead_of_token(
    plan: &Plan,
    slot: &Slot,
    error: MintError,
    subject: &Subject<'_>,
    now: Now,
    record: &mut Record,
) -> Result<Option<HeaderValue>, Error> {
    if !is_issuers_failure(&error) {
        return Err(error.into());
    }
    match plan.route.on_mint_error {
        OnMintError::Fail => Err(error.into()),
        OnMintError::Pass => {
            record.degraded();
            Ok(None)
        }
        OnMintError::Session => {
            record.degraded();
            session_token(slot, subject, now)
        }
    }
}

/// What `on_mint_error` covers: the issuer's failures, never what the user has to know.
pub fn is_issuers_failure(error: &MintError) -> bool {
    match error {
        MintError::TemplateUnknown
        | MintError::RejectedKey
        | MintError::Unavailable { .. }
        | MintError::Timeout
        | MintError::Malformed(_)
        | MintError::Refused(_)
        | MintError::Throttled { .. } => true,
        MintError::SessionEnded | MintError::Unfit | MintError::Revoked | MintError::Stale => false,
    }
}

/// When the first of the minted tokens that a route injects expires, on both clocks; for a connection that outlives its
/// request. A token that was renewed meanwhile takes the place of the one that was injected, so that this is the expiry
/// of what is sent. Where the session token stands in for one, its expiry counts. `None`: none of them tells its `exp`.
pub fn first_expiry<M: Mint>(
    gateway: &Gateway<M>,
    plan: &Plan,
    remembered: &Remembered,
    injected: &mut Injected,
    now: Now,
) -> Option<Border> {
    let (mut first, owner) = (None, Owner::Verified(remembered));
    for slot in &plan.slots {
        let SlotSource::Token { spec, key } = &slot.source else { continue };
        let Some((token, _)) = gateway.tokens.get_fresh(owner.key(gateway.issuer, *key, spec), now) else {
            if plan.route.on_mint_error == OnMintError::Session {
                first = Border::first(first, owner.end(now));
            }
            continue;
        };
        let (Some(lifetime), Some(expires_at)) = (token.lifetime, token.expires_at) else { continue };
        let Some((_, value)) = injected.iter_mut().find(|(name, _)| *name == slot.header) else { continue };
        let (Ok(sent), Some(mono)) = (value_of(slot, &token), token.sent_at.checked_add(lifetime)) else { continue };
        *value = sent;
        let wall = expires_at.shifted(token.offset_ms.saturating_neg());
        first = Border::first(first, Some(Border { mono, wall }));
    }
    first
}

/// Adds a value, or finds that it must not be absent.
///
/// # Errors
/// When a required one is.
pub fn push(injected: &mut Injected, slot: &Slot, value: Option<HeaderValue>) -> Result<(), Error> {
    match value {
        Some(value) => injected.push((slot.header.clone(), value)),
        None if slot.required => return Err(absent()),
        None => {}
    }
    Ok(())
}

/// What a request ends with where a required value is absent.
pub fn absent() -> Error {
    Error::Unfit("a required value is absent or not safe in a header")
}

/// What the header of this slot says with a token.
///
/// # Errors
/// When the two together cannot stand in a header.
pub fn value_of(slot: &Slot, token: &Arc<Token>) -> Result<HeaderValue, Error> {
    slot.prefix.token(token).map_err(|_| MintError::Unfit.into())
}

/// The caller's own token, while it is unexpired: the tolerance that verification has is not the upstream's.
fn session_token(slot: &Slot, subject: &Subject<'_>, now: Now) -> Result<Option<HeaderValue>, Error> {
    let Subject::Verified { remembered, token } = subject else { return Ok(None) };
    if remembered.session.expires_at <= now.wall {
        return Ok(None);
    }
    let value = slot.prefix.text(token.as_str());
    value.map(Some).map_err(|_| Error::Unfit("the session token cannot stand in a header"))
}

/// What the cache is asked for one injection.
pub fn request<M: Mint>(
    gateway: &Gateway<M>,
    credential_issued_at: Option<Wall>,
    spec: &MintSpec,
    key: &TokenKey,
    now: Now,
) -> MintRequest {
    MintRequest {
        key: key.clone(),
        template: spec.id,
        urgency: Urgency::Waiting,
        forced: false,
        credential_issued_at,
        spent: Spent::default(),
        deadline: now.mono + gateway.mint_timeout,
        trace: None,
    }
}
