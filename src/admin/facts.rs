//! What the status page tells of the configuration that is in use: names, places and limits, and nothing secret.

use tokio::time::Instant;

use crate::config::{Config, HostPattern, KeySource, Matcher, Route, Source};

/// Of one configuration.
#[derive(Debug)]
pub struct Facts {
    /// Counts the configurations of the process, from 1.
    pub generation: u64,
    /// Since when it is in use.
    pub since: Instant,
    /// In the order of their ids.
    pub routes: Vec<RouteFacts>,
    /// Calls to the issuer that may be made at once, and in how many seconds that many come back; absent where nothing
    /// calls it.
    pub budget: Option<(f64, f64)>,
    /// Whether some route mints.
    pub mints: bool,
    /// Where the verification keys come from: `issuer`, `pinned` or `none`.
    pub keys: &'static str,
    /// Seconds between two fetches of them.
    pub keys_refresh: Option<f64>,
    /// Room for minted tokens and for verified sessions, in bytes.
    pub room: [u64; 2],
}

/// Of one route.
#[derive(Debug)]
pub struct RouteFacts {
    /// Its name.
    pub name: String,
    /// What it answers to, as one line.
    pub matches: String,
    /// The name of its upstream.
    pub upstream: String,
    /// Whether it injects what must be minted.
    pub mints: bool,
}

// === impl Facts ===

impl Facts {
    /// Of the `generation`th configuration, in use from now on.
    pub fn of(config: &Config, generation: u64) -> Self {
        let (keys, refresh) = match &config.clerk.keys {
            KeySource::Jwks { refresh, .. } => ("issuer", Some(refresh.as_secs_f64())),
            KeySource::Pinned(_) => ("pinned", None),
            KeySource::None => ("none", None),
        };
        let budget = &config.clerk.budget;
        let route = |route: &Route| RouteFacts {
            name: route.name.clone(),
            matches: matches(&route.matcher, config),
            upstream: config.upstream_of(route).map(|to| to.name.clone()).unwrap_or_default(),
            mints: route.inject.iter().any(|injection| matches!(injection.source, Source::Minted(_))),
        };
        Self {
            generation,
            since: Instant::now(),
            routes: config.routes.iter().map(route).collect(),
            budget: (!config.clerk.secret_keys.is_empty()).then(|| (budget.own_requests(), budget.per.as_secs_f64())),
            mints: !config.minted.is_empty(),
            keys,
            keys_refresh: refresh,
            room: [config.cache.max_bytes, config.cache.max_session_bytes],
        }
    }
}

fn matches(matcher: &Matcher, config: &Config) -> String {
    let mut text = String::new();
    if !matcher.methods.is_empty() {
        text.extend(
            matcher
                .methods
                .iter()
                .enumerate()
                .flat_map(|(at, method)| [if at > 0 { "|" } else { "" }, method.as_str()]),
        );
        text.push(' ');
    }
    match &matcher.host {
        HostPattern::Exact(host) => text.push_str(host),
        HostPattern::Suffix(suffix) => text.extend(["*", suffix]),
        HostPattern::Any => {}
    }
    text.push_str(&matcher.path);
    // A prefix on segment borders.
    if !matcher.exact && !matcher.path.ends_with('/') {
        text.push_str("/…");
    }
    let listener = matcher.listener.and_then(|id| config.server.listen.get(id.index()));
    if let Some(listener) = listener {
        text.extend([" on ", &listener.name]);
    }
    text
}
