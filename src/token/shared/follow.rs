//! Hears what other replicas have purged and refused, also what was said while this one was away.
//!
//! Of whom to refuse it is read from the beginning, so that a gateway that starts knows it; of purges only what is no older
//! than the tokens in memory: who starts has none. After a lost connection it begins an hour before the last word that was
//! heard: what a store forgot while its master changed comes again. A word that was heard is not followed twice.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::journal::{Journal, Place};
use super::level::Level;
use super::outbox::{Hear, Word};
use super::seal::{Channel, Seal};
use super::store::{EPOCH_LIFE, Store, StoreError};
use crate::lifecycle::Spawner;
use crate::metrics::{SharedOperation as Operation, SharedResult as Outcome};

/// Until it is asked whether the level is still used.
const PATIENCE: Duration = Duration::from_secs(2);

/// For everything else that a store does.
const LIMIT: Duration = Duration::from_secs(2);

/// Before the next attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// From where it is read again after a connection was lost.
const AGAIN: Duration = Duration::from_hours(1);

/// Two clocks do not count alike, and places are whole milliseconds: a purge too much costs little.
const SLACK: Duration = Duration::from_secs(1);

/// Why it is read no further.
enum End {
    /// The level is not used any more.
    Over,
    /// The store failed, or has not answered.
    Failed(Option<StoreError>),
}

/// Tells when it is known once whom the others refuse, or known that nobody tells.
#[derive(Debug)]
pub struct CaughtUp(mpsc::Receiver<Infallible>);

/// Hears what is said on one stream.
struct Follower<S> {
    level: Weak<Level<S>>,
    /// Under which of the level's keys: the first, or the one before.
    seal: usize,
    channel: Channel,
    hear: Hear,
    begun: Instant,
    /// How old what is in memory may have been then.
    age: Duration,
    /// From where it was first read, once that is known.
    floor: Option<Place>,
    /// The last word that was heard.
    place: Place,
    /// Dropped when all is heard that was there, or nobody tells.
    behind: Option<mpsc::Sender<Infallible>>,
}

/// Hears what is said under each key, for as long as the level is used. What is in memory is no older than `age`.
pub fn begin<S: Store + Journal>(level: &Arc<Level<S>>, age: Duration, hear: &Hear, tasks: &Spawner) -> CaughtUp {
    let (behind, caught_up) = mpsc::channel(1);
    for seal in 0..level.seals().count() {
        for channel in [Channel::Refusals, Channel::Purges] {
            let follower = Follower {
                level: Arc::downgrade(level),
                seal,
                channel,
                hear: hear.clone(),
                begun: Instant::now(),
                age,
                floor: (channel == Channel::Refusals).then(Place::default),
                place: Place::default(),
                behind: (channel == Channel::Refusals).then(|| behind.clone()),
            };
            drop(tasks.spawn(follower.follow()));
        }
    }
    CaughtUp(caught_up)
}

// === impl CaughtUp ===

impl CaughtUp {
    /// What does not come while the first of both is there.
    #[cfg(test)]
    pub fn never() -> (mpsc::Sender<Infallible>, Self) {
        let (behind, caught_up) = mpsc::channel(1);
        (behind, Self(caught_up))
    }

    /// Waits for it, but no longer than that. Whether it has come.
    pub async fn within(mut self, limit: Duration) -> bool {
        // Nothing is ever sent: all senders are gone.
        timeout(limit, self.0.recv()).await.is_ok()
    }
}

// === impl Follower ===

impl<S: Store + Journal> Follower<S> {
    async fn follow(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.place;
            match self.read().await {
                End::Over => return,
                End::Failed(error) => {
                    let why = error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                    tracing::debug!(why, "what other replicas say cannot be heard");
                }
            }
            self.behind = None;
            if self.place > before {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn read(&mut self) -> End {
        let Some(used) = self.level.upgrade() else { return End::Over };
        let Some(stream) = used.seals().nth(self.seal).map(|seal| seal.stream(self.channel)) else { return End::Over };
        let begun = timeout(LIMIT, async {
            let mut line = used.gate().store.open().await?;
            let last = used.gate().store.last(&mut line, &stream).await?;
            Ok((line, last))
        });
        let (mut line, last) = match begun.await {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => return End::Failed(Some(error)),
            Err(_) => return End::Failed(None),
        };
        drop(used);
        self.place = self.from(last);
        loop {
            // Told of what was there when it was looked; the rest comes as it does to everybody.
            if last <= Some(self.place) {
                self.behind = None;
            }
            let Some(used) = self.level.upgrade() else { return End::Over };
            let read = used.gate().store.read(&mut line, &stream, self.place, PATIENCE);
            let entries = match timeout(PATIENCE + LIMIT, read).await {
                Ok(Ok(entries)) => entries,
                Ok(Err(error)) => return End::Failed(Some(error)),
                Err(_) => return End::Failed(None),
            };
            if entries.is_empty() {
                self.behind = None;
            }
            if let Some(seal) = used.seals().nth(self.seal) {
                for (at, entry) in entries {
                    self.place = at;
                    hear(&used, seal, self.channel, &entry, &self.hear);
                }
            }
            // A long stream does not hold up what else runs here.
            tokio::task::yield_now().await;
        }
    }

    /// After which word it is read, where the last one of the stream is known.
    fn from(&mut self, last: Option<Place>) -> Place {
        let Some(floor) = self.floor else {
            // Nothing that was said of what is in memory has an earlier place, however long the way here took.
            let floor = last.map_or_else(Place::default, |last| last.before(self.age + self.begun.elapsed() + SLACK));
            return *self.floor.insert(floor);
        };
        if last < Some(self.place) {
            // What ends before the place is another stream: it was lost, and begun anew.
            return *self.floor.insert(Place::default());
        }
        self.place.before(AGAIN).max(floor)
    }
}

/// Follows a word, unless that has been done.
fn hear<S: Store>(level: &Level<S>, seal: &Seal, channel: Channel, entry: &[u8], hear: &Hear) {
    let said = seal.open_word(channel, entry).ok();
    let said = said.and_then(|(mark, word)| Some((mark, Word::decode(&word)?)));
    let Some((mark, (word, at))) = said else {
        return level.gate().count(Operation::Follow, Outcome::Unreadable);
    };
    let age = level.now().since(at);
    // An older word is about nothing that is left.
    if age < EPOCH_LIFE && level.outbox().is_new(channel, mark) {
        hear.follow(&word, age);
        level.gate().count(Operation::Follow, Outcome::Ok);
    }
}
