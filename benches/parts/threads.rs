//! What two workers share, used by one thread and by two at once.
//!
//! The same with nothing shared tells what the machine itself does to two busy threads: caches, frequency, memory.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use mintgate::lifecycle::Spawner;
use mintgate::metrics::{Lookup, OutcomeId, RouteId, Verdict};
use mintgate::proxy::worker::Worker;

use crate::lookup::Known;
use crate::request::Decisions;
use crate::world::{Dice, nanos_each, spread};

const CALLERS: usize = 1000;
const ROUNDS: usize = 7;

/// What a thread does beside another one, as a multiple of what it takes alone.
const LIMIT: f64 = 1.15;

/// One operation, `count` times on the calling thread, in nanoseconds each.
type Work = fn(&Known, u64) -> f64;

const PARTS: [(&str, Work); 5] = [
    ("session memory", sessions),
    ("token cache", tokens),
    ("both", both),
    ("metrics", metrics),
    ("decision of a request", decisions),
];

pub(crate) fn main(_: &[String]) -> ExitCode {
    let (shared, other) = (Known::new(CALLERS), Known::new(CALLERS));
    println!(
        "| ns on a CPU, middle of {ROUNDS} rounds | 1 thread | 2 threads | ratio (least to greatest) | ratio with nothing shared |"
    );
    println!("|---|---|---|---|---|");
    let mut good = true;
    for (what, work) in PARTS {
        let mut rounds = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let alone = work(&shared, 1);
            let together = pair(work, &shared, &shared);
            let apart = pair(work, &shared, &other);
            for (round, value) in rounds.iter_mut().zip([alone, together, together / alone, apart / alone]) {
                round.push(value);
            }
        }
        let [alone, together, ratio, apart] = rounds.map(spread);
        println!(
            "| {what} | {:.0} | {:.0} | {:.2} ({:.2} to {:.2}) | {:.2} |",
            alone.0, together.0, ratio.0, ratio.1, ratio.2, apart.0
        );
        good &= what != PARTS[4].0 || ratio.0 <= LIMIT;
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Two threads at once: the mean of what an operation takes on each.
fn pair(work: Work, one: &Known, two: &Known) -> f64 {
    let begin = Barrier::new(2);
    std::thread::scope(|scope| {
        let threads = [(one, 1), (two, 2)].map(|(known, seed)| {
            let begin = &begin;
            scope.spawn(move || {
                begin.wait();
                work(known, seed)
            })
        });
        threads.map(|thread| thread.join().unwrap()).iter().sum::<f64>() / 2.0
    })
}

fn sessions(known: &Known, seed: u64) -> f64 {
    let mut dice = Dice::new(seed);
    nanos_each(5_000_000, || known.session(dice.roll(CALLERS)))
}

fn tokens(known: &Known, seed: u64) -> f64 {
    let mut dice = Dice::new(seed);
    nanos_each(4_000_000, || known.token(dice.roll(CALLERS)))
}

fn both(known: &Known, seed: u64) -> f64 {
    let mut dice = Dice::new(seed);
    nanos_each(3_000_000, || known.both(dice.roll(CALLERS)))
}

/// As a request counts, on a shard of this thread's own.
fn metrics(known: &Known, _: u64) -> f64 {
    let shard = known.world.metrics.shard();
    let (route, outcome, time) = (RouteId::new(0), OutcomeId::new(0), Duration::from_micros(70));
    nanos_each(20_000_000, || {
        shard.requests(route, outcome).bump();
        shard.request_seconds[0].observe(black_box(time));
        shard.overhead_seconds[0].observe(black_box(time));
        shard.upstream_seconds[0].observe(black_box(time));
        shard.verdicts(route, Verdict::Valid).bump();
        shard.lookups(route, Lookup::Hit).bump();
    })
}

/// By a worker of this thread's own, made here as the program does it.
fn decisions(known: &Known, seed: u64) -> f64 {
    let world = &known.world;
    let spawner = Spawner::new(world.runtime.handle().clone());
    let worker = Worker::new(Arc::clone(&world.gateway), world.clock.clone(), spawner);
    let (mut decisions, mut dice) = (Decisions::new(world, worker), Dice::new(seed));
    nanos_each(500_000, || decisions.next(dice.roll(CALLERS)))
}
