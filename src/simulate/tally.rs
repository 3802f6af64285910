//! What is counted in a simulated fleet, over the time that counts and in equal parts of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::sample::Sample;
use crate::metrics::Lookup;
use crate::token::MintError;

/// Parts of the time.
pub const COLUMNS: usize = 120;

/// Nobody waits longer, in milliseconds; whoever does counts as this.
const LONGEST_WAIT: usize = 60_000;

/// What a call of the issuer was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Minted,
    Throttled(Duration),
    Failed,
}

/// Counts.
#[derive(Debug)]
pub(super) struct Tally {
    /// When counting begins.
    begin: Instant,
    measured: Duration,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    total: Column,
    columns: Vec<Column>,
    /// How many waited for so many milliseconds.
    waits: Vec<u32>,
    tokens: u64,
    bytes: u64,
}

/// What happened in some time. As counted, before it is multiplied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Column {
    /// Requests for a token.
    pub requests: u64,
    /// A live token was in memory.
    pub hits: u64,
    /// Waited for a mint that was under way.
    pub joined: u64,
    /// Waited for a mint of its own.
    pub minted: u64,
    /// Waited for the shared level alone.
    pub shared: u64,
    /// No token: the budget's line, or the issuer's limit.
    pub throttled: u64,
    /// No token: the issuer failed, or the breaker was open.
    pub unavailable: u64,
    /// No token in time.
    pub timeout: u64,
    /// No token for another reason.
    pub other: u64,
    /// Longest wait, in milliseconds.
    pub longest_ms: u64,
    /// Calls that the issuer answered with a token.
    pub calls_minted: u64,
    /// Of those, ahead of time.
    pub calls_ahead: u64,
    /// Calls that it answered with 429.
    pub calls_throttled: u64,
    /// Calls that it answered with 503.
    pub calls_failed: u64,
}

/// What came of a case, for the whole fleet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// As counted in the part that was simulated.
    pub counted: Column,
    /// Requests for a token, in a second.
    pub requests_per_second: f64,
    /// Tokens that the issuer minted, in a second.
    pub mints_per_second: f64,
    /// All calls of the issuer, in a second.
    pub calls_per_second: f64,
    /// Of all requests, those that were served at once from memory, 0 to 1.
    pub hit_ratio: f64,
    /// Of all requests, those that the shared level alone has served, 0 to 1.
    pub shared: f64,
    /// Of all requests, those that waited for a mint and got a token, 0 to 1.
    pub waited: f64,
    /// Of all requests, those that got none, 0 to 1.
    pub refused: f64,
    /// How long those waited for a mint who got a token, in milliseconds: half of them at most so long.
    pub wait_p50_ms: u64,
    /// 99 of 100.
    pub wait_p99_ms: u64,
    /// The longest.
    pub wait_max_ms: u64,
    /// Tokens in the memory of one replica at the end, in the mean.
    pub tokens_per_replica: f64,
    /// What they weigh, in bytes.
    pub bytes_per_replica: f64,
}

// === impl Tally ===

impl Tally {
    pub(super) fn new(begin: Instant, measured: Duration) -> Self {
        let counts = Counts {
            total: Column::default(),
            columns: vec![Column::default(); COLUMNS],
            waits: vec![0; LONGEST_WAIT + 1],
            tokens: 0,
            bytes: 0,
        };
        Self { begin, measured, counts: Mutex::new(counts) }
    }

