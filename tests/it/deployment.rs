//! What is watched is what is counted: alerts, dashboard and docs/operations.md against the metrics, codes and reasons.

use std::collections::{BTreeMap, BTreeSet};

use mintgate::metrics::{
    CacheName, Fetch, Lookup, MintResult, SharedOperation, SharedResult, Verdict, WebhookResult, WebhookType,
};
use mintgate::proxy::error::Code;

use crate::metrics::everything_as_text;

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const ALERTS_TEST: &str = include_str!("../../deploy/prometheus/alerts_test.yaml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/dashboard.json");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// Labels that Prometheus adds to each sample of a scrape.
const ADDED: [&str; 2] = ["job", "instance"];

/// Every series that a scrape can have, with the names of its labels.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let text = everything_as_text();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for sample in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = sample.split(['{', ' ']).next().unwrap();
        let labels = found.entry(name.to_owned()).or_default();
        if let Some((_, rest)) = sample.split_once('{') {
            // No label's name stands in a value of these: `="` only follows names.
            let ends = rest.match_indices("=\"").map(|(at, _)| at);
            labels.extend(ends.map(|at| rest[..at].rsplit(|c: char| !is_word(c)).next().unwrap().to_owned()));
        }
        labels.extend(ADDED.map(str::to_owned));
    }
    found
}

fn is_word(of: char) -> bool {
    of.is_ascii_alphanumeric() || of == '_'
}

/// The values that a label can have, where they are a closed set.
fn values(label: &str) -> Option<BTreeSet<&'static str>> {
    let codes = || Code::ALL.iter().map(|code| code.as_str());
    Some(match label {
        "code" => codes().chain(["", "client-gone"]).collect(),
        "verdict" => Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect(),
        "result" => {
            let mints = MintResult::ALL.iter().map(|result| result.as_str());
            let lookups = Lookup::ALL.iter().map(|result| result.as_str());
            let webhooks = WebhookResult::ALL.iter().map(|result| result.as_str());
            let fetches = Fetch::ALL.iter().map(|result| result.as_str());
            let shared = SharedResult::ALL.iter().map(|result| result.as_str());
            mints.chain(lookups).chain(fetches).chain(webhooks).chain(shared).collect()
        }
        "operation" => SharedOperation::ALL.iter().map(|operation| operation.as_str()).collect(),
        "type" => WebhookType::ALL.iter().map(|kind| kind.as_str()).collect(),
        "cache" => CacheName::ALL.iter().map(|cache| cache.as_str()).collect(),
        _ => return None,
    })
}

/// A label that a query compares, and with what.
struct Compared<'a> {
    label: &'a str,
    value: &'a str,
}

/// What stands in the braces after a series' name.
fn compared(braces: &str) -> Vec<Compared<'_>> {
    let mut found = Vec::new();
    let mut rest = braces;
    while let Some((before, after)) = rest.split_once('"') {
        let (value, behind) = after.split_once('"').expect(braces);
        found.push(Compared { label: before.trim_matches(|c: char| !is_word(c)), value });
        rest = behind;
    }
    found
}

/// Holds the queries of a text against what a scrape has.
fn check(name: &str, text: &str) -> BTreeSet<String> {
    let series = series();
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("mintgate_") {
        if text[..at].ends_with(is_word) {
            continue;
        }
        let end = text[at..].find(|c: char| !is_word(c)).map_or(text.len(), |end| at + end);
        let word = &text[at..end];
        let family = word.trim_end_matches("_bucket");
        let labels = series.get(word).or_else(|| series.get(&format!("{word}_bucket")));
        let labels = labels.unwrap_or_else(|| panic!("{name}: nothing is called {word}"));
        used.insert(family.to_owned());
        let Some(braces) = text[end..].strip_prefix('{') else { continue };
        let braces = &braces[..braces.find('}').expect(word)];
        for Compared { label, value } in compared(braces) {
            assert!(labels.contains(label), "{name}: {word} has no label {label}");
            if let Some(known) = values(label) {
                for value in value.split('|') {
                    assert!(known.contains(value), "{name}: {word}: no {label} is ever {value:?}");
                }
            }
        }
    }
    used
}

/// Labels that are summed by, anywhere in a text.
fn check_sums(name: &str, text: &str) {
    let all: BTreeSet<String> = series().into_values().flatten().collect();
    for by in text.split(" by (").skip(1) {
        for label in by.split(')').next().unwrap().split(", ") {
            // `alertname` is Prometheus' own.
            assert!(all.contains(label) || label == "alertname", "{name}: nothing has the label {label}");
        }
    }
}

/// Fails when a metric, a label or a value that an alert or a panel asks for is renamed.
#[test]
fn alerts_and_dashboard_ask_for_what_is_counted() {
    // The dashboard's queries are JSON strings.
    let dashboard = DASHBOARD.replace("\\\"", "\"");
    let alerted = check("alerts.yaml", ALERTS);
    assert!(alerted.len() > 10, "only {alerted:?}");
    check("alerts_test.yaml", ALERTS_TEST);
    let shown = check("dashboard.json", &dashboard);
    for (name, text) in [("alerts.yaml", ALERTS), ("dashboard.json", &dashboard)] {
        check_sums(name, text);
    }
    let families: BTreeSet<String> = families().map(str::to_owned).collect();
    let missing: Vec<_> = families.difference(&shown).collect();
    assert!(missing.is_empty(), "the dashboard does not show {missing:?}");
}

fn families() -> impl Iterator<Item = &'static str> {
    let text: &'static str = everything_as_text().leak();
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
}

/// The names behind `- alert: `.
fn alerts() -> impl Iterator<Item = &'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: "))
}

/// Fails without an alert's heading in docs/operations.md, its runbook, or its scenario in alerts_test.yaml.
#[test]
fn every_alert_is_told_what_to_do_about_and_tried() {
    let mut seen = 0;
    for (alert, text) in alerts().zip(ALERTS.split("- alert: ").skip(1)) {
        seen += 1;
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(text.contains(part), "{alert}: no {part}");
        }
        let anchor = alert.to_lowercase();
        assert!(text.contains(&format!("runbook: docs/operations.md#{anchor}\n")), "{alert}: no runbook");
        assert!(OPERATIONS.contains(&format!("\n### {alert}\n")), "{alert} is not in docs/operations.md");
        assert!(ALERTS_TEST.contains(&format!("alertname=\"{alert}\"")), "{alert} fires in no test");
    }
    assert!(seen > 15, "only {seen} were found");
    for heading in OPERATIONS.lines().filter_map(|line| line.strip_prefix("### Mintgate")) {
        assert!(alerts().any(|alert| alert == format!("Mintgate{heading}")), "no alert is called Mintgate{heading}");
    }
}

/// The first cells of a table's rows, without back-ticks.
fn rows(heading: &str) -> BTreeSet<&'static str> {
    let (_, text) = OPERATIONS.split_once(&format!("# {heading}\n")).expect(heading);
    let text = text.split("\n#").next().unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.collect()
}

/// Fails when a code, a reason or a metric is added and not told of.
#[test]
fn operations_has_every_code_every_reason_and_every_metric() {
    assert_eq!(rows("Error codes"), Code::ALL.iter().map(|code| code.as_str()).collect());
    let reasons = Verdict::ALL.iter().map(|verdict| verdict.as_str()).skip_while(|verdict| *verdict != "malformed");
    assert_eq!(rows("Reasons of session-invalid"), reasons.collect());
    assert_eq!(rows("Metrics"), families().collect());
}
