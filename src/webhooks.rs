//! Clerk's webhooks: what is signed and new ends sessions or forgets tokens, at once.
//!
//! Nothing is believed before its signature was, and nothing of a body is ever logged: it holds whole users. Whoever can
//! reach the endpoint can send to it, so what is read at one time has a bound, and what is read has a time.

pub mod event;
pub mod replays;
pub mod signature;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use self::event::{Action, Event};
use self::replays::Replays;
use self::signature::{Claimed, Unsigned};
use crate::clock::Clock;
use crate::config::Webhooks;
use crate::live::Live;
use crate::metrics::ledger::Ledger;
use crate::metrics::{WebhookResult, WebhookType};
use crate::revocation::Revocation;
use crate::surface::text;
use crate::token::cache::PurgeScope;

/// Bytes of an event. Clerk's largest ones hold a user with all metadata, which is some ten KiB.
const LONGEST: usize = 256 * 1024;

/// Bytes of events that are read at one time.
const AT_ONCE: usize = 32 * LONGEST;

/// For one event to come: Svix sends it at once.
const PATIENCE: Duration = Duration::from_secs(3);

/// What answers.
pub struct Endpoint {
    /// The path and the secrets, as configured now.
    pub config: Live<Webhooks>,
    /// What it does.
    pub revocation: Revocation,
    /// By which signatures are fresh.
    pub clock: Clock,
    /// Counts.
    pub ledger: Arc<Ledger>,
}

struct Shared {
    endpoint: Endpoint,
    replays: Replays,
    room: Semaphore,
}

/// Why an event is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("there is nothing here")]
    Path,
    #[error("webhooks are sent by POST")]
    Method,
    #[error(transparent)]
    Unsigned(Unsigned),
    #[error("the event is too large")]
    TooLarge,
    #[error("the event did not come in time, or broke off")]
    Broken,
    #[error("too many events at one time; send it again")]
    Busy,
    #[error("signed, and no event")]
    NoEvent,
}

// === impl Endpoint ===

impl Endpoint {
    /// The routes. The listener, its limits and its drain are not their concern.
    pub fn router(self) -> Router {
        let shared = Shared { endpoint: self, replays: Replays::default(), room: Semaphore::new(AT_ONCE) };
        Router::new().fallback(take).with_state(Arc::new(shared))
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let result = shared.take(request).await;
    let (kind, result, answer) = match result {
        Ok((kind, result)) => (kind, Some(result), text(StatusCode::OK, "ok\n")),
        Err(refusal) => (WebhookType::Other, refusal.counts_as(), refusal.answer()),
    };
    if let Some(result) = result {
        shared.endpoint.ledger.common().webhook_events(kind, result).add();
    }
    answer
}

// === impl Shared ===

impl Shared {
    async fn take(&self, request: Request) -> Result<(WebhookType, WebhookResult), Refusal> {
        let config = self.endpoint.config.current();
        let (head, body) = request.into_parts();
        if head.uri.path() != config.path {
            return Err(Refusal::Path);
        }
        if head.method != Method::POST {
            return Err(Refusal::Method);
        }
        let claimed = Claimed::of(&head.headers, self.endpoint.clock.wall())?;
        let body = {
            let read = tokio::time::timeout(PATIENCE, read(body, &self.room)).await;
            read.map_err(|_| Refusal::Broken)??.0
        };
        claimed.check(&body, &config.signing_secrets)?;
        let Ok(event) = Event::read(&body) else {
            tracing::error!(id = claimed.id(), "a webhook is signed, and is not what Clerk sends: it was not followed");
            return Err(Refusal::NoEvent);
        };
        if self.replays.has(claimed.id(), Instant::now()) {
            return Ok((event.kind, WebhookResult::Repeated));
        }
        let result = self.follow(&event.action);
        // After it was followed: what comes twice at one time is followed twice, which does no harm.
        self.replays.remember(claimed.id(), Instant::now());
        if result == WebhookResult::Revoked {
            tracing::info!(id = claimed.id(), kind = event.kind.as_str(), "told by a webhook: refused from now on");
        } else {
            tracing::debug!(id = claimed.id(), kind = event.kind.as_str(), result = result.as_str(), "a webhook");
        }
        Ok((event.kind, result))
    }

    fn follow(&self, action: &Action) -> WebhookResult {
        let revocation = &self.endpoint.revocation;
        match action {
            Action::Revoke(whom) => {
                revocation.revoke(whom);
                WebhookResult::Revoked
            }
            Action::Bar(user, as_of) => match revocation.bar(user, *as_of) {
                Some(_) => WebhookResult::Revoked,
                None => WebhookResult::Ignored,
            },
            Action::Admit(user, as_of) => {
                revocation.admit(user, *as_of);
                revocation.purge(&PurgeScope::User(user.clone()));
                WebhookResult::Purged
            }
            Action::Purge(scope) => {
                revocation.purge(scope);
                WebhookResult::Purged
            }
            Action::Nothing => WebhookResult::Ignored,
        }
    }
}

/// Room is taken by what has come, not by who has begun: else those who send nothing would keep out those who do. It is given
/// back with what stands beside the bytes.
async fn read(mut body: Body, room: &Semaphore) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Refusal> {
    let (mut whole, mut held) = (BytesMut::new(), None::<SemaphorePermit<'_>>);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::Broken)?.into_data() else { continue };
        if whole.len() + data.len() > LONGEST {
            return Err(Refusal::TooLarge);
        }
        let more = u32::try_from(data.len()).map_err(|_| Refusal::TooLarge)?;
        let more = room.try_acquire_many(more).map_err(|_| Refusal::Busy)?;
        match &mut held {
            Some(held) => held.merge(more),
            None => held = Some(more),
        }
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), held))
}

// === impl Refusal ===

impl Refusal {
    /// What looks for something else is no event.
    fn counts_as(self) -> Option<WebhookResult> {
        match self {
            Self::Path | Self::Method => None,
            Self::NoEvent => Some(WebhookResult::Malformed),
            Self::Unsigned(_) | Self::TooLarge | Self::Broken | Self::Busy => Some(WebhookResult::Refused),
        }
    }

    fn answer(self) -> Response {
        let (status, also) = match self {
            Self::Path => (StatusCode::NOT_FOUND, None),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, Some((header::ALLOW, "POST"))),
            Self::Unsigned(Unsigned::Headers) | Self::NoEvent => (StatusCode::BAD_REQUEST, None),
            Self::Unsigned(Unsigned::Signature | Unsigned::Time) => (StatusCode::UNAUTHORIZED, None),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Self::Broken => (StatusCode::REQUEST_TIMEOUT, None),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, Some((header::RETRY_AFTER, "5"))),
        };
        let mut answer = text(status, format!("{self}\n"));
        if let Some((name, value)) = also {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

impl From<Unsigned> for Refusal {
    fn from(unsigned: Unsigned) -> Self {
        Self::Unsigned(unsigned)
    }
}

#[cfg(test)]
mod tests;
