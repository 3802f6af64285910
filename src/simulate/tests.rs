//! What a simulated fleet must show: the rules of the cache and of the budget, and arithmetic.

use std::time::Duration;

use super::arrivals::{Pattern, Routing};
use super::case::{Model, Window};
use super::plot::Line;
use super::*;
use crate::config::{self, Rate};
use crate::token::fake::budget;

const MINUTE: Duration = Duration::from_mins(1);

/// One replica with a hundred sessions, an issuer without a limit and a budget that is never short.
fn case() -> Case {
    Case {
        seed: 1,
        replicas: 1,
        sessions: 100,
        templates: 1,
        lifetime: MINUTE,
        token_bytes: 100,
        pattern: Pattern::Steady,
        every: Duration::from_secs(5),
        routing: Routing::Any,
        issuer: Model {
            latency: (Duration::from_millis(250), Duration::from_millis(300)),
            limit: None,
            outage: None,
            storm: None,
        },
        cache: config::Cache {
            max_bytes: 64 << 20,
            max_session_bytes: 0,
            min_remaining: Duration::from_secs(5),
            max_lifetime: Duration::from_hours(1),
            refresh_at: Some(0.8),
            missing_ttl: Some(Duration::from_secs(5)),
        },
        budget: budget(),
        shared: None,
        timeout: Duration::from_secs(5),
        cold: false,
        warm_up: MINUTE,
        measured: 10 * MINUTE,
        sample: None,
    }
}

fn simulated(case: &Case) -> Outcome {
    run(case, &mut |_| ()).unwrap()
}

#[track_caller]
fn assert_near(found: f64, wanted: f64, part: f64) {
    assert!((found - wanted).abs() <= part * wanted, "{found} is not near {wanted}");
}

/// Fails where a hash, a jitter or a latency is drawn anew in each process or each run.
#[test]
fn the_same_seed_gives_the_same_figures_and_another_one_does_not() {
    let case = Case { replicas: 3, measured: 2 * MINUTE, ..case() };
    let first = simulated(&case);
    assert_eq!(first, simulated(&case));
    assert_ne!(first.figures, simulated(&Case { seed: 2, ..case }).figures);
}

/// Fails where mints that nobody asks for are made, or where one that is under way is not shared.
#[test]
fn mints_are_what_arithmetic_expects() {
    for (replicas, routing) in [(1, Routing::Any), (4, Routing::Sticky), (4, Routing::Any)] {
        let case = Case { replicas, routing, ..case() };
        let outcome = simulated(&case);
        assert_near(outcome.figures.mints_per_second, outcome.expected, 0.03);
        let counted = outcome.figures.counted;
        assert_eq!((counted.refused(), counted.calls()), (0, counted.calls_minted));
        assert_near(outcome.figures.requests_per_second, 20.0, 0.03);
    }
}

/// Nobody waits for a token that is in use: it is replaced while it lives. Fails without the refresh in `Fleet::ask`.
#[test]
fn a_token_in_use_is_replaced_before_it_ends() {
    let case = Case { pattern: Pattern::Fixed, every: Duration::from_secs(2), ..case() };
    let counted = simulated(&case).figures.counted;
    assert_eq!((counted.hits, counted.calls_ahead), (counted.requests, counted.calls_minted));
}

/// Fails where each request of a burst has its own mint.
#[test]
fn a_burst_of_requests_waits_for_one_mint() {
    let case = Case { pattern: Pattern::Bursts(6), every: Duration::from_mins(5), ..case() };
    let figures = simulated(&case).figures;
    assert_eq!(figures.counted.joined, 5 * figures.counted.minted);
    assert!((250..=300).contains(&figures.wait_p50_ms), "{figures:?}");
}

/// An outage costs only those whose token ends in it. Fails where the outage reaches nobody, or everybody.
#[test]
fn live_tokens_outlast_a_short_outage() {
    let outage = Some(Window { at: 2 * MINUTE, length: Duration::from_secs(10) });
    let case = Case { lifetime: 5 * MINUTE, warm_up: 5 * MINUTE, every: Duration::from_secs(2), ..case() };
    let issuer = Model { outage, ..case.issuer.clone() };
    let short = simulated(&Case { issuer: issuer.clone(), ..case.clone() }).figures.counted;
    assert!(short.calls_failed > 0, "{short:?}");
    assert_eq!(short.refused(), 0);
    let outage = Some(Window { at: 2 * MINUTE, length: 6 * MINUTE });
    let long = simulated(&Case { issuer: Model { outage, ..issuer }, ..case }).figures.counted;
    assert!(long.unavailable > long.requests / 10 && long.hits > long.requests / 10, "{long:?}");
}

/// A 429 that one mint is answered holds up all of them. Fails where the budget does not hear of it.
#[test]
fn a_storm_of_429_is_heard_and_costs_few_calls() {
    let storm = Some(Window { at: 2 * MINUTE, length: MINUTE });
    let case = case();
    let issuer =
        Model { limit: Some(Rate { count: 1000, per: Duration::from_secs(10) }), storm, ..case.issuer.clone() };
    let counted = simulated(&Case { issuer, ..case }).figures.counted;
    assert!(counted.throttled > 0 && (1..=6 * 32).contains(&counted.calls_throttled), "{counted:?}");
}

