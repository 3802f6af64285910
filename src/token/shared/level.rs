//! The second level: finds a token that another replica has minted, or the right to mint it for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::gate::{Allowance, Gate, Skipped};
use super::outbox::Outbox;
use super::seal::{EPOCHS, Epoch, Names, Seal, Unreadable, Value};
use super::store::{Holder, Leased, Seen, Store, StoreError};
use crate::clock::{Clock, Now, Wall};
use crate::config;
use crate::lifecycle::Spawner;
use crate::metrics::{Common, SharedOperation as Operation, SharedResult as Outcome};
use crate::token::freshness::Rules;
use crate::token::{Freshness, MintRequest, Token, Urgency, expect};

/// Between two looks for the value of somebody else's mint; the last one repeats.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(40), Duration::from_millis(50)];

/// A lease lasts no longer: what a holder that dies costs those who wait.
const LONGEST_LEASE: Duration = Duration::from_secs(2);

/// A forced mint takes what another replica has minted within so long: that is anew enough.
const ANEW: Duration = Duration::from_secs(10);

/// Not known yet.
const UNKNOWN: i64 = i64::MIN;

/// The level, for as long as its configuration stands.
///
/// - A value that was not sealed for its name, or under other epochs than the present ones, is a miss.
/// - Nobody waits longer for another one's mint than its lease, and then mints himself.
/// - All calls for one mint together take no longer than the time limit.
#[derive(Debug)]
pub struct Level<S> {
    gate: Arc<Gate<S>>,
    leading: Seal,
    /// Read as well, while keys are rotated.
    previous: Option<Seal>,
    lease: Duration,
    /// Issuer's clock minus ours, in milliseconds, as the last mint measured it.
    offset_ms: AtomicI64,
    /// What was purged here and may still be there.
    outbox: Arc<Outbox>,
    /// Whether it counts, so that other replicas are told and heard.
    engaged: AtomicBool,
    clock: Clock,
    tasks: Spawner,
}

/// What a level is made with.
#[derive(Debug, Clone)]
pub struct Means {
    /// The clocks.
    pub clock: Clock,
    /// Runs what nobody waits for.
    pub tasks: Spawner,
    /// What is counted.
    pub counts: Arc<Common>,
}

/// What a look-up found.
#[derive(Debug)]
pub(super) enum Found<S: Store> {
    /// A live token.
    Token(Token),
    /// None: it has to be minted, and put there with the ticket.
    Nothing(Option<Ticket<S>>),
}

/// The right to put a value there, and perhaps the lease. Dropped unused, the lease is given back.
#[derive(Debug)]
pub(super) struct Ticket<S: Store> {
    level: Arc<Level<S>>,
    names: Names,
    /// Those that were there before the mint.
    epochs: [Option<Epoch>; EPOCHS],
    holder: Option<Holder>,
}

// === impl Level ===

impl<S: Store> Level<S> {
    /// In this store. A mint takes at most `mint_timeout`.
    pub fn new(store: S, shared: &config::Shared, mint_timeout: Duration, means: Means) -> Arc<Self> {
        Self::telling(store, shared, mint_timeout, means, Arc::default())
    }

    /// The same, where purges are told through this outbox.
    pub fn telling(
        store: S,
        shared: &config::Shared,
        mint_timeout: Duration,
        means: Means,
        outbox: Arc<Outbox>,
    ) -> Arc<Self> {
        let Means { clock, tasks, counts } = means;
        Arc::new(Self {
            gate: Gate::new(store, shared.timeout, tasks.clone(), counts),
            leading: Seal::new(&shared.key, &shared.prefix),
            previous: shared.previous.as_ref().map(|key| Seal::new(key, &shared.prefix)),
            lease: (mint_timeout * 2 / 5).min(LONGEST_LEASE),
            offset_ms: AtomicI64::new(UNKNOWN),
            outbox,
            engaged: AtomicBool::new(false),
            clock,
            tasks,
        })
    }

    /// Connects before the first request needs it.
    pub fn warm(&self) {
        self.gate.warm();
    }

    /// Says that this is what counts from now on; whether nobody had said so before.
    pub fn engage(&self) -> bool {
        !self.engaged.swap(true, Ordering::AcqRel)
    }

    /// What was purged here and may still be there; and what was followed.
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The wall clock.
    pub(super) fn now(&self) -> Wall {
        self.clock.wall()
    }

    /// The way to the store that costs nobody more than he has.
    pub(super) fn gate(&self) -> &Arc<Gate<S>> {
        &self.gate
    }

    /// What is written under.
    pub(super) fn leading(&self) -> &Seal {
        &self.leading
    }

    /// What is read under.
    pub(super) fn seals(&self) -> impl Iterator<Item = &Seal> {
        [Some(&self.leading), self.previous.as_ref()].into_iter().flatten()
    }

