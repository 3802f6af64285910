//! `mintgate simulate`: says what a fleet of gateways would do to the issuer, and what its callers would notice.

mod table;
mod values;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::config::validate::{self, Environment, Secrets};
use crate::config::{Budget, Cache, Config, Rate};
use crate::simulate::arrivals::{Pattern, Routing};
use crate::simulate::case::{Case, Model, Window};
use crate::simulate::plot::{self, Line};
use crate::simulate::{self, Outcome, SimulateError};

use super::check;
use super::console::Console;

use self::table::Row;

/// Simulate a fleet: how many mints a second, how many requests wait, and how many get no token.
///
/// The cache, the retries, the breaker and the budget are the real ones; callers, clocks and the issuer are not. Lists
/// (10,100) are simulated one by one, a row of the table and a line of the plot for each.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Gateways; by default [clerk.budget] replicas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::small)]
    replicas: Vec<u32>,
    /// Sessions that make requests all the time: 5000, 20k, 10M.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1000", value_parser = values::count)]
    sessions: Vec<u64>,
    /// Templates of which each session needs tokens.
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::small)]
    templates: u32,
    /// Life time of a token.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "5m", value_parser = values::positive)]
    lifetime: Vec<Duration>,
    /// The mean time between two requests of a session.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::positive)]
    every: Duration,
    /// Requests come at random, exactly so often, or --burst at once.
    #[arg(long, value_enum, default_value = "steady")]
    pattern: Shape,
    /// Requests of one burst.
    #[arg(long, value_name = "N", default_value = "6", value_parser = values::small)]
    burst: u32,
    /// A session's requests reach always the same replica, or any.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "any")]
    routing: Vec<Way>,
    /// Tokens are kept in each replica's memory alone, or in a level that all share too ([cache.shared]); then they share the
    /// budget as well.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "memory")]
    level: Vec<Level>,
    /// How long the shared level takes to answer.
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = values::positive)]
    shared_latency: Duration,
    /// How long the issuer takes to answer.
    #[arg(long, value_name = "FROM-TO", default_value = "250ms-300ms", value_parser = values::range)]
    latency: (Duration, Duration),
    /// Calls that the issuer takes, or off; by default as [clerk.budget] has it.
    #[arg(long, value_name = "N/DURATION", value_parser = values::limit)]
    limit: Option<values::Limit>,
    /// The issuer fails for so long, so long after counting has begun: 1m@2m.
    #[arg(long, value_name = "LENGTH@AT", value_parser = values::window)]
    outage: Option<Window>,
    /// The issuer answers 429 for so long, so long after counting has begun: 30s@2m.
    #[arg(long, value_name = "LENGTH@AT", value_parser = values::window)]
    storm: Option<Window>,
    /// Begin with empty caches, and count from the first request.
    #[arg(long)]
    cold: bool,
    /// How long to simulate before anything is counted; by default a token's life.
    #[arg(long, value_name = "DURATION", conflicts_with = "cold", value_parser = humantime::parse_duration)]
    warm_up: Option<Duration>,
    /// How long to count; by default two lives of a token, and ten minutes at least.
    #[arg(long, value_name = "DURATION", value_parser = values::positive)]
    duration: Option<Duration>,
    /// How long a token is, in bytes.
    #[arg(long, value_name = "N", default_value = "900", value_parser = values::small)]
    token_bytes: u32,
    /// Simulate one part in so many; by default as much as fits into three gigabytes and a minute or two.
    #[arg(long, value_name = "N", value_parser = values::small)]
    sample: Option<u32>,
    /// Of everything that is random: the same seed gives the same figures.
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Take [cache], [clerk.budget] and clerk.timeout from this configuration; else Clerk's limit of a production instance, and
    /// defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Variables for the configuration, as in .env.local; the environment's own go before them.
    #[arg(long, value_name = "FILE", requires = "config")]
    env_file: Option<PathBuf>,
    /// Draw it, over time: an SVG picture.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `--pattern`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shape {
    Steady,
    Fixed,
    Bursts,
}

/// `--routing`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    Any,
    Sticky,
}

