//! What leaves a request and a response on its way: built once per configuration, applied in one pass per message.
//!
//! Cleaning comes before injection, or a caller could name our header in `Connection` and have it removed after we set
//! it.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName};

use crate::config::{Route, SessionSource, Upstream};
use crate::headers::{self, HEAD_ONLY, HOP_BY_HOP, NameSet};
use crate::session::cookies;

/// The rules of one route.
#[derive(Debug)]
pub struct Cleaner {
    /// Leaves every request: hop-by-hop, framing, ours, every route's injected headers, the credential headers.
    always: NameSet,
    /// Leaves unless the credential is forwarded: the headers that the route's sources name.
    credentials: NameSet,
    /// Leaves unless kept: what the upstream takes from no caller.
    upstream: NameSet,
    keep: NameSet,
    /// Leaves when the peer is not trusted.
    forwarding: NameSet,
    /// `Authorization` leaves although it was not the credential.
    drop_authorization: bool,
    drop_cookie: bool,
    forward_credential: bool,
    forward_clerk_cookies: bool,
    /// The upstream reads the session itself.
    clerk_app: bool,
    /// A caller's `Connection` must not name these.
    protected: NameSet,
    /// Never passes as a trailer.
    pub trailers: Arc<NameSet>,
}

/// Which credential the session was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumed {
    /// None was.
    Nothing,
    /// `Authorization`.
    Authorization,
    /// A cookie that the route forwards, although Clerk's other cookies leave.
    KeptCookie(Box<str>),
    /// A cookie or a header of its own, which leaves in any case.
    Other,
    /// None may pass, whatever the route says: a preflight, or a session that was revoked.
    Any,
}

/// Why a head is not one that everybody reads alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclear {
    /// The caller's `Connection` named a header that it must not.
    ProtectedHeader,
    /// There are several `Authorization` fields, which nobody has looked at and the upstream would get.
    SeveralAuthorizations,
}

// === impl Unclear ===

impl Unclear {
    /// What the log and `mintgate explain` say.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ProtectedHeader => "Connection names a header that is not the connection's",
            Self::SeveralAuthorizations => "more than one Authorization",
        }
    }
}

// === impl Cleaner ===

