//! What has been counted at one moment, and what happened between two of them.

use std::collections::HashMap;

use serde::Serialize;

use crate::clock::Now;
use crate::metrics::{Fetch, Histogram, Lookup, Metrics, OutcomeId, RouteId, Shard, TIME_BOUNDS, Verdict};
use crate::proxy::error::Code;

/// Everything that a status is made of, counted since the start of the process.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Now,
    /// In the order of the tables' names: the newest configuration's first, the one for "no route" last.
    pub(super) routes: Vec<Counts>,
    /// Requests that ended with a code, by code and route; only where there were any.
    pub(super) errors: HashMap<(Code, String), u64>,
    /// Why sessions were invalid; only what occurred.
    pub(super) reasons: Vec<(&'static str, u64)>,
    /// Exchanges with the issuer, by how long they took.
    pub(super) mints: Buckets,
    /// Fetches of the verification keys that failed.
    pub(super) failed_fetches: u64,
}

/// Buckets of a histogram, not cumulative.
pub(super) type Buckets = [u64; 17];

/// What one route has counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) name: String,
    pub(super) requests: u64,
    /// Answers of 400 to 499, of whoever gave them.
    pub(super) refused: u64,
    /// Answers of 500 and more, of whoever gave them.
    pub(super) failed: u64,
    pub(super) lookups: u64,
    /// Of them: out of memory.
    pub(super) hits: u64,
    pub(super) degraded: u64,
    pub(super) websockets: i64,
    pub(super) overhead: Buckets,
}

/// How an outcome is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    Refused,
    Failed,
}

/// What happened within some time, for each second of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rates {
    requests_per_second: f64,
    refused_per_second: f64,
    failed_per_second: f64,
    /// The part of the tokens that were in memory; null where none was asked for.
    token_hit_ratio: Option<f64>,
}

/// One point of the plots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Point {
    /// Milliseconds since the epoch: the end of the time that it is about.
    unix_ms: i64,
    #[serde(flatten)]
    rates: Rates,
    mints_per_second: f64,
    mint_p50_ms: Option<f64>,
    mint_p99_ms: Option<f64>,
}

// === impl Sample ===

impl Sample {
    /// What is counted by now.
    pub(super) fn read(metrics: &Metrics, at: Now) -> Self {
        let (names, shards) = (metrics.names(), metrics.shards());
        let code = |text: &str| Code::ALL.iter().copied().find(|code| code.as_str() == text);
        let outcomes: Vec<(Kind, Option<Code>)> =
            names.outcomes.iter().map(|name| (Kind::of(&name.status, name.code), code(name.code))).collect();
        let mut errors = HashMap::new();
        let routes = names.routes.iter().enumerate().map(|(index, name)| {
            let route = RouteId::new(index);
            let mut counts = Counts { name: name.clone(), ..Counts::default() };
            for (outcome, (kind, code)) in outcomes.iter().enumerate() {
                let requests = total(&shards, |shard| shard.requests(route, OutcomeId::new(outcome)).get());
                counts.count(*kind, requests);
                if let (Some(code), true) = (code, requests > 0) {
                    errors.insert((*code, name.clone()), requests);
                }
            }
            for &lookup in Lookup::ALL {
                let lookups = total(&shards, |shard| shard.lookups(route, lookup).get());
                counts.lookups = counts.lookups.wrapping_add(lookups);
                if matches!(lookup, Lookup::Hit | Lookup::Shared) {
                    counts.hits = counts.hits.wrapping_add(lookups);
                }
            }
            counts.degraded = total(&shards, |shard| shard.degraded(route).get());
            counts.websockets = shards.iter().map(|shard| shard.websockets(route).get()).sum();
            for shard in &shards {
                add(&mut counts.overhead, &shard.overhead_seconds[index]);
            }
            counts
        });
        let routes: Vec<Counts> = routes.collect();
        let invalid = &Verdict::ALL[Verdict::Malformed.index()..];
        let every = |verdict: Verdict| {
            let of =
                |shard: &Shard| (0..names.routes.len()).map(|at| shard.verdicts(RouteId::new(at), verdict).get()).sum();
            (verdict.as_str(), total(&shards, of))
        };
        let reasons = invalid.iter().map(|&verdict| every(verdict)).filter(|(_, count)| *count > 0).collect();
        let control = metrics.control();
        let mut mints = Buckets::default();
        add(&mut mints, &control.mint_seconds);
        Self { at, routes, errors, reasons, mints, failed_fetches: control.jwks_fetches(Fetch::Failed).get() }
    }

