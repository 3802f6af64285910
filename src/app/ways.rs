//! What of `[token_api]` and `[webhooks]` another configuration replaces while they are served.

use crate::config::{Config, TokenApi, Webhooks};
use crate::live::Live;

/// Of those that are there.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) token_api: Option<Live<TokenApi>>,
    pub(super) webhooks: Option<Live<Webhooks>>,
}

// === impl Ways ===

impl Ways {
    pub(super) fn of(config: &Config) -> Self {
        Self { token_api: config.token_api.clone().map(Live::new), webhooks: config.webhooks.clone().map(Live::new) }
    }

    /// Whether one is there at all does not change while the process runs.
    pub(super) fn replace(&self, config: &Config) {
        if let (Some(live), Some(next)) = (&self.token_api, &config.token_api) {
            live.replace(next.clone());
        }
        if let (Some(live), Some(next)) = (&self.webhooks, &config.webhooks) {
            live.replace(next.clone());
        }
    }
}
