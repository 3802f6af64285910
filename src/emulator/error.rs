//! Errors in Clerk's shape and words (contract section 1.6).

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use serde_json::{Value, json};

use crate::emulator::keys::{self, CryptoError};

/// Bytes of a request body that are read.
pub(crate) const MAX_BODY: usize = 64 * 1024;

const TRACE_ID: HeaderName = HeaderName::from_static("clerk-trace-id");

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no `Authorization`.
    #[error("no credential")]
    AuthenticationInvalid,
    /// `Authorization` is not `Bearer <key>`.
    #[error("malformed Authorization")]
    AuthorizationFormat,
    /// Another key than the instance's.
    #[error("wrong secret key")]
    KeyInvalid,
    /// No such session, or it is not active.
    #[error("no such session")]
    SessionNotFound(String),
    /// No such template.
    #[error("no JWT template with this {attribute}")]
    TemplateNotFound {
        /// `id` or `name`.
        attribute: &'static str,
        /// What was asked for.
        value: String,
    },
    /// No such user.
    #[error("no such user")]
    UserNotFound(String),
    /// The user is not a member of the organization, or there is none.
    #[error("no such organization")]
    OrganizationNotFound,
    /// No such endpoint.
    #[error("no such endpoint")]
    NoEndpoint,
    /// The endpoint has no such method.
    #[error("no such method")]
    NoMethod,
    /// The query string could not be read.
    #[error("malformed query")]
    Query,
    /// Not JSON, or not an object.
    #[error("malformed body")]
    Body,
    /// More than [`MAX_BODY`].
    #[error("body too large")]
    BodyTooLarge,
    /// A body that says that it is not JSON.
    #[error("unsupported content type")]
    ContentType(String),
    /// A parameter of another type.
    #[error("{param} must be of type {expected}")]
    ParamType {
        /// The parameter.
        param: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A value that is not allowed.
    #[error("{0} is invalid")]
    ParamInvalid(&'static str),
    /// A parameter that must be there.
    #[error("{0} is missing")]
    ParamMissing(&'static str),
    /// A parameter that the call does not have.
    #[error("{0} is unknown")]
    ParamUnknown(String),
    /// Another template has this name.
    #[error("the name is taken")]
    NameTaken,
    /// A template that sets a claim that is the issuer's.
    #[error("reserved claim {0}")]
    ReservedClaim(String),
    /// The template that customises the session token cannot be removed.
    #[error("this template customises the session token")]
    SessionTokenTemplate,
    /// A version of the API that does not exist, or more than one.
    #[error("API version: {0}")]
    ApiVersion(String),
    /// Something under `/_emulator` was asked for what cannot be.
    #[error("{param}: {reason}")]
    Helper {
        /// The parameter.
        param: &'static str,
        /// What to do instead.
        reason: String,
    },
    /// Only for development instances.
    #[error("only for development instances")]
    NotInProduction,
    /// The rate limit.
    #[error("rate limit")]
    TooManyRequests(Duration),
    /// The emulator itself failed.
    #[error("the emulator failed")]
    Internal(#[from] CryptoError),
}

/// One row of Clerk's table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) status: StatusCode,
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) long: String,
    pub(crate) meta: Value,
}

// === impl ApiError ===

impl ApiError {
    #[expect(clippy::too_many_lines, reason = "one exhaustive table, a row for each error")]
    fn row(&self) -> Row {
        let invalid_key = "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.";
        match self {
            Self::AuthenticationInvalid => Row::new(
                StatusCode::UNAUTHORIZED,
                "authentication_invalid",
                "Invalid authentication",
                "Unable to authenticate the request, you need to supply an active session",
            ),
            Self::AuthorizationFormat => Row::new(
                StatusCode::UNAUTHORIZED,
                "authorization_header_format_invalid",
                "Invalid Authorization header format",
                "Invalid Authorization header format. Must be 'Bearer <YOUR_API_KEY>'",
            ),
            Self::KeyInvalid => Row::new(StatusCode::UNAUTHORIZED, "clerk_key_invalid", invalid_key, invalid_key),
            Self::SessionNotFound(id) => {
                Row::not_found("Session not found", format!("No session was found with id {id}"))
            }
            Self::TemplateNotFound { attribute, value } => {
                Row::not_found("JWT template not found", format!("No JWT template exists with {attribute}: {value}"))
            }
            Self::UserNotFound(id) => Row::not_found("not found", format!("No user was found with id {id}")),
            Self::OrganizationNotFound => Row::not_found("not found", "Given organization not found."),
            Self::NoEndpoint => Row::not_found("Not found", "The emulator has no such endpoint"),
            Self::NoMethod => Row::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
                "The endpoint exists, but not with this method",
            ),
            Self::Query => Row::new(
                StatusCode::BAD_REQUEST,
                "malformed_request_parameters",
                "Malformed request parameters",
                "The request parameters are malformed and could not be parsed",
            ),
            Self::Body => Row::new(
                StatusCode::BAD_REQUEST,
                "request_body_invalid",
                "Request body invalid",
                "The request body is invalid. Please consult the API documentation for more information.",
            ),
            Self::BodyTooLarge => Row::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_body_too_large",
                "Request body too large",
                format!("The request body exceeds the maximum allowed size of {MAX_BODY} bytes."),
            ),
            Self::ContentType(actual) => Row::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                "Content-Type is unsupported",
                format!("Content-Type {actual} is unsupported. You should use application/json instead."),
            ),
            Self::ParamType { param, expected } => {
                Row::param("form_param_type_invalid", param, "is invalid", format!("`{param}` must be a `{expected}`."))
            }
            Self::ParamInvalid(param) => {
                Row::param("form_param_value_invalid", param, "is invalid", format!("{param} is invalid"))
            }
            Self::ParamMissing(param) => {
                Row::param("form_param_missing", param, "is missing", format!("{param} must be included."))
            }
            Self::ParamUnknown(param) => Row::param(
                "form_param_unknown",
                param,
                "is unknown",
                format!("{param} is not a valid parameter for this request."),
            ),
            Self::NameTaken => {
                Row::param("form_identifier_exists", "name", "already exists", "A JWT template with this name exists.")
            }
            Self::ReservedClaim(claim) => Row {
                meta: json!({ "param_name": "claims" }),
                ..Row::new(
                    StatusCode::BAD_REQUEST,
                    "jwt_template_reserved_claim",
                    "reserved claim used",
                    format!("You can't use the reserved claim: '{claim}'"),
                )
            },
            Self::SessionTokenTemplate => Row::new(
                StatusCode::FORBIDDEN,
                "session_token_jwt_template",
                "Session token template",
                "The JWT template that customizes the session token cannot be deleted.",
            ),
            Self::ApiVersion(reason) => Row::new(
                StatusCode::BAD_REQUEST,
                "api_version_invalid",
                "Invalid Clerk API version",
                format!("Invalid Clerk API version: {reason}"),
            ),
            Self::Helper { param, reason } => {
                Row::param("form_param_value_invalid", param, "is invalid", format!("{param}: {reason}"))
            }
            Self::NotInProduction => Row::new(
                StatusCode::BAD_REQUEST,
                "request_invalid_for_environment",
                "Invalid request for environment",
                "Request only valid for development instances.",
            ),
            Self::TooManyRequests(_) => Row::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many requests",
                "Too many requests, retry later",
            ),
            Self::Internal(_) => Row::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_clerk_error",
                "Oops, an unexpected error occurred",
                "The emulator's cryptography library refused.",
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.row().answer();
        if let Self::TooManyRequests(wait) = self {
            // Whole seconds: the official JavaScript SDK reads no date here (contract section 2).
            response.headers_mut().insert(RETRY_AFTER, wait.as_secs().into());
        }
        response
    }
}

