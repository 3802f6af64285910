//! The echo upstream: answers every request with what it received, so that one sees what a proxy forwards.
//!
//! `/sse?n=&every=` sends `n` server-sent events, one in `every` milliseconds; `/bytes?n=` sends `n` bytes; `/drain`
//! reads the whole body and tells its length. Every other path echoes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{StatusCode, Version};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tokio::time::Sleep;

/// Bytes of a request body that are shown.
pub const SHOWN: usize = 64 * 1024;
/// Bytes of one frame of `/bytes`.
const CHUNK: u64 = 16 * 1024;

/// The echo's router.
pub fn router() -> Router {
    Router::new().route("/sse", any(events)).route("/bytes", any(bytes)).route("/drain", any(drain)).fallback(echo)
}

async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(read) = read(body, SHOWN).await else { return StatusCode::BAD_REQUEST.into_response() };
    let answer = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "version": version(parts.version),
        "headers": headers(&parts.headers),
        "body": String::from_utf8_lossy(&read.shown),
        "body_bytes": read.length,
        "trailers": read.trailers.as_ref().map(headers),
    });
    json_answer(&answer)
}

async fn drain(request: Request) -> Response {
    match read(request.into_body(), 0).await {
        Ok(read) => json_answer(&json!({ "bytes": read.length })),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn events(Query(query): Query<HashMap<String, u64>>) -> Response {
    let every = query.get("every").map(|millis| Duration::from_millis(*millis));
    let body = Script { next: 0, left: query.get("n").copied().unwrap_or(3), kind: Kind::Events, every, pause: None };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Body::new(body)).into_response()
}

async fn bytes(Query(query): Query<HashMap<String, u64>>) -> Response {
    let left = query.get("n").copied().unwrap_or(1024);
    let body = Script { next: 0, left, kind: Kind::Bytes, every: None, pause: None };
    let kind = HeaderValue::from_static("application/octet-stream");
    ([(CONTENT_TYPE, kind)], Body::new(body)).into_response()
}

/// What was read of a body.
#[derive(Debug)]
struct Read {
    shown: Vec<u8>,
    length: u64,
    trailers: Option<HeaderMap>,
}

/// Reads a body to its end and keeps its beginning.
async fn read(mut body: Body, keep: usize) -> Result<Read, axum::Error> {
    let mut read = Read { shown: Vec::new(), length: 0, trailers: None };
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                read.length += data.len() as u64;
                let room = keep.saturating_sub(read.shown.len());
                read.shown.extend_from_slice(&data[..data.len().min(room)]);
            }
            Err(frame) => read.trailers = frame.into_trailers().ok(),
        }
    }
    Ok(read)
}

/// A name that stands once has a text, one that stands more often has a list, in the order of the lines.
fn headers(map: &HeaderMap) -> Value {
    let text = |value: &HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
    let members: Map<String, Value> = map
        .keys()
        .map(|name| {
            let mut values: Vec<Value> = map.get_all(name).iter().map(text).collect();
            let value = if values.len() == 1 { values.remove(0) } else { values.into() };
            (name.as_str().to_owned(), value)
        })
        .collect();
    members.into()
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn json_answer(body: &Value) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}

/// A body made while it is sent.
struct Script {
    next: u64,
    left: u64,
    kind: Kind,
    every: Option<Duration>,
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `left` events.
    Events,
    /// `left` bytes.
    Bytes,
}

// === impl Script ===

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (data, cost) = match self.kind {
            Kind::Events => (Bytes::from(format!("id: {0}\ndata: event {0}\n\n", self.next)), 1),
            Kind::Bytes => {
                let size = self.left.min(CHUNK);
                (Bytes::from(vec![b'x'; usize::try_from(size).unwrap_or(usize::MAX)]), size)
            }
        };
        self.next += 1;
        self.left -= cost;
        self.pause = self.every.filter(|_| self.left > 0).map(|every| Box::pin(tokio::time::sleep(every)));
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.kind {
            Kind::Events => SizeHint::default(),
            Kind::Bytes => SizeHint::with_exact(self.left),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(request: Request<Body>) -> (http::response::Parts, Bytes) {
        let (parts, body) = router().oneshot(request).await.unwrap().into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }

    fn get(target: &str) -> Request<Body> {
        Request::get(target).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn the_answer_shows_the_request() {
        let request = Request::post("/a/b?c=d&c=e")
            .header("x-one", "1")
            .header("x-two", "1")
            .header("x-two", "2")
            .body(Body::from("héllo"))
            .unwrap();
        let (parts, body) = ask(request).await;
        assert_eq!(parts.headers[CONTENT_TYPE], "application/json");
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({
                "method": "POST", "path": "/a/b", "query": "c=d&c=e", "version": "HTTP/1.1",
                "headers": {"x-one": "1", "x-two": ["1", "2"]},
                "body": "héllo", "body_bytes": 6, "trailers": null,
            })
        );
    }

    #[tokio::test]
    async fn a_long_body_is_counted_whole_and_shown_in_part() {
        let request = Request::post("/x").body(Body::from(vec![b'a'; SHOWN + 5])).unwrap();
        let (_, body) = ask(request).await;
        let shown: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(shown["body_bytes"], SHOWN + 5);
        assert_eq!(shown["body"].as_str().map(str::len), Some(SHOWN));
        let request = Request::post("/drain").body(Body::from(vec![0; 100_000])).unwrap();
        assert_eq!(&*ask(request).await.1, br#"{"bytes":100000}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn scripted_bodies_have_their_length() {
        let (_, body) = ask(get("/sse?n=2&every=1000")).await;
        assert_eq!(&*body, b"id: 0\ndata: event 0\n\nid: 1\ndata: event 1\n\n");
        for n in [0, 1, 16 * 1024, 40_000] {
            assert_eq!(ask(get(&format!("/bytes?n={n}"))).await.1.len(), n);
        }
        assert_eq!(ask(get("/sse?n=0")).await.1.len(), 0);
    }
}
