//! What the other replicas have yet to hear: who was purged or refused here. It waits while the store is down.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::seal::{Channel, Mark};
use crate::clock::Wall;
use crate::lapsing::Lapsing;
use crate::session::{SessionId, UserId};
use crate::token::TokenKey;
use crate::token::scope::PurgeScope;

/// Words that wait. When there are more, everybody's tokens are forgotten in place of all purges; of refusals the oldest is
/// lost then.
const CAPACITY: usize = 10_000;

/// Words of a stream of which it is remembered that they were followed: as many as it has, and for as long.
const FOLLOWED: usize = 120_000;
const FOLLOWED_FOR: Duration = Duration::from_hours(8 * 24);

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

/// Does what another replica has done. Cheap to clone.
#[derive(Clone)]
pub struct Hear(Arc<Follow>);

type Follow = dyn Fn(&Word, Duration) + Send + Sync;

/// The words, the oldest first. It outlives every configuration.
#[derive(Debug)]
pub struct Outbox {
    words: Mutex<Words>,
    /// Whether somebody will hear them.
    open: AtomicBool,
    /// A word has come, or has been heard.
    told: watch::Sender<()>,
    /// Words of the streams that were followed, ours among them.
    refusals: Mutex<Lapsing<Mark, ()>>,
    purges: Mutex<Lapsing<Mark, ()>>,
}

/// A word that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The how manieth it is.
    pub number: u64,
    /// What it says.
    pub word: Word,
}

#[derive(Debug, Default)]
struct Words {
    waiting: VecDeque<Letter>,
    /// Of the last one that came, and of the last one that somebody began to say.
    last: u64,
    begun: u64,
}

// === impl Hear ===

impl Hear {
    /// By this.
    pub fn by(hear: impl Fn(&Word, Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Follows a word, which was said so long ago.
    pub(super) fn follow(&self, word: &Word, age: Duration) {
        (self.0)(word, age);
    }
}

impl fmt::Debug for Hear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hear")
    }
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

    /// Where it is said.
    pub(super) fn channel(&self) -> Channel {
        match self {
            Self::Purge(_) => Channel::Purges,
            Self::RevokeSession(_) | Self::RevokeUser(_) | Self::Bar(..) | Self::Admit(..) => Channel::Refusals,
        }
    }

    /// For the stream: the kind, the moment `at` when it was said, what it is as of, and whose it is.
    pub(super) fn encode(&self, at: Wall) -> Vec<u8> {
        let (kind, as_of, whose) = match self {
            Self::Purge(PurgeScope::All) => (0, 0, ""),
            Self::Purge(PurgeScope::Session(sid)) => (1, 0, sid.as_str()),
            Self::Purge(PurgeScope::User(sub)) => (2, 0, sub.as_str()),
            Self::RevokeSession(sid) => (3, 0, sid.as_str()),
            Self::RevokeUser(sub) => (4, 0, sub.as_str()),
            Self::Bar(sub, as_of) => (5, *as_of, sub.as_str()),
            Self::Admit(sub, as_of) => (6, *as_of, sub.as_str()),
        };
        [&[kind][..], &at.as_millis().to_be_bytes(), &i64::to_be_bytes(as_of), whose.as_bytes()].concat()
    }

    /// `None` for what a later version may say.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, Wall)> {
        let (kind, rest) = bytes.split_first()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (as_of, whose) = rest.split_first_chunk::<8>()?;
        let (as_of, whose) = (i64::from_be_bytes(*as_of), std::str::from_utf8(whose).ok()?);
        let session = || SessionId::new(whose).ok();
        let user = || UserId::new(whose).ok();
        let word = match kind {
            0 => Self::Purge(PurgeScope::All),
            1 => Self::Purge(PurgeScope::Session(session()?)),
            2 => Self::Purge(PurgeScope::User(user()?)),
            3 => Self::RevokeSession(session()?),
            4 => Self::RevokeUser(user()?),
            5 => Self::Bar(user()?, as_of),
            6 => Self::Admit(user()?, as_of),
            _ => return None,
        };
        Some((word, Wall::from_millis(i64::from_be_bytes(*at))))
    }
}

// === impl Words ===

impl Words {
    fn push(&mut self, word: Word) {
        // What somebody says just now is about what was before.
        if self.waiting.iter().any(|letter| letter.number > self.begun && letter.word == word) {
            return;
        }
        self.last += 1;
        self.waiting.push_back(Letter { number: self.last, word });
    }

    fn make_room(&mut self) {
        let refusals = |letter: &Letter| letter.word.channel() == Channel::Refusals;
        self.waiting.retain(refusals);
        if self.waiting.len() + 1 >= CAPACITY {
            tracing::error!("the shared cache is down for long: the oldest revocation is not told to other replicas");
            self.waiting.pop_front();
        }
        self.push(Word::Purge(PurgeScope::All));
    }
}

// === impl Outbox ===

impl Default for Outbox {
    fn default() -> Self {
        let followed = || Mutex::new(Lapsing::new(FOLLOWED));
        Self {
            words: Mutex::default(),
            open: AtomicBool::new(false),
            told: watch::Sender::new(()),
            refusals: followed(),
            purges: followed(),
        }
    }
}

