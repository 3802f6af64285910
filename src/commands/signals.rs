//! The signals that end a command, and the one that does not.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// SIGTERM and SIGINT; and SIGHUP, which asks for another look at the configuration and ends nothing.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    reload: Option<Arc<Notify>>,
}

// === impl Signals ===

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system takes no handler.
    pub fn new() -> io::Result<Self> {
        let listen = |kind| signal(kind);
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
            reload: None,
        })
    }

    /// What hears of each SIGHUP, while [`Signals::next`] is waited for. Without one it is answered in the log.
    #[must_use]
    pub fn reloading(self, reload: Arc<Notify>) -> Self {
        Self { reload: Some(reload), ..self }
    }

    /// Resolves when the process is told to end.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hup.recv() => {
                    if let Some(reload) = &self.reload {
                        reload.notify_one();
                    } else {
                        tracing::warn!("SIGHUP: only `mintgate run` reads its configuration again");
                    }
                }
            }
        }
    }
}
