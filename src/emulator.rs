//! The Clerk emulator: the part of Clerk's API that mintgate and the official SDKs use, on a real socket, without an
//! account (contract sections 1 and 6).
//!
//! It signs with a real RSA-2048 key, mints session tokens and template tokens, knows revocation, errors and the rate
//! limit. It is for trying and for tests: its users are invented and its secret key is printed.

mod broken;
mod claims;
pub mod echo;
pub mod error;
mod faults;
mod guard;
mod helpers;
pub mod keys;
pub mod limit;
mod model;
mod own_key;
mod params;
mod ring;
pub mod seed;
mod sessions;
mod shapes;
mod shortcodes;
mod state;
mod templates;
pub mod version;
pub mod webhooks;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::emulator::error::{ApiError, MAX_BODY, json_response};
use crate::emulator::keys::CryptoError;
use crate::emulator::limit::RateLimit;
use crate::emulator::model::Template;
use crate::emulator::seed::file::Seed;
use crate::emulator::state::{Instance, Start};
use crate::emulator::webhooks::courier::Courier;
use crate::emulator::webhooks::{Outbox, Webhook};
use crate::secret::Secret;

/// An emulated instance. Cheap to clone; all clones are one instance.
#[derive(Clone)]
pub struct Emulator {
    instance: Arc<Instance>,
    courier: Arc<Mutex<Option<Courier>>>,
    webhook: Option<Arc<Webhook>>,
}

/// How an instance is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The key that callers must present.
    pub secret_key: SecretKey,
    /// By default the one that Clerk has for this kind of key.
    pub rate_limit: Option<RateLimit>,
    /// `azp` of the tokens: the origin of the application. Without it tokens have none.
    pub authorized_party: Option<String>,
    /// What it holds at its start, instead of the default seed.
    pub seed: Option<Seed>,
    /// Where events go. They are delivered by what [`Emulator::courier`] gives.
    pub webhook: Option<Webhook>,
}

/// A secret key of Clerk's shape: `sk_test_...` or `sk_live_...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    text: Secret,
    production: bool,
}

/// The text is not a secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret key is sk_test_ or sk_live_ followed by letters, digits or _")]
pub struct BadSecretKey;

/// The secret key when none is given. It protects nothing.
pub const DEFAULT_SECRET_KEY: &str = "sk_test_emulator";

const DEVELOPMENT_HOST: &str = "mintgate-emulator-00.clerk.accounts.dev";
const PRODUCTION_HOST: &str = "clerk.mintgate-emulator.example";

// === impl SecretKey ===

impl SecretKey {
    /// The key itself.
    pub fn text(&self) -> &Secret {
        &self.text
    }
}

impl Default for SecretKey {
    fn default() -> Self {
        Self { text: Secret::new(DEFAULT_SECRET_KEY), production: false }
    }
}

impl FromStr for SecretKey {
    type Err = BadSecretKey;

    fn from_str(text: &str) -> Result<Self, BadSecretKey> {
        let (rest, production) = match (text.strip_prefix("sk_test_"), text.strip_prefix("sk_live_")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err(BadSecretKey),
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if rest.is_empty() || !rest.bytes().all(fits) {
            return Err(BadSecretKey);
        }
        Ok(Self { text: Secret::new(text), production })
    }
}

// === impl Emulator ===

impl Emulator {
    /// A new instance with the default seed and a new signing key.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn new(options: Options, clock: Clock) -> Result<Self, CryptoError> {
        let SecretKey { text, production } = options.secret_key;
        let (host, kind, limit) = if production {
            (PRODUCTION_HOST, "pk_live_", RateLimit::Production)
        } else {
            (DEVELOPMENT_HOST, "pk_test_", RateLimit::Development)
        };
        let webhook = options.webhook.map(Arc::new);
        let (outbox, courier) = match webhook.as_deref().cloned() {
            Some(webhook) => {
                let (outbox, messages) = Outbox::new();
                (Some(outbox.clone()), Some(Courier::new(webhook, clock.clone(), outbox, messages)))
            }
            None => (None, None),
        };
        let seed = options.seed.unwrap_or_else(|| Seed::standard(clock.wall()));
        let start = Start {
            secret_key: text,
            production,
            rate_limit: options.rate_limit.unwrap_or(limit),
            azp: options.authorized_party.or(seed.authorized_party),
            token_version: seed.token_version,
            outbox,
            frontend_api: host.to_owned(),
            publishable_key: format!("{kind}{}", STANDARD.encode(format!("{host}$"))),
            records: seed.records,
        };
        let instance = Arc::new(Instance::new(start, clock)?);
        Ok(Self { instance, courier: Arc::new(Mutex::new(courier)), webhook })
    }

