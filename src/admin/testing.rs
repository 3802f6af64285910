//! What tests of the status share: a gateway's facts and counts without a gateway.

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::facts::Facts;
use super::history::History;
use super::status::{Hook, Status};
use super::traffic::Sample;
use crate::clock::{Clock, Wall};
use crate::config::Config;
use crate::config::validate::{self, Secrets};
use crate::lifecycle::{Needs, Readiness, Shutdown};
use crate::live::Live;
use crate::metrics::ledger::Ledger;
use crate::metrics::{Metrics, Names};
use crate::proxy::error::outcome_names;

const CONFIG: &str = r#"
[clerk]
secret_key = { env = "CLERK_SECRET_KEY" }
publishable_key = "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k"
budget = { requests = 100, share = 0.5 }
[[routes]]
name = "graphql"
match = { host = "*.example.com", path = "/v1/graphql", methods = ["GET", "POST"] }
upstream = "http://127.0.0.1:8090"
inject = [{ header = "authorization", template = "hasura" }]
"#;

/// A configuration with one route, as `check` has it.
pub(super) fn config() -> Config {
    struct Set;
    impl validate::Environment for Set {
        fn var(&self, _: &str) -> Option<String> {
            Some("sk_test_canary".to_owned())
        }
        fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
            Err(std::io::Error::other("there is no file"))
        }
        fn exists(&self, _: &Path) -> bool {
            false
        }
    }
    let parsed = validate::parse(CONFIG, Path::new("test.toml"), &Set, Secrets::Required);
    parsed.unwrap_or_else(|problems| panic!("{problems}")).0
}

/// Of a gateway that is ready.
pub(super) fn status(shutdown: &Shutdown, hooks: Vec<Hook>) -> (Arc<Status>, Arc<Metrics>) {
    let (config, clock) = (config(), Clock::following(Wall::from_seconds(1_800_000_000)));
    let names = Names {
        routes: vec!["graphql".to_owned()],
        templates: vec!["hasura".to_owned()],
        listeners: vec!["local".to_owned()],
        outcomes: outcome_names(),
        ..Names::default()
    };
    let metrics = Arc::new(Metrics::new(names));
    let readiness = Readiness::new(shutdown.clone(), Needs::default());
    readiness.set_listening();
    let status = Status {
        ledger: Arc::new(Ledger::new(Arc::clone(&metrics))),
        readiness,
        history: History::new(Sample::read(&metrics, clock.now())),
        clock,
        hooks,
        facts: Live::new(Facts::of(&config, 1)),
        started: Instant::now(),
    };
    (Arc::new(status), metrics)
}
