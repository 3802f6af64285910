//! Asks again where the next attempt may do better, inside the request's deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::{Clock, Wall};
use crate::token::freshness::Jitter;
use crate::token::{Mint, MintError, MintRequest, Token};

/// The first pause between two attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A session whose credential is younger may not be known everywhere at the issuer yet.
const YOUNG: Duration = Duration::from_secs(10);
const YOUNG_PAUSE: Duration = Duration::from_millis(500);

/// A [`Mint`] whose transient failures are tried again. It stands before the breaker and the budget, so that each
/// attempt takes one unit and ends as soon as the breaker opens.
#[derive(Debug)]
pub struct Retry<M> {
    inner: M,
    clock: Clock,
    jitter: Jitter,
}

// === impl Retry ===

impl<M> Retry<M> {
    /// Tries `inner` again, with pauses that are up to half shorter by the jitter.
    pub fn new(inner: M, clock: Clock, jitter: Jitter) -> Self {
        Self { inner, clock, jitter }
    }
}

impl<M: Mint> Mint for Retry<M> {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let mut pause = FIRST_PAUSE;
        let mut young = is_young(request.credential_issued_at, self.clock.wall());
        loop {
            let error = match self.inner.mint(request.clone()).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let wait = if error.is_transient() {
                let wait = pause.mul_f64(1.0 - 0.5 * self.jitter.next().clamp(0.0, 1.0));
                pause = (pause * 2).min(LONGEST_PAUSE);
                wait
            } else if young && matches!(error, MintError::SessionEnded) {
                young = false;
                YOUNG_PAUSE
            } else {
                return Err(error);
            };
            // What the last attempt met tells more than that the time is over.
            if Instant::now() + wait >= request.deadline {
                return Err(error);
            }
            sleep(wait).await;
            // A busy machine wakes late, a suspended one by minutes: what begins now would only be told to be too late.
            if Instant::now() >= request.deadline {
                return Err(error);
            }
        }
    }
}

/// Also when it was issued in the future: our clock is late, and the credential was verified.
fn is_young(issued_at: Option<Wall>, now: Wall) -> bool {
    issued_at.is_some_and(|issued_at| now.since(issued_at) < YOUNG)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::token::fake::{Fake, key, request, unavailable};

    fn retry(inner: &Arc<Fake>, jitter: f64) -> Retry<Arc<Fake>> {
        Retry::new(Arc::clone(inner), Clock::following(Wall::from_seconds(1000)), Jitter::fixed(jitter))
    }

    #[tokio::test(start_paused = true)]
    async fn a_transient_failure_is_tried_again_with_growing_pauses() {
        let started = Instant::now();
        let fake = Fake::new(move |call, _| async move {
            let expected = [0, 100, 300, 700][call];
            assert_eq!(started.elapsed().as_millis() / 10 * 10, expected);
            match call {
                0 => Err(unavailable()),
                1 => Err(MintError::Malformed("test")),
                2 => Err(MintError::Timeout),
                _ => Ok(Token::new("t", Instant::now()).unwrap()),
            }
        });
        assert!(retry(&fake, 0.0).mint(request(&key(0))).await.is_ok());
        assert_eq!(fake.calls(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_begins_after_the_deadline() {
        let fake = Fake::failing(unavailable());
        let request = request(&key(0));
        let deadline = request.deadline;
        let result = retry(&fake, 0.5).mint(request).await;
        assert!(matches!(result, Err(MintError::Unavailable { .. })));
        assert!(Instant::now() <= deadline && (5..10).contains(&fake.calls()), "{}", fake.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn who_wakes_after_the_deadline_tells_what_the_last_attempt_met() {
        let fake = Fake::failing(unavailable());
        let (retry, request) = (retry(&fake, 0.5), request(&key(0)));
        let after = request.deadline - Instant::now() + Duration::from_secs(1);
        let minting = crate::lifecycle::Spawner::current().spawn(async move { retry.mint(request).await });
        tokio::task::yield_now().await;
        tokio::time::advance(after).await;
        assert!(matches!(minting.await.unwrap(), Err(MintError::Unavailable { .. })));
        assert_eq!(fake.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clear_answer_is_final() {
        for error in [
            MintError::TemplateUnknown,
            MintError::SessionEnded,
            MintError::RejectedKey,
            MintError::Refused(400),
            MintError::Throttled { retry_after: Duration::from_millis(1) },
            MintError::Unfit,
            MintError::Revoked,
        ] {
            let fake = Fake::failing(error.clone());
            let result = retry(&fake, 0.0).mint(request(&key(0))).await;
            assert_eq!((result.unwrap_err().result(), fake.calls()), (error.result(), 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_very_young_session_is_asked_for_once_more() {
        for (age, calls) in [(-3, 2), (0, 2), (9, 2), (10, 1), (600, 1)] {
            let fake = Fake::failing(MintError::SessionEnded);
            let mut request = request(&key(0));
            request.credential_issued_at = Some(Wall::from_seconds(1000 - age));
            let started = Instant::now();
            assert!(matches!(retry(&fake, 0.0).mint(request).await, Err(MintError::SessionEnded)));
            assert_eq!(fake.calls(), calls, "{age}");
            assert_eq!(started.elapsed() >= YOUNG_PAUSE, calls == 2);
        }
    }

    /// So that those who failed together do not come back together. Fails without the jitter in `mint`.
    #[tokio::test(start_paused = true)]
    async fn pauses_are_shorter_by_the_jitter() {
        for (jitter, expected) in [(0.0, 100), (0.5, 75), (1.0, 50)] {
            let fake = Fake::new(|call, _| async move {
                if call == 0 { Err(unavailable()) } else { Ok(Token::new("t", Instant::now()).unwrap()) }
            });
            let started = Instant::now();
            assert!(retry(&fake, jitter).mint(request(&key(0))).await.is_ok());
            let took = started.elapsed().as_millis();
            assert!((expected..expected + 5).contains(&took), "{jitter}: {took}");
        }
    }

    /// Fails without `LONGEST_PAUSE`.
    #[tokio::test(start_paused = true)]
    async fn no_pause_is_longer_than_two_seconds() {
        let fake = Fake::failing(unavailable());
        let request = MintRequest { deadline: Instant::now() + Duration::from_mins(1), ..request(&key(0)) };
        assert!(retry(&fake, 0.0).mint(request).await.is_err());
        // After 0, 0.1, 0.3, 0.7, 1.5 and 3.1 s, and then every 2 s.
        assert_eq!(fake.calls(), 6 + 28);
    }
}
