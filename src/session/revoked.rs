//! Tombstones: sessions and users that are refused although their tokens are still valid.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::lapsing::Lapsing;
use crate::metrics::Metrics;
use crate::session::{SessionId, UserId};

/// How long a tombstone stands: Clerk's longest default life of a session (contract section 1.3).
pub const LIFE: Duration = Duration::from_hours(7 * 24);

/// Tombstones of one kind at most. The oldest gives way: what it refused has expired long since, for a session token
/// lives a minute.
pub const CAPACITY: usize = 100_000;

/// How long an older word may come after a newer one: Svix sends an event again for somewhat more than a day.
const LATE: Duration = Duration::from_hours(2 * 24);

/// Users at most of whom it is remembered that they were let in.
const ADMITTED: usize = 10_000;

/// Revoked sessions and users, bounded in time and number.
#[derive(Debug)]
pub struct Revoked {
    /// How many there are, so that a look costs one load while there are none.
    count: AtomicUsize,
    graves: RwLock<Graves>,
    metrics: Arc<Metrics>,
}

/// What may lift a tombstone before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Term {
    /// The user as the issuer knows him then or later, in milliseconds, when he is neither banned nor locked.
    Barred(i64),
    /// Nothing.
    Final,
}

#[derive(Debug)]
struct Graves {
    sessions: Lapsing<SessionId, ()>,
    users: Lapsing<UserId, Term>,
    /// Who was let in, as of when, in milliseconds: an older word may come later. They refuse nobody.
    admitted: Lapsing<UserId, i64>,
}

// === impl Revoked ===

