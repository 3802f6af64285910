//! The issuer's client: one attempt to mint, and what each of the issuer's answers means (design section 5, "Mint call").

mod answer;
pub mod http;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, header};
use bytes::Bytes;
use http_body_util::Full;
use tokio::time::Instant;

use self::answer::{Claims, Subject};
use self::http::{Answer, Http};
pub use self::http::{BuildError, ExchangeError};
use crate::clock::Clock;
use crate::config::{self, ApiUrl};
use crate::lifecycle::Spawner;
use crate::metrics::Metrics;
use crate::token::{Kind, Mint, MintError, MintRequest, Token, freshness};

/// Bytes of an answer to a mint, and of a JWKS.
const MAX_TOKEN: usize = 64 * 1024;
const MAX_JWKS: usize = 1024 * 1024;

/// What a caller is told when the issuer does not say when to come back.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A rejected key is an error in the log, but not one for each request.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// Offsets of the issuer's clock above this, in milliseconds, are logged.
const LARGE_OFFSET_MS: i64 = 2000;

/// Characters after the `user_` of an id; a shorter one is a placeholder and says nothing.
const SHORTEST_ID: usize = 4;

/// Clerk's Backend API, or a hub that speaks it.
#[derive(Debug)]
pub struct ClerkClient {
    http: Http,
    api_url: ApiUrl,
    headers: HeaderMap,
    /// `Bearer sk_...`, the one in use first; the others serve during rotation.
    keys: Vec<HeaderValue>,
    /// The key that worked last.
    current: AtomicUsize,
    /// What `iss` must equal, where known.
    issuer: Option<String>,
    timeout: Duration,
    metrics: Arc<Metrics>,
    /// The issuer's clock minus ours in milliseconds, as measured last.
    offset_ms: AtomicI64,
    logged_offset_ms: AtomicI64,
    complained_at: Mutex<Option<Instant>>,
}

/// Why there is no JWKS.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The URL cannot be asked.
    #[error("not a URL that can be fetched")]
    Url(#[source] ::http::Error),
    /// Another status than 200.
    #[error("the answer's status was {0}")]
    Status(u16),
}

/// A 5xx of the issuer.
#[derive(Debug, thiserror::Error)]
#[error("the issuer answered with status {0}")]
struct ServerError(u16);

/// One call, before a key is chosen.
struct Call<'a> {
    method: Method,
    url: &'a str,
    body: Bytes,
    forced: bool,
    cap: usize,
    deadline: Instant,
}

// === impl ClerkClient ===

