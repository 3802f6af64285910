//! A place in the line of those who wait for a mint.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A place in the line. Who has counted himself in gives it back by dropping this.
pub(super) struct Place<'a>(pub(super) &'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
