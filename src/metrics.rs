//! Counters, gauges and histograms, as data. The admin listener gives them their names and their text form.
//!
//! What a request touches lives in a [`Shard`] of its worker: plain arrays with **one writer** (the worker's thread),
//! indexed by ids that are fixed when routes are built. An increment is a load and a store, never a locked
//! instruction, and no cache line is shared between cores. A scrape sums the shards. What mints, refreshes and the JWKS
//! client count lives in [`Control`], which several threads may write.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Declares an index into a table of names.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u16);

        impl $name {
            /// The id of the `index`th name.
            ///
            /// # Panics
            /// Beyond 65535, which no configuration reaches.
            pub fn new(index: usize) -> Self {
                Self(u16::try_from(index).expect("a configuration has fewer than 65536 of a kind"))
            }

            /// The position in its table.
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

id!(
    /// A route; the id after the last one stands for "no route".
    RouteId
);
id!(
    /// A JWT template that some route names; the id after the last one stands for any other.
    TemplateId
);
id!(
    /// An upstream.
    UpstreamId
);
id!(
    /// A data listener.
    ListenerId
);
id!(
    /// How a request ended: an upstream's status class or one of our own codes.
    OutcomeId
);

/// Declares a closed set of label values.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every value, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The label's text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The position in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use labels;

labels!(
    /// Where a token came from.
    Lookup {
        /// A live token was in memory.
        Hit = "hit",
        /// A mint was under way already.
        Wait = "wait",
        /// The shared cache had it.
        Shared = "shared",
        /// This request began the mint.
        Mint = "mint",
        /// 'No such session' or 'no such template' was remembered.
        Missing = "missing",
    }
);

labels!(
    /// What a session check found. The second half are the reasons of `session-invalid`.
    Verdict {
        /// A good session.
        Valid = "valid",
        /// No credential.
        Missing = "missing",
        /// Past its `exp`.
        Expired = "expired",
        /// Revoked by a tombstone.
        Revoked = "revoked",
        /// `sts: pending`.
        Pending = "pending",
        /// Two credentials where one may be.
        Ambiguous = "ambiguous",
        /// Not a JWS in compact form, or its JSON is not what RFC 7515 and 7519 say.
        Malformed = "malformed",
        /// Not RS256, or a `crit` header.
        Algorithm = "algorithm",
        /// No such `kid`.
        UnknownKey = "unknown-key",
        /// The signature does not fit.
        Signature = "signature",
        /// `cat` says that it is another kind of token.
        Category = "category",
        /// A claim is missing or of the wrong type.
        Claims = "claims",
        /// Another issuer.
        Issuer = "issuer",
        /// `azp` is not allowed.
        Azp = "azp",
        /// `nbf` or `iat` lies in the future.
        NotYetValid = "not-yet-valid",
        /// A cookie older than `__client_uat`, or without one.
        OutdatedCookie = "outdated-cookie",
        /// An API key, OAuth or machine token.
        NotASessionToken = "not-a-session-token",
    }
);

labels!(
    /// How a mint or a refresh ended.
    MintResult {
        /// A token.
        Ok = "ok",
        /// No such template.
        TemplateUnknown = "template-unknown",
        /// No such session, or not active.
        SessionEnded = "session-ended",
        /// The secret key was refused.
        RejectedKey = "issuer-rejected-key",
        /// Connect failures and 5xx to the end, or the breaker was open.
        Unavailable = "issuer-unavailable",
        /// The deadline passed.
        Timeout = "issuer-timeout",
        /// A 200 that made no sense.
        Malformed = "issuer-malformed",
        /// Any other 3xx or 4xx.
        Refused = "issuer-refused",
        /// A 429, or the budget's line was full.
        Throttled = "issuer-throttled",
        /// The token cannot stand in a header.
        Unfit = "token-unfit",
        /// Purged while the mint was under way.
        Purged = "purged",
    }
);

labels!(
    /// How a JWKS fetch ended.
    Fetch {
        /// A key set with at least one usable key.
        Ok = "ok",
        /// No answer, or one that is not a key set.
        Failed = "failed",
    }
);

labels!(
    /// The two maps.
    CacheName {
        /// Minted tokens.
        Tokens = "tokens",
        /// Verified sessions.
        Sessions = "sessions",
    }
);

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

/// Everything that is counted in one process. Two gateways in one process share nothing.
#[derive(Debug)]
pub struct Metrics {
    names: Names,
    shards: Mutex<Vec<Arc<Shard>>>,
    control: Control,
}

/// A count that goes up. [`Counter::bump`] is for one writer, [`Counter::add`] for many.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// Upper bounds of the buckets for times, in nanoseconds: 50 us to 60 s. Dense where a gateway's own share lies
/// (below 1 ms) and around Clerk's 250 to 300 ms.
pub const TIME_BOUNDS: [u64; 16] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    60_000_000_000,
];

