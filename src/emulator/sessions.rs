//! `/v1/sessions`: sessions and their tokens (contract sections 1.1 to 1.3).

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Value, json};

use crate::emulator::error::{ApiError, json_response};
use crate::emulator::model::{Change, Status};
use crate::emulator::params::{Params, QueryParams};
use crate::emulator::state::sessions::{SessionChange, SessionFilter};
use crate::emulator::state::{Instance, Wanted};
use crate::emulator::version::Asked;

/// Seconds that a caller may ask for.
pub(crate) const EXPIRES_IN: RangeInclusive<u32> = 30..=315_360_000;

/// The endpoints, below `/v1`.
pub(crate) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/sessions", get(list).post(begin))
        .route("/sessions/{session_id}", get(read))
        .route("/sessions/{session_id}/revoke", post(revoke))
        .route("/sessions/{session_id}/refresh", post(refresh))
        .route("/sessions/{session_id}/tokens", post(mint_session))
        .route("/sessions/{session_id}/tokens/{template_name}", post(mint_template))
}

async fn list(State(instance): State<Arc<Instance>>, query: QueryParams) -> Result<Response, ApiError> {
    let filter = SessionFilter {
        client_id: query.text("client_id").map(str::to_owned),
        user_id: query.text("user_id").map(str::to_owned),
        status: query.text("status").map(listed).transpose()?,
    };
    Ok(ok(&query.page(instance.sessions(&filter))?))
}

/// The states that a list can be narrowed to: `pending` is not one of them.
fn listed(name: &str) -> Result<Status, ApiError> {
    Status::from_name(name).filter(|status| *status != Status::Pending).ok_or(ApiError::ParamInvalid("status"))
}

/// As with Clerk: for tests, not in production.
async fn begin(State(instance): State<Arc<Instance>>, mut params: Params) -> Result<Response, ApiError> {
    if instance.production {
        return Err(ApiError::NotInProduction);
    }
    let user = params.text("user_id")?.ok_or(ApiError::ParamMissing("user_id"))?;
    let organization = params.text("active_organization_id")?;
    params.end()?;
    let change = SessionChange { organization: Change::To(organization), ..SessionChange::default() };
    Ok(ok(&instance.begin_session(&user, change)?))
}

async fn read(State(instance): State<Arc<Instance>>, Path(sid): Path<String>) -> Result<Response, ApiError> {
    Ok(ok(&instance.session(&sid)?))
}

async fn revoke(State(instance): State<Arc<Instance>>, Path(sid): Path<String>) -> Result<Response, ApiError> {
    Ok(ok(&instance.revoke(&sid)?))
}

/// There is no handshake here that could have given out a refresh token, so none is valid: 401 tells an SDK to begin
/// the handshake anew.
async fn refresh(mut params: Params) -> Result<Response, ApiError> {
    for needed in ["expired_token", "refresh_token", "request_origin"] {
        params.text(needed)?.ok_or(ApiError::Body)?;
    }
    params.object("request_headers")?;
    params.text("request_originating_ip")?;
    match params.text("format")?.as_deref() {
        None | Some("token" | "cookie") => params.end()?,
        Some(_) => return Err(ApiError::Body),
    }
    Err(ApiError::AuthenticationInvalid)
}

async fn mint_session(
    State(instance): State<Arc<Instance>>,
    Extension(Asked(version)): Extension<Asked>,
    Path(sid): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    mint(&instance, &sid, Wanted::Session(version), params)
}

async fn mint_template(
    State(instance): State<Arc<Instance>>,
    Path((sid, template)): Path<(String, String)>,
    params: Params,
) -> Result<Response, ApiError> {
    mint(&instance, &sid, Wanted::Template(&template), params)
}

fn mint(instance: &Instance, sid: &str, wanted: Wanted<'_>, mut params: Params) -> Result<Response, ApiError> {
    let expires_in = params.integer("expires_in_seconds", EXPIRES_IN)?;
    params.end()?;
    let jwt = instance.mint(sid, wanted, expires_in)?;
    Ok(ok(&json!({ "object": "token", "jwt": jwt })))
}

fn ok(body: &Value) -> Response {
    json_response(StatusCode::OK, body)
}
