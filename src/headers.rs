//! Header names that mean something here, sets of names with their twins, and hop-by-hop headers.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Our error code on an answer of our own; never let through from an upstream.
pub const ERROR: HeaderName = HeaderName::from_static("x-mintgate-error");
/// How the tokens of a request were come by; never let through from an upstream.
pub const TOKEN: HeaderName = HeaderName::from_static("x-mintgate-token");
/// The token of a program that may name sessions. Never let through: its name begins as ours do.
pub const CALLER: HeaderName = HeaderName::from_static("x-mintgate-caller");
/// Correlates one request over all logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The address of the caller, appended by each trusted hop.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme that the caller used.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The Host that the caller named.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Keep-alive parameters of HTTP/1.0; hop-by-hop.
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// hop-by-hop by custom.
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Settings of an `Upgrade: h2c`, which we never do.
pub const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Fetch metadata: how the page and the target are related.
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// RFC 7239.
pub const FORWARDED: HeaderName = header::FORWARDED;

/// Headers that mean one connection only (RFC 9110 section 7.6.1). `te` and `trailer` are treated apart.
pub const HOP_BY_HOP: [HeaderName; 6] =
    [header::CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, header::UPGRADE, HTTP2_SETTINGS, header::TRANSFER_ENCODING];

/// What means a message's head alone (RFC 9110 section 6.5.1): whoever takes trailers for headers would read another
/// message than was sent.
pub const HEAD_ONLY: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::SET_COOKIE,
    header::TRAILER,
];

/// A set of header names and name prefixes in which `_` and `-` are one character, so that a twin which an upstream
/// would read as the same name is found too. A look-up that misses costs two table reads and no scan of the name.
#[derive(Debug, Clone, Default)]
pub struct NameSet {
    /// Normalised names, sorted.
    names: Vec<Box<str>>,
    /// Normalised prefixes.
    prefixes: Vec<Box<str>>,
    /// For each first letter: a bit for each length (modulo 64) of a name that begins with it.
    lengths: Option<Box<[u64; 32]>>,
    /// A bit for each first letter with which a prefix begins.
    prefix_letters: u32,
}

/// A pattern is neither a header name nor one that ends in `*`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a header name; \"*\" may stand only at the end")]
pub struct BadPattern(pub String);

// === impl NameSet ===

/// The table's index of a first byte, the same for bytes that [`normal`] makes equal.
fn letter(first: u8) -> usize {
    usize::from(normal(first) & 31)
}

fn same(a: u8, b: u8) -> bool {
    normal(a) == normal(b)
}

/// What stands between words: CGI makes `_` of `-`, PHP of `.` too, lighttpd of whatever is no letter and no digit.
fn normal(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// Whether some server takes one name for the other.
pub fn are_twins(one: &HeaderName, other: &HeaderName) -> bool {
    are_twin_names(one.as_str(), other.as_str())
}

/// The same of what need not be a header's name.
pub fn are_twin_names(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(a, b)| same(a, b))
}

/// Whether a name has a character that some servers take for a hyphen.
pub fn is_odd(name: &HeaderName) -> bool {
    name.as_str().bytes().any(|byte| byte != b'-' && !byte.is_ascii_alphanumeric())
}