    /// Counts in the whole and in the part of the time that `at` falls into; nothing that falls outside.
    fn count(&self, at: Instant, count: impl Fn(&mut Column)) -> Option<MutexGuard<'_, Counts>> {
        let after = at.checked_duration_since(self.begin).filter(|after| *after < self.measured)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "below COLUMNS"
        )]
        let index = (after.as_secs_f64() / self.measured.as_secs_f64() * COLUMNS as f64) as usize;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut counts.total);
        count(&mut counts.columns[index.min(COLUMNS - 1)]);
        Some(counts)
    }

    /// A request that came then and was served at once.
    pub(super) fn hit(&self, at: Instant) {
        let _counted = self.count(at, |column| {
            column.requests += 1;
            column.hits += 1;
        });
    }

    /// A request that came then and has waited until now.
    pub(super) fn waited(&self, at: Instant, now: Instant, lookup: Lookup, error: Option<&MintError>) {
        let wait = usize::try_from((now - at).as_millis()).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        let counts = self.count(at, |column| {
            column.requests += 1;
            *match (error, lookup) {
                (Some(MintError::Throttled { .. }), _) => &mut column.throttled,
                (Some(MintError::Unavailable { .. }), _) => &mut column.unavailable,
                (Some(MintError::Timeout), _) => &mut column.timeout,
                (Some(_), _) | (None, Lookup::Missing) => &mut column.other,
                (None, Lookup::Hit) => &mut column.hits,
                (None, Lookup::Wait) => &mut column.joined,
                (None, Lookup::Shared) => &mut column.shared,
                (None, Lookup::Mint) => &mut column.minted,
            } += 1;
            column.longest_ms = column.longest_ms.max(wait as u64);
        });
        // A question to the shared level is short; of that the part of those served by it tells.
        let minted = error.is_none() && lookup != Lookup::Shared;
        if let (Some(mut counts), true) = (counts, minted) {
            counts.waits[wait] += 1;
        }
    }

    /// A call that reached the issuer then.
    pub(super) fn called(&self, at: Instant, answered: Answered, ahead: bool) {
        let _counted = self.count(at, |column| match answered {
            Answered::Minted => {
                column.calls_minted += 1;
                column.calls_ahead += u64::from(ahead);
            }
            Answered::Throttled(_) => column.calls_throttled += 1,
            Answered::Failed => column.calls_failed += 1,
        });
    }

    /// What is in the memory of one replica at the end.
    pub(super) fn holds(&self, tokens: i64, bytes: i64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.tokens += u64::try_from(tokens).unwrap_or(0);
        counts.bytes += u64::try_from(bytes).unwrap_or(0);
    }

    /// The figures of the whole fleet, and the parts of the time as they were counted.
    pub(super) fn told(&self, sample: &Sample) -> (Figures, Vec<Column>) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, seconds) = (counts.total, self.measured.as_secs_f64());
        let rate = |count: u64| number(count) * sample.factor / seconds;
        let part = |count: u64| number(count) / number(total.requests.max(1));
        let replica = |sum: u64| number(sum) / f64::from(sample.replicas) / sample.scale;
        let figures = Figures {
            counted: total,
            requests_per_second: rate(total.requests),
            mints_per_second: rate(total.calls_minted),
            calls_per_second: rate(total.calls()),
            hit_ratio: part(total.hits),
            shared: part(total.shared),
            waited: part(total.joined + total.minted),
            refused: part(total.refused()),
            wait_p50_ms: quantile(&counts.waits, 0.5),
            wait_p99_ms: quantile(&counts.waits, 0.99),
            wait_max_ms: quantile(&counts.waits, 1.0),
            tokens_per_replica: replica(counts.tokens),
            bytes_per_replica: replica(counts.bytes),
        };
        (figures, counts.columns.clone())
    }
}

// === impl Column ===

impl Column {
    /// Requests that got no token.
    pub fn refused(&self) -> u64 {
        self.throttled + self.unavailable + self.timeout + self.other
    }

    /// All calls of the issuer.
    pub fn calls(&self) -> u64 {
        self.calls_minted + self.calls_throttled + self.calls_failed
    }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// The smallest number of milliseconds within which `part` of all waits ended.
fn quantile(waits: &[u32], part: f64) -> u64 {
    let all: u64 = waits.iter().copied().map(u64::from).sum();
    let wanted = number(all) * part;
    let mut seen = 0;
    let found = waits.iter().position(|count| {
        seen += u64::from(*count);
        seen > 0 && number(seen) >= wanted
    });
    found.map_or(0, |found| found as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_wait_that_somebody_had() {
        let mut waits = vec![0; 400];
        assert_eq!(quantile(&waits, 0.5), 0);
        waits[10] = 98;
        waits[300] = 2;
        assert_eq!([0.5, 0.98, 0.99, 1.0].map(|part| quantile(&waits, part)), [10, 10, 300, 300]);
    }

    /// Fails where what comes before or after the time that counts is counted.
    #[tokio::test(start_paused = true)]
    async fn what_falls_outside_is_not_counted() {
        let begin = Instant::now() + Duration::from_secs(10);
        let tally = Tally::new(begin, Duration::from_mins(2));
        for after in [5, 10, 11, 129, 130] {
            tally.hit(begin - Duration::from_secs(10) + Duration::from_secs(after));
        }
        let counts = tally.counts.lock().unwrap();
        let at = |index: usize| counts.columns[index].hits;
        assert_eq!((counts.total.hits, at(0), at(1), at(119)), (3, 1, 1, 1));
    }
}
