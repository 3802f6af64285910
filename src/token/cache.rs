//! The cache of minted tokens: finds a live one, or has one minted, once for all who ask.
//!
//! It owns entries and flights only. How a token is minted comes with each request, out of that request's snapshot, so
//! tokens survive a reload while the issuer (a part of the key) stays the same.

mod entries;
mod flights;
mod settings;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use self::entries::{Entries, Kept};
use self::flights::{Flight, Flights, Held, Next};
use self::settings::Settings;
use crate::clock::{Clock, Now};
use crate::config;
use crate::lifecycle::Spawner;
use crate::metrics::{CacheName, Lookup, Metrics, MintResult, TemplateId};
use crate::token::expect;
use crate::token::freshness::{Border, Jitter};
pub use crate::token::scope::PurgeScope;
use crate::token::spent::Spent;
use crate::token::{Freshness, Mint, MintError, MintRequest, Token, TokenKey, Urgency};
use crate::traces::mint::MintSpan;

/// What somebody is told when too many mints are under way, or one ended in a panic.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Between a token that contradicts its session and the one more mint: the issuer may have heard by then.
const STALE_PAUSE: Duration = Duration::from_secs(1);

/// A token that is refused before it is so old was not at fault: the next one would be refused as well.
const REFUSED_AGE: Duration = Duration::from_secs(10);

/// Clocks that part by more in one mint were set, or the machine slept; what they measure otherwise is less.
const CLOCKS_PART: Duration = Duration::from_secs(1);

/// Tokens in memory, and the mints under way.
///
/// - An expired token is never given, nor one with less than `min_remaining` left.
/// - One mint for each key at a time, in a task of its own: a caller that goes away harms nobody.
/// - A failure is shared with those who wait for it, then forgotten; but 'no such session' and 'no such template' are
///   remembered for `missing_ttl`.
/// - A failing issuer neither delays nor loses a valid token: refresh goes on beside it.
/// - A token that contradicts its session (`expect`) is given to nobody and not kept; after 1 s there is one more mint.
/// - A purge cannot be outrun by a mint that began before it.
#[derive(Debug)]
pub struct TokenCache {
    entries: Entries,
    flights: Flights,
    settings: RwLock<Arc<Settings>>,
    /// Counts the purges of revoked sessions. Who waited while it moved looks again instead of taking what it was given.
    revocations: AtomicU64,
    jitter: Jitter,
    clock: Clock,
    /// Of the control runtime.
    tasks: Spawner,
}

/// A mint's task. Dropped before it has landed (the task panicked, or its runtime ended) it fails the flight, so that
/// nobody waits for it in vain and the key is free.
struct Landing {
    cache: Arc<TokenCache>,
    flight: Option<Arc<Flight>>,
    settings: Arc<Settings>,
    template: TemplateId,
    span: Option<MintSpan>,
}

// === impl TokenCache ===