    fn seconds_since(&self, before: &Self) -> f64 {
        self.at.mono.saturating_duration_since(before.at.mono).as_secs_f64()
    }

    /// All routes in one.
    fn all(&self) -> Counts {
        let mut all = Counts::default();
        for route in &self.routes {
            all.requests = all.requests.wrapping_add(route.requests);
            all.refused = all.refused.wrapping_add(route.refused);
            all.failed = all.failed.wrapping_add(route.failed);
            all.lookups = all.lookups.wrapping_add(route.lookups);
            all.hits = all.hits.wrapping_add(route.hits);
        }
        all
    }

    /// What a route did since then, and how its overhead was spread.
    pub(super) fn route_since(&self, before: &Self, route: &Counts) -> (Rates, Buckets) {
        let none = Counts::default();
        let then = before.routes.iter().find(|then| then.name == route.name).unwrap_or(&none);
        (route.since(then, self.seconds_since(before)), difference(&route.overhead, &then.overhead))
    }

    /// What all of it did since then.
    pub(super) fn point_since(&self, before: &Self) -> Point {
        let seconds = self.seconds_since(before);
        let mints = difference(&self.mints, &before.mints);
        Point {
            unix_ms: self.at.wall.as_millis(),
            rates: self.all().since(&before.all(), seconds),
            mints_per_second: per_second(mints.iter().sum(), seconds),
            mint_p50_ms: quantile(&mints, 0.5),
            mint_p99_ms: quantile(&mints, 0.99),
        }
    }
}

fn total(shards: &[std::sync::Arc<Shard>], of: impl Fn(&Shard) -> u64) -> u64 {
    shards.iter().map(|shard| of(shard)).fold(0, u64::wrapping_add)
}

fn add(buckets: &mut Buckets, histogram: &Histogram) {
    buckets.iter_mut().zip(histogram.read().0).for_each(|(into, count)| *into = into.wrapping_add(count));
}

fn difference(now: &Buckets, then: &Buckets) -> Buckets {
    std::array::from_fn(|at| now[at].saturating_sub(then[at]))
}

// === impl Kind ===

impl Kind {
    fn of(status: &str, code: &str) -> Self {
        match status.as_bytes().first() {
            // Its caller went away: nobody was refused.
            Some(b'4') if code != crate::metrics::CLIENT_GONE => Self::Refused,
            Some(b'5') => Self::Failed,
            _ => Self::Good,
        }
    }
}

// === impl Counts ===

impl Counts {
    fn count(&mut self, kind: Kind, requests: u64) {
        self.requests = self.requests.wrapping_add(requests);
        match kind {
            Kind::Good => {}
            Kind::Refused => self.refused = self.refused.wrapping_add(requests),
            Kind::Failed => self.failed = self.failed.wrapping_add(requests),
        }
    }

