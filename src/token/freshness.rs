//! How long a minted token is fresh: pure arithmetic. Nothing here reads a clock, waits or knows what a token is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Now, Wall};
use crate::config;

/// From the moment a refresh is due to the token's end there is at least this, so that a slow mint is back in time.
const LEAD: Duration = Duration::from_secs(2);

/// The largest part of its life by which a token is refreshed early, so that tokens minted together part ways.
const SPREAD: f64 = 0.05;

/// Longer lives are cut: no sum with an `Instant` can overflow. Clerk's own limit is ten years too.
const LONGEST: Duration = Duration::from_hours(87_600);

/// The life time of a token at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and mint the next one in the background.
    RefreshDue,
    /// Not to be sent any more.
    Dead,
}

/// What `[cache]` says about the life of tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// A token with less life is dead; at most a quarter of its life counts.
    pub min_remaining: Duration,
    /// A token is not kept longer.
    pub max_lifetime: Duration,
    /// The part of its life after which it is refreshed by use; `None`: never.
    pub refresh_at: Option<f64>,
}

/// The borders of one token's life, fixed when it was minted. Each is on both clocks, and the earlier one decides: the
/// monotonic clock does not care when the machine's clock is set, the wall clock does not stop in a suspended machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    refresh: Option<Border>,
    end: Border,
}

/// One moment on both clocks; it has come when it has on either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Border {
    /// On the monotonic clock.
    pub mono: Instant,
    /// On the wall clock.
    pub wall: Wall,
}

/// A source of numbers from 0 (included) to 1. Cheap to clone.
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn() -> f64 + Send + Sync>);

/// The whole life of a token: the smaller of `exp - iat` and `exp` minus the issuer's time when the mint was sent, since
/// a hub hands out tokens that have aged. Zero when it was dead by then. `offset_ms` is added to our wall clock to get
/// the issuer's.
pub fn lifetime(exp: Wall, iat: Option<Wall>, sent: Wall, offset_ms: i64) -> Duration {
    let left = exp.since(sent.shifted(offset_ms));
    iat.map_or(left, |iat| left.min(exp.since(iat)))
}

/// The issuer's clock minus ours, in milliseconds, out of the `Date` of an answer: the smallest offset that explains it.
/// `Date` is cut to whole seconds and was written at some moment from `sent` to `received`; clocks that agree within
/// that measure 0, not noise.
pub fn clock_offset(date: Wall, sent: Wall, received: Wall) -> i64 {
    let least = date.as_millis().saturating_sub(received.as_millis());
    let most = date.as_millis().saturating_add(999).saturating_sub(sent.as_millis());
    if least > 0 { least } else { most.min(0) }
}

// === impl Rules ===

impl From<&config::Cache> for Rules {
    fn from(cache: &config::Cache) -> Self {
        Self { min_remaining: cache.min_remaining, max_lifetime: cache.max_lifetime, refresh_at: cache.refresh_at }
    }
}

impl Rules {
    /// After how long a token of this life time is replaced by the next one while it is used all the time, in the mean.
    pub fn replaced_after(&self, lifetime: Duration) -> Duration {
        let (life, floor, end) = self.cut(lifetime.min(LONGEST));
        self.refresh_at.map_or(end, |part| refresh_after(life, floor, part, 0.5))
    }

    /// What counts of a life, what of it is not used, and when it ends.
    fn cut(&self, lifetime: Duration) -> (Duration, Duration, Duration) {
        let floor = self.min_remaining.min(lifetime / 4);
        (lifetime.min(self.max_lifetime), floor, lifetime.saturating_sub(floor).min(self.max_lifetime))
    }
}

// === impl Life ===

fn fraction(of: f64) -> f64 {
    if of.is_nan() { 0.0 } else { of.clamp(0.0, 1.0) }
}