impl Cleaner {
    /// Compiles the rules of a route. `routes` are all of the configuration.
    pub fn new(route: &Route, upstream: Option<&Upstream>, routes: &[Route]) -> Self {
        let removed = upstream.map(|upstream| upstream.remove_headers.clone()).unwrap_or_default();
        let targets = |of: &Route| of.inject.iter().map(|injection| injection.header.clone()).collect::<Vec<_>>();
        let (mut always, mut protected) = (NameSet::new(), NameSet::new());
        let ours = [header::TE, header::EXPECT, header::CONTENT_LENGTH, header::PROXY_AUTHORIZATION];
        for name in HOP_BY_HOP.iter().chain(&ours) {
            always.insert(name);
        }
        always.insert_pattern("x-mintgate-*").unwrap_or_else(|bad| unreachable!("{bad}"));
        for target in routes.iter().flat_map(targets) {
            protected.insert(&target);
            if target != header::AUTHORIZATION && target != header::COOKIE {
                always.insert(&target);
            }
        }
        let mut credentials = NameSet::new();
        for source in &route.session {
            if let SessionSource::Header(name) = source {
                credentials.insert(name);
            }
        }
        if let Some(source) = &route.session_id {
            credentials.insert(&source.header);
        }
        for name in
            [header::HOST, header::AUTHORIZATION, header::COOKIE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        {
            protected.insert(&name);
        }
        let mut forwarding = NameSet::new();
        for pattern in ["forwarded", "x-forwarded-*", "x-real-ip", "x-request-id"] {
            forwarding.insert_pattern(pattern).unwrap_or_else(|bad| unreachable!("{bad}"));
        }
        // `authorization` and `cookie` leave where they are this route's own target, or another's to this upstream.
        let injected = |name: &HeaderName| {
            let own = targets(route).contains(name);
            let others =
                || routes.iter().filter(|other| other.upstream == route.upstream).flat_map(targets).any(|t| t == *name);
            own || (!route.forward_credential && others())
        };
        let mut trailers = always.clone();
        trailers.extend(&credentials);
        trailers.extend(&removed);
        trailers.extend(&forwarding);
        for name in &HEAD_ONLY {
            trailers.insert(name);
        }
        Self {
            always,
            credentials,
            upstream: removed,
            keep: route.keep_headers.clone(),
            forwarding,
            drop_authorization: injected(&header::AUTHORIZATION),
            drop_cookie: injected(&header::COOKIE),
            forward_credential: route.forward_credential,
            forward_clerk_cookies: route.forward_clerk_cookies,
            clerk_app: route.clerk_app,
            protected,
            trailers: Arc::new(trailers),
        }
    }

    /// Whether a header of this name, in whatever letter case, is taken from no caller.
    pub fn takes(&self, name: &str) -> bool {
        self.always.contains_str(name)
            || (self.upstream.contains_str(name) && !self.keep.contains_str(name))
            || (self.drop_authorization && headers::are_twin_names(name, header::AUTHORIZATION.as_str()))
    }

    /// Removes everything that must not reach the upstream. `trusted` peers keep their forwarding headers.
    ///
    /// # Errors
    /// When what is left could be read in two ways, or the caller's `Connection` names what is not its to name.
    pub fn request(&self, headers: &mut HeaderMap, consumed: &Consumed, trusted: bool) -> Result<(), Unclear> {
        let forwarded = self.forward_credential && *consumed != Consumed::Any;
        let mut doomed: Vec<HeaderName> = Vec::new();
        if headers.contains_key(header::CONNECTION) {
            for option in headers::connection_options(headers) {
                // What is not a header name cannot name one.
                let Ok(name) = HeaderName::from_bytes(option) else { continue };
                if self.protected.contains(&name) {
                    return Err(Unclear::ProtectedHeader);
                }
                doomed.push(name);
            }
        }
        for name in headers.keys() {
            let goes = self.always.contains(name)
                || (!forwarded && self.credentials.contains(name))
                || (!self.upstream.is_empty() && self.upstream.contains(name) && !self.keep.contains(name))
                || (!trusted && self.forwarding.contains(name));
            if goes {
                doomed.push(name.clone());
            }
        }
        for name in doomed {
            headers.remove(name);
        }
        let authorization = matches!(consumed, Consumed::Authorization | Consumed::Any);
        if self.drop_authorization || (authorization && !forwarded) {
            headers.remove(header::AUTHORIZATION);
        } else if headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
            return Err(Unclear::SeveralAuthorizations);
        }
        if self.drop_cookie {
            headers.remove(header::COOKIE);
        } else if (!self.forward_clerk_cookies || *consumed == Consumed::Any) && headers.contains_key(header::COOKIE) {
            let keep = if let Consumed::KeptCookie(name) = consumed { Some(name.as_bytes()) } else { None };
            cookies::strip_clerk(headers, keep);
        } else if self.clerk_app {
            // It must not find another session than the one that was judged: its SDK may choose otherwise.
            match consumed {
                Consumed::Authorization | Consumed::Other => cookies::strip_sessions(headers, None),
                Consumed::KeptCookie(name) => cookies::strip_sessions(headers, Some(name.as_bytes())),
                Consumed::Nothing | Consumed::Any => {}
            }
        }
        Ok(())
    }
}

/// Removes from an upstream's response what means its connection alone, and what only we may say.
pub fn response(headers: &mut HeaderMap, forbidden: &NameSet) {
    let mut doomed: Vec<HeaderName> = Vec::new();
    if headers.contains_key(header::CONNECTION) {
        doomed.extend(
            headers::connection_options(headers).filter_map(|option| HeaderName::from_bytes(option).ok()).filter(
                |name| {
                    // An upstream that names these would break the message for the caller.
                    *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE
                },
            ),
        );
    }
    doomed.extend(headers.keys().filter(|name| forbidden.contains(name)).cloned());
    for name in doomed {
        headers.remove(name);
    }
}

/// What [`response`] removes.
pub fn response_names() -> NameSet {
    let mut names = NameSet::new();
    for name in HOP_BY_HOP.iter().chain(&[header::TE]) {
        names.insert(name);
    }
    names.insert_pattern("x-mintgate-*").unwrap_or_else(|bad| unreachable!("{bad}"));
    names
}
