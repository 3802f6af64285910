//! The proxy from outside: what goes in on one socket, what comes out on another.

mod ambiguity;
mod clerk_app;
mod counted;
mod deadlines;
mod expect;
mod extended;
mod first_message;
mod hostile;
mod identity;
mod issuer_faults;
mod jwks_faults;
mod late_session;
mod listeners;
mod odd_paths;
mod pools;
mod protocols;
mod queues;
mod refusals;
mod require;
mod resend;
mod retry;
mod retry_json;
mod retry_rules;
mod session;
mod session_id;
mod shown;
mod tls;
mod tunnel;
mod upgrade;
mod upstream_faults;
mod upstream_tls;
mod upstreams;
mod wss;

use crate::support::gateway::{Boot, Gateway};
use crate::support::issuer::Issuer;
use crate::support::upstream::{OK, Upstream};

/// An upstream that answers `ok`, and a gateway in front of it. In the tables `{up}` is the upstream's URL.
async fn behind(tables: &str) -> (Gateway, Upstream) {
    in_front_of(Upstream::answering(OK).await, tables).await
}

/// The same, with session tokens and minted tokens of an issuer that the test commands.
async fn trusting(issuer: &Issuer, tables: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::answering(OK).await;
    let gateway = Boot::new(tables.replace("{up}", &upstream.url())).trusting(issuer).start().await;
    (gateway, upstream)
}

/// A gateway in front of that upstream.
async fn in_front_of(upstream: Upstream, tables: &str) -> (Gateway, Upstream) {
    let gateway = Gateway::start(tables.replace("{up}", &upstream.url())).await;
    (gateway, upstream)
}

/// A request without a body; every header line ends in `\r\n`.
pub(crate) fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n{headers}\r\n")
}

/// A route for everything that needs a session and injects a minted token.
const MINTING: &str = r#"
[[routes]]
name = "all"
upstream = "{up}"
inject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura" }]
"#;

/// A public route for everything.
const PUBLIC: &str = r#"
[[routes]]
name = "all"
upstream = "{up}"
session = []
"#;
