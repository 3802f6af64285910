//! `--env-file`: the variables of a file such as a Clerk project's `.env.local`, behind those of the environment.
//!
//! It is read as Node's `dotenv` reads it, but for what that passes over in silence: a line that is none is an error.
//! Nothing is expanded, and the environment of the process is not touched.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::validate::Environment;

/// An environment with a file behind it: what the environment has goes before, also when it is empty.
pub struct WithFile<'a> {
    environment: &'a dyn Environment,
    variables: HashMap<String, String>,
}

/// The file cannot be used. The text never holds what the file says.
#[derive(Debug, thiserror::Error)]
pub enum BadEnvFile {
    /// It cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not text.
    #[error("{} is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// A line means nothing.
    #[error("{}:{line}: {what}", .path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        what: BadLine,
    },
}

/// Why a line means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// Neither an assignment nor a comment.
    #[error("not a line of the form NAME=value")]
    NoAssignment,
    /// What stands before `=`.
    #[error("not the name of a variable before `=`")]
    Name,
    /// A quote that nothing closes.
    #[error("the quote that begins here is not closed")]
    Open,
    /// Something behind a value in quotes.
    #[error("something follows the closing quote")]
    Trailing,
}

// === impl WithFile ===

impl<'a> WithFile<'a> {
    /// Reads the file; without one there are no further variables.
    ///
    /// # Errors
    /// See [`BadEnvFile`].
    pub fn new(environment: &'a dyn Environment, file: Option<&Path>) -> Result<Self, BadEnvFile> {
        let Some(path) = file else { return Ok(Self { environment, variables: HashMap::new() }) };
        let read = environment.read(path);
        let bytes = read.map_err(|source| BadEnvFile::Unreadable { path: path.to_owned(), source })?;
        let text = String::from_utf8(bytes).map_err(|_| BadEnvFile::NotText(path.to_owned()))?;
        let variables = parse(&text).map_err(|(line, what)| BadEnvFile::Line { path: path.to_owned(), line, what })?;
        Ok(Self { environment, variables })
    }
}

impl Environment for WithFile<'_> {
    fn var(&self, name: &str) -> Option<String> {
        self.environment.var(name).or_else(|| self.variables.get(name).cloned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.environment.read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.environment.exists(path)
    }
}

/// The variables; of two with one name the later one. An error has the number of its line.
fn parse(text: &str) -> Result<HashMap<String, String>, (usize, BadLine)> {
    let mut variables = HashMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let (mut rest, mut line) = (text.as_str(), 1);
    while !rest.is_empty() {
        let (this, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = this.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let assignment = match trimmed.strip_prefix("export") {
            Some(behind) if behind.starts_with([' ', '\t']) => behind.trim_start(),
            _ => trimmed,
        };
        let (name, _) = assignment.split_once('=').ok_or((line, BadLine::NoAssignment))?;
        let name = name.trim_end();
        if !is_name(name) {
            return Err((line, BadLine::Name));
        }
        // The value may go on beyond this line.
        let (_, value) = rest.split_once('=').ok_or((line, BadLine::NoAssignment))?;
        let (value, behind) = value_of(value.trim_start_matches([' ', '\t'])).map_err(|what| (line, what))?;
        variables.insert(name.to_owned(), value);
        line += rest[..rest.len() - behind.len()].matches('\n').count();
        rest = behind;
    }
    Ok(variables)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The value at the beginning of the text, and what follows its line.
fn value_of(text: &str) -> Result<(String, &str), BadLine> {
    let Some(quote) = text.chars().next().filter(|first| matches!(first, '"' | '\'' | '`')) else {
        let (this, after) = text.split_once('\n').unwrap_or((text, ""));
        let value = this.split('#').next().unwrap_or_default();
        return Ok((value.trim().to_owned(), after));
    };
    let inner = &text[1..];
    let closes = |(index, _): &(usize, &str)| !inner[..*index].ends_with('\\');
    let (end, _) = inner.match_indices(quote).find(closes).ok_or(BadLine::Open)?;
    let (this, after) = inner[end + 1..].split_once('\n').unwrap_or((&inner[end + 1..], ""));
    if !this.trim_start().is_empty() && !this.trim_start().starts_with('#') {
        return Err(BadLine::Trailing);
    }
    let value = &inner[..end];
    let value = if quote == '"' { value.replace("\\n", "\n").replace("\\r", "\r") } else { value.to_owned() };
    Ok((value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, String)> {
        let mut variables: Vec<_> = parse(text).unwrap().into_iter().collect();
        variables.sort();
        variables
    }

    #[test]
    fn a_clerk_projects_file_is_read() {
        let text = "\u{feff}# Clerk\r\nNEXT_PUBLIC_CLERK_PUBLISHABLE_KEY=pk_test_abc= # public\r\nexport CLERK_SECRET_KEY = \"sk_test_x#y\"\n\n  A='it is $HOME\\n' # said\nB=`a\"b'c`\nEMPTY=\nTWICE=1\nTWICE=2\nKEY=\"-----BEGIN\nmiddle\\nEND\"\nLAST=end";
        let expected = [
            ("A", "it is $HOME\\n"),
            ("B", "a\"b'c"),
            ("CLERK_SECRET_KEY", "sk_test_x#y"),
            ("EMPTY", ""),
            ("KEY", "-----BEGIN\nmiddle\nEND"),
            ("LAST", "end"),
            ("NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY", "pk_test_abc="),
            ("TWICE", "2"),
        ];
        assert_eq!(of(text), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(of("\n#\n \n"), []);
    }

    #[test]
    fn a_line_that_means_nothing_is_an_error_with_its_number() {
        for (text, error) in [
            ("A=1\nCANARY\n", (2, BadLine::NoAssignment)),
            ("A=\"x\ny\"\n\nB C=1", (4, BadLine::Name)),
            ("=1", (1, BadLine::Name)),
            ("1A=1", (1, BadLine::Name)),
            ("A=1\nB=\"CANARY", (2, BadLine::Open)),
            ("A='b'CANARY", (1, BadLine::Trailing)),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    struct Outside;

    impl Environment for Outside {
        fn var(&self, name: &str) -> Option<String> {
            (name == "BOTH").then(|| "environment".to_owned())
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("good") => Ok(b"BOTH=file\nOWN=file".to_vec()),
                Some("bad") => Ok(b"OWN=file\nCANARY".to_vec()),
                Some("binary") => Ok(vec![0xff]),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }

        fn exists(&self, _: &Path) -> bool {
            false
        }
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let both = WithFile::new(&Outside, Some(Path::new("good"))).unwrap();
        assert_eq!(both.var("BOTH").as_deref(), Some("environment"));
        assert_eq!(both.var("OWN").as_deref(), Some("file"));
        assert_eq!(both.var("NONE"), None);
        assert_eq!(WithFile::new(&Outside, None).unwrap().var("OWN"), None);
    }

    #[test]
    fn a_bad_file_is_named_and_not_shown() {
        for (path, expected) in [
            ("bad", "bad:2: not a line of the form NAME=value"),
            ("binary", "binary is not UTF-8 text"),
            ("absent", "cannot read absent: "),
        ] {
            let error = WithFile::new(&Outside, Some(Path::new(path))).err().unwrap().to_string();
            assert!(error.starts_with(expected) && !error.contains("CANARY"), "{error}");
        }
    }
}
