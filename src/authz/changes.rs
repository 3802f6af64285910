//! What a proxy has to do to a request before it forwards it: what the gateway would have done itself.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::headers;
use crate::proxy::Decision;
use crate::proxy::error::Error;

/// Of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Set in the place of whatever stands there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Forwarded as they came: told to a proxy that takes the headers of the answer for all there is.
    pub kept: Vec<(HeaderName, HeaderValue)>,
    /// Removed. None of them is set.
    pub removed: Vec<HeaderName>,
    /// Whether one of those is another spelling of a name that is configured: a proxy that knows the names from its own
    /// configuration alone would forward it.
    pub respelt: bool,
}

// === impl Changes ===

impl Changes {
    /// Cleans the head as the gateway would, and notes what became of it. `targets` are the headers that some route
    /// injects: the proxy may have shown only some of the caller's headers, so these leave although nobody has seen them.
    ///
    /// # Errors
    /// When what is left could be read in two ways.
    pub fn of(headers: &mut HeaderMap, decision: Decision<'_>, targets: &[HeaderName]) -> Result<Self, Error> {
        let before: SmallVec<[HeaderName; 24]> = headers.keys().cloned().collect();
        let cookies: SmallVec<[HeaderValue; 2]> = headers.get_all(header::COOKIE).iter().cloned().collect();
        // Who called is for the proxy to say, and it has.
        let cleaner = &decision.plan.cleaner;
        cleaner.request(headers, &decision.consumed, true).map_err(|bad| Error::Malformed(bad.reason()))?;
        let mut changes = Self { set: decision.injected.into_vec(), ..Self::default() };
        for name in before.iter().chain(targets) {
            if !headers.contains_key(name) && !is_credential(name) {
                changes.respelt |= is_respelt(name, targets);
                changes.remove(name);
            }
        }
        // As they were seen here, or not at all: another one could be a credential that was not judged.
        match headers.get(header::AUTHORIZATION) {
            Some(value) => changes.keep(header::AUTHORIZATION, value.clone()),
            None => changes.remove(&header::AUTHORIZATION),
        }
        match joined(headers) {
            None => changes.remove(&header::COOKIE),
            Some(cookie) if headers.get_all(header::COOKIE).iter().eq(&cookies) => changes.keep(header::COOKIE, cookie),
            Some(cookie) if !changes.sets(&header::COOKIE) => changes.set.push((header::COOKIE, cookie)),
            Some(_) => {}
        }
        Ok(changes)
    }

    fn sets(&self, name: &HeaderName) -> bool {
        self.set.iter().any(|(set, _)| set == name)
    }

    fn remove(&mut self, name: &HeaderName) {
        if !self.sets(name) && !self.removed.contains(name) {
            self.removed.push(name.clone());
        }
    }

    fn keep(&mut self, name: HeaderName, value: HeaderValue) {
        if !self.sets(&name) {
            self.kept.push((name, value));
        }
    }
}

fn is_credential(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION || *name == header::COOKIE
}

fn is_respelt(name: &HeaderName, targets: &[HeaderName]) -> bool {
    !targets.contains(name) && (headers::is_odd(name) || targets.iter().any(|own| headers::are_twins(own, name)))
}

/// The cookies in one line, as HTTP/1 has them.
fn joined(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let first = lines.next()?;
    let mut rest = lines.peekable();
    if rest.peek().is_none() {
        return Some(first.clone());
    }
    let mut joined = first.as_bytes().to_vec();
    for line in rest {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    // Two values with `; ` between them make a value.
    HeaderValue::from_bytes(&joined).ok()
}
