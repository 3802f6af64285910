//! The signals that end a command, and the one that does not.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT. SIGHUP, by which other servers reload, must not end this one; it is answered in the log.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
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
        })
    }

    /// Resolves when the process is told to end.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hup.recv() => {
                    tracing::warn!("SIGHUP: this version does not reload; restart it to use another configuration");
                }
            }
        }
    }
}
