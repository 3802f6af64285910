//! `/v1/jwt_templates`: templates made, read, changed and removed (contract section 1.5).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::emulator::claims::RESERVED;
use crate::emulator::error::{ApiError, json_response};
use crate::emulator::keys;
use crate::emulator::model::Template;
use crate::emulator::own_key::{BadOwnKey, OwnKey};
use crate::emulator::params::{Params, QueryParams};
use crate::emulator::sessions::EXPIRES_IN;
use crate::emulator::state::Instance;
use crate::secret::Secret;

/// Seconds that `nbf` may lie before `iat`.
const CLOCK_SKEW: std::ops::RangeInclusive<u32> = 0..=300;

/// The endpoints, below `/v1`.
pub(crate) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/jwt_templates", get(list).post(create))
        .route("/jwt_templates/{template_id}", get(read).patch(change).delete(remove))
}

async fn list(State(instance): State<Arc<Instance>>, query: QueryParams) -> Result<Response, ApiError> {
    Ok(ok(&query.page(instance.templates())?))
}

async fn read(State(instance): State<Arc<Instance>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(ok(&instance.template(&id)?))
}

async fn create(State(instance): State<Arc<Instance>>, mut params: Params) -> Result<Response, ApiError> {
    let name = params.text("name")?.ok_or(ApiError::ParamMissing("name"))?;
    let claims = params.object("claims")?.ok_or(ApiError::ParamMissing("claims"))?;
    let template = Template::new(keys::random_id("jtmp_")?, name, checked(claims)?, instance.clock.wall());
    Ok(ok(&instance.add_template(changed(template, params)?)?))
}

async fn change(
    State(instance): State<Arc<Instance>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    // As in Clerk's description of the API, a change names both; everything else stays when it is not named.
    for needed in ["name", "claims"] {
        if !params.has(needed) {
            return Err(ApiError::ParamMissing(needed));
        }
    }
    Ok(ok(&instance.change_template(&id, |template| changed(template, params))?))
}

async fn remove(State(instance): State<Arc<Instance>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    instance.remove_template(&id)?;
    Ok(ok(&json!({ "object": "jwt_template", "id": id, "deleted": true })))
}

/// The template with what the parameters say; what they do not name stays.
fn changed(mut template: Template, mut params: Params) -> Result<Template, ApiError> {
    if let Some(name) = params.text("name")? {
        template.name = name;
    }
    if let Some(claims) = params.object("claims")? {
        template.claims = checked(claims)?;
    }
    if let Some(lifetime) = params.integer("lifetime", EXPIRES_IN)? {
        template.lifetime = lifetime;
    }
    if let Some(skew) = params.integer("allowed_clock_skew", CLOCK_SKEW)? {
        template.allowed_clock_skew = skew;
    }
    let custom = params.flag("custom_signing_key")?;
    let (algorithm, key) = (params.text("signing_algorithm")?, params.text("signing_key")?);
    params.end()?;
    template.key = match custom.unwrap_or(template.key.is_some()) {
        false if algorithm.as_deref().is_none_or(|name| name == "RS256") && key.is_none() => None,
        false => return Err(ApiError::ParamInvalid("signing_algorithm")),
        true => Some(own_key(template.key.as_ref(), algorithm.as_deref(), key)?),
    };
    Ok(template)
}

/// A key of the template's own; what the call does not name is as before.
fn own_key(before: Option<&OwnKey>, algorithm: Option<&str>, key: Option<String>) -> Result<OwnKey, ApiError> {
    let algorithm = algorithm.or(before.map(OwnKey::algorithm)).ok_or(ApiError::ParamMissing("signing_algorithm"))?;
    let key = key.map(Secret::new).or(before.map(|key| key.text().clone()));
    OwnKey::new(algorithm, key.ok_or(ApiError::ParamMissing("signing_key"))?).map_err(|bad| match bad {
        BadOwnKey::Algorithm => ApiError::ParamInvalid("signing_algorithm"),
        BadOwnKey::Key => ApiError::ParamInvalid("signing_key"),
    })
}

fn checked(claims: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    match RESERVED.into_iter().find(|name| claims.contains_key(*name)) {
        Some(name) => Err(ApiError::ReservedClaim(name.to_owned())),
        None => Ok(claims),
    }
}

fn ok(body: &Value) -> Response {
    json_response(StatusCode::OK, body)
}
