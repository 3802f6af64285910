//! Follows the configuration's files: what has changed and is valid is put to use, what is not changes nothing.
//!
//! Every file that was read counts: the configuration itself, and the secrets, certificates and keys that it names.
//! Contents are compared, every second, not times or inodes: so a symbolic link that is swapped (as Kubernetes does) is
//! seen like an edit, a file that was only touched is not, and no file system has to tell of its changes.

use std::cell::RefCell;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tokio::sync::Notify;

use crate::config::Config;
use crate::config::validate::{self, Diagnostics, Environment, Secrets};
use crate::metrics::Common;
use crate::secret::Digest;
use crate::telemetry;

/// Between two looks at the files.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a configuration is read from.
pub struct Source<'a> {
    /// The file.
    pub path: PathBuf,
    /// What it may read.
    pub environment: &'a dyn Environment,
}

/// The files that a configuration was read from, and what was in each; nothing where it could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen(Vec<(PathBuf, Option<Digest>)>);

/// What is worth saying about a configuration that is put to use: keys that keep their old value until a restart.
pub type Kept = Vec<&'static str>;

/// Remembers what is read through it.
struct Witness<'a> {
    environment: &'a dyn Environment,
    seen: RefCell<Vec<(PathBuf, Option<Digest>)>>,
}

// === impl Source ===

impl Source<'_> {
    /// Reads the configuration, as `run` does.
    pub fn load(&self) -> (Result<(Config, Diagnostics), Diagnostics>, Seen) {
        let witness = Witness { environment: self.environment, seen: RefCell::default() };
        let loaded = validate::load(&self.path, &witness, Secrets::Required);
        (loaded, Seen(witness.seen.into_inner()))
    }
}

// === impl Seen ===

impl Seen {
    /// What is in the files by now.
    fn again(&self) -> Self {
        let now = |(path, _): &(PathBuf, _)| (path.clone(), fs::read(path).ok().map(|bytes| Digest::of(&bytes)));
        Self(self.0.iter().map(now).collect())
    }
}

// === impl Witness ===

impl Environment for Witness<'_> {
    fn var(&self, name: &str) -> Option<String> {
        self.environment.var(name)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = self.environment.read(path);
        self.seen.borrow_mut().push((path.to_owned(), read.as_ref().ok().map(|bytes| Digest::of(bytes))));
        read
    }

    fn exists(&self, path: &Path) -> bool {
        self.environment.exists(path)
    }
}

/// Looks at the files every [`LOOK_EVERY`], and whenever it is `asked`; `apply` puts a configuration to use, or says why
/// it cannot be. Ends with whoever waits for it.
///
/// A change is believed when two looks in a row agree: a file that is just being written is left alone until it is whole.
pub async fn follow(
    source: &Source<'_>,
    mut seen: Seen,
    asked: &Notify,
    counts: &Common,
    mut apply: impl AsyncFnMut(Config) -> Result<Kept, Box<dyn Error + Send + Sync>>,
) {
    let mut changing = None;
    loop {
        let by_hand = tokio::time::timeout(LOOK_EVERY, asked.notified()).await.is_ok();
        if !by_hand {
            let before = seen.clone();
            // Beside the runtime, which a slow file system would block.
            let Ok(now) = tokio::task::spawn_blocking(move || before.again()).await else { return };
            if now == seen {
                changing = None;
                continue;
            }
            if changing.replace(now.clone()) != Some(now) {
                continue;
            }
        }
        changing = None;
        let (loaded, read) = source.load();
        seen = read;
        let file = source.path.display();
        let applied = match loaded {
            Err(problems) => {
                for problem in problems.each() {
                    tracing::error!(%file, problem, "the configuration cannot be used");
                }
                None
            }
            Ok((config, warnings)) => {
                for warning in warnings.each() {
                    tracing::warn!(%file, warning, "the configuration is probably not meant so");
                }
                match apply(config).await {
                    Ok(kept) => Some(kept),
                    Err(error) => {
                        tracing::error!(%file, error = telemetry::chain(&*error), "the configuration cannot be used");
                        None
                    }
                }
            }
        };
        counts.last_reload_ok.set(i64::from(applied.is_some()));
        let Some(kept) = applied else {
            counts.reloads_failed.add();
            tracing::error!(%file, "not reloaded: the configuration before serves on");
            continue;
        };
        counts.reloads_ok.add();
        if kept.is_empty() {
            tracing::info!(%file, "reloaded");
        } else {
            tracing::warn!(%file, keys = kept.join(", "), "reloaded, but for keys that need a restart");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn configuration(route: &str) -> String {
        format!("[[routes]]\nname = \"{route}\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n")
    }

    /// A file of a test's own.
    fn file() -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mintgate-follow-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        std::env::temp_dir().join(name)
    }

    /// What was put to use while `script` changed the file, which follows one look after the other.
    async fn used(script: &[&str]) -> Vec<String> {
        let path = file();
        fs::write(&path, configuration("first")).unwrap();
        let source = Source { path: path.clone(), environment: &validate::Process };
        let (asked, counts, used) = (Notify::new(), Common::default(), RefCell::new(Vec::new()));
        let apply = async |config: Config| {
            used.borrow_mut().push(config.routes[0].name.clone());
            Ok(Kept::new())
        };
        let (_, seen) = source.load();
        let writes = async {
            // Between two looks.
            tokio::time::sleep(LOOK_EVERY / 2).await;
            for text in script {
                fs::write(&path, text).unwrap();
                tokio::time::sleep(LOOK_EVERY).await;
            }
            tokio::time::sleep(LOOK_EVERY * 3).await;
        };
        tokio::select! {
            () = follow(&source, seen, &asked, &counts, apply) => {}
            () = writes => {}
        }
        fs::remove_file(path).unwrap();
        used.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_still_being_written_is_left_alone() {
        // Each is valid by itself, as the beginning of a longer one may be.
        let texts = ["half", "more", "whole"].map(configuration);
        assert_eq!(used(&texts.each_ref().map(String::as_str)).await, ["whole"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_was_only_touched_or_put_back_is_nothing_new() {
        let (first, other) = (configuration("first"), configuration("other"));
        assert_eq!(used(&[&first, &first, &other, &first]).await, Vec::<String>::new());
    }
}
