//! A secret that a command line hands over: best not by itself, where every user of the machine could read it.

use std::io::{self, Read as _};
use std::path::PathBuf;

use http::HeaderValue;

use crate::config::validate::Environment;
use crate::secret::Secret;

/// Where it is.
#[derive(Debug, Clone)]
pub(super) enum Handed {
    /// On the command line.
    Here(Secret),
    /// On standard input.
    Input,
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

// === impl Handed ===

impl Handed {
    /// As it is written: `-`, `@FILE`, `env:NAME`, else the secret itself.
    pub(super) fn new(text: &str) -> Self {
        match (text, text.strip_prefix('@'), text.strip_prefix("env:")) {
            ("-", ..) => Self::Input,
            (_, Some(path), _) => Self::File(path.into()),
            (_, _, Some(name)) => Self::Variable(name.to_owned()),
            _ => Self::Here(Secret::new(text)),
        }
    }

    /// The secret, without white space around it. The error holds neither it nor what was typed in its place.
    ///
    /// # Errors
    /// When it is not there, or could not stand in a header.
    pub(super) fn read(&self, environment: &dyn Environment) -> Result<Secret, String> {
        let text = match self {
            Self::Here(token) => token.expose().to_owned(),
            Self::Input => {
                let mut text = String::new();
                io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| format!("cannot read standard input: {error}"))?;
                text
            }
            Self::File(path) => {
                let bytes = environment.read(path).map_err(|error| format!("cannot read the file: {error}"))?;
                String::from_utf8(bytes).map_err(|_| "the file is not text".to_owned())?
            }
            Self::Variable(name) => environment.var(name).ok_or("the environment variable of this name is not set")?,
        };
        match text.trim() {
            "" => Err("it is empty".to_owned()),
            token if HeaderValue::try_from(token).is_err() => Err("it holds characters that no token has".to_owned()),
            token => Ok(Secret::new(token)),
        }
    }
}
