//! The status as one JSON document, for programs and for the page. Its names are relied on.
//!
//! Nothing in it is a caller's: no token, no id of a session or a user, no query, no header.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::facts::{Facts, RouteFacts};
use super::fix::fix;
use super::history::{History, View};
use super::traffic::{Buckets, Counts, Point, Rates, Sample, quantile, rounded};
use crate::clock::Clock;
use crate::lifecycle::Readiness;
use crate::live::Live;
use crate::metrics::ledger::Ledger;
use crate::metrics::{CacheName, Common, Control, Fetch, ListenerId, Metrics, MintResult, Shard, TemplateId};
use crate::proxy::error::Code;

/// Brings a gauge up to date before it is read. Must not block.
pub type Hook = Box<dyn Fn(&Common) + Send + Sync>;

/// Routes that are named for an error.
const MOST_NAMED: usize = 3;

/// Makes the document.
pub(super) struct Status {
    pub(super) ledger: Arc<Ledger>,
    pub(super) readiness: Readiness,
    pub(super) clock: Clock,
    pub(super) hooks: Vec<Hook>,
    pub(super) facts: Live<Facts>,
    pub(super) history: History,
    pub(super) started: Instant,
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    time: String,
    started: When,
    ready: bool,
    not_ready_because: Option<String>,
    configuration: Configuration,
    /// The last few seconds.
    now: Point,
    /// Rates and times of routes are of so long.
    window_seconds: f64,
    routes: Vec<Route<'a>>,
    issuer: Issuer,
    caches: BTreeMap<&'static str, Cache>,
    listeners: Vec<Listener<'a>>,
    websockets: i64,
    parse_errors: u64,
    tls_handshake_errors: u64,
    revoked: i64,
    log_lines_dropped: i64,
    errors: Vec<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Point>>,
}

/// A moment, for programs and for people.
#[derive(Serialize)]
struct When {
    at: String,
    seconds_ago: u64,
}

#[derive(Serialize)]
struct Configuration {
    generation: u64,
    in_use: When,
    reloads: u64,
    refused: u64,
    last_reload: Option<Reload>,
}

#[derive(Serialize)]
struct Reload {
    #[serde(flatten)]
    when: When,
    ok: bool,
    problems: Vec<String>,
    needs_restart: Vec<&'static str>,
}

#[derive(Serialize)]
struct Route<'a> {
    name: &'a str,
    /// Absent where no route of the configuration in use has this name: one of an earlier one, or "none".
    matches: Option<&'a str>,
    upstream: Option<&'a str>,
    mints: bool,
    requests: u64,
    refused: u64,
    failed: u64,
    degraded: u64,
    websockets: i64,
    #[serde(flatten)]
    rates: Rates,
    overhead_p50_ms: Option<f64>,
    overhead_p99_ms: Option<f64>,
}

#[derive(Serialize)]
struct Issuer {
    used: bool,
    breaker_open: bool,
    key_rejected: bool,
    clock_offset_seconds: f64,
    budget: Option<Budget>,
    mints: BTreeMap<&'static str, u64>,
    keys: Keys,
}

#[derive(Serialize)]
struct Budget {
    available: i64,
    capacity: f64,
    per_seconds: f64,
}

#[derive(Serialize)]
struct Keys {
    source: &'static str,
    age_seconds: Option<u64>,
    refresh_seconds: Option<f64>,
    fetched: u64,
    failed: u64,
    last_failure: Option<When>,
}

#[derive(Serialize)]
struct Cache {
    entries: i64,
    bytes: i64,
    max_bytes: u64,
}

#[derive(Serialize)]
struct Listener<'a> {
    name: &'a str,
    connections: i64,
}

#[derive(Serialize)]
struct Failure {
    code: &'static str,
    status: u16,
    title: &'static str,
    count: u64,
    /// Absent where it happened before anybody looked.
    last: Option<When>,
    /// Where, the most first.
    routes: Vec<String>,
    /// Of `session-invalid`: why, the most first.
    reasons: Vec<&'static str>,
    fix: &'static str,
}

// === impl Status ===

impl Status {
    /// What is counted by now.
    pub(super) fn sample(&self) -> Sample {
        Sample::read(&self.ledger.sum(), self.clock.now())
    }

