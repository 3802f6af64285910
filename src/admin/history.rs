//! The last minutes: what the plots begin with, what rates are reckoned from, and when each error was seen last.
//!
//! Counters are looked at every [`LOOK_EVERY`], whoever watches: that is all that runs for the status page when nobody
//! does, and it runs beside the requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::traffic::{Point, Sample};
use crate::proxy::error::Code;

/// Between two looks. An error is dated this exactly while nobody watches.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Rates are of this long.
const MINUTE: usize = 12;

/// The plots go back this far: five minutes.
const POINTS: usize = 60;

/// What was seen at the looks.
#[derive(Debug)]
pub(super) struct History(Mutex<Looks>);

#[derive(Debug)]
struct Looks {
    /// The last minute's, the newest last. Never empty.
    samples: VecDeque<Sample>,
    points: VecDeque<Point>,
    errors: HashMap<(Code, String), u64>,
    last: HashMap<Code, Instant>,
    failed_fetches: u64,
    fetch_failed: Option<Instant>,
}

/// A sample as it stands in the last minutes.
#[derive(Debug)]
pub(super) struct View {
    /// The oldest sample that rates are reckoned from, a minute old where the process is.
    pub(super) base: Sample,
    /// The last few seconds.
    pub(super) point: Point,
    /// When each code was seen last.
    pub(super) last: HashMap<Code, Instant>,
    /// When a fetch of the verification keys failed last.
    pub(super) fetch_failed: Option<Instant>,
}

// === impl History ===

impl History {
    /// Begins with what is counted already, such as nothing.
    pub(super) fn new(first: Sample) -> Self {
        let (errors, failed_fetches) = (first.errors.clone(), first.failed_fetches);
        Self(Mutex::new(Looks {
            samples: VecDeque::from([first]),
            points: VecDeque::new(),
            errors,
            last: HashMap::new(),
            failed_fetches,
            fetch_failed: None,
        }))
    }

    /// One look: keeps the sample.
    pub(super) fn look(&self, sample: Sample) {
        let mut looks = self.looks();
        looks.note(&sample);
        let point = looks.samples.back().map(|before| sample.point_since(before));
        looks.points.extend(point);
        looks.samples.push_back(sample);
        let (old, older) = (looks.samples.len().saturating_sub(MINUTE + 1), looks.points.len().saturating_sub(POINTS));
        looks.samples.drain(..old);
        looks.points.drain(..older);
    }

    /// A sample between two looks, which is not kept.
    pub(super) fn view(&self, sample: &Sample) -> View {
        let mut looks = self.looks();
        looks.note(sample);
        let long_ago = |then: &&Sample| sample.at.mono.saturating_duration_since(then.at.mono) >= LOOK_EVERY;
        let recent = looks.samples.iter().rev().find(long_ago).or(looks.samples.front());
        View {
            point: sample.point_since(recent.unwrap_or(sample)),
            base: looks.samples.front().unwrap_or(sample).clone(),
            last: looks.last.clone(),
            fetch_failed: looks.fetch_failed,
        }
    }

    /// The points of the last minutes, the newest last.
    pub(super) fn points(&self) -> Vec<Point> {
        self.looks().points.iter().copied().collect()
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Looks ===

impl Looks {
    /// What has been counted since the last time happened now.
    fn note(&mut self, sample: &Sample) {
        for (error, count) in &sample.errors {
            if self.errors.get(error) != Some(count) {
                self.last.insert(error.0, sample.at.mono);
                self.errors.insert(error.clone(), *count);
            }
        }
        if sample.failed_fetches != self.failed_fetches {
            self.failed_fetches = sample.failed_fetches;
            self.fetch_failed = Some(sample.at.mono);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Wall};
    use crate::metrics::{Metrics, Names, RouteId};
    use crate::proxy::error::outcome_names;

    struct Test {
        metrics: Metrics,
        clock: Clock,
        history: History,
    }

    impl Test {
        fn new() -> Self {
            let clock = Clock::following(Wall::from_seconds(1000));
            let names = Names { routes: vec!["a".to_owned()], outcomes: outcome_names(), ..Names::default() };
            let metrics = Metrics::new(names);
            let history = History::new(Sample::read(&metrics, clock.now()));
            Self { metrics, clock, history }
        }

        fn sample(&self) -> Sample {
            Sample::read(&self.metrics, self.clock.now())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_dated_by_the_look_that_first_sees_it() {
        let test = Test::new();
        let shard = test.metrics.shard();
        let began = Instant::now();
        let last = || {
            let view = test.history.view(&test.sample());
            view.last.get(&Code::SessionMissing).map(|at| (*at - began).as_secs())
        };
        assert_eq!(last(), None);
        shard.requests(RouteId::new(0), Code::SessionMissing.outcome()).bump();
        tokio::time::advance(LOOK_EVERY).await;
        test.history.look(test.sample());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(last(), Some(5), "nothing new since");
        shard.requests(RouteId::new(0), Code::SessionMissing.outcome()).bump();
        assert_eq!(last(), Some(7));
    }

    /// Fails where old looks are not let go.
    #[tokio::test(start_paused = true)]
    async fn a_minute_of_samples_and_five_of_points_are_kept() {
        let test = Test::new();
        for _ in 0..200 {
            tokio::time::advance(LOOK_EVERY).await;
            test.history.look(test.sample());
        }
        assert_eq!(test.history.points().len(), POINTS);
        let sample = test.sample();
        let base = test.history.view(&sample).base;
        assert_eq!(sample.at.mono - base.at.mono, Duration::from_mins(1));
    }
}
