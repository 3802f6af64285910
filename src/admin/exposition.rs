//! Writes what was counted as text: Prometheus' format 0.0.4, and OpenMetrics 1.0.
//!
//! Written here and not by a library of metric types, because such a library owns its counters: each increment would
//! be a locked instruction on a cache line that all workers share. Ours are plain words with one writer, summed when
//! somebody asks. What is left to do is names, help and escaping.
//!
//! Every family is always there. Combinations of labels that never occurred are left out of the large tables (route
//! with outcome, verdict or result) and of the histograms, so that a scrape stays small; small tables are whole.

mod format;
mod text;

use std::fmt::{self, Display, Formatter, Write as _};
use std::sync::Arc;

pub use self::format::Format;
use crate::clock::Wall;
use crate::metrics::{
    BYTE_BOUNDS, CacheName, Control, Counter, Exported, Fetch, Gauge, Histogram, ListenerId, Lookup, Metrics,
    MintResult, OutcomeId, RouteId, Shard, SharedOperation, SharedResult, TIME_BOUNDS, TemplateId, Verdict,
    WebhookResult, WebhookType,
};
use crate::version;
use text::{Bound, Escaped, Millis, Nanos, Unit};

/// Everything that was counted, as text: `to_string` is one scrape.
#[derive(Debug)]
pub struct Exposition<'a> {
    metrics: &'a Metrics,
    shards: Vec<Arc<Shard>>,
    now: Wall,
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// A fact in labels; a gauge of 1 where the format has no such type.
    Info,
}

/// One family; its name is without the suffix that its kind adds.
struct Family<'a, 'f> {
    out: &'a mut Formatter<'f>,
    name: &'static str,
    kind: Kind,
}

/// Buckets, not cumulative, and sum of one histogram over all shards.
struct Reading {
    buckets: [u64; 17],
    sum: u64,
}

type Labels<'a> = &'a [(&'static str, &'a str)];

// === impl Exposition ===

impl<'a> Exposition<'a> {
    /// What is counted by now. `now` tells how old the keys are.
    pub fn new(metrics: &'a Metrics, now: Wall, format: Format) -> Self {
        Self { metrics, shards: metrics.shards(), now, format }
    }

    /// Opens a family: its type, its help, and its unit when the name ends in one.
    fn family<'o, 'f>(
        &self,
        out: &'o mut Formatter<'f>,
        kind: Kind,
        name: &'static str,
        help: &str,
    ) -> Result<Family<'o, 'f>, fmt::Error> {
        let open = self.format == Format::OpenMetrics;
        let (suffix, kind_name) = match kind {
            Kind::Counter => (if open { "" } else { "_total" }, "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
            Kind::Info => (if open { "" } else { "_info" }, if open { "info" } else { "gauge" }),
        };
        writeln!(out, "# HELP mintgate_{name}{suffix} {}", Escaped { text: help, quotes: open })?;
        writeln!(out, "# TYPE mintgate_{name}{suffix} {kind_name}")?;
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
        if let (true, Some(unit)) = (open, unit) {
            writeln!(out, "# UNIT mintgate_{name} {unit}")?;
        }
        Ok(Family { out, name, kind })
    }

    fn control(&self) -> &'a Control {
        self.metrics.control()
    }