    /// A token that is there or arrives, or the way to mint it.
    pub(super) async fn find(self: &Arc<Self>, request: &MintRequest, rules: &Rules) -> Found<S> {
        let allowance = self.gate.allowance_of(&request.spent);
        self.search(request, rules, &allowance).await.unwrap_or(Found::Nothing(None))
    }

    async fn search(
        self: &Arc<Self>,
        request: &MintRequest,
        rules: &Rules,
        allowance: &Allowance,
    ) -> Result<Found<S>, Skipped> {
        // While the store is down the words pile up, and nothing is taken from it in any case.
        if !self.gate.is_down() && self.outbox.covers(&request.key) {
            self.gate.count(Operation::Look, Outcome::Skipped);
            return Err(Skipped);
        }
        let names = self.leading.names(&request.key);
        let before = self.previous.as_ref().map(|seal| (seal, seal.names(&request.key)));
        let now = self.clock.now();
        let both = async {
            let store = &self.gate.store;
            let Some((_, before)) = &before else { return Ok((store.look(&names).await?, Seen::default())) };
            futures_util::future::try_join(store.look(&names), store.look(before)).await
        };
        let (seen, seen_before) = self.gate.call(Operation::Look, allowance, both).await?;
        let mut found = self.judge(&self.leading, &names, &seen, request, rules, now);
        if let (None | Some(Err(_)), Some((seal, before))) = (&found, &before) {
            found = self.judge(seal, before, &seen_before, request, rules, now).or(found);
        }
        self.gate.count(Operation::Look, outcome(found.as_ref()));
        if let Some(Ok(token)) = found {
            return Ok(Found::Token(token));
        }
        let holder = random().ok_or(Skipped)?;
        // Whatever comes of it: cut short, the lease may be ours all the same.
        let mut ticket = Ticket { level: Arc::clone(self), names, epochs: seen.epochs, holder: Some(holder) };
        let Ok(Leased { granted, seen }) = self.take(&ticket.names, &holder, allowance).await else {
            return Ok(Found::Nothing(Some(ticket)));
        };
        ticket.epochs = seen.epochs;
        if !granted {
            ticket.holder = None;
            return Ok(self.wait(ticket, seen, request, rules, allowance).await);
        }
        // Somebody may have put it there since we looked.
        let found = self.judge(&self.leading, &ticket.names, &seen, request, rules, self.clock.now());
        Ok(if let Some(Ok(token)) = found { Found::Token(token) } else { Found::Nothing(Some(ticket)) })
    }

    /// Waits for the value of the one who holds the lease: for as long as it may last, and while he has it.
    async fn wait(
        self: &Arc<Self>,
        mut ticket: Ticket<S>,
        mut seen: Seen,
        request: &MintRequest,
        rules: &Rules,
        allowance: &Allowance,
    ) -> Found<S> {
        let until = (Instant::now() + self.lease).min(request.deadline);
        for pause in LOOKS.into_iter().chain(std::iter::repeat(LOOKS[LOOKS.len() - 1])) {
            let now = self.clock.now();
            if let Some(Ok(token)) = self.judge(&self.leading, &ticket.names, &seen, request, rules, now) {
                self.gate.count(Operation::Wait, Outcome::Hit);
                return Found::Token(token);
            }
            if !seen.leased || now.mono + pause > until {
                self.gate.count(Operation::Wait, Outcome::Miss);
                break;
            }
            sleep(pause).await;
            let look = self.gate.store.look(&ticket.names);
            match self.gate.call(Operation::Wait, allowance, look).await {
                Ok(next) => seen = next,
                Err(Skipped) => break,
            }
        }
        ticket.epochs = seen.epochs;
        Found::Nothing(Some(ticket))
    }

    async fn take(self: &Arc<Self>, names: &Names, holder: &Holder, allowance: &Allowance) -> Result<Leased, Skipped> {
        let mut fresh = [[0; 16]; EPOCHS];
        for epoch in &mut fresh {
            *epoch = random().ok_or(Skipped)?;
        }
        let lease = self.gate.store.lease(names, holder, self.lease, &fresh);
        let leased = self.gate.call(Operation::Lease, allowance, lease).await?;
        self.gate.count(Operation::Lease, if leased.granted { Outcome::Ok } else { Outcome::Held });
        Ok(leased)
    }

