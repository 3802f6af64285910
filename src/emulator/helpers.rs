//! `/_emulator`: what Clerk's API does not have. A fresh session token as a browser would hold it, and the counts.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde_json::json;

use crate::emulator::error::{ApiError, json_response};
use crate::emulator::params::QueryParams;
use crate::emulator::sessions::EXPIRES_IN;
use crate::emulator::state::Instance;

/// The endpoints.
pub(crate) fn routes() -> Router<Arc<Instance>> {
    Router::new().route("/_emulator/token", get(token)).route("/_emulator/state", get(state))
}

/// `?session=` (needed), `azp=`, `expires_in_seconds=`, `format=json`. Without a format the answer is the token alone,
/// without a line end, so that a shell can put it into a header.
async fn token(State(instance): State<Arc<Instance>>, query: QueryParams) -> Result<Response, ApiError> {
    let sid = query.text("session").ok_or(ApiError::ParamMissing("session"))?;
    let expires_in = query.number("expires_in_seconds", EXPIRES_IN)?;
    let jwt = instance.session_token(sid, expires_in, query.text("azp"))?;
    let mut response = match query.text("format") {
        None | Some("text") => jwt.into_response(),
        Some("json") => json_response(StatusCode::OK, &json!({ "object": "token", "jwt": jwt })),
        Some(_) => return Err(ApiError::ParamInvalid("format")),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn state(State(instance): State<Arc<Instance>>) -> Response {
    json_response(StatusCode::OK, &instance.state())
}
