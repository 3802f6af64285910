//! What is wrong with a file and where, and which parts of the file must never be shown.

use std::borrow::Cow;
use std::ops::Range;

/// A place in the file, in bytes.
pub(crate) type Span = Range<usize>;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// The file cannot be used.
    Error,
    /// It can, but probably not as it was meant.
    Warning,
}

/// One thing that is wrong. None of its texts holds a value out of the file or the environment: the quoted source line
/// shows it, unexpanded and with secrets blotted out. A text that was put together is blotted all the same; a fixed one
/// (borrowed) is shown as it is written here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) title: Cow<'static, str>,
    /// What is underlined; `None` when it is not about a place in the file.
    pub(crate) span: Option<Span>,
    /// Stands beside the underline.
    pub(crate) label: Option<Cow<'static, str>>,
    /// A second place that has to do with it.
    pub(crate) also: Option<(Span, String)>,
    /// What to do.
    pub(crate) advice: Option<Cow<'static, str>>,
}

/// All problems of one file.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) items: Vec<Problem>,
    /// Parts of the file that are never shown.
    pub(crate) hidden: Vec<Span>,
}

/// Where a secret begins, and how much of the mark itself may be shown.
const MARKS: [&str; 5] = ["sk_live_", "sk_test_", "whsec_", "eyJ", "-----BEGIN"];

/// Keys after which a secret may stand in a file that is no TOML.
const SECRET_KEYS: [&str; 9] = [
    "secret_key",
    "jwt_key",
    "value",
    "password",
    "token",
    "encryption_key",
    "encryption_key_previous",
    "signing_secret",
    "key",
];

// === impl Problem ===

impl Problem {
    pub(crate) fn label(&mut self, label: impl Into<Cow<'static, str>>) -> &mut Self {
        self.label = Some(label.into());
        self
    }

    pub(crate) fn also(&mut self, span: Span, label: impl Into<String>) -> &mut Self {
        self.also = Some((span, label.into()));
        self
    }

    pub(crate) fn advice(&mut self, advice: impl Into<Cow<'static, str>>) -> &mut Self {
        self.advice = Some(advice.into());
        self
    }
}

// === impl Problems ===

impl Problems {
    pub(crate) fn error(&mut self, span: &Span, title: impl Into<Cow<'static, str>>) -> &mut Problem {
        self.push(Severity::Error, Some(span.clone()), title.into())
    }

    pub(crate) fn warning(&mut self, span: &Span, title: impl Into<Cow<'static, str>>) -> &mut Problem {
        self.push(Severity::Warning, Some(span.clone()), title.into())
    }

    /// Something that has no place in the file.
    pub(crate) fn general(&mut self, title: impl Into<Cow<'static, str>>) -> &mut Problem {
        self.push(Severity::Error, None, title.into())
    }

    /// Blots out a part of the file, whatever is wrong near it.
    pub(crate) fn hide(&mut self, span: &Span) {
        self.hidden.push(span.clone());
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.items.iter().any(|problem| problem.severity == Severity::Error)
    }

    fn push(&mut self, severity: Severity, span: Option<Span>, title: Cow<'static, str>) -> &mut Problem {
        self.items.push(Problem { severity, title, span, label: None, also: None, advice: None });
        let last = self.items.len() - 1;
        &mut self.items[last]
    }
}

/// The candidate that was probably meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().min(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Whether the text holds what looks like a secret.
pub(crate) fn looks_secret(text: &str) -> bool {
    !secrets_in(text).is_empty()
}

/// The text with everything that looks like a secret, and every given part, blotted out. No byte moves.
pub(crate) fn blot(text: &str, hidden: &[Span]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for span in hidden.iter().chain(&secrets_in(text)) {
        for byte in bytes.get_mut(span.clone()).into_iter().flatten() {
            if !matches!(*byte, b'\n' | b'\r') {
                *byte = b'*';
            }
        }
    }
    // A part that begins or ends inside a character leaves bytes that are none.
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            error.into_bytes().into_iter().map(|byte| if byte.is_ascii() { char::from(byte) } else { '*' }).collect()
        }
    }
}

