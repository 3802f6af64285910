//! Room for what is kept of many bodies together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Room for so many bytes. Whoever finds none keeps nothing.
#[derive(Debug)]
pub struct Room {
    held: AtomicUsize,
    most: usize,
}

/// A part of it, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    room: Arc<Room>,
    held: usize,
}

// === impl Room ===

impl Room {
    /// Room for so many bytes.
    pub fn new(most: usize) -> Self {
        Self { held: AtomicUsize::new(0), most }
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = self.held.fetch_add(bytes, Relaxed).saturating_add(bytes) <= self.most;
        if !fits {
            self.held.fetch_sub(bytes, Relaxed);
        }
        fits
    }
}

// === impl Share ===

impl Share {
    /// None of it yet.
    pub fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), held: 0 }
    }

    /// Takes more of it. Says whether there was so much left; else nothing has changed.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.room.take(bytes);
        if fits {
            self.held += bytes;
        }
        fits
    }

    /// The whole share, for somebody else.
    pub fn pass_on(&mut self) -> Self {
        Self { room: Arc::clone(&self.room), held: std::mem::take(&mut self.held) }
    }

    /// How much it is.
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.held, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where what did not fit is counted, or what was held is not given back.
    #[test]
    fn what_is_held_together_has_a_bound_and_is_given_back() {
        let room = Arc::new(Room::new(10));
        let (mut one, mut other) = (Share::new(&room), Share::new(&room));
        assert!(one.grow(6) && !other.grow(5) && other.grow(4) && !one.grow(1));
        assert_eq!((one.held(), other.held()), (6, 4));
        assert!(!other.grow(usize::MAX));
        drop(one);
        assert!(other.grow(6) && !other.grow(1));
        drop(other);
        assert_eq!(room.held.load(Relaxed), 0);
    }
}
