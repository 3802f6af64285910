//! Verified sessions by a tag of their credential, so that a hot session costs no RSA operation.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;

use crate::bounded::{Bounded, Prehashed, Weighed};
use crate::clock::Wall;
use crate::record::Caller;
use crate::session::Session;
use crate::session::credential::peek::{Peek, Peeked, Peeks};
use crate::session::jwks::Jwks;
use crate::session::tag::{Tag, Tagger};
use crate::token::{KeyParts, TokenKey};

/// An entry is verified anew after this long, however long its token lives.
const LONGEST: Duration = Duration::from_hours(24);

/// Verified sessions, those used least out first, bounded in bytes. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    map: Arc<Bounded<Key, Arc<Remembered>>>,
    tagger: Arc<Tagger>,
}

/// A verified session, with what the snapshot that verified it derives from it again and again.
pub struct Remembered {
    /// What was verified.
    pub session: Session,
    snapshot: u64,
    /// The generation of the key set that held the session's key when somebody looked last; 0: nobody did.
    key_seen_in: AtomicU64,
    /// Not looked at by a hit: what is dead by then is for the check on every request to say.
    keep_until: Wall,
    /// What the credential's text says of itself, read when somebody first asked. `None`: nobody asks.
    peek: Option<Box<OnceLock<Peek>>>,
    keys: Box<[OnceLock<TokenKey>]>,
    values: Box<[OnceLock<Option<HeaderValue>>]>,
    verdicts: Box<[OnceLock<bool>]>,
}

/// How many slots a snapshot wants beside each session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// One for each distinct thing to mint.
    pub keys: usize,
    /// One for each distinct header value made of a claim.
    pub values: usize,
    /// One for each distinct set of what routes ask of a session.
    pub verdicts: usize,
    /// One for what a token says of itself, which is asked where two cookies are chosen between.
    pub peek: bool,
}

/// What the texts that one snapshot has verified say of themselves. Nothing is removed, and no answer means that a text
/// is still good: only that this very text was read before, under the same hosts.
#[derive(Debug, Clone, Copy)]
pub struct Read<'m> {
    memory: &'m Memory,
    snapshot: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key(Tag);

// === impl Memory ===

impl Memory {
    /// Holds about so many bytes.
    pub fn new(max_bytes: u64) -> Self {
        Self { map: Arc::new(Bounded::new(max_bytes)), tagger: Arc::new(Tagger::new()) }
    }

    /// What a credential is remembered under.
    pub fn tag(&self, credential: impl AsRef<[u8]>) -> Tag {
        self.tagger.tag(credential.as_ref())
    }

    /// The session that this credential proved, when the same snapshot verified it and its key is still in the set.
    /// An entry that is not so is removed. Whether the session has expired is for the check on every request to say.
    pub fn get(&self, credential: Tag, snapshot: u64, jwks: &Jwks) -> Option<Arc<Remembered>> {
        let key = Key(credential);
        let found = self.map.get(&key)?;
        if found.snapshot == snapshot && found.key_is_in(jwks) {
            return Some(found);
        }
        self.map.remove(&key);
        None
    }

    /// What the texts that a snapshot has verified say of themselves.
    pub fn read_in(&self, snapshot: u64) -> Read<'_> {
        Read { memory: self, snapshot }
    }

    /// Remembers a session until it has expired; one that has is only wrapped.
    pub fn remember(
        &self,
        credential: Tag,
        session: Session,
        snapshot: u64,
        slots: Slots,
        now: Wall,
        skew: Duration,
    ) -> Arc<Remembered> {
        let remembered = Arc::new(Remembered::new(session, snapshot, slots, now, skew));
        if remembered.keep_until > now {
            self.map.insert(Key(credential), Arc::clone(&remembered));
        }
        remembered
    }

    /// How many there are.
    pub fn entries(&self) -> u64 {
        self.map.len()
    }

    /// Their weight in bytes.
    pub fn bytes(&self) -> u64 {
        self.map.bytes()
    }

    /// Forgets these sessions, so that nothing of them is left in memory; who is refused is for the check on every request
    /// to say.
    pub fn forget(&self, whose: impl Fn(&Session) -> bool) -> usize {
        self.map.remove_if(|_, remembered| whose(&remembered.session))
    }

    /// Forgets what has expired, so that it does not take up room until something else needs it. For a call every
    /// minute or so; returns how many those were.
    pub fn sweep(&self, now: Wall) -> usize {
        self.map.remove_if(|_, remembered| remembered.keep_until <= now)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("entries", &self.entries()).field("bytes", &self.bytes()).finish()
    }
}

// === impl Remembered ===

