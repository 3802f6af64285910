//! A store in memory: what Redis does, for one process. For tests, and for trying what a fleet would do.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::seal::{EPOCHS, Epoch, Names};
use super::store::{Holder, Leased, Seen, Store, StoreError};

/// An epoch outlives every value that was made under it.
const EPOCH_LIFE: Duration = Duration::from_hours(7 * 24);

/// The map is swept when it has grown to this.
const SWEEP_AT: usize = 1024;

/// The store.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<String, (Vec<u8>, Instant)>,
    sweep_at: usize,
}

// === impl MemoryStore ===

impl MemoryStore {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every name that is there, and its bytes: for tests that look for what must not be readable.
    pub fn dump(&self) -> Vec<(String, Vec<u8>)> {
        self.kept().entries.iter().map(|(name, (bytes, _))| (name.clone(), bytes.clone())).collect()
    }

    /// Puts bytes under a name, or takes them away: for tests of what a stranger may do.
    pub fn plant(&self, name: &str, bytes: Option<(Vec<u8>, Duration)>) {
        match bytes {
            Some((bytes, life)) => self.kept().put(name, bytes, life),
            None => drop(self.kept().entries.remove(name)),
        }
    }

    /// Forgets everything, as a flushed Redis does.
    pub fn flush(&self) {
        self.kept().entries.clear();
    }
}

impl Store for MemoryStore {
    async fn look(&self, at: &Names) -> Result<Seen, StoreError> {
        Ok(self.kept().look(at))
    }

    async fn lease(
        &self,
        at: &Names,
        holder: &Holder,
        life: Duration,
        fresh: &[Epoch; EPOCHS],
    ) -> Result<Leased, StoreError> {
        let mut kept = self.kept();
        let granted = kept.get(&at.lease).is_none();
        if granted {
            kept.put(&at.lease, holder.to_vec(), life);
        }
        for (name, fresh) in at.epochs.iter().zip(fresh) {
            let epoch = kept.get(name).map_or(fresh.to_vec(), |(epoch, _)| epoch);
            kept.put(name, epoch, EPOCH_LIFE);
        }
        Ok(Leased { granted, seen: kept.look(at) })
    }

    async fn put(&self, at: &Names, holder: &Holder, value: Vec<u8>, life: Duration) -> Result<(), StoreError> {
        let mut kept = self.kept();
        kept.put(&at.value, value, life);
        kept.release(&at.lease, holder);
        Ok(())
    }

    async fn release(&self, at: &Names, holder: &Holder) -> Result<(), StoreError> {
        self.kept().release(&at.lease, holder);
        Ok(())
    }

    async fn renew(&self, epochs: &[(String, Epoch)]) -> Result<(), StoreError> {
        let mut kept = self.kept();
        for (name, epoch) in epochs {
            kept.put(name, epoch.to_vec(), EPOCH_LIFE);
        }
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

// === impl Kept ===

impl Kept {
    fn get(&self, name: &str) -> Option<(Vec<u8>, Duration)> {
        let now = Instant::now();
        let (bytes, until) = self.entries.get(name).filter(|(_, until)| *until > now)?;
        Some((bytes.clone(), *until - now))
    }

    fn put(&mut self, name: &str, bytes: Vec<u8>, life: Duration) {
        let now = Instant::now();
        if self.entries.len() >= self.sweep_at.max(SWEEP_AT) {
            self.entries.retain(|_, (_, until)| *until > now);
            self.sweep_at = self.entries.len() * 2;
        }
        self.entries.insert(name.to_owned(), (bytes, now + life));
    }

    fn release(&mut self, lease: &str, holder: &Holder) {
        if self.get(lease).is_some_and(|(held, _)| held == holder) {
            self.entries.remove(lease);
        }
    }

    fn look(&self, at: &Names) -> Seen {
        let epoch = |name: &String| self.get(name).and_then(|(epoch, _)| epoch.try_into().ok());
        Seen {
            leased: self.get(&at.lease).is_some(),
            value: self.get(&at.value),
            epochs: at.epochs.each_ref().map(epoch),
        }
    }
}
