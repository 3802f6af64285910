//! What of `[token_api]` and `[webhooks]` another configuration replaces while they are served.

use std::sync::Arc;

use axum::Router;

use super::issuance::{ClerkMint, Issuance};
use crate::clock::Clock;
use crate::config::{Config, Webhooks};
use crate::live::Live;
use crate::metrics::ledger::Ledger;
use crate::proxy::gateway::Gateway;
use crate::revocation::Revocation;
use crate::token_api::{Snapshot, TokenApi};
use crate::webhooks::Endpoint;

/// Of those that are there.
#[derive(Debug)]
pub(super) struct Ways {
    token_api: Option<Live<Snapshot<ClerkMint>>>,
    webhooks: Option<Live<Webhooks>>,
}

// === impl Ways ===

impl Ways {
    pub(super) fn of(config: &Config, gateway: &Arc<Gateway<ClerkMint>>, issuance: &Issuance) -> Self {
        let token_api = config.token_api.is_some().then(|| Live::new(snapshot(config, gateway, issuance)));
        Self { token_api, webhooks: config.webhooks.clone().map(Live::new) }
    }

    /// Whether one is there at all does not change while the process runs.
    pub(super) fn replace(&self, config: &Config, gateway: &Arc<Gateway<ClerkMint>>, issuance: &Issuance) {
        if let Some(live) = &self.token_api {
            live.replace(snapshot(config, gateway, issuance));
        }
        if let (Some(live), Some(next)) = (&self.webhooks, &config.webhooks) {
            live.replace(next.clone());
        }
    }

    /// Answers of `[token_api]`.
    pub(super) fn token_api(&self, revocation: Revocation, clock: &Clock) -> Router {
        let clock = clock.clone();
        let answering = self.token_api.clone().map(|current| TokenApi { current, revocation, clock }.router());
        answering.unwrap_or_default()
    }

    /// Answers of `[webhooks]`.
    pub(super) fn webhooks(&self, revocation: Revocation, clock: &Clock, ledger: &Arc<Ledger>) -> Router {
        let (clock, ledger) = (clock.clone(), Arc::clone(ledger));
        let answering = self.webhooks.clone().map(|config| Endpoint { config, revocation, clock, ledger }.router());
        answering.unwrap_or_default()
    }
}

fn snapshot(config: &Config, gateway: &Arc<Gateway<ClerkMint>>, issuance: &Issuance) -> Snapshot<ClerkMint> {
    Snapshot::new(config, gateway, &issuance.client, &issuance.limiter)
}
