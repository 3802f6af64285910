//! What ends a session, or forgets its tokens, in the whole process: the one place that does.
//!
//! The order is what makes it true. First the word for the other replicas: from then on nothing of it is taken from the
//! cache that they share. Then the tombstone: whoever is judged from then on is refused. Then the tokens, which
//! ends the epoch of mints under way: who waits for one is told, and what it brings is kept by nobody. Then what is left
//! in memory, and last the open WebSockets, which no request of the session can open again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::upgrade::registry::{Farewell, Whose};
use crate::session::memory::Memory;
use crate::session::revoked::Revoked;
use crate::session::{SessionId, UserId};
use crate::token::cache::{PurgeScope, TokenCache};
use crate::token::shared::outbox::{Outbox, Word};

/// Tells the open tunnels of every worker to end, and how many those are.
pub type EndTunnels = Arc<dyn Fn(Whose<'_>, Farewell) -> usize + Send + Sync>;

/// What ends sessions and forgets tokens. Cheap to clone.
#[derive(Clone)]
pub struct Revocation {
    /// Who is refused.
    pub revoked: Arc<Revoked>,
    /// The tokens in memory.
    pub tokens: Arc<TokenCache>,
    /// The sessions that were verified.
    pub memory: Memory,
    /// The WebSockets.
    pub tunnels: EndTunnels,
    /// What other replicas have to hear.
    pub outbox: Arc<Outbox>,
}

/// Whose session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// One session.
    Session(SessionId),
    /// Every session of a user, those that are yet to come too.
    User(UserId),
}

/// What was there to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Tokens that were forgotten.
    pub tokens: usize,
    /// WebSockets that were told to close.
    pub websockets: usize,
}

// === impl Revocation ===

impl Revocation {
    /// Refuses a session, or a user, from now on.
    pub fn revoke(&self, whom: &Whom) -> Ended {
        let now = Instant::now();
        self.outbox.push(whom.word());
        match whom {
            Whom::Session(sid) => self.revoked.revoke_session(sid.clone(), now),
            Whom::User(sub) => self.revoked.revoke_user(sub.clone(), now),
        }
        self.end(whom)
    }

    /// Refuses a user who is banned or locked, as of that change in milliseconds. `None`: a later one has let him in, and
    /// nothing was ended.
    pub fn bar(&self, sub: &UserId, as_of: i64) -> Option<Ended> {
        let barred = self.revoked.bar_user(sub.clone(), as_of, Instant::now());
        if barred {
            self.outbox.push(Word::Bar(sub.clone(), as_of));
        }
        barred.then(|| self.end(&Whom::User(sub.clone())))
    }

    /// Lets a user in again who was banned or locked before that.
    pub fn admit(&self, sub: &UserId, as_of: i64) {
        self.outbox.push(Word::Admit(sub.clone(), as_of));
        self.revoked.admit_user(sub, as_of, Instant::now());
    }

    /// Forgets the tokens of a scope; nobody is refused. What is minted for it just now is not kept.
    pub fn purge(&self, scope: &PurgeScope) -> usize {
        self.outbox.push(Word::Purge(scope.clone()));
        self.tokens.purge(scope, false)
    }

    /// Does what another replica did so long ago.
    pub fn hear(&self, word: &Word, age: Duration) {
        let now = Instant::now();
        let then = now.checked_sub(age).unwrap_or(now);
        match word {
            Word::Purge(scope) => {
                self.tokens.purge(scope, false);
            }
            Word::RevokeSession(sid) => {
                self.revoked.revoke_session(sid.clone(), then);
                self.end(&Whom::Session(sid.clone()));
            }
            Word::RevokeUser(sub) => {
                self.revoked.revoke_user(sub.clone(), then);
                self.end(&Whom::User(sub.clone()));
            }
            Word::Bar(sub, as_of) => {
                if self.revoked.bar_user(sub.clone(), *as_of, then) {
                    self.end(&Whom::User(sub.clone()));
                }
            }
            Word::Admit(sub, as_of) => {
                self.revoked.admit_user(sub, *as_of, then);
            }
        }
        tracing::debug!(?word, "another replica has told");
    }

    /// What follows a tombstone.
    fn end(&self, whom: &Whom) -> Ended {
        let tokens = self.tokens.purge(&whom.scope(), true);
        match whom {
            Whom::Session(sid) => self.memory.forget(|session| session.sid == *sid),
            Whom::User(sub) => self.memory.forget(|session| session.sub == *sub),
        };
        let whose = match whom {
            Whom::Session(sid) => Whose::Session(sid),
            Whom::User(sub) => Whose::User(sub),
        };
        Ended { tokens, websockets: (self.tunnels)(whose, Farewell::Revoked) }
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revocation")
    }
}

// === impl Whom ===

impl Whom {
    fn word(&self) -> Word {
        match self {
            Self::Session(sid) => Word::RevokeSession(sid.clone()),
            Self::User(sub) => Word::RevokeUser(sub.clone()),
        }
    }

    /// Whose tokens go with it.
    pub fn scope(&self) -> PurgeScope {
        match self {
            Self::Session(sid) => PurgeScope::Session(sid.clone()),
            Self::User(sub) => PurgeScope::User(sub.clone()),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Cache;
    use crate::lifecycle::Spawner;
    use crate::metrics::{Metrics, Names};
    use crate::proxy::upgrade::registry::Dialect;
    use crate::token::freshness::Jitter;

    /// The words that tunnels were told.
    pub(crate) type Told = Arc<Mutex<Vec<String>>>;

    /// Empty maps, and tunnels of which one of everybody is open.
    pub(crate) fn revocation(clock: Clock) -> (Revocation, Told) {
        let (metrics, told) = (Arc::new(Metrics::new(Names::default())), Told::default());
        let cache = Cache {
            max_bytes: 1 << 20,
            max_session_bytes: 1 << 20,
            min_remaining: Duration::from_secs(5),
            max_lifetime: Duration::from_hours(1),
            refresh_at: None,
            missing_ttl: None,
        };
        let tokens = TokenCache::new(&cache, clock, Spawner::current(), Jitter::random(), Arc::clone(&metrics));
        let hears = Arc::clone(&told);
        let tunnels: EndTunnels = Arc::new(move |whose, farewell| {
            let whose = match whose {
                Whose::Session(sid) => sid.as_str(),
                Whose::User(sub) => sub.as_str(),
                Whose::Everybody => "everybody",
            };
            hears.lock().unwrap().push(format!("{whose} {}", farewell.close(Dialect::default()).0));
            1
        });
        let revoked = Arc::new(Revoked::new(metrics));
        (Revocation { revoked, tokens, memory: Memory::new(1 << 20), tunnels, outbox: Arc::default() }, told)
    }
}
