//! What of a configuration stands for as long as the process runs, and what another one shares with it.

use super::{Clerk, Config, Way};
use crate::secret::Secret;

/// Names what stands for as long as the process runs: each key, and where the configuration has it.
macro_rules! kept {
    ($($name:literal: $($field:ident).+;)*) => {
        const KEPT: &[&str] = &[$($name),*];

        /// Puts back the old value of each of them that differs, and says which.
        fn keep(new: &mut Config, old: &Config) -> Vec<&'static str> {
            let mut kept = Vec::new();
            $(if new.$($field).+ != old.$($field).+ {
                new.$($field).+.clone_from(&old.$($field).+);
                kept.push($name);
            })*
            kept
        }
    };
}

kept! {
    "server.workers": server.workers;
    "server.max_connections": server.limits.max_connections;
    "server.max_header_bytes": server.limits.max_header_bytes;
    "server.max_uri_bytes": server.limits.max_uri_bytes;
    "server.first_byte_timeout": server.limits.first_byte;
    "server.header_read_timeout": server.limits.header_read;
    "server.idle_timeout": server.limits.idle;
    "server.body_progress_timeout": server.limits.body_progress;
    "server.write_stall_timeout": server.limits.write_stall;
    "server.request_body_limit": server.limits.request_body;
    "server.max_connection_age": server.limits.max_age;
    "server.drain_delay": server.drain_delay;
    "server.drain_timeout": server.drain_timeout;
    "admin": admin;
    "log.format": log.format;
    "cache.max_bytes": cache.max_bytes;
    "cache.max_session_bytes": cache.max_session_bytes;
}

/// Whether a change of this key, or of this table, is used after a restart alone. `server.listen` is: see below.
pub(crate) fn needs_a_restart(key: &str) -> bool {
    let within = |kept: &str| key.strip_prefix(kept).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let ways = ["authz", "token_api", "webhooks"].iter().any(|way| key == *way || key == format!("{way}.listen"));
    key == "server.listen" || ways || KEPT.iter().any(|kept| within(kept))
}

// === impl Config ===

impl Config {
    /// Keeps the values of the configuration that runs where a change needs a restart; the keys of those that differ.
    /// `server.listen` is not among them: routes name listeners, so that it cannot be kept alone.
    pub fn keep_what_needs_a_restart(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = keep(self, running);
        let (new, old) = (&mut self.server, &running.server);
        if new.tls.is_some() != old.tls.is_some() {
            new.tls.clone_from(&old.tls);
            kept.push("server.tls");
        }
        keep_way(
            &mut self.authz,
            running.authz.as_ref(),
            |authz| &mut authz.way,
            ["authz", "authz.listen", "authz.tls"],
            &mut kept,
        );
        let names = ["token_api", "token_api.listen", "token_api.tls"];
        keep_way(&mut self.token_api, running.token_api.as_ref(), |api| &mut api.way, names, &mut kept);
        let names = ["webhooks", "webhooks.listen", "webhooks.tls"];
        keep_way(&mut self.webhooks, running.webhooks.as_ref(), |webhooks| &mut webhooks.way, names, &mut kept);
        kept
    }
}

/// Another way in is there or not, where it is, and with TLS or without, for as long as the process runs.
fn keep_way<T: Clone>(
    new: &mut Option<T>,
    old: Option<&T>,
    way: impl Fn(&mut T) -> &mut Way,
    [whole, listen, tls]: [&'static str; 3],
    kept: &mut Vec<&'static str>,
) {
    let (Some(new), Some(old)) = (&mut *new, old) else {
        if new.is_some() != old.is_some() {
            *new = old.cloned();
            kept.push(whole);
        }
        return;
    };
    let (new, mut old) = (way(new), old.clone());
    let old = way(&mut old);
    if new.listen != old.listen {
        new.listen.clone_from(&old.listen);
        kept.push(listen);
    }
    if new.tls.is_some() != old.tls.is_some() {
        new.tls.clone_from(&old.tls);
        kept.push(tls);
    }
}

// === impl Clerk ===

impl Clerk {
    /// Whether the issuer is called in the same way under both.
    pub fn is_called_like<'a>(&'a self, other: &'a Self) -> bool {
        let exposed = |clerk: &'a Self| clerk.secret_keys.iter().map(Secret::expose);
        self.api_url == other.api_url
            && self.api_version == other.api_version
            && self.issuer == other.issuer
            && self.connect_timeout == other.connect_timeout
            && self.timeout == other.timeout
            && self.ca == other.ca
            && exposed(self).eq(exposed(other))
    }
}
