//! The small HTTP surfaces beside the data path, such as probes and metrics: a router behind the one listener.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;

use crate::address::PeerAddress;
use crate::config::Limits;
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::bound::Bound;
use crate::listener::connection::{Connection, Ends};
use crate::listener::socket::Socket;
use crate::listener::{ServeError, Serving};
use crate::live::Live;
use crate::metrics::ListenerId;
use crate::telemetry::chain;
use crate::transport::tls::server::ServerTls;

/// Connections of one surface at a time.
const MAX_CONNECTIONS: usize = 512;

/// A router that has its TCP address and serves nothing yet.
#[derive(Debug)]
pub struct Surface {
    bound: Bound,
    address: SocketAddr,
    router: Router,
}

/// A request is under way on a connection, which tells its deadlines so.
#[derive(Debug)]
struct Busy(Arc<Connection>);

/// The body of an answer, with which its request ends.
#[derive(Debug)]
struct Held {
    body: axum::body::Body,
    busy: Busy,
}

// === impl Surface ===

impl Surface {
    /// Takes the address; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr, router: Router) -> io::Result<Self> {
        let bound = Bound::tcp(address)?;
        // It is a TCP socket's.
        let address = bound.address().tcp().unwrap_or(address);
        Ok(Self { bound, address, router })
    }

    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `until` says so. Connections live on as tasks of their own and end with the drain.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub async fn run(self, tasks: Spawner, shutdown: Shutdown, until: impl Future<Output = ()>) -> io::Result<()> {
        serve(self.bound, self.router, None, tasks, shutdown, until).await
    }
}

/// [`Surface::run`] on any socket, with TLS on TCP where there is some.
///
/// # Errors
/// When the runtime cannot watch the socket, or not let go of it.
pub async fn serve(
    bound: Bound,
    router: Router,
    tls: Option<Live<ServerTls>>,
    tasks: Spawner,
    shutdown: Shutdown,
    until: impl Future<Output = ()>,
) -> io::Result<()> {
    let acceptor = bound.acceptor()?;
    let serving = Serving::new(Arc::new(limits()), tasks.clone(), shutdown).with_tls(tls);
    let local = acceptor.address().clone();
    let begin = |socket: Socket, peer: PeerAddress| {
        if tasks.alive() > MAX_CONNECTIONS {
            tracing::warn!(%local, "too many connections; one was closed");
            return;
        }
        let (serving, router) = (serving.clone(), TowerToHyperService::new(router.clone()));
        let ends = Ends { peer, local: local.clone(), listener: ListenerId::new(0) };
        drop(tasks.spawn(async move {
            if let Err(error) = serve_one(&serving, router, socket, ends).await {
                tracing::debug!(%peer, error = chain(&error), "connection ended early");
            }
        }));
    };
    let mut until = std::pin::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => break,
            (socket, peer) = acceptor.accept() => begin(socket, peer),
        }
    }
    for (socket, peer) in acceptor.rest()? {
        begin(socket.unpark()?, peer);
    }
    Ok(())
}

async fn serve_one(
    serving: &Serving,
    router: TowerToHyperService<Router>,
    socket: Socket,
    ends: Ends,
) -> Result<(), ServeError> {
    let Some(stream) = serving.open(socket).await? else { return Ok(()) };
    let connection = Arc::new(Connection::new(ends, stream.secured(), &serving.limits));
    let on = Arc::clone(&connection);
    let service = service_fn(move |request| {
        let (busy, answer) = (Busy::on(&on), router.call(request));
        async move { answer.await.map(|answer| answer.map(|body| Held { body, busy })) }
    });
    serving.serve(stream, connection, service).await
}

/// An answer in plain text, which nobody keeps.
pub fn text(status: StatusCode, body: impl Into<String>) -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, plain, body.into()).into_response()
}

/// Fixed: these surfaces carry little and are nobody's bottleneck.
fn limits() -> Limits {
    let some = |seconds| Some(Duration::from_secs(seconds));
    Limits {
        max_connections: MAX_CONNECTIONS,
        max_header_bytes: 32 * 1024,
        max_uri_bytes: 16 * 1024,
        first_byte: some(10),
        header_read: some(10),
        idle: some(75),
        body_progress: some(30),
        write_stall: some(30),
        request_body: None,
        max_age: None,
    }
}

// === impl Busy, Held ===

impl Busy {
    fn on(connection: &Arc<Connection>) -> Self {
        connection.begin_request();
        Self(Arc::clone(connection))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end_request(Instant::now());
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Who takes nothing of what there is has a limit of time; who waits for more has none.
        match &polled {
            Poll::Ready(_) => self.busy.0.gave(None),
            Poll::Pending => self.busy.0.waits_for_upstream(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
