//! What every call of the API passes: the secret key and the API's version, then the rate limit; and the issuer's `Date`
//! on every answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE, HeaderValue};

use crate::emulator::error::ApiError;
use crate::emulator::state::Instance;
use crate::emulator::version;

/// 401 without the instance's secret key, 400 for a version of the API that does not exist.
pub(crate) async fn authenticate(
    State(instance): State<Arc<Instance>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let presented = bearer(request.headers())?;
    if !instance.secret_key.matches(presented) {
        return Err(ApiError::KeyInvalid);
    }
    let asked = version::asked(request.headers(), request.uri())?;
    request.extensions_mut().insert(asked);
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next().ok_or(ApiError::AuthenticationInvalid)?.as_bytes();
    if lines.next().is_some() {
        return Err(ApiError::AuthorizationFormat);
    }
    let (scheme, key) = line.split_at_checked(7).ok_or(ApiError::AuthorizationFormat)?;
    if scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty() {
        Ok(key)
    } else {
        Err(ApiError::AuthorizationFormat)
    }
}

/// 429 with `Retry-After` when the window is used up.
pub(crate) async fn throttle(
    State(instance): State<Arc<Instance>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    instance.admit().map_err(ApiError::TooManyRequests)?;
    Ok(next.run(request).await)
}

/// The emulator's own clock, which a test may have set: verifiers correct theirs by the issuer's `Date`.
pub(crate) async fn date(State(instance): State<Arc<Instance>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let now = httpdate::fmt_http_date(instance.clock.wall().to_system());
    if let Ok(now) = HeaderValue::try_from(now) {
        response.headers_mut().insert(DATE, now);
    }
    response
}