/// After how much of its life a token is due. The design's minimum, earlier by the jitter; but never in the first quarter
/// (unless `refresh_at` itself says so), or a token of a few seconds would be minted again at every use.
fn refresh_after(life: Duration, floor: Duration, part: f64, jitter: f64) -> Duration {
    let wanted = life.mul_f64(fraction(part));
    let in_time = life.saturating_sub(floor + LEAD);
    let early = life.mul_f64(SPREAD * fraction(jitter));
    wanted.min(in_time).saturating_sub(early).max(wanted.min(life / 4))
}

impl Life {
    /// The borders of a token's life of `lifetime` from `sent_at`, that ends at `expires_at` **on our wall clock** (the
    /// measured offset already taken off). `jitter` is from 0 to 1.
    pub fn new(sent_at: Instant, lifetime: Duration, expires_at: Wall, rules: &Rules, jitter: f64) -> Self {
        // Where the life begins on the wall clock. Not before the mint was sent, since `lifetime` is at most what was
        // left then. Before it is cut: a token that ends in a thousand years begins now, not in 990.
        let begin = expires_at.minus(lifetime);
        let lifetime = lifetime.min(LONGEST);
        let (life, floor, end) = rules.cut(lifetime);
        let border = |after: Duration| Border { mono: sent_at + after, wall: begin.plus(after) };
        Self {
            refresh: rules.refresh_at.map(|part| border(refresh_after(life, floor, part, jitter))),
            end: border(end),
        }
    }

    /// When the token is dead.
    pub fn end(&self) -> Border {
        self.end
    }

    /// What may be done with the token now.
    pub fn at(&self, now: Now) -> Freshness {
        if self.end.reached(now) {
            Freshness::Dead
        } else if self.refresh.is_some_and(|refresh| refresh.reached(now)) {
            Freshness::RefreshDue
        } else {
            Freshness::Fresh
        }
    }
}

// === impl Border ===

impl Border {
    /// Whether it has come.
    pub fn reached(self, now: Now) -> bool {
        now.mono >= self.mono || now.wall >= self.wall
    }

    /// Comes when the first of both does; `None` never comes.
    pub fn first(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(Self { mono: one.mono.min(other.mono), wall: one.wall.min(other.wall) }),
            (one, other) => one.or(other),
        }
    }
}

// === impl Jitter ===

impl Jitter {
    /// Random numbers, for spreading and for nothing that an attacker must not guess: the first secure one of a process
    /// takes 50 ms to gather entropy.
    pub fn random() -> Self {
        Self(Arc::new(fastrand::f64))
    }

    /// The numbers of a function.
    pub fn of(next: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }

    /// Always the same number.
    pub fn fixed(value: f64) -> Self {
        Self(Arc::new(move || value))
    }

