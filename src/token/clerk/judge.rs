//! What an answer of the issuer to a mint means, without any connection: each row of the design's table is decided here.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::answer::{self, Claims, Subject};
use super::http::Answer;
use crate::token::{Kind, MintError, Token, TokenKey, freshness};

/// What a caller is told when the issuer does not say when to come back.
pub(super) const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Characters after the `user_` of an id; a shorter one is a placeholder and says nothing.
const SHORTEST_ID: usize = 4;

/// What was asked for, and what is known beside the answer.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// For whom and what.
    pub key: &'a TokenKey,
    /// What `iss` must equal, where known.
    pub issuer: Option<&'a str>,
    /// The issuer's clock minus ours in milliseconds.
    pub offset_ms: i64,
}

/// What a mint came to that did not fail.
#[derive(Debug)]
pub enum Minted {
    /// It is there.
    Token(Token),
    /// A 404 that does not say whether the session or the template is missing: the session itself has to tell. Never a
    /// guess, since one of the two is the user's and the other is not.
    Unsettled,
}

/// A 5xx of the issuer.
#[derive(Debug, thiserror::Error)]
#[error("the issuer answered with status {0}")]
struct ServerError(u16);

/// The issuer's clock minus ours in milliseconds, where the answer has a `Date`.
pub fn clock_offset(answer: &Answer) -> Option<i64> {
    Some(freshness::clock_offset(answer::date(&answer.headers)?, answer.sent.wall, answer.received()))
}

fn is_user_id(text: &str) -> bool {
    let id = text.strip_prefix("user_").unwrap_or_default();
    id.len() >= SHORTEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Nothing that a retry or another session would change, so somebody should read why.
fn refused(answer: &Answer) -> MintError {
    let status = answer.status.as_u16();
    let (code, trace_id) = answer::describe(&answer.body);
    tracing::warn!(status, code, trace_id, "the issuer refuses to mint");
    MintError::Refused(status)
}

// === impl Judge ===

impl Judge<'_> {
    /// The answer to a mint.
    ///
    /// # Errors
    /// For everything but a token and a 404 that does not say what is missing.
    pub fn minted(&self, answer: &Answer) -> Result<Minted, MintError> {
        self.whatever_was_asked(answer)?;
        match answer.status.as_u16() {
            200 => self.token(answer).map(Minted::Token),
            status @ 200..300 => {
                tracing::debug!(status, "the issuer answered a mint with an odd status");
                Err(MintError::Malformed("its status is not 200"))
            }
            status @ (403 | 404 | 422) => match answer::subject(&answer.body) {
                Subject::Session => Err(MintError::SessionEnded),
                Subject::Template if status == 404 => Err(MintError::TemplateUnknown),
                _ if status == 404 => Ok(Minted::Unsettled),
                _ => Err(refused(answer)),
            },
            _ => Err(refused(answer)),
        }
    }

    /// Why there is no token, by the answer to the question for the session after [`Minted::Unsettled`].
    pub fn settled(&self, answer: &Answer) -> MintError {
        if let Err(error) = self.whatever_was_asked(answer) {
            return error;
        }
        match answer.status {
            StatusCode::OK => match answer::is_active(&answer.headers, &answer.body) {
                Ok(true) if self.key.parts().kind == Kind::Session => MintError::Refused(404),
                Ok(true) => MintError::TemplateUnknown,
                Ok(false) => MintError::SessionEnded,
                Err(why) => MintError::Malformed(why),
            },
            StatusCode::NOT_FOUND => MintError::SessionEnded,
            status => MintError::Refused(status.as_u16()),
        }
    }

    fn whatever_was_asked(&self, answer: &Answer) -> Result<(), MintError> {
        let issuer_now = answer.received().shifted(self.offset_ms);
        let retry_after = || answer::retry_after(&answer.headers, issuer_now);
        match answer.status.as_u16() {
            401 => Err(MintError::RejectedKey),
            // A pause of nothing would be no pause.
            429 => {
                Err(MintError::Throttled { retry_after: retry_after().unwrap_or_default().max(DEFAULT_RETRY_AFTER) })
            }
            status @ 500.. => Err(MintError::Unavailable {
                retry_after: retry_after().unwrap_or(DEFAULT_RETRY_AFTER),
                source: Some(Arc::new(ServerError(status))),
            }),
            _ => Ok(()),
        }
    }

    fn token(&self, answer: &Answer) -> Result<Token, MintError> {
        let jwt = answer::jwt(&answer.headers, &answer.body).map_err(MintError::Malformed)?;
        let claims = answer::claims(&jwt);
        if let Some(why) = self.foreign(&claims) {
            return Err(MintError::Malformed(why));
        }
        let token = Token::new(&jwt, answer.sent.mono).map_err(|_| MintError::Unfit)?;
        Ok(match claims.exp {
            Some(exp) => token.dated(exp, claims.iat, answer.sent.wall, self.offset_ms),
            None => token,
        })
    }

    /// Why the token cannot be this session's. A token is opaque, so what it does not say is not held against it; what
    /// it says and is another's is. `sub` is always in a template's token and cannot be overridden (contract section 4),
    /// but stand-ins of the issuer answer a placeholder for everybody: only two real ids can contradict each other.
    fn foreign(&self, claims: &Claims) -> Option<&'static str> {
        let parts = self.key.parts();
        let sub = parts.sub.as_ref().map_or("", |sub| sub.as_str());
        if claims.sid.as_deref().is_some_and(|sid| sid != parts.sid.as_str()) {
            Some("the token is another session's")
        } else if claims.sub.as_deref().is_some_and(|other| other != sub && is_user_id(other) && is_user_id(sub)) {
            Some("the token is another user's")
        } else if claims.iss.is_some() && self.issuer.is_some() && claims.iss.as_deref() != self.issuer {
            Some("the token is another issuer's")
        } else {
            None
        }
    }
}
