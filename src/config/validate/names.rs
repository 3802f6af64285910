//! Names that become labels in metrics and logs, and how many of a kind there may be.

/// What a name is made of.
pub(crate) const LABEL: &str = "a name has 1 to 64 of the characters A-Z a-z 0-9 _ - . and is not \"none\"";

/// Listeners, upstreams and routes: every one costs counters. With 64 injections in each route, ids stay below 65536.
pub(crate) const MOST: usize = 1000;

/// Whether the text can be a name. `none` is what requests without a route are counted under.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text != "none"
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}
