//! Step 7: what a route injects for one session.
//!
//! What is in memory is taken in one pass; only what is not there is waited for, all of it at once.

use std::sync::Arc;

use futures_util::future::join_all;
use http::HeaderValue;

use crate::clock::Now;
use crate::config::{MintSpec, OnMintError};
use crate::metrics::Lookup;
use crate::proxy::error::Error;
use crate::proxy::gateway::{Gateway, Plan};
use crate::proxy::inject::{Injected, Slot, SlotSource};
use crate::record::Record;
use crate::session::Session;
use crate::session::memory::Remembered;
use crate::token::freshness::Freshness;
use crate::token::{Mint, MintError, MintRequest, Scope, Token, TokenKey, Urgency};

/// For whom values are injected.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The verified session.
    pub remembered: &'a Remembered,
    /// Its token, as the caller sent it.
    pub token: &'a str,
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
    now: Now,
    record: &mut Record,
) -> Result<Injected, Error> {
    let mut injected = Injected::new();
    let mut absent: Vec<(&Slot, MintRequest)> = Vec::new();
    for slot in &plan.slots {
        let value = match &slot.source {
            SlotSource::Token { spec, key } => {
                let key = subject.remembered.token_key(*key, |session| token_key(gateway, session, spec));
                let Some((token, freshness)) = gateway.tokens.get_fresh(key, now) else {
                    absent.push((slot, request(gateway, subject, spec, key, now)));
                    continue;
                };
                if freshness == Freshness::RefreshDue {
                    gateway.tokens.refresh(request(gateway, subject, spec, key, now), &gateway.mint);
                }
                record.looked_up(Lookup::Hit);
                Some(value_of(slot, &token)?)
            }
            SlotSource::Claim { claim, value } => {
                let made = |session: &Session| slot.prefix.text(&session.value(claim)?).ok();
                subject.remembered.value(*value, made).cloned()
            }
            SlotSource::SessionToken => session_token(slot, subject, now)?,
            SlotSource::Value(value) => Some(value.clone()),
        };
        push(&mut injected, slot, value)?;
    }
    if !absent.is_empty() {
        // Rare beside the hits, and big: boxed, so that the future of every request stays small.
        Box::pin(mint_all(gateway, plan, subject, absent, now, record, &mut injected)).await?;
    }
    Ok(injected)
}

/// Waits for every token that is not in memory, all at once.
async fn mint_all<M: Mint>(
    gateway: &Gateway<M>,
    plan: &Plan,
    subject: &Subject<'_>,
    absent: Vec<(&Slot, MintRequest)>,
    now: Now,
    record: &mut Record,
    injected: &mut Injected,
) -> Result<(), Error> {
    let waits = absent.into_iter().map(|(slot, request)| async move {
        let (lookup, minted) = gateway.tokens.get(request, &gateway.mint).await;
        (slot, lookup, minted)
    });
    for (slot, lookup, minted) in join_all(waits).await {
        record.looked_up(lookup);
        let value = match minted {
            Ok(token) => Some(value_of(slot, &token)?),
            Err(error) if !is_issuers_failure(&error) => return Err(error.into()),
            Err(error) => match plan.route.on_mint_error {
                OnMintError::Fail => return Err(error.into()),
                OnMintError::Pass => {
                    record.degraded();
                    None
                }
                OnMintError::Session => {
                    record.degraded();
                    session_token(slot, subject, now)?
                }
            },
        };
        push(injected, slot, value)?;
    }
    Ok(())
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
        MintError::SessionEnded | MintError::Unfit | MintError::Revoked => false,
    }
}

fn push(injected: &mut Injected, slot: &Slot, value: Option<HeaderValue>) -> Result<(), Error> {
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
    if subject.remembered.session.expires_at <= now.wall {
        return Ok(None);
    }
    let value = slot.prefix.text(subject.token);
    value.map(Some).map_err(|_| Error::Unfit("the session token cannot stand in a header"))
}

fn token_key<M: Mint>(gateway: &Gateway<M>, session: &Session, spec: &MintSpec) -> TokenKey {
    let scope = Scope::Claims(session.scope);
    TokenKey::new(gateway.issuer, session.sid.clone(), session.sub.clone(), spec, scope)
}

fn request<M: Mint>(
    gateway: &Gateway<M>,
    subject: &Subject<'_>,
    spec: &MintSpec,
    key: &TokenKey,
    now: Now,
) -> MintRequest {
    MintRequest {
        key: key.clone(),
        template: spec.id,
        urgency: Urgency::Waiting,
        forced: false,
        credential_issued_at: subject.remembered.session.issued_at,
        deadline: now.mono + gateway.mint_timeout,
    }
}
