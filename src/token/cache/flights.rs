//! The mints under way, one for each key, and what is remembered of those that failed.
//!
//! Every mint runs in a task of its own and tells its outcome to whoever waits, on any runtime. A flight that is in the
//! table has an epoch that no purge has ended: a purge takes it out, and what it brings then is not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::bounded::PassThrough;
use crate::token::{MintError, Token, TokenKey, Urgency};

/// Mints under way. The budget's line is shorter; this holds when something before it is slow.
const MAX_FLIGHTS: usize = 16_384;

/// Keys of which a failure is remembered.
const MAX_REMEMBERED: usize = 16_384;

/// The first rest between two failed refreshes of one key; it doubles.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(10);

/// A hub honours one forced mint of a key in so long (design section 5); more of them are only calls.
const FORCED_EVERY: Duration = Duration::from_secs(10);

/// How a mint ended.
pub(super) type Outcome = Result<Arc<Token>, MintError>;

/// One mint under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: TokenKey,
    pub(super) urgency: Urgency,
    outcome: watch::Sender<Option<Outcome>>,
}

/// What somebody who found no live token does next.
#[derive(Debug)]
pub(super) enum Next {
    /// There is one by now.
    Live(Arc<Token>),
    /// It was asked for a moment ago, and there is no such thing.
    Missing(MintError),
    /// Wait for this mint.
    Join(Arc<Flight>),
    /// Begin this one, and wait for it.
    Begin(Arc<Flight>),
    /// Too many mints are under way.
    Full,
}

/// What is in memory under the key of a token that its upstream has refused.
#[derive(Debug)]
pub(super) enum Held {
    /// Another token, alive.
    Another(Arc<Token>),
    /// That very token; whether it is old enough to be at fault.
    Refused {
        /// Else it was just minted, and the next one would be no better.
        old: bool,
    },
    /// Nothing of use.
    Nothing,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    flights: HashMap<TokenKey, Arc<Flight>, PassThrough>,
    /// 'No such session', 'no such template'.
    missing: Remembered<MintError>,
    /// Keys whose refresh failed, and how often in a row.
    resting: Remembered<u32>,
    /// Keys that had a forced mint.
    forced: Remembered<()>,
}

/// A bounded memory of something until a moment.
#[derive(Debug)]
struct Remembered<V>(HashMap<TokenKey, (V, Instant), PassThrough>);

// === impl Flight ===

impl Flight {
    fn new(key: &TokenKey, urgency: Urgency) -> Arc<Self> {
        Arc::new(Self { key: key.clone(), urgency, outcome: watch::Sender::new(None) })
    }

    /// The first outcome counts.
    fn tell(&self, outcome: Outcome) {
        self.outcome.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some(outcome);
            }
            first
        });
    }

    /// Waits for the outcome. Dropped, it harms nobody.
    pub(super) async fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The sender lives in `self`, and `wait_for` returns what is some.
            Ok(None) | Err(_) => Err(MintError::Timeout),
        }
    }
}

// === impl Flights ===

impl Flights {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the key's flight or begins it. `live` looks once more for a token: since a token is kept before its flight
    /// leaves the table, both under one lock, nobody mints what has just arrived.
    pub(super) fn next(&self, key: &TokenKey, now: Instant, live: impl FnOnce() -> Option<Arc<Token>>) -> Next {
        let mut table = self.table();
        if let Some(flight) = table.flights.get(key) {
            return Next::Join(Arc::clone(flight));
        }
        if let Some(token) = live() {
            return Next::Live(token);
        }
        if let Some(error) = table.missing.get(key, now) {
            return Next::Missing(error.clone());
        }
        table.begin(key, Urgency::Waiting).map_or(Next::Full, Next::Begin)
    }

    /// Begins a refresh, unless a mint of the key is under way, its last refresh failed a moment ago, or `due` says no.
    pub(super) fn refresh(&self, key: &TokenKey, now: Instant, due: impl FnOnce() -> bool) -> Option<Arc<Flight>> {
        let mut table = self.table();
        if table.flights.contains_key(key) || table.resting.get(key, now).is_some() || !due() {
            return None;
        }
        table.begin(key, Urgency::Ahead)
    }

