//! Which requests are WebSocket upgrades, and which answers agree to one (RFC 6455 section 4). Over HTTP/2 a WebSocket is
//! asked for by an extended CONNECT (RFC 8441): it is made into the upgrade that it stands for.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use crate::headers;

/// What every server appends to the key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The one name of the protocol, as we write it.
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// A request that asks for another protocol on its connection, or on its stream of HTTP/2. hyper makes one out of every
/// HTTP/1.1 request with `Upgrade` and out of every CONNECT, so a request without costs a look at an empty map.
#[derive(Debug)]
pub struct Wish {
    /// Gives the caller's connection or stream away, once HTTP is over on it.
    pub connection: OnUpgrade,
    protocol: Protocol,
    /// Whether it is a stream, whose connection goes on without it.
    pub is_stream: bool,
}

/// What a request with `Upgrade` asks for.
#[derive(Debug)]
pub enum Protocol {
    /// A valid WebSocket handshake.
    WebSocket(Handshake),
    /// It says WebSocket, and is not a valid handshake.
    Invalid(Fault),
    /// h2c, and whatever else: never granted, and no more than a header to be removed.
    Other,
}

/// The first rule of RFC 6455 section 4.2.1 that a handshake breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(pub &'static str);

/// The part of a valid handshake that the upstream has to answer.
#[derive(Debug, Clone)]
pub struct Handshake {
    key: HeaderValue,
    accept: [u8; 28],
    /// Whether the caller takes every success for an agreement (RFC 8441 section 5).
    is_stream: bool,
}

/// The upstream's answer is neither an agreement to the handshake that it got nor a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's answer does not agree to the WebSocket handshake: {0}")]
pub struct BadAgreement(&'static str);

/// Whether a head says WebSocket, in a valid handshake or not and of whatever version. Everything else that `Upgrade`
/// offers, such as the h2c of some clients, is never granted and changes nothing.
pub fn wishes_websocket(headers: &HeaderMap) -> bool {
    protocols(headers).any(|protocol| {
        let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"websocket")
    })
}

/// Makes of an extended CONNECT for a WebSocket the GET that it stands for, with a key of our own: the upstream gets that,
/// and whatever is judged on the way is judged as for an upgrade. Every other CONNECT stays one, to be refused as such.
pub fn extended<B>(request: &mut Request<B>) {
    let protocol = request.extensions().get::<hyper::ext::Protocol>();
    if !protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket")) {
        return;
    }
    *request.method_mut() = Method::GET;
    let mut key = [0; 24];
    // 16 bytes are 24 characters, always.
    let _ = STANDARD.encode_slice(fastrand::u128(..).to_le_bytes(), &mut key);
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, WEBSOCKET);
    // A key of the caller's has no meaning over HTTP/2 (RFC 8441 section 5).
    if let Ok(key) = HeaderValue::from_bytes(&key) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::UPGRADE).iter().flat_map(headers::elements)
}

// === impl Protocol ===

impl Protocol {
    /// Judges the head of a request with or without a body.
    pub fn of(head: &Parts, has_body: bool) -> Self {
        if !wishes_websocket(&head.headers) {
            return Self::Other;
        }
        let exact = protocols(&head.headers).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
        let read = if !exact {
            Err(Fault("Upgrade names a version of websocket, not websocket itself"))
        } else if head.method != Method::GET {
            Err(Fault("its method is not GET"))
        } else if has_body {
            Err(Fault("it has a body"))
        } else {
            Handshake::read(&head.headers, head.version == Version::HTTP_2)
        };
        read.map_or_else(Self::Invalid, Self::WebSocket)
    }
}

// === impl Wish ===

impl Wish {
    /// What the request asks for; takes the connection out of its head.
    pub fn of(head: &mut Parts, body: &impl Body) -> Option<Self> {
        let connection = head.extensions.remove::<OnUpgrade>()?;
        let protocol = Protocol::of(head, !body.is_end_stream());
        Some(Self { connection, protocol, is_stream: head.version == Version::HTTP_2 })
    }

    /// Why a stream's handshake cannot be forwarded. Over HTTP/1.1 a broken one is an ordinary request; here every success
    /// would tell the caller that its WebSocket is open.
    pub fn fault(&self) -> Option<Fault> {
        if let (Protocol::Invalid(fault), true) = (&self.protocol, self.is_stream) { Some(*fault) } else { None }
    }

