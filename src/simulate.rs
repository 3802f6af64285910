//! What a fleet of gateways does to an issuer, before there is one: the real cache, retries, breaker and budget of each
//! replica, over a simulated issuer and simulated callers, in virtual time and without sockets.
//!
//! Time is that of a paused runtime: it jumps to the next timer as soon as nothing is left to do, so an hour of a fleet takes
//! seconds. One thread, one seed, and hashes that do not change from process to process: the same case gives the same
//! figures.

pub mod arrivals;
pub mod case;
mod fleet;
mod issuer;
mod keys;
mod level;
pub mod plot;
pub mod sample;
pub mod tally;
mod time;

use self::case::Case;
use self::sample::Sample;
use self::tally::{Column, Figures};
pub use self::time::SimulateError;

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The part that was simulated.
    pub sample: Sample,
    /// Over the time that is counted, for the whole fleet.
    pub figures: Figures,
    /// The same in equal parts of that time.
    pub columns: Vec<Column>,
    /// Mints in a second that arithmetic expects where nothing is refused.
    pub expected: f64,
}

/// Simulates a case. `progress` hears how much is done, from 0 to 1.
///
/// # Errors
/// See [`SimulateError`].
pub fn run(case: &Case, progress: &mut (dyn FnMut(f64) + Send)) -> Result<Outcome, SimulateError> {
    let sample = Sample::of(case);
    let tally = time::runtime()?.block_on(fleet::drive(case, &sample, progress));
    let (figures, columns) = tally.told(&sample);
    Ok(Outcome { sample, figures, columns, expected: case.expected() })
}

#[cfg(test)]
mod tests;
