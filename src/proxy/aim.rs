//! The head that an upstream gets: its target, its `Host`, and who called.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri, Version, request};

use crate::address::PeerAddress;
use crate::config::{Rewrite, Route, Wire};
use crate::headers;
use crate::listener::connection::{self, Connection, Forwarding};
use crate::proxy::pool::exchange::Protocol;
use crate::proxy::pool::{Lease, Pool};

/// What is known of a request's body before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    Empty,
    /// It was announced.
    Known,
    /// It ends when it ends.
    Unknown,
}

/// The rewritten target is not one.
#[derive(Debug, thiserror::Error)]
#[error("the rewritten request target is not valid")]
pub struct BadTarget(#[source] http::Error);

/// What is said of a request in one version of HTTP and not in the other, or of one address and not of the next: it is
/// decided when there is a connection, anew for each on which the request is sent.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    /// The caller's `Host` reaches the upstream.
    pub preserve_host: bool,
    /// The caller takes trailers: gRPC servers insist on being told.
    pub trailers: bool,
    /// What follows the head.
    pub body: Length,
}

/// Writes the head as HTTP/1.1 has it, towards the upstream: target, `Host`, framing, and what tells the upstream who
/// called. [`Aim::at`] makes of it what a connection needs.
///
/// `host` is what the caller named, `trusted` whether its forwarding headers were kept.
///
/// # Errors
/// When the rewritten target is not one.
pub fn write(
    head: &mut request::Parts,
    route: &Route,
    pool: &Pool,
    connection: &Connection,
    host: &HeaderValue,
    trusted: bool,
    body: Length,
) -> Result<(), BadTarget> {
    if let Some(target) = rewrite(&head.uri, &route.rewrite)? {
        head.uri = Uri::from(target);
    } else if head.uri.authority().is_some() {
        head.uri = origin_form(&head.uri);
    }
    // One `Host` was let in, so the caller's own stands there already; HTTP/2 may have had it in the target alone.
    if !route.preserve_host {
        head.headers.insert(header::HOST, pool.host().clone());
    } else if !head.headers.contains_key(header::HOST) {
        head.headers.insert(header::HOST, host.clone());
    }
    head.version = Version::HTTP_11;
    frame(&mut head.headers, &head.method, body);
    if connection.version() == connection::Version::Http2 && pool.upstream().wire != Wire::Http2 {
        join_cookies(&mut head.headers);
        trim_values(&mut head.headers);
    }
    introduce(&mut head.headers, connection, host, trusted);
    Ok(())
}

fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from)
}

fn frame(headers: &mut HeaderMap, method: &Method, body: Length) {
    match body {
        // RFC 9110 section 8.6: a method that anticipates content says so when there is none; some servers insist.
        Length::Empty if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        // hyper gives a GET or HEAD no body unless its head says that there is one.
        Length::Unknown => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Length::Empty | Length::Known => {}
    }
}

// === impl Aim ===

impl Aim {
    /// Makes a head fit for the connection that it is sent on, from whatever it was fit for before.
    ///
    /// # Errors
    /// When target and authority cannot be written as one.
    pub fn at(self, lease: &Lease, head: &mut request::Parts) -> Result<(), BadTarget> {
        match (lease.protocol(), head.version == Version::HTTP_2) {
            (Protocol::Http1, false) => {
                // With one address it is the one that was written.
                if !self.preserve_host && lease.is_chosen() {
                    head.headers.insert(header::HOST, lease.host().clone());
                }
            }
            (Protocol::Http1, true) => {
                let kept = head.uri.authority().filter(|_| self.preserve_host);
                // An authority is made of characters that a header may hold.
                let kept = kept.and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
                head.headers.insert(header::HOST, kept.unwrap_or_else(|| lease.host().clone()));
                head.uri = origin_form(&head.uri);
                head.headers.remove(header::TE);
                frame(&mut head.headers, &head.method, self.body);
                head.version = Version::HTTP_11;
            }
            (Protocol::Http2, again) => {
                let named = head.headers.remove(header::HOST);
                let kept = match named {
                    _ if !self.preserve_host => None,
                    Some(host) => Authority::try_from(host.as_bytes()).ok(),
                    None => head.uri.authority().filter(|_| again).cloned(),
                };
                let mut parts = http::uri::Parts::default();
                parts.scheme = Some(lease.scheme());
                parts.authority = Some(kept.unwrap_or_else(|| lease.address().authority.clone()));
                parts.path_and_query = head.uri.path_and_query().cloned();
                head.uri = Uri::from_parts(parts).map_err(|error| BadTarget(error.into()))?;
                head.headers.remove(header::TRANSFER_ENCODING);
                if self.trailers {
                    head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
                }
                head.version = Version::HTTP_2;
            }
        }
        Ok(())
    }
}

