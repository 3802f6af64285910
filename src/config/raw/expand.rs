//! `${NAME}`, `${NAME:-default}` and `$$` in string values.

use std::borrow::Cow;

/// Finds a variable in a string, as a regular expression.
pub(crate) const PATTERN: &str = r"\$\{";

/// Why a string cannot be expanded. The names in it stand in the file as well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    /// `$` before something else.
    #[error("a `$` that begins nothing")]
    Lone,
    /// `${` without `}`.
    #[error("`${{` without `}}`")]
    Open,
    /// What stands in the braces is no name.
    #[error("not the name of an environment variable")]
    Name,
    /// The variable is not there, and no default is.
    #[error("the environment variable is not set")]
    Unset,
}

/// Expands a string once: what comes out of the environment is not expanded again.
pub(crate) fn expand<'a>(text: &'a str, var: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'a, str>, ExpandError> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('{').ok_or(ExpandError::Lone)?;
        let end = inner.find('}').ok_or(ExpandError::Open)?;
        rest = &inner[end + 1..];
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        if !is_name(name) {
            return Err(ExpandError::Name);
        }
        // As in a shell, `:-` covers a variable that is set to nothing.
        let value = var(name).filter(|value| default.is_none() || !value.is_empty());
        match (value, default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => return Err(ExpandError::Unset),
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// Whether the text can name an environment variable.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.as_bytes()[0].is_ascii_digit()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_env(text: &str) -> Result<String, ExpandError> {
        expand(text, &|name| match name {
            "HOST" => Some("a.example".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${HOST}".to_owned()),
            _ => None,
        })
        .map(Cow::into_owned)
    }

    #[test]
    fn variables_are_expanded_once() {
        for (text, expected) in [
            ("plain", "plain"),
            ("https://${HOST}/x", "https://a.example/x"),
            ("${NONE:-b}${HOST:-c}", "ba.example"),
            ("${EMPTY:-d}|${EMPTY}|${NONE:-}", "d||"),
            ("$$${HOST}$$", "$a.example$"),
            ("$${HOST}", "${HOST}"),
            ("${TRICKY}", "${HOST}"),
        ] {
            assert_eq!(with_env(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_string_that_means_nothing_is_refused() {
        for (text, error) in [
            ("$HOST", ExpandError::Lone),
            ("a$", ExpandError::Lone),
            ("${HOST", ExpandError::Open),
            ("${}", ExpandError::Name),
            ("${1A}", ExpandError::Name),
            ("${A-B}", ExpandError::Name),
            ("${NONE}", ExpandError::Unset),
        ] {
            assert_eq!(with_env(text), Err(error), "{text}");
        }
    }
}
