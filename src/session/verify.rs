//! Verifying a credential: what its text says once and for all, and what is asked of it on every request.

mod claims;
mod jws;

use std::time::Duration;

use crate::clock::Wall;
use crate::config::{Clerk, Requirement, SessionRules};
use crate::session::credential::MAX_TOKEN_BYTES;
use crate::session::jwks::Jwks;
use crate::session::jwks::keys::{Key, KeySet};
use crate::session::{Reason, Session, SessionError};

use claims::Expected;
use jws::{Judged, Jws};

/// Verifies session tokens of one instance. Knows no time: its verdict on a text and a key never changes.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    expected: Expected,
    /// Keeps no claims but those that every session has: they would be a third of what is remembered of it.
    forgets_claims: bool,
}

// === impl Verifier ===

impl Verifier {
    /// With the issuer and the audience of the configuration.
    pub fn new(clerk: &Clerk) -> Self {
        let expected = Expected {
            issuer: clerk.issuer.as_deref().map(Into::into),
            audience: clerk.audience.iter().map(|audience| audience.as_str().into()).collect(),
        };
        Self { expected, forgets_claims: false }
    }

    /// Whether claims are kept that routes can point to; by default they are.
    pub fn with_claims(self, kept: bool) -> Self {
        Self { forgets_claims: !kept, ..self }
    }

    /// Everything that does not depend on the time or the route. Algorithm, key, signature, category, claims, in this
    /// order: nothing of a text is believed before its signature fits.
    ///
    /// # Errors
    /// `Invalid`, with the first reason that was met.
    pub fn verify(&self, token: &str, keys: &KeySet) -> Result<Session, SessionError> {
        let jws = Jws::split(token, MAX_TOKEN_BYTES).map_err(SessionError::Invalid)?;
        if let Some(key) = keys.of_header(jws.header()) {
            return self.session(&jws, key);
        }
        let header = jws.judge().map_err(SessionError::Invalid)?;
        let key = keys.find(header.kid()).ok_or(SessionError::Invalid(Reason::UnknownKey))?;
        self.open(&jws, &header, key)
    }

    /// As [`Verifier::verify`] with the current keys; a token that names an unknown key may wait up to `patience` for
    /// the one fetch that [`Jwks::newer_than`] allows.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub async fn verify_or_fetch(&self, token: &str, jwks: &Jwks, patience: Duration) -> Result<Session, SessionError> {
        const UNKNOWN: SessionError = SessionError::Invalid(Reason::UnknownKey);
        let jws = Jws::split(token, MAX_TOKEN_BYTES).map_err(SessionError::Invalid)?;
        let keys = jwks.current();
        if let Some(key) = keys.of_header(jws.header()) {
            return self.session(&jws, key);
        }
        let header = jws.judge().map_err(SessionError::Invalid)?;
        if let Some(key) = keys.find(header.kid()) {
            return self.open(&jws, &header, key);
        }
        // No fetch helps a token that names none.
        let kid = header.kid().ok_or(UNKNOWN)?;
        let keys = jwks.newer_than(&keys, patience).await.ok_or(UNKNOWN)?;
        self.open(&jws, &header, keys.find(Some(kid)).ok_or(UNKNOWN)?)
    }

    fn open(&self, jws: &Jws<'_>, header: &Judged, key: &Key) -> Result<Session, SessionError> {
        if header.may_be_session() {
            let session = self.session(jws, key)?;
            key.remember_header(jws.header());
            return Ok(session);
        }
        // The category of a token that nobody signed means nothing.
        jws.open(key.parsed()).map_err(SessionError::Invalid)?;
        Err(SessionError::Invalid(Reason::Category))
    }

    /// The session of a token whose header says that it may be one, of this key.
    fn session(&self, jws: &Jws<'_>, key: &Key) -> Result<Session, SessionError> {
        let payload = jws.open(key.parsed()).map_err(SessionError::Invalid)?;
        claims::session(payload, key.id().clone(), &self.expected, !self.forgets_claims).map_err(SessionError::Invalid)
    }
}

/// What is asked of a verified session on every request, remembered or not: authorized party, times, the browser's
/// last sign-in or sign-out (`client_uat`, for a cookie alone), pending. The edges are those of Clerk's SDK (contract
/// section 3.4): expired from `exp + skew` on, not yet valid beyond `now + skew`.
///
/// The party comes first, so that an expired cookie of another application is not taken for no session at all.
///
/// # Errors
/// The first rule that the session breaks.
pub fn check(
    session: &Session,
    now: Wall,
    rules: &SessionRules,
    client_uat: Option<i64>,
    skew: Duration,
) -> Result<(), SessionError> {
    let allowed = |azp: &str| rules.authorized_parties.iter().any(|party| party.as_str() == azp);
    if !rules.authorized_parties.is_empty() && !session.azp.as_deref().is_some_and(allowed) {
        return Err(SessionError::Invalid(Reason::Azp));
    }
    if session.expires_at <= now.minus(skew) {
        return Err(SessionError::Expired);
    }
    let latest = now.plus(skew);
    if session.not_before.into_iter().chain(session.issued_at).any(|begin| begin > latest) {
        return Err(SessionError::Invalid(Reason::NotYetValid));
    }
    if let Some(client_uat) = client_uat
        // A cookie that does not say when it was issued cannot be shown to be newer.
        && session.issued_at.is_none_or(|issued| issued < Wall::from_seconds(client_uat))
    {
        return Err(SessionError::Invalid(Reason::OutdatedCookie));
    }
    if session.pending && !rules.allow_pending {
        return Err(SessionError::Pending);
    }
    Ok(())
}

/// What of the route's demands the session does not meet: keys of the configuration, never a value.
pub fn unmet(session: &Session, rules: &SessionRules) -> Vec<String> {
    let impersonated = (!rules.allow_impersonation && session.impersonated).then(|| "allow_impersonation".to_owned());
    let unmet = rules.require.iter().filter(|requirement| !has(session, requirement));
    impersonated.into_iter().chain(unmet.map(|requirement| format!("require.{:?}", requirement.claim))).collect()
}

fn has(session: &Session, requirement: &Requirement) -> bool {
    session.value(&requirement.claim).is_some_and(|value| requirement.one_of.contains(&value))
}

/// Whether the session is what the route asks for. Depends on nothing else, so its outcome may be remembered.
pub fn permits(session: &Session, rules: &SessionRules) -> bool {
    (rules.allow_impersonation || !session.impersonated) && rules.require.iter().all(|one| has(session, one))
}

#[cfg(test)]
mod tests;