    fn routes(&self) -> impl Iterator<Item = (RouteId, &'a str)> + use<'a> {
        self.metrics.names().routes.iter().enumerate().map(|(index, name)| (RouteId::new(index), name.as_str()))
    }

    fn templates(&self) -> impl Iterator<Item = (TemplateId, &'a str)> + use<'a> {
        self.metrics.names().templates.iter().enumerate().map(|(index, name)| (TemplateId::new(index), name.as_str()))
    }

    fn total(&self, of: impl Fn(&Shard) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| of(shard).get()).fold(0, u64::wrapping_add)
    }

    fn level(&self, of: impl Fn(&Shard) -> &Gauge) -> i64 {
        self.shards.iter().map(|shard| of(shard).get()).fold(0, i64::wrapping_add)
    }

    fn merged(&self, of: impl Fn(&Shard) -> &Histogram) -> Reading {
        let mut all = Reading { buckets: [0; 17], sum: 0 };
        for shard in &self.shards {
            let (buckets, sum) = of(shard).read();
            all.buckets.iter_mut().zip(buckets).for_each(|(into, count)| *into = into.wrapping_add(count));
            all.sum = all.sum.wrapping_add(sum);
        }
        all
    }

    /// Requests, by route.
    fn write_requests(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let mut requests = self.family(out, Kind::Counter, "requests", "Requests that ended, by how they did.")?;
        for (route, name) in self.routes() {
            for (index, outcome) in self.metrics.names().outcomes.iter().enumerate() {
                let count = self.total(|shard| shard.requests(route, OutcomeId::new(index)));
                let labels = [("route", name), ("status", &outcome.status), ("code", outcome.code)];
                requests.occurred(&labels, count)?;
            }
        }
        let help = "Time from a request's head to the end of its answer.";
        let mut times = self.family(out, Kind::Histogram, "request_seconds", help)?;
        for (route, name) in self.routes() {
            times.observed(
                &[("route", name)],
                Unit::Time,
                &self.merged(|shard| &shard.request_seconds[route.index()]),
            )?;
        }
        let help = "Time that the gateway added: to the head of the answer, without waiting for the upstream.";
        let mut overhead = self.family(out, Kind::Histogram, "overhead_seconds", help)?;
        for (route, name) in self.routes() {
            let reading = self.merged(|shard| &shard.overhead_seconds[route.index()]);
            overhead.observed(&[("route", name)], Unit::Time, &reading)?;
        }
        let help = "Time that an upstream took until the head of its answer, or until it failed.";
        let mut upstreams = self.family(out, Kind::Histogram, "upstream_seconds", help)?;
        for (index, name) in self.metrics.names().upstreams.iter().enumerate() {
            let reading = self.merged(|shard| &shard.upstream_seconds[index]);
            upstreams.observed(&[("upstream", name)], Unit::Time, &reading)?;
        }
        let help = "Requests whose head could not be parsed; they were answered 400, 414 or 431 and have no route.";
        let mut refused = self.family(out, Kind::Counter, "parse_errors", help)?;
        refused.value(&[], self.total(Shard::parse_errors))?;
        let help = "TLS handshakes with callers that either side refused; the log says why, at most every 10 s.";
        let mut refused = self.family(out, Kind::Counter, "tls_handshake_errors", help)?;
        refused.value(&[], self.total(Shard::tls_handshake_errors))
    }

    /// Sessions and tokens, by route.
    fn write_sessions(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let help = "Session checks, by what they found.";
        let mut verdicts = self.family(out, Kind::Counter, "session_verdicts", help)?;
        for (route, name) in self.routes() {
            for &verdict in Verdict::ALL {
                let count = self.total(|shard| shard.verdicts(route, verdict));
                verdicts.occurred(&[("route", name), ("verdict", verdict.as_str())], count)?;
            }
        }
        let help = "Tokens that requests asked for, by where they came from.";
        let mut lookups = self.family(out, Kind::Counter, "token_lookups", help)?;
        for (route, name) in self.routes() {
            for &result in Lookup::ALL {
                let count = self.total(|shard| shard.lookups(route, result));
                lookups.occurred(&[("route", name), ("result", result.as_str())], count)?;
            }
        }
        let help = "Requests that went on without a token because on_mint_error says so.";
        let mut degraded = self.family(out, Kind::Counter, "degraded_requests", help)?;
        for (route, name) in self.routes() {
            degraded.value(&[("route", name)], self.total(|shard| shard.degraded(route)))?;
        }
        Ok(())
    }

    /// Open connections.
    fn write_connections(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let mut open = self.family(out, Kind::Gauge, "connections", "Open connections.")?;
        for (index, name) in self.metrics.names().listeners.iter().enumerate() {
            let level = self.level(|shard| shard.connections(ListenerId::new(index)));
            open.value(&[("listener", name)], level)?;
        }
        let mut open = self.family(out, Kind::Gauge, "websockets", "Open WebSockets.")?;
        for (route, name) in self.routes() {
            open.value(&[("route", name)], self.level(|shard| shard.websockets(route)))?;
        }
        Ok(())
    }

    /// Mints and what limits them.
    fn write_mints(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let control = self.control();
        let mut mints = self.family(out, Kind::Counter, "mints", "Mints, by how they ended.")?;
        for (template, name) in self.templates() {
            for &result in MintResult::ALL {
                let count = control.mints(template, result).get();
                mints.occurred(&[("template", name), ("result", result.as_str())], count)?;
            }
        }
        let help = "Mints ahead of a token's end, by how they ended.";
        let mut refreshes = self.family(out, Kind::Counter, "refreshes", help)?;
        for (template, name) in self.templates() {
            for &result in MintResult::ALL {
                let count = control.refreshes(template, result).get();
                refreshes.occurred(&[("template", name), ("result", result.as_str())], count)?;
            }
        }
        let mut times = self.family(out, Kind::Histogram, "mint_seconds", "Time of one exchange with the issuer.")?;
        times.histogram(&[], Unit::Time, &Reading::of(&control.mint_seconds))?;
        let mut sizes = self.family(out, Kind::Histogram, "token_bytes", "Size of minted tokens.")?;
        for (template, name) in self.templates() {
            let reading = Reading::of(&control.token_bytes[template.index()]);
            sizes.observed(&[("template", name)], Unit::Bytes, &reading)?;
        }
        let help = "Calls to the issuer that the budget allows at once.";
        self.family(out, Kind::Gauge, "budget_available", help)?.value(&[], control.budget_available.get())?;
        let help = "1 while the breaker keeps calls from an issuer that fails.";
        self.family(out, Kind::Gauge, "breaker_open", help)?.value(&[], control.breaker_open.get())?;
        let help = "1 while the issuer refuses the secret key.";
        self.family(out, Kind::Gauge, "issuer_key_rejected", help)?.value(&[], control.issuer_key_rejected.get())?;
        let help = "The issuer's clock minus this machine's.";
        let offset = Millis(control.issuer_clock_offset_ms.get());
        self.family(out, Kind::Gauge, "issuer_clock_offset_seconds", help)?.value(&[], offset)
    }

    /// Keys, maps, configuration and the rest.
    fn write_state(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let control = self.control();
        let help = "Time since the verification keys were fetched; absent before the first time and with a fixed key.";
        let mut age = self.family(out, Kind::Gauge, "jwks_age_seconds", help)?;
        let last = control.jwks_fetched_at_ms.get();
        if last > 0 {
            age.value(&[], Millis(self.now.as_millis().saturating_sub(last).max(0)))?;
        }
        let mut results = self.family(out, Kind::Counter, "jwks_fetches", "Fetches of the verification keys.")?;
        for &result in Fetch::ALL {
            results.value(&[("result", result.as_str())], control.jwks_fetches(result).get())?;
        }
        let mut entries = self.family(out, Kind::Gauge, "cache_entries", "Entries in memory.")?;
        for &cache in CacheName::ALL {
            entries.value(&[("cache", cache.as_str())], control.cache_entries(cache).get())?;
        }
        let mut bytes = self.family(out, Kind::Gauge, "cache_bytes", "Bytes in memory, by weight.")?;
        for &cache in CacheName::ALL {
            bytes.value(&[("cache", cache.as_str())], control.cache_bytes(cache).get())?;
        }
        let help = "Revoked sessions and users that are remembered.";
        self.family(out, Kind::Gauge, "tombstones", help)?.value(&[], control.tombstones.get())?;
        let mut events = self.family(out, Kind::Counter, "webhook_events", "Webhooks, by what became of them.")?;
        for &kind in WebhookType::ALL {
            for &result in WebhookResult::ALL {
                let labels = [("type", kind.as_str()), ("result", result.as_str())];
                let count = control.webhook_events(kind, result).get();
                // Alerts ask for the first of these too: it has to be seen to come.
                match (kind, result) {
                    (WebhookType::Other, WebhookResult::Refused | WebhookResult::Malformed) => {
                        events.value(&labels, count)?;
                    }
                    _ => events.occurred(&labels, count)?,
                }
            }
        }
        let help = "1 while the shared cache is of use, 0 while it is not; absent where there is none.";
        let mut up = self.family(out, Kind::Gauge, "shared_up", help)?;
        if control.shared_up.get() >= 0 {
            up.value(&[], control.shared_up.get())?;
        }
        let mut shared =
            self.family(out, Kind::Counter, "shared_operations", "Calls of the shared cache, by what came.")?;
        for &operation in SharedOperation::ALL {
            for &result in SharedResult::ALL {
                let labels = [("operation", operation.as_str()), ("result", result.as_str())];
                shared.occurred(&labels, control.shared_operations(operation, result).get())?;
            }
        }
        let mut reloads = self.family(out, Kind::Counter, "config_reloads", "Configurations read after the first.")?;
        reloads.value(&[("result", "ok")], control.reloads_ok.get())?;
        reloads.value(&[("result", "failed")], control.reloads_failed.get())?;
        let help = "0 when the last reload was refused and the configuration before it serves on.";
        let good = control.last_reload_ok.get();
        self.family(out, Kind::Gauge, "config_last_reload_successful", help)?.value(&[], good)?;
        let help = "Log lines that were lost because standard error took no more.";
        let dropped = control.log_lines_dropped.get();
        self.family(out, Kind::Counter, "log_lines_dropped", help)?.value(&[], dropped)?;
        let help = "Spans that were lost because too many waited to be sent.";
        self.family(out, Kind::Counter, "spans_dropped", help)?.value(&[], control.spans_dropped.get())?;
        let help = "Spans that were sent to the collector, by what became of them.";
        let mut spans = self.family(out, Kind::Counter, "spans_exported", help)?;
        for &result in Exported::ALL {
            spans.value(&[("result", result.as_str())], control.spans_exported(result).get())?;
        }
        let mut build =
            self.family(out, Kind::Info, "build", "The version that runs, and its commit where it is known.")?;
        build.value(&[("version", version::VERSION), ("commit", version::COMMIT)], 1)
    }
}

impl Display for Exposition<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.write_requests(out)?;
        self.write_sessions(out)?;
        self.write_connections(out)?;
        self.write_mints(out)?;
        self.write_state(out)?;
        match self.format {
            Format::Prometheus => Ok(()),
            Format::OpenMetrics => out.write_str("# EOF\n"),
        }
    }
}

