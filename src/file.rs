//! Files of which the contents matter as much as the name: certificates and keys, read once and looked at again later.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use secrecy::zeroize::Zeroizing;

/// A file and what was in it. No formatting shows the contents, and they are wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    path: PathBuf,
    contents: Zeroizing<Vec<u8>>,
}

// === impl File ===

impl File {
    /// What was read from a path.
    pub fn new(path: impl Into<PathBuf>, contents: Vec<u8>) -> Self {
        Self { path: path.into(), contents: Zeroizing::new(contents) }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let contents = std::fs::read(&path)?;
        Ok(Self::new(path, contents))
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was in it.
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.path.display())
    }
}
