//! Counters, gauges and histograms, as data. The admin listener gives them their names and their text form.
//!
//! What a request touches lives in a [`Shard`] of its worker: plain arrays with **one writer** (the worker's thread),
//! indexed by ids that are fixed when routes are built. An increment is a load and a store, never a locked
//! instruction, and no cache line is shared between cores. A scrape sums the shards. What mints, refreshes and the JWKS
//! client count lives in [`Control`], which several threads may write.

mod control;
mod id;
mod label;
pub mod ledger;
mod value;

use std::sync::{Arc, Mutex, PoisonError};

pub use self::control::{Common, Control, Reloaded};
pub use self::id::{ListenerId, OutcomeId, RouteId, TemplateId, UpstreamId};
pub(crate) use self::label::labels;
pub use self::label::{
    CacheName, Exported, Fetch, Lookup, MintResult, SharedOperation, SharedResult, Verdict, WebhookResult, WebhookType,
};
use self::value::table;
pub use self::value::{BYTE_BOUNDS, Counter, Gauge, Histogram, TIME_BOUNDS};

/// The text of one outcome: its `status` and `code` labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeName {
    /// `2xx`, or the exact status of one of our codes.
    pub status: String,
    /// Our error code, empty for an upstream's answer.
    pub code: &'static str,
}

/// The `code` of a request whose caller went away before there was an answer. Nobody is ever sent it; its status is
/// 499, as in nginx's log, since the code table of the design's section 7 is of answers.
pub const CLIENT_GONE: &str = "client-gone";

/// The label values, known at load.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Route names, without the `none` that is appended.
    pub routes: Vec<String>,
    /// Template names, without the `other` that is appended.
    pub templates: Vec<String>,
    /// Upstream names.
    pub upstreams: Vec<String>,
    /// Listener names.
    pub listeners: Vec<String>,
    /// Outcomes of a request, without the `client-gone` that is appended.
    pub outcomes: Vec<OutcomeName>,
}

/// Everything that is counted under one configuration; see [`ledger`] for those that follow each other. Two gateways in
/// one process share nothing.
#[derive(Debug)]
pub struct Metrics {
    names: Names,
    shards: Mutex<Vec<Arc<Shard>>>,
    control: Control,
}

/// What one worker counts. One writer: the worker's thread.
#[derive(Debug)]
pub struct Shard {
    outcomes: usize,
    requests: Box<[Counter]>,
    verdicts: Box<[Counter]>,
    lookups: Box<[Counter]>,
    degraded: Box<[Counter]>,
    connections: Box<[Gauge]>,
    websockets: Box<[Gauge]>,
    parse_errors: Counter,
    tls_handshake_errors: Counter,
    /// Head read to last byte written, by route.
    pub request_seconds: Box<[Histogram]>,
    /// The part of it that the gateway added, by route.
    pub overhead_seconds: Box<[Histogram]>,
    /// Request sent to response head, by upstream.
    pub upstream_seconds: Box<[Histogram]>,
}

// === impl Metrics ===

impl Metrics {
    /// Tables for these names. The route `none`, the template `other` and the outcome `client-gone` are appended.
    pub fn new(names: Names) -> Self {
        Self::with(names, Arc::default())
    }

    /// The same, with what is counted for no route and no template in particular.
    fn with(mut names: Names, common: Arc<Common>) -> Self {
        names.routes.push("none".to_owned());
        names.templates.push("other".to_owned());
        names.outcomes.push(OutcomeName { status: "499".to_owned(), code: CLIENT_GONE });
        let control = Control::new(names.templates.len(), common);
        Self { names, shards: Mutex::default(), control }
    }

    /// The label values.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The id that stands for "no route".
    pub fn no_route(&self) -> RouteId {
        RouteId::new(self.names.routes.len() - 1)
    }

    /// The id that stands for a template that no route names.
    pub fn other_template(&self) -> TemplateId {
        TemplateId::new(self.names.templates.len() - 1)
    }

    /// The id that stands for a request whose caller went away before there was an answer.
    pub fn client_gone(&self) -> OutcomeId {
        OutcomeId::new(self.names.outcomes.len() - 1)
    }

    /// A new shard, for one writer.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::new(&self.names));
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shard));
        shard
    }

    /// Every shard made so far, for a scrape.
    pub fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the control runtime counts.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

// === impl Shard ===

impl Shard {
    fn new(names: &Names) -> Self {
        let (routes, upstreams) = (names.routes.len(), names.upstreams.len());
        Self {
            outcomes: names.outcomes.len(),
            requests: table(routes * names.outcomes.len()),
            verdicts: table(routes * Verdict::ALL.len()),
            lookups: table(routes * Lookup::ALL.len()),
            degraded: table(routes),
            connections: table(names.listeners.len()),
            websockets: table(routes),
            parse_errors: Counter::default(),
            tls_handshake_errors: Counter::default(),
            request_seconds: table(routes),
            overhead_seconds: table(routes),
            upstream_seconds: table(upstreams),
        }
    }

    /// Requests of a route that ended so.
    pub fn requests(&self, route: RouteId, outcome: OutcomeId) -> &Counter {
        &self.requests[route.index() * self.outcomes + outcome.index()]
    }

    /// Session checks of a route that found so.
    pub fn verdicts(&self, route: RouteId, verdict: Verdict) -> &Counter {
        &self.verdicts[route.index() * Verdict::ALL.len() + verdict.index()]
    }

    /// Token look-ups of a route that ended so.
    pub fn lookups(&self, route: RouteId, lookup: Lookup) -> &Counter {
        &self.lookups[route.index() * Lookup::ALL.len() + lookup.index()]
    }

    /// Requests that went on without a token because `on_mint_error` says so.
    pub fn degraded(&self, route: RouteId) -> &Counter {
        &self.degraded[route.index()]
    }

    /// Open connections of a listener.
    pub fn connections(&self, listener: ListenerId) -> &Gauge {
        &self.connections[listener.index()]
    }

    /// Open WebSockets of a route.
    pub fn websockets(&self, route: RouteId) -> &Gauge {
        &self.websockets[route.index()]
    }

    /// Requests that hyper's parser refused before there was a request.
    pub fn parse_errors(&self) -> &Counter {
        &self.parse_errors
    }

    /// TLS handshakes of callers that were refused, by either side.
    pub fn tls_handshake_errors(&self) -> &Counter {
        &self.tls_handshake_errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        let outcome = |status: &str, code| OutcomeName { status: status.to_owned(), code };
        Metrics::new(Names {
            routes: vec!["a".to_owned(), "b".to_owned()],
            outcomes: vec![outcome("2xx", ""), outcome("404", "no-route")],
            ..Names::default()
        })
    }

    #[test]
    fn counts_of_one_label_do_not_reach_another() {
        let metrics = metrics();
        let shard = metrics.shard();
        shard.requests(RouteId::new(1), OutcomeId::new(0)).bump();
        shard.requests(metrics.no_route(), OutcomeId::new(1)).bump();
        let all: Vec<u64> = (0..3)
            .flat_map(|route| (0..2).map(move |outcome| (route, outcome)))
            .map(|(route, outcome)| shard.requests(RouteId::new(route), OutcomeId::new(outcome)).get())
            .collect();
        assert_eq!(all, [0, 0, 1, 0, 0, 1]);
    }
}