/// Ours is below the issuer's limit: it never says 429. Fails where a replica takes the whole budget.
#[test]
fn a_fleet_keeps_to_its_budget() {
    let case = Case { replicas: 4, sessions: 2000, every: Duration::from_secs(20), measured: 3 * MINUTE, ..case() };
    let rate = Rate { count: 100, per: Duration::from_secs(10) };
    let budget = config::Budget { requests: rate.count, ..case.budget.clone() };
    let issuer = Model { limit: Some(rate), ..case.issuer.clone() };
    let figures = simulated(&Case { issuer, budget, ..case }).figures;
    assert_eq!(figures.counted.calls_throttled, 0);
    assert_near(figures.mints_per_second, 8.0, 0.03);
    assert!(figures.refused > 0.3, "{figures:?}");
}

/// Fails where a part of a fleet has not the same part of its budget, of its memory or of its requests.
#[test]
fn a_part_of_a_fleet_shows_what_the_whole_does() {
    for (replicas, sample, routing) in [(10, 5, Routing::Sticky), (10, 5, Routing::Any), (1, 4, Routing::Any)] {
        let budget = config::Budget { requests: 150, ..case().budget };
        let every = Duration::from_secs(10);
        let whole = Case { replicas, routing, sessions: 1500, budget, every, measured: 3 * MINUTE, ..case() };
        let part = Case { sample: Some(sample), ..whole.clone() };
        let (whole, part) = (simulated(&whole).figures, simulated(&part));
        assert_near(part.sample.factor, f64::from(sample), 0.01);
        assert!(part.figures.counted.requests < whole.counted.requests / 3);
        let part = part.figures;
        assert_near(part.requests_per_second, whole.requests_per_second, 0.03);
        assert_near(part.mints_per_second, whole.mints_per_second, 0.03);
        assert_near(part.tokens_per_replica, whole.tokens_per_replica, 0.05);
        let off = (part.hit_ratio - whole.hit_ratio).abs().max((part.refused - whole.refused).abs());
        assert!(off < 0.02, "{part:?}\n{whole:?}");
    }
}

/// Fails where the factor divides, which showed a part of a part.
#[test]
fn calls_of_a_part_are_drawn_as_those_of_the_whole() {
    let budget = config::Budget { requests: 150, ..case().budget };
    let whole = Case { replicas: 10, sessions: 1500, budget, measured: 3 * MINUTE, ..case() };
    let part = Case { sample: Some(5), ..whole.clone() };
    let [whole, part] = [whole, part].map(|case| {
        let outcome = simulated(&case);
        let calls = Line::of(String::new(), &case, &outcome.sample, &outcome.columns).calls();
        calls.iter().sum::<f64>() / tally::number(calls.len() as u64)
    });
    assert_near(part, whole, 0.05);
}

/// Fails where each replica mints for itself although they share a level, or where all of them have but one share of the
/// budget.
#[test]
fn what_replicas_share_is_minted_once() {
    let alone = Case { replicas: 8, measured: 5 * MINUTE, ..case() };
    let shared = Case { shared: Some(Duration::from_millis(1)), ..alone.clone() };
    let (alone, shared) = (simulated(&alone).figures, simulated(&shared));
    assert_near(shared.figures.mints_per_second, shared.expected, 0.05);
    assert!(shared.figures.mints_per_second * 2.0 < alone.mints_per_second);
    assert!(shared.figures.counted.shared > shared.figures.counted.minted && alone.counted.shared == 0);
    assert_eq!(shared.figures.counted.refused(), 0);
}

/// Fails where a part of the sessions has all of the budget or of the memory.
#[test]
fn a_part_of_the_sessions_shows_what_all_of_them_do_with_a_shared_level() {
    let budget = config::Budget { requests: 200, ..case().budget };
    let shared = Some(Duration::from_millis(1));
    let whole = Case { replicas: 8, sessions: 1500, shared, budget, measured: 3 * MINUTE, ..case() };
    let part = Case { sample: Some(3), ..whole.clone() };
    let (whole, part) = (simulated(&whole).figures, simulated(&part).figures);
    assert_near(part.mints_per_second, whole.mints_per_second, 0.03);
    let off = [(part.hit_ratio, whole.hit_ratio), (part.shared, whole.shared), (part.refused, whole.refused)];
    assert!(off.iter().all(|(part, whole)| (part - whole).abs() < 0.03), "{part:?}\n{whole:?}");
}

/// A memory that is too small gives tokens away that were still good. Fails where `max_bytes` does not count.
#[test]
fn a_memory_that_is_too_small_costs_mints() {
    let large = Case { sessions: 2000, every: Duration::from_secs(10), lifetime: 5 * MINUTE, ..case() };
    let small = Case { cache: config::Cache { max_bytes: 1 << 20, ..large.cache.clone() }, ..large.clone() };
    let (large, small) = (simulated(&large).figures, simulated(&small).figures);
    assert!(small.bytes_per_replica <= f64::from(1 << 20) && small.tokens_per_replica < large.tokens_per_replica);
    assert!(small.mints_per_second > 2.0 * large.mints_per_second, "{small:?}\n{large:?}");
}

/// Fails where a cold start is not counted from its first request.
#[test]
fn a_cold_start_mints_everything_at_once() {
    let case = Case { cold: true, warm_up: Duration::ZERO, measured: MINUTE, pattern: Pattern::Fixed, ..case() };
    let outcome = simulated(&case);
    assert_eq!(outcome.figures.counted.minted, 100);
    assert!(outcome.columns[0].minted > 0);
}
