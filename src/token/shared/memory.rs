//! A store in memory: what Redis does, for one process. For tests, and for trying what a fleet would do.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::journal::{Entries, Journal, Place};
use super::seal::{EPOCHS, Epoch, FundNames, Names};
use super::store::{EPOCH_LIFE, Holder, Leased, Seen, Store, StoreError};
use super::vault::{Drawn, Vault};
use crate::token::budget::purse::Ask;

/// The map is swept when it has grown to this.
const SWEEP_AT: usize = 1024;

/// The store.
#[derive(Debug)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
    told: Notify,
    /// Its clock counts from here.
    begun: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<String, (Vec<u8>, Instant)>,
    sweep_at: usize,
    streams: HashMap<String, Entries>,
    /// From when on the places in streams are counted, in milliseconds of its clock.
    streams_begun: u64,
    /// Units, and the moment as of which they were counted.
    buckets: HashMap<String, (f64, u64)>,
}

// === impl MemoryStore ===

impl Default for MemoryStore {
    fn default() -> Self {
        Self { kept: Mutex::default(), told: Notify::new(), begun: Instant::now() }
    }
}

impl MemoryStore {
    fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Journal for MemoryStore {
    type Line = ();

    async fn append(&self, stream: &str, entry: &[u8]) -> Result<(), StoreError> {
        let (now, mut kept) = (self.millis(), self.kept());
        // None is at the place before all others.
        let millis = now - kept.streams_begun + 1;
        let entries = kept.streams.entry(stream.to_owned()).or_default();
        let place = match entries.last() {
            Some((last, _)) if last.millis >= millis => Place { number: last.number + 1, ..*last },
            _ => Place { millis, number: 0 },
        };
        entries.push((place, entry.to_vec()));
        drop(kept);
        self.told.notify_waiters();
        Ok(())
    }

    async fn open(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn last(&self, (): &mut (), stream: &str) -> Result<Option<Place>, StoreError> {
        Ok(self.kept().streams.get(stream).and_then(|entries| entries.last()).map(|(place, _)| *place))
    }

    async fn read(&self, (): &mut (), stream: &str, after: Place, patience: Duration) -> Result<Entries, StoreError> {
        let after = || {
            let kept = self.kept();
            let entries = kept.streams.get(stream).into_iter().flatten();
            entries.filter(|(place, _)| *place > after).cloned().collect::<Entries>()
        };
        let told = self.told.notified();
        tokio::pin!(told);
        // Heard from now on, so that nothing is missed between the look and the wait.
        told.as_mut().enable();
        let there = after();
        if there.is_empty() && timeout(patience, told).await.is_ok() { Ok(after()) } else { Ok(there) }
    }
}

impl Vault for MemoryStore {
    async fn draw(&self, at: &FundNames, ask: Ask) -> Result<Drawn, StoreError> {
        let (now, mut kept) = (self.millis(), self.kept());
        if let Some((sealed, _)) = kept.get(&at.pause) {
            return Ok(Drawn::Paused { sealed, now });
        }
        let (before, at_ms) = kept.buckets.get(&at.bucket).copied().unwrap_or((ask.capacity, now));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a process")]
        let flowed = now.saturating_sub(at_ms) as f64 * ask.rate;
        let units = (before + flowed).min(ask.capacity);
        let missing = 1.0 + ask.reserve - units;
        let wait = (missing > 0.001).then(|| Duration::from_secs_f64((missing / ask.rate).ceil() / 1000.0));
        kept.buckets.insert(at.bucket.clone(), (if wait.is_some() { units } else { units - 1.0 }, now));
        Ok(wait.map_or(Drawn::Taken, Drawn::After))
    }

    async fn now(&self) -> Result<u64, StoreError> {
        Ok(self.millis())
    }

    async fn pause(&self, at: &FundNames, pause: Vec<u8>, life: Duration) -> Result<(), StoreError> {
        let mut kept = self.kept();
        if kept.get(&at.pause).is_none_or(|(_, left)| left < life) {
            kept.put(&at.pause, pause, life);
        }
        Ok(())
    }
}

/// What tests look at and do.
#[cfg(test)]
impl MemoryStore {
    /// Every name that is there, and its bytes.
    pub fn dump(&self) -> Vec<(String, Vec<u8>)> {
        self.kept().entries.iter().map(|(name, (bytes, _))| (name.clone(), bytes.clone())).collect()
    }

    /// Puts bytes under a name, or takes them away, as a stranger may.
    pub fn plant(&self, name: &str, bytes: Option<(Vec<u8>, Duration)>) {
        match bytes {
            Some((bytes, life)) => self.kept().put(name, bytes, life),
            None => drop(self.kept().entries.remove(name)),
        }
    }

    /// Forgets everything, as a Redis does that is flushed and has a clock that is behind.
    pub fn flush(&self) {
        let (now, mut kept) = (self.millis(), self.kept());
        kept.entries.clear();
        kept.streams.clear();
        kept.streams_begun = now;
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