impl Remembered {
    /// A session that no map holds.
    pub fn new(session: Session, snapshot: u64, slots: Slots, now: Wall, skew: Duration) -> Self {
        let keep_until = session.expires_at.plus(skew).min(now.plus(LONGEST));
        Self {
            session,
            snapshot,
            key_seen_in: AtomicU64::new(0),
            keep_until,
            peek: slots.peek.then(Box::default),
            keys: (0..slots.keys).map(|_| OnceLock::new()).collect(),
            values: (0..slots.values).map(|_| OnceLock::new()).collect(),
            verdicts: (0..slots.verdicts).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The key of the `slot`th thing to mint, made on first use.
    ///
    /// # Panics
    /// Beyond the [`Slots`] that the snapshot asked for.
    pub fn token_key(&self, slot: usize, make: impl FnOnce(&Session) -> TokenKey) -> &TokenKey {
        self.keys[slot].get_or_init(|| make(&self.session))
    }

    /// The `slot`th header value, made on first use; `None` when the session has none.
    ///
    /// # Panics
    /// Beyond the [`Slots`] that the snapshot asked for.
    pub fn value(&self, slot: usize, make: impl FnOnce(&Session) -> Option<HeaderValue>) -> Option<&HeaderValue> {
        self.values[slot].get_or_init(|| make(&self.session)).as_ref()
    }

    /// The outcome of the `slot`th question about the session, found on first use.
    ///
    /// # Panics
    /// Beyond the [`Slots`] that the snapshot asked for.
    pub fn verdict(&self, slot: usize, find: impl FnOnce(&Session) -> bool) -> bool {
        *self.verdicts[slot].get_or_init(|| find(&self.session))
    }

    /// One load while the set stays the same.
    fn key_is_in(&self, jwks: &Jwks) -> bool {
        if self.key_seen_in.load(Ordering::Relaxed) == jwks.generation() {
            return true;
        }
        let keys = jwks.current();
        let held = keys.holds(&self.session.key);
        if held {
            self.key_seen_in.store(keys.generation(), Ordering::Relaxed);
        }
        held
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

impl Caller for Remembered {
    fn sub(&self) -> Option<&str> {
        self.session.sub()
    }

    fn sid(&self) -> &str {
        self.session.sid()
    }

    fn org(&self) -> Option<&str> {
        self.session.org()
    }
}

// === impl Read ===

impl Peeks for Read<'_> {
    fn peek(&self, token: &str, read: impl FnOnce() -> Peek) -> Peeked {
        let tag = self.memory.tag(token);
        let known = self.memory.map.get(&Key(tag)).filter(|known| known.snapshot == self.snapshot);
        let peek = match known.as_ref().and_then(|known| known.peek.as_ref()) {
            Some(slot) => *slot.get_or_init(read),
            None => read(),
        };
        Peeked { peek, tag: Some(tag) }
    }
}

// === impl Key ===

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.prefix());
    }
}

