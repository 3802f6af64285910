//! What is simulated, and what arithmetic alone says of it.

use std::time::Duration;

use super::arrivals::{Pattern, Routing};
use crate::config::{self, Rate};
use crate::token::freshness::Rules;

/// What is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Of everything that is random.
    pub seed: u64,
    /// Gateways.
    pub replicas: u32,
    /// Sessions that make requests all the time.
    pub sessions: u64,
    /// Templates of which each session needs tokens.
    pub templates: u32,
    /// Life time of a token.
    pub lifetime: Duration,
    /// How long a token is, in bytes.
    pub token_bytes: usize,
    /// When a session makes its requests.
    pub pattern: Pattern,
    /// The mean time between two requests of a session.
    pub every: Duration,
    /// Which replica a request reaches.
    pub routing: Routing,
    /// The issuer.
    pub issuer: Model,
    /// `[cache]`
    pub cache: config::Cache,
    /// `[clerk.budget]`, of which `replicas` follows the case.
    pub budget: config::Budget,
    /// How long the shared level takes to answer one question; `None`: there is no such level. Where there is, the budget is
    /// shared too.
    pub shared: Option<Duration>,
    /// `clerk.timeout`
    pub timeout: Duration,
    /// Whether the caches are empty at the start; else they hold what they would hold after a while.
    pub cold: bool,
    /// Time before anything is counted.
    pub warm_up: Duration,
    /// Time in which is counted.
    pub measured: Duration,
    /// The part of the fleet that is simulated, one in so many; `None`: as much as fits.
    pub sample: Option<u32>,
}

/// How the issuer is. Times are counted from the moment at which counting begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// An answer takes from so long to so long, evenly spread.
    pub latency: (Duration, Duration),
    /// Calls that it takes; `None`: any number.
    pub limit: Option<Rate>,
    /// While it answers with 503.
    pub outage: Option<Window>,
    /// While somebody else uses up its limit: each call is answered with 429.
    pub storm: Option<Window>,
}

/// A part of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub length: Duration,
}

// === impl Case ===

impl Case {
    /// What the gateways do with a token's life.
    pub fn rules(&self) -> Rules {
        Rules::from(&self.cache)
    }

    /// Requests in a second.
    pub fn requests(&self) -> f64 {
        self.sessions_f64() / self.every.as_secs_f64().max(1e-3)
    }

    /// Mints in a second where nothing is refused: the first request after a token is due has the next one minted, so each
    /// token lasts until it is due and then for as long as the requests for it are apart.
    pub fn expected(&self) -> f64 {
        let due = self.rules().replaced_after(self.lifetime).as_secs_f64();
        self.pairs() / (due + self.between().as_secs_f64())
    }

    /// Tokens that would be there if each one was kept for good.
    pub(crate) fn pairs(&self) -> f64 {
        self.sessions_f64() * f64::from(self.templates) * f64::from(self.homes())
    }

    /// The part of those that are alive at a time, 0 to 1, where nothing is refused.
    pub(crate) fn live(&self) -> f64 {
        let due = self.rules().replaced_after(self.lifetime).as_secs_f64();
        due / (due + self.between().as_secs_f64())
    }

    /// Between two requests for the same token at the same replica.
    pub(crate) fn between(&self) -> Duration {
        self.every.saturating_mul(self.templates.saturating_mul(self.homes()))
    }

    /// Replicas that have the tokens of a session minted, each for itself.
    fn homes(&self) -> u32 {
        match self.routing {
            Routing::Any if self.shared.is_none() => self.replicas,
            Routing::Sticky | Routing::Any => 1,
        }
    }

    /// Tokens in all memories at a time, where nothing is refused, and those in the shared level.
    pub(crate) fn held(&self) -> f64 {
        if self.shared.is_none() {
            return self.live() * self.pairs();
        }
        // Of each token every replica that was asked for it has a copy, besides the shared level's, which holds more beside it.
        let alone = Self { shared: None, ..self.clone() };
        alone.live() * alone.pairs() + 2.0 * self.live() * self.pairs()
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(super) fn sessions_f64(&self) -> f64 {
        self.sessions as f64
    }
}

// === impl Window ===

impl Window {
    /// What is left of it; `None` where it is not on.
    pub(super) fn left(self, after: Duration) -> Option<Duration> {
        (after >= self.at).then(|| (self.at + self.length).saturating_sub(after)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_beginning_and_an_end() {
        let window = Window { at: Duration::from_secs(10), length: Duration::from_secs(5) };
        let left = |seconds| window.left(Duration::from_secs(seconds)).map(|left| left.as_secs());
        assert_eq!([left(9), left(10), left(14), left(15)], [None, Some(5), Some(1), None]);
    }
}
