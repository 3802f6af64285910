//! Entries that stand until a moment, and of which there is no more than so many: what is remembered of a flood is bounded.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use tokio::time::Instant;

/// A map whose entries lapse. All of one map stand equally long, so the order of arrival is the order of departure; beyond
/// the capacity the oldest gives way.
#[derive(Debug)]
pub struct Lapsing<K, V> {
    entries: HashMap<K, (Instant, V)>,
    /// Every entry, and what stood of those that were renewed or removed; at most twice the capacity.
    order: VecDeque<(Instant, K)>,
    capacity: usize,
}

// === impl Lapsing ===

impl<K: Hash + Eq + Clone, V> Lapsing<K, V> {
    /// Empty, with room for so many.
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// What stands.
    pub fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|(until, _)| now < *until).map(|(_, value)| value)
    }

    /// Stands until then; what stood under the key is renewed, and never shortened. What comes late, with an earlier end
    /// than others that are here, takes up its room until those have lapsed.
    pub fn insert(&mut self, key: K, value: V, until: Instant) {
        let standing = self.entries.get(&key).map(|(standing, _)| *standing);
        let until = standing.map_or(until, |standing| standing.max(until));
        self.entries.insert(key.clone(), (until, value));
        if standing == Some(until) {
            return;
        }
        self.order.push_back((until, key));
        while self.entries.len() > self.capacity {
            self.drop_oldest();
        }
        // One key that is renewed without end takes nobody else's place.
        if self.order.len() > 2 * self.capacity {
            let entries = &self.entries;
            self.order.retain(|(until, key)| entries.get(key).is_some_and(|(own, _)| own == until));
        }
    }

    /// Takes it away.
    pub fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Removes what has lapsed.
    pub fn sweep(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
    }

    /// How many stand, as of the last sweep.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn drop_oldest(&mut self) {
        let Some((until, key)) = self.order.pop_front() else { return };
        if self.entries.get(&key).is_some_and(|(own, _)| *own == until) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_entry_stands_until_its_moment_or_until_it_is_renewed_or_removed() {
        let (mut map, begin) = (Lapsing::new(10), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        map.insert("a", 1, after(10));
        map.insert("b", 2, after(10));
        map.insert("a", 3, after(20));
        assert_eq!(
            (map.get(&"a", after(10)), map.get(&"b", after(9)), map.get(&"b", after(10))),
            (Some(&3), Some(&2), None)
        );
        map.sweep(after(10));
        assert_eq!((map.len(), map.get(&"a", after(19))), (1, Some(&3)));
        map.remove(&"a");
        map.insert("a", 4, after(30));
        map.sweep(after(20));
        assert_eq!(map.get(&"a", after(29)), Some(&4), "what stood before it was removed takes nothing away");
        map.sweep(after(30));
        assert!(map.is_empty() && map.order.is_empty());
    }

    /// Fails where a late word shortens what stands, and where its own end is not looked at.
    #[tokio::test(start_paused = true)]
    async fn what_comes_late_shortens_nothing_and_lapses_in_time() {
        let (mut map, begin) = (Lapsing::new(10), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        map.insert("a", 1, after(20));
        map.insert("a", 2, after(10));
        map.insert("b", 3, after(10));
        assert_eq!(
            (map.get(&"a", after(19)), map.get(&"b", after(9)), map.get(&"b", after(10))),
            (Some(&2), Some(&3), None)
        );
        map.sweep(after(20));
        assert!(map.is_empty());
    }

    /// Fails without the bound on entries, and without the one on what stands in their order.
    #[tokio::test(start_paused = true)]
    async fn neither_many_keys_nor_one_that_is_renewed_without_end_take_more_room() {
        let (mut map, begin) = (Lapsing::new(10), Instant::now());
        for number in 0..100 {
            map.insert(number, (), begin);
        }
        assert_eq!((map.len(), map.order.len()), (10, 10));
        assert!(map.entries.contains_key(&99) && !map.entries.contains_key(&89));
        for passed in 1..1000 {
            map.insert(99, (), begin + Duration::from_millis(passed));
        }
        assert!(map.order.len() <= 20, "{}", map.order.len());
        assert!((90..100).all(|number| map.entries.contains_key(&number)), "it pushes nobody out");
    }
}
