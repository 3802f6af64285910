//! What the other replicas have yet to hear: who was purged or refused here. It waits while the store is down.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::session::{SessionId, UserId};
use crate::token::TokenKey;
use crate::token::scope::PurgeScope;

/// Words that wait. When there are more, everybody's tokens are forgotten instead, and the oldest words are lost.
const CAPACITY: usize = 10_000;

/// One thing that was done here, for the others to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The tokens of a scope are forgotten.
    Purge(PurgeScope),
    /// A session is refused.
    RevokeSession(SessionId),
    /// Every session of a user is refused.
    RevokeUser(UserId),
    /// ... for as long as he is banned or locked, as of then, in milliseconds.
    Bar(UserId, i64),
    /// He is let in again.
    Admit(UserId, i64),
}

/// The words, the oldest first. It outlives every configuration.
#[derive(Debug)]
pub struct Outbox {
    words: Mutex<VecDeque<Word>>,
    /// Whether somebody will hear them.
    open: AtomicBool,
    told: watch::Sender<()>,
}

// === impl Word ===

impl Word {
    /// Whose tokens are good no more.
    pub fn scope(&self) -> Option<PurgeScope> {
        match self {
            Self::Purge(scope) => Some(scope.clone()),
            Self::RevokeSession(sid) => Some(PurgeScope::Session(sid.clone())),
            Self::RevokeUser(sub) | Self::Bar(sub, _) => Some(PurgeScope::User(sub.clone())),
            Self::Admit(..) => None,
        }
    }
}

// === impl Outbox ===

impl Default for Outbox {
    fn default() -> Self {
        Self { words: Mutex::default(), open: AtomicBool::new(false), told: watch::Sender::new(()) }
    }
}

impl Outbox {
    fn words(&self) -> MutexGuard<'_, VecDeque<Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether there is a shared level; without one nobody has to hear anything.
    pub fn open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
        if !open {
            self.words().clear();
        }
    }

    /// Takes a word. From now on no token that it covers is taken from the store, until the store has heard it.
    pub fn push(&self, word: Word) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        let mut words = self.words();
        if words.contains(&word) {
            return;
        }
        if words.len() >= CAPACITY {
            let all = Word::Purge(PurgeScope::All);
            tracing::error!("the shared cache is down for long: the oldest revocation is not told to other replicas");
            words.pop_front();
            if !words.contains(&all) {
                words.pop_front();
                words.push_back(all);
            }
        }
        words.push_back(word);
        drop(words);
        self.told.send_replace(());
    }

    /// Whether a token may have been purged here and still be there.
    pub fn covers(&self, key: &TokenKey) -> bool {
        self.words().iter().any(|word| word.scope().is_some_and(|scope| scope.covers(key)))
    }

    /// The oldest word; waits for one.
    pub async fn first(&self) -> Word {
        let mut told = self.told.subscribe();
        loop {
            if let Some(word) = self.words().front() {
                return word.clone();
            }
            if told.changed().await.is_err() {
                // The sender lives in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The store has heard it.
    pub fn heard(&self, word: &Word) {
        let mut words = self.words();
        if let Some(at) = words.iter().position(|waiting| waiting == word) {
            words.remove(at);
        }
    }

    /// Whether the store has heard everything.
    pub fn is_empty(&self) -> bool {
        self.words().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::fake::key;

    fn purge(number: usize) -> Word {
        Word::Purge(PurgeScope::Session(SessionId::new(&format!("sess_{number}")).unwrap()))
    }

    #[test]
    fn what_was_purged_here_is_covered_until_the_store_has_heard_it() {
        let outbox = Outbox::default();
        outbox.push(purge(1));
        assert!(outbox.is_empty(), "nobody would hear it");
        outbox.open(true);
        outbox.push(purge(1));
        outbox.push(Word::Admit(UserId::new("user_2").unwrap(), 1));
        assert!(outbox.covers(&key(1)) && !outbox.covers(&key(2)));
        outbox.heard(&purge(1));
        assert!(!outbox.covers(&key(1)));
    }

    /// Fails where a word is lost and nothing stands in for it.
    #[test]
    fn when_there_are_too_many_nobodys_token_is_taken_from_the_store() {
        let outbox = Outbox::default();
        outbox.open(true);
        for number in 0..CAPACITY + 100 {
            outbox.push(purge(number));
        }
        assert_eq!(outbox.words().len(), CAPACITY);
        assert!(outbox.covers(&key(0)) && outbox.covers(&key(CAPACITY * 2)));
    }
}
