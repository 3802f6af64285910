//! `/_emulator`: what Clerk's API does not have. A fresh session token as a browser would hold it, the counts, what
//! users, administrators and Clerk itself do, and what became of the events.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde_json::{Value, json};

use crate::emulator::error::{ApiError, json_response};
use crate::emulator::model::Status;
use crate::emulator::params::{Params, QueryParams};
use crate::emulator::ring::Kept;
use crate::emulator::sessions::EXPIRES_IN;
use crate::emulator::state::Instance;
use crate::emulator::state::people::MembershipChange;
use crate::emulator::state::sessions::SessionChange;
use crate::emulator::version::TokenVersion;
use crate::emulator::webhooks::Outbox;

/// The endpoints.
pub(crate) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/_emulator/token", get(token))
        .route("/_emulator/state", get(state))
        .route("/_emulator/webhooks", get(webhooks))
        .route("/_emulator/keys", get(shown_keys).post(rotate))
        .route("/_emulator/keys/{kid}", delete(retire))
        .route("/_emulator/sessions", post(begin))
        .route("/_emulator/sessions/{id}", patch(change_session))
        .route("/_emulator/users/{id}", get(user).patch(change_user).delete(remove_user))
        .route("/_emulator/organizations/{organization}/memberships/{user}", put(join).delete(leave))
}

/// `?session=` (needed), `azp=`, `expires_in_seconds=`, `v=1` or `2`, `format=json`. Without a format the answer is the
/// token alone, without a line end, so that a shell can put it into a header.
async fn token(State(instance): State<Arc<Instance>>, query: QueryParams) -> Result<Response, ApiError> {
    let sid = query.text("session").ok_or(ApiError::ParamMissing("session"))?;
    let expires_in = query.number("expires_in_seconds", EXPIRES_IN)?;
    let version = match query.text("v") {
        None => None,
        Some("1") => Some(TokenVersion::V1),
        Some("2") => Some(TokenVersion::V2),
        Some(_) => return Err(ApiError::ParamInvalid("v")),
    };
    let jwt = instance.session_token(sid, expires_in, query.text("azp"), version)?;
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

/// The last events and what became of them; `null` when the application wants none.
async fn webhooks(State(instance): State<Arc<Instance>>) -> Response {
    let shown = instance.outbox.as_ref().map_or(Value::Null, Outbox::shown);
    json_response(StatusCode::OK, &shown)
}

/// The `kid`s of the JWKS; the first one signs.
async fn shown_keys(State(instance): State<Arc<Instance>>) -> Response {
    ok(&kids(&instance))
}

/// A new key signs. Nothing else is served for the some hundred milliseconds that making it takes.
async fn rotate(State(instance): State<Arc<Instance>>, params: Params) -> Result<Response, ApiError> {
    params.end()?;
    instance.keys.rotate()?;
    Ok(ok(&kids(&instance)))
}

/// A key before the one that signs leaves the JWKS.
async fn retire(State(instance): State<Arc<Instance>>, Path(kid): Path<String>) -> Result<Response, ApiError> {
    let kept = |kept| match kept {
        Kept::Unknown => "no key has it",
        Kept::Signs => "this one signs; POST /_emulator/keys makes another one first",
    };
    let retired = instance.keys.retire(&kid);
    retired.map_err(|why| ApiError::Helper { param: "kid", reason: kept(why).to_owned() })?;
    Ok(ok(&kids(&instance)))
}

fn kids(instance: &Instance) -> Value {
    let shown = instance.keys.jwks();
    let kids = shown["keys"].as_array().map(|keys| keys.iter().map(|key| key["kid"].clone()).collect::<Vec<_>>());
    json!({ "keys": kids })
}

/// Signs a user in, also in production.
async fn begin(State(instance): State<Arc<Instance>>, mut params: Params) -> Result<Response, ApiError> {
    let user = params.text("user_id")?.ok_or(ApiError::ParamMissing("user_id"))?;
    Ok(ok(&instance.begin_session(&user, session_change(params)?)?))
}

/// Switches the active organization, signs out, impersonates.
async fn change_session(
    State(instance): State<Arc<Instance>>,
    Path(sid): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    Ok(ok(&instance.change_session(&sid, session_change(params)?)?))
}

fn session_change(mut params: Params) -> Result<SessionChange, ApiError> {
    let status = params.text("status")?;
    let names = || Status::ALL.map(Status::as_str).join(", ");
    let unknown = || ApiError::Helper { param: "status", reason: format!("it is one of {}", names()) };
    let change = SessionChange {
        status: status.map(|name| Status::from_name(&name).ok_or_else(unknown)).transpose()?,
        organization: params.nullable("active_organization_id", Params::text)?,
        actor: params.nullable("actor", |params, name| Ok(params.object(name)?.map(Value::Object)))?,
        tasks: params.texts("tasks")?,
    };
    params.end().map(|()| change)
}

async fn user(State(instance): State<Arc<Instance>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(ok(&instance.user(&id)?))
}

async fn change_user(
    State(instance): State<Arc<Instance>>,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let changed = instance.change_user(&id, |user| {
        for (param, field) in [
            ("username", &mut user.username),
            ("external_id", &mut user.external_id),
            ("first_name", &mut user.first_name),
            ("last_name", &mut user.last_name),
            ("primary_email_address", &mut user.email),
            ("primary_phone_number", &mut user.phone),
        ] {
            params.nullable(param, Params::text)?.apply(field);
        }
        for (param, field) in [
            ("public_metadata", &mut user.public_metadata),
            ("private_metadata", &mut user.private_metadata),
            ("unsafe_metadata", &mut user.unsafe_metadata),
        ] {
            if let Some(value) = params.object(param)? {
                *field = Value::Object(value);
            }
        }
        user.banned = params.flag("banned")?.unwrap_or(user.banned);
        user.locked = params.flag("locked")?.unwrap_or(user.locked);
        params.end()
    });
    Ok(ok(&changed?))
}

async fn remove_user(State(instance): State<Arc<Instance>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(ok(&instance.remove_user(&id)?))
}

async fn join(
    State(instance): State<Arc<Instance>>,
    Path((organization, user)): Path<(String, String)>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let change = MembershipChange {
        role: params.text("role")?,
        permissions: params.texts("permissions")?,
        public_metadata: params.object("public_metadata")?.map(Value::Object),
    };
    params.end()?;
    Ok(ok(&instance.put_membership(&organization, &user, change)?))
}

async fn leave(
    State(instance): State<Arc<Instance>>,
    Path((organization, user)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    Ok(ok(&instance.remove_membership(&organization, &user)?))
}

fn ok(body: &Value) -> Response {
    json_response(StatusCode::OK, body)
}
