//! Callers over HTTP/1.1, HTTP/2 and WebSockets, those that stay and those that leave in the middle. Users share
//! connections: each request is another's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::net::TcpStream;

use super::tally::{Kind, Tally};
use super::users::{Answer, Question, Users, Verdict};
use super::weather::Weather;
use crate::support::gateway::PARTY;
use crate::support::http2::{Body, Client, empty, full};
use crate::support::websocket::{masked, open};
use crate::support::wire::{NotStrict, Wire};

/// Requests under way at a time on an HTTP/2 connection.
const STREAMS: usize = 6;

/// Messages on a WebSocket.
const MESSAGES: usize = 20;

/// What all callers share.
pub(crate) struct Crowd {
    pub(crate) address: SocketAddr,
    pub(crate) users: Arc<Users>,
    pub(crate) weather: Arc<Weather>,
    pub(crate) tally: Tally,
    pub(crate) asked: AtomicU64,
    pub(crate) over: AtomicBool,
}

// === impl Crowd ===

impl Crowd {
    /// The next question; `None`: enough was asked.
    fn next(&self) -> Option<Question> {
        if self.over.load(Relaxed) {
            return None;
        }
        Some(self.users.ask(self.asked.fetch_add(1, Relaxed)))
    }

    fn fail(&self, name: &str) {
        self.tally.failure(name, self.weather.excuses(name));
    }

    fn count(&self, kind: Kind, verdict: Verdict) {
        match verdict {
            Verdict::Own => self.tally.good(kind),
            Verdict::Refused(code) => self.fail(&code),
            Verdict::Crossing(what) => self.tally.crossing(what),
        }
    }

    /// An answer that did not come whole.
    fn missing(&self, kind: Kind, question: &Question, error: &NotStrict) {
        if error.is_cut() {
            self.fail(&format!("cut over {kind:?}"));
        } else {
            self.count(kind, question.crossing(&format!("{error:?}")));
        }
    }

    /// A request was sent behind the last one of its connection, for whose end there was this reason.
    fn cut_behind(&self, refusal: &str) {
        let excused = self.weather.excuses("cut") || self.weather.excuses(refusal);
        self.tally.failure("cut behind a refusal", excused);
    }

    /// A connection to the gateway, which never refuses one.
    async fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.address).await.unwrap())
    }
}

