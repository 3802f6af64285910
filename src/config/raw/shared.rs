//! `[cache.shared]` as it is written: the second level of the token cache, which all replicas share.

use super::describe::Form::Duration;
use super::reader::{Field, Read, Reader, Table, tables};
use super::shapes::SecretRef;

tables! {
    /// A second level of the token cache in Redis (6.2 or newer) or Valkey, for all replicas; off without this section. It holds
    /// sealed tokens under names that tell nobody whose they are. While it is down, or slower than `timeout`, requests go on
    /// without it.
    Shared at "cache.shared" {
        /// `"redis://host:6379/0"`, `"rediss://..."` for TLS, `"unix:/path"` or `"redis+unix:///path?db=0"`,
        /// `"redis-cluster://host1,host2"`, `"redis-sentinel://host1,host2/0#master"`; the last two with `rediss-` for TLS.
        url: String = required,
        /// Who logs in; left out, Redis' default user.
        username: String,
        /// What logs in; left out, nobody does.
        password: SecretRef,
        /// 32 bytes in base64, the same for all replicas: `openssl rand -base64 32`. Names and values are made with it.
        encryption_key: SecretRef = required,
        /// A second key whose names and values are read as well, while keys are rotated.
        encryption_key_previous: SecretRef,
        /// How every name in Redis begins; fleets that share a Redis and no tokens take different ones.
        prefix: String = "mintgate:",
        /// What Redis may cost one mint, in sum; then it is made without it.
        timeout: String = "50ms" as Duration,
        /// The authorities (PEM) that sign Redis' certificate, instead of those that the machine trusts.
        ca_file: String,
    }
}
