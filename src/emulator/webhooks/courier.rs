//! Delivers events. The first attempts are made in the order of the events, one at a time; what fails is tried again
//! later, beside them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::lifecycle::Spawner;

use super::{DeliveryState, Message, Outbox, Webhook};

/// Svix waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The waits before the attempts after the first. Svix takes hours; whoever tests has seconds.
pub(crate) const RETRIES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15)];
/// Events that wait for another attempt; the oldest waits are waited for when there are more.
const MAX_WAITING: usize = 256;

/// Takes events out of an instance's queue and sends them.
pub struct Courier {
    webhook: Webhook,
    clock: Clock,
    outbox: Outbox,
    messages: mpsc::Receiver<Message>,
    retries: &'static [Duration],
}

impl std::fmt::Debug for Courier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

/// What sends.
struct Sender {
    client: legacy::Client<HttpConnector, Full<Bytes>>,
    webhook: Webhook,
    clock: Clock,
    outbox: Outbox,
    retries: &'static [Duration],
}

// === impl Courier ===

impl Courier {
    pub(crate) fn new(webhook: Webhook, clock: Clock, outbox: Outbox, messages: mpsc::Receiver<Message>) -> Self {
        Self { webhook, clock, outbox, messages, retries: &RETRIES }
    }

    /// Delivers until the instance is gone. `tasks` runs the connections.
    pub async fn run(self, tasks: Spawner) {
        // Each attempt on a connection of its own: an idle one that the application has closed would look like a
        // failure of the application.
        let client = legacy::Client::builder(tasks).pool_max_idle_per_host(0).build(HttpConnector::new());
        let Self { webhook, clock, outbox, mut messages, retries } = self;
        let sender = Sender { client, webhook, clock, outbox, retries };
        let mut waiting = FuturesUnordered::new();
        loop {
            tokio::select! {
                message = messages.recv(), if waiting.len() < MAX_WAITING => match message {
                    Some(message) => {
                        if !sender.attempt(&message, 0).await {
                            waiting.push(sender.try_again(message));
                        }
                    }
                    None => break,
                },
                Some(()) = waiting.next() => {}
            }
        }
        while waiting.next().await.is_some() {}
    }
}

// === impl Sender ===

impl Sender {
    async fn try_again(&self, message: Message) {
        for (index, wait) in self.retries.iter().enumerate() {
            sleep(*wait).await;
            if self.attempt(&message, index + 1).await {
                return;
            }
        }
    }

    /// Whether it was delivered: a 2xx in time. A redirect is none.
    async fn attempt(&self, message: &Message, number: usize) -> bool {
        let answer = match self.request(message) {
            Ok(request) => timeout(PATIENCE, self.client.request(request)).await,
            Err(error) => {
                // The URL and the names are fixed and good; nothing of an event could make a request bad.
                tracing::error!(%error, "an event could not be sent");
                return true;
            }
        };
        let status = answer.ok().and_then(Result::ok).map(|answer| answer.status());
        let delivered = status.is_some_and(|status| status.is_success());
        let state = if delivered {
            DeliveryState::Delivered
        } else if number < self.retries.len() {
            DeliveryState::Waiting
        } else {
            DeliveryState::GivenUp
        };
        if state == DeliveryState::GivenUp {
            tracing::warn!(id = %message.id, kind = message.kind, "the application did not take an event");
        }
        self.outbox.attempted(&message.id, status.map(|status| status.as_u16()), state);
        delivered
    }

    fn request(&self, message: &Message) -> Result<Request<Full<Bytes>>, http::Error> {
        let seconds = self.clock.wall().as_seconds();
        Request::builder()
            .method(Method::POST)
            .uri(self.webhook.url.uri().clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "Svix-Webhooks/mintgate-emulator")
            .header("svix-id", &message.id)
            .header("svix-timestamp", seconds)
            .header("svix-signature", self.webhook.secret.sign(&message.id, seconds, &message.body))
            .body(Full::new(Bytes::from(message.body.clone())))
    }
}