impl Revoked {
    /// Nobody is revoked.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(metrics, CAPACITY)
    }

    fn with_capacity(metrics: Arc<Metrics>, capacity: usize) -> Self {
        let admitted = Lapsing::new(capacity.min(ADMITTED));
        let graves = Graves { sessions: Lapsing::new(capacity), users: Lapsing::new(capacity), admitted };
        Self { count: AtomicUsize::new(0), graves: RwLock::new(graves), metrics }
    }

    /// Refuses a session from now on.
    pub fn revoke_session(&self, sid: SessionId, now: Instant) {
        self.change(now, |graves| graves.sessions.insert(sid, (), now + LIFE));
    }

    /// Refuses every session of a user from now on.
    pub fn revoke_user(&self, sub: UserId, now: Instant) {
        self.change(now, |graves| graves.users.insert(sub, Term::Final, now + LIFE));
    }

    /// The same for a user who is banned or locked, as of that change in milliseconds: he may be let in again. `false`: he
    /// was let in as of a later one, and stays in.
    pub fn bar_user(&self, sub: UserId, as_of: i64, now: Instant) -> bool {
        let mut barred = false;
        self.change(now, |graves| {
            if graves.admitted.get(&sub, now).is_none_or(|&later| later <= as_of) {
                // A second word renews the first, and softens none.
                let before = graves.users.get(&sub, now).copied();
                let term = before.map_or(Term::Barred(as_of), |before| before.max(Term::Barred(as_of)));
                graves.users.insert(sub, term, now + LIFE);
                barred = true;
            }
        });
        barred
    }

    /// Lets a user in again who was banned or locked, unless that is newer than `as_of`. One who was refused for good stays
    /// so. Whether he was let in.
    pub fn admit_user(&self, sub: &UserId, as_of: i64, now: Instant) -> bool {
        let mut lifted = false;
        self.change(now, |graves| {
            lifted = graves.users.get(sub, now).is_some_and(|&term| term <= Term::Barred(as_of));
            if lifted {
                graves.users.remove(sub);
            }
            let latest = graves.admitted.get(sub, now).map_or(as_of, |&before| before.max(as_of));
            graves.admitted.insert(sub.clone(), latest, now + LATE);
        });
        lifted
    }

    /// Whether a session or its user, where that is known, is refused.
    pub fn refuses(&self, sid: &SessionId, sub: Option<&UserId>, now: Instant) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let graves = self.graves.read().unwrap_or_else(PoisonError::into_inner);
        graves.sessions.get(sid, now).is_some() || sub.is_some_and(|sub| graves.users.get(sub, now).is_some())
    }

    /// Removes what stood long enough; for whoever tidies up from time to time.
    pub fn sweep(&self, now: Instant) {
        self.change(now, |_| {});
    }

    /// How many stand.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether nobody is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn change(&self, now: Instant, change: impl FnOnce(&mut Graves)) {
        let mut graves = self.graves.write().unwrap_or_else(PoisonError::into_inner);
        graves.sessions.sweep(now);
        graves.users.sweep(now);
        graves.admitted.sweep(now);
        change(&mut graves);
        let count = graves.sessions.len() + graves.users.len();
        self.count.store(count, Ordering::Release);
        self.metrics.control().tombstones.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Names;

    fn sid(index: usize) -> SessionId {
        SessionId::new(&format!("sess_{index}")).unwrap()
    }

    fn sub(text: &str) -> UserId {
        UserId::new(text).unwrap()
    }

    fn revoked(capacity: usize) -> Revoked {
        Revoked::with_capacity(Arc::new(Metrics::new(Names::default())), capacity)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tombstone_stands_seven_days() {
        let (revoked, begin) = (revoked(10), Instant::now());
        assert!(!revoked.refuses(&sid(1), Some(&sub("a")), begin) && revoked.is_empty());
        revoked.revoke_session(sid(1), begin);
        revoked.revoke_user(sub("b"), begin);
        let last = begin + LIFE.checked_sub(Duration::from_secs(1)).unwrap();
        for now in [begin, last] {
            assert!(revoked.refuses(&sid(1), Some(&sub("a")), now) && revoked.refuses(&sid(2), Some(&sub("b")), now));
            assert!(!revoked.refuses(&sid(2), Some(&sub("a")), now));
        }
        assert!(!revoked.refuses(&sid(1), Some(&sub("b")), begin + LIFE));
        revoked.sweep(begin + LIFE);
        assert!(revoked.is_empty());
    }

    /// Fails where it is not remembered who was let in.
    #[tokio::test(start_paused = true)]
    async fn an_older_word_that_comes_later_bars_nobody() {
        let (revoked, now) = (revoked(10), Instant::now());
        revoked.admit_user(&sub("a"), 2000, now);
        assert!(revoked.is_empty(), "they refuse nobody");
        assert!(!revoked.bar_user(sub("a"), 1000, now) && revoked.is_empty());
        assert!(revoked.bar_user(sub("a"), 2000, now) && revoked.bar_user(sub("b"), 1000, now));
        assert!(revoked.refuses(&sid(1), Some(&sub("a")), now));
        revoked.admit_user(&sub("a"), 3000, now);
        revoked.sweep(now + LATE);
        assert!(revoked.bar_user(sub("a"), 1000, now + LATE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_revocation_renews_the_first() {
        let (revoked, begin, day) = (revoked(10), Instant::now(), Duration::from_hours(24));
        revoked.revoke_session(sid(1), begin);
        revoked.revoke_session(sid(1), begin + day);
        revoked.sweep(begin + LIFE);
        assert!(revoked.refuses(&sid(1), Some(&sub("a")), begin + LIFE) && revoked.len() == 1);
        revoked.sweep(begin + LIFE + day);
        assert!(revoked.is_empty());
    }

    /// Fails where an older word lifts a newer one, or where what is final is lifted.
    #[tokio::test(start_paused = true)]
    async fn who_was_barred_is_let_in_again_by_a_newer_word_alone() {
        let (revoked, now) = (revoked(10), Instant::now());
        let refused = |user: &str| revoked.refuses(&sid(1), Some(&sub(user)), now);
        assert!(!revoked.admit_user(&sub("a"), 5, now));
        revoked.bar_user(sub("a"), 10, now);
        assert!(!revoked.admit_user(&sub("a"), 9, now) && refused("a"));
        assert!(revoked.admit_user(&sub("a"), 10, now) && !refused("a") && revoked.is_empty());
        revoked.bar_user(sub("a"), 11, now);
        revoked.revoke_user(sub("b"), now);
        revoked.bar_user(sub("b"), 12, now);
        assert!(!revoked.admit_user(&sub("b"), i64::MAX, now) && refused("b") && refused("a"));
        // Renewed and lifted, it leaves nothing behind that would take the next one away.
        assert!(revoked.admit_user(&sub("a"), 11, now));
        revoked.bar_user(sub("a"), 13, now + Duration::from_secs(1));
        revoked.sweep(now + LIFE);
        assert!(revoked.refuses(&sid(1), Some(&sub("a")), now + LIFE) && revoked.len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tombstones_are_bounded_and_counted() {
        let (revoked, now) = (revoked(10), Instant::now());
        for index in 0..100 {
            revoked.revoke_session(sid(index), now);
            revoked.revoke_user(sub("a"), now);
        }
        assert_eq!(revoked.len(), 11);
        assert_eq!(revoked.metrics.control().tombstones.get(), 11);
        assert!(revoked.refuses(&sid(99), Some(&sub("b")), now) && !revoked.refuses(&sid(0), Some(&sub("b")), now));
        assert!(revoked.refuses(&sid(0), Some(&sub("a")), now));
    }
}
