//! The small HTTP surfaces beside the data path, such as probes and metrics: a router behind the one listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::service::TowerToHyperService;

use crate::config::Limits;
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::connection::Connection;
use crate::listener::{self, Serving};
use crate::metrics::ListenerId;

/// Connections of one surface at a time.
const MAX_CONNECTIONS: usize = 512;

/// A router that has its address and serves nothing yet.
#[derive(Debug)]
pub struct Surface {
    bound: listener::Bound,
    router: Router,
}

// === impl Surface ===

impl Surface {
    /// Takes the address; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr, router: Router) -> io::Result<Self> {
        Ok(Self { bound: listener::Bound::bind(address)?, router })
    }

    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.bound.address()
    }

    /// Accepts until `until` says so. Connections live on as tasks of their own and end with the drain.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub async fn run(self, tasks: Spawner, shutdown: Shutdown, until: impl Future<Output = ()>) -> io::Result<()> {
        let acceptor = self.bound.acceptor()?;
        let limits = Arc::new(limits());
        let serving = Serving::new(Arc::clone(&limits), tasks.clone(), shutdown);
        let local = acceptor.address();
        let mut until = std::pin::pin!(until);
        loop {
            let (stream, peer) = tokio::select! {
                () = &mut until => return Ok(()),
                accepted = acceptor.accept() => accepted,
            };
            if tasks.alive() > MAX_CONNECTIONS {
                tracing::warn!(%local, "too many connections; one was closed");
                continue;
            }
            let (serving, service) = (serving.clone(), TowerToHyperService::new(self.router.clone()));
            let connection = Arc::new(Connection::new(peer, local, ListenerId::new(0), limits.idle));
            drop(tasks.spawn(async move {
                if let Err(error) = serving.serve(stream, connection, service).await {
                    tracing::debug!(%peer, %error, "connection ended early");
                }
            }));
        }
    }
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
    }
}
