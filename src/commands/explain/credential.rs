//! The credential of a request that is explained: put where the route looks, and given keys to be verified with.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http_body_util::Empty;

use crate::clock::Clock;
use crate::config::validate::keys as config_keys;
use crate::config::{CallerToken, Config, KeySource, Route, SessionSource};
use crate::emulator::keys::{CryptoError, SigningKey};
use crate::headers;
use crate::lifecycle::Spawner;
use crate::listener::connection::Connection;
use crate::metrics::Metrics;
use crate::proxy::gateway::Plans;
use crate::proxy::request;
use crate::secret::Secret;
use crate::session::cookies;
use crate::session::credential::peek::NothingRead;
use crate::session::credential::{self, CookieRules};
use crate::session::jwks::keys::{BadJwks, BadKey, KeySet};
use crate::token::clerk::{BuildError, ClerkClient, FetchError};

use super::report::Signature;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum NoKeys {
    /// The configured one.
    #[error("clerk.jwt_key is not an RSA key that can verify session tokens")]
    Pinned(#[from] BadKey),
    /// The machine has no randomness.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// No client for the issuer.
    #[error("cannot set up the client of the issuer")]
    Client(#[from] BuildError),
    /// No keys from the issuer.
    #[error("cannot fetch the issuer's keys from {url}")]
    Fetch {
        /// From where; it holds no user info.
        url: String,
        /// What went wrong.
        #[source]
        source: FetchError,
    },
    /// What came holds none.
    #[error("cannot use the issuer's keys")]
    Jwks(#[from] BadJwks),
}

/// The route that the request would take, if any.
fn route<'a>(head: &Parts, plans: &'a Plans, connection: &Connection) -> Option<&'a Route> {
    let target = request::target(head, &Empty::<Bytes>::new(), plans, connection).ok()?;
    let id = plans.router.find(target.listener, target.host.as_str(), target.path, &head.method).ok()?;
    Some(&plans.routes[id.index()].route)
}

/// Puts the token where the route looks for one first. `false`: it looks for none.
pub(super) fn place(head: &mut Parts, token: &Secret, plans: &Plans, connection: &Connection) -> bool {
    let route = route(head, plans, connection);
    if route.is_some_and(|route| route.session.is_empty()) {
        return false;
    }
    let first = route.and_then(|route| route.session.first()).unwrap_or(&SessionSource::Bearer);
    let (name, prefix, suffix) = match first {
        SessionSource::Bearer => (header::AUTHORIZATION, "Bearer ", ""),
        SessionSource::Header(name) => (name.clone(), "", ""),
        SessionSource::Cookie => (header::COOKIE, "__session=", "; __client_uat=1"),
    };
    let bare = token.expose().strip_prefix("Bearer ").unwrap_or(token.expose());
    if let Ok(mut value) = HeaderValue::try_from(format!("{prefix}{bare}{suffix}")) {
        value.set_sensitive(true);
        head.headers.append(name, value);
    }
    true
}

/// The configuration with the caller token that the request shows, where its own is not here. `None`: all are here.
pub(super) fn believe_caller(config: &Config, head: &Parts) -> Option<Config> {
    let unknown =
        |route: &Route| route.session_id.as_ref().is_some_and(|source| source.caller == CallerToken::Needed(None));
    if !config.routes.iter().any(unknown) {
        return None;
    }
    let shown = head.headers.get(headers::CALLER)?.to_str().ok()?;
    let mut config = config.clone();
    for route in config.routes.iter_mut().filter(|route| unknown(route)) {
        if let Some(source) = &mut route.session_id {
            source.caller = CallerToken::Needed(Some(Secret::new(shown)));
        }
    }
    Some(config)
}

/// What looks like a credential where the route looks and was passed over, and why; names alone.
pub(super) fn passed_over(head: &Parts, route: &Route) -> Vec<String> {
    let mut notes = Vec::new();
    let line = head.headers.get(header::AUTHORIZATION).and_then(|line| line.to_str().ok()).map(str::trim);
    if let Some(line) = line.filter(|line| !line.is_empty() && route.session.contains(&SessionSource::Bearer)) {
        let why = if line.contains(' ') { "has another scheme" } else { "lacks the scheme" };
        notes.push(format!("Authorization {why}: Bearer TOKEN is what is looked for"));
    }
    if route.session.contains(&SessionSource::Cookie) {
        let ours = |name: &str| name == "__session" || name.starts_with("__session_");
        let pairs = cookies::pairs(&head.headers);
        let names = pairs.filter_map(|pair| std::str::from_utf8(pair.name).ok().map(str::to_owned));
        for name in names.filter(|name| ours(name)) {
            notes.push(format!(
                "cookie {} is passed over: it is empty, of another instance, or Clerk's rule takes the other one",
                name.escape_debug()
            ));
        }
    }
    notes
}

/// The keys to verify with, where there are any.
pub(super) async fn keys(
    config: &Config,
    online: bool,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Result<Option<(KeySet, Signature)>, NoKeys> {
    match &config.clerk.keys {
        KeySource::Pinned(der) => Ok(Some((KeySet::pinned(der)?, Signature::JwtKey))),
        KeySource::Jwks { url, with_secret, .. } if online => {
            let client = ClerkClient::new(&config.clerk, clock.clone(), Spawner::current(), Arc::clone(metrics))?;
            let document = client.fetch_jwks(url, *with_secret).await;
            let document = document.map_err(|source| NoKeys::Fetch { url: url.as_str().to_owned(), source })?;
            Ok(Some((KeySet::parse(&document)?, Signature::Jwks)))
        }
        KeySource::Jwks { .. } | KeySource::None => Ok(None),
    }
}

/// Where there are no keys the token is signed anew, by a key that lives as long as this: so everything but the
/// signature is judged, and no code exists that passes over one. Returns the key.
pub(super) fn sign_anew(
    head: &mut Parts,
    config: &Config,
    clock: &Clock,
    plans: &Plans,
    connection: &Connection,
) -> Result<KeySet, NoKeys> {
    let key = SigningKey::generate()?;
    // A PEM that we made ourselves can be read.
    let der = config_keys::rsa_public(&key.pem()?).map_err(|_| BadKey)?;
    let keys = KeySet::pinned(&der)?;
    let rules = CookieRules::new(&config.clerk);
    let Some(route) = route(head, plans, connection) else { return Ok(keys) };
    let Ok(found) = credential::find(&head.headers, &route.session, &rules, clock.wall(), &NothingRead) else {
        return Ok(keys);
    };
    let token = found.credential.token.as_str();
    let mut parts = token.split('.');
    let (Some(one), Some(two), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        // The verifier says what is wrong with it.
        return Ok(keys);
    };
    let (old, new) = (token.to_owned(), key.sign_input(format!("{one}.{two}"))?);
    for value in head.headers.values_mut() {
        let Some(text) = value.to_str().ok().filter(|text| text.contains(&old)) else { continue };
        if let Ok(mut signed) = HeaderValue::try_from(text.replace(&old, &new)) {
            signed.set_sensitive(true);
            *value = signed;
        }
    }
    Ok(keys)
}
