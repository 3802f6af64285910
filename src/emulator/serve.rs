//! Serves a small router on a socket of its own until it is told to stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::lifecycle::{Shutdown, Spawner};

/// A router that has its address and serves nothing yet.
#[derive(Debug)]
pub struct Bound {
    address: SocketAddr,
    listener: TcpListener,
    router: Router,
}

/// Time to wait when the machine has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The first letters of HTTP/2's preface (RFC 9113 section 3.4); no method of HTTP/1 begins so.
const HTTP2: &[u8; 4] = b"PRI ";

/// Takes the address; port 0 lets the kernel choose.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn bind(address: SocketAddr, router: Router) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    Ok(Bound { address: listener.local_addr()?, listener, router })
}

// === impl Bound ===

impl Bound {
    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the drain begins. Connections live on as tasks of their own: they finish the answers that are
    /// under way, and end with the stop.
    pub async fn run(self, tasks: Spawner, shutdown: Shutdown) {
        let mut draining = std::pin::pin!(shutdown.draining());
        loop {
            let accepted = tokio::select! {
                () = &mut draining => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    drop(tasks.spawn(connection(stream, self.router.clone(), tasks.clone(), shutdown.clone())));
                }
                Err(error) => {
                    tracing::warn!(%error, address = %self.address, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, tasks: Spawner, shutdown: Shutdown) {
    let version = tokio::select! {
        version = speaks_http2(&stream) => version,
        () = shutdown.draining() => return,
    };
    // A peer that has gone is met again at the next write; there is nobody to tell.
    let _ = stream.set_nodelay(true);
    let (io, service) = (TokioIo::new(stream), |router| TowerToHyperService::new(router));
    let ended = match version {
        Ok(true) => {
            let connection = http2::Builder::new(tasks).serve_connection(io, service(router));
            until_told(connection, &shutdown, http2::Connection::graceful_shutdown).await
        }
        Ok(false) => {
            let connection = http1::Builder::new().serve_connection(io, service(router));
            until_told(connection, &shutdown, http1::Connection::graceful_shutdown).await
        }
        Err(_) => return,
    };
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Drives a connection to its end; `None` when the stop came first.
async fn until_told<C: Future>(connection: C, shutdown: &Shutdown, finish: fn(Pin<&mut C>)) -> Option<C::Output> {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Some(ended),
        () = shutdown.draining() => finish(connection.as_mut()),
    }
    tokio::select! {
        ended = connection => Some(ended),
        () = shutdown.stopped() => None,
    }
}

/// Whether the peer opens with HTTP/2's preface. Waits for as many bytes as it takes to tell.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; HTTP2.len()];
    loop {
        let count = stream.peek(&mut seen).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if count == HTTP2.len() || !HTTP2.starts_with(&seen[..count]) {
            return Ok(seen == *HTTP2);
        }
        // The socket stays readable while the first bytes wait: look again later instead of spinning.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http::Request;
    use http_body_util::BodyExt;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    use super::*;

    #[tokio::test]
    async fn both_versions_are_served_until_the_drain() {
        let (tasks, shutdown) = (Spawner::current(), Shutdown::new());
        let router =
            Router::new().route("/", get(|request: Request<Body>| async move { format!("{:?}", request.version()) }));
        let bound = bind("127.0.0.1:0".parse().unwrap(), router).await.unwrap();
        let address = bound.address();
        drop(tasks.spawn(bound.run(tasks.clone(), shutdown.clone())));
        for (http2, expected) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
            let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Body>();
            let request = Request::get(format!("http://{address}/")).body(Body::empty()).unwrap();
            let answer = client.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(&*answer, expected.as_bytes());
        }
        // Says nothing: it must not hold up the drain.
        let silent = TcpStream::connect(address).await.unwrap();
        shutdown.drain();
        tasks.idle().await;
        assert!(TcpStream::connect(address).await.is_err());
        drop(silent);
    }
}
