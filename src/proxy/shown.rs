//! `x-mintgate-token`: how the tokens of a request were come by, for who sets up a route with `show_token`.

use http::HeaderValue;

use crate::clock::Now;
use crate::proxy::gateway::{Gateway, Plan};
use crate::proxy::inject::SlotSource;
use crate::proxy::owner::Owner;
use crate::record::Record;
use crate::token::Mint;

/// `hit; age=12; ttl=43`: as the access record says it, the age of the oldest token that is injected and the life that is left
/// of the first to expire, in seconds. `None` where nothing was looked up; without the numbers where nothing is kept.
pub fn shown<M: Mint>(
    gateway: &Gateway<M>,
    plan: &Plan,
    owner: Option<Owner<'_>>,
    now: Now,
    record: &Record,
) -> Option<HeaderValue> {
    let (looked_up, owner) = (record.lookups()?, owner?);
    let kept = plan.slots.iter().filter_map(|slot| {
        let SlotSource::Token { spec, key } = &slot.source else { return None };
        let (token, _) = gateway.tokens.get_fresh(owner.key(gateway.issuer, *key, spec), now)?;
        let age = now.mono.saturating_duration_since(token.sent_at);
        Some((age, token.lifetime?.saturating_sub(age)))
    });
    let both = kept.reduce(|(age, left), (other, less)| (age.max(other), left.min(less)));
    let text = match both {
        Some((age, left)) => format!("{looked_up}; age={}; ttl={}", age.as_secs(), left.as_secs()),
        None => looked_up,
    };
    HeaderValue::try_from(text).ok()
}
