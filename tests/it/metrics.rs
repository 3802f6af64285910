//! Prometheus' own tool reads what the admin listener writes.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use mintgate::admin::exposition::{Exposition, Format};
use mintgate::clock::Wall;
use mintgate::metrics::{
    CacheName, Fetch, ListenerId, Lookup, Metrics, MintResult, Names, OutcomeId, OutcomeName, RouteId, SharedOperation,
    SharedResult, TemplateId, Verdict, WebhookResult, WebhookType,
};

use crate::harness::{ALICE, Boot, Harness, call, client};

/// Runs `promtool check metrics` over a scrape in the text format 0.0.4; says so and passes where there is none.
///
/// # Panics
/// When promtool finds anything to say.
#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn promtool_accepts(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED: promtool is not installed (Debian package: prometheus)");
            return;
        }
        Err(error) => panic!("promtool: {error}"),
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = promtool.wait_with_output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

/// Every family with at least one sample, and label values that need escaping.
fn everything() -> Metrics {
    let outcome = |status: &str, code| OutcomeName { status: status.to_owned(), code };
    let metrics = Metrics::new(Names {
        routes: vec!["graphql".to_owned(), "od\\d \"route\"\né".to_owned()],
        templates: vec!["custom_hasura".to_owned()],
        upstreams: vec!["http://127.0.0.1:8090".to_owned()],
        listeners: vec!["127.0.0.1:6468".to_owned()],
        outcomes: vec![outcome("2xx", ""), outcome("401", "session-missing")],
    });
    let names = metrics.names();
    for worker in 1..3 {
        let shard = metrics.shard();
        for route in (0..names.routes.len()).map(RouteId::new) {
            for outcome in 0..names.outcomes.len() {
                shard.requests(route, OutcomeId::new(outcome)).bump();
            }
            for &verdict in Verdict::ALL {
                shard.verdicts(route, verdict).bump();
            }
            for &result in Lookup::ALL {
                shard.lookups(route, result).bump();
            }
            shard.degraded(route).bump();
            shard.websockets(route).add(1);
            shard.request_seconds[route.index()].observe(Duration::from_millis(worker));
            shard.overhead_seconds[route.index()].observe(Duration::from_micros(worker));
        }
        shard.connections(ListenerId::new(0)).add(1);
        shard.upstream_seconds[0].observe(Duration::from_secs(100 * worker));
    }
    let control = metrics.control();
    for template in (0..names.templates.len()).map(TemplateId::new) {
        for &result in MintResult::ALL {
            control.mints(template, result).add();
            control.refreshes(template, result).add();
        }
        control.token_bytes[template.index()].observe_bytes(900);
    }
    control.mint_seconds.observe_shared(Duration::from_millis(250));
    control.budget_available.set(800);
    control.issuer_clock_offset_ms.set(-1_500);
    control.jwks_fetched_at_ms.set(1_000);
    control.jwks_fetches(Fetch::Ok).add();
    control.cache_entries(CacheName::Tokens).set(3);
    for &kind in WebhookType::ALL {
        for &result in WebhookResult::ALL {
            control.webhook_events(kind, result).add();
        }
    }
    control.shared_up.set(1);
    for &operation in SharedOperation::ALL {
        for &result in SharedResult::ALL {
            control.shared_operations(operation, result).add();
        }
    }
    metrics
}

/// A scrape that has a sample of every series.
pub(crate) fn everything_as_text() -> String {
    Exposition::new(&everything(), Wall::from_seconds(60), Format::Prometheus).to_string()
}

#[test]
fn promtool_has_nothing_to_say() {
    let names = Names { routes: vec!["graphql".to_owned()], ..Names::default() };
    for metrics in [Metrics::new(names), everything()] {
        promtool_accepts(&Exposition::new(&metrics, Wall::from_seconds(60), Format::Prometheus).to_string());
    }
}

#[tokio::test]
async fn promtool_has_nothing_to_say_about_a_running_gateway() {
    let tables = "[[routes]]\nname = \"graphql\"\nupstream = \"up\"\ninject = \
                  [{ header = \"authorization\", prefix = \"Bearer \", template = \"plain\" }]\n";
    let harness = Harness::boot(Boot { tables, ..Boot::default() }).await;
    let caller = client(false);
    let bearer = harness.world.bearer(ALICE);
    for (bearer, status) in [(Some(&*bearer), 200), (Some(&*bearer), 200), (None, 401)] {
        assert_eq!(harness.get(&caller, "/", bearer).await.status, status);
    }
    let scrape = call(&caller, Method::GET, &format!("http://{}/metrics", harness.admin), &[], "").await;
    for sample in [
        "mintgate_requests_total{route=\"graphql\",status=\"2xx\",code=\"\"} 2",
        "mintgate_requests_total{route=\"graphql\",status=\"401\",code=\"session-missing\"} 1",
        "mintgate_token_lookups_total{route=\"graphql\",result=\"hit\"} 1",
        "mintgate_mints_total{template=\"plain\",result=\"ok\"} 1",
        "mintgate_cache_entries{cache=\"tokens\"} 1",
    ] {
        assert!(scrape.body.lines().any(|line| line == sample), "{sample} is not in\n{}", scrape.body);
    }
    promtool_accepts(&scrape.body);
}

/// The names are relied on: dashboards and alerts are written against them.
#[test]
fn every_family_has_the_name_that_is_relied_on() {
    let metrics = everything();
    let text = Exposition::new(&metrics, Wall::from_seconds(60), Format::Prometheus).to_string();
    let mut families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    families.sort_unstable();
    assert_eq!(
        families,
        [
            "mintgate_breaker_open gauge",
            "mintgate_budget_available gauge",
            "mintgate_build_info gauge",
            "mintgate_cache_bytes gauge",
            "mintgate_cache_entries gauge",
            "mintgate_config_last_reload_successful gauge",
            "mintgate_config_reloads_total counter",
            "mintgate_connections gauge",
            "mintgate_degraded_requests_total counter",
            "mintgate_issuer_clock_offset_seconds gauge",
            "mintgate_issuer_key_rejected gauge",
            "mintgate_jwks_age_seconds gauge",
            "mintgate_jwks_fetches_total counter",
            "mintgate_log_lines_dropped_total counter",
            "mintgate_mint_seconds histogram",
            "mintgate_mints_total counter",
            "mintgate_overhead_seconds histogram",
            "mintgate_parse_errors_total counter",
            "mintgate_refreshes_total counter",
            "mintgate_request_seconds histogram",
            "mintgate_requests_total counter",
            "mintgate_session_verdicts_total counter",
            "mintgate_shared_operations_total counter",
            "mintgate_shared_up gauge",
            "mintgate_spans_dropped_total counter",
            "mintgate_spans_exported_total counter",
            "mintgate_tls_handshake_errors_total counter",
            "mintgate_token_bytes histogram",
            "mintgate_token_lookups_total counter",
            "mintgate_tombstones gauge",
            "mintgate_upstream_seconds histogram",
            "mintgate_webhook_events_total counter",
            "mintgate_websockets gauge",
        ]
    );
}