fn http1_request(question: &Question) -> Vec<u8> {
    let (lines, target, body) = (question.lines(), &question.target, &question.body);
    if body.is_empty() {
        return format!("GET {target} HTTP/1.1\r\nHost: soak.test\r\n{lines}\r\n").into_bytes();
    }
    let head = format!("POST {target} HTTP/1.1\r\nHost: soak.test\r\n{lines}");
    if fastrand::bool() {
        return [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    }
    let (one, two) = body.split_at(body.len() / 2 + 1);
    let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", one.len()).into_bytes();
    bytes.extend_from_slice(one);
    bytes.extend(b"\r\n");
    if !two.is_empty() {
        bytes.extend(format!("{:x}\r\n", two.len()).bytes());
        bytes.extend_from_slice(two);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// Asks on one connection, up to three questions at once, and opens another one when it was closed.
pub(crate) async fn http1(crowd: Arc<Crowd>) {
    let mut kept = None;
    loop {
        let count = if fastrand::u8(0..8) == 0 { 3 } else { 1 };
        let questions: Vec<Question> = (0..count).map_while(|_| crowd.next()).collect();
        if questions.is_empty() {
            return;
        }
        let (mut wire, mut refusal) = match kept.take() {
            Some(kept) => kept,
            None => (crowd.connect().await, String::new()),
        };
        wire.send(questions.iter().flat_map(http1_request).collect::<Vec<_>>()).await;
        let mut open = true;
        for question in &questions {
            if !open {
                crowd.cut_behind(&refusal);
                continue;
            }
            match wire.response_to("GET").await {
                Ok(got) => {
                    let code = got.one("x-mintgate-error").unwrap_or_default();
                    let marker = got.one("x-marker").unwrap_or_default();
                    let answer = Answer { status: got.status(), code, marker, body: &got.body };
                    crowd.count(Kind::Http1, question.judge(&answer));
                    open = got.one("connection") != Some("close");
                    code.clone_into(&mut refusal);
                }
                // Of a body that had not come whole when it was refused nothing more is read: the connection is over.
                Err(error) if error.is_cut() && !refusal.is_empty() => {
                    crowd.cut_behind(&refusal);
                    open = false;
                }
                Err(error) => {
                    crowd.missing(Kind::Http1, question, &error);
                    open = false;
                }
            }
        }
        kept = open.then_some((wire, refusal));
    }
}

/// Leaves before, within and after the answer's head, and within the body of the request.
pub(crate) async fn http1_leaving(crowd: Arc<Crowd>) {
    while let Some(mut question) = crowd.next() {
        question.target = question.target.replace("plain", "large");
        let mut wire = crowd.connect().await;
        let request = http1_request(&question);
        match fastrand::u8(0..4) {
            0 => wire.send(&request[..request.len() / 2]).await,
            1 => wire.send(&request[..request.len() - 1]).await,
            2 => {
                wire.send(&request).await;
                tokio::time::sleep(Duration::from_micros(fastrand::u64(0..3000))).await;
            }
            _ => {
                wire.send(&request).await;
                let _ = wire.response_head().await;
            }
        }
        crowd.tally.good(Kind::Cancelled);
    }
}

/// Opens a WebSocket, is told whose it is, and exchanges messages. Leaves in the middle, or says goodbye.
pub(crate) async fn websocket(crowd: Arc<Crowd>) {
    while let Some(mut question) = crowd.next() {
        question.body.clear();
        question.target = format!("/one/plain/{}", question.marker);
        let mut wire = crowd.connect().await;
        wire.send(open(&question.target, &question.lines())).await;
        let answer = match wire.response_to("GET").await {
            Ok(answer) => answer,
            Err(error) => {
                crowd.missing(Kind::WebSocket, &question, &error);
                continue;
            }
        };
        let (status, code) = answer.outcome();
        if status != 101 {
            let verdict = question.judge(&Answer { status, code, marker: "", body: b"" });
            crowd.count(Kind::WebSocket, verdict);
            continue;
        }
        let mut kind = Kind::WebSocket;
        for number in 0..fastrand::usize(1..=MESSAGES) {
            // A close frame says that the upstream is gone.
            let Some(frame) = wire.frame().await.ok().filter(|frame| frame.first != 0x88) else {
                crowd.fail("cut between messages");
                break;
            };
            crowd.count(kind, question.judge_body(&frame.payload));
            kind = Kind::Message;
            question.body = format!("{}/{number}", question.marker).repeat(fastrand::usize(1..50)).into_bytes();
            wire.send(masked(0x82, &question.body)).await;
        }
        if fastrand::bool() {
            wire.send(masked(0x88, &1000_u16.to_be_bytes())).await;
            while let Ok(frame) = wire.frame().await
                && frame.first != 0x88
            {}
        }
    }
}

fn http2_request(crowd: &Crowd, question: &Question, body: Body) -> Request<Body> {
    let method = if question.body.is_empty() { "GET" } else { "POST" };
    let url = format!("http://{}{}", crowd.address, question.target);
    let request = Request::builder().method(method).uri(url).header("x-marker", &question.marker);
    let request = if fastrand::u8(0..4) == 0 {
        request.header("origin", PARTY).header("cookie", question.cookie())
    } else {
        request.header("authorization", format!("Bearer {}", question.session_token))
    };
    request.body(body).unwrap()
}

/// Whether a request was never taken up, since its connection was told to end before (RFC 9113 section 6.8): it was not sent,
/// or its stream lies beyond the last one that the GOAWAY names.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let named = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_canceled()
        || named.is_some_and(|named| {
            named.is_go_away() && named.is_remote() && named.reason() == Some(h2::Reason::NO_ERROR)
        })
}

async fn http2_asking(crowd: &Crowd, client: Client, leaving: bool) {
    while !client.is_closed()
        && let Some(question) = crowd.next()
    {
        let body = || if question.body.is_empty() { empty() } else { full(question.body.clone()) };
        let exchange = async |mut client: Client| {
            let (head, body) = client.send(http2_request(crowd, &question, body())).await?.into_parts();
            hyper::Result::Ok((head, body.collect().await?.to_bytes()))
        };
        let mut answered = exchange(client.clone()).await;
        if let Err(error) = &answered
            && !leaving
            && is_unprocessed(error)
        {
            // As any client does: the gateway has said that it did nothing about this one.
            answered = exchange(Client::connect(crowd.address).await).await;
        }
        let (head, body) = match answered {
            Ok(answer) => answer,
            Err(error) => {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                if leaving {
                    // Too much was cancelled before the gateway came to it: that ends the connection, for all on it.
                    crowd.tally.failure(&format!("cut over HTTP/2 with a caller who leaves: {why}"), true);
                } else {
                    crowd.fail(&format!("cut over HTTP/2: {why}"));
                }
                continue;
            }
        };
        let one = |name| head.headers.get(name).map_or("", |value| value.to_str().unwrap());
        let (code, marker) = (one("x-mintgate-error"), one("x-marker"));
        let answer = Answer { status: head.status.as_u16(), code, marker, body: &body };
        crowd.count(Kind::Http2, question.judge(&answer));
    }
}

/// Cancels before the answer, within it, and within the body of the request.
async fn http2_leaving(crowd: &Crowd, mut client: Client) {
    while !client.is_closed()
        && let Some(mut question) = crowd.next()
    {
        question.target = question.target.replace("plain", "large");
        let body = if fastrand::bool() {
            empty()
        } else {
            question.body = vec![b'x'; 1000];
            let half = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"half of it")))]);
            BodyExt::boxed(StreamBody::new(half.chain(futures_util::stream::pending())))
        };
        let answer = client.send(http2_request(crowd, &question, body));
        if let Ok(Ok(response)) = tokio::time::timeout(Duration::from_millis(fastrand::u64(1..10)), answer).await
            && fastrand::bool()
        {
            let _ = response.into_body().frame().await;
        }
        crowd.tally.good(Kind::Cancelled);
    }
}

/// Many questions at once on one connection, and somebody among them who leaves.
pub(crate) async fn http2(crowd: Arc<Crowd>, leaving: bool) {
    while !crowd.over.load(Relaxed) {
        let stream = TcpStream::connect(crowd.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let client = Client::over(stream).await;
        let asking = join_all((0..STREAMS).map(|_| http2_asking(&crowd, client.clone(), leaving)));
        if leaving {
            futures_util::future::join(asking, http2_leaving(&crowd, client.clone())).await;
        } else {
            asking.await;
        }
    }
}
