//! Calls of the issuer's API that are somebody else's: passed on as they come, or read for who may not hold the key.

use std::time::Duration;

use ::http::request::Parts;
use ::http::{Method, Request, Response, Version, header};
use bytes::Bytes;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::http::{Answer, ExchangeError, Streamed};
use super::{Call, ClerkClient, FetchError, MAX_JWKS};

/// To the head of an answer. Nothing here knows how long a call may take, but none may hang for good.
const PATIENCE: Duration = Duration::from_mins(1);

/// There is no answer to a call that was passed on.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// It cannot be asked for.
    #[error("not a target that can be asked for")]
    Target(#[source] ::http::Error),
    /// The issuer was not heard of.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl ClerkClient {
    /// Passes a call on, with whatever credential it carries. Its head has to be without what belongs to the caller's
    /// connection. No redirect is followed; the answer's body streams.
    ///
    /// # Errors
    /// When no head of an answer comes.
    pub async fn pass(&self, head: &Parts, body: Streamed) -> Result<Response<Incoming>, PassError> {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let url = format!("{}{target}", self.api_url.as_str());
        let mut request = Request::builder().method(&head.method).uri(url).body(body).map_err(PassError::Target)?;
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().clone_from(&head.headers);
        // The connection has another one.
        request.headers_mut().remove(header::HOST);
        let answer = timeout(PATIENCE, self.http.stream(request)).await;
        Ok(answer.unwrap_or(Err(ExchangeError::Deadline))?)
    }

    /// Reads something with our own key: at most 1 MiB, within `clerk.timeout`. The answer, whatever its status.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn read(&self, path: &str) -> Result<Answer, FetchError> {
        let url = format!("{}{path}", self.api_url.as_str());
        let deadline = Instant::now() + self.timeout;
        let call = Call { method: Method::GET, url: &url, body: Bytes::new(), forced: false, cap: MAX_JWKS, deadline };
        self.authorized(&call).await
    }
}
