//! The open tunnels of one worker, and what tells each of them to end.
//!
//! Nothing waits on a clock for a tunnel: one look a second over all of them finds those whose time is over. So an idle
//! WebSocket holds no timer, and a machine that was suspended or whose clock was set is right again a second later.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Context;

use futures_util::task::AtomicWaker;
use http::header::{self, HeaderMap};
use tokio::time::Instant;

use crate::clock::{Now, Wall};
use crate::session::revoked::Revoked;
use crate::session::{SessionId, UserId};

/// Why a tunnel is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Farewell {
    /// The minted token that was injected has expired.
    TokenExpired = 1,
    /// The session token with which it was opened has expired.
    SessionExpired = 2,
    /// Its session or its user was revoked.
    Revoked = 3,
    /// The gateway ends.
    Draining = 4,
    /// `max_lifetime` has passed.
    TooOld = 5,
}

/// The open tunnels. One worker adds and looks; anybody may tell.
#[derive(Debug, Default)]
pub struct Tunnels(Mutex<Vec<Weak<Member>>>);

/// What ends one tunnel, seen from outside.
#[derive(Debug, Default)]
pub struct Member {
    whose: Option<(SessionId, UserId)>,
    expires: Option<Expiry>,
    oldest: Option<Instant>,
    dialect: Dialect,
    told: AtomicU8,
    waker: AtomicWaker,
}

/// What the two ends agreed to speak, as far as it says what a close code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Codes from 4000 on mean what we say they do.
    #[default]
    Plain,
    /// `graphql-transport-ws` has a meaning of its own for 4401: a subscription before the handshake, a mistake of the
    /// client's. So its clients never come back after it, whatever they are told to try again.
    GraphqlTransport,
}

/// A moment on both clocks; the earlier one decides. The monotonic clock does not care when the machine's clock is set,
/// the wall clock does not stop in a suspended machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// On the monotonic clock.
    pub mono: Instant,
    /// On our wall clock.
    pub wall: Wall,
    /// What is said then.
    pub farewell: Farewell,
}

/// Which tunnels are meant.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Those of a session.
    Session(&'a SessionId),
    /// Those of a user.
    User(&'a UserId),
    /// All.
    Everybody,
}

// === impl Farewell ===

impl Farewell {
    /// The code of the close frame (RFC 6455 section 7.4) and its reason.
    pub fn close(self, dialect: Dialect) -> (u16, &'static str) {
        let expired = dialect.expired();
        match self {
            Self::TokenExpired => (expired, "token expired"),
            Self::SessionExpired => (expired, "session expired"),
            Self::Revoked => (4403, "session revoked"),
            Self::Draining => (1001, "the gateway is ending"),
            Self::TooOld => (1001, "the connection has reached its age limit"),
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::TokenExpired, Self::SessionExpired, Self::Revoked, Self::Draining, Self::TooOld]
            .into_iter()
            .find(|farewell| *farewell as u8 == number)
    }
}

// === impl Dialect ===

impl Dialect {
    /// The code for what a fresh token cures.
    pub fn expired(self) -> u16 {
        match self {
            Self::Plain => 4401,
            // Registered with IANA as "unauthorized".
            Self::GraphqlTransport => 3000,
        }
    }

    /// The one that the head of a 101 agrees to.
    pub fn of(agreement: &HeaderMap) -> Self {
        match agreement.get(header::SEC_WEBSOCKET_PROTOCOL) {
            Some(protocol) if protocol == "graphql-transport-ws" => Self::GraphqlTransport,
            _ => Self::Plain,
        }
    }
}

// === impl Tunnels ===

impl Tunnels {
    /// Adds one. It is a member for as long as somebody holds it.
    pub fn add(&self, member: Member) -> Arc<Member> {
        let member = Arc::new(member);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&member));
        member
    }

    /// Tells everyone whose time is over, who is revoked, or with `draining` everyone. For a call every second.
    pub fn sweep(&self, now: Now, draining: bool, revoked: &Revoked) {
        self.each(|member| {
            let farewell = member.verdict(now, revoked).or(draining.then_some(Farewell::Draining));
            if let Some(farewell) = farewell {
                member.tell(farewell);
            }
        });
    }

    /// Tells these to end, at once. How many there are.
    pub fn end(&self, whose: Whose<'_>, farewell: Farewell) -> usize {
        let mut told = 0;
        self.each(|member| {
            let meant = match (whose, &member.whose) {
                (Whose::Everybody, _) => true,
                (Whose::Session(sid), Some((own, _))) => own == sid,
                (Whose::User(sub), Some((_, own))) => own == sub,
                (_, None) => false,
            };
            if meant {
                member.tell(farewell);
                told += 1;
            }
        });
        told
    }

    /// Calls for every one that is still open, and forgets the others.
    fn each(&self, mut call: impl FnMut(&Member)) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| {
            member.upgrade().is_some_and(|member| {
                call(&member);
                true
            })
        });
        if members.is_empty() {
            members.shrink_to_fit();
        }
    }
}

