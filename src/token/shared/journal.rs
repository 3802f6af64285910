//! What words need of a store: a stream that keeps them for who was away.

use std::sync::Arc;
use std::time::Duration;

use super::store::StoreError;

/// A place in a stream: a moment by the store's clock, in milliseconds, and a number within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The moment.
    pub millis: u64,
    /// The number.
    pub number: u64,
}

/// Entries with their places, in order.
pub type Entries = Vec<(Place, Vec<u8>)>;

/// Keeps a stream of entries, bounded in number and time.
pub trait Journal: Send + Sync + 'static {
    /// A way to read that nothing else has to wait behind.
    type Line: Send;

    /// Adds an entry.
    fn append(&self, stream: &str, entry: &[u8]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Opens a way to read.
    fn open(&self) -> impl Future<Output = Result<Self::Line, StoreError>> + Send;

    /// The place of the last entry; `None` where there is none.
    fn last(
        &self,
        line: &mut Self::Line,
        stream: &str,
    ) -> impl Future<Output = Result<Option<Place>, StoreError>> + Send;

    /// Some of the entries after a place; waits for the first of them, for so long.
    fn read(
        &self,
        line: &mut Self::Line,
        stream: &str,
        after: Place,
        patience: Duration,
    ) -> impl Future<Output = Result<Entries, StoreError>> + Send;
}

// === impl Place ===

impl Place {
    /// Earlier by so long.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self { millis: self.millis.saturating_sub(by), number: 0 }
    }
}

impl<S: Journal> Journal for Arc<S> {
    type Line = S::Line;

    fn append(&self, stream: &str, entry: &[u8]) -> impl Future<Output = Result<(), StoreError>> + Send {
        S::append(self, stream, entry)
    }

    fn open(&self) -> impl Future<Output = Result<Self::Line, StoreError>> + Send {
        S::open(self)
    }

    fn last(
        &self,
        line: &mut Self::Line,
        stream: &str,
    ) -> impl Future<Output = Result<Option<Place>, StoreError>> + Send {
        S::last(self, line, stream)
    }

    fn read(
        &self,
        line: &mut Self::Line,
        stream: &str,
        after: Place,
        patience: Duration,
    ) -> impl Future<Output = Result<Entries, StoreError>> + Send {
        S::read(self, line, stream, after, patience)
    }
}
