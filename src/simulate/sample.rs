//! Which part of a fleet is simulated, so that ten million sessions fit into a machine and a few minutes.
//!
//! A part is some of the replicas, each whole: with its own memory, its own share of the budget, the requests that reach it,
//! and its part of the issuer's limit. Only where one replica alone is too large is it made smaller: a part of its sessions,
//! with the same part of its budget and of its memory. What replicas share, a part of them cannot stand for: with a shared level
//! all replicas are simulated, with a part of the sessions.

use super::arrivals::{Plan, Routing};
use super::case::Case;
use crate::config;

/// Requests of one run, about a microsecond each.
const MOST_REQUESTS: f64 = 30e6;

/// Tokens in memory, under two kilobytes each.
const MOST_TOKENS: f64 = 1.5e6;

/// The part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Replicas that are simulated.
    pub replicas: u32,
    /// Sessions whose requests may reach them.
    pub sessions: u64,
    /// The part of those sessions' requests that does, 0 to 1.
    pub kept: f64,
    /// How much smaller each replica is, 0 to 1.
    pub scale: f64,
    /// What a count is multiplied with to be the whole fleet's.
    pub factor: f64,
}

// === impl Sample ===

impl Sample {
    /// For a case: what it asks for, or as much as fits.
    pub(super) fn of(case: &Case) -> Self {
        let part = case.sample.map_or_else(|| fitting(case), |factor| 1.0 / f64::from(factor.max(1)));
        let whole = f64::from(case.replicas);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the replicas")]
        let some = ((whole * part).round() as u32).clamp(1, case.replicas);
        let replicas = if case.shared.is_some() { case.replicas } else { some };
        let held = f64::from(replicas) / whole;
        // Of one replica alone, or of all of them where they share a level.
        let scale = if case.shared.is_some() { part } else { (whole * part).min(1.0) };
        let sessions = |of: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the sessions")]
            let sessions = (case.sessions_f64() * of).round() as u64;
            sessions.max(1)
        };
        match case.routing {
            Routing::Sticky => {
                let sessions = sessions(held * scale);
                Self { replicas, sessions, kept: 1.0, scale, factor: 1.0 / (held * scale) }
            }
            Routing::Any => {
                let sessions = sessions(scale);
                Self { replicas, sessions, kept: held, scale, factor: 1.0 / (held * scale) }
            }
        }
    }

    /// Whether it is everything.
    pub fn is_whole(&self) -> bool {
        self.factor <= 1.0
    }

    pub(super) fn plan(&self, case: &Case) -> Plan {
        Plan {
            pattern: case.pattern,
            every: case.every,
            routing: case.routing,
            sessions: self.sessions,
            templates: case.templates,
            replicas: self.replicas,
            kept: self.kept,
        }
    }

    /// What each simulated replica has of the budget; with a shared level what all of them have together.
    pub(super) fn budget(&self, case: &Case) -> config::Budget {
        let mut budget = config::Budget { replicas: case.replicas, ..case.budget.clone() };
        if case.shared.is_some() {
            let all = usize::try_from(std::mem::replace(&mut budget.replicas, 1)).unwrap_or(1);
            budget.max_concurrent = budget.max_concurrent.saturating_mul(all);
            budget.max_waiting = budget.max_waiting.saturating_mul(all);
        }
        if self.scale >= 1.0 {
            return budget;
        }
        config::Budget {
            // Not `requests`, which is a whole number. Less than one call of a window no gateway has: see `own_requests`.
            share: budget.share * self.scale,
            max_concurrent: part(budget.max_concurrent, self.scale, 2),
            max_waiting: part(budget.max_waiting, self.scale, 8),
            ..budget
        }
    }

    /// What each simulated replica has of the memory.
    pub(super) fn cache(&self, case: &Case) -> config::Cache {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "at most what it was"
        )]
        let max_bytes = (case.cache.max_bytes as f64 * self.scale) as u64;
        config::Cache { max_bytes, ..case.cache.clone() }
    }

    /// The part of the issuer's limit that is for the simulated part of the fleet.
    pub(super) fn part(&self) -> f64 {
        1.0 / self.factor
    }
}

/// A part of a number, and not less than so many.
fn part(of: usize, part: f64, least: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "at most what it was"
    )]
    let scaled = (of as f64 * part).ceil() as usize;
    scaled.max(least.min(of))
}

/// The part of a case that fits, 0 to 1.
fn fitting(case: &Case) -> f64 {
    let seconds = (case.warm_up + case.measured).as_secs_f64();
    let requests = case.requests() * seconds;
    let held = case.held();
    // A question to the shared level costs as much as thirty requests that are served from memory.
    let requests = if case.shared.is_some() { requests * 15.0 } else { requests };
    (MOST_REQUESTS / requests.max(1.0)).min(MOST_TOKENS / held.max(1.0)).min(1.0)
}