impl TokenCache {
    /// An empty cache. Mints run on `tasks`.
    pub fn new(
        config: &config::Cache,
        clock: Clock,
        tasks: Spawner,
        jitter: Jitter,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            entries: Entries::new(config.max_bytes),
            flights: Flights::default(),
            settings: RwLock::new(Arc::new(Settings::new(config, metrics))),
            revocations: AtomicU64::new(0),
            jitter,
            clock,
            tasks,
        })
    }

    /// Takes what a reload may change, for tokens that are minted from now on. `max_bytes` needs a restart.
    pub fn reconfigure(&self, config: &config::Cache, metrics: Arc<Metrics>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Settings::new(config, metrics));
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A live token, if there is one. Never [`Freshness::Dead`]; on [`Freshness::RefreshDue`] the caller should call
    /// [`TokenCache::refresh`]. Allocates nothing and takes no lock of its own.
    pub fn get_fresh(&self, key: &TokenKey, now: Now) -> Option<(Arc<Token>, Freshness)> {
        self.get_lasting(key, now).map(|(token, freshness, _)| (token, freshness))
    }

    /// The same, with the moment from which it is not to be sent any more.
    pub fn get_lasting(&self, key: &TokenKey, now: Now) -> Option<(Arc<Token>, Freshness, Border)> {
        let Kept { token, life } = self.entries.get(key)?;
        match life.at(now) {
            Freshness::Dead => None,
            freshness => Some((token, freshness, life.end())),
        }
    }

    /// When a token is not to be sent any more; `None` where it does not tell.
    pub fn end(&self, token: &Token) -> Option<Border> {
        token.life(&self.settings().rules, 0.0).map(|life| life.end())
    }

    /// Whether a token is not to be sent any more.
    pub fn is_dead(&self, token: &Token) -> bool {
        self.end(token).is_some_and(|end| end.reached(self.clock.now()))
    }

    /// A live token: out of memory, out of the mint that is under way, or newly minted through `mint`. Waits until the
    /// request's deadline at most. A forced request gets a token out of a mint, where its key had no forced one for 10 s.
    pub async fn get<M: Mint>(
        self: &Arc<Self>,
        request: MintRequest,
        mint: &Arc<M>,
    ) -> (Lookup, Result<Arc<Token>, MintError>) {
        let mut lookup = Lookup::Hit;
        let mut anew = request.forced && self.flights.force(&request.key, self.clock.now().mono);
        loop {
            let now = self.clock.now();
            // Who asks by force after another one waits for that one's mint, and takes no token that it will replace.
            if let (Some((token, freshness)), false) = (self.get_fresh(&request.key, now), request.forced) {
                if freshness == Freshness::RefreshDue {
                    self.refresh(request, mint);
                }
                return (lookup, Ok(token));
            }
            if now.mono >= request.deadline {
                return (lookup, Err(MintError::Timeout));
            }
            let revocations = self.revocations.load(Ordering::Acquire);
            let live = || self.get_fresh(&request.key, now).filter(|_| !anew).map(|(token, _)| token);
            let flight = match self.flights.next(&request.key, now.mono, live) {
                Next::Live(token) => return (lookup, Ok(token)),
                Next::Missing(error) => return (Lookup::Missing, Err(error)),
                Next::Full => return (lookup, Err(MintError::Throttled { retry_after: RETRY_AFTER })),
                Next::Join(flight) => {
                    lookup = Lookup::Wait;
                    flight
                }
                Next::Begin(flight) => {
                    (lookup, anew) = (Lookup::Mint, false);
                    let request = MintRequest { urgency: Urgency::Waiting, ..request.clone() };
                    self.launch(Arc::clone(&flight), request, mint);
                    flight
                }
            };
            match timeout_at(request.deadline, flight.wait()).await {
                Err(_) => return (lookup, Err(MintError::Timeout)),
                // A refresh may not touch the reserve and never stands in line: somebody who waits may do better.
                Ok(Err(error)) if flight.urgency == Urgency::Ahead && !is_final(&error) => {}
                Ok(Err(error)) => return (lookup, Err(error)),
                // A session was revoked meanwhile, perhaps this one; the entries know.
                Ok(Ok(_)) if self.revocations.load(Ordering::Acquire) != revocations => {}
                Ok(Ok(token)) if self.is_dead(&token) => {}
                Ok(Ok(token)) if lookup == Lookup::Mint && token.shared => return (Lookup::Shared, Ok(token)),
                Ok(Ok(token)) => return (lookup, Ok(token)),
            }
        }
    }

    /// What to send instead of a token that its upstream has refused, `is_refused`: the one that has taken its place
    /// meanwhile, or one from a forced mint, once for all who ask. The refused one serves until the new one is there: who
    /// is refused may be at fault himself, and a failing issuer takes no token from the others.
    ///
    /// `None` where there is nothing better: the token is young, its key had a forced mint a moment ago, or the mint fails.
    pub async fn replace<M: Mint>(
        self: &Arc<Self>,
        request: MintRequest,
        is_refused: impl Fn(&Token) -> bool,
        mint: &Arc<M>,
    ) -> Option<Arc<Token>> {
        let now = self.clock.now();
        let revocations = self.revocations.load(Ordering::Acquire);
        let held = || match self.entries.get(&request.key) {
            Some(kept) if is_refused(&kept.token) => {
                Held::Refused { old: now.mono.saturating_duration_since(kept.token.sent_at) >= REFUSED_AGE }
            }
            Some(kept) if kept.life.at(now) != Freshness::Dead => Held::Another(kept.token),
            Some(_) | None => Held::Nothing,
        };
        let deadline = request.deadline;
        let flight = match self.flights.replace(&request.key, now.mono, held)? {
            Next::Live(token) => return Some(token),
            Next::Join(flight) => flight,
            Next::Begin(flight) => {
                self.launch(Arc::clone(&flight), MintRequest { forced: true, ..request }, mint);
                flight
            }
            Next::Missing(_) | Next::Full => return None,
        };
        let minted = timeout_at(deadline, flight.wait()).await;
        // A session was revoked meanwhile, perhaps this one.
        let revoked = self.revocations.load(Ordering::Acquire) != revocations;
        match minted {
            Ok(Ok(token)) if !revoked && !is_refused(&token) && !self.is_dead(&token) => Some(token),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no token instead of the refused one");
                None
            }
            _ => None,
        }
    }

    /// Mints the next token in the background, unless that is under way, was tried in vain a moment ago, or is not due
    /// any more. The token that is in memory serves meanwhile.
    pub fn refresh<M: Mint>(self: &Arc<Self>, request: MintRequest, mint: &Arc<M>) {
        let now = self.clock.now();
        let due = || self.get_fresh(&request.key, now).is_some_and(|(_, freshness)| freshness == Freshness::RefreshDue);
        if let Some(flight) = self.flights.refresh(&request.key, now.mono, due) {
            self.launch(flight, MintRequest { urgency: Urgency::Ahead, ..request }, mint);
        }
    }

    /// Removes the tokens of a scope, and says how many. What is being minted for it is not kept; with `revoked` it is given to
    /// nobody either, and those who wait are told at once. Whoever asks afterwards gets a mint that begins afterwards.
    pub fn purge(&self, scope: &PurgeScope, revoked: bool) -> usize {
        if revoked {
            self.revocations.fetch_add(1, Ordering::AcqRel);
        }
        // First what is under way, then what is there: a mint that lands in between was taken out of the table, and one
        // that landed before is among the entries.
        self.flights.purge(|key| scope.covers(key), |key| revoked && scope.names(key));
        self.entries.remove_if(|key, kept| scope.covers_token(key, &kept.token))
    }

    /// Forgets tokens that are dead, so that they do not stay in memory until something else needs the room. For a
    /// call every minute or so.
    pub fn sweep(&self) -> usize {
        let now = self.clock.now();
        self.entries.remove_if(|_, kept| kept.life.at(now) == Freshness::Dead)
    }

    /// Brings the gauges up to date; for a scrape.
    pub fn observe(&self) {
        let (entries, bytes) = self.entries.size();
        let settings = self.settings();
        let control = settings.metrics.control();
        control.cache_entries(CacheName::Tokens).set(i64::try_from(entries).unwrap_or(i64::MAX));
        control.cache_bytes(CacheName::Tokens).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Mints under way.
    pub fn under_way(&self) -> usize {
        self.flights.len()
    }

    fn launch<M: Mint>(self: &Arc<Self>, flight: Arc<Flight>, mut request: MintRequest, mint: &Arc<M>) {
        let settings = self.settings();
        let template = settings.known(request.template);
        let name = &settings.metrics.names().templates[template.index()];
        let span = request.trace.take().map(|origin| MintSpan::begin(origin, name, request.reason()));
        let cache = Arc::clone(self);
        let mut landing = Landing { cache: Arc::clone(self), flight: Some(flight), settings, template, span };
        let mint = Arc::clone(mint);
        let patience = request.deadline.saturating_duration_since(Instant::now());
        // Not awaited: the outcome is told through the flight.
        drop(self.tasks.spawn(async move {
            let minting = timeout_at(request.deadline, landing.mint(request.clone(), &*mint));
            let minted = minting.await.unwrap_or(Err(MintError::Timeout));
            let shared = minted.as_ref().is_ok_and(|token| token.shared);
            landing.land(minted);
            if shared {
                // Where many replicas see a session rarely, this may be the last one that meets this token: were it not
                // renewed now, where it is due, somebody would have to wait for the next one.
                let deadline = Instant::now() + patience;
                cache.refresh(MintRequest { deadline, forced: false, spent: Spent::default(), ..request }, &mint);
            }
        }));
    }

    /// Keeps what is worth it, counts, and tells those who wait.
    fn land(
        &self,
        flight: &Arc<Flight>,
        template: TemplateId,
        settings: &Settings,
        minted: Result<Token, MintError>,
    ) -> MintResult {
        let now = self.clock.now();
        let minted = minted.and_then(|token| match token.life(&settings.rules, self.jitter.next()) {
            Some(life) if life.at(now) == Freshness::Dead => Err(MintError::Malformed("the token was dead on arrival")),
            life => Ok((Arc::new(token.owned(&flight.key)), life)),
        });
        let control = settings.metrics.control();
        let mut result = minted.as_ref().err().map_or(MintResult::Ok, MintError::result);
        // Another replica has counted its own.
        let own = minted.as_ref().ok().is_none_or(|(token, _)| !token.shared);
        if let (Ok((token, _)), true) = (&minted, own) {
            control.token_bytes[template.index()].observe_bytes(token.bare().len());
        }
        // Without a readable `exp` it is for those who wait, and not kept.
        let kept =
            minted.as_ref().ok().and_then(|(token, life)| Some(Kept { token: Arc::clone(token), life: (*life)? }));
        let keep = || {
            if let Some(kept) = kept {
                self.entries.insert(&flight.key, kept);
            }
        };
        let outcome = minted.map(|(token, _)| token);
        let current = self.flights.land(flight, outcome, now.mono, settings.missing_ttl, keep);
        if !current && result == MintResult::Ok {
            result = MintResult::Purged;
        }
        if own {
            control.mints(template, result).add();
        }
        if flight.urgency == Urgency::Ahead {
            control.refreshes(template, result).add();
        }
        result
    }
}

