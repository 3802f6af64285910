//! One budget for all replicas: a bucket of units in the store, and the pause that one of them was told of.
//!
//! A pause stands there with a seal of its own and its end by the store's clock, so that nobody else can stop all mints
//! for long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Skipped;
use super::level::Level;
use super::store::{Store, StoreError};
use super::vault::{Drawn, Vault};
use crate::metrics::{SharedOperation as Operation, SharedResult as Outcome};
use crate::token::budget::purse::{Answer, Ask, Asking, Purse};
use crate::token::spent::Spent;

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

impl<S: Store + Vault + fmt::Debug> Purse for Arc<Level<S>> {
    fn ask(&self, ask: Ask, spent: &Spent) -> Asking<'_> {
        let spent = spent.clone();
        Box::pin(async move {
            let begun = Instant::now();
            let answer = self.draw(ask, &spent).await.ok();
            // Who is told to wait does so from when he asked: until then there was nothing to be had in any case.
            if let Some(Answer::After(_) | Answer::Paused(_)) = answer {
                spent.give_back(begun.elapsed());
            }
            answer
        })
    }

    fn pause(&self, pause: Duration) {
        let level = Arc::clone(self);
        self.later(Operation::Pause, move |_| async move { level.put_pause(pause.min(LONGEST_PAUSE)).await });
    }
}

impl<S: Store + Vault> Level<S> {
    async fn draw(self: &Arc<Self>, ask: Ask, spent: &Spent) -> Result<Answer, Skipped> {
        let at = self.leading().fund();
        let (gate, allowance) = (self.gate(), self.gate().allowance_of(spent));
        let drawn = gate.call(Operation::Budget, &allowance, gate.store.draw(&at, ask)).await?;
        let (outcome, answer) = match drawn {
            Drawn::Taken => (Outcome::Ok, Ok(Answer::Taken)),
            Drawn::After(wait) => (Outcome::Miss, Ok(Answer::After(wait))),
            Drawn::Paused { sealed, now } => match self.leading().open_pause(&at.pause, &sealed) {
                Some(until) if until > now => {
                    (Outcome::Held, Ok(Answer::Paused(Duration::from_millis(until - now).min(LONGEST_PAUSE))))
                }
                // Somebody has put there what is no pause: then nothing is known of the bucket either.
                Some(_) | None => (Outcome::Unreadable, Err(Skipped)),
            },
        };
        gate.count(Operation::Budget, outcome);
        answer
    }

    async fn put_pause(&self, pause: Duration) -> Result<(), StoreError> {
        let at = self.leading().fund();
        let until = self.gate().store.now().await? + u64::try_from(pause.as_millis()).unwrap_or(0);
        let sealed = self.leading().seal_pause(&at.pause, until);
        self.gate().store.pause(&at, sealed, pause).await
    }
}
