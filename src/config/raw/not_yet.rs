//! The one list of keys that have a meaning which this version does not serve yet. They are refused, never
//! ignored: a protection that silently does nothing is worse than none.

/// A key that is not served yet.
pub(crate) struct NotYet {
    /// The table it stands in, as the raw tables call themselves.
    pub(crate) table: &'static str,
    /// The key.
    pub(crate) key: &'static str,
}

const fn no(table: &'static str, key: &'static str) -> NotYet {
    NotYet { table, key }
}

const KEYS: &[NotYet] = &[no("cache", "shared")];

/// Whether a key is one of them.
pub(crate) fn is_listed(table: &str, key: &str) -> bool {
    KEYS.iter().any(|entry| entry.table == table && entry.key == key)
}
