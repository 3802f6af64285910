//! What the parts of the gateway cost inside one process. `benches/README.md` says how to run what.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up fails by panicking")]
#![expect(clippy::print_stdout, reason = "what was measured")]

mod clean;
mod live;
mod lookup;
mod memory;
mod request;
mod routing;
mod session;
mod threads;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;

/// What prints a table of its own; it gets the words that follow its name.
type Table = fn(&[String]) -> ExitCode;

/// Run by their names alone.
const TABLES: [(&str, Table); 3] = [("memory", memory::main), ("live", live::main), ("threads", threads::main)];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let asked = words.first().and_then(|first| TABLES.iter().find(|(name, _)| name == first));
    if let Some((_, table)) = asked {
        return table(&words[1..]);
    }
    // Without `--bench`, as under `cargo test --benches`, criterion runs each once and measures nothing.
    let measured = std::env::args().any(|word| word == "--bench");
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    session::bench(&mut criterion);
    lookup::bench(&mut criterion, if measured { &[1_000, 1_000_000] } else { &[1_000] });
    clean::bench(&mut criterion);
    routing::bench(&mut criterion);
    request::bench(&mut criterion);
    criterion.final_summary();
    ExitCode::SUCCESS
}
