//! A fleet in one process, under paused time: what the second level promises, whatever the store does.

mod budget;
mod failing;
mod fleet;
mod life;
mod words;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, advance, sleep};

use super::journal::{Entries, Journal, Place};
use super::level::Means;
use super::memory::MemoryStore;
use super::outbox::{Hear, Outbox, Word};
use super::seal::{EPOCHS, Epoch, FundNames, Names, Seal};
use super::store::{Holder, Leased, Seen, StoreError};
use super::vault::{Drawn, Vault};
use super::*;
use crate::clock::{Clock, Wall};
use crate::config;
use crate::config::shared::{CacheKey, Node, Reach, Redis};
use crate::lifecycle::Spawner;
use crate::metrics::{Lookup, Metrics, MintResult, SharedOperation, SharedResult, TemplateId};
use crate::session::UserId;
use crate::token::budget::purse::Ask;
use crate::token::cache::TokenCache;
use crate::token::fake::{Fake, key, metrics, request, spec, unavailable};
use crate::token::freshness::Jitter;
use crate::token::scope::PurgeScope;
use crate::token::{Scope, TokenKey, Urgency};

const LATENCY: Duration = Duration::from_millis(250);
const LIMIT: Duration = Duration::from_millis(50);

/// What the wire to the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Each call takes so long.
    Slow(Duration),
    Hangs,
    Lost,
    /// Takes no writes, or has no room for them.
    ReadOnly,
    /// Has another password.
    Unusable,
    /// Answers something else than what was asked.
    Confused,
    /// Has lost everything, again and again.
    Forgets,
}

/// The way to one store.
#[derive(Debug)]
struct Wire {
    store: Arc<MemoryStore>,
    mood: Mutex<Mood>,
    calls: AtomicUsize,
    /// The mood from so many calls on.
    later: Mutex<Option<(usize, Mood)>>,
}

fn error() -> Arc<dyn std::error::Error + Send + Sync> {
    Arc::new(std::fmt::Error)
}

impl Wire {
    fn feel(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn pass(&self, writes: bool) -> Result<(), StoreError> {
        let before = self.calls.fetch_add(1, Ordering::SeqCst);
        let later = *self.later.lock().unwrap();
        if let Some((_, mood)) = later.filter(|(calls, _)| before >= *calls) {
            self.feel(mood);
        }
        self.carry(writes).await
    }

    async fn carry(&self, writes: bool) -> Result<(), StoreError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Slow(time) => {
                sleep(time).await;
                Ok(())
            }
            Mood::Hangs => std::future::pending().await,
            Mood::Lost => Err(StoreError::Lost(error())),
            Mood::ReadOnly if writes => Err(StoreError::Refused(error())),
            Mood::Unusable => Err(StoreError::Unusable(error())),
            Mood::Confused => Err(StoreError::Unreadable),
            Mood::Forgets => {
                self.store.flush();
                Ok(())
            }
            Mood::Well | Mood::ReadOnly => Ok(()),
        }
    }
}

impl Store for Wire {
    async fn look(&self, at: &Names) -> Result<Seen, StoreError> {
        self.pass(false).await?;
        self.store.look(at).await
    }

    async fn lease(
        &self,
        at: &Names,
        holder: &Holder,
        life: Duration,
        fresh: &[Epoch; EPOCHS],
    ) -> Result<Leased, StoreError> {
        self.pass(true).await?;
        self.store.lease(at, holder, life, fresh).await
    }

    async fn put(&self, at: &Names, holder: &Holder, value: Vec<u8>, life: Duration) -> Result<(), StoreError> {
        self.pass(true).await?;
        self.store.put(at, holder, value, life).await
    }

    async fn release(&self, at: &Names, holder: &Holder) -> Result<(), StoreError> {
        self.pass(true).await?;
        self.store.release(at, holder).await
    }

    async fn renew(&self, epochs: &[(String, Epoch)]) -> Result<(), StoreError> {
        self.pass(true).await?;
        self.store.renew(epochs).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.pass(false).await
    }
}

impl Journal for Wire {
    type Line = ();

    async fn append(&self, stream: &str, entry: &[u8]) -> Result<(), StoreError> {
        self.carry(true).await?;
        self.store.append(stream, entry).await
    }

    async fn open(&self) -> Result<(), StoreError> {
        self.carry(false).await
    }

    async fn last(&self, line: &mut (), stream: &str) -> Result<Option<Place>, StoreError> {
        self.carry(false).await?;
        self.store.last(line, stream).await
    }

    async fn read(&self, line: &mut (), stream: &str, after: Place, patience: Duration) -> Result<Entries, StoreError> {
        self.carry(false).await?;
        let entries = self.store.read(line, stream, after, patience).await;
        // What was waited for does not come over a wire that broke meanwhile.
        self.carry(false).await?;
        entries
    }
}

impl Vault for Wire {
    async fn draw(&self, at: &FundNames, ask: Ask) -> Result<Drawn, StoreError> {
        self.pass(true).await?;
        self.store.draw(at, ask).await
    }

    async fn now(&self) -> Result<u64, StoreError> {
        self.pass(false).await?;
        self.store.now().await
    }

