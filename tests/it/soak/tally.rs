//! What came of the requests: answers of their asker, failures with and without an excuse, and answers of somebody else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Crossings that are told in words.
const TOLD: usize = 10;

/// What a request is counted as, when it is answered well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Http1,
    Http2,
    WebSocket,
    /// A message on a WebSocket, which is no request.
    Message,
    /// Given up by its caller.
    Cancelled,
}

/// See the file's comment.
#[derive(Default)]
pub(crate) struct Tally {
    good: [AtomicU64; 5],
    crossings: AtomicU64,
    told: Mutex<Vec<String>>,
    /// By what it is called: with a trouble to blame, and without one.
    failures: Mutex<BTreeMap<String, [u64; 2]>>,
}

// === impl Tally ===

impl Tally {
    pub(crate) fn good(&self, kind: Kind) {
        self.good[kind as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn failure(&self, name: &str, excused: bool) {
        let mut failures = self.failures.lock().unwrap();
        if let Some(counts) = failures.get_mut(name) {
            counts[usize::from(!excused)] += 1;
        } else {
            failures.insert(name.to_owned(), [u64::from(excused), u64::from(!excused)]);
        }
    }

    /// Somebody got what was not theirs, or what is nobody's.
    pub(crate) fn crossing(&self, what: String) {
        self.crossings.fetch_add(1, Relaxed);
        let mut told = self.told.lock().unwrap();
        if told.len() < TOLD {
            told.push(what);
        }
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.good[kind as usize].load(Relaxed)
    }

    /// Requests that were answered well.
    pub(crate) fn answered(&self) -> u64 {
        [Kind::Http1, Kind::Http2, Kind::WebSocket].map(|kind| self.count(kind)).iter().sum()
    }

    pub(crate) fn crossings(&self) -> u64 {
        self.crossings.load(Relaxed)
    }

    /// Failures: with a trouble to blame, and without.
    pub(crate) fn failures(&self) -> [u64; 2] {
        let failures = self.failures.lock().unwrap();
        failures.values().fold([0, 0], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1]])
    }

    /// Failures without a trouble to blame, by what they are called.
    pub(crate) fn unexpected(&self) -> String {
        let failures = self.failures.lock().unwrap();
        let named = failures.iter().filter(|(_, counts)| counts[1] > 0);
        named.fold(String::new(), |text, (name, counts)| text + &format!(" ({name}: {})", counts[1]))
    }

    /// Everything, for a reader.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let kinds = [Kind::Http1, Kind::Http2, Kind::WebSocket, Kind::Message, Kind::Cancelled];
        let names = ["HTTP/1.1", "HTTP/2", "WebSockets", "messages on them", "given up by callers"];
        for (kind, name) in kinds.into_iter().zip(names) {
            let _ = writeln!(text, "  {name}: {}", self.count(kind));
        }
        for (name, [excused, unexpected]) in &*self.failures.lock().unwrap() {
            let _ = writeln!(text, "  {name}: {excused} in a trouble, {unexpected} without");
        }
        let _ = writeln!(text, "  crossings: {}", self.crossings());
        for crossing in &*self.told.lock().unwrap() {
            let _ = writeln!(text, "    {crossing}");
        }
        text
    }
}
