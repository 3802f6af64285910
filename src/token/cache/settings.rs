//! What a reload changes of the cache.

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::metrics::{Metrics, TemplateId};
use crate::token::freshness::Rules;

/// What a reload changes. A mint ends under the settings under which it began: its template's id belongs to them.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) rules: Rules,
    pub(super) missing_ttl: Option<Duration>,
    pub(super) metrics: Arc<Metrics>,
}

// === impl Settings ===

impl Settings {
    pub(super) fn new(config: &config::Cache, metrics: Arc<Metrics>) -> Self {
        Self { rules: Rules::from(config), missing_ttl: config.missing_ttl, metrics }
    }

    /// A request of an older or newer snapshot may bring an id that these tables do not have.
    pub(super) fn known(&self, template: TemplateId) -> TemplateId {
        let known = template.index() < self.metrics.names().templates.len();
        if known { template } else { self.metrics.other_template() }
    }
}
