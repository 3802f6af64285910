//! Tells the store, and through it the other replicas, what was done here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::gate::Skipped;
use super::journal::Journal;
use super::level::{Level, random};
use super::outbox::{Letter, Outbox, Word};
use super::store::Store;
use crate::lifecycle::Spawner;
use crate::metrics::{SharedOperation as Operation, SharedResult as Outcome};

/// Until a word is said again that was not heard.
const AGAIN: Duration = Duration::from_millis(200);

/// Says every word, the oldest first, for as long as the level is used.
pub fn begin<S: Store + Journal>(level: &Arc<Level<S>>, outbox: Arc<Outbox>, tasks: &Spawner) {
    drop(tasks.spawn(run(Arc::downgrade(level), outbox)));
}

async fn run<S: Store + Journal>(level: Weak<Level<S>>, outbox: Arc<Outbox>) {
    loop {
        let Letter { number, word } = outbox.first().await;
        let Some(level) = level.upgrade() else { return };
        // First what the store holds: who forgets a token because he hears of it takes no other one there than a new one.
        let said = async {
            renew(&level, &word).await?;
            publish(&level, &word).await
        };
        if said.await.is_ok() {
            outbox.heard(number);
        } else {
            drop(level);
            sleep(AGAIN).await;
        }
    }
}

/// Ends what the store holds of those whom a word is about.
async fn renew<S: Store>(level: &Level<S>, word: &Word) -> Result<(), Skipped> {
    let Some(scope) = word.scope() else { return Ok(()) };
    let anew = level.seals().flat_map(|seal| seal.ending(&scope)).map(|name| Some((name, random()?)));
    let anew = anew.collect::<Option<Vec<_>>>().ok_or(Skipped)?;
    let (gate, allowance) = (level.gate(), level.gate().allowance());
    gate.call(Operation::Renew, &allowance, gate.store.renew(&anew)).await?;
    gate.count(Operation::Renew, Outcome::Ok);
    Ok(())
}

/// Tells the other replicas.
async fn publish<S: Store + Journal>(level: &Level<S>, word: &Word) -> Result<(), Skipped> {
    let mark = random().ok_or(Skipped)?;
    let channel = word.channel();
    // Ours comes back to us too.
    level.outbox().is_new(channel, mark);
    let (seal, said) = (level.leading(), word.encode(level.now()));
    let entry = seal.seal_word(channel, &mark, &said).map_err(|_| Skipped)?;
    let (gate, allowance) = (level.gate(), level.gate().allowance());
    gate.call(Operation::Publish, &allowance, gate.store.append(&seal.stream(channel), &entry)).await?;
    gate.count(Operation::Publish, Outcome::Ok);
    Ok(())
}
