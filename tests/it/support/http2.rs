//! HTTP/2 with prior knowledge: a client, and an upstream that keeps what it was sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mintgate::lifecycle::Spawner;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;
use super::doors::Door;
use super::wire::Stream;

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().boxed()
}

/// These bytes, in one frame.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// These bytes, and trailers after them.
pub(crate) fn with_trailers(bytes: impl Into<Bytes>, trailers: &[(&'static str, &'static str)]) -> Body {
    let fields: HeaderMap =
        trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Full::new(bytes.into()).with_trailers(async move { Some(Ok(fields)) }).boxed()
}

/// One connection to the gateway.
#[derive(Clone)]
pub(crate) struct Client(SendRequest<Body>);

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

/// A request that the upstream has read whole.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

/// The upstream.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

// === impl Client ===

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    /// On any stream.
    pub(crate) async fn over(stream: impl Stream + 'static) -> Self {
        let (sender, connection) = Builder::new(Spawner::current()).handshake(TokioIo::new(stream)).await.unwrap();
        drop(Spawner::current().spawn(connection));
        Self(sender)
    }

    /// Whether no further request can be sent.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request and waits for the answer's head.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        self.0.ready().await?;
        timeout(PATIENCE, self.0.send_request(request)).await.unwrap()
    }

    /// Sends a request and reads the answer whole.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) async fn ask(&mut self, request: Request<Body>) -> Answer {
        Answer::whole(self.send(request).await.unwrap()).await
    }
}

// === impl Answer ===

impl Answer {
    /// Reads it.
    pub(crate) async fn whole(answer: Response<Incoming>) -> Self {
        let (head, body) = answer.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        Self { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), trailers }
    }

    /// Status and `x-mintgate-error`; the code is empty for an upstream's answer.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        (self.status, self.headers.get("x-mintgate-error").map_or("", |code| code.to_str().unwrap()))
    }
}

// === impl Upstream ===

impl Upstream {
    /// Reads each request whole and answers it as the script says.
    pub(crate) async fn answering(script: impl Fn() -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::behind(Door::tcp().await, script)
    }

    /// The same, behind that door.
    pub(crate) fn behind(door: Door, script: impl Fn() -> Response<Body> + Send + Sync + 'static) -> Self {
        let (address, seen, tasks) = (door.address(), Arc::default(), Spawner::current());
        let (here, spawner, script) = (Arc::clone(&seen), tasks.clone(), Arc::new(script));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        drop(tasks.spawn(async move {
            while let Some(guest) = door.guest().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (seen, script) = (Arc::clone(&here), Arc::clone(&script));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?;
                        let trailers = body.trailers().cloned().unwrap_or_default();
                        let received = Received { head, body: body.to_bytes(), trailers };
                        Mutex::<Vec<Received>>::lock(&seen).unwrap().push(received);
                        hyper::Result::Ok(script())
                    }
                });
                let http = http2::Builder::new(spawner.clone());
                drop(spawner.spawn(async move {
                    if let Some(stream) = guest.stream().await {
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                }));
            }
        }));
        Self { address, seen, connections }
    }

    /// `http://127.0.0.1:...`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections that were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The request that came last.
    pub(crate) fn last(&self) -> Received {
        self.seen.lock().unwrap().pop().unwrap()
    }
}