// === impl Row ===

impl Row {
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: &str,
        long: impl Into<String>,
    ) -> Self {
        Self { status, code: code.into(), message: message.to_owned(), long: long.into(), meta: Value::Null }
    }

    /// The answer, with a trace id of its own.
    pub(crate) fn answer(self) -> Response {
        let mut error = json!({ "message": self.message, "long_message": self.long, "code": self.code });
        if !self.meta.is_null() {
            error["meta"] = self.meta;
        }
        let mut body = json!({ "errors": [error] });
        // Without randomness the error is told all the same; a trace id is optional.
        let trace = keys::random_hex::<8>().ok().and_then(|id| Some((HeaderValue::from_str(&id).ok()?, id)));
        let trace_header = trace.map(|(header, id)| {
            body["clerk_trace_id"] = json!(id);
            header
        });
        let mut response = json_response(self.status, &body);
        if let Some(header) = trace_header {
            response.headers_mut().insert(TRACE_ID, header);
        }
        response
    }

    fn not_found(message: &str, long: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "resource_not_found", message, long)
    }

    fn param(code: &'static str, param: &str, message: &str, long: impl Into<String>) -> Self {
        let row = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message, long);
        Self { meta: json!({ "param_name": param }), ..row }
    }
}

/// An answer whose `Content-Type` is exactly `application/json`: with a charset the official JavaScript SDK hands out
/// the text instead of the object (contract section 6.3).
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}