    /// The handshake, when it is a valid one.
    pub fn handshake(&self) -> Option<&Handshake> {
        if let Protocol::WebSocket(handshake) = &self.protocol { Some(handshake) } else { None }
    }

    /// Whether a caller that is refused may have sent bytes that it takes for frames: they must not be read as its next
    /// request, so its connection ends with the answer (RFC 9931).
    pub fn closes_when_refused(&self) -> bool {
        !matches!(self.protocol, Protocol::Other)
    }
}

// === impl BadAgreement ===

impl BadAgreement {
    /// It agrees to an extension that it was not offered: what its frames say, nobody here could tell.
    pub const EXTENSION: Self = Self("it agrees to an extension that it was not offered");
}

// === impl Handshake ===

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Whether `Connection` names `Upgrade`.
fn names_upgrade(headers: &HeaderMap) -> bool {
    headers::connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

impl Handshake {
    /// RFC 6455 section 4.2.1, without the parts that the caller of this has looked at.
    fn read(headers: &HeaderMap, is_stream: bool) -> Result<Self, Fault> {
        if !names_upgrade(headers) {
            return Err(Fault("Connection does not name Upgrade"));
        }
        if one(headers, &header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(Fault("Sec-WebSocket-Version is not 13, once"));
        }
        let key =
            one(headers, &header::SEC_WEBSOCKET_KEY).ok_or(Fault("Sec-WebSocket-Key does not stand there once"))?;
        if STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16) {
            Ok(Self { key: key.clone(), accept: accept(key.as_bytes()), is_stream })
        } else {
            Err(Fault("Sec-WebSocket-Key is not 16 bytes in base64"))
        }
    }

    /// Puts the handshake into a cleaned head, as our own to the upstream: nothing that the caller's `Connection` named
    /// can be missing from it. Without `extensions` none is offered: what is read must not be compressed.
    pub fn ask(&self, headers: &mut HeaderMap, extensions: bool) {
        if !extensions {
            headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, WEBSOCKET);
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(header::SEC_WEBSOCKET_KEY, self.key.clone());
    }

    /// Whether an answer agrees (RFC 6455 section 4.1).
    ///
    /// # Errors
    /// When it agrees to something else, or the caller would take it for an agreement.
    pub fn is_agreed<B>(&self, response: &Response<B>) -> Result<bool, BadAgreement> {
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            success if success.is_success() && self.is_stream => {
                return Err(BadAgreement("it is a success without 101"));
            }
            _ => return Ok(false),
        }
        let headers = response.headers();
        if !one(headers, &header::UPGRADE).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            return Err(BadAgreement("Upgrade is not websocket"));
        }
        if !names_upgrade(headers) {
            return Err(BadAgreement("Connection does not name Upgrade"));
        }
        if one(headers, &header::SEC_WEBSOCKET_ACCEPT).is_none_or(|it| it.as_bytes() != self.accept) {
            return Err(BadAgreement("Sec-WebSocket-Accept does not answer the key"));
        }
        Ok(true)
    }
}

/// Makes of the head of a 101, cleaned for the caller, the agreement that it is told.
pub fn agree<B>(response: &mut Response<B>, is_stream: bool) {
    let headers = response.headers_mut();
    // A 101 has no content (RFC 9110 section 8.6).
    headers.remove(header::CONTENT_LENGTH);
    if is_stream {
        // It answers our key.
        headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        *response.status_mut() = StatusCode::OK;
        return;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, WEBSOCKET);
}

fn accept(key: &[u8]) -> [u8; 28] {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID);
    let mut text = [0; 28];
    // 20 bytes are 28 characters, always.
    let _ = STANDARD.encode_slice(hash.finish(), &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_bytes() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        for (key, valid) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", true),
            ("dGhlIHNhbXBsZSBub25jZQ", false),
            ("dGhlIHNhbXBsZSBub25jZR==", false),
            ("dGhlIHNhbXBsZSBub25j", false),
            ("", false),
        ] {
            headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static(key));
            assert_eq!(Handshake::read(&headers, false).is_ok(), valid, "{key}");
        }
    }
}
