//! What mints, refreshes and the fetches of keys count: several threads may write.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::id::TemplateId;
use super::label::{CacheName, Exported, Fetch, MintResult, SharedOperation, SharedResult, WebhookResult, WebhookType};
use super::value::{Counter, Gauge, Histogram, table};

/// What the control runtime counts under one configuration; any thread may write.
#[derive(Debug)]
pub struct Control {
    pub(super) mints: Box<[Counter]>,
    pub(super) refreshes: Box<[Counter]>,
    /// Size of minted tokens, by template.
    pub token_bytes: Box<[Histogram]>,
    pub(super) common: Arc<Common>,
}

/// What belongs to no template: the same under every configuration of a process.
#[derive(Debug)]
pub struct Common {
    /// One exchange with the issuer.
    pub mint_seconds: Histogram,
    /// Units left in the budget.
    pub budget_available: Gauge,
    /// 1 while the breaker is open.
    pub breaker_open: Gauge,
    /// 1 while the issuer refuses the secret key.
    pub issuer_key_rejected: Gauge,
    /// Issuer's clock minus ours, in milliseconds.
    pub issuer_clock_offset_ms: Gauge,
    /// Wall time of the last good JWKS, in milliseconds since the epoch; 0 before the first.
    pub jwks_fetched_at_ms: Gauge,
    jwks_fetches: [Counter; Fetch::ALL.len()],
    cache_entries: [Gauge; CacheName::ALL.len()],
    cache_bytes: [Gauge; CacheName::ALL.len()],
    /// Revoked sessions and users that are remembered.
    pub tombstones: Gauge,
    /// Configurations that were put to use after the first.
    pub reloads_ok: Counter,
    /// Configurations that were refused.
    pub reloads_failed: Counter,
    /// 1 unless the last reload was refused.
    pub last_reload_ok: Gauge,
    /// Log lines that were lost because standard error took no more, as of the last scrape.
    pub log_lines_dropped: Gauge,
    /// Spans that found no room in the queue.
    pub spans_dropped: Counter,
    spans_exported: [Counter; Exported::ALL.len()],
    last_reload: Mutex<Option<Reloaded>>,
    webhook_events: [[Counter; WebhookResult::ALL.len()]; WebhookType::ALL.len()],
    /// 1 while the shared cache is of use, 0 while it is not; below that there is none.
    pub shared_up: Gauge,
    shared_operations: [[Counter; SharedResult::ALL.len()]; SharedOperation::ALL.len()],
}

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// When.
    pub at: Instant,
    /// Why it was refused; empty where the configuration is in use.
    pub problems: Vec<String>,
    /// Keys that keep their old value until a restart.
    pub kept: Vec<&'static str>,
}

// === impl Control ===

impl Control {
    pub(super) fn new(templates: usize, common: Arc<Common>) -> Self {
        let results = templates * MintResult::ALL.len();
        Self { mints: table(results), refreshes: table(results), token_bytes: table(templates), common }
    }

    /// Mints of a template that ended so.
    pub fn mints(&self, template: TemplateId, result: MintResult) -> &Counter {
        &self.mints[template.index() * MintResult::ALL.len() + result.index()]
    }

    /// Refreshes ahead of time of a template that ended so.
    pub fn refreshes(&self, template: TemplateId, result: MintResult) -> &Counter {
        &self.refreshes[template.index() * MintResult::ALL.len() + result.index()]
    }

    /// What belongs to no template, to keep.
    pub fn common(&self) -> Arc<Common> {
        Arc::clone(&self.common)
    }
}

impl Deref for Control {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

// === impl Common ===

impl Default for Common {
    fn default() -> Self {
        let common = Self {
            mint_seconds: Histogram::default(),
            budget_available: Gauge::default(),
            breaker_open: Gauge::default(),
            issuer_key_rejected: Gauge::default(),
            issuer_clock_offset_ms: Gauge::default(),
            jwks_fetched_at_ms: Gauge::default(),
            jwks_fetches: Default::default(),
            cache_entries: Default::default(),
            cache_bytes: Default::default(),
            tombstones: Gauge::default(),
            reloads_ok: Counter::default(),
            reloads_failed: Counter::default(),
            last_reload_ok: Gauge::default(),
            log_lines_dropped: Gauge::default(),
            spans_dropped: Counter::default(),
            spans_exported: Default::default(),
            last_reload: Mutex::default(),
            webhook_events: Default::default(),
            shared_up: Gauge::default(),
            shared_operations: Default::default(),
        };
        common.last_reload_ok.set(1);
        common.shared_up.set(-1);
        common
    }
}

impl Common {
    /// JWKS fetches that ended so.
    pub fn jwks_fetches(&self, result: Fetch) -> &Counter {
        &self.jwks_fetches[result.index()]
    }

    /// What the shared cache was asked, of which this came.
    pub fn shared_operations(&self, operation: SharedOperation, result: SharedResult) -> &Counter {
        &self.shared_operations[operation.index()][result.index()]
    }

    /// Webhooks of a type of which this became.
    pub fn webhook_events(&self, kind: WebhookType, result: WebhookResult) -> &Counter {
        &self.webhook_events[kind.index()][result.index()]
    }

    /// Spans that were sent and ended so.
    pub fn spans_exported(&self, result: Exported) -> &Counter {
        &self.spans_exported[result.index()]
    }

    /// Entries in a map, as of the last scrape.
    pub fn cache_entries(&self, cache: CacheName) -> &Gauge {
        &self.cache_entries[cache.index()]
    }

    /// Bytes in a map, as of the last scrape.
    pub fn cache_bytes(&self, cache: CacheName) -> &Gauge {
        &self.cache_bytes[cache.index()]
    }

    /// How the last reload ended, to be shown. `None`: what was refused was taken back, and nothing is wrong any more.
    pub fn set_last_reload(&self, reload: Option<Reloaded>) {
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = reload;
    }

    /// How the last reload ended, where there was one.
    pub fn last_reload(&self) -> Option<Reloaded> {
        self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
