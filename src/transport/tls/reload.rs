//! What was built out of files, built anew when their contents change.
//!
//! [`Reload`] is the reload and knows no time; [`watch`] is the trigger, which may be another one some day. Contents are
//! compared, not times or inodes: so a symbolic link that is swapped (as Kubernetes does) is seen like an edit, and a
//! file that was only touched is not. What is bad changes nothing.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::file::File;
use crate::lifecycle::Shutdown;
use crate::live::Live;
use crate::telemetry;

/// Builds out of the files.
pub type Build<T> = Box<dyn Fn(&[File]) -> Result<T, Box<dyn Error + Send + Sync>> + Send>;

/// Files, and what is built out of them.
pub struct Reload<T> {
    files: Vec<File>,
    build: Build<T>,
    live: Live<T>,
    /// What was said about files that could not be used, so that it is said once.
    told: Option<String>,
}

/// Everything that looks at its files again. All clones are one list.
#[derive(Clone)]
pub struct Watchlist(Arc<Mutex<Vec<Box<dyn Reloads>>>>);

/// What a look at the files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing new.
    Unchanged,
    /// Something new, which is in use from now on.
    Replaced,
    /// Something that cannot be used; the old one stays.
    Refused,
}

/// Anything that looks at its files again when it is told to.
pub trait Reloads: Send {
    /// Reads the files, which may block, and replaces what was built out of them when they changed.
    fn reload(&mut self) -> Seen;
}

// === impl Reload ===

impl<T> Reload<T> {
    /// Builds for the first time, out of contents that were read already.
    ///
    /// # Errors
    /// What `build` says.
    pub fn new(files: Vec<File>, build: Build<T>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self::with(build(&files)?, files, build))
    }

    /// The same, with the first one built already.
    pub fn with(first: T, files: Vec<File>, build: Build<T>) -> Self {
        Self { files, build, live: Live::new(first), told: None }
    }

    /// What was built, for those who use it.
    pub fn live(&self) -> Live<T> {
        self.live.clone()
    }

    /// With what it builds in a place that others look at already.
    fn at(mut self, live: Live<T>) -> Self {
        live.replace(self.live.current());
        self.live = live;
        self
    }

    fn paths(&self) -> String {
        self.files.iter().map(|file| file.path().display().to_string()).collect::<Vec<_>>().join(", ")
    }

    fn look(&self) -> Result<Option<(Vec<File>, T)>, Failed> {
        let read = |file: &File| File::read(file.path()).map_err(|error| Failed::Read(file.path().to_owned(), error));
        let files = self.files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if files == self.files {
            return Ok(None);
        }
        let built = (self.build)(&files).map_err(Failed::Build)?;
        Ok(Some((files, built)))
    }
}

/// Why files were not used.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("cannot use what has changed")]
    Build(#[source] Box<dyn Error + Send + Sync>),
}

impl<T: Send + Sync> Reloads for Reload<T> {
    fn reload(&mut self) -> Seen {
        match self.look() {
            Ok(None) => {
                self.told = None;
                Seen::Unchanged
            }
            Ok(Some((files, built))) => {
                self.live.replace(built);
                self.files = files;
                self.told = None;
                tracing::info!(files = self.paths(), "files have changed; what they hold is in use");
                Seen::Replaced
            }
            Err(failed) => {
                let error = telemetry::chain(&failed);
                if self.told.as_ref() != Some(&error) {
                    tracing::error!(files = self.paths(), %error, "files have changed and cannot be used; the old ones stay");
                    self.told = Some(error);
                }
                Seen::Refused
            }
        }
    }
}

impl<T> fmt::Debug for Reload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("files", &self.files).finish_non_exhaustive()
    }
}

// === impl Watchlist ===

impl Watchlist {
    /// What has files, and the TLS of listeners.
    pub fn new<T: Send + Sync + 'static>(
        mut all: Vec<Box<dyn Reloads>>,
        tls: impl IntoIterator<Item = Reload<T>>,
    ) -> Self {
        all.extend(tls.into_iter().map(|tls| -> Box<dyn Reloads> { Box::new(tls) }));
        Self(Arc::new(Mutex::new(all)))
    }

    /// Looks at other files from now on. What was built of a listener's TLS takes the place of what stands there, and so
    /// will what is built of its files later.
    pub fn replace<T: Send + Sync + 'static>(
        &self,
        mut all: Vec<Box<dyn Reloads>>,
        tls: impl IntoIterator<Item = (Live<T>, Reload<T>)>,
    ) {
        // Under the lock: a look at the old files that is under way must not have the last word.
        let mut list = self.list();
        all.extend(tls.into_iter().map(|(live, tls)| -> Box<dyn Reloads> { Box::new(tls.at(live)) }));
        *list = all;
    }

    fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    fn look(&self) {
        for one in &mut *self.list() {
            one.reload();
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Box<dyn Reloads>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watchlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watchlist")
    }
}

/// Looks at all files every so often, until the stop. The reading happens beside the runtime, which it would block.
pub async fn watch(all: Watchlist, every: Duration, shutdown: Shutdown) {
    let stopped = shutdown.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return,
            () = tokio::time::sleep(every) => {}
        }
        if all.is_empty() {
            continue;
        }
        let looked = all.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || looked.look()).await {
            tracing::error!(%error, "certificates are not looked at again");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory of its own that goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("mintgate-reload-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn number(files: &[File]) -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(std::str::from_utf8(files[0].contents())?.parse()?)
    }

    #[test]
    fn changed_contents_replace_and_bad_ones_do_not() {
        let directory = Directory::new();
        let path = directory.0.join("number");
        std::fs::write(&path, "1").unwrap();
        let mut reload = Reload::new(vec![File::read(&path).unwrap()], Box::new(number)).unwrap();
        let live = reload.live();
        assert_eq!((reload.reload(), **live.load()), (Seen::Unchanged, 1));
        std::fs::write(&path, "2").unwrap();
        assert_eq!((reload.reload(), **live.load()), (Seen::Replaced, 2));
        std::fs::write(&path, "x").unwrap();
        assert_eq!((reload.reload(), reload.reload(), **live.load()), (Seen::Refused, Seen::Refused, 2));
        std::fs::remove_file(&path).unwrap();
        assert_eq!((reload.reload(), **live.load()), (Seen::Refused, 2));
        std::fs::write(&path, "2").unwrap();
        assert_eq!((reload.reload(), **live.load()), (Seen::Unchanged, 2));
    }

    #[test]
    fn a_symbolic_link_that_is_swapped_is_seen() {
        let directory = Directory::new();
        for (name, text) in [("a", "1"), ("b", "2")] {
            std::fs::create_dir(directory.0.join(name)).unwrap();
            std::fs::write(directory.0.join(name).join("number"), text).unwrap();
        }
        let data = directory.0.join("..data");
        std::os::unix::fs::symlink("a", &data).unwrap();
        let mut reload = Reload::new(vec![File::read(data.join("number")).unwrap()], Box::new(number)).unwrap();
        std::os::unix::fs::symlink("b", directory.0.join("..tmp")).unwrap();
        std::fs::rename(directory.0.join("..tmp"), &data).unwrap();
        assert_eq!((reload.reload(), **reload.live().load()), (Seen::Replaced, 2));
    }
}
