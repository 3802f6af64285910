//! Follows the configuration's files: what has changed and is valid is put to use, what is not changes nothing.
//!
//! Every file that was read counts: the configuration itself, and the secrets that it names. Certificates are looked at by
//! `transport::tls::reload`, so that they are renewed whatever state the configuration is in. Contents are compared, every second, not times or inodes: so a symbolic link that is swapped (as Kubernetes does) is
//! seen like an edit, a file that was only touched is not, and no file system has to tell of its changes.

use std::cell::RefCell;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Config;
use crate::config::validate::{self, Diagnostics, Environment, Secrets};
use crate::manager::Manager;
use crate::metrics::{Common, Reloaded};
use crate::secret::Digest;
use crate::telemetry;

/// Between two looks at the files.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the service manager shows after a reload that came to nothing.
const REFUSED: &str = "serving; the last reload was refused, the log says why";

/// Problems of a refused configuration that are kept to be shown; the log has all of them.
const MOST_SHOWN: usize = 8;

/// Where a configuration is read from.
pub struct Source<'a> {
    /// The file.
    pub path: PathBuf,
    /// What it may read.
    pub environment: &'a dyn Environment,
}

/// The files that a configuration was read from, and what was in each; nothing where it could not be read. Only regular
/// files: from a pipe the same does not come twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen(Vec<(PathBuf, Option<Digest>)>);

/// What is worth saying about a configuration that is put to use: keys that keep their old value until a restart.
pub type Kept = Vec<&'static str>;

/// Remembers what is read through it.
struct Witness<'a> {
    environment: &'a dyn Environment,
    /// Whether everything has been read before.
    again: bool,
    seen: RefCell<Vec<(PathBuf, Option<Digest>)>>,
}

// === impl Source ===

impl Source<'_> {
    /// Reads the configuration for the first time.
    pub fn load(&self) -> (Result<(Config, Diagnostics), Diagnostics>, Seen) {
        self.read(false)
    }

    fn read(&self, again: bool) -> (Result<(Config, Diagnostics), Diagnostics>, Seen) {
        let witness = Witness { environment: self.environment, again, seen: RefCell::default() };
        let loaded = validate::load(&self.path, &witness, Secrets::Required);
        let mut seen = witness.seen.into_inner();
        if let Ok((config, _)) = &loaded {
            seen.retain(|(path, _)| config.certificates().all(|file| file.path() != path));
        }
        (loaded, Seen(seen))
    }
}

// === impl Seen ===

impl Seen {
    /// What is in the files by now.
    fn again(&self) -> Self {
        let read = |path: &PathBuf| if is_regular(path) { fs::read(path).ok() } else { None };
        let now = |(path, _): &(PathBuf, _)| (path.clone(), read(path).map(|bytes| Digest::of(&bytes)));
        Self(self.0.iter().map(now).collect())
    }
}

// === impl Witness ===

impl Environment for Witness<'_> {
    fn var(&self, name: &str) -> Option<String> {
        self.environment.var(name)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let regular = is_regular(path);
        if self.again && !regular && path.exists() {
            // Nobody may be at its other end any more, and all mints would wait with us.
            return Err(io::Error::other("no regular file: what came through it once cannot be read again"));
        }
        let read = self.environment.read(path);
        if regular || read.is_err() {
            self.seen.borrow_mut().push((path.to_owned(), read.as_ref().ok().map(|bytes| Digest::of(bytes))));
        }
        read
    }

    fn exists(&self, path: &Path) -> bool {
        self.environment.exists(path)
    }
}

/// Whether it can be read again and again without waiting for anybody.
fn is_regular(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.is_file())
}