    /// What delivers the events, once, when there is a webhook. It is to be run as a task.
    pub fn courier(&self) -> Option<Courier> {
        self.courier.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The API, the public JWKS and the helpers. Paths begin at the root: the API is below `/v1`.
    pub fn router(&self) -> Router {
        let instance = &self.instance;
        let limited = sessions::routes()
            .merge(templates::routes())
            .fallback(no_endpoint)
            .method_not_allowed_fallback(no_method)
            .layer(from_fn_with_state(Arc::clone(instance), guard::throttle));
        // The JWKS alone has no rate limit (contract section 2).
        let api = Router::new()
            .route("/jwks", get(jwks))
            .merge(limited)
            .layer(from_fn_with_state(Arc::clone(instance), guard::authenticate));
        Router::new()
            .nest("/v1", api)
            .route("/.well-known/jwks.json", get(jwks))
            .merge(helpers::routes())
            .merge(broken::routes())
            .fallback(no_endpoint)
            .method_not_allowed_fallback(no_method)
            .layer(from_fn_with_state(Arc::clone(instance), broken::play))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(Arc::clone(instance), guard::date))
            .with_state(Arc::clone(instance))
    }

    /// What `iss` says: the URL of the Frontend API that the publishable key encodes.
    pub fn issuer(&self) -> &str {
        &self.instance.issuer
    }

    /// `pk_test_...`
    pub fn publishable_key(&self) -> &str {
        &self.instance.publishable_key
    }

    /// What callers must present.
    pub fn secret_key(&self) -> &Secret {
        &self.instance.secret_key
    }

    /// The `kid` of the key that signs.
    pub fn key_id(&self) -> String {
        self.instance.keys.signing().kid.clone()
    }

    /// The public key, PEM: what Clerk's dashboard calls the JWT public key.
    ///
    /// # Errors
    /// When the cryptography library refuses.
    pub fn jwt_key(&self) -> Result<String, CryptoError> {
        self.instance.keys.signing().key.pem()
    }

    /// A fresh session token, as a browser would hold it.
    ///
    /// # Errors
    /// [`ApiError::SessionNotFound`] when the session is not active.
    pub fn session_token(&self, session: &str) -> Result<String, ApiError> {
        self.instance.session_token(session, None, None, None)
    }

    /// Makes sure that a template of this name exists. One that is made has the claims of the template `plain`.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn ensure_template(&self, name: &str) -> Result<(), CryptoError> {
        let id = keys::random_id("jtmp_")?;
        let template = Template::new(id, name.to_owned(), seed::plain(), self.instance.clock.wall());
        match self.instance.add_template(template) {
            // The name is taken: that is what was asked for.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Everything that a test wants to know: records, and calls that were counted.
    pub fn state(&self) -> Value {
        self.instance.state()
    }

    /// Where the instance is served, its keys and its sessions: the line of `mintgate emulator --json`.
    ///
    /// # Errors
    /// When the cryptography library refuses.
    pub fn describe(&self, address: SocketAddr) -> Result<Value, CryptoError> {
        let base = base_url(address);
        let state = self.state();
        Ok(json!({
            "address": address.to_string(),
            "api_url": base,
            "jwks_url": format!("{base}/.well-known/jwks.json"),
            "issuer": self.issuer(),
            "secret_key": self.secret_key().expose(),
            "publishable_key": self.publishable_key(),
            "jwt_key": self.jwt_key()?,
            "kid": self.key_id(),
            "rate_limit": self.instance.rate_limit.requests(),
            "sessions": state["sessions"].as_array().map(|sessions| sessions.iter().map(identity).collect::<Vec<_>>()),
            "users": state["users"],
            "templates": state["templates"],
            "webhook_url": self.webhook.as_ref().map(|webhook| webhook.url.to_string()),
            "webhook_secret": self.webhook.as_ref().map(|webhook| webhook.secret.text().expose()),
        }))
    }

    /// A command line that calls `target` with a session token that it fetches itself, so it works however late it is
    /// pasted. It begins with `curl`.
    pub fn curl(&self, served_at: SocketAddr, target: &str, session: &str) -> String {
        format!("curl -s '{target}' -H \"Authorization: Bearer $({})\"", self.token_command(served_at, session))
    }

    /// A command line that prints a fresh session token.
    pub fn token_command(&self, served_at: SocketAddr, session: &str) -> String {
        format!("curl -s '{}/_emulator/token?session={session}'", base_url(served_at))
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("instance", &self.instance.id).finish_non_exhaustive()
    }
}

/// `http://address`; an address that stands for all is replaced by one that can be called.
pub fn base_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// A session without its counts.
fn identity(session: &Value) -> Value {
    json!({
        "id": session["id"],
        "user_id": session["user_id"],
        "organization_id": session["organization_id"],
        "status": session["status"],
    })
}

async fn jwks(State(instance): State<Arc<Instance>>) -> Response {
    json_response(StatusCode::OK, &instance.jwks())
}

async fn no_endpoint() -> ApiError {
    ApiError::NoEndpoint
}

async fn no_method() -> ApiError {
    ApiError::NoMethod
}

#[cfg(test)]
mod tests;