/// Where a secret may stand in a text that is no TOML: whatever follows a key that is made for secrets.
pub(crate) fn after_secret_keys(text: &str) -> Vec<Span> {
    let mut found = Vec::new();
    for key in SECRET_KEYS {
        for (at, _) in text.match_indices(key) {
            let after = at + key.len();
            let rest = text[after..].trim_start_matches(['"', '\'', ' ', '\t']);
            let Some(rest) = rest.strip_prefix('=') else { continue };
            let value = rest.trim_start_matches([' ', '\t']);
            let start = text.len() - value.len();
            let to_the =
                |mark: &str, skip: usize| value[skip..].find(mark).map_or(text.len(), |end| start + skip + end);
            let fence = ["\"\"\"", "'''"].into_iter().find(|fence| value.starts_with(fence));
            let end = match fence {
                Some(fence) => to_the(fence, 3),
                None if value.starts_with('[') => to_the("]", 1),
                None => to_the("\n", 0),
            };
            // `{ env = ... }` names a secret and holds none.
            let table = value.strip_prefix('{').map(str::trim_start);
            if !table.is_some_and(|table| table.starts_with("env") || table.starts_with("file")) {
                found.push(start..end);
            }
        }
    }
    found
}

fn secrets_in(text: &str) -> Vec<Span> {
    let in_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '=' | '+' | '/');
    let mut found = Vec::new();
    for mark in MARKS {
        for (at, _) in text.match_indices(mark) {
            let start = at + mark.len();
            let rest = &text[start..];
            let end = if mark.starts_with('-') {
                rest.find("-----END").unwrap_or(rest.len())
            } else {
                rest.find(|c| !in_token(c)).unwrap_or(rest.len())
            };
            found.push(start..start + end);
        }
    }
    // The user info of a URL: up to the last `@` of the word, because a password may hold anything.
    for (at, mark) in text.match_indices("://") {
        let start = at + mark.len();
        let word = text[start..].split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).next().unwrap_or("");
        if let Some(end) = word.rfind('@') {
            found.push(start..start + end);
        }
    }
    found.retain(|span| !span.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_blotted_out() {
        for (text, seen) in [
            ("a = \"sk_live_abc.D-1\" # sk_test_x", "a = \"sk_live_*******\" # sk_test_*"),
            ("u = \"http://me:pa/ss@host/p\"", "u = \"http://********@host/p\""),
            ("jwt eyJhbGci.abc_d x", "jwt eyJ*********** x"),
            ("-----BEGIN RSA\nab\n-----END RSA", "-----BEGIN****\n**\n-----END RSA"),
            ("nothing = \"here\"", "nothing = \"here\""),
        ] {
            assert_eq!(blot(text, &[]), seen);
        }
    }

    #[test]
    fn blotting_moves_no_byte() {
        let text = "ä = \"ö\"\nb";
        for start in 0..text.len() {
            for end in start..=text.len() {
                assert_eq!(blot(text, &[Span { start, end }]).len(), text.len(), "{start}..{end}");
            }
        }
        assert_eq!(blot("ab", &[Span { start: 1, end: 9 }]), "ab");
    }

    #[test]
    fn after_a_secret_key_nothing_is_shown() {
        let hide = |text: &str| blot(text, &after_secret_keys(text));
        assert_eq!(hide("secret_key = hunter2\nx = 1"), "secret_key = *******\nx = 1");
        assert_eq!(hide("\"value\" = '''a\nb'''\nx"), "\"value\" = ****\n*'''\nx");
        assert_eq!(hide("secret_key = { env = \"A\" }"), "secret_key = { env = \"A\" }");
    }

    #[test]
    fn the_nearest_word_is_a_near_one() {
        assert_eq!(nearest("upsteam", ["upstream", "session"]), Some("upstream"));
        assert_eq!(nearest("zzz", ["upstream", "url"]), None);
    }
}
