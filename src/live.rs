//! What may be replaced while it is in use.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

/// The current one of something that may be replaced. Cheap to clone; all clones see a replacement.
pub struct Live<T>(Arc<ArcSwap<T>>);

// === impl Live ===

impl<T> Live<T> {
    /// Something that nothing has replaced yet.
    pub fn new(first: impl Into<Arc<T>>) -> Self {
        Self(Arc::new(ArcSwap::new(first.into())))
    }

    /// Puts another one in its place. Who has taken the one before keeps it.
    pub fn replace(&self, next: impl Into<Arc<T>>) {
        self.0.store(next.into());
    }

    /// The current one, for a moment.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.0.load()
    }

    /// The current one, to keep.
    pub fn current(&self) -> Arc<T> {
        self.0.load_full()
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}