/// Upper bounds of the buckets for token sizes, in bytes. 4 KiB and 8 KiB are the head limits of common upstreams.
pub const BYTE_BOUNDS: [u64; 16] =
    [256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12_288, 16_384, 24_576, 32_768, 49_152, 65_536];

/// A histogram over sixteen fixed bounds. [`Histogram::observe`] is for one writer, `observe_shared` for many.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last one counts what is above every bound.
    buckets: [AtomicU64; 17],
    sum: AtomicU64,
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
    /// Head read to last byte written, by route.
    pub request_seconds: Box<[Histogram]>,
    /// The part of it that the gateway added, by route.
    pub overhead_seconds: Box<[Histogram]>,
    /// Request sent to response head, by upstream.
    pub upstream_seconds: Box<[Histogram]>,
}

/// What the control runtime counts; any thread may write.
#[derive(Debug)]
pub struct Control {
    mints: Box<[Counter]>,
    refreshes: Box<[Counter]>,
    /// One exchange with the issuer.
    pub mint_seconds: Histogram,
    /// Size of minted tokens, by template.
    pub token_bytes: Box<[Histogram]>,
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
}

// === impl Metrics ===

fn table<T: Default>(size: usize) -> Box<[T]> {
    (0..size).map(|_| T::default()).collect()
}

impl Metrics {
    /// Tables for these names. The route `none`, the template `other` and the outcome `client-gone` are appended.
    pub fn new(mut names: Names) -> Self {
        names.routes.push("none".to_owned());
        names.templates.push("other".to_owned());
        names.outcomes.push(OutcomeName { status: "499".to_owned(), code: CLIENT_GONE });
        let control = Control::new(names.templates.len());
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
}

// === impl Control ===

impl Control {
    fn new(templates: usize) -> Self {
        let control = Self {
            mints: table(templates * MintResult::ALL.len()),
            refreshes: table(templates * MintResult::ALL.len()),
            mint_seconds: Histogram::default(),
            token_bytes: table(templates),
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
        };
        control.last_reload_ok.set(1);
        control
    }

    /// Mints of a template that ended so.
    pub fn mints(&self, template: TemplateId, result: MintResult) -> &Counter {
        &self.mints[template.index() * MintResult::ALL.len() + result.index()]
    }

    /// Refreshes ahead of time of a template that ended so.
    pub fn refreshes(&self, template: TemplateId, result: MintResult) -> &Counter {
        &self.refreshes[template.index() * MintResult::ALL.len() + result.index()]
    }

    /// JWKS fetches that ended so.
    pub fn jwks_fetches(&self, result: Fetch) -> &Counter {
        &self.jwks_fetches[result.index()]
    }

    /// Entries in a map, as of the last scrape.
    pub fn cache_entries(&self, cache: CacheName) -> &Gauge {
        &self.cache_entries[cache.index()]
    }

    /// Bytes in a map, as of the last scrape.
    pub fn cache_bytes(&self, cache: CacheName) -> &Gauge {
        &self.cache_bytes[cache.index()]
    }
}

// === impl Counter, Gauge, Histogram ===

impl Counter {
    /// One more; for the one writer of a shard.
    pub fn bump(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// One more; for any thread.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds, or subtracts what is negative.
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Histogram {
    /// Counts a time; for the one writer of a shard.
    pub fn observe(&self, time: Duration) {
        let value = nanos(time);
        let bucket = &self.buckets[bucket(&TIME_BOUNDS, value)];
        bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        self.sum.store(self.sum.load(Relaxed).wrapping_add(value), Relaxed);
    }

    /// Counts a time; for any thread.
    pub fn observe_shared(&self, time: Duration) {
        self.count_shared(&TIME_BOUNDS, nanos(time));
    }

    /// Counts a size in bytes; for any thread.
    pub fn observe_bytes(&self, bytes: usize) {
        self.count_shared(&BYTE_BOUNDS, bytes as u64);
    }

    /// The buckets (not cumulative, the last one above every bound) and the sum of what was observed.
    pub fn read(&self) -> ([u64; 17], u64) {
        (std::array::from_fn(|index| self.buckets[index].load(Relaxed)), self.sum.load(Relaxed))
    }

    fn count_shared(&self, bounds: &[u64; 16], value: u64) {
        self.buckets[bucket(bounds, value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }
}

fn bucket(bounds: &[u64; 16], value: u64) -> usize {
    bounds.partition_point(|&bound| bound < value)
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

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for nanos in [0, 50_000, 50_001, 60_000_000_000, 60_000_000_001] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let (buckets, sum) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[15], buckets[16]), (2, 1, 1, 1));
        assert_eq!(sum, 120_000_100_002);
    }
}
