//! The upstreams of the soak, HTTP/1.1 and HTTP/2: each answer says whose token came with the request, and repeats what
//! the caller marked it with. They break off, and can be told to mix up their answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mintgate::lifecycle::Spawner;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::weather::{Trouble, Weather};
use crate::support::websocket::{accept, agreement, frame};
use crate::support::wire::{Message, Wire};

/// Bytes of a large answer, about.
const LARGE: usize = 96 * 1024;

/// One of so many requests is mixed up.
const MIXED: u32 = 500;

/// What is to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    None = 0,
    /// Some answers are those to another request.
    Answers = 1,
    /// Some requests carry the token of another one, as if a gateway had injected it.
    Tokens = 2,
}

/// What both upstreams share.
pub(crate) struct Stage {
    pub(crate) weather: Arc<Weather>,
    fault: AtomicU8,
    /// What was kept back, to be given to somebody else.
    kept: Mutex<Option<Vec<u8>>>,
}

/// What an upstream says of a request.
pub(crate) struct Heard<'a> {
    pub(crate) token: &'a str,
    pub(crate) user: &'a str,
    pub(crate) marker: &'a str,
    pub(crate) target: &'a str,
    pub(crate) body: &'a [u8],
}

/// How a connection to the upstream goes on.
#[derive(PartialEq, Eq)]
enum Turn {
    Answer,
    AnswerAndClose,
    CloseInside,
    Close,
}

// === impl Stage ===

impl Stage {
    pub(crate) fn new(weather: Arc<Weather>, fault: Fault) -> Arc<Self> {
        Arc::new(Self { weather, fault: AtomicU8::new(fault as u8), kept: Mutex::default() })
    }

    fn turn(&self) -> Turn {
        if self.weather.now() != Trouble::Resets {
            return Turn::Answer;
        }
        match fastrand::u8(0..16) {
            0 => Turn::AnswerAndClose,
            1 => Turn::CloseInside,
            2 => Turn::Close,
            _ => Turn::Answer,
        }
    }

    /// The body that answers.
    fn echo(&self, heard: &Heard<'_>) -> Vec<u8> {
        let fault = self.fault.load(Relaxed);
        let mixed = fault != Fault::None as u8 && fastrand::u32(0..MIXED) == 0;
        if mixed && fault == Fault::Tokens as u8 {
            let own = heard.token.as_bytes().to_vec();
            let other = self.kept.lock().unwrap().replace(own).unwrap_or_default();
            let token = std::str::from_utf8(&other).unwrap();
            return Heard { token, ..*heard }.repeat();
        }
        let own = heard.repeat();
        if mixed { self.kept.lock().unwrap().replace(own).unwrap_or_default() } else { own }
    }
}

// === impl Heard ===

impl<'a> Heard<'a> {
    fn of(request: &'a Message) -> Self {
        let one = |name| request.one(name).unwrap_or_default();
        let target = request.start.split(' ').nth(1).unwrap_or_default();
        let (token, user, marker) = (one("authorization"), one("x-user-id"), one("x-marker"));
        Self { token, user, marker, target, body: &request.body }
    }

    /// Five lines, the last of them without an end; many times in a large answer.
    fn repeat(&self) -> Vec<u8> {
        let Self { token, user, marker, target, body } = self;
        let mut text = format!("{token}\n{user}\n{marker}\n{target}\n").into_bytes();
        text.extend_from_slice(body);
        if target.contains("large") {
            text.push(b'\n');
            text = text.repeat(LARGE / text.len() + 1);
        }
        text
    }
}

// === HTTP/1.1 ===

/// Serves HTTP/1.1 and WebSockets.
pub(crate) async fn http1(stage: &Arc<Stage>) -> SocketAddr {
    let stage = Arc::clone(stage);
    listen(move |stream, tasks| {
        let stage = Arc::clone(&stage);
        drop(tasks.spawn(async move { visit(stream, &stage).await }));
    })
    .await
}