/// HTTP/2 callers may send one cookie a line; HTTP/1 has one line (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// HTTP/1 readers drop white space around a value, HTTP/2 keeps it: what is judged there must be what is judged here.
fn trim_values(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let trimmed = value.as_bytes().trim_ascii();
        if trimmed.len() < value.len()
            && let Ok(mut plain) = HeaderValue::from_bytes(trimmed)
        {
            plain.set_sensitive(value.is_sensitive());
            *value = plain;
        }
    }
}

/// The target with the route's rewriting applied; `None`: it stays as it is.
///
/// # Errors
/// When what comes of it is not a target.
pub fn rewrite(uri: &Uri, rule: &Rewrite) -> Result<Option<PathAndQuery>, BadTarget> {
    let (from, to) = match rule {
        Rewrite::Keep => return Ok(None),
        Rewrite::Strip(prefix) => (prefix.as_str(), ""),
        Rewrite::Replace { from, to } => (from.as_str(), to.as_str()),
    };
    let rest = uri.path().strip_prefix(from.trim_end_matches('/')).unwrap_or(uri.path());
    let mut target = String::with_capacity(to.len() + rest.len() + 1 + uri.query().map_or(0, |query| query.len() + 1));
    target.push_str(to.trim_end_matches('/'));
    target.push_str(rest);
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    PathAndQuery::try_from(target).map(Some).map_err(|error| BadTarget(error.into()))
}

/// Says who called. An untrusted caller's own words were removed before; a trusted one's are continued.
fn introduce(headers: &mut HeaderMap, connection: &Connection, host: &HeaderValue, trusted: bool) {
    let said = connection.forwarding(host, || forwarding(connection, host));
    let scheme = HeaderValue::from_static(connection.scheme());
    if trusted {
        // An element of ours alone would say another scheme, host or caller than the peer's `X-Forwarded-*`, and an
        // upstream may read either (RFC 7239 section 7.4). Before anything is added to these.
        let old = [headers::FORWARDED_FOR, headers::FORWARDED_PROTO, headers::FORWARDED_HOST];
        let apart = !headers.contains_key(headers::FORWARDED) && old.iter().any(|name| headers.contains_key(name));
        if let Some(peer) = &said.peer {
            continue_list(headers, headers::FORWARDED_FOR, peer);
        }
        if !apart {
            continue_list(headers, headers::FORWARDED, &said.forwarded);
        }
        headers.entry(headers::FORWARDED_PROTO).or_insert(scheme);
        headers.entry(headers::FORWARDED_HOST).or_insert(said.host);
    } else {
        // The cleaner has removed what the caller said, so an absent one stays absent.
        if let Some(peer) = said.peer {
            headers.insert(headers::FORWARDED_FOR, peer);
        }
        headers.insert(headers::FORWARDED, said.forwarded);
        headers.insert(headers::FORWARDED_PROTO, scheme);
        headers.insert(headers::FORWARDED_HOST, said.host);
    }
}

fn forwarding(connection: &Connection, host: &HeaderValue) -> Forwarding {
    let value = |text: String| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    let (peer, node) = match connection.ends.peer {
        PeerAddress::Tcp(address) => {
            let ip = address.ip().to_canonical();
            let peer = ip.to_string();
            // RFC 7239 section 6: an IPv6 address stands in brackets and quotes; a host with a port needs quotes too.
            let node = if ip.is_ipv6() { format!("\"[{peer}]\"") } else { peer.clone() };
            (Some(value(peer)), node)
        }
        PeerAddress::Unix => (None, "unknown".to_owned()),
    };
    let named = host.to_str().unwrap_or_default();
    Forwarding {
        // Copied, not cloned: it is kept with the connection, and a clone would keep the whole head's buffer.
        host: HeaderValue::from_bytes(host.as_bytes()).unwrap_or_else(|_| host.clone()),
        forwarded: value(format!("for={node};host=\"{named}\";proto={}", connection.scheme())),
        peer,
    }
}

/// Appends to the list that a trusted peer began; several lines of it become one.
fn continue_list(headers: &mut HeaderMap, name: header::HeaderName, element: &HeaderValue) {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    headers.insert(name, HeaderValue::try_from(list).unwrap_or_else(|_| element.clone()));
}
