//! A million live sessions with their tokens against a thousand: what a look-up and a request cost, as a ratio.

use std::process::ExitCode;

use crate::lookup::Known;
use crate::request::{Decisions, Whole};
use crate::world::{Dice, nanos_each, spread};

const FEW: usize = 1000;
const MANY: usize = 1_000_000;
const ROUNDS: usize = 7;

/// What a request may cost at most, as a multiple.
const LIMIT: f64 = 1.35;

/// Another number of live sessions than a million may be given.
pub(crate) fn main(words: &[String]) -> ExitCode {
    let many = words.first().map_or(MANY, |word| word.parse().unwrap());
    let (few, many) = (Known::new(FEW), Known::new(many));
    let sizes = [&few, &many].map(Known::len);
    println!(
        "| ns on a CPU, middle of {ROUNDS} rounds (least to greatest) | {} live | {} live | ratio |",
        sizes[0], sizes[1]
    );
    println!("|---|---|---|---|");
    rounds("session by tag", 2_000_000, [&few, &many].map(|known| move |caller| known.session(caller)), sizes);
    rounds("token by key", 2_000_000, [&few, &many].map(|known| move |caller| known.token(caller)), sizes);
    rounds("session, then its token", 1_000_000, [&few, &many].map(|known| move |caller| known.both(caller)), sizes);
    let mut decisions = [&few, &many].map(|known| Decisions::new(&known.world, known.world.worker.clone()));
    let decide = decisions.each_mut().map(|decisions| move |caller| decisions.next(caller));
    rounds("decision of a request", 300_000, decide, sizes);
    let mut wholes = [&few, &many].map(|known| (known, Whole::new(&known.world)));
    let ask = wholes.each_mut().map(|(known, whole)| move |caller| whole.ask(&known.world, caller));
    let ratio = rounds("whole request", 50_000, ask, sizes);
    println!("\n{} sessions and their tokens weigh {} and {} MiB.", sizes[1], many.weights().0, many.weights().1);
    if ratio > LIMIT { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints a row; the two in turn, each with random callers. Returns the ratio.
fn rounds(what: &str, count: u32, mut calls: [impl FnMut(usize); 2], sizes: [usize; 2]) -> f64 {
    let mut dice = Dice::new(11);
    let mut taken = [Vec::new(), Vec::new()];
    // The first round warms up.
    for round in 0..=ROUNDS {
        for ((call, size), taken) in calls.iter_mut().zip(sizes).zip(&mut taken) {
            let each = nanos_each(count, || call(dice.roll(size)));
            if round > 0 {
                taken.push(each);
            }
        }
    }
    let ratios = taken[0].iter().zip(&taken[1]).map(|(few, many)| many / few).collect();
    let (ratio, least, greatest) = spread(ratios);
    let [few, many] = taken.map(spread);
    println!(
        "| {what} | {:.0} ({:.0} to {:.0}) | {:.0} ({:.0} to {:.0}) | {ratio:.2} ({least:.2} to {greatest:.2}) |",
        few.0, few.1, few.2, many.0, many.1, many.2
    );
    ratio
}
