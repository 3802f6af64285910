//! What is asked of a request's head before anything is decided: that everybody after us reads it as we do.

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Uri, Version, request::Parts};
use http_body::Body;
use hyper::ext::Protocol;

use crate::address::BoundAddress;
use crate::headers;
use crate::listener::connection::{Connection, Secured};
use crate::metrics::ListenerId;
use crate::proxy::error::Error;
use crate::proxy::gateway::Plans;
use crate::route::{RouteError, check_host};
use crate::session::guard::OwnOrigin;

/// Where a request wants to go.
#[derive(Debug)]
pub struct Target<'a> {
    /// The host that it names.
    pub host: Host<'a>,
    /// The raw path.
    pub path: &'a str,
    /// The scheme of the connection that it came on.
    pub scheme: &'static str,
    /// The listener that it came through.
    pub listener: ListenerId,
    /// Who forwards it.
    pub carrier: Carrier<'a>,
}

/// Who forwards a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier<'a> {
    /// The gateway, to which it came on a listener that is bound there.
    Gateway(&'a BoundAddress),
    /// A proxy, which has only asked what it may do. Where the request came from nobody can tell here.
    Proxy,
}

/// The host as the caller wrote it, checked.
#[derive(Debug)]
pub enum Host<'a> {
    /// From `Host`.
    Header(&'a HeaderValue, &'a str),
    /// From the target: HTTP/2, or the absolute form of HTTP/1.
    Authority(&'a str),
}

// === impl Host, Target ===

impl Host<'_> {
    /// Its text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Header(_, text) | Self::Authority(text) => text,
        }
    }

    /// As a header; shares the request's bytes where it was one.
    pub fn into_header(self) -> HeaderValue {
        match self {
            Self::Header(value, _) => value.clone(),
            // A checked host is made of characters that a header may hold.
            Self::Authority(text) => HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")),
        }
    }
}

impl Target<'_> {
    /// The origin that the request itself has, for the cookie guard: the connection's scheme with Host, or what a
    /// trusted peer says.
    ///
    /// # Errors
    /// When a trusted peer says two things.
    pub fn origin<'a>(&'a self, head: &'a Parts, trusted: bool) -> Result<OwnOrigin<'a>, Error> {
        let said = |name: &HeaderName| {
            let mut lines = head.headers.get_all(name).iter().filter(|_| trusted);
            match (lines.next(), lines.next()) {
                (None, _) => Ok(None),
                (Some(line), None) => Ok(line.to_str().ok()),
                (Some(_), Some(_)) => Err(Error::Malformed("a trusted peer names two origins")),
            }
        };
        Ok(OwnOrigin {
            scheme: said(&headers::FORWARDED_PROTO)?.unwrap_or(self.scheme),
            authority: said(&headers::FORWARDED_HOST)?.unwrap_or(self.host.as_str()),
        })
    }
}

/// Checks the head and finds where it wants to go.
///
/// # Errors
/// Ambiguity in host, target form or framing, or a limit that is exceeded.
pub fn target<'a>(
    head: &'a Parts,
    body: &impl Body,
    plans: &Plans,
    connection: &'a Connection,
) -> Result<Target<'a>, Error> {
    served(head)?;
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
        let (first, second) = (codings.next(), codings.next());
        if second.is_some() || first.is_none_or(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Err(Error::Malformed("Transfer-Encoding is not one chunked"));
        }
    }
    if head.headers.contains_key(header::EXPECT) {
        // Every line: who reads another one than we do would meet another expectation.
        let mut expected = head.headers.get_all(header::EXPECT).iter();
        if !expected.all(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return Err(Error::Expectation);
        }
    }
    if head_bytes(head) > plans.max_header_bytes {
        return Err(Error::HeadTooLarge);
    }
    let host = host(head)?;
    check_host(host.as_str())?;
    if let Some(secured) = &connection.secured {
        directed(head, host.as_str(), secured)?;
    }
    let path = short_path(&head.uri, plans)?;
    if too_large(body, plans) {
        return Err(Error::BodyTooLarge);
    }
    Ok(Target {
        host,
        path,
        scheme: connection.scheme(),
        listener: connection.ends.listener,
        carrier: Carrier::Gateway(&connection.ends.local),
    })
}

/// The same for the head of a request that a proxy forwards: it speaks of the caller's request, whose framing and
/// connection are the proxy's own business. The target has an authority. `scheme` is empty where nobody has said which.
///
/// # Errors
/// Ambiguity in the host, or a limit that is exceeded.
pub fn carried<'a>(
    head: &'a Parts,
    plans: &Plans,
    scheme: &'static str,
    listener: ListenerId,
) -> Result<Target<'a>, Error> {
    served(head)?;
    if head_bytes(head) > plans.max_header_bytes {
        return Err(Error::HeadTooLarge);
    }
    let authority = head.uri.authority().ok_or(Error::Malformed("no Host"))?;
    check_host(authority.as_str())?;
    let path = short_path(&head.uri, plans)?;
    Ok(Target { host: Host::Authority(authority.as_str()), path, scheme, listener, carrier: Carrier::Proxy })
}

