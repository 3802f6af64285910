//! One bounded exchange with the issuer over TLS: its connections, its deadline and the size of its answer.
//!
//! No redirects, no proxies from the environment, no decompression: hyper does none of these by itself, and nothing here
//! adds them. A redirect would carry the secret key to another host.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::{Clock, Now, Wall};
use crate::config;
use crate::lifecycle::Spawner;
use crate::transport::tls::{provider, roots};

/// An idle connection is kept so long: shorter than servers and their load balancers keep theirs.
const IDLE: Duration = Duration::from_secs(50);

/// So many of them are kept. Mints at the issuer's limit take up the connections that others have just left, so few are idle
/// at a time; what a burst needed beside these is not worth 35 KB each and a session of TLS until the time is over.
pub(super) const MAX_IDLE: usize = 16;

/// Pings on HTTP/2, so that a connection that died silently is found before a mint needs it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer's head.
const MAX_HEAD: usize = 32 * 1024;

type BoxError = Box<dyn Error + Send + Sync>;

/// A body that is passed on as it comes.
pub type Streamed = UnsyncBoxBody<Bytes, BoxError>;

/// Connections to the issuer, pooled.
#[derive(Debug)]
pub(super) struct Http {
    pool: Mutex<Pool>,
    /// For calls that are passed on: their bodies stream.
    passing: legacy::Client<Connector, Streamed>,
    builder: legacy::Builder,
    connector: Connector,
    clock: Clock,
}

/// The connections in use.
#[derive(Debug, Clone)]
struct Pool {
    client: legacy::Client<Connector, Full<Bytes>>,
    /// Which one this is, counted from 0.
    number: u64,
    /// Whether an answer has come over HTTP/2, which is one connection for all.
    shared: Arc<AtomicBool>,
}

/// An answer that came in time and whole.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Just before the request was handed to a connection.
    pub sent: Now,
    /// From then to the answer's last byte.
    pub took: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection came about: refused, no such host, TLS, or not in time.
    #[error("no connection to the issuer")]
    Connect(#[source] legacy::Error),
    /// The connection broke before the answer's head.
    #[error("the connection to the issuer broke")]
    Broken(#[source] legacy::Error),
    /// The connection broke within the answer's body.
    #[error("the issuer's answer broke off")]
    Body(#[source] hyper::Error),
    /// The answer is larger than it may be.
    #[error("the issuer's answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The deadline passed.
    #[error("the issuer did not answer in time")]
    Deadline,
}

/// Why there is no client for the issuer.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// `clerk.ca_file` is not PEM.
    #[error("the extra trust root is not a PEM certificate")]
    Ca(#[source] pem::Error),
    /// A certificate of `clerk.ca_file` cannot be a trust root.
    #[error("the extra trust root cannot be used")]
    Root(#[source] rustls::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The machine has no trust roots, so no issuer could be trusted.
    #[error("no trust roots were found on this machine; install its CA certificates or set clerk.ca_file")]
    NoRoots,
    /// A secret key or the API version could not stand in a header.
    #[error("the {0} cannot stand in a header")]
    Header(&'static str),
}

/// Connects within a time that covers TCP and TLS together.
#[derive(Debug, Clone)]
struct Connector {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

// === impl Http ===

impl Http {
    /// `tasks` runs the connections. Give it a spawner of its own: connections are pooled, so a drain must not wait
    /// for their tasks.
    pub(super) fn new(config: &config::Clerk, clock: Clock, tasks: Spawner) -> Result<Self, BuildError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        tcp.set_keepalive(Some(PING_EVERY));
        // A peer that vanished takes no bytes: after this the connection fails, and the mint is tried on a new one
        // while there is still time.
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(config.connect_timeout));
        let https = config.api_url.as_str().starts_with("https:");
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config.ca.as_deref(), https)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let mut builder = legacy::Client::builder(tasks);
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_buf_size(MAX_HEAD)
            .http2_max_header_list_size(32 * 1024)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true);
        let connector = Connector { inner, limit: config.connect_timeout };
        let pool = Mutex::new(Pool::new(&builder, &connector, 0));
        Ok(Self { pool, passing: builder.build(connector.clone()), builder, connector, clock })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else is sent over that HTTP/2 connection, on which an answer has not come in time: its peer may be gone
    /// without a word, and pings need many seconds to find out. Who waits there goes on waiting. In HTTP/1.1 the
    /// connection of an exchange that was given up is closed by that.
    fn leave(&self, pool: &Pool) {
        let mut current = self.pool();
        if current.number == pool.number && pool.shared.load(Relaxed) {
            *current = Pool::new(&self.builder, &self.connector, pool.number + 1);
        }
    }

    /// Sends the request and reads the answer, at most `cap` bytes of body, all before `deadline`.
    pub(super) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        cap: usize,
        deadline: Instant,
    ) -> Result<Answer, ExchangeError> {
        let sent = self.clock.now();
        let pool = self.pool().clone();
        let whole = async {
            let response = pool.client.request(request).await.map_err(failed)?;
            let (head, body) = response.into_parts();
            pool.shared.store(head.version == Version::HTTP_2, Relaxed);
            let body = read(body, &head.headers, cap).await?;
            let took = sent.mono.elapsed();
            Ok(Answer { status: head.status, headers: head.headers, body, sent, took })
        };
        let answer = timeout_at(deadline, whole).await.unwrap_or(Err(ExchangeError::Deadline));
        if matches!(answer, Err(ExchangeError::Deadline)) {
            self.leave(&pool);
        }
        answer
    }

    /// Sends a request whose body streams, and gives the answer with its head; its body streams too.
    pub(super) async fn stream(&self, request: Request<Streamed>) -> Result<Response<Incoming>, ExchangeError> {
        self.passing.request(request).await.map_err(failed)
    }
}

fn failed(error: legacy::Error) -> ExchangeError {
    if error.is_connect() { ExchangeError::Connect(error) } else { ExchangeError::Broken(error) }
}

// === impl Pool ===

impl Pool {
    fn new(builder: &legacy::Builder, connector: &Connector, number: u64) -> Self {
        Self { client: builder.build(connector.clone()), number, shared: Arc::default() }
    }
}

async fn read(mut body: Incoming, headers: &HeaderMap, cap: usize) -> Result<Bytes, ExchangeError> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|told| told > cap) {
        return Err(ExchangeError::TooLarge(cap));
    }
    let mut whole = BytesMut::with_capacity(told.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ExchangeError::Body)?.into_data() else { continue };
        if data.len() > cap - whole.len() {
            return Err(ExchangeError::TooLarge(cap));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn tls(ca: Option<&[u8]>, https: bool) -> Result<ClientConfig, BuildError> {
    let mut roots = RootCertStore::empty();
    if https {
        roots = roots::of_the_machine();
        for root in CertificateDer::pem_slice_iter(ca.unwrap_or_default()) {
            roots.add(root.map_err(BuildError::Ca)?).map_err(BuildError::Root)?;
        }
        if roots.is_empty() {
            return Err(BuildError::NoRoots);
        }
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Ok(builder.map_err(BuildError::Tls)?.with_root_certificates(roots).with_no_client_auth())
}

// === impl Answer ===

impl Answer {
    /// Our wall clock when the last byte came; counted, so that a clock that was set meanwhile does no harm.
    pub fn received(&self) -> Wall {
        self.sent.wall.plus(self.took)
    }
}

// === impl Connector ===

impl tower::Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(self.limit, self.inner.call(uri));
        Box::pin(async move { connecting.await? })
    }
}