    /// Brings what is only measured on demand up to date.
    pub(super) fn observe(&self) -> &Common {
        let common = self.ledger.common();
        for hook in &self.hooks {
            hook(common);
        }
        common
    }

    /// The document, with the points of the plots or without.
    pub(super) fn json(&self, with_history: bool) -> String {
        self.observe();
        let metrics = self.ledger.sum();
        let sample = Sample::read(&metrics, self.clock.now());
        let (view, facts) = (self.history.view(&sample), self.facts.current());
        let reading =
            Reading { status: self, metrics: &metrics, shards: &metrics.shards(), facts: &facts, sample: &sample };
        let document = reading.document(&view, with_history.then(|| self.history.points()));
        // Texts, numbers, lists and maps with texts as keys: nothing that JSON could not hold.
        serde_json::to_string(&document).unwrap_or_default()
    }
}

/// Everything that one document is made of.
struct Reading<'a> {
    status: &'a Status,
    metrics: &'a Metrics,
    shards: &'a [Arc<Shard>],
    facts: &'a Facts,
    sample: &'a Sample,
}

// === impl Reading ===

impl<'a> Reading<'a> {
    fn document(&self, view: &View, history: Option<Vec<Point>>) -> Document<'a> {
        let (control, ready) = (self.metrics.control(), self.status.readiness.ready());
        let total = |of: fn(&Shard) -> u64| self.shards.iter().map(|shard| of(shard)).sum();
        let window = self.sample.at.mono.saturating_duration_since(view.base.at.mono);
        Document {
            version: env!("CARGO_PKG_VERSION"),
            time: rfc3339(self.sample.at.wall),
            started: self.when(self.status.started),
            ready: ready.is_ok(),
            not_ready_because: ready.err().map(|reason| reason.to_string()),
            configuration: self.configuration(control),
            now: view.point,
            window_seconds: rounded(window.as_secs_f64()),
            routes: self.sample.routes.iter().enumerate().map(|(at, route)| self.route(at, route, view)).collect(),
            issuer: self.issuer(control, view),
            caches: CacheName::ALL
                .iter()
                .zip(self.facts.room)
                .map(|(&name, room)| cache(control, name, room))
                .collect(),
            listeners: self.listeners(),
            websockets: self.sample.routes.iter().map(|route| route.websockets).sum(),
            parse_errors: total(|shard| shard.parse_errors().get()),
            tls_handshake_errors: total(|shard| shard.tls_handshake_errors().get()),
            revoked: control.tombstones.get(),
            log_lines_dropped: control.log_lines_dropped.get(),
            errors: self.failures(view),
            history,
        }
    }

    fn when(&self, at: Instant) -> When {
        let ago = self.sample.at.mono.saturating_duration_since(at);
        When { at: rfc3339(self.sample.at.wall.minus(ago)), seconds_ago: ago.as_secs() }
    }

    fn configuration(&self, counts: &Common) -> Configuration {
        let last = counts.last_reload().map(|reload| Reload {
            when: self.when(reload.at),
            ok: reload.problems.is_empty(),
            problems: reload.problems,
            needs_restart: reload.kept,
        });
        Configuration {
            generation: self.facts.generation,
            in_use: self.when(self.facts.since),
            reloads: counts.reloads_ok.get(),
            refused: counts.reloads_failed.get(),
            last_reload: last,
        }
    }

    fn route(&self, at: usize, counts: &'a Counts, view: &View) -> Route<'a> {
        let (rates, overhead): (Rates, Buckets) = self.sample.route_since(&view.base, counts);
        // The newest configuration's names come first, in the order of its routes.
        let facts: Option<&RouteFacts> = self.facts.routes.get(at).filter(|facts| facts.name == counts.name);
        Route {
            name: &counts.name,
            matches: facts.map(|facts| &*facts.matches),
            upstream: facts.map(|facts| &*facts.upstream),
            mints: facts.is_some_and(|facts| facts.mints),
            requests: counts.requests,
            refused: counts.refused,
            failed: counts.failed,
            degraded: counts.degraded,
            websockets: counts.websockets,
            rates,
            overhead_p50_ms: quantile(&overhead, 0.5),
            overhead_p99_ms: quantile(&overhead, 0.99),
        }
    }

    fn issuer(&self, control: &Control, view: &View) -> Issuer {
        let templates = 0..self.metrics.names().templates.len();
        let count = |result| templates.clone().map(|at| control.mints(TemplateId::new(at), result).get()).sum();
        let mints = MintResult::ALL.iter().map(|&result| (result.as_str(), count(result)));
        let fetched = control.jwks_fetched_at_ms.get();
        let age = (self.facts.keys == "issuer" && fetched > 0)
            .then(|| u64::try_from(self.sample.at.wall.as_millis().saturating_sub(fetched) / 1000).unwrap_or(0));
        #[expect(clippy::cast_precision_loss, reason = "for a reader")]
        let offset = control.issuer_clock_offset_ms.get() as f64 / 1000.0;
        Issuer {
            used: self.facts.mints,
            breaker_open: control.breaker_open.get() != 0,
            key_rejected: control.issuer_key_rejected.get() != 0,
            clock_offset_seconds: offset,
            budget: self.facts.budget.map(|(capacity, per_seconds)| Budget {
                available: control.budget_available.get(),
                capacity: rounded(capacity),
                per_seconds,
            }),
            // A token at least is always told of.
            mints: mints.filter(|(name, count)| *count > 0 || *name == MintResult::Ok.as_str()).collect(),
            keys: Keys {
                source: self.facts.keys,
                age_seconds: age,
                refresh_seconds: self.facts.keys_refresh,
                fetched: control.jwks_fetches(Fetch::Ok).get(),
                failed: control.jwks_fetches(Fetch::Failed).get(),
                last_failure: view.fetch_failed.map(|at| self.when(at)),
            },
        }
    }

    fn listeners(&self) -> Vec<Listener<'a>> {
        let names = self.metrics.names().listeners.iter().enumerate();
        let open = |at| self.shards.iter().map(|shard| shard.connections(ListenerId::new(at)).get()).sum();
        names.map(|(at, name)| Listener { name, connections: open(at) }).collect()
    }

    /// The newest first.
    fn failures(&self, view: &View) -> Vec<Failure> {
        let mut failures: Vec<(Option<Instant>, Failure)> = Vec::new();
        for &code in Code::ALL {
            let mut routes: Vec<(&str, u64)> = self
                .sample
                .errors
                .iter()
                .filter(|((of, _), _)| *of == code)
                .map(|((_, route), count)| (&**route, *count))
                .collect();
            if routes.is_empty() {
                continue;
            }
            routes.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
            let mut reasons = if code == Code::SessionInvalid { self.sample.reasons.clone() } else { Vec::new() };
            reasons.sort_by_key(|(_, count)| Reverse(*count));
            let last = view.last.get(&code).copied();
            let failure = Failure {
                code: code.as_str(),
                status: code.status().as_u16(),
                title: code.title(),
                count: routes.iter().map(|(_, count)| count).sum(),
                last: last.map(|at| self.when(at)),
                routes: routes.iter().take(MOST_NAMED).map(|(route, _)| (*route).to_owned()).collect(),
                reasons: reasons.into_iter().take(MOST_NAMED).map(|(reason, _)| reason).collect(),
                fix: fix(code),
            };
            failures.push((last, failure));
        }
        failures.sort_by(|one, other| other.0.cmp(&one.0).then(other.1.count.cmp(&one.1.count)));
        failures.into_iter().map(|(_, failure)| failure).collect()
    }
}

