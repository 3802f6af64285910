//! TLS handshakes that fail, told without the log being at the mercy of whoever connects.

use std::error::Error as _;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::{CertificateError, Error, InvalidMessage};
use tokio::time::Instant;

use crate::address::PeerAddress;
use crate::metrics::Counter;
use crate::telemetry::chain;

/// A failed handshake is a line in the log, but not one for each: a scan makes thousands.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Those since the last line.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    untold: u64,
}

// === impl Refusals ===

impl Refusals {
    /// Counts a handshake that failed where either side refused it, and tells of it now and then.
    pub fn tell(&self, error: &io::Error, peer: PeerAddress, counter: &Counter) {
        let Some(reason) = reason(error) else {
            tracing::debug!(%peer, error = chain(error), "no TLS handshake");
            return;
        };
        counter.bump();
        if let Some(count) = self.count(Instant::now()) {
            tracing::info!(%peer, reason, count, "TLS handshakes failed");
        } else {
            tracing::debug!(%peer, reason, "a TLS handshake failed");
        }
    }

    /// One more. How many there were since the last line, this one included, when another line is due.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += 1;
        if state.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

/// What went wrong in words; `None` where no TLS was refused: the caller went away or said nothing, as probes do.
fn reason(error: &io::Error) -> Option<String> {
    let inner: &(dyn std::error::Error + 'static) = error.get_ref()?;
    let mut source = Some(inner);
    let refused = loop {
        let inner = source?;
        match inner.downcast_ref::<Error>() {
            Some(refused) => break refused,
            None => source = inner.source(),
        }
    };
    Some(match refused {
        Error::NoCertificatesPresented => "the client showed no certificate, and `client_auth` asks for one".to_owned(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "what came is no TLS".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the client's certificate is not signed by an authority of `client_ca`".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Other(other)) if is_version_1(other) => {
            "the client's certificate is X.509 version 1; version 3 is needed".to_owned()
        }
        Error::AlertReceived(alert) => format!("the client refused: alert {alert:?}"),
        refused => refused.to_string(),
    })
}

/// rustls has no error of its own for what webpki says here.
fn is_version_1(other: &rustls::OtherError) -> bool {
    let is = |text: &str| text.contains("UnsupportedCertVersion");
    is(&other.to_string()) || other.source().is_some_and(|source| is(&source.to_string())) || is(&format!("{other:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_scan_is_a_line_in_ten_seconds() {
        let refusals = Refusals::default();
        let mut lines = Vec::new();
        for _ in 0..25 {
            lines.extend(refusals.count(Instant::now()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, [1, 10, 10]);
    }

    #[test]
    fn a_caller_that_goes_away_was_not_refused() {
        assert_eq!(reason(&io::ErrorKind::UnexpectedEof.into()), None);
        let refused = io::Error::new(io::ErrorKind::InvalidData, Error::NoCertificatesPresented);
        assert!(reason(&refused).is_some_and(|text| text.contains("no certificate")));
    }
}
