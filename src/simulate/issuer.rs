//! The simulated issuer: answers after a while, counts its calls as Clerk does, and has bad times.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::case::{Case, Model, Window};
use super::tally::{Answered, Tally};
use crate::clock::{Clock, Wall};
use crate::token::{Mint, MintError, MintRequest, Token, Urgency};

/// What somebody is told to wait whom the issuer did not answer well.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A [`Mint`] that is the issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    model: Model,
    /// When counting begins.
    begin: Instant,
    lifetime: Duration,
    token_bytes: usize,
    /// The calls that the simulated part of the fleet may make in a window.
    calls: f64,
    clock: Clock,
    state: Mutex<State>,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    window: Option<Instant>,
    used: f64,
    minted: u64,
}

/// Mints what somebody would have got a while ago, at once and uncounted.
#[derive(Debug)]
pub(super) struct Aged {
    pub(super) issuer: Arc<Issuer>,
    /// Up to which age.
    pub(super) oldest: Duration,
}

// === impl Issuer ===

impl Issuer {
    /// `part` of the fleet calls it.
    pub(super) fn new(case: &Case, part: f64, begin: Instant, clock: Clock, tally: Arc<Tally>) -> Arc<Self> {
        let calls = case.issuer.limit.map_or(f64::INFINITY, |limit| f64::from(limit.count) * part);
        // Beside the seed of the requests.
        let rng = Rng::with_seed(case.seed ^ 0x6d69_6e74);
        Arc::new(Self {
            model: case.issuer.clone(),
            begin,
            lifetime: case.lifetime,
            token_bytes: case.token_bytes,
            calls,
            clock,
            state: Mutex::new(State { rng, window: None, used: 0.0, minted: 0 }),
            tally,
        })
    }

    /// What this call is answered, and after how long.
    fn answer(&self, now: Instant) -> (Answered, Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (least, most) = self.model.latency;
        let latency = least + most.saturating_sub(least).mul_f64(state.rng.f64());
        let on = |window: Option<Window>| {
            let after = now.checked_duration_since(self.begin)?;
            window?.left(after)
        };
        if on(self.model.outage).is_some() {
            return (Answered::Failed, latency);
        }
        if let Some(left) = on(self.model.storm) {
            let window = self.model.limit.map_or(left, |limit| left.min(limit.per));
            return (Answered::Throttled(whole_seconds(window)), latency);
        }
        (self.counted(&mut state, now), latency)
    }

    /// As the issuer counts: so many in a window, which begins with its first call.
    fn counted(&self, state: &mut State, now: Instant) -> Answered {
        let Some(limit) = self.model.limit else { return Answered::Minted };
        let began = match state.window {
            Some(began) if now - began < limit.per => began,
            _ => {
                // What a part of a call is left stays, or a small part of a fleet would lose it in each window.
                state.used = (state.used - self.calls).clamp(-1.0, 0.0);
                *state.window.insert(now)
            }
        };
        if state.used + 1.0 <= self.calls + 1e-9 {
            state.used += 1.0;
            return Answered::Minted;
        }
        Answered::Throttled(whole_seconds(limit.per.saturating_sub(now - began)))
    }

    /// A token that was minted `age` ago. `None` where the process is younger than that.
    fn token(&self, age: Duration) -> Option<Token> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.minted += 1;
        let now = self.clock.now();
        let (sent, wall): (Instant, Wall) = (now.mono.checked_sub(age)?, now.wall.minus(age));
        // No two are the same, and all are as long as a real one.
        let jwt = format!("{:0>width$}", state.minted, width = self.token_bytes.max(1));
        drop(state);
        Token::new(&jwt, sent).ok().map(|token| token.dated(wall.plus(self.lifetime), Some(wall), wall, 0))
    }
}

fn whole_seconds(of: Duration) -> Duration {
    Duration::from_secs((of.as_millis().div_ceil(1000)).try_into().unwrap_or(1).max(1))
}

impl Mint for Issuer {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let sent = self.clock.now();
        let (answered, latency) = self.answer(sent.mono);
        self.tally.called(sent.mono, answered, request.urgency == Urgency::Ahead);
        let token = match answered {
            Answered::Minted => self.token(Duration::ZERO),
            Answered::Throttled(_) | Answered::Failed => None,
        };
        sleep(latency).await;
        match (token, answered) {
            (Some(token), _) => Ok(token),
            (None, Answered::Throttled(retry_after)) => Err(MintError::Throttled { retry_after }),
            (None, _) => Err(MintError::Unavailable { retry_after: RETRY_AFTER, source: None }),
        }
    }
}

// === impl Aged ===

impl Mint for Aged {
    async fn mint(&self, _: MintRequest) -> Result<Token, MintError> {
        let age = {
            let mut state = self.issuer.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.oldest.mul_f64(state.rng.f64())
        };
        self.issuer.token(age).ok_or(MintError::Unfit)
    }
}
