//! When requests come, of which session, and to which replica. Nothing is kept for a session, so ten million cost nothing.

use std::time::Duration;

use fastrand::Rng;

/// When a session makes its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// At random, each independent of the others (a Poisson process).
    Steady,
    /// Exactly every so often.
    Fixed,
    /// So many at once, as a page does that loads; the same number in the mean.
    Bursts(u32),
}

/// Which replica a request reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// Always the same for one session.
    Sticky,
    /// Any.
    Any,
}

/// One request for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// After the start, in whole milliseconds.
    pub at: Duration,
    /// Whose.
    pub session: u64,
    /// Which one of the templates.
    pub template: u32,
    /// Where.
    pub replica: u32,
}

/// What the requests of a fleet, or of a part of it, are made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// When a session makes its requests.
    pub pattern: Pattern,
    /// The mean time between two requests of a session.
    pub every: Duration,
    /// Which replica a request reaches.
    pub routing: Routing,
    /// Sessions.
    pub sessions: u64,
    /// Templates.
    pub templates: u32,
    /// Replicas that are looked at.
    pub replicas: u32,
    /// The part of all requests that reaches one of them, 0 to 1.
    pub kept: f64,
}

/// The requests in the order in which they come, without end.
#[derive(Debug)]
pub struct Arrivals {
    plan: Plan,
    rng: Rng,
    /// Seconds after the start of the last event: a request, or a burst of them.
    last: f64,
    /// Events before this one.
    events: u64,
    /// Requests of the present burst that are to come, of whom, and which one is next.
    burst: (u64, u32),
}

// === impl Arrivals ===

impl Arrivals {
    /// The requests of a plan.
    pub fn new(plan: Plan, seed: u64) -> Self {
        Self { plan, rng: Rng::with_seed(seed), last: 0.0, events: 0, burst: (0, 0) }
    }

    /// Every request, whether it is kept or not.
    fn any(&mut self) -> (u64, u32) {
        let Plan { pattern, sessions, templates, .. } = self.plan;
        let gap = self.gap();
        match pattern {
            Pattern::Steady => {
                self.last += self.exponential(gap);
                (self.rng.u64(..sessions), self.rng.u32(..templates))
            }
            Pattern::Fixed => {
                let (round, session) = (self.events / sessions, self.events % sessions);
                #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
                let last = self.events as f64 * gap;
                self.last = last;
                self.events += 1;
                (session, u32::try_from(round % u64::from(templates)).unwrap_or(0))
            }
            Pattern::Bursts(size) => {
                if self.burst.1 == 0 {
                    self.last += self.exponential(gap * f64::from(size.max(1)));
                    self.burst = (self.rng.u64(..sessions), size.max(1));
                }
                self.burst.1 -= 1;
                (self.burst.0, self.burst.1 % templates)
            }
        }
    }

    /// The mean time between two requests of all sessions, in seconds. Where each request comes by itself, those that are not
    /// kept need not be made.
    fn gap(&self) -> f64 {
        let Plan { pattern, every, sessions, kept, .. } = self.plan;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let gap = every.as_secs_f64() / sessions as f64;
        if pattern == Pattern::Steady { gap / kept } else { gap }
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        // From (0, 1]: the logarithm of zero has no end.
        -mean * (1.0 - self.rng.f64()).ln()
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let Plan { pattern, routing, replicas, kept, .. } = self.plan;
        loop {
            let (session, template) = self.any();
            if pattern != Pattern::Steady && kept < 1.0 && self.rng.f64() >= kept {
                continue;
            }
            let replica = match routing {
                Routing::Sticky => u32::try_from(session % u64::from(replicas)).unwrap_or(0),
                Routing::Any => self.rng.u32(..replicas),
            };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive time")]
            let at = Duration::from_millis((self.last * 1000.0) as u64);
            return Some(Arrival { at, session, template, replica });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pattern: Pattern, kept: f64) -> Plan {
        let every = Duration::from_secs(10);
        Plan { pattern, every, routing: Routing::Any, sessions: 100, templates: 2, replicas: 4, kept }
    }

    fn within(plan: Plan, seconds: u64) -> Vec<Arrival> {
        Arrivals::new(plan, 7).take_while(|arrival| arrival.at < Duration::from_secs(seconds)).collect()
    }

    /// Fails where thinning is forgotten, or done twice.
    #[test]
    fn every_pattern_has_the_rate_that_was_asked_for() {
        for pattern in [Pattern::Steady, Pattern::Fixed, Pattern::Bursts(5)] {
            for kept in [1.0, 0.25] {
                let made = within(plan(pattern, kept), 1000).len();
                let wanted = 10_000.0 * kept;
                #[expect(clippy::cast_precision_loss, reason = "few")]
                let off = (made as f64 - wanted).abs() / wanted;
                assert!(off < 0.1, "{pattern:?} {kept}: {made}");
            }
        }
    }

    #[test]
    fn they_come_in_order_and_are_the_same_for_the_same_seed() {
        for pattern in [Pattern::Steady, Pattern::Fixed, Pattern::Bursts(5)] {
            let (one, other) = (within(plan(pattern, 1.0), 100), within(plan(pattern, 1.0), 100));
            assert_eq!(one, other);
            assert!(one.windows(2).all(|pair| pair[0].at <= pair[1].at));
            assert!(one.iter().any(|arrival| arrival.template == 1) && one.iter().any(|arrival| arrival.replica == 3));
        }
    }

    #[test]
    fn a_session_that_sticks_has_one_replica() {
        let sticky = Plan { routing: Routing::Sticky, ..plan(Pattern::Steady, 1.0) };
        assert!(within(sticky, 100).iter().all(|arrival| u64::from(arrival.replica) == arrival.session % 4));
    }
}