/// CONNECT is none of ours, and TRACE would show the caller what was injected (RFC 9110 section 9.3.8).
fn served(head: &Parts) -> Result<(), Error> {
    match head.method {
        // An extended one for a WebSocket is none any more here.
        Method::CONNECT if head.extensions.get::<Protocol>().is_some() => {
            Err(Error::NotSpoken(":protocol is not websocket"))
        }
        Method::CONNECT | Method::TRACE => Err(RouteError::MethodNotAllowed { allow: Vec::new() }.into()),
        _ => Ok(()),
    }
}

fn short_path<'a>(uri: &'a Uri, plans: &Plans) -> Result<&'a str, Error> {
    let path = uri.path();
    if path.len() + uri.query().map_or(0, |query| query.len() + 1) > plans.max_uri_bytes {
        return Err(Error::UriTooLong);
    }
    Ok(path)
}

/// RFC 9110 sections 7.4 and 15.5.20: what was asked for on this connection must be what its handshake has vouched for.
/// An HTTP/2 client may send here what it wants of another name, when the certificate is that one's too.
fn directed(head: &Parts, authority: &str, secured: &Secured) -> Result<(), Error> {
    if head.uri.scheme_str() == Some("http") {
        return Err(Error::Misdirected);
    }
    let Some(name) = &secured.server_name else { return Ok(()) };
    let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
    if host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(name) || secured.leaf.covers(authority) {
        Ok(())
    } else {
        Err(Error::Misdirected)
    }
}

fn too_large(body: &impl Body, plans: &Plans) -> bool {
    plans.max_body_bytes.is_some_and(|limit| body.size_hint().lower() > limit)
}

/// RFC 9112 section 3.2: exactly one `Host`, or the target's own authority, and never two that differ.
///
/// # Errors
/// When there is none, or more than one reading of it.
pub fn host(head: &Parts) -> Result<Host<'_>, Error> {
    let mut lines = head.headers.get_all(header::HOST).iter();
    let (first, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(Error::Malformed("more than one Host"));
    }
    match (head.uri.authority(), first) {
        (None, None) => Err(Error::Malformed("no Host")),
        // The absolute form of HTTP/1 names its host twice.
        (Some(_), None) if head.version < Version::HTTP_2 => Err(Error::Malformed("no Host")),
        (None, Some(value)) => {
            let text = value.to_str().map_err(|_| Error::Malformed("Host is not a host"))?;
            Ok(Host::Header(value, text))
        }
        (Some(authority), named) => {
            if authority.as_str().contains('@') {
                return Err(Error::Malformed("user info in the target"));
            }
            if !head.uri.scheme_str().is_none_or(|scheme| scheme == "http" || scheme == "https") {
                return Err(Error::Malformed("the target's scheme is neither http nor https"));
            }
            if named.is_some_and(|named| !named.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
                return Err(Error::Malformed("Host and the target's authority differ"));
            }
            Ok(Host::Authority(authority.as_str()))
        }
    }
}

/// The method that a CORS preflight asks for (Fetch standard, CORS-preflight request).
pub fn preflight(head: &Parts) -> Option<Method> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(header::ORIGIN) {
        return None;
    }
    let method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(method.as_bytes()).ok()
}

/// Whether the caller takes trailers: gRPC servers insist on being told.
pub fn accepts_trailers(head: &Parts) -> bool {
    head.headers
        .get_all(header::TE)
        .iter()
        .flat_map(headers::elements)
        .any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Bytes of the head, as HTTP/1 would write it.
pub fn head_bytes(head: &Parts) -> usize {
    let line = head.method.as_str().len() + head.uri.path().len() + head.uri.query().map_or(0, |query| query.len() + 1);
    let lines: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    line + " HTTP/1.1\r\n".len() + 1 + lines + 2
}

/// Whether the head is small enough for the upstream. `injected`: how much of it is ours.
///
/// # Errors
/// [`Error::Unfit`] where what we add is too much, [`Error::HeadTooLarge`] where the caller's own is.
pub fn fits(head: &Parts, injected: usize, limit: usize) -> Result<(), Error> {
    match head_bytes(head) {
        bytes if bytes <= limit => Ok(()),
        bytes if bytes - injected.min(bytes) > limit => Err(Error::HeadTooLarge),
        _ => Err(Error::Unfit("the request head is too large for the upstream")),
    }
}