// === impl Family ===

impl Family<'_, '_> {
    fn value(&mut self, labels: Labels<'_>, value: impl Display) -> fmt::Result {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.sample(suffix, labels, None, value)
    }

    /// A count of a large table.
    fn occurred(&mut self, labels: Labels<'_>, count: u64) -> fmt::Result {
        if count > 0 { self.value(labels, count) } else { Ok(()) }
    }

    /// One of many histograms.
    fn observed(&mut self, labels: Labels<'_>, unit: Unit, reading: &Reading) -> fmt::Result {
        if reading.buckets.iter().any(|&count| count > 0) { self.histogram(labels, unit, reading) } else { Ok(()) }
    }

    fn histogram(&mut self, labels: Labels<'_>, unit: Unit, reading: &Reading) -> fmt::Result {
        let bounds = match unit {
            Unit::Time => &TIME_BOUNDS,
            Unit::Bytes => &BYTE_BOUNDS,
        };
        let mut count: u64 = 0;
        for (bound, bucket) in bounds.iter().map(Some).chain([None]).zip(reading.buckets) {
            // The count is what the buckets hold, so it fits them even while a worker counts on.
            count = count.wrapping_add(bucket);
            match bound {
                Some(&bound) => self.sample("_bucket", labels, Some(&Bound { bound, unit }), count)?,
                None => self.sample("_bucket", labels, Some(&"+Inf"), count)?,
            }
        }
        match unit {
            Unit::Time => self.sample("_sum", labels, None, Nanos(reading.sum))?,
            Unit::Bytes => self.sample("_sum", labels, None, reading.sum)?,
        }
        self.sample("_count", labels, None, count)
    }