    /// The next number.
    pub fn next(&self) -> f64 {
        (self.0)()
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules =
        Rules { min_remaining: Duration::from_secs(5), max_lifetime: Duration::from_hours(1), refresh_at: Some(0.8) };
    const START: Wall = Wall::from_millis(1_800_000_000_000);

    fn secs(of: f64) -> Duration {
        Duration::from_secs_f64(of)
    }

    /// When refresh is due and when the token is dead, in milliseconds after the mint was sent.
    fn borders(lifetime: f64, rules: &Rules, jitter: f64) -> (u128, u128) {
        let sent = Instant::now();
        let life = Life::new(sent, secs(lifetime), START.plus(secs(lifetime)), rules, jitter);
        let refresh = life.refresh.expect("refresh is on");
        (refresh.mono.duration_since(sent).as_millis(), life.end.mono.duration_since(sent).as_millis())
    }

    #[test]
    fn refresh_is_due_early_enough_and_the_end_leaves_min_remaining() {
        for (lifetime, refresh, end) in [
            (60.0, 48_000, 55_000),
            (30.0, 23_000, 25_000),
            (300.0, 240_000, 295_000),
            (3600.0, 2_880_000, 3_595_000),
            // Of a short life a quarter is kept back, and it is not refreshed at every use.
            (12.0, 7_000, 9_000),
            (4.0, 1_000, 3_000),
            (1.0, 250, 750),
            // Longer than it may be kept.
            (86_400.0, 2_880_000, 3_600_000),
        ] {
            assert_eq!(borders(lifetime, &RULES, 0.0), (refresh, end), "{lifetime}");
        }
    }

    #[test]
    fn jitter_moves_a_refresh_earlier_by_at_most_a_twentieth() {
        assert_eq!(borders(60.0, &RULES, 0.5).0, 46_500);
        assert_eq!(borders(60.0, &RULES, 1.0).0, 45_000);
        assert_eq!(borders(60.0, &RULES, 7.0).0, 45_000);
        assert_eq!(borders(60.0, &RULES, f64::NAN).0, 48_000);
    }

    /// Fails where it is not the time at which [`Life`] says that a refresh is due, or the end where there is none.
    #[test]
    fn a_token_in_use_is_replaced_when_it_is_due() {
        for lifetime in [1.0, 4.0, 30.0, 60.0, 300.0, 86_400.0] {
            let after = RULES.replaced_after(secs(lifetime)).as_millis();
            assert_eq!(after, borders(lifetime, &RULES, 0.5).0, "{lifetime}");
            let never = Rules { refresh_at: None, ..RULES };
            assert_eq!(never.replaced_after(secs(lifetime)).as_millis(), borders(lifetime, &RULES, 0.5).1);
        }
    }

    #[test]
    fn refresh_can_be_off() {
        let rules = Rules { refresh_at: None, ..RULES };
        let sent = Instant::now();
        let life = Life::new(sent, secs(60.0), START.plus(secs(60.0)), &rules, 0.0);
        let now = Now { mono: sent + secs(54.0), wall: START.plus(secs(54.0)) };
        assert_eq!(life.at(now), Freshness::Fresh);
    }

    #[test]
    fn either_clock_alone_ends_a_life() {
        let sent = Instant::now();
        let life = Life::new(sent, secs(60.0), START.plus(secs(60.0)), &RULES, 0.0);
        let at = |mono: f64, wall: f64| life.at(Now { mono: sent + secs(mono), wall: START.plus(secs(wall)) });
        assert_eq!(at(54.9, 0.0), Freshness::RefreshDue);
        assert_eq!(at(55.0, 0.0), Freshness::Dead, "a clock that was set back");
        assert_eq!(at(1.0, 48.0), Freshness::RefreshDue, "a machine that slept");
        assert_eq!(at(1.0, 55.0), Freshness::Dead, "a machine that slept long");
        assert_eq!(at(47.9, 47.9), Freshness::Fresh);
    }

    /// Fails when `max_lifetime` is no bound on the end.
    #[test]
    fn a_token_that_ends_in_a_thousand_years_is_kept_for_max_lifetime_on_either_clock() {
        let (sent, millennium) = (Instant::now(), Duration::from_hours(24 * 365 * 1000));
        let life = Life::new(sent, millennium, START.plus(millennium), &RULES, 0.0);
        let at = |mono: u64, wall: u64| {
            life.at(Now { mono: sent + Duration::from_secs(mono), wall: START.plus(Duration::from_secs(wall)) })
        };
        assert_eq!((at(3599, 3599), at(3600, 0)), (Freshness::RefreshDue, Freshness::Dead));
        assert_eq!(at(1, 3600), Freshness::Dead, "a machine that slept");
    }

    /// Whatever the configuration and the token say. Fails without `LONGEST`: an `Instant` would overflow.
    #[test]
    fn no_life_is_too_long_to_be_added_to_a_time() {
        let rules = Rules { max_lifetime: Duration::MAX, ..RULES };
        let sent = Instant::now();
        let life = Life::new(sent, Duration::MAX, START, &rules, 0.0);
        assert_eq!(life.at(Now { mono: sent, wall: START.minus(Duration::MAX) }), Freshness::Fresh);
    }

    #[test]
    fn a_life_is_the_smaller_of_what_the_token_says_and_what_is_left() {
        let at = |seconds: i64| Wall::from_seconds(1_000_000 + seconds);
        for (exp, iat, sent, offset_ms, expected) in [
            (60, Some(0), 0, 0, 60),
            // Aged in a hub.
            (60, Some(0), 45, 0, 15),
            // Our clock is an hour behind, an hour ahead; the issuer's Date told.
            (60, Some(0), -3600, 3_600_000, 60),
            (60, Some(0), 3600, -3_600_000, 60),
            // Our clock is behind, and nobody told.
            (60, Some(0), -3600, 0, 60),
            (60, None, 10, 0, 50),
            (60, Some(0), 61, 0, 0),
            (0, Some(60), -5, 0, 0),
        ] {
            let life = lifetime(at(exp), iat.map(at), at(sent), offset_ms);
            assert_eq!(life, Duration::from_secs(expected), "{exp} {iat:?} {sent} {offset_ms}");
        }
    }

    #[test]
    fn clocks_that_agree_measure_no_offset() {
        let ms = |of: i64| Wall::from_millis(1_000_000 + of);
        for (date, sent, received, expected) in [
            (0, 0, 300, 0),
            (0, 900, 999, 0),
            (0, 999, 1400, 0),
            (1000, 900, 1100, 0),
            // Ahead of us, behind us: by what cannot be explained otherwise.
            (10_000, 0, 300, 9_700),
            (0, 10_000, 10_300, -9_001),
        ] {
            assert_eq!(clock_offset(ms(date), ms(sent), ms(received)), expected, "{date} {sent} {received}");
        }
    }

    #[test]
    fn random_jitter_stays_in_its_range() {
        let jitter = Jitter::random();
        let seen: Vec<f64> = (0..200).map(|_| jitter.next()).collect();
        assert!(seen.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(seen.windows(2).any(|pair| (pair[0] - pair[1]).abs() > f64::EPSILON));
    }

    proptest! {
        #[test]
        fn no_life_leaves_less_than_min_remaining(
            // Most lives end by themselves, and not because a token may be kept no longer.
            lifetime in prop_oneof![3 => 0_u64..600_000, 1 => 0_u64..400_000_000_000],
            min in 0_u64..120_000, max in prop_oneof![3 => 300_000_u64..4_000_000, 1 => 1_u64..100_000_000],
            part in -1.0..2.0_f64, jitter in -1.0..2.0_f64, wall in any::<i64>(),
        ) {
            let rules = Rules {
                min_remaining: Duration::from_millis(min),
                max_lifetime: Duration::from_millis(max),
                refresh_at: Some(part),
            };
            let (sent, lifetime) = (Instant::now(), Duration::from_millis(lifetime));
            let life = Life::new(sent, lifetime, Wall::from_millis(wall), &rules, jitter);
            let end = life.end.mono.duration_since(sent);
            let refresh = life.refresh.unwrap().mono.duration_since(sent);
            let lifetime = lifetime.min(LONGEST);
            prop_assert!(lifetime.saturating_sub(end) >= rules.min_remaining.min(lifetime / 4));
            prop_assert!(end <= rules.max_lifetime);
            prop_assert!(refresh <= lifetime);
            // The quarter of a long life that a small `max_lifetime` cuts is not reached.
            prop_assert!(refresh <= end.max(rules.max_lifetime));
        }

        #[test]
        fn an_offset_explains_the_date(date in 0_i64..4_000_000, sent in 0_i64..4_000_000, took in 0_i64..60_000) {
            let (date, sent) = (Wall::from_millis(date / 1000 * 1000), Wall::from_millis(sent));
            let received = sent.shifted(took);
            let offset = clock_offset(date, sent, received);
            prop_assert!(sent.shifted(offset) < date.shifted(1000));
            prop_assert!(received.shifted(offset) >= date);
        }
    }
}