/// Looks at the files every [`LOOK_EVERY`], and whenever it is `asked`; `apply` puts a configuration to use, or says why
/// it cannot be. Ends with whoever waits for it.
///
/// A change is believed when two looks in a row agree: a file that is just being written is left alone until it is whole.
/// What is valid and cannot be put to use now is tried again, and told once.
pub async fn follow(
    source: &Source<'_>,
    mut seen: Seen,
    asked: &Notify,
    counts: &Common,
    manager: Manager,
    mut apply: impl AsyncFnMut(Config) -> Result<Kept, Box<dyn Error + Send + Sync>>,
) {
    let (mut changing, mut told) = (None, None);
    loop {
        let by_hand = tokio::time::timeout(LOOK_EVERY, asked.notified()).await.is_ok();
        if !by_hand {
            let before = seen.clone();
            // Beside the runtime, which a slow file system would block.
            let Ok(now) = tokio::task::spawn_blocking(move || before.again()).await else { return };
            if now == seen {
                changing = None;
                if told.take().is_some() {
                    // What could not be used was taken back.
                    counts.last_reload_ok.set(1);
                    counts.set_last_reload(None);
                }
                continue;
            }
            if changing.replace(now.clone()) != Some(now) {
                continue;
            }
        }
        changing = None;
        if by_hand || told.is_none() {
            manager.reloading();
        }
        let (loaded, read) = source.read(true);
        let before = std::mem::replace(&mut seen, read);
        let file = source.path.display();
        let mut why = Vec::new();
        let applied = match loaded {
            Err(problems) => {
                why = problems.brief().take(MOST_SHOWN).collect();
                for problem in problems.each() {
                    tracing::error!(%file, problem, "the configuration cannot be used");
                }
                None
            }
            Ok((config, warnings)) => {
                match apply(config).await {
                    Ok(kept) => {
                        told = None;
                        for warning in warnings.each() {
                            tracing::warn!(%file, warning, "the configuration is probably not meant so");
                        }
                        Some(kept)
                    }
                    Err(error) => {
                        // So the next looks find it changed again.
                        let this = (std::mem::replace(&mut seen, before), telemetry::chain(&*error));
                        if told.as_ref() == Some(&this) {
                            manager.ready(REFUSED);
                            continue;
                        }
                        tracing::error!(%file, error = this.1, "the configuration cannot be used");
                        why.push(this.1.clone());
                        told = Some(this);
                        None
                    }
                }
            }
        };
        counts.last_reload_ok.set(i64::from(applied.is_some()));
        manager.ready(if applied.is_some() { "serving" } else { REFUSED });
        let kept = applied.clone().unwrap_or_default();
        counts.set_last_reload(Some(Reloaded { at: Instant::now(), problems: why, kept }));
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
    use std::cell::Cell;
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
        used_but_for(0, script).await.0
    }

    /// The same where the first few attempts fail, and how many failures were counted.
    async fn used_but_for(failures: usize, script: &[&str]) -> (Vec<String>, u64) {
        let path = file();
        fs::write(&path, configuration("first")).unwrap();
        let source = Source { path: path.clone(), environment: &validate::Process };
        let (asked, counts, used) = (Notify::new(), Common::default(), RefCell::new(Vec::new()));
        let attempts = Cell::new(0);
        let apply = async |config: Config| {
            attempts.set(attempts.get() + 1);
            if attempts.get() <= failures {
                return Err("not now".into());
            }
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
            tokio::time::sleep(LOOK_EVERY * 9).await;
        };
        tokio::select! {
            () = follow(&source, seen, &asked, &counts, Manager, apply) => {}
            () = writes => {}
        }
        fs::remove_file(path).unwrap();
        (used.into_inner(), counts.reloads_failed.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_used_now_is_tried_again_and_told_once() {
        let other = configuration("other");
        assert_eq!(used_but_for(3, &[&other]).await, (vec!["other".to_owned()], 1));
        // Taken back: what serves is what the file says.
        assert_eq!(used_but_for(9, &[&other, &other, &other, &configuration("first")]).await, (vec![], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_still_being_written_is_left_alone() {
        // Each is valid by itself, as the beginning of a longer one may be.
        let texts = ["half", "more", "whole"].map(configuration);
        assert_eq!(used(&texts.each_ref().map(String::as_str)).await, ["whole"]);
    }

    /// Fails where it is read: nobody is at the other end of that pipe, and the test would hang.
    #[test]
    fn what_is_no_file_is_not_read_again() {
        let path = file();
        let pipe = path.with_extension("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let secret = format!("[clerk]\nsecret_key = {{ file = {pipe:?} }}\njwks_url = \"https://a.example/jwks\"\n");
        fs::write(&path, format!("{secret}{}", configuration("first"))).unwrap();
        let (loaded, _) = Source { path: path.clone(), environment: &validate::Process }.read(true);
        let problems = loaded.unwrap_err().render(false);
        assert!(problems.contains("cannot be read again"), "{problems}");
        fs::remove_file(path).unwrap();
        fs::remove_file(pipe).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_was_only_touched_or_put_back_is_nothing_new() {
        let (first, other) = (configuration("first"), configuration("other"));
        assert_eq!(used(&[&first, &first, &other, &first]).await, Vec::<String>::new());
    }
}
