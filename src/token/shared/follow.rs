//! Hears what other replicas have purged and refused, also what was said while this one was away.
//!
//! It begins at the beginning of the stream, so that a gateway that starts knows whom it has to refuse, and after a lost
//! connection an hour before the last word that it has heard: what a store forgot while its master changed comes again. A
//! word that was heard is not followed twice.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::journal::{Journal, Place};
use super::level::Level;
use super::outbox::{Hear, Word};
use super::seal::Seal;
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

/// Why it is read no further.
enum End {
    /// The level is not used any more.
    Over,
    /// The store failed, or has not answered.
    Failed(Option<StoreError>),
}

/// Hears what is said under each key, for as long as the level is used.
pub fn begin<S: Store + Journal>(level: &Arc<Level<S>>, hear: &Hear, tasks: &Spawner) {
    for stream in level.seals().map(Seal::stream) {
        drop(tasks.spawn(follow(Arc::downgrade(level), stream, hear.clone())));
    }
}

async fn follow<S: Store + Journal>(level: Weak<Level<S>>, stream: String, hear: Hear) {
    let (mut place, mut pause) = (Place::default(), FIRST_PAUSE);
    loop {
        let before = place;
        match read(&level, &stream, &mut place, &hear).await {
            End::Over => return,
            End::Failed(error) => {
                let why = error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                tracing::debug!(why, "what other replicas say cannot be heard");
            }
        }
        if place > before {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn read<S: Store + Journal>(level: &Weak<Level<S>>, stream: &str, place: &mut Place, hear: &Hear) -> End {
    let Some(used) = level.upgrade() else { return End::Over };
    let begun = timeout(LIMIT, async {
        let mut line = used.gate().store.open().await?;
        let last = used.gate().store.last(&mut line, stream).await?;
        Ok((line, last))
    });
    let (mut line, last) = match begun.await {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => return End::Failed(Some(error)),
        Err(_) => return End::Failed(None),
    };
    drop(used);
    // What ends before the place is another stream: it was lost, and begun anew.
    *place = if last < Some(*place) { Place::default() } else { place.before(AGAIN) };
    loop {
        let Some(used) = level.upgrade() else { return End::Over };
        let read = used.gate().store.read(&mut line, stream, *place, PATIENCE);
        let entries = match timeout(PATIENCE + LIMIT, read).await {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => return End::Failed(Some(error)),
            Err(_) => return End::Failed(None),
        };
        for (at, entry) in entries {
            *place = at;
            follow_entry(&used, stream, &entry, hear);
        }
        // A long stream does not hold up what else runs here.
        tokio::task::yield_now().await;
    }
}

/// Follows a word, unless that has been done.
fn follow_entry<S: Store>(level: &Level<S>, stream: &str, entry: &[u8], hear: &Hear) {
    let said = level.seals().find(|seal| seal.stream() == stream).and_then(|seal| seal.open_word(entry).ok());
    let said = said.and_then(|(mark, word)| Some((mark, Word::decode(&word)?)));
    let Some((mark, (word, at))) = said else {
        return level.gate().count(Operation::Follow, Outcome::Unreadable);
    };
    let age = level.now().since(at);
    // An older word is about nothing that is left.
    if age < EPOCH_LIFE && level.outbox().is_new(mark) {
        hear.follow(&word, age);
        level.gate().count(Operation::Follow, Outcome::Ok);
    }
}
