//! The one list of keys that have a meaning which this version does not serve yet. They are refused, never
//! ignored: a protection that silently does nothing is worse than none.

/// A key that is not served yet.
pub(crate) struct NotYet {
    /// The table it stands in, as the raw tables call themselves.
    pub(crate) table: &'static str,
    /// The key.
    pub(crate) key: &'static str,
    /// The value that asks for nothing, and is accepted.
    pub(crate) harmless: Harmless,
}

/// The value of a key that asks for nothing more than what happens anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harmless {
    /// No value is.
    Nothing,
    /// `true` or `false`.
    Flag(bool),
}

const fn no(table: &'static str, key: &'static str) -> NotYet {
    NotYet { table, key, harmless: Harmless::Nothing }
}

const fn but(table: &'static str, key: &'static str, harmless: Harmless) -> NotYet {
    NotYet { table, key, harmless }
}

const KEYS: &[NotYet] = &[
    no("", "authz"),
    no("", "token_api"),
    no("", "webhooks"),
    no("admin", "control"),
    no("admin", "token"),
    no("cache", "shared"),
    but("routes[]", "allow_odd_paths", Harmless::Flag(false)),
    no("routes[].session[]", "session_id_header"),
    no("routes[].session[]", "trust"),
    no("routes[].session[]", "caller_token"),
];

/// The entry of a key, when it has one.
pub(crate) fn key(table: &str, key: &str) -> Option<&'static NotYet> {
    KEYS.iter().find(|entry| entry.table == table && entry.key == key)
}