impl Outbox {
    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether there is a shared level; without one nobody has to hear anything.
    pub fn open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
        if !open {
            self.words().waiting.clear();
        }
    }

    /// Takes a word. From now on no token that it covers is taken from the store, until the store has heard it.
    pub fn push(&self, word: Word) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        let mut words = self.words();
        if words.waiting.len() >= CAPACITY {
            words.make_room();
        }
        words.push(word);
        drop(words);
        self.told.send_replace(());
    }

    /// Whether a token may have been purged here and still be there.
    pub fn covers(&self, key: &TokenKey) -> bool {
        self.words().waiting.iter().any(|letter| letter.word.scope().is_some_and(|scope| scope.covers(key)))
    }

    /// The oldest word, which the caller begins to say; waits for one.
    pub async fn first(&self) -> Letter {
        let mut told = self.told.subscribe();
        loop {
            {
                let mut words = self.words();
                if let Some(letter) = words.waiting.front().cloned() {
                    words.begun = words.begun.max(letter.number);
                    return letter;
                }
            }
            if told.changed().await.is_err() {
                // The sender lives in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether a word of the stream was not followed before; from now on it was.
    pub fn is_new(&self, channel: Channel, mark: Mark) -> bool {
        let followed = match channel {
            Channel::Refusals => &self.refusals,
            Channel::Purges => &self.purges,
        };
        let (now, mut followed) = (Instant::now(), followed.lock().unwrap_or_else(PoisonError::into_inner));
        followed.sweep(now);
        let new = followed.get(&mark, now).is_none();
        if new {
            followed.insert(mark, (), now + FOLLOWED_FOR);
        }
        new
    }

    /// The store has heard the word of this number.
    pub fn heard(&self, number: u64) {
        self.words().waiting.retain(|letter| letter.number != number);
        self.told.send_replace(());
    }

    /// Whether the store has heard everything.
    pub fn is_empty(&self) -> bool {
        self.words().waiting.is_empty()
    }

    /// Waits until the store has heard everything, but no longer than that. How many words are left.
    pub async fn left_after(&self, limit: Duration) -> usize {
        let mut told = self.told.subscribe();
        let emptied = async {
            // The sender lives in `self`.
            while !self.is_empty() && told.changed().await.is_ok() {}
        };
        // Either way what is left is told.
        let _emptied = timeout(limit, emptied).await;
        self.words().waiting.len()
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
        outbox.heard(1);
        assert!(!outbox.covers(&key(1)));
    }

    /// Fails where a second word is taken for the one that is being said: what happened in between would be told to nobody.
    #[tokio::test]
    async fn a_word_that_comes_while_the_same_one_is_said_is_said_too() {
        let outbox = Outbox::default();
        outbox.open(true);
        for _ in 0..3 {
            outbox.push(purge(1));
        }
        let first = outbox.first().await;
        assert_eq!(first, Letter { number: 1, word: purge(1) });
        for _ in 0..3 {
            outbox.push(purge(1));
        }
        outbox.heard(first.number);
        assert!(outbox.covers(&key(1)));
        assert_eq!(outbox.first().await, Letter { number: 2, word: purge(1) });
        outbox.heard(2);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_word_is_what_it_was() {
        let (sid, sub) = (SessionId::new("sess_1").unwrap(), UserId::new("user_1").unwrap());
        for word in [
            Word::Purge(PurgeScope::All),
            Word::Purge(PurgeScope::Session(sid.clone())),
            Word::Purge(PurgeScope::User(sub.clone())),
            Word::RevokeSession(sid),
            Word::RevokeUser(sub.clone()),
            Word::Bar(sub.clone(), -5),
            Word::Admit(sub, 7),
        ] {
            let at = Wall::from_seconds(1_800_000_000);
            assert_eq!(Word::decode(&word.encode(at)), Some((word, at)));
        }
        for bytes in [&[][..], &[9; 30], &[3; 17], &[3; 10]] {
            assert_eq!(Word::decode(bytes), None);
        }
    }

    /// Fails where a word is lost and nothing stands in for it, or where purges push a revocation out.
    #[test]
    fn when_there_are_too_many_nobodys_token_is_taken_from_the_store_and_all_refusals_wait() {
        let outbox = Outbox::default();
        outbox.open(true);
        let refused = |number| Word::RevokeSession(SessionId::new(&format!("sess_{number}")).unwrap());
        for number in 0..100 {
            outbox.push(refused(number));
        }
        for number in 0..2 * CAPACITY {
            outbox.push(purge(number));
        }
        let waiting =
            |outbox: &Outbox| outbox.words().waiting.iter().map(|letter| letter.word.clone()).collect::<Vec<_>>();
        assert!(outbox.covers(&key(0)) && outbox.covers(&key(CAPACITY * 3)));
        assert!(waiting(&outbox).len() <= CAPACITY);
        assert!((0..100).all(|number| waiting(&outbox)[number] == refused(number)));
        for number in 100..CAPACITY + 100 {
            outbox.push(refused(number));
        }
        let words = waiting(&outbox);
        assert!(words.len() <= CAPACITY, "{}", words.len());
        assert!(words.contains(&Word::Purge(PurgeScope::All)) && words.contains(&refused(CAPACITY + 99)));
        assert!(!words.contains(&refused(0)), "the oldest gives way");
    }

    /// Fails where it is not waited for, or for longer than that.
    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_told_when_it_is_heard_or_the_time_is_over() {
        let outbox = Outbox::default();
        outbox.open(true);
        assert_eq!(outbox.left_after(Duration::from_secs(1)).await, 0);
        outbox.push(purge(1));
        outbox.push(purge(2));
        let hears = async {
            for number in [1, 2] {
                tokio::time::sleep(Duration::from_millis(400)).await;
                outbox.heard(number);
            }
        };
        let begun = Instant::now();
        assert_eq!(tokio::join!(outbox.left_after(Duration::from_secs(1)), hears).0, 0);
        assert_eq!(begun.elapsed().as_millis() / 10, 80);
        outbox.push(purge(3));
        assert_eq!(outbox.left_after(Duration::from_secs(1)).await, 1);
        assert_eq!(begun.elapsed().as_millis() / 10, 180);
    }
}