    /// Ends a flight. `keep` puts the token away, and does so only when no purge came in between; whether it did.
    pub(super) fn land(
        &self,
        flight: &Arc<Flight>,
        outcome: Outcome,
        now: Instant,
        missing_ttl: Option<Duration>,
        keep: impl FnOnce(),
    ) -> bool {
        let mut table = self.table();
        let key = &flight.key;
        let current = table.flights.get(key).is_some_and(|current| Arc::ptr_eq(current, flight));
        if current {
            table.flights.remove(key);
            match &outcome {
                Ok(_) => {
                    table.resting.0.remove(key);
                    table.missing.0.remove(key);
                    keep();
                }
                Err(error) => {
                    if let Some(ttl) = missing_ttl.filter(|_| error.is_missing()) {
                        table.missing.put(key, error.clone(), now, now + ttl);
                    }
                    if flight.urgency == Urgency::Ahead {
                        table.rest(key, error, now);
                    }
                }
            }
        }
        drop(table);
        flight.tell(outcome);
        current
    }

    /// What comes after a refused token: another one that is there or under way, or a forced mint, at most one in 10 s.
    /// `None`: there is nothing better than the refusal.
    pub(super) fn replace(&self, key: &TokenKey, now: Instant, held: impl FnOnce() -> Held) -> Option<Next> {
        let mut table = self.table();
        let held = held();
        if let Held::Another(token) = held {
            return Some(Next::Live(token));
        }
        if matches!(held, Held::Refused { old: false }) {
            return None;
        }
        if let Some(flight) = table.flights.get(key) {
            return Some(Next::Join(Arc::clone(flight)));
        }
        if matches!(held, Held::Nothing) || table.forced.get(key, now).is_some() {
            return None;
        }
        let flight = table.begin(key, Urgency::Waiting)?;
        table.forced.put(key, (), now, now + FORCED_EVERY);
        Some(Next::Begin(flight))
    }

    /// Notes a forced mint of the key, and whether it is the first one in 10 s.
    pub(super) fn force(&self, key: &TokenKey, now: Instant) -> bool {
        let forced = &mut self.table().forced;
        forced.get(key, now).is_none() && forced.put(key, (), now, now + FORCED_EVERY)
    }

    /// Ends the epoch of what `matches`. Those who wait for what is `revoked` are told so at once.
    pub(super) fn purge(&self, matches: impl Fn(&TokenKey) -> bool, revoked: impl Fn(&TokenKey) -> bool) {
        let mut table = self.table();
        let ended: Vec<_> = table.flights.extract_if(|key, _| matches(key)).map(|(_, flight)| flight).collect();
        table.missing.0.retain(|key, _| !matches(key));
        table.resting.0.retain(|key, _| !matches(key));
        drop(table);
        for flight in ended.iter().filter(|flight| revoked(&flight.key)) {
            flight.tell(Err(MintError::Revoked));
        }
    }

    /// Mints under way.
    pub(super) fn len(&self) -> usize {
        self.table().flights.len()
    }
}

// === impl Table ===

impl Table {
    fn begin(&mut self, key: &TokenKey, urgency: Urgency) -> Option<Arc<Flight>> {
        if self.flights.len() >= MAX_FLIGHTS {
            return None;
        }
        let flight = Flight::new(key, urgency);
        self.flights.insert(key.clone(), Arc::clone(&flight));
        Some(flight)
    }

    fn rest(&mut self, key: &TokenKey, error: &MintError, now: Instant) {
        // The count outlives the rest, or the next failure would begin anew.
        let failures = self.resting.0.get(key).map_or(0, |(failures, _)| *failures);
        let (failures, rest) = match error {
            // Told when to come back; no attempt of this key has failed.
            MintError::Throttled { retry_after } => (failures, *retry_after),
            MintError::Unavailable { retry_after, .. } if !error.is_transient() => (failures, *retry_after),
            _ => (failures + 1, FIRST_REST * 2_u32.saturating_pow(failures.min(8))),
        };
        self.resting.put(key, failures, now, now + rest.clamp(FIRST_REST, LONGEST_REST));
    }
}