    /// The token in a value, where it may be given to this request. `None`: there is none, or none for it; an error: it is
    /// no value at all.
    fn judge(
        &self,
        seal: &Seal,
        names: &Names,
        seen: &Seen,
        request: &MintRequest,
        rules: &Rules,
        now: Now,
    ) -> Option<Result<Token, Unreadable>> {
        let (sealed, kept_for) = seen.value.as_ref()?;
        let value = match seal.open(names, sealed) {
            Ok(value) => value,
            Err(unreadable) => return Some(Err(unreadable)),
        };
        let current = value.epochs.iter().zip(&seen.epochs).all(|(own, present)| present.as_ref() == Some(own));
        let token = self.token(&value, *kept_for, now).filter(|_| current)?;
        // As early as the jitter may make it: what is due for anybody is no refresh.
        let freshness = token.life(rules, 1.0)?.at(now);
        let good = match request.urgency {
            _ if freshness == Freshness::Dead => false,
            Urgency::Ahead if freshness != Freshness::Fresh => false,
            _ if request.forced => now.mono.saturating_duration_since(token.sent_at) < ANEW,
            Urgency::Ahead | Urgency::Waiting => true,
        };
        let fits = good && expect::holds(&value.jwt, &request.key.parts().expected);
        fits.then_some(Ok(token))
    }

    /// A token with what is left of its life: by its own word, by the store, and by our clock, the least of them.
    fn token(&self, value: &Value, kept_for: Duration, now: Now) -> Option<Token> {
        let offset_ms = Some(self.offset_ms.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN).unwrap_or(0);
        let left = value.expires_at.since(now.wall.shifted(offset_ms)).min(kept_for).min(value.life);
        // Its life began when it was minted, so that it is refreshed and ends here as it does there.
        let begun = now.mono.checked_sub(value.life.saturating_sub(left));
        let (sent_at, life) = begun.map_or((now.mono, left), |begun| (begun, value.life));
        let mut token = Token::new(&value.jwt, sent_at).ok()?;
        (token.lifetime, token.expires_at, token.offset_ms) = (Some(life), Some(value.expires_at), offset_ms);
        token.shared = true;
        Some(token)
    }

    /// What the issuer's clock was found to be.
    pub(super) fn learn(&self, token: &Token) {
        if token.expires_at.is_some() {
            self.offset_ms.store(token.offset_ms, Ordering::Relaxed);
        }
    }

    /// Makes a call that nobody waits for.
    pub(super) fn later<F>(self: &Arc<Self>, operation: Operation, call: impl FnOnce(Arc<Self>) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let level = Arc::clone(self);
        drop(self.tasks.spawn(async move {
            let allowance = level.gate.allowance();
            let done = level.gate.call(operation, &allowance, call(Arc::clone(&level))).await;
            if done.is_ok() {
                level.gate.count(operation, Outcome::Ok);
            }
        }));
    }
}

/// An epoch or the mark of a holder; `None` where the system has no randomness.
pub(super) fn random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok().map(|()| bytes)
}

fn outcome(found: Option<&Result<Token, Unreadable>>) -> Outcome {
    match found {
        Some(Ok(_)) => Outcome::Hit,
        Some(Err(_)) => Outcome::Unreadable,
        None => Outcome::Miss,
    }
}

// === impl Ticket ===

impl<S: Store> Ticket<S> {
    /// Puts a token there for the others, in the background, and gives the lease back after it.
    pub(super) fn put(mut self, request: &MintRequest, token: &Token, rules: &Rules) {
        let Some(value) = self.value(request, token, rules) else { return };
        let (level, names) = (Arc::clone(&self.level), self.names.clone());
        let Ok(sealed) = level.leading.seal(&names, &value) else { return };
        let kept_for = value.life.saturating_sub(level.clock.now().mono.saturating_duration_since(token.sent_at));
        if kept_for.is_zero() {
            return;
        }
        // A holder of nothing gives nothing back.
        let holder = self.holder.take().unwrap_or_default();
        level.later(Operation::Put, move |level| async move {
            level.gate.store.put(&names, &holder, sealed, kept_for).await
        });
    }

    /// `None` for what is of no use to others: it tells no end, says what the key does not expect, or no epoch was known.
    fn value(&self, request: &MintRequest, token: &Token, rules: &Rules) -> Option<Value> {
        let [Some(session), Some(user), Some(all)] = self.epochs else { return None };
        let (lifetime, expires_at) = token.lifetime.zip(token.expires_at)?;
        let jwt = token.bare().to_str().ok()?;
        let life = lifetime.min(rules.max_lifetime);
        let fits = expect::holds(jwt, &request.key.parts().expected);
        fits.then(|| Value { epochs: [session, user, all], expires_at, life, jwt: jwt.to_owned() })
    }
}

impl<S: Store> Drop for Ticket<S> {
    fn drop(&mut self) {
        let Some(holder) = self.holder.take() else { return };
        let names = self.names.clone();
        self.level
            .later(Operation::Release, move |level| async move { level.gate.store.release(&names, &holder).await });
    }
}