impl Prehashed for Key {
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

impl Weighed for Arc<Remembered> {
    /// Counts each slot as if it were filled: the map weighs an entry once.
    fn weight(&self) -> usize {
        let session = &self.session;
        let ids = session.sid.as_str().len() + session.sub.as_str().len();
        let org = session.org.as_ref().map_or(0, |org| {
            org.id.len() + org.role.as_deref().map_or(0, str::len) + org.slug.as_deref().map_or(0, str::len)
        });
        let claims = session.claims.as_ref().map_or(0, |claims| claims.get().len());
        let texts = ids + org + session.azp.as_deref().map_or(0, str::len) + claims;
        // The ids inside a token key are shared; a header value is seldom longer than the longest id.
        let slots = self.keys.len() * (size_of::<OnceLock<TokenKey>>() + size_of::<KeyParts>())
            + self.values.len() * (size_of::<OnceLock<Option<HeaderValue>>>() + 64)
            + self.verdicts.len() * size_of::<OnceLock<bool>>()
            + self.peek.as_ref().map_or(0, |_| size_of::<OnceLock<Peek>>());
        size_of::<Remembered>() + texts + slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::SessionSource;
    use crate::lifecycle::{Shutdown, Spawner};
    use crate::metrics::{Metrics, Names};
    use crate::secret::Digest;
    use crate::session::credential::peek::NothingRead;
    use crate::session::credential::{self, CookieRules, Found};
    use crate::session::jwks::keys::KeySet;
    use crate::session::jwks::{FetchError, FetchKeys, Pace};
    use crate::session::testing::{self, part, signer, stranger, with};
    use crate::session::{SessionError, SessionId, UserId};
    use http::header::{self, HeaderMap};
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::{collection, option};
    use serde_json::json;
    use serde_json::value::RawValue;
    use std::cell::Cell;
    use std::sync::Mutex;

    const SKEW: Duration = Duration::from_secs(5);

    fn now() -> Wall {
        Wall::from_seconds(1000)
    }

    fn session(claims_bytes: usize) -> Session {
        Session {
            sid: SessionId::new("sess_1").unwrap(),
            sub: UserId::new("user_1").unwrap(),
            expires_at: now().plus(Duration::from_mins(1)),
            not_before: None,
            issued_at: None,
            azp: None,
            pending: false,
            impersonated: false,
            org: None,
            scope: Digest::of(b""),
            claims: RawValue::from_string(json!("x".repeat(claims_bytes)).to_string()).ok(),
            key: signer().keys().find(Some("ins_test")).unwrap().id().clone(),
        }
    }

    fn jwks() -> Jwks {
        Jwks::fixed(signer().keys())
    }

    fn put(memory: &Memory, credential: &str, session: Session) {
        memory.remember(memory.tag(credential), session, 7, Slots::default(), now(), SKEW);
    }

    fn has(memory: &Memory, credential: &str, snapshot: u64, jwks: &Jwks) -> bool {
        memory.get(memory.tag(credential), snapshot, jwks).is_some()
    }

    #[test]
    fn a_credential_is_remembered_for_its_snapshot() {
        let memory = Memory::new(1 << 20);
        put(&memory, "a", session(10));
        assert!(has(&memory, "a", 7, &jwks()) && !has(&memory, "b", 7, &jwks()));
        assert!(!has(&memory, "a", 8, &jwks()));
        assert!(!has(&memory, "a", 7, &jwks()), "the entry of another snapshot is removed");
    }

    /// Answers with one document after the other, and then with the last one.
    struct Script(Mutex<Vec<bytes::Bytes>>);

    impl FetchKeys for Script {
        async fn fetch(&self) -> Result<bytes::Bytes, FetchError> {
            let mut answers = self.0.lock().unwrap();
            if answers.len() > 1 { Ok(answers.remove(0)) } else { Ok(answers[0].clone()) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_key_left_the_set_is_forgotten() {
        let renamed = with(stranger().jwk(), json!({ "kid": "ins_test" }));
        let answers = [vec![signer().jwk()], vec![stranger().jwk(), signer().jwk()], vec![renamed, stranger().jwk()]];
        let script = Script(Mutex::new(answers.iter().map(|keys| testing::jwks(keys)).collect()));
        let pace = Pace { refresh: Duration::from_mins(5), timeout: Duration::from_secs(5) };
        let metrics = Arc::new(Metrics::new(Names::default()));
        let (spawner, shutdown) = (Spawner::current(), Shutdown::new());
        let jwks = Jwks::start(script, KeySet::empty(), pace, Clock::following(now()), metrics, &spawner, &shutdown);
        jwks.ready().await;

        let memory = Memory::new(1 << 20);
        put(&memory, "a", session(10));
        assert!(has(&memory, "a", 7, &jwks));
        // The set has changed, the key has not.
        tokio::time::sleep(Duration::from_secs(301)).await;
        assert!(has(&memory, "a", 7, &jwks));
        // Another key has taken its `kid`.
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert!(!has(&memory, "a", 7, &jwks));
    }

    /// A token that says this of itself, and that nobody signed.
    fn says(issuer: Option<&str>, iat: Option<i64>, exp: i64) -> String {
        let mut claims = json!({ "iat": iat, "exp": exp });
        if let Some(issuer) = issuer {
            claims["iss"] = json!(issuer);
        }
        format!("{}.{}.x", part(r#"{"alg":"RS256"}"#), part(claims.to_string()))
    }

    /// A few texts, so that cookies often share one and two texts differ in one thing alone.
    fn texts() -> impl Strategy<Value = String> {
        const ISSUERS: [Option<&str>; 5] =
            [None, Some(""), Some("https://clerk.a.test"), Some("http://clerk.a.test"), Some("https://clerk.b.test")];
        let times = (option::of(999..1002_i64), 999..1002_i64);
        prop_oneof![
            9 => (select(&ISSUERS[..]), times).prop_map(|(issuer, (iat, exp))| says(issuer, iat, exp)).boxed(),
            1 => select(&["t", "a.b.c", "a.e30.c", "a.b.c.d"][..]).prop_map(str::to_owned).boxed(),
        ]
    }

    const PEEKS: Slots = Slots { keys: 0, values: 0, verdicts: 0, peek: true };
    const UATS: &[&str] = &["5", "5", "5", "5", "0", "", "x"];

    proptest! {
        /// Clerk's rule is one rule: what is remembered of a text saves reading it, and changes nothing.
        #[test]
        fn the_choice_between_cookies_is_the_same_with_and_without_the_memory(
            pool in collection::vec(texts(), 3),
            requests in collection::vec(
                (
                    // Which of two snapshots judges it, and whether it verified each text before.
                    any::<(bool, bool, bool)>(),
                    [option::weighted(0.9, 0..3_usize), option::weighted(0.9, 0..3_usize)],
                    [option::weighted(0.9, select(UATS)), option::weighted(0.9, select(UATS))],
                ),
                4..20,
            ),
            development: bool,
        ) {
            let memory = Memory::new(1 << 20);
            // The same texts are ours under the one, and another's under the other.
            let rules = [("clerk.a.test", 7), ("clerk.b.test", 8)]
                .map(|(host, snapshot)| (CookieRules::sample(host, development), snapshot));
            for ((which, first, second), tokens, uats) in requests {
                let (rules, snapshot) = &rules[usize::from(which)];
                let [plain, suffixed] = tokens.map(|token| Some(&*pool[token?]));
                for text in [plain.filter(|_| first), suffixed.filter(|_| second)].into_iter().flatten() {
                    memory.remember(memory.tag(text), session(10), *snapshot, PEEKS, now(), SKEW);
                }
                let names = ["__session", "__session_QvfNY2dr", "__client_uat", "__client_uat_QvfNY2dr"];
                let values = [plain, suffixed, uats[0], uats[1]];
                let mut headers = HeaderMap::new();
                for (name, value) in names.iter().zip(values).filter_map(|(name, value)| Some((name, value?))) {
                    headers.append(header::COOKIE, HeaderValue::from_str(&format!("{name}={value}")).unwrap());
                }
                let sources = [SessionSource::Cookie];
                let seen = |found: Result<Found<'_>, SessionError>| {
                    found.map(|found| (found.credential.token.as_str().to_owned(), format!("{:?}", found.credential.place)))
                };
                let without = seen(credential::find(&headers, &sources, rules, now(), &NothingRead));
                // The second time what the first one has read is known.
                for _ in 0..2 {
                    let found = credential::find(&headers, &sources, rules, now(), &memory.read_in(*snapshot));
                    if let Ok(Found { credential, tag: Some(tag) }) = found {
                        prop_assert!(tag == memory.tag(credential.token.as_bytes()), "the tag of another text");
                    }
                    prop_assert_eq!(seen(found), without.clone());
                }
            }
        }
    }

    #[test]
    fn what_a_verified_text_says_is_read_once() {
        let (memory, read) = (Memory::new(1 << 20), Cell::new(0));
        memory.remember(memory.tag("a"), session(10), 7, PEEKS, now(), SKEW);
        let ask = |token: &str, snapshot| {
            memory.read_in(snapshot).peek(token, || {
                read.set(read.get() + 1);
                Peek { iat: Some(f64::from(read.get())), ..Peek::default() }
            })
        };
        for (token, snapshot, reads, says) in
            [("a", 7, 1, 1.0), ("a", 7, 1, 1.0), ("b", 7, 2, 2.0), ("b", 7, 3, 3.0), ("a", 8, 4, 4.0), ("a", 7, 4, 1.0)]
        {
            assert_eq!((ask(token, snapshot).peek.iat, read.get()), (Some(says), reads), "{token} {snapshot}");
        }
    }

    #[test]
    fn an_expired_session_is_not_kept() {
        let memory = Memory::new(1 << 20);
        let expired = Session { expires_at: now().minus(SKEW), ..session(10) };
        put(&memory, "a", expired);
        assert!(!has(&memory, "a", 7, &jwks()));
        let nearly = Session { expires_at: now().minus(Duration::from_secs(4)), ..session(10) };
        put(&memory, "b", nearly);
        assert!(has(&memory, "b", 7, &jwks()));
        // A renewed entry has its own deadline, not that of the one before.
        let long = Session { expires_at: Wall::from_seconds(i64::MAX), ..session(10) };
        put(&memory, "b", long);
        assert_eq!(memory.get(memory.tag("b"), 7, &jwks()).unwrap().keep_until, now().plus(LONGEST));
    }

    #[test]
    fn the_map_is_bounded_in_bytes() {
        let memory = Memory::new(100_000);
        for index in 0..1000 {
            put(&memory, &index.to_string(), session(1000));
        }
        assert!(memory.bytes() <= 100_000 && memory.entries() > 20, "{memory:?}");
        assert!(memory.entries() < 70, "an entry weighs more than its claims: {memory:?}");
    }

    #[test]
    fn a_slot_is_filled_once() {
        let (mut made, remembered) =
            (0, Remembered::new(session(1), 7, Slots { values: 2, ..Slots::default() }, now(), SKEW));
        for _ in 0..3 {
            let value = remembered.value(1, |session| {
                made += 1;
                HeaderValue::from_str(session.sid.as_str()).ok()
            });
            assert_eq!(value.unwrap(), "sess_1");
        }
        assert!(remembered.value(0, |_| None).is_none());
        assert_eq!(made, 1);
    }
}
