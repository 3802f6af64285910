//! One budget for all replicas: a bucket of units in the store, and the pause that one of them was told of.
//!
//! A pause stands there with a seal of its own and its end by the store's clock, so that nobody else can stop all mints
//! for long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::gate::Skipped;
use super::level::Level;
use super::store::{Store, StoreError};
use super::vault::Vault;
use crate::metrics::{SharedOperation as Operation, SharedResult as Outcome};
use crate::token::budget::purse::{Answer, Ask, Asking, Purse};

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

impl<S: Store + Vault + fmt::Debug> Purse for Arc<Level<S>> {
    fn ask(&self, ask: Ask) -> Asking<'_> {
        Box::pin(async move { self.draw(ask).await.ok() })
    }

    fn pause(&self, pause: Duration) {
        let level = Arc::clone(self);
        self.later(Operation::Pause, move |_| async move { level.put_pause(pause.min(LONGEST_PAUSE)).await });
    }
}

impl<S: Store + Vault> Level<S> {
    async fn draw(self: &Arc<Self>, ask: Ask) -> Result<Answer, Skipped> {
        let at = self.leading().fund();
        let (gate, mut allowance) = (self.gate(), self.gate().allowance().after(ask.spent));
        let drawn = gate.call(Operation::Budget, &mut allowance, gate.store.draw(&at, ask)).await?;
        let paused = drawn.pause.as_ref().map(|pause| self.leading().open_pause(&at.pause, pause));
        match (paused, drawn.wait) {
            (Some(Some(until)), _) if until > drawn.now => {
                let left = Duration::from_millis(until - drawn.now).min(LONGEST_PAUSE);
                gate.count(Operation::Budget, Outcome::Held);
                Ok(Answer::Paused(left))
            }
            // Somebody has put there what is no pause: then nothing is known of the bucket either.
            (Some(_), _) => {
                gate.count(Operation::Budget, Outcome::Unreadable);
                Err(Skipped)
            }
            (None, Some(wait)) => {
                gate.count(Operation::Budget, Outcome::Miss);
                Ok(Answer::After(wait))
            }
            (None, None) => {
                gate.count(Operation::Budget, Outcome::Ok);
                Ok(Answer::Taken)
            }
        }
    }

    async fn put_pause(&self, pause: Duration) -> Result<(), StoreError> {
        let at = self.leading().fund();
        let until = self.gate().store.now().await? + u64::try_from(pause.as_millis()).unwrap_or(0);
        let sealed = self.leading().seal_pause(&at.pause, until);
        self.gate().store.pause(&at, sealed, pause).await
    }
}
