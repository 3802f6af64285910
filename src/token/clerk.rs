//! The issuer's client: one attempt to mint (design section 5, "Mint call").

mod answer;
pub mod http;
pub mod instance;
pub mod judge;
pub mod passage;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, header};
use bytes::Bytes;
use http_body_util::Full;
use tokio::time::Instant;

use self::http::Http;
pub use self::http::{Answer, BuildError, ExchangeError};
use self::judge::{DEFAULT_RETRY_AFTER, Judge, Minted};
use crate::clock::Clock;
use crate::config::{self, ApiUrl};
use crate::lifecycle::Spawner;
use crate::metrics::Metrics;
use crate::token::{Kind, Mint, MintError, MintRequest, Token};

/// Bytes of an answer to a mint, and of a JWKS.
const MAX_TOKEN: usize = 64 * 1024;
const MAX_JWKS: usize = 1024 * 1024;

/// A rejected key is an error in the log, but not one for each request.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// Offsets of the issuer's clock above this, in milliseconds, are logged.
const LARGE_OFFSET_MS: i64 = 2000;

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
        let Some(offset) = judge::clock_offset(answer) else { return };
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
        self.authorized(&call).await.map_err(failed)
    }

    /// How an answer is read, with what is known by now.
    fn judge<'a>(&'a self, request: &'a MintRequest) -> Judge<'a> {
        Judge { key: &request.key, issuer: self.issuer.as_deref(), offset_ms: self.offset_ms.load(Relaxed) }
    }

    /// The types of both segments allow only characters that need no percent-encoding.
    fn session_url(&self, request: &MintRequest) -> String {
        format!("{}/v1/sessions/{}", self.api_url.as_str(), request.key.parts().sid.as_str())
    }
}

fn failed(error: FetchError) -> MintError {
    match error {
        FetchError::Exchange(ExchangeError::Deadline) => MintError::Timeout,
        FetchError::Exchange(ExchangeError::TooLarge(_)) => MintError::Malformed("it is larger than 64 KiB"),
        error => MintError::Unavailable { retry_after: DEFAULT_RETRY_AFTER, source: Some(Arc::new(error)) },
    }
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
        match self.judge(&request).minted(&answer?)? {
            Minted::Token(token) => Ok(token),
            Minted::Unsettled => {
                let answer = self.ask(Method::GET, &self.session_url(&request), Bytes::new(), &request).await?;
                Err(self.judge(&request).settled(&answer))
            }
        }
    }
}

#[cfg(test)]
mod tests;