impl ClerkClient {
    /// A client that has not connected yet; see [`ClerkClient::warm`]. `connections` runs the pooled connections, whose
    /// tasks last: nobody should wait for it to be idle.
    ///
    /// # Errors
    /// When TLS or a header cannot be set up.
    pub fn new(
        config: &config::Clerk,
        clock: Clock,
        connections: Spawner,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BuildError> {
        let version = HeaderValue::try_from(&config.api_version).map_err(|_| BuildError::Header("API version"))?;
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
            (header::USER_AGENT, HeaderValue::from_static(concat!("mintgate/", env!("CARGO_PKG_VERSION")))),
            (::http::HeaderName::from_static("clerk-api-version"), version),
        ]);
        let bearer = |key: &crate::secret::Secret| key.header("Bearer ").map_err(|_| BuildError::Header("secret key"));
        Ok(Self {
            http: Http::new(config, clock, connections)?,
            api_url: config.api_url.clone(),
            headers,
            keys: config.secret_keys.iter().map(bearer).collect::<Result<_, _>>()?,
            current: AtomicUsize::new(0),
            issuer: config.issuer.clone(),
            timeout: config.timeout,
            metrics,
            offset_ms: AtomicI64::new(0),
            logged_offset_ms: AtomicI64::new(0),
            complained_at: Mutex::default(),
        })
    }

    /// Opens a connection before the first mint needs it, by a call that Clerk does not count (contract section 2).
    /// A failure is no harm: the first mint connects then.
    pub async fn warm(&self) {
        let url = format!("{}/v1/jwks", self.api_url.as_str());
        match self.fetch(&url, true).await {
            Ok(_) => tracing::debug!("connected with the issuer"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "no connection with the issuer yet");
            }
        }
    }

    /// Downloads a JWKS: at most 1 MiB, within `clerk.timeout`. The secret key goes along only `with_secret`, which is
    /// for the issuer's own API.
    ///
    /// # Errors
    /// When there is no whole answer with status 200.
    pub async fn fetch_jwks(&self, url: &ApiUrl, with_secret: bool) -> Result<Bytes, FetchError> {
        self.fetch(url.as_str(), with_secret).await
    }

    async fn fetch(&self, url: &str, with_secret: bool) -> Result<Bytes, FetchError> {
        let (body, forced, deadline) = (Bytes::new(), false, Instant::now() + self.timeout);
        let call = Call { method: Method::GET, url, body, forced, cap: MAX_JWKS, deadline };
        let answer = if with_secret && !self.keys.is_empty() {
            self.authorized(&call).await?
        } else {
            self.http.exchange(self.request(&call, None)?, call.cap, deadline).await?
        };
        match answer.status.as_u16() {
            200 => Ok(answer.body),
            status => Err(FetchError::Status(status)),
        }
    }

    fn request(&self, call: &Call<'_>, key: Option<&HeaderValue>) -> Result<Request<Full<Bytes>>, FetchError> {
        let request = Request::builder().method(&call.method).uri(call.url).body(Full::new(call.body.clone()));
        let mut request = request.map_err(FetchError::Url)?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        if let Some(key) = key {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        if call.forced {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        Ok(request)
    }

    /// Calls with the key that worked last, then with the others, until one is not refused with 401. The last answer
    /// when all are.
    async fn authorized(&self, call: &Call<'_>) -> Result<Answer, FetchError> {
        let first = self.current.load(Relaxed);
        let mut step = 0;
        loop {
            let index = (first + step) % self.keys.len().max(1);
            let request = self.request(call, self.keys.get(index))?;
            let answer = self.http.exchange(request, call.cap, call.deadline).await?;
            self.measure(&answer);
            step += 1;
            if answer.status != 401 {
                self.current.store(index, Relaxed);
                self.metrics.control().issuer_key_rejected.set(0);
                return Ok(answer);
            }
            if step >= self.keys.len() {
                self.complain(&answer);
                return Ok(answer);
            }
        }
    }

    /// Loud, since nothing can be minted until somebody changes the key; once a minute.
    fn complain(&self, answer: &Answer) {
        self.metrics.control().issuer_key_rejected.set(1);
        let mut complained_at = self.complained_at.lock().unwrap_or_else(PoisonError::into_inner);
        if complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            *complained_at = Some(Instant::now());
            let (code, trace_id) = answer::describe(&answer.body);
            tracing::error!(code, trace_id, "the issuer refuses the secret key: check clerk.secret_key");
        }
    }

    /// Takes the issuer's clock from the answer.
    fn measure(&self, answer: &Answer) {
        let Some(date) = answer::date(&answer.headers) else { return };
        let offset = freshness::clock_offset(date, answer.sent.wall, answer.received());
        self.offset_ms.store(offset, Relaxed);
        self.metrics.control().issuer_clock_offset_ms.set(offset);
        let known = if offset.abs() > LARGE_OFFSET_MS { offset } else { 0 };
        if self.logged_offset_ms.load(Relaxed).abs_diff(known) > LARGE_OFFSET_MS.unsigned_abs() {
            self.logged_offset_ms.store(known, Relaxed);
            tracing::warn!(offset_ms = offset, "our clock and the issuer's differ; tokens are judged by the issuer's");
        }
    }

    async fn ask(&self, method: Method, url: &str, body: Bytes, request: &MintRequest) -> Result<Answer, MintError> {
        if self.keys.is_empty() {
            return Err(MintError::RejectedKey);
        }
        let (forced, deadline) = (request.forced, request.deadline);
        let call = Call { method, url, body, forced, cap: MAX_TOKEN, deadline };
        let answer = self.authorized(&call).await.map_err(failed)?;
        let issuer_now = answer.received().shifted(self.offset_ms.load(Relaxed));
        let retry_after = answer::retry_after(&answer.headers, issuer_now);
        match answer.status.as_u16() {
            401 => Err(MintError::RejectedKey),
            // A pause of nothing would be no pause.
            429 => Err(MintError::Throttled { retry_after: retry_after.unwrap_or_default().max(DEFAULT_RETRY_AFTER) }),
            status @ 500.. => Err(MintError::Unavailable {
                retry_after: retry_after.unwrap_or(DEFAULT_RETRY_AFTER),
                source: Some(Arc::new(ServerError(status))),
            }),
            _ => Ok(answer),
        }
    }

    /// A 404 that does not say whether the session or the template is missing: the session itself tells. Never a
    /// guess, since one of the two is the user's and the other is not.
    async fn settle(&self, request: &MintRequest) -> Result<Token, MintError> {
        let url = self.session_url(request);
        let answer = self.ask(Method::GET, &url, Bytes::new(), request).await?;
        match answer.status.as_u16() {
            200 => match answer::is_active(&answer.headers, &answer.body) {
                Ok(true) if request.key.parts().kind == Kind::Session => Err(MintError::Refused(404)),
                Ok(true) => Err(MintError::TemplateUnknown),
                Ok(false) => Err(MintError::SessionEnded),
                Err(why) => Err(MintError::Malformed(why)),
            },
            404 => Err(MintError::SessionEnded),
            status => Err(MintError::Refused(status)),
        }
    }

    /// The types of both segments allow only characters that need no percent-encoding.
    fn session_url(&self, request: &MintRequest) -> String {
        format!("{}/v1/sessions/{}", self.api_url.as_str(), request.key.parts().sid.as_str())
    }

    fn token(&self, request: &MintRequest, answer: &Answer) -> Result<Token, MintError> {
        let jwt = answer::jwt(&answer.headers, &answer.body).map_err(MintError::Malformed)?;
        let claims = answer::claims(&jwt);
        if let Some(why) = self.foreign(request, &claims) {
            return Err(MintError::Malformed(why));
        }
        let token = Token::new(&jwt, answer.sent.mono).map_err(|_| MintError::Unfit)?;
        Ok(match claims.exp {
            Some(exp) => token.dated(exp, claims.iat, answer.sent.wall, self.offset_ms.load(Relaxed)),
            None => token,
        })
    }

    /// Why the token cannot be this session's. A token is opaque, so what it does not say is not held against it; what
    /// it says and is another's is. `sub` is always in a template's token and cannot be overridden (contract section 4),
    /// but stand-ins of the issuer answer a placeholder for everybody: only two real ids can contradict each other.
    fn foreign(&self, request: &MintRequest, claims: &Claims) -> Option<&'static str> {
        let parts = request.key.parts();
        let sub = parts.sub.as_ref().map_or("", |sub| sub.as_str());
        if claims.sid.as_deref().is_some_and(|sid| sid != parts.sid.as_str()) {
            Some("the token is another session's")
        } else if claims.sub.as_deref().is_some_and(|other| other != sub && is_user_id(other) && is_user_id(sub)) {
            Some("the token is another user's")
        } else if claims.iss.is_some() && self.issuer.is_some() && claims.iss != self.issuer {
            Some("the token is another issuer's")
        } else {
            None
        }
    }
}