async fn visit(stream: TcpStream, stage: &Stage) {
    let mut storms = stage.weather.storms();
    let mut wire = Wire::new(stream);
    loop {
        tokio::select! {
            () = wire.wait() => {}
            _ = storms.changed() => return,
        }
        let Ok(Some(request)) = wire.request().await else { return };
        if request.one("upgrade").is_some() {
            return tunnel(wire, &request, stage).await;
        }
        let turn = stage.turn();
        if turn == Turn::Close {
            return;
        }
        let heard = Heard::of(&request);
        let body = stage.echo(&heard);
        let mut answer = Vec::with_capacity(body.len() + 200);
        let marker = heard.marker;
        if heard.target.contains("chunked") {
            answer
                .extend(format!("HTTP/1.1 200 OK\r\nx-marker: {marker}\r\ntransfer-encoding: chunked\r\n\r\n").bytes());
            for chunk in body.chunks(1000.max(body.len() / 3)) {
                answer.extend(format!("{:x}\r\n", chunk.len()).bytes());
                answer.extend_from_slice(chunk);
                answer.extend(b"\r\n");
            }
            answer.extend(b"0\r\n\r\n");
        } else {
            let length = body.len();
            answer.extend(format!("HTTP/1.1 200 OK\r\nx-marker: {marker}\r\ncontent-length: {length}\r\n\r\n").bytes());
            answer.extend(body);
        }
        if turn == Turn::CloseInside {
            answer.truncate(fastrand::usize(0..answer.len()));
        }
        // The caller of a large answer may be gone.
        if wire.try_send(&answer).await.is_err() || turn != Turn::Answer {
            return;
        }
    }
}

/// The first message says whose it is; each message is answered with the same before it.
async fn tunnel(mut wire: Wire, request: &Message, stage: &Stage) {
    let key = request.one("sec-websocket-key").unwrap_or_default();
    wire.send(agreement(&accept(key))).await;
    let heard = Heard::of(request);
    wire.send(frame(0x82, &stage.echo(&heard))).await;
    let mut storms = stage.weather.storms();
    loop {
        tokio::select! {
            () = wire.wait() => {}
            _ = storms.changed() => return,
        }
        let Ok(got) = wire.frame().await else { return };
        if got.first == 0x88 {
            wire.send(frame(0x88, &got.payload)).await;
            let _ = wire.until_closed().await;
            return;
        }
        wire.send(frame(0x82, &stage.echo(&Heard { body: &got.payload, ..heard }))).await;
    }
}

// === HTTP/2 ===

/// Serves HTTP/2 with prior knowledge.
pub(crate) async fn http2(stage: &Arc<Stage>) -> SocketAddr {
    let (stage, http) = (Arc::clone(stage), http2::Builder::new(Spawner::current()));
    listen(move |stream, tasks| {
        let (here, mut storms) = (Arc::clone(&stage), stage.weather.storms());
        let service = service_fn(move |request| answer(Arc::clone(&here), request));
        let connection = http.serve_connection(TokioIo::new(stream), service);
        drop(tasks.spawn(async move {
            tokio::select! {
                _ = connection => {}
                _ = storms.changed() => {}
            }
        }));
    })
    .await
}

type Broken = Box<dyn std::error::Error + Send + Sync>;
type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Broken>>>;

async fn answer(stage: Arc<Stage>, request: Request<Incoming>) -> Result<Response<StreamBody<Frames>>, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let turn = stage.turn();
    if turn == Turn::Close {
        return Err("closed".into());
    }
    let one = |name| head.headers.get(name).map_or("", |value| value.to_str().unwrap_or_default());
    let (token, user, marker) = (one("authorization"), one("x-user-id"), one("x-marker"));
    let heard = Heard { token, user, marker, target: head.uri.path(), body: &body };
    let mut echo = Bytes::from(stage.echo(&heard));
    let rest = echo.split_off(echo.len() / 2);
    let end = if turn == Turn::CloseInside { Err("broken off".into()) } else { Ok(Frame::data(rest)) };
    let frames = futures_util::stream::iter(vec![Ok(Frame::data(echo)), end]);
    Ok(Response::builder().header("x-marker", marker).body(StreamBody::new(frames))?)
}

// === both ===

/// Half of the connections are reset when they are dropped.
async fn listen(mut serve: impl FnMut(TcpStream, &Spawner) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tasks) = (listener.local_addr().unwrap(), Spawner::current());
    let here = tasks.clone();
    drop(tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            if fastrand::bool() {
                SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
            serve(stream, &here);
        }
    }));
    address
}
