//! What goes on with a connection, or with a stream of HTTP/2, once HTTP is over on it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// What follows HTTP: an upgrade's tunnel, or the end of one that was refused.
pub struct Sequel(pub Pin<Box<dyn Future<Output = ()> + Send>>);

/// Where a request leaves its sequel, for whoever serves HTTP there. To find nothing costs a load.
#[derive(Debug, Default)]
pub struct Slot {
    left: AtomicBool,
    sequel: Mutex<Option<Sequel>>,
}

// === impl Slot ===

impl Slot {
    /// Says what follows. The last word counts.
    pub fn leave(&self, sequel: impl Future<Output = ()> + Send + 'static) {
        *self.sequel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Sequel(Box::pin(sequel)));
        self.left.store(true, Relaxed);
    }

    /// What follows, if anything does.
    pub fn take(&self) -> Option<Sequel> {
        if !self.left.load(Relaxed) {
            return None;
        }
        self.left.store(false, Relaxed);
        self.sequel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

// === impl Sequel ===

impl fmt::Debug for Sequel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequel").finish_non_exhaustive()
    }
}