    fn sample(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        le: Option<&dyn Display>,
        value: impl Display,
    ) -> fmt::Result {
        write!(self.out, "mintgate_{}{suffix}", self.name)?;
        let mut before = '{';
        for (name, text) in labels {
            write!(self.out, "{before}{name}=\"{}\"", Escaped { text, quotes: true })?;
            before = ',';
        }
        if let Some(le) = le {
            write!(self.out, "{before}le=\"{le}\"")?;
            before = ',';
        }
        if before == ',' {
            self.out.write_char('}')?;
        }
        writeln!(self.out, " {value}")
    }
}

impl Reading {
    fn of(histogram: &Histogram) -> Self {
        let (buckets, sum) = histogram.read();
        Self { buckets, sum }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Names, OutcomeName, UpstreamId};

    fn metrics() -> Metrics {
        let outcome = |status: &str, code| OutcomeName { status: status.to_owned(), code };
        Metrics::new(Names {
            routes: vec!["a\"\\\nb".to_owned()],
            templates: vec!["custom_hasura".to_owned()],
            upstreams: vec!["hasura".to_owned()],
            listeners: vec!["local".to_owned()],
            outcomes: vec![outcome("2xx", ""), outcome("401", "session-missing")],
        })
    }

    fn text(metrics: &Metrics, format: Format) -> String {
        Exposition::new(metrics, Wall::from_seconds(1000), format).to_string()
    }

