//! What of a configuration stands for as long as the process runs, and what another one shares with it.

use super::{Clerk, Config};
use crate::secret::Secret;

/// Puts back the old value of each key that differs, and says which.
macro_rules! keep {
    ($kept:ident: $($name:literal => $new:expr, $old:expr;)*) => {
        $(if $new != $old {
            $new.clone_from(&$old);
            $kept.push($name);
        })*
    };
}

// === impl Config ===

impl Config {
    /// Keeps the values of the configuration that runs where a change needs a restart; the keys of those that differ.
    /// `server.listen` is not among them: routes name listeners, so that it cannot be kept alone.
    pub fn keep_what_needs_a_restart(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        let (new, old) = (&mut self.server, &running.server);
        keep! { kept:
            "server.workers" => new.workers, old.workers;
            "server.max_connections" => new.limits.max_connections, old.limits.max_connections;
            "server.max_header_bytes" => new.limits.max_header_bytes, old.limits.max_header_bytes;
            "server.max_uri_bytes" => new.limits.max_uri_bytes, old.limits.max_uri_bytes;
            "server.first_byte_timeout" => new.limits.first_byte, old.limits.first_byte;
            "server.header_read_timeout" => new.limits.header_read, old.limits.header_read;
            "server.idle_timeout" => new.limits.idle, old.limits.idle;
            "server.body_progress_timeout" => new.limits.body_progress, old.limits.body_progress;
            "server.write_stall_timeout" => new.limits.write_stall, old.limits.write_stall;
            "server.request_body_limit" => new.limits.request_body, old.limits.request_body;
            "server.max_connection_age" => new.limits.max_age, old.limits.max_age;
            "server.drain_delay" => new.drain_delay, old.drain_delay;
            "server.drain_timeout" => new.drain_timeout, old.drain_timeout;
            "admin" => self.admin, running.admin;
            "log.format" => self.log.format, running.log.format;
            "cache.max_bytes" => self.cache.max_bytes, running.cache.max_bytes;
            "cache.max_session_bytes" => self.cache.max_session_bytes, running.cache.max_session_bytes;
        }
        if new.tls.is_some() != old.tls.is_some() {
            new.tls.clone_from(&old.tls);
            kept.push("server.tls");
        }
        kept
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
