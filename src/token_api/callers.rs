//! Who may ask: whoever shows a secret key of the instance, and the callers that are configured.

use axum::http::{HeaderMap, HeaderValue, header};

use super::answer::Refusal;
use crate::config::{ApiCaller, Config};
use crate::secret::Secret;

/// Everybody who may ask.
#[derive(Debug)]
pub(super) struct Callers {
    keys: Vec<Secret>,
    local: Vec<ApiCaller>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller<'a> {
    /// It shows a secret key, and could ask the issuer itself.
    KeyHolder,
    /// It reaches the tokens of its templates, sessions and keys.
    Local(&'a ApiCaller),
}

// === impl Callers ===

impl Callers {
    pub(super) fn new(config: &Config) -> Self {
        let local = config.token_api.as_ref().map(|api| api.callers.clone()).unwrap_or_default();
        Self { keys: config.clerk.secret_keys.clone(), local }
    }

    /// Every secret is compared, each in constant time: how long it takes tells nothing of any.
    pub(super) fn find(&self, headers: &HeaderMap) -> Result<Caller<'_>, Refusal> {
        let shown = bearer(headers)?;
        let holds_key = self.keys.iter().fold(false, |found, key| found | key.matches(shown));
        let local = self.local.iter().fold(None, |found, own| if own.token.matches(shown) { Some(own) } else { found });
        match (holds_key, local) {
            (true, _) => Ok(Caller::KeyHolder),
            (false, Some(own)) => Ok(Caller::Local(own)),
            (false, None) => Err(Refusal::UnknownKey),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let line = match (lines.next(), lines.next()) {
        (None, _) => return Err(Refusal::NoCredential),
        (Some(line), None) => line,
        (Some(_), Some(_)) => return Err(Refusal::CredentialFormat),
    };
    match line.split_at_checked("Bearer ".len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty() => Ok(key),
        _ => Err(Refusal::CredentialFormat),
    }
}

// === impl Caller ===

impl Caller<'_> {
    pub(super) fn holds_key(self) -> bool {
        matches!(self, Self::KeyHolder)
    }
}