// === impl Member ===

impl Member {
    /// One that is not told yet. `whose`: the session that opens it, `None` on a public route; `expires`: when what it is
    /// opened with does; `oldest`: when it has lived long enough.
    pub fn new(whose: Option<(SessionId, UserId)>, expires: Option<Expiry>, oldest: Option<Instant>) -> Self {
        Self { whose, expires, oldest, ..Self::default() }
    }

    /// The same, whose ends speak this.
    #[must_use]
    pub fn speaking(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// What its ends speak.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn verdict(&self, now: Now, revoked: &Revoked) -> Option<Farewell> {
        if let Some((sid, sub)) = &self.whose
            && revoked.refuses(sid, Some(sub), now.mono)
        {
            return Some(Farewell::Revoked);
        }
        if let Some(expiry) = self.expires.filter(|expiry| now.mono >= expiry.mono || now.wall >= expiry.wall) {
            return Some(expiry.farewell);
        }
        self.oldest.filter(|oldest| now.mono >= *oldest).map(|_| Farewell::TooOld)
    }

    /// The first word counts.
    fn tell(&self, farewell: Farewell) {
        let first = self.told.compare_exchange(0, farewell as u8, Ordering::Release, Ordering::Relaxed).is_ok();
        if first {
            self.waker.wake();
        }
    }

    /// What it was told; the task is woken when it is told later.
    pub fn told(&self, cx: &mut Context<'_>) -> Option<Farewell> {
        self.waker.register(cx.waker());
        Farewell::from_number(self.told.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::metrics::{Metrics, Names};

    fn told(member: &Member) -> Option<Farewell> {
        member.told(&mut Context::from_waker(Waker::noop()))
    }

    fn ids(number: u8) -> (SessionId, UserId) {
        (SessionId::new(&format!("sess_{number}")).unwrap(), UserId::new(&format!("user_{}", number / 2)).unwrap())
    }

    fn revoked() -> Revoked {
        Revoked::new(Arc::new(Metrics::new(Names::default())))
    }

    #[tokio::test(start_paused = true)]
    async fn each_ends_at_its_own_time_on_either_clock() {
        let (tunnels, clock, revoked) = (Tunnels::default(), Clock::following(Wall::from_seconds(1000)), revoked());
        let (now, second) = (clock.now(), Duration::from_secs(1));
        let expiry =
            |farewell| Some(Expiry { mono: now.mono + 30 * second, wall: now.wall.plus(30 * second), farewell });
        let token = tunnels.add(Member { expires: expiry(Farewell::TokenExpired), ..Member::default() });
        let old = tunnels.add(Member { oldest: Some(now.mono + 20 * second), ..Member::default() });
        let free = tunnels.add(Member::default());
        let look = || {
            tunnels.sweep(clock.now(), false, &revoked);
            [&token, &old, &free].map(|member| told(member))
        };
        tokio::time::advance(19 * second).await;
        assert_eq!(look(), [None; 3]);
        tokio::time::advance(second).await;
        assert_eq!(look(), [None, Some(Farewell::TooOld), None]);
        clock.step(10_000);
        assert_eq!(look(), [Some(Farewell::TokenExpired), Some(Farewell::TooOld), None]);
        tunnels.sweep(clock.now(), true, &revoked);
        assert_eq!(told(&free), Some(Farewell::Draining));
        assert_eq!(told(&old), Some(Farewell::TooOld), "the first word counts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_ends_the_tunnels_of_its_session_or_user() {
        let (tunnels, clock, revoked) = (Tunnels::default(), Clock::following(Wall::from_seconds(1000)), revoked());
        let members = [0, 1, 2, 3].map(|number| tunnels.add(Member { whose: Some(ids(number)), ..Member::default() }));
        let public = tunnels.add(Member::default());
        let gone = tunnels.add(Member::default());
        drop(gone);
        revoked.revoke_session(ids(0).0, clock.now().mono);
        tunnels.sweep(clock.now(), false, &revoked);
        let look = || [0, 1, 2, 3].map(|index| told(&members[index]).is_some());
        assert_eq!(look(), [true, false, false, false]);
        revoked.revoke_user(ids(1).1, clock.now().mono);
        tunnels.sweep(clock.now(), false, &revoked);
        assert_eq!((look(), told(&members[1])), ([true, true, false, false], Some(Farewell::Revoked)));
        assert_eq!(tunnels.end(Whose::Session(&ids(2).0), Farewell::Revoked), 1);
        assert_eq!((look(), told(&public)), ([true, true, true, false], None));
        tunnels.end(Whose::User(&ids(3).1), Farewell::Revoked);
        assert_eq!((look(), told(&public)), ([true; 4], None));
        tunnels.end(Whose::Everybody, Farewell::Draining);
        assert_eq!(told(&public), Some(Farewell::Draining));
        assert_eq!(tunnels.0.lock().unwrap().len(), 5, "what is closed is forgotten");
    }
}
