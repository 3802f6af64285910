//! WebSocket frames by hand, and an upstream that agrees to every handshake.

use std::future::Future;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::http2::{self, Client};
use super::upstream::{Upstream, Visit};
use super::wire::{Message, NotStrict, Wire};

/// The handshake of RFC 6455 section 1.3, without what a test adds to it.
pub(crate) const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The answer to its key.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, the reserved bits and the opcode.
    pub(crate) first: u8,
    pub(crate) masked: bool,
    /// Unmasked.
    pub(crate) payload: Vec<u8>,
}

/// A whole GET that asks for a WebSocket; every header line ends in `\r\n`.
pub(crate) fn open(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n{HANDSHAKE}{headers}\r\n")
}

/// The value that answers a key.
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// A frame's bytes, as a server sends it.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, 0, payload.len()), payload].concat()
}

/// A frame's bytes, as a client sends it.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = [&head(first, 0x80, payload.len())[..], &key].concat();
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn head(first: u8, mask: u8, length: usize) -> Vec<u8> {
    match length {
        0..126 => vec![first, mask | u8::try_from(length).unwrap()],
        126..65_536 => [&[first, mask | 0x7e][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
        _ => [&[first, mask | 0x7f][..], &(length as u64).to_be_bytes()].concat(),
    }
}

/// An upstream that agrees to every handshake, to the subprotocol too, and then runs the script.
pub(crate) async fn agreeing<F, Fut>(script: F) -> Upstream
where
    F: Fn(Visit) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Upstream::scripted(move |mut visit| {
        let script = script.clone();
        async move {
            let Some(request) = visit.request().await else { return };
            let key = request.one("sec-websocket-key").unwrap();
            let lines = request.one("sec-websocket-protocol").map(|name| format!("sec-websocket-protocol: {name}\r\n"));
            let agreement =
                agreement(&accept(key)).replace("\r\n\r\n", &format!("\r\n{}\r\n", lines.unwrap_or_default()));
            visit.wire.send(agreement).await;
            script(visit).await;
        }
    })
    .await
}

/// One that sends every frame back until the caller closes, and then closes as well.
pub(crate) async fn echo() -> Upstream {
    agreeing(|mut visit| async move {
        loop {
            visit.wire.wait().await;
            let Ok(got) = visit.wire.frame().await else { return };
            visit.wire.send(frame(got.first, &got.payload)).await;
            if got.first == 0x88 {
                return;
            }
        }
    })
    .await
}

/// A 101 with this accept value.
pub(crate) fn agreement(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: WebSocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )
}

// === impl Client ===

impl Client {
    /// Asks for another protocol on a stream (RFC 8441), with the one header that WebSocket needs. Only once the settings of
    /// the other end are there.
    pub(crate) async fn connect_as(
        &mut self,
        protocol: &'static str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let mut request = Request::connect(format!("http://gateway.test{path}"))
            .header("sec-websocket-version", "13")
            .extension(hyper::ext::Protocol::from_static(protocol));
        for (name, value) in headers {
            request.headers_mut().unwrap().insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        self.send(request.body(http2::empty()).unwrap()).await.unwrap()
    }

    /// Opens a WebSocket on a stream.
    ///
    /// # Panics
    /// When it is refused.
    pub(crate) async fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> (HeaderMap, Wire) {
        let answer = self.connect_as("websocket", path, headers).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let headers = answer.headers().clone();
        (headers, Wire::over(TokioIo::new(hyper::upgrade::on(answer).await.unwrap())))
    }
}

// === impl Wire ===

impl Wire {
    /// Opens a WebSocket.
    ///
    /// # Panics
    /// When it is refused.
    pub(crate) async fn open(&mut self, path: &str, headers: &str) -> Message {
        let answer = self.ask(open(path, headers)).await;
        assert_eq!(answer.status(), 101, "{answer:?}");
        answer
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Result<Frame, NotStrict> {
        let head = self.take(2).await?;
        let masked = head[1] & 0x80 != 0;
        let length = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.take(2).await?.try_into().unwrap())),
            127 => u64::from_be_bytes(self.take(8).await?.try_into().unwrap()),
            short => u64::from(short),
        };
        let key = if masked { self.take(4).await? } else { vec![0; 4] };
        let payload = self.take(usize::try_from(length).unwrap()).await?;
        let payload = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        Ok(Frame { first: head[0], masked, payload })
    }

    /// The close frame that must come next: whether it is masked, its code and its reason.
    ///
    /// # Panics
    /// When something else comes.
    pub(crate) async fn closing(&mut self) -> (bool, u16, String) {
        let frame = self.frame().await.unwrap();
        assert_eq!(frame.first, 0x88, "{frame:?}");
        let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
        (frame.masked, code, String::from_utf8(frame.payload[2..].to_vec()).unwrap())
    }
}
