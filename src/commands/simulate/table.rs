//! What came of the cases, as a table, as JSON and as names in a plot.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::simulate::Outcome;
use crate::simulate::arrivals::{Pattern, Routing};
use crate::simulate::case::Case;
use crate::simulate::plot::Line;

/// A case and what came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) case: &'a Case,
    pub(super) outcome: &'a Outcome,
}

/// Something that one case may have and another not.
type Tell = fn(&Case) -> String;

const HEAD: [&str; 16] = [
    "replicas",
    "sessions",
    "lifetime",
    "routing",
    "level",
    "requests/s",
    "mints/s",
    "expected",
    "calls/s",
    "hits",
    "shared",
    "waited",
    "p50",
    "p99",
    "no token",
    "MiB each",
];

// === impl Row ===

impl<'a> Row<'a> {
    fn cells(&self) -> [String; 16] {
        let Self { case, outcome } = self;
        let figures = &outcome.figures;
        [
            case.replicas.to_string(),
            shown(case.sessions),
            time(case),
            routing(case.routing).to_owned(),
            level(case),
            rate(figures.requests_per_second),
            rate(figures.mints_per_second),
            rate(outcome.expected),
            rate(figures.calls_per_second),
            percent(figures.hit_ratio),
            percent(figures.shared),
            percent(figures.waited),
            format!("{} ms", figures.wait_p50_ms),
            format!("{} ms", figures.wait_p99_ms),
            percent(figures.refused),
            format!("{:.1}", figures.bytes_per_replica / f64::from(1 << 20)),
        ]
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let Self { case, outcome } = self;
        let sample = &outcome.sample;
        json!({
            "replicas": case.replicas,
            "sessions": case.sessions,
            "templates": case.templates,
            "lifetime_seconds": case.lifetime.as_secs_f64(),
            "every_seconds": case.every.as_secs_f64(),
            "pattern": pattern(case.pattern),
            "routing": routing(case.routing),
            "level": level(case),
            "measured_seconds": case.measured.as_secs_f64(),
            "sample": {
                "factor": sample.factor,
                "replicas": sample.replicas,
                "sessions": sample.sessions,
                "scale": sample.scale,
            },
            "expected_mints_per_second": outcome.expected,
            "figures": outcome.figures,
            "columns": outcome.columns,
        })
    }

    /// For a plot, called after what tells it from the others.
    pub(super) fn line(&self, all: &[Row<'_>]) -> Line<'a> {
        let Self { case, outcome } = self;
        let differs = |of: Tell| all.iter().any(|row| of(row.case) != of(case));
        let parts: [(&str, Tell); 5] = [
            (" replicas", |case| case.replicas.to_string()),
            (" sessions", |case| shown(case.sessions)),
            (" tokens", time),
            (" routing", |case| routing(case.routing).to_owned()),
            (" level", level),
        ];
        let name: Vec<String> =
            parts.iter().filter(|(_, of)| differs(*of)).map(|(what, of)| format!("{}{what}", of(case))).collect();
        let name = if name.is_empty() { title(std::slice::from_ref(*case)) } else { name.join(", ") };
        Line::of(name, case, &outcome.sample, &outcome.columns)
    }
}

/// The table, and what has to be known to read it.
pub(super) fn text(rows: &[Row<'_>]) -> String {
    let cells: Vec<[String; 16]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let wide = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &cells {
        let line: Vec<String> =
            row.iter().enumerate().map(|(column, cell)| format!("{cell:>wide$}", wide = wide(column))).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    for (number, row) in rows.iter().enumerate().filter(|(_, row)| !row.outcome.sample.is_whole()) {
        let (case, sample) = (row.case, &row.outcome.sample);
        let part = if case.shared.is_some() {
            format!("{} of {} sessions, and that part of the budget and of each memory", sample.sessions, case.sessions)
        } else if sample.scale < 1.0 {
            format!("a replica with one part in {:.0} of its sessions, budget and memory", 1.0 / sample.scale)
        } else {
            format!("{} of {} replicas", sample.replicas, case.replicas)
        };
        let _ = writeln!(text, "row {}: one part in {:.0} was simulated: {part}", number + 1, sample.factor);
    }
    text
}

/// What the cases have in common.
pub(super) fn title(cases: &[Case]) -> String {
    let Some(first) = cases.first() else { return String::new() };
    let common = |of: Tell| Some(of(first)).filter(|own| cases.iter().all(|case| of(case) == *own));
    let parts: [Option<String>; 5] = [
        common(|case| shown(case.sessions)).map(|of| format!("{of} sessions")),
        common(|case| case.replicas.to_string()).map(|of| format!("{of} replicas")),
        common(|case| case.templates.to_string()).filter(|of| of != "1").map(|of| format!("{of} templates")),
        common(time).map(|of| format!("tokens of {of}")),
        Some(format!("a request every {}", humantime::format_duration(first.every))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn time(case: &Case) -> String {
    humantime::format_duration(case.lifetime).to_string()
}

fn level(case: &Case) -> String {
    if case.shared.is_some() { "shared" } else { "memory" }.to_owned()
}

fn routing(of: Routing) -> &'static str {
    match of {
        Routing::Any => "any",
        Routing::Sticky => "sticky",
    }
}

fn pattern(of: Pattern) -> Value {
    match of {
        Pattern::Steady => json!("steady"),
        Pattern::Fixed => json!("fixed"),
        Pattern::Bursts(size) => json!({ "bursts": size }),
    }
}

/// In thousands and millions where nothing is lost by it.
fn shown(of: u64) -> String {
    match of {
        _ if of >= 1_000_000 && of.is_multiple_of(1_000_000) => format!("{}M", of / 1_000_000),
        _ if of >= 10_000 && of.is_multiple_of(1000) => format!("{}k", of / 1000),
        _ => of.to_string(),
    }
}

/// Three digits say enough.
fn rate(of: f64) -> String {
    match of {
        _ if of >= 1000.0 => format!("{of:.0}"),
        _ if of >= 100.0 => format!("{of:.1}"),
        _ => format!("{of:.2}"),
    }
}

fn percent(of: f64) -> String {
    format!("{:.2} %", of * 100.0)
}
