//! What every part of the validation shares: the problems, the outside, and fields with their defaults.
//!
//! A bad field is reported and its default goes on in its place, so that one problem does not hide the next; nothing
//! that was made out of such a default leaves the validation.

use std::borrow::Cow;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::raw::problem::{Problem, Problems, Span, nearest};
use crate::config::raw::reader::{At, Field};
use crate::config::raw::shapes::SecretRef;
use crate::secret::Secret;

use super::units;

/// The part of the outside that a configuration may read.
pub trait Environment {
    /// An environment variable that is valid Unicode.
    fn var(&self, name: &str) -> Option<String>;

    /// A whole file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool;
}

/// The environment and the files of this process.
#[derive(Debug, Clone, Copy)]
pub struct Process;

/// Whether secrets must be present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// An absent one is an error: the gateway is about to run.
    Required,
    /// An absent one is a warning: the file alone is checked.
    Optional,
    /// An absent one is not spoken of: something else will stand in its place.
    Replaced,
}

/// See the file's comment.
pub(crate) struct Context<'a> {
    pub(crate) problems: Problems,
    pub(crate) environment: &'a dyn Environment,
    pub(crate) secrets: Secrets,
    /// What relative paths are relative to.
    pub(crate) base: PathBuf,
}

// === impl Process ===

impl Environment for Process {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment for the configuration")]
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

// === impl Context ===

impl Context<'_> {
    pub(crate) fn error(&mut self, span: &Span, title: impl Into<Cow<'static, str>>) -> &mut Problem {
        self.problems.error(span, title)
    }

    /// A duration that `"off"` and `"0"` turn off.
    pub(crate) fn limit(&mut self, field: &Field<String>, default: Option<Duration>) -> Option<Duration> {
        let Some(at) = field.get() else { return default };
        if units::is_off(at) {
            return None;
        }
        self.duration(at).map_or(default, |duration| Some(duration).filter(|duration| !duration.is_zero()))
    }

    /// A duration that cannot be turned off.
    pub(crate) fn period(&mut self, field: &Field<String>, default: Duration, least: Duration) -> Duration {
        let Some(at) = field.get() else { return default };
        let Some(duration) = self.duration(at) else { return default };
        if duration < least {
            let least = humantime::format_duration(least);
            self.error(&at.span, "the duration is too short").label(format!("at least {least}"));
        }
        duration
    }

    /// A duration, when the text is one.
    pub(crate) fn duration(&mut self, at: &At<String>) -> Option<Duration> {
        let parsed = units::duration(at);
        if parsed.is_none() {
            self.error(&at.span, "not a duration").advice("write \"30s\", \"5m\", \"250ms\"; at most 10 years");
        }
        parsed
    }

    /// A size that `"off"` and `"0"` turn off.
    pub(crate) fn size_limit(&mut self, field: &Field<String>) -> Option<u64> {
        let at = field.get()?;
        if units::is_off(at) { None } else { self.parse_size(at).filter(|size| *size > 0) }
    }

    /// A size within bounds.
    pub(crate) fn size(&mut self, field: &Field<String>, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let Some(at) = field.get() else { return default };
        let Some(size) = self.parse_size(at) else { return default };
        if !bounds.contains(&size) {
            let show = |size: u64| bytesize::ByteSize(size).display().iec().to_string();
            let label = format!("from {} to {}", show(*bounds.start()), show(*bounds.end()));
            self.error(&at.span, "the size is out of bounds").label(label);
            return default;
        }
        size
    }

    fn parse_size(&mut self, at: &At<String>) -> Option<u64> {
        let parsed = units::size(at);
        if parsed.is_none() {
            self.error(&at.span, "not a size").advice("write \"64KiB\", \"1MiB\", or a number of bytes");
        }
        parsed
    }

    /// A whole number within bounds.
    pub(crate) fn count<T>(&mut self, field: &Field<i64>, default: T, bounds: RangeInclusive<u32>) -> T
    where
        T: TryFrom<u32>,
    {
        let Some(at) = field.get() else { return default };
        let fitting = u32::try_from(at.value).ok().filter(|count| bounds.contains(count));
        if let Some(count) = fitting.and_then(|count| T::try_from(count).ok()) {
            return count;
        }
        let label = format!("from {} to {}", bounds.start(), bounds.end());
        self.error(&at.span, "the number is out of bounds").label(label);
        default
    }

    /// One word out of a closed set.
    pub(crate) fn choice<T: Copy>(&mut self, field: &Field<String>, words: &[(&str, T)], default: T) -> T {
        let Some(at) = field.get() else { return default };
        if let Some((_, chosen)) = words.iter().find(|(word, _)| word == &at.value) {
            return *chosen;
        }
        let all = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let near = nearest(at, words.iter().map(|(word, _)| *word)).map(|near| format!("did you mean \"{near}\"?"));
        let problem = self.error(&at.span, "not one of the values that this key takes");
        problem.advice(format!("it takes {all}"));
        if let Some(near) = near {
            problem.label(near);
        }
        default
    }

    /// A file that has to be there.
    pub(crate) fn file(&mut self, path: &At<String>) -> Option<Vec<u8>> {
        match self.environment.read(&self.base.join(&path.value)) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let advice = "relative paths are relative to the directory of the configuration file";
                self.error(&path.span, format!("cannot read the file: {error}")).advice(advice);
                None
            }
        }
    }

    /// The text behind a reference; `None` when it is absent, which [`Secrets`] judges.
    pub(crate) fn secret(&mut self, at: &SecretRef) -> Option<Secret> {
        let (span, found) = match at {
            SecretRef::Env(name) => {
                let found = self.environment.var(name);
                (&name.span, found.ok_or_else(|| "the environment variable is not set".to_owned()))
            }
            SecretRef::File(path) => {
                let read = self.environment.read(&self.base.join(&path.value));
                let text = read.map_err(|error| format!("cannot read the file: {error}"));
                let text =
                    text.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "the file is not text".to_owned()));
                (&path.span, text.map(without_newline))
            }
        };
        let problem = match found {
            Ok(text) if !text.is_empty() => return Some(Secret::new(text)),
            Ok(_) => "the secret is empty".to_owned(),
            Err(problem) => problem,
        };
        match self.secrets {
            Secrets::Required => {
                self.problems.error(span, problem);
            }
            Secrets::Optional => {
                self.problems.warning(span, problem).label("`run` needs it");
            }
            Secrets::Replaced => {}
        }
        None
    }
}

/// Editors and shells end a file with one newline, which is no part of the secret.
fn without_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_at_the_end_is_no_part_of_a_secret() {
        for (text, secret) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("\n", ""), (" a", " a")] {
            assert_eq!(without_newline(text.to_owned()), secret, "{text:?}");
        }
    }
}