    /// The lines of one family, without its help.
    fn family(text: &str, name: &str) -> String {
        let of = |line: &&str| {
            let line = line.strip_prefix("# TYPE ").or_else(|| line.strip_prefix("# UNIT ")).unwrap_or(line);
            let rest = line.strip_prefix("mintgate_").and_then(|line| line.strip_prefix(name));
            rest.is_some_and(|rest| {
                let suffixes = ["_bucket", "_sum", "_count", "_total", "_info", ""];
                suffixes.iter().any(|suffix| rest.strip_prefix(suffix).is_some_and(|rest| rest.starts_with(['{', ' '])))
            })
        };
        text.lines().filter(of).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn counts_of_all_workers_are_summed_and_what_never_occurred_is_left_out() {
        let metrics = metrics();
        for _ in 0..2 {
            let shard = metrics.shard();
            shard.requests(RouteId::new(0), OutcomeId::new(1)).bump();
            shard.verdicts(metrics.no_route(), Verdict::Missing).bump();
            shard.connections(ListenerId::new(0)).add(3);
        }
        let text = text(&metrics, Format::Prometheus);
        assert_eq!(
            family(&text, "requests"),
            "# TYPE mintgate_requests_total counter\n\
             mintgate_requests_total{route=\"a\\\"\\\\\\nb\",status=\"401\",code=\"session-missing\"} 2"
        );
        assert_eq!(
            family(&text, "session_verdicts"),
            "# TYPE mintgate_session_verdicts_total counter\n\
             mintgate_session_verdicts_total{route=\"none\",verdict=\"missing\"} 2"
        );
        assert_eq!(
            family(&text, "connections"),
            "# TYPE mintgate_connections gauge\nmintgate_connections{listener=\"local\"} 6"
        );
        assert_eq!(family(&text, "token_lookups"), "# TYPE mintgate_token_lookups_total counter");
    }

    #[test]
    fn a_histogram_is_cumulative_and_exact() {
        let metrics = metrics();
        for time in [50_000, 60_000, 300_000_000, 61_000_000_000] {
            let shard = metrics.shard();
            shard.upstream_seconds[UpstreamId::new(0).index()].observe(Duration::from_nanos(time));
        }
        let mut expected =
            String::from("# TYPE mintgate_upstream_seconds histogram\n# UNIT mintgate_upstream_seconds seconds\n");
        for (bound, count) in [
            ("5e-05", 1),
            ("0.0001", 2),
            ("0.00025", 2),
            ("0.0005", 2),
            ("0.001", 2),
            ("0.0025", 2),
            ("0.005", 2),
            ("0.01", 2),
            ("0.025", 2),
            ("0.05", 2),
            ("0.1", 2),
            ("0.25", 2),
            ("0.5", 3),
            ("1.0", 3),
            ("5.0", 3),
            ("60.0", 3),
            ("+Inf", 4),
        ] {
            let line = format!("mintgate_upstream_seconds_bucket{{upstream=\"hasura\",le=\"{bound}\"}} {count}\n");
            expected.push_str(&line);
        }
        expected.push_str("mintgate_upstream_seconds_sum{upstream=\"hasura\"} 61.300110000\n");
        expected.push_str("mintgate_upstream_seconds_count{upstream=\"hasura\"} 4");
        assert_eq!(family(&text(&metrics, Format::OpenMetrics), "upstream_seconds"), expected);
    }

    #[test]
    fn the_two_formats_differ_where_their_specifications_do() {
        let metrics = metrics();
        metrics.control().issuer_clock_offset_ms.set(-1005);
        let (plain, open) = (text(&metrics, Format::Prometheus), text(&metrics, Format::OpenMetrics));
        let (version, commit) = (version::VERSION, version::COMMIT);
        assert_eq!(
            family(&plain, "build"),
            format!(
                "# TYPE mintgate_build_info gauge\nmintgate_build_info{{version=\"{version}\",commit=\"{commit}\"}} 1"
            )
        );
        assert_eq!(
            family(&open, "build"),
            format!("# TYPE mintgate_build info\nmintgate_build_info{{version=\"{version}\",commit=\"{commit}\"}} 1")
        );
        assert_eq!(
            family(&open, "jwks_fetches"),
            "# TYPE mintgate_jwks_fetches counter\n\
             mintgate_jwks_fetches_total{result=\"ok\"} 0\nmintgate_jwks_fetches_total{result=\"failed\"} 0"
        );
        assert_eq!(
            family(&open, "issuer_clock_offset_seconds"),
            "# TYPE mintgate_issuer_clock_offset_seconds gauge\n# UNIT mintgate_issuer_clock_offset_seconds seconds\n\
             mintgate_issuer_clock_offset_seconds -1.005"
        );
        assert!(open.ends_with("# EOF\n") && !plain.contains("# EOF") && !plain.contains("# UNIT"));
    }

    #[test]
    fn the_age_of_the_keys_is_told_once_there_are_some() {
        let metrics = metrics();
        let age = |metrics: &Metrics| family(&text(metrics, Format::Prometheus), "jwks_age_seconds");
        assert_eq!(age(&metrics), "# TYPE mintgate_jwks_age_seconds gauge");
        metrics.control().jwks_fetched_at_ms.set(940_500);
        assert_eq!(age(&metrics), "# TYPE mintgate_jwks_age_seconds gauge\nmintgate_jwks_age_seconds 59.500");
    }
}
