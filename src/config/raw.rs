//! The file as it is written: every key that this version knows, with its position, and nothing decided yet.
//!
//! Unknown keys and values of the wrong type are reported here, all of them; what the
//! values mean is the business of the validation. Strings are expanded already. The tables say of each key what it means,
//! which default it has and what it takes, for the JSON Schema and the reference; tests hold that against the validation.

pub(crate) mod describe;
pub(crate) mod expand;
mod issuer;
pub(crate) mod problem;
pub(crate) mod reader;
mod routes;
mod serving;
pub(crate) mod shapes;
mod shared;
mod traces;
mod upstreams;
mod ways;

use toml::de::DeTable;

use self::problem::Problems;
use self::reader::{At, Field, Read, Reader, Table, tables};
use self::shapes::Named;

pub(crate) use self::issuer::{Budget, Clerk};
pub(crate) use self::routes::{Inject, Match, RetryJson, RetryRejected, RewriteInit, Route, SessionSource, WebSocket};
pub(crate) use self::serving::{Admin, Cache, Listen, ListenTls, Log, Server};
pub(crate) use self::shared::Shared;
pub(crate) use self::traces::Traces;
pub(crate) use self::upstreams::{Pool, Upstream, UpstreamTls};
pub(crate) use self::ways::{ApiCaller, Authz, TokenApi, Webhooks};

tables! {
    /// The configuration of mintgate.
    File at "" {
        /// The Clerk instance.
        clerk: Clerk,
        /// Where requests come in.
        server: Server,
        /// Probes and metrics.
        admin: Admin,
        /// Decisions for other proxies.
        authz: Authz,
        /// Clerk's own API, with a cache.
        token_api: TokenApi,
        /// What Clerk tells of.
        webhooks: Webhooks,
        /// What is logged.
        log: Log,
        /// OpenTelemetry traces.
        traces: Traces,
        /// The tokens and sessions in memory.
        cache: Cache,
        /// Where requests go, by name.
        upstreams: Named<Upstream>,
        /// Which requests go where, and with which tokens; may be left out beside `[token_api]` and `[webhooks]`.
        routes: Vec<At<Route>>,
    }
}

/// The document, and everything about its shape that is wrong.
pub(crate) fn read(document: &DeTable<'_>, var: &dyn Fn(&str) -> Option<String>) -> (File, Problems) {
    let mut reader = Reader { problems: Problems::default(), var };
    let reported = reader.check_keys(document, File::KEYS);
    let file = File::from_table(document, reported, &mut reader);
    (file, reader.problems)
}
