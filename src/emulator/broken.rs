//! Plays the scripted faults on calls of the API, and `/_emulator/faults`, where they are given.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use serde_json::json;

use crate::emulator::error::{ApiError, MAX_BODY, json_response};
use crate::emulator::faults::{Call, Effect, Fault, Malformed, Then, refusal};
use crate::emulator::params::Params;
use crate::emulator::state::Instance;

/// Bytes of an endless body. A caller that reads them all has shown what there was to show.
const ENDLESS: usize = 1024 * 1024 * 1024;
const CHUNK: &[u8] = &[b' '; 16 * 1024];

/// The endpoints.
pub(crate) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/_emulator/faults", get(list).post(give).delete(clear))
        .route("/_emulator/faults/{id}", delete(clear_one))
}

async fn list(State(instance): State<Arc<Instance>>) -> Response {
    json_response(StatusCode::OK, &json!({ "faults": instance.faults().shown() }))
}

async fn give(State(instance): State<Arc<Instance>>, params: Params) -> Result<Response, ApiError> {
    let fault = Fault::read(params)?;
    Ok(json_response(StatusCode::OK, &instance.faults().add(fault)?))
}

async fn clear(State(instance): State<Arc<Instance>>) -> Response {
    instance.faults().clear(None);
    json_response(StatusCode::OK, &json!({ "faults": [] }))
}

async fn clear_one(State(instance): State<Arc<Instance>>, Path(id): Path<u64>) -> Response {
    let mut faults = instance.faults();
    faults.clear(Some(id));
    json_response(StatusCode::OK, &json!({ "faults": faults.shown() }))
}

/// Before everything else: a fault does not ask for the secret key.
pub(crate) async fn play(State(instance): State<Arc<Instance>>, request: Request, next: Next) -> Response {
    let call = Call::of(request.uri().path());
    let effect = call.and_then(|call| instance.faults().hit(&call));
    let Some(Effect { delay, then }) = effect else { return next.run(request).await };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match then {
        Then::Nothing => next.run(request).await,
        Then::Refuse { status, code, retry_after } => {
            let mut answer = refusal(status, code).answer();
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            answer
        }
        // The caller's leaving ends it.
        Then::Hang => std::future::pending().await,
        // hyper sends no head whose body fails before it was flushed: the connection ends without an answer.
        Then::Reset => {
            read_whole(request).await;
            Body::from_stream(stream::once(async { Err::<Bytes, _>(broken()) })).into_response()
        }
        Then::Spoil(how) => spoil(next.run(request).await, how).await,
    }
}

/// Without an answer hyper drops the connection, and TCP makes a reset of that while bytes of the request are on their way:
/// what the caller sees would depend on how its writes fall. Behind an answer the listener reads them off.
async fn read_whole(request: Request) {
    // A body that is too long, or broken off, gets the same.
    drop(Limited::new(request.into_body(), MAX_BODY).collect().await);
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "a scripted fault")
}

async fn spoil(answer: Response, how: Malformed) -> Response {
    let ok = |body: Body, kind: &'static str| ([(CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response();
    match how {
        Malformed::NotJson => ok(Body::from("<!doctype html><title>Clerk</title>"), "text/html"),
        Malformed::NoJwt => ok(Body::from(r#"{"object":"token"}"#), "application/json"),
        Malformed::Empty => ok(Body::empty(), "application/json"),
        Malformed::Endless => {
            let chunks = stream::iter(0..ENDLESS / CHUNK.len());
            let body = futures_util::StreamExt::map(chunks, |_| Ok::<_, Infallible>(Bytes::from_static(CHUNK)));
            ok(Body::from_stream(body), "application/json")
        }
        Malformed::ContentType => {
            let mut answer = answer;
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            answer
        }
        Malformed::Truncated | Malformed::Cut => {
            let (mut parts, body) = answer.into_parts();
            // The emulator's own bodies are in memory: nothing can fail here.
            let whole = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let half = whole.slice(..whole.len() / 2);
            if how == Malformed::Truncated {
                parts.headers.remove(CONTENT_LENGTH);
                return Response::from_parts(parts, Body::from(half));
            }
            parts.headers.insert(CONTENT_LENGTH, whole.len().into());
            // The pause between them lets hyper flush the half before it hears of the failure.
            let failure = stream::once(async {
                tokio::task::yield_now().await;
                Err(broken())
            });
            let half = futures_util::StreamExt::chain(stream::iter([Ok(half)]), failure);
            Response::from_parts(parts, Body::from_stream(half))
        }
    }
}
