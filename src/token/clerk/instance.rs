//! What the commands ask the issuer beside tokens of sessions that exist: which templates there are, and for a session to
//! try with. Nothing here is on the way of a request.

use ::http::{Method, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Call, ClerkClient, FetchError, MAX_JWKS, answer};
use crate::secret::Secret;
use crate::session::SessionId;

/// A JWT template of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// How long its tokens live, in seconds, unless a mint says otherwise.
    pub lifetime: u64,
}

/// Why the issuer did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// No answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// 401.
    #[error("the issuer does not accept the secret key")]
    KeyRefused,
    /// Another status than 200.
    #[error("the issuer answered with status {status}{}", .code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// Which one.
        status: StatusCode,
        /// Clerk's code of the error, where it has one.
        code: Option<String>,
    },
    /// The answer is not what Clerk's description of its API says.
    #[error("the issuer's answer makes no sense: {0}")]
    Malformed(&'static str),
}

/// Templates that are asked for at one time, the most that Clerk gives.
const PAGE: usize = 500;
/// More than this many pages no instance has.
const PAGES: usize = 20;

// === impl ClerkClient ===

impl ClerkClient {
    /// The templates of the secret key's instance (contract section 1.5).
    ///
    /// # Errors
    /// See [`InstanceError`].
    pub async fn templates(&self) -> Result<Vec<Template>, InstanceError> {
        let mut found = Vec::new();
        for page in 0..PAGES {
            let path = format!("/v1/jwt_templates?limit={PAGE}&offset={}", page * PAGE);
            let answer = self.instance(Method::GET, &path, Bytes::new()).await?;
            let Value::Array(items) = answer else { return Err(InstanceError::Malformed("it is no list")) };
            let template = |item: &Value| {
                Some(Template { name: item["name"].as_str()?.to_owned(), lifetime: item["lifetime"].as_u64()? })
            };
            for item in &items {
                found.push(template(item).ok_or(InstanceError::Malformed("it holds what is no template"))?);
            }
            if items.len() < PAGE {
                break;
            }
        }
        Ok(found)
    }

    /// Signs a user in (contract section 1.3); no production instance does that.
    ///
    /// # Errors
    /// See [`InstanceError`].
    pub async fn begin_session(&self, user: &str, organization: Option<&str>) -> Result<SessionId, InstanceError> {
        let mut body = json!({ "user_id": user });
        if let Some(organization) = organization {
            body["active_organization_id"] = organization.into();
        }
        let answer = self.instance(Method::POST, "/v1/sessions", body.to_string().into()).await?;
        let id = answer["id"].as_str().and_then(|id| SessionId::new(id).ok());
        id.ok_or(InstanceError::Malformed("it names no session"))
    }

    /// A session token, minted (contract section 1.2).
    ///
    /// # Errors
    /// See [`InstanceError`].
    pub async fn session_token(&self, session: &SessionId) -> Result<Secret, InstanceError> {
        // The type allows only characters that need no percent-encoding.
        let path = format!("/v1/sessions/{}/tokens", session.as_str());
        let answer = self.instance(Method::POST, &path, Bytes::from_static(b"{}")).await?;
        match answer["jwt"].as_str() {
            Some(jwt) if !jwt.is_empty() => Ok(Secret::new(jwt)),
            _ => Err(InstanceError::Malformed("there is no token in it")),
        }
    }

    async fn instance(&self, method: Method, path: &str, body: Bytes) -> Result<Value, InstanceError> {
        if self.keys.is_empty() {
            return Err(InstanceError::KeyRefused);
        }
        let url = format!("{}{path}", self.api_url.as_str());
        let deadline = Instant::now() + self.timeout;
        let call = Call { method, url: &url, body, forced: false, cap: MAX_JWKS, deadline };
        let answer = self.authorized(&call).await?;
        match answer.status {
            StatusCode::OK => {
                serde_json::from_slice(&answer.body).map_err(|_| InstanceError::Malformed("it is not JSON"))
            }
            StatusCode::UNAUTHORIZED => Err(InstanceError::KeyRefused),
            status => {
                let (code, _) = answer::describe(&answer.body);
                Err(InstanceError::Refused { status, code: Some(code).filter(|code| !code.is_empty()) })
            }
        }
    }
}
