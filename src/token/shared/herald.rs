//! Tells the store, and through it the other replicas, what was done here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::level::Level;
use super::outbox::Outbox;
use super::store::Store;
use crate::lifecycle::Spawner;

/// Until a word is said again that was not heard.
const AGAIN: Duration = Duration::from_millis(200);

/// Says every word, the oldest first, for as long as the level is used.
pub fn begin<S: Store>(level: &Arc<Level<S>>, outbox: Arc<Outbox>, tasks: &Spawner) {
    drop(tasks.spawn(run(Arc::downgrade(level), outbox)));
}

async fn run<S: Store>(level: Weak<Level<S>>, outbox: Arc<Outbox>) {
    loop {
        let word = outbox.first().await;
        let Some(level) = level.upgrade() else { return };
        if level.say(&word).await.is_ok() {
            outbox.heard(&word);
        } else {
            drop(level);
            sleep(AGAIN).await;
        }
    }
}