    async fn pause(&self, at: &FundNames, pause: Vec<u8>, life: Duration) -> Result<(), StoreError> {
        self.pass(true).await?;
        self.store.pause(at, pause, life).await
    }
}

fn cache_key(byte: u8) -> CacheKey {
    use base64::Engine as _;
    CacheKey::parse(&base64::engine::general_purpose::STANDARD.encode([byte; 32])).unwrap()
}

fn shared(key: u8, previous: Option<u8>) -> config::Shared {
    config::Shared {
        redis: Redis { reach: Reach::Server(Node { host: "127.0.0.1".to_owned(), port: 1 }), tls: false, database: 0 },
        username: None,
        password: None,
        key: cache_key(key),
        previous: previous.map(cache_key),
        prefix: "mintgate:".to_owned(),
        timeout: LIMIT,
        ca: None,
    }
}

fn seal() -> Seal {
    Seal::new(&cache_key(1), "mintgate:")
}

fn rules() -> Rules {
    Rules { min_remaining: Duration::from_secs(5), max_lifetime: Duration::from_hours(1), refresh_at: Some(0.8) }
}

fn cache_config() -> config::Cache {
    let Rules { min_remaining, max_lifetime, refresh_at } = rules();
    let missing_ttl = Some(Duration::from_secs(5));
    config::Cache { max_bytes: 64 << 20, max_session_bytes: 0, min_remaining, max_lifetime, refresh_at, missing_ttl }
}

type Heard = Arc<Mutex<Vec<(Word, Duration)>>>;

/// One gateway of a fleet.
struct Replica {
    wire: Arc<Wire>,
    cache: Arc<TokenCache>,
    mint: Arc<Shared<Arc<Fake>, Arc<Wire>>>,
    outbox: Arc<Outbox>,
    level: Arc<Level<Arc<Wire>>>,
    /// What it was told by others, and how old that was.
    heard: Heard,
    caught_up: Mutex<Option<follow::CaughtUp>>,
    metrics: Arc<Metrics>,
}

impl Replica {
    fn of(store: &Arc<MemoryStore>, issuer: &Arc<Fake>, clock: Clock, shared: &config::Shared) -> Self {
        let (tasks, metrics) = (Spawner::current(), metrics());
        let wire = Arc::new(Wire {
            store: Arc::clone(store),
            mood: Mutex::new(Mood::Well),
            calls: AtomicUsize::new(0),
            later: Mutex::default(),
        });
        let counts = metrics.control().common();
        let means = Means { clock: clock.clone(), tasks: tasks.clone(), counts };
        let outbox = Arc::new(Outbox::default());
        outbox.open(true);
        let (store, limit) = (Arc::clone(&wire), Duration::from_secs(5));
        let level = Level::telling(store, shared, limit, means, Arc::clone(&outbox));
        herald::begin(&level, Arc::clone(&outbox), &tasks);
        let heard = Heard::default();
        let hears = Arc::clone(&heard);
        let hear = Hear::by(move |word, age| hears.lock().unwrap().push((word.clone(), age)));
        let caught_up = follow::begin(&level, Duration::ZERO, &hear, &tasks);
        let mint = Arc::new(Shared::new(Arc::clone(issuer), Some(Arc::clone(&level)), rules()));
        let (config, jitter) = (cache_config(), Jitter::fixed(0.0));
        let cache = TokenCache::new(&config, clock, tasks, jitter, Arc::clone(&metrics));
        let caught_up = Mutex::new(Some(caught_up));
        Self { wire, cache, mint, outbox, level, heard, caught_up, metrics }
    }

    async fn get(&self, number: usize) -> (Lookup, Result<Arc<Token>, MintError>) {
        self.cache.get(request(&key(number)), &self.mint).await
    }

    /// The text of a token that it has to have.
    async fn text(&self, number: usize) -> String {
        self.get(number).await.1.unwrap().bare().to_str().unwrap().to_owned()
    }

    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        self.mint.mint(request).await
    }

    fn counted(&self, operation: SharedOperation, result: SharedResult) -> u64 {
        self.metrics.control().shared_operations(operation, result).get()
    }

    fn mints(&self) -> u64 {
        self.metrics.control().mints(TemplateId::new(0), MintResult::Ok).get()
    }

    fn up(&self) -> i64 {
        self.metrics.control().shared_up.get()
    }
}

/// Gateways with one store, one issuer and one clock.
struct Fleet {
    store: Arc<MemoryStore>,
    issuer: Arc<Fake>,
    clock: Clock,
    replicas: Vec<Replica>,
}

impl Fleet {
    fn new(size: usize) -> Self {
        let clock = Clock::following(Wall::from_seconds(1_800_000_000));
        let issuer = Fake::healthy(&clock, 60, LATENCY);
        Self::with(size, clock, issuer)
    }

    fn with(size: usize, clock: Clock, issuer: Arc<Fake>) -> Self {
        let store = Arc::<MemoryStore>::default();
        let replicas = (0..size).map(|_| Replica::of(&store, &issuer, clock.clone(), &shared(1, None))).collect();
        Self { store, issuer, clock, replicas }
    }

    /// One that has just started.
    fn fresh(&self) -> Replica {
        Replica::of(&self.store, &self.issuer, self.clock.clone(), &shared(1, None))
    }
}

/// What nobody waits for is done.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}