// === impl Remembered ===

impl<V> Default for Remembered<V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<V> Remembered<V> {
    fn get(&self, key: &TokenKey, now: Instant) -> Option<&V> {
        self.0.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value)
    }

    /// Whether it was remembered.
    fn put(&mut self, key: &TokenKey, value: V, now: Instant, until: Instant) -> bool {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, (_, until)| *until > now);
        }
        // Full of what is still true: then this one is asked for again, which costs a mint and nothing else.
        let room = self.0.len() < MAX_REMEMBERED || self.0.contains_key(key);
        if room {
            self.0.insert(key.clone(), (value, until));
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::fake::key;

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_ends() {
        let (mut memory, now) = (Remembered::default(), Instant::now());
        for number in 0..MAX_REMEMBERED + 10 {
            memory.put(&key(number), number, now, now + Duration::from_secs(5));
        }
        assert_eq!(memory.0.len(), MAX_REMEMBERED);
        assert_eq!(memory.get(&key(7), now), Some(&7));
        let later = now + Duration::from_secs(5);
        assert_eq!(memory.get(&key(7), later), None);
        memory.put(&key(MAX_REMEMBERED + 1), 1, later, later + Duration::from_secs(1));
        assert_eq!(memory.0.len(), 1, "what is over makes room");
    }

    #[test]
    fn mints_under_way_are_bounded() {
        let (flights, now) = (Flights::default(), Instant::now());
        for number in 0..MAX_FLIGHTS {
            assert!(matches!(flights.next(&key(number), now, || None), Next::Begin(_)));
        }
        assert!(matches!(flights.next(&key(MAX_FLIGHTS), now, || None), Next::Full));
        assert!(matches!(flights.next(&key(7), now, || None), Next::Join(_)));
        assert!(flights.refresh(&key(MAX_FLIGHTS), now, || true).is_none());
        assert_eq!(flights.len(), MAX_FLIGHTS);
    }

    #[test]
    fn a_failed_refresh_rests_longer_each_time() {
        let (flights, mut now) = (Flights::default(), Instant::now());
        for rest in [1, 2, 4, 8, 10, 10] {
            let flight = flights.refresh(&key(0), now, || true).expect("it is time");
            flights.land(&flight, Err(MintError::Timeout), now, None, || panic!("nothing to keep"));
            let almost = now + Duration::from_millis(rest * 1000 - 1);
            assert!(flights.refresh(&key(0), almost, || true).is_none(), "{rest}");
            now += Duration::from_secs(rest);
        }
        let flight = flights.refresh(&key(0), now, || true).unwrap();
        let token = Arc::new(Token::new("t", now).unwrap());
        assert!(flights.land(&flight, Ok(token), now, None, || ()));
        assert!(flights.refresh(&key(0), now, || true).is_some(), "a success is forgotten at once");
    }

    #[test]
    fn one_forced_mint_of_a_key_in_ten_seconds() {
        let (flights, now) = (Flights::default(), Instant::now());
        assert!(flights.force(&key(0), now));
        assert!(!flights.force(&key(0), now + Duration::from_millis(9_999)));
        assert!(flights.force(&key(1), now), "another key");
        assert!(flights.force(&key(0), now + Duration::from_secs(10)), "a refused one is not counted");
    }

    #[test]
    fn nobody_mints_what_has_just_arrived() {
        let (flights, now) = (Flights::default(), Instant::now());
        let token = Arc::new(Token::new("t", now).unwrap());
        assert!(matches!(flights.next(&key(0), now, || Some(token)), Next::Live(_)));
        assert_eq!(flights.len(), 0);
    }
}