/// `--level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Memory,
    Shared,
}

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// `--plot`
    #[error("cannot write {}", .path.display())]
    Plot {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A stream cannot be written.
    #[error("cannot write")]
    Output(#[from] io::Error),
}

/// A configuration that says nothing: the defaults are the validation's.
const LEAST: &str = "[[routes]]\nname = \"none-here\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n";

/// What of a configuration counts.
struct Base {
    cache: Cache,
    budget: Budget,
    timeout: Duration,
}

// === impl Args ===

impl Args {
    /// `--env-file`
    pub fn env_file(&self) -> Option<&Path> {
        self.env_file.as_deref()
    }

    /// One case for each choice out of the lists.
    fn cases(&self, base: &Base) -> Vec<Case> {
        let own = [base.budget.replicas.max(1)];
        let replicas = if self.replicas.is_empty() { &own[..] } else { &self.replicas };
        let mut cases = Vec::new();
        for &lifetime in &self.lifetime {
            for &sessions in &self.sessions {
                for &replicas in replicas {
                    for &routing in &self.routing {
                        for &level in &self.level {
                            let shared = (level == Level::Shared).then_some(self.shared_latency);
                            let case = self.case(base, lifetime, sessions, replicas, routing);
                            cases.push(Case { shared, ..case });
                        }
                    }
                }
            }
        }
        cases
    }

    fn case(&self, base: &Base, lifetime: Duration, sessions: u64, replicas: u32, routing: Way) -> Case {
        let limit = Rate { count: base.budget.requests, per: base.budget.per };
        Case {
            seed: self.seed,
            replicas,
            sessions,
            templates: self.templates,
            lifetime,
            token_bytes: usize::try_from(self.token_bytes).unwrap_or(900),
            pattern: match self.pattern {
                Shape::Steady => Pattern::Steady,
                Shape::Fixed => Pattern::Fixed,
                Shape::Bursts => Pattern::Bursts(self.burst),
            },
            every: self.every,
            routing: match routing {
                Way::Any => Routing::Any,
                Way::Sticky => Routing::Sticky,
            },
            issuer: Model {
                latency: self.latency,
                limit: self.limit.map_or(Some(limit), |limit| limit.0),
                outage: self.outage,
                storm: self.storm,
            },
            cache: base.cache.clone(),
            budget: base.budget.clone(),
            shared: None,
            timeout: base.timeout,
            cold: self.cold,
            warm_up: if self.cold { Duration::ZERO } else { self.warm_up.unwrap_or(lifetime) },
            measured: self.duration.unwrap_or_else(|| (lifetime * 2).max(Duration::from_mins(10))),
            sample: self.sample,
        }
    }
}

/// Prints the table, or JSON, to `out`; and to `err`, on a terminal, how far it has come.
///
/// # Errors
/// See [`CommandError`].
pub fn run(args: &Args, environment: &dyn Environment, to: &mut Console<'_>) -> Result<ExitCode, CommandError> {
    let path = args.config.as_deref().unwrap_or(Path::new("mintgate.toml"));
    let read = match &args.config {
        Some(path) => validate::load(path, environment, Secrets::Replaced),
        None => validate::parse(LEAST, path, environment, Secrets::Replaced),
    };
    let base = match read {
        Ok((config, _)) => Base::of(&config),
        Err(diagnostics) => return Ok(check::refused(path, &diagnostics, to.err_colours, to.err)?),
    };
    let cases = args.cases(&base);
    let mut outcomes = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let place = format!("{} of {}", index + 1, cases.len());
        outcomes.push(one(case, &place, to)?);
    }
    let rows: Vec<Row<'_>> = cases.iter().zip(&outcomes).map(|(case, outcome)| Row { case, outcome }).collect();
    if args.json {
        let all: Vec<_> = rows.iter().map(Row::json).collect();
        writeln!(to.out, "{:#}", json!({ "seed": args.seed, "cases": all }))?;
    } else {
        write!(to.out, "{}", table::text(&rows))?;
    }
    if let Some(path) = &args.plot {
        let lines: Vec<Line<'_>> = rows.iter().map(|row| row.line(&rows)).collect();
        let svg = plot::plot(&table::title(&cases), &lines);
        fs::write(path, svg).map_err(|source| CommandError::Plot { path: path.clone(), source })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a case, and tells a terminal how far it has come.
fn one(case: &Case, place: &str, to: &mut Console<'_>) -> Result<Outcome, CommandError> {
    let (shown, err) = (to.err_colours, &mut *to.err);
    // Whoever has gone away from the terminal is told nothing.
    let mut tell = |text: &str| drop(write!(err, "\r{text:<40}\r").and_then(|()| err.flush()));
    let outcome = simulate::run(case, &mut |done| {
        if shown {
            tell(&format!("case {place}: {:.0} %", done * 100.0));
        }
    });
    if shown {
        tell("");
    }
    Ok(outcome?)
}

// === impl Base ===

impl Base {
    fn of(config: &Config) -> Self {
        let clerk = &config.clerk;
        Self { cache: config.cache.clone(), budget: clerk.budget.clone(), timeout: clerk.timeout }
    }
}
