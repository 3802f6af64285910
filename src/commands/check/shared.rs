//! `[cache.shared]` in `mintgate check`: what the file says of it, and with `--online` what Redis says.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::config::{Config, Shared};
use crate::telemetry::chain;
use crate::token::shared::redis::RedisStore;
use crate::token::shared::store::StoreError;

use super::finding::{Findings, Level};

/// For everything that Redis is asked.
const LIMIT: Duration = Duration::from_secs(5);

const ALONE: &str = "while it is so, each gateway mints for itself";

/// One line; no secret is in it.
pub(super) fn described(config: &Config, shared: &Shared) -> String {
    let user = match (&shared.username, &shared.password) {
        (Some(user), _) => format!("user {user}"),
        (None, Some(_)) => "with a password".to_owned(),
        (None, None) => "without a password".to_owned(),
    };
    let keys = if shared.previous.is_some() { "two keys" } else { "one key" };
    let (budget, timeout) = (&config.clerk.budget, humantime::format_duration(shared.timeout));
    format!(
        "cache.shared: {} ({user}), prefix {:?}, timeout {timeout}, {keys}; one budget of {:.0} mints in {} for all gateways, \
         and while Redis is down {:.0} for each of {}",
        shared.redis,
        shared.prefix,
        budget.all_requests(),
        humantime::format_duration(budget.per),
        budget.own_requests(),
        budget.replicas,
    )
}

/// The same for a program.
pub(super) fn report(shared: &Shared) -> Value {
    json!({
        "url": shared.redis.to_string(),
        "username": shared.username,
        "password": shared.password.is_some(),
        "prefix": shared.prefix,
        "timeout_ms": u64::try_from(shared.timeout.as_millis()).unwrap_or(u64::MAX),
        "keys": if shared.previous.is_some() { 2 } else { 1 },
        "budget": "shared",
    })
}

/// Asks Redis, for a few seconds at most.
pub(super) async fn ask(shared: &Shared, findings: &mut Findings) {
    let at = &shared.redis;
    let store = match RedisStore::new(shared) {
        Ok(store) => store,
        Err(error) => return findings.add(Level::Error, format!("{at} cannot be asked: {}", chain(&error))),
    };
    let name = format!("{}check", shared.prefix);
    let examined = match timeout(LIMIT, store.examine(&name)).await {
        Ok(Ok(examined)) => examined,
        Ok(Err(error @ StoreError::Unusable(_))) => {
            let advice = "compare `username` and `password` of [cache.shared] with Redis' own";
            return findings.advise(Level::Error, format!("{at}: {}", chain(&error)), advice);
        }
        Ok(Err(error)) => {
            return findings.advise(Level::Unknown, format!("{at} does not answer: {}", chain(&error)), ALONE);
        }
        Err(_) => return findings.advise(Level::Unknown, format!("{at} does not answer in time"), ALONE),
    };
    let version = examined.version.as_deref().unwrap_or("it does not tell its version");
    if examined.too_old {
        let text = format!("{at} is too old: {version}");
        findings.advise(Level::Error, text, "Redis 6.2 or newer, or Valkey");
    }
    match examined.writes {
        Ok(()) => findings.add(Level::Ok, format!("{at} answers and takes writes: {version}")),
        Err(error) => {
            let advice = "READONLY: name the master; OOM: give it more memory, or let it evict; NOPERM: docs/operations.md has the commands";
            findings.advise(Level::Error, format!("{at} takes no writes: {}", chain(&error)), advice);
        }
    }
    if let Some(policy) = examined.evicts {
        let text = format!("{at} evicts when it is full ({policy}): a token that it throws away costs a mint");
        findings.advise(
            Level::Note,
            text,
            "a revocation that it throws away is not heard by gateways that start later; `noeviction` keeps those, and enough memory both",
        );
    }
}
