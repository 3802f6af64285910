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
use crate::record::Record;
use crate::session::Session;
use crate::session::credential::TokenText;
use crate::session::memory::Remembered;
use crate::session::named::Named;
use crate::token::freshness::Freshness;
use crate::token::{Issuer, Mint, MintError, MintRequest, Scope, Token, TokenKey, Urgency};

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

impl Subject<'_> {
    /// When its credential was issued.
    fn issued_at(&self) -> Option<Wall> {
        match self {
            Self::Verified { remembered, .. } => remembered.session.issued_at,
            Self::Named(_) => None,
        }
    }

    /// What the token of this slot is kept under. A session that is only named shares nothing with one that was verified.
    fn key(&self, issuer: Issuer, slot: usize, spec: &MintSpec) -> &TokenKey {
        match self {
            Self::Verified { remembered, .. } => {
                remembered.token_key(slot, |session| TokenKey::of(issuer, session, spec))
            }
            Self::Named(named) => {
                named.token_key(slot, |sid| TokenKey::new(issuer, sid.clone(), None, spec, Scope::Neutral, Vec::new()))
            }
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

/// What a route injects for a session.
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
) -> Result<Injected, Error> {
    let mut injected = Injected::new();
    for slot in &plan.slots {
        let value = match &slot.source {
            SlotSource::Token { spec, key } => {
                let key = subject.key(gateway.issuer, *key, spec);
                let Some((token, freshness)) = gateway.tokens.get_fresh(key, now) else {
                    // Rare beside the hits, and big: boxed, so that the future of every request stays small.
                    return Box::pin(injected_after_mint(gateway, plan, subject, clock, record)).await;
                };
                if freshness == Freshness::RefreshDue {
                    gateway.tokens.refresh(request(gateway, subject.issued_at(), spec, key, now), &gateway.mint);
                }
                Some(value_of(slot, &token)?)
            }
            other => without_token(slot, other, subject, now)?,
        };
        push(&mut injected, slot, value)?;
    }
    if plan.slots.iter().any(|slot| matches!(slot.source, SlotSource::Token { .. })) {
        record.looked_up(Lookup::Hit);
    }
    Ok(injected)
}

/// Waits for every token that is not in memory, all at once, and judges every value by the time after the wait: what was
/// alive before it may not be any more.
async fn injected_after_mint<M: Mint>(
    gateway: &Gateway<M>,
    plan: &Plan,
    subject: &Subject<'_>,
    clock: &Clock,
    record: &mut Record,
) -> Result<Injected, Error> {
    let begun = clock.now();
    let waits = plan.slots.iter().map(|slot| async move {
        let SlotSource::Token { spec, key } = &slot.source else { return (slot, None) };
        let key = subject.key(gateway.issuer, *key, spec);
        let asked = request(gateway, subject.issued_at(), spec, key, begun);
        (slot, Some((asked.clone(), gateway.tokens.get(asked, &gateway.mint).await)))
    });
    let found = join_all(waits).await;
    let now = clock.now();
    let mut injected = Injected::new();
    for (slot, found) in found {
        let value = match found {
            None => without_token(slot, &slot.source, subject, now)?,
            Some((asked, (lookup, minted))) => {
                record.looked_up(lookup);
                // A hit may have died while others were waited for.
                let minted = match lookup {
                    Lookup::Hit => gateway.tokens.get(asked, &gateway.mint).await.1,
                    _ => minted,
                };
                match minted {
                    Ok(token) => Some(value_of(slot, &token)?),
                    Err(error) => instead_of_token(plan, slot, error, subject, clock.now(), record)?,
                }
            }
        };
        push(&mut injected, slot, value)?;
    }
    Ok(injected)
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
fn is_issuers_failure(error: &MintError) -> bool {
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
) -> Option<(Instant, Wall)> {
    let mut first: Option<(Instant, Wall)> = None;
    let mut expires = |mono: Instant, wall: Wall| {
        first = Some(first.map_or((mono, wall), |(a, b)| (a.min(mono), b.min(wall))));
    };
    for slot in &plan.slots {
        let SlotSource::Token { spec, key } = &slot.source else { continue };
        let key = remembered.token_key(*key, |session| TokenKey::of(gateway.issuer, session, spec));
        let Some((token, _)) = gateway.tokens.get_fresh(key, now) else {
            let wall = remembered.session.expires_at;
            if plan.route.on_mint_error == OnMintError::Session
                && let Some(mono) = now.mono.checked_add(wall.since(now.wall))
            {
                expires(mono, wall);
            }
            continue;
        };
        let (Some(lifetime), Some(expires_at)) = (token.lifetime, token.expires_at) else { continue };
        let Some((_, value)) = injected.iter_mut().find(|(name, _)| *name == slot.header) else { continue };
        let (Ok(sent), Some(mono)) = (value_of(slot, &token), token.sent_at.checked_add(lifetime)) else { continue };
        *value = sent;
        expires(mono, expires_at.shifted(token.offset_ms.saturating_neg()));
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
        None if slot.required => return Err(Error::Unfit("a required value is absent or not safe in a header")),
        None => {}
    }
    Ok(())
}

fn value_of(slot: &Slot, token: &Arc<Token>) -> Result<HeaderValue, Error> {
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
        deadline: now.mono + gateway.mint_timeout,
    }
}