fn cache(control: &Control, name: CacheName, max_bytes: u64) -> (&'static str, Cache) {
    let (entries, bytes) = (control.cache_entries(name).get(), control.cache_bytes(name).get());
    (name.as_str(), Cache { entries, bytes, max_bytes })
}

fn rfc3339(at: crate::clock::Wall) -> String {
    humantime::format_rfc3339_seconds(at.to_system()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::admin::testing::status;
    use crate::lifecycle::Shutdown;
    use crate::metrics::{Lookup, Reloaded, RouteId, Verdict};

    fn paths(value: &Value, prefix: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| paths(value, &format!("{prefix}.{key}"), found)),
            Value::Array(list) => list.iter().for_each(|value| paths(value, &format!("{prefix}[]"), found)),
            _ => found.push(prefix.trim_start_matches('.').to_owned()),
        }
    }

    async fn eventful() -> (Arc<Status>, Arc<Metrics>) {
        let (status, metrics) = status(&Shutdown::new(), Vec::new());
        let (shard, route) = (metrics.shard(), RouteId::new(0));
        tokio::time::advance(Duration::from_secs(50)).await;
        status.history.look(status.sample());
        shard.requests(route, Code::SessionInvalid.outcome()).bump();
        shard.requests(route, Code::UpstreamTimeout.outcome()).bump();
        shard.requests(metrics.no_route(), Code::NoRoute.outcome()).bump();
        shard.verdicts(route, Verdict::Azp).bump();
        shard.lookups(route, Lookup::Hit).bump();
        shard.overhead_seconds[0].observe(Duration::from_micros(80));
        let control = metrics.control();
        control.mint_seconds.observe_shared(Duration::from_millis(260));
        control.jwks_fetches(Fetch::Failed).add();
        control.jwks_fetched_at_ms.set(1_800_000_001_000);
        let problems = vec!["mintgate.toml:3: unknown key".to_owned()];
        control.set_last_reload(Some(Reloaded { at: Instant::now(), problems, kept: vec!["server.workers"] }));
        tokio::time::advance(Duration::from_secs(10)).await;
        (status, metrics)
    }

    /// The names are relied on: programs read them.
    #[tokio::test(start_paused = true)]
    async fn the_document_has_the_names_that_are_promised() {
        let (status, _metrics) = eventful().await;
        let mut found = Vec::new();
        paths(&serde_json::from_str(&status.json(true)).unwrap(), "", &mut found);
        let rows = include_str!("../../docs/status.md").lines().filter_map(|line| line.strip_prefix("| `"));
        let names = rows.filter_map(|row| row.split(" |").next());
        let mut promised: Vec<&str> = names.flat_map(|names| names.trim_end_matches('`').split("`, `")).collect();
        found.sort_unstable();
        found.dedup();
        promised.sort_unstable();
        assert_eq!(found, promised);
    }

    #[tokio::test(start_paused = true)]
    async fn the_document_tells_what_was_counted() {
        let (status, metrics) = eventful().await;
        let read = || serde_json::from_str::<Value>(&status.json(false)).unwrap();
        let document = read();
        assert!(document.get("history").is_none());
        assert_eq!((&document["ready"], &document["window_seconds"]), (&true.into(), &60.0.into()));
        let route = &document["routes"][0];
        assert_eq!(route["matches"], "GET|POST *.example.com/v1/graphql/…");
        assert_eq!((&route["requests"], &route["failed"], &route["refused"]), (&2.into(), &1.into(), &1.into()));
        assert_eq!(route["overhead_p99_ms"], 0.1, "{route}");
        assert_eq!(document["issuer"]["budget"]["capacity"], 50.0);
        assert_eq!(document["issuer"]["keys"]["age_seconds"], 59);
        assert_eq!(document["configuration"]["last_reload"]["ok"], false);
        let errors = document["errors"].as_array().unwrap();
        let codes: Vec<&str> = errors.iter().map(|error| error["code"].as_str().unwrap()).collect();
        assert_eq!(codes.len(), 3, "{codes:?}");
        let invalid = errors.iter().find(|error| error["code"] == "session-invalid").unwrap();
        assert_eq!((&invalid["reasons"][0], &invalid["routes"][0]), (&"azp".into(), &"graphql".into()));
        assert_eq!(invalid["fix"], fix(Code::SessionInvalid));
        tokio::time::advance(Duration::from_secs(30)).await;
        metrics.shards()[0].requests(RouteId::new(0), Code::UpstreamTimeout.outcome()).bump();
        let document = read();
        let newest = &document["errors"][0];
        assert_eq!((&newest["code"], &newest["count"]), (&"upstream-timeout".into(), &2.into()), "the newest first");
        assert_eq!(
            (&newest["last"]["seconds_ago"], &document["errors"][1]["last"]["seconds_ago"]),
            (&0.into(), &30.into())
        );
    }
}
