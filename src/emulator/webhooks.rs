//! Signed webhooks: what changes in the instance is told to the application, as Svix does for Clerk (contract section
//! 5).
//!
//! An event is put into a queue under the lock of the state, so events leave in the order of the changes; a courier
//! delivers them outside of it.

pub mod courier;

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::clock::Wall;
use crate::emulator::keys;
use crate::secret::Secret;

/// Where events go, and with what they are signed.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The application's endpoint.
    pub url: WebhookUrl,
    /// What it verifies with.
    pub secret: WebhookSecret,
}

/// An `http` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

/// `whsec_` and the key in base64.
#[derive(Clone)]
pub struct WebhookSecret {
    text: Secret,
    key: hmac::Key,
}

/// The text is not a URL that events can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook URL is http://HOST:PORT/PATH, without user info")]
pub struct BadWebhookUrl;

/// The text is not a webhook's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ followed by the key in base64")]
pub struct BadWebhookSecret;

/// The secret when none is given. It protects nothing.
pub const DEFAULT_WEBHOOK_SECRET: &str = "whsec_bWludGdhdGUtZW11bGF0b3Itd2ViaG9va3M=";

/// Events that wait for the courier; beyond it they are lost, and counted.
const QUEUE: usize = 1024;
/// Deliveries that are remembered for [`Outbox::log`].
const REMEMBERED: usize = 256;

/// One event on its way.
#[derive(Debug)]
pub(crate) struct Message {
    /// `svix-id`: the same in every attempt.
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

/// Takes events. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Message>,
    log: Arc<Mutex<Log>>,
}

/// What became of the events.
#[derive(Debug, Default)]
struct Log {
    deliveries: VecDeque<Delivery>,
    lost: u64,
}

#[derive(Debug)]
struct Delivery {
    id: String,
    kind: &'static str,
    attempts: u32,
    /// Of the last attempt; none when there was no answer.
    status: Option<u16>,
    state: DeliveryState,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryState {
    Waiting,
    Delivered,
    GivenUp,
}

// === impl WebhookUrl ===

impl WebhookUrl {
    /// Whether it leads to this machine alone.
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl FromStr for WebhookUrl {
    type Err = BadWebhookUrl;

    fn from_str(text: &str) -> Result<Self, BadWebhookUrl> {
        let uri: Uri = text.parse().map_err(|_| BadWebhookUrl)?;
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if uri.scheme_str() == Some("http") && plain { Ok(Self(uri)) } else { Err(BadWebhookUrl) }
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl WebhookSecret ===

impl WebhookSecret {
    /// The secret itself.
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// The value of `svix-signature`.
    pub(crate) fn sign(&self, id: &str, seconds: i64, body: &str) -> String {
        let tag = hmac::sign(&self.key, format!("{id}.{seconds}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    }
}

impl FromStr for WebhookSecret {
    type Err = BadWebhookSecret;

    fn from_str(text: &str) -> Result<Self, BadWebhookSecret> {
        let encoded = text.strip_prefix("whsec_").ok_or(BadWebhookSecret)?;
        let key = STANDARD.decode(encoded).ok().filter(|key| !key.is_empty()).ok_or(BadWebhookSecret)?;
        Ok(Self { text: Secret::new(text), key: hmac::Key::new(hmac::HMAC_SHA256, &key) })
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

// === impl Outbox ===

impl Outbox {
    /// An empty one, and what the courier takes events out of.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (queue, messages) = mpsc::channel(QUEUE);
        (Self { queue, log: Arc::default() }, messages)
    }

    /// Puts an event in. Waits for nothing.
    pub(crate) fn put(&self, instance: &str, kind: &'static str, data: &Value, now: Wall) {
        let body = json!({
            "object": "event",
            "type": kind,
            "timestamp": now.as_millis(),
            "instance_id": instance,
            "event_attributes": { "http_request": { "client_ip": "127.0.0.1", "user_agent": "mintgate-emulator" } },
            "data": data,
        });
        let Ok(id) = keys::random_id("msg_") else {
            self.log().lost += 1;
            return;
        };
        let mut log = self.log();
        let message = Message { id: id.clone(), kind, body: body.to_string() };
        if self.queue.try_send(message).is_err() {
            log.lost += 1;
            return;
        }
        if log.deliveries.len() == REMEMBERED {
            log.deliveries.pop_front();
        }
        log.deliveries.push_back(Delivery { id, kind, attempts: 0, status: None, state: DeliveryState::Waiting });
    }

    /// Notes an attempt.
    pub(crate) fn attempted(&self, id: &str, status: Option<u16>, state: DeliveryState) {
        let mut log = self.log();
        if let Some(delivery) = log.deliveries.iter_mut().find(|delivery| delivery.id == id) {
            delivery.attempts += 1;
            (delivery.status, delivery.state) = (status, state);
        }
    }

    /// The last events, the oldest first.
    pub(crate) fn shown(&self) -> Value {
        let log = self.log();
        let deliveries: Vec<Value> = log
            .deliveries
            .iter()
            .map(|delivery| {
                let state = match delivery.state {
                    DeliveryState::Waiting => "waiting",
                    DeliveryState::Delivered => "delivered",
                    DeliveryState::GivenUp => "given_up",
                };
                json!({
                    "id": delivery.id, "type": delivery.kind, "attempts": delivery.attempts,
                    "status": delivery.status, "state": state,
                })
            })
            .collect();
        json!({ "deliveries": deliveries, "lost": log.lost })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // What is in it stays whole: every change is one assignment or one insertion.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_svixs_test_vector() {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert!(DEFAULT_WEBHOOK_SECRET.parse::<WebhookSecret>().is_ok());
        for bad in ["", "whsec_", "whsec_!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert!(bad.parse::<WebhookSecret>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn urls_are_plain_and_know_whether_they_leave_the_machine() {
        for (text, loopback) in [
            ("http://127.0.0.1:3000/hook", true),
            ("http://localhost/", true),
            ("http://[::1]:3000", true),
            ("http://127.1.2.3", true),
            ("http://10.0.0.1/", false),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
        ] {
            assert_eq!(text.parse::<WebhookUrl>().unwrap().is_loopback(), loopback, "{text}");
        }
        for bad in ["", "/hook", "https://127.0.0.1/", "http://u:p@127.0.0.1/", "127.0.0.1:3000", "ftp://a/"] {
            assert_eq!(bad.parse::<WebhookUrl>(), Err(BadWebhookUrl), "{bad}");
        }
    }
}
