//! `[cache.shared]`: the second level of the token cache, which all replicas share.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use secrecy::{ExposeSecret as _, SecretBox};

use crate::secret::Secret;

/// With and without `=` at the end, as tools print it.
const EITHER: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// `[cache.shared]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Where Redis, or Valkey, is.
    pub redis: Redis,
    /// Who logs in; absent: Redis' default user.
    pub username: Option<String>,
    /// ... and with what.
    pub password: Option<Secret>,
    /// Names and values are written under this one.
    pub key: CacheKey,
    /// ... and read under this one too, while keys are rotated.
    pub previous: Option<CacheKey>,
    /// Every name in Redis begins so.
    pub prefix: String,
    /// What Redis may cost one mint.
    pub timeout: Duration,
    /// The authorities (PEM) of Redis' certificate, instead of the machine's.
    pub ca: Option<Arc<[u8]>>,
}

/// What `cache.shared.url` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Where it is.
    pub reach: Reach,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// The number of the database.
    pub database: u16,
}

/// Where Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// One server.
    Server(Node),
    /// One server, at a Unix socket.
    Socket(PathBuf),
    /// A cluster, of which these are known.
    Cluster(Vec<Node>),
    /// The master that sentinels name.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Node>,
        /// What they call it.
        master: String,
    },
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// A name, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// 32 bytes out of which every key of the shared cache is derived. No formatting shows them.
#[derive(Clone)]
pub struct CacheKey(Arc<SecretBox<[u8; 32]>>);

// === impl CacheKey ===

impl CacheKey {
    /// 32 bytes in base64, of either alphabet.
    pub fn parse(text: &str) -> Option<Self> {
        let alphabet = if text.contains(['-', '_']) { base64::alphabet::URL_SAFE } else { base64::alphabet::STANDARD };
        let mut bytes = GeneralPurpose::new(&alphabet, EITHER).decode(text.trim()).ok()?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).ok().map(|key| Self(Arc::new(SecretBox::new(Box::new(key)))));
        bytes.fill(0);
        key
    }

    /// One that nobody else has: it stands in for a key that is not here while its file is looked at. `None` where there is no
    /// randomness.
    pub fn stand_in() -> Option<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(Arc::new(SecretBox::new(Box::new(bytes)))))
    }

    /// The bytes. Every call is a place to review.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.expose(), other.expose()).is_ok()
    }
}

impl Eq for CacheKey {}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

// === impl Redis ===

impl Redis {
    /// The hosts that are named.
    pub fn nodes(&self) -> &[Node] {
        match &self.reach {
            Reach::Server(node) => std::slice::from_ref(node),
            Reach::Socket(_) => &[],
            Reach::Cluster(nodes) | Reach::Sentinel { sentinels: nodes, .. } => nodes,
        }
    }
}

impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database;
        if let Reach::Socket(path) = &self.reach {
            write!(f, "unix:{}", path.display())?;
            return if database > 0 { write!(f, "?db={database}") } else { Ok(()) };
        }
        let kind = match self.reach {
            Reach::Server(_) | Reach::Socket(_) => "",
            Reach::Cluster(_) => "-cluster",
            Reach::Sentinel { .. } => "-sentinel",
        };
        let nodes: Vec<_> = self.nodes().iter().map(Node::to_string).collect();
        write!(f, "redis{}{kind}://{}", if self.tls { "s" } else { "" }, nodes.join(","))?;
        if database > 0 {
            write!(f, "/{database}")?;
        }
        if let Reach::Sentinel { master, .. } = &self.reach {
            write!(f, "#{master}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_in_base64_and_never_prints() {
        let key = CacheKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        assert_eq!(key.expose()[31], 31);
        assert_eq!(Some(&key), CacheKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").as_ref());
        assert_eq!(format!("{key:?}"), "[secret]");
        for (text, good) in [("_____wQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", true), ("AAEC", false), ("é", false)] {
            assert_eq!(CacheKey::parse(text).is_some(), good, "{text}");
        }
    }
}