fn is_user_id(text: &str) -> bool {
    let id = text.strip_prefix("user_").unwrap_or_default();
    id.len() >= SHORTEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn failed(error: FetchError) -> MintError {
    match error {
        FetchError::Exchange(ExchangeError::Deadline) => MintError::Timeout,
        FetchError::Exchange(ExchangeError::TooLarge(_)) => MintError::Malformed("it is larger than 64 KiB"),
        error => MintError::Unavailable { retry_after: DEFAULT_RETRY_AFTER, source: Some(Arc::new(error)) },
    }
}

/// Nothing that a retry or another session would change, so somebody should read why.
fn refused(status: u16, answer: &Answer) -> MintError {
    let (code, trace_id) = answer::describe(&answer.body);
    tracing::warn!(status, code, trace_id, "the issuer refuses to mint");
    MintError::Refused(status)
}

impl Mint for ClerkClient {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let mut url = self.session_url(&request);
        url.push_str("/tokens");
        if let Kind::Template(name) = &request.key.parts().kind {
            url.push('/');
            url.push_str(name.as_str());
        }
        let body = match request.key.parts().expires_in {
            Some(seconds) => Bytes::from(format!(r#"{{"expires_in_seconds":{seconds}}}"#)),
            None => Bytes::from_static(b"{}"),
        };
        let began = Instant::now();
        let answer = self.ask(Method::POST, &url, body, &request).await;
        self.metrics.control().mint_seconds.observe_shared(began.elapsed());
        let answer = answer?;
        match answer.status.as_u16() {
            200 => self.token(&request, &answer),
            status @ 200..300 => {
                tracing::debug!(status, "the issuer answered a mint with an odd status");
                Err(MintError::Malformed("its status is not 200"))
            }
            status @ (403 | 404 | 422) => match answer::subject(&answer.body) {
                Subject::Session => Err(MintError::SessionEnded),
                Subject::Template if status == 404 => Err(MintError::TemplateUnknown),
                _ if status == 404 => self.settle(&request).await,
                _ => Err(refused(status, &answer)),
            },
            status => Err(refused(status, &answer)),
        }
    }
}

#[cfg(test)]
mod tests;