    fn since(&self, then: &Self, seconds: f64) -> Rates {
        let lookups = self.lookups.saturating_sub(then.lookups);
        let hits = self.hits.saturating_sub(then.hits);
        Rates {
            requests_per_second: per_second(self.requests.saturating_sub(then.requests), seconds),
            refused_per_second: per_second(self.refused.saturating_sub(then.refused), seconds),
            failed_per_second: per_second(self.failed.saturating_sub(then.failed), seconds),
            token_hit_ratio: (lookups > 0).then(|| rounded(float(hits) / float(lookups))),
        }
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { rounded(float(count) / seconds) } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "for a reader")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// To a thousandth: more is noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Milliseconds within which this part of what was observed lies; straight lines within a bucket, as Prometheus has it.
pub(super) fn quantile(buckets: &Buckets, part: f64) -> Option<f64> {
    let all: u64 = buckets.iter().sum();
    let rank = part * float(all);
    let mut below = 0.0;
    for (at, &count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        if below + float(count) >= rank {
            let lower = at.checked_sub(1).map_or(0, |at| TIME_BOUNDS[at]);
            // What is above every bound lies at the last one, for want of a better.
            let upper = TIME_BOUNDS.get(at).copied().unwrap_or(lower);
            let within = (rank - below) / float(count);
            return Some(rounded((float(lower) + float(upper - lower) * within) / 1e6));
        }
        below += float(count);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, Wall};
    use crate::metrics::Names;
    use crate::proxy::error::{outcome_names, upstream_outcome};

    fn metrics(routes: &[&str]) -> Metrics {
        let routes = routes.iter().map(|&name| name.to_owned()).collect();
        Metrics::new(Names { routes, outcomes: outcome_names(), ..Names::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_of_the_time_between_two_samples() {
        let (metrics, clock) = (metrics(&["a", "b"]), Clock::following(Wall::from_seconds(1000)));
        let shard = metrics.shard();
        shard.requests(RouteId::new(1), Code::NoRoute.outcome()).bump();
        let before = Sample::read(&metrics, clock.now());
        for (outcome, times) in [
            (upstream_outcome(http::StatusCode::OK), 6),
            (upstream_outcome(http::StatusCode::BAD_GATEWAY), 1),
            (Code::UpstreamTimeout.outcome(), 2),
            (Code::SessionMissing.outcome(), 1),
            (metrics.client_gone(), 10),
        ] {
            (0..times).for_each(|_| shard.requests(RouteId::new(1), outcome).bump());
        }
        for (lookup, times) in [(Lookup::Hit, 3), (Lookup::Mint, 1)] {
            (0..times).for_each(|_| shard.lookups(RouteId::new(1), lookup).bump());
        }
        shard.verdicts(RouteId::new(0), Verdict::Azp).bump();
        shard.overhead_seconds[1].observe(Duration::from_micros(80));
        tokio::time::advance(Duration::from_secs(10)).await;
        let now = Sample::read(&metrics, clock.now());
        let (rates, overhead) = now.route_since(&before, &now.routes[1]);
        assert_eq!(
            rates,
            Rates {
                requests_per_second: 2.0,
                refused_per_second: 0.1,
                failed_per_second: 0.3,
                token_hit_ratio: Some(0.75)
            }
        );
        assert_eq!(overhead.iter().sum::<u64>(), 1);
        assert_eq!(now.point_since(&before).rates, rates, "there is no other traffic");
        assert_eq!(now.errors[&(Code::UpstreamTimeout, "b".to_owned())], 2);
        assert_eq!(now.errors.len(), 3, "{:?}", now.errors);
        assert_eq!(now.reasons, [("azp", 1)]);
        let silent = now.route_since(&before, &now.routes[0]).0;
        assert_eq!((silent.requests_per_second, silent.token_hit_ratio), (0.0, None));
        // No time has passed.
        assert_eq!(now.point_since(&now).rates.requests_per_second.to_bits(), 0);
    }

    #[test]
    fn a_quantile_lies_on_a_line_within_its_bucket() {
        let of = |observed: &[u64], part| {
            let histogram = Histogram::default();
            for &micros in observed {
                histogram.observe(Duration::from_micros(micros));
            }
            quantile(&histogram.read().0, part)
        };
        assert_eq!(of(&[], 0.5), None);
        assert_eq!(of(&[10], 0.5), Some(0.025));
        assert_eq!(of(&[300_000; 100], 0.99), Some(497.5), "between 250 and 500 ms");
        assert_eq!(of(&[60, 60, 60, 300_000], 0.5), Some(0.083));
        assert_eq!(of(&[90_000_000], 0.99), Some(60_000.0), "above every bound");
    }
}
