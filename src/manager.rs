//! What the service manager is told, as sd_notify(3) has it: ready, reloading, stopping, alive.
//!
//! Without `NOTIFY_SOCKET` in the environment nobody listens and nothing is said.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager. There is one, so this is no more than a name for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manager;

// === impl Manager ===

impl Manager {
    /// Requests are served, or again after a reload.
    pub fn ready(self, status: &str) {
        said(sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]));
    }

    /// The configuration is read again; [`Manager::ready`] follows, whatever comes of it.
    pub fn reloading(self) {
        // systemd tells by the time which of its requests this answers.
        said(NotifyState::monotonic_usec_now().and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])));
    }

    /// The process has been told to end.
    pub fn stopping(self) {
        said(sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("ending")]));
    }

    /// How often the watchdog wants to hear that the process is alive (a third of `WatchdogSec=`), where there is one.
    pub fn watchdog(self) -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|patience| patience / 3).filter(|every| !every.is_zero())
    }

    /// The process is alive.
    pub fn alive(self) {
        said(sd_notify::notify(&[NotifyState::Watchdog]));
    }
}

/// A manager that does not listen any more changes nothing about the requests.
fn said(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