impl NameSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one name.
    pub fn insert(&mut self, name: &HeaderName) {
        self.add(name.as_str());
    }

    /// Adds a name, or every name with a prefix when the pattern ends in `*`.
    ///
    /// # Errors
    /// When the pattern is not a header name apart from that `*`.
    pub fn insert_pattern(&mut self, pattern: &str) -> Result<(), BadPattern> {
        let bad = || BadPattern(pattern.to_owned());
        if pattern.trim_end_matches('*').contains('*') || pattern.ends_with("**") {
            return Err(bad());
        }
        if let Some(prefix) = pattern.strip_suffix('*') {
            let prefix: HeaderName = prefix.parse().map_err(|_| bad())?;
            let prefix: String = prefix.as_str().bytes().map(|byte| char::from(normal(byte))).collect();
            self.prefix_letters |= 1 << letter(prefix.as_bytes()[0]);
            self.prefixes.push(prefix.into());
        } else {
            self.insert(&pattern.parse().map_err(|_| bad())?);
        }
        Ok(())
    }

    /// Adds everything of another set.
    pub fn extend(&mut self, other: &Self) {
        for name in &other.names {
            self.add(name);
        }
        for prefix in &other.prefixes {
            self.prefix_letters |= 1 << letter(prefix.as_bytes()[0]);
            self.prefixes.push(prefix.clone());
        }
    }

    /// Whether the set holds the name, a twin of it, or a prefix of either.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.contains_str(name.as_str())
    }

    /// As [`NameSet::contains`], for a name of any letter case.
    pub fn contains_str(&self, name: &str) -> bool {
        let bytes = name.as_bytes();
        let Some(&first) = bytes.first() else { return false };
        let possible = self.lengths.as_ref().is_some_and(|table| table[letter(first)] >> (bytes.len() & 63) & 1 == 1);
        // A search and no walk: every route's injected headers are in here, and a caller may choose one that is alike.
        let order = |own: &str| own.bytes().cmp(bytes.iter().map(|&byte| normal(byte)));
        if possible && self.names.binary_search_by(|own| order(own)).is_ok() {
            return true;
        }
        self.prefix_letters >> letter(first) & 1 == 1
            && self
                .prefixes
                .iter()
                .any(|own| own.len() <= bytes.len() && own.bytes().zip(bytes).all(|(a, &b)| same(a, b)))
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.prefixes.is_empty()
    }

    fn add(&mut self, name: &str) {
        let name: String = name.bytes().map(|byte| char::from(normal(byte))).collect();
        let Some(&first) = name.as_bytes().first() else { return };
        self.lengths.get_or_insert_default()[letter(first)] |= 1 << (name.len() & 63);
        if let Err(at) = self.names.binary_search_by(|own| (**own).cmp(&name)) {
            self.names.insert(at, name.into());
        }
    }
}

/// Every option named in the `Connection` lines (all of them, not the first), without the empty ones.
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::CONNECTION).iter().flat_map(elements)
}

/// The elements of a comma-separated list (RFC 9110 section 5.6.1), trimmed, without the empty ones.
pub fn elements(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str]) -> NameSet {
        let mut set = NameSet::new();
        for pattern in patterns {
            set.insert_pattern(pattern).unwrap();
        }
        set
    }

    /// Fails when `_`, or any other character that is no letter and no digit, is not `-`.
    #[test]
    fn a_name_is_found_with_its_twins() {
        let set = set(&["x-user-id", "authorization"]);
        for twin in
            ["x-user-id", "X-User-Id", "x_user_id", "x-user_id", "x.user.id", "X~user!ID", "x-user'id", "AUTHORIZATION"]
        {
            assert!(set.contains_str(twin), "{twin}");
        }
        for other in ["x-user-ip", "x-user-id2", "xuser-id", "", "x", "x..user-id"] {
            assert!(!set.contains_str(other), "{other}");
        }
    }

    #[test]
    fn a_prefix_covers_every_name_that_begins_with_it() {
        let set = set(&["x-hasura-*"]);
        for name in ["x-hasura-role", "X_Hasura_Role", "x-hasura-"] {
            assert!(set.contains_str(name), "{name}");
        }
        assert!(!set.contains_str("x-hasura") && !set.contains_str("y-hasura-role"));
    }

    #[test]
    fn a_star_stands_only_at_the_end() {
        for bad in ["x-*-y", "*", "", "a b", "x-**"] {
            assert!(NameSet::new().insert_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_set_agrees_with_a_plain_search() {
        let words = ["a", "x-a", "x-mintgate-*", "cookie", "content-length", "te", "_x", "x-forwarded-*"];
        let names = ["a", "b", "x-a", "x_a", "x-mintgate-error", "cookie", "te", "-x", "_x", "x-forwarded-for", "zz"];
        let set = set(&words);
        for name in names {
            let norm = |text: &str| text.to_ascii_lowercase().replace('_', "-");
            let plain = words.iter().any(|word| match word.strip_suffix('*') {
                Some(prefix) => norm(name).starts_with(&norm(prefix)),
                None => norm(name) == norm(word),
            });
            assert_eq!(set.contains_str(name), plain, "{name}");
        }
    }

    #[test]
    fn all_connection_lines_count() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("close, ,x-a"));
        headers.append(header::CONNECTION, HeaderValue::from_static(" x-b "));
        let seen: Vec<_> = connection_options(&headers).collect();
        assert_eq!(seen, [&b"close"[..], b"x-a", b"x-b"]);
    }
}