/// Whether asking again, as somebody who waits, could not change the answer of a refresh.
fn is_final(error: &MintError) -> bool {
    error.is_missing() || matches!(error, MintError::Revoked | MintError::Stale)
}

/// Whether a token says what its key expects.
fn fits(key: &TokenKey, token: &Token) -> bool {
    // It was made of a text, so it is one.
    expect::holds(token.bare().to_str().unwrap_or_default(), &key.parts().expected)
}

// === impl Landing ===

impl Landing {
    /// Mints, and once more where the token contradicts the session: forced, since what a hub has kept would say the
    /// same again. Also once more where it died on its way, because the machine slept or its clock was set meanwhile.
    async fn mint<M: Mint>(&self, request: MintRequest, mint: &M) -> Result<Token, MintError> {
        let begun = self.cache.clock.now();
        let mut token = mint.mint(request.clone()).await?;
        if self.cache.is_dead(&token) && self.cache.clock.now().parted_from(begun) > CLOCKS_PART {
            token = mint.mint(request.clone()).await?;
        }
        if fits(&request.key, &token) {
            return Ok(token);
        }
        self.settings.metrics.control().mints(self.template, MintResult::Stale).add();
        if self.cache.clock.now().mono + STALE_PAUSE >= request.deadline {
            return Err(MintError::Stale);
        }
        sleep(STALE_PAUSE).await;
        self.cache.flights.force(&request.key, self.cache.clock.now().mono);
        let token = mint.mint(MintRequest { forced: true, ..request.clone() }).await?;
        if fits(&request.key, &token) { Ok(token) } else { Err(MintError::Stale) }
    }

    fn land(&mut self, minted: Result<Token, MintError>) {
        let Some(flight) = self.flight.take() else { return };
        let ended = Instant::now();
        // Another replica's mint is no span of this request.
        if minted.as_ref().is_ok_and(|token| token.shared) {
            self.span = None;
        }
        let result = self.cache.land(&flight, self.template, &self.settings, minted);
        if let Some(span) = self.span.take() {
            span.end(ended, result.as_str());
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.flight.is_some() {
            tracing::error!("BUG: a mint ended without a result");
            let lost = MintError::Unavailable { retry_after: RETRY_AFTER, source: None };
            self.land(Err(lost));
        }
    }
}

#[cfg(test)]
mod tests;
