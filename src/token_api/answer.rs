//! What callers are told, to the byte as the official SDKs want it (contract sections 1.6 and 6.3).

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use crate::config::TemplateName;
use crate::headers;
use crate::proxy::error::{Code, Error};
use crate::session::SessionId;
use crate::token::{MintError, Token};

/// Bytes of the body of a mint.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// When it is worth another try where nobody says when.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a call is answered here and not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a web page asked")]
    Page,
    #[error("there is no Authorization")]
    NoCredential,
    #[error("Authorization is not one bearer")]
    CredentialFormat,
    #[error("the bearer is nobody's")]
    UnknownKey,
    #[error("the path could be read in two ways")]
    OddPath,
    #[error("this caller may not ask for it")]
    NotForCaller,
    #[error("no session can have this id, or it was revoked")]
    NoSession(String),
    #[error("no template can have this name")]
    NoTemplate(String),
    #[error("this caller may not ask for this template")]
    NotItsTemplate(TemplateName),
    #[error("the body is too large")]
    BodyTooLarge,
    #[error("the body did not come")]
    BodyLate,
    #[error("the body is not what it should be")]
    Body,
    #[error("the body is not JSON")]
    NotJson,
    #[error("the life time that is asked for cannot be")]
    Expiry(&'static str),
    #[error("nobody knows what this parameter does")]
    Unknown(String),
    #[error("the call has no room in the budget")]
    Throttled(Duration),
    #[error(transparent)]
    Mint(#[from] NoToken),
    #[error("the issuer was not reached")]
    Unreached,
    #[error("the issuer broke off")]
    Broken,
    #[error("the issuer did not answer in time")]
    Late,
}

/// There is no token.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct NoToken {
    pub(super) sid: SessionId,
    pub(super) template: TemplateName,
    pub(super) error: MintError,
}

/// Clerk's form of an error.
#[derive(Serialize)]
struct Errors<'a> {
    errors: [Row<'a>; 1],
    clerk_trace_id: &'a str,
}

#[derive(Serialize)]
struct Row<'a> {
    message: &'a str,
    long_message: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta<'a>>,
}

#[derive(Serialize)]
struct Meta<'a> {
    param_name: &'a str,
}

#[derive(Serialize)]
struct Minted<'a> {
    object: &'static str,
    jwt: &'a str,
}

/// One row of the table: the status, the code, and the two texts.
type Told = (StatusCode, &'static str, &'static str, String);

/// The answer with a token.
pub(super) fn minted(token: &Token) -> Response {
    // It was made of a text, so it is one.
    let jwt = token.bare().to_str().unwrap_or_default();
    json(StatusCode::OK, &Minted { object: "token", jwt })
}

/// The type exactly so: with a charset the official JavaScript SDK hands out the text instead of the object.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Strings alone: nothing that JSON could not hold.
    let mut answer = Response::new(Body::from(Bytes::from(serde_json::to_vec(body).unwrap_or_default())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

// === impl Refusal ===

impl Refusal {
    /// In Clerk's form and, where Clerk has them, words. Never 503, since an official SDK asks again after it for an hour:
    /// what may be different later is 429 and says when, and what is final is another 4xx. Where a call may have been
    /// heard, 502 and 504 say so, and nothing asks for it again.
    #[rustfmt::skip]
    fn told(&self) -> Told {
        let text = str::to_owned;
        match self {
            Self::Page => (StatusCode::FORBIDDEN, "authorization_invalid", "Forbidden", text("Web pages may not ask here: the request carries an Origin")),
            Self::NoCredential => (StatusCode::UNAUTHORIZED, "authentication_invalid", "Invalid authentication", text("Unable to authenticate the request: it carries no Authorization")),
            Self::CredentialFormat => (StatusCode::UNAUTHORIZED, "authorization_header_format_invalid", "Invalid Authorization header format", text("Invalid Authorization header format. Must be 'Bearer <YOUR_API_KEY>'")),
            Self::UnknownKey => (StatusCode::UNAUTHORIZED, "clerk_key_invalid", INVALID_KEY, text(INVALID_KEY)),
            Self::OddPath => (StatusCode::BAD_REQUEST, "malformed_request_parameters", "Malformed path", text("The path could be read in two ways. Correct it; repeating it does not help")),
            // Nothing in it may name what a mint can lack: a sidecar would take it for that.
            Self::NotForCaller => (StatusCode::FORBIDDEN, "authorization_invalid", "Forbidden", text("This caller may not ask for this. It is answered to those who hold the secret key")),
            Self::NoSession(id) => no_session(id),
            Self::NoTemplate(name) => (StatusCode::NOT_FOUND, NOT_FOUND, NO_TEMPLATE, no_template(name)),
            Self::NotItsTemplate(name) => (StatusCode::NOT_FOUND, NOT_FOUND, NO_TEMPLATE, format!("{} for this caller. It is not among its templates in [token_api]", no_template(name.as_str()))),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request_body_too_large", "Request body too large", format!("The request body exceeds the maximum allowed size of {MAX_BODY} bytes")),
            Self::BodyLate => (StatusCode::REQUEST_TIMEOUT, "request_timeout", "Request timed out", text("The request body did not come in time")),
            Self::Body => (StatusCode::BAD_REQUEST, "request_body_invalid", "Request body invalid", text("The request body is invalid. It is a JSON object, or empty")),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", "Content-Type is unsupported", text("Content-Type is unsupported. You should use application/json instead")),
            Self::Expiry(code) => (StatusCode::UNPROCESSABLE_ENTITY, code, "is invalid", text("expires_in_seconds must be an integer from 30 to 315360000")),
            Self::Unknown(name) => (StatusCode::UNPROCESSABLE_ENTITY, "form_param_unknown", "is unknown", format!("{name} is not a valid parameter for this request.")),
            Self::Throttled(_) => throttled(),
            Self::Mint(none) => none.told(),
            Self::Unreached => unavailable("Clerk cannot be reached"),
            Self::Broken => (StatusCode::BAD_GATEWAY, "bad_gateway", "Clerk broke off", text("The connection to Clerk ended without an answer. The call may have been heard")),
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, "gateway_timeout", "Clerk timed out", text("Clerk did not answer in time. The call may have been heard")),
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Expiry(_) => Some("expires_in_seconds"),
            Self::Unknown(name) => Some(name),
            _ => None,
        }
    }

    /// When to come back, for what is 429.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled(wait) => Some(*wait),
            Self::Unreached => Some(RETRY_AFTER),
            Self::Mint(none) => none.retry_after(),
            _ => None,
        }
    }

    /// The gateway's own code, so that nobody takes the error for the issuer's.
    fn code(&self) -> Option<Code> {
        match self {
            Self::Mint(none) => Some(Error::from(none.error.clone()).code()),
            Self::NotItsTemplate(_) | Self::NoTemplate(_) => Some(Code::TemplateUnknown),
            Self::Throttled(_) => Some(Code::IssuerThrottled),
            Self::Unreached => Some(Code::UpstreamUnreachable),
            Self::Broken => Some(Code::UpstreamBroken),
            Self::Late => Some(Code::UpstreamTimeout),
            _ => None,
        }
    }

    pub(super) fn answer(&self) -> Response {
        let (status, code, message, long_message) = self.told();
        let trace_id = format!("{:016x}", fastrand::u64(..));
        tracing::debug!(%status, code, trace_id, error = %self, "the token API refuses");
        let meta = self.param().map(|param_name| Meta { param_name });
        let row = Row { message, long_message: &long_message, code, meta };
        let mut answer = json(status, &Errors { errors: [row], clerk_trace_id: &trace_id });
        let headers = answer.headers_mut();
        if let Some(code) = self.code() {
            headers.insert(headers::ERROR, HeaderValue::from_static(code.as_str()));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait));
        }
        close_after(headers, self);
        answer
    }
}

const NOT_FOUND: &str = "resource_not_found";
const NO_TEMPLATE: &str = "JWT template not found";
const INVALID_KEY: &str = "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.";

fn no_session(id: &str) -> Told {
    (StatusCode::NOT_FOUND, NOT_FOUND, "Session not found", format!("No session was found with id {id}"))
}

fn no_template(name: &str) -> String {
    format!("No JWT template exists with name: {name}")
}

fn throttled() -> Told {
    let long = "Too many requests, retry later".to_owned();
    (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests", long)
}

fn unavailable(message: &'static str) -> Told {
    let long = format!("{message}. Try again after the time in Retry-After");
    (StatusCode::TOO_MANY_REQUESTS, "service_unavailable", message, long)
}

/// At least one, since a pause of nothing is none; at most an hour, after which it is worth a try whatever was said.
fn whole_seconds(time: Duration) -> HeaderValue {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    HeaderValue::from(seconds.clamp(1, 3600))
}

/// What follows a body that was not read may be part of it.
fn close_after(headers: &mut HeaderMap, refusal: &Refusal) {
    if matches!(refusal, Refusal::BodyTooLarge | Refusal::BodyLate) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

// === impl NoToken ===

impl NoToken {
    fn retry_after(&self) -> Option<Duration> {
        match &self.error {
            MintError::Unavailable { retry_after, .. } | MintError::Throttled { retry_after } => Some(*retry_after),
            MintError::Timeout | MintError::Malformed(_) => Some(RETRY_AFTER),
            _ => None,
        }
    }

    fn told(&self) -> Told {
        let text = str::to_owned;
        match &self.error {
            MintError::TemplateUnknown => {
                (StatusCode::NOT_FOUND, NOT_FOUND, NO_TEMPLATE, no_template(self.template.as_str()))
            }
            MintError::SessionEnded | MintError::Revoked => no_session(self.sid.as_str()),
            MintError::RejectedKey => (
                StatusCode::UNAUTHORIZED,
                "clerk_key_invalid",
                INVALID_KEY,
                text("Clerk does not accept the gateway's secret key. The operator has to renew it"),
            ),
            MintError::Throttled { .. } => throttled(),
            MintError::Unavailable { .. } => unavailable("Clerk is unavailable"),
            MintError::Timeout => unavailable("Clerk did not answer in time"),
            MintError::Malformed(_) => unavailable("Clerk's answer could not be used"),
            MintError::Refused(status) => {
                let status = StatusCode::from_u16(*status).ok().filter(StatusCode::is_client_error);
                let long = "Clerk refused to mint. The operator finds the reason in the gateway's log";
                (status.unwrap_or(StatusCode::BAD_REQUEST), "bad_request", "Clerk refused to mint", text(long))
            }
            MintError::Unfit | MintError::Stale => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "token_unfit",
                "The token cannot be used",
                text("What Clerk minted cannot stand in a header. The operator finds the reason in the gateway's log"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn no_token(error: MintError) -> Refusal {
        let (sid, template) = (SessionId::new("sess_1").unwrap(), TemplateName::new("t").unwrap());
        NoToken { sid, template, error }.into()
    }

    async fn read(answer: Response) -> (u16, HeaderMap, serde_json::Value) {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), head.headers, serde_json::from_slice(&body).unwrap())
    }

    fn every_refusal() -> Vec<Refusal> {
        let seconds = Duration::from_secs;
        let (text, template) = (|| "x".to_owned(), TemplateName::new("t").unwrap());
        let mints = [
            MintError::TemplateUnknown,
            MintError::SessionEnded,
            MintError::RejectedKey,
            MintError::Unavailable { retry_after: seconds(0), source: None },
            MintError::Timeout,
            MintError::Malformed("test"),
            MintError::Refused(302),
            MintError::Refused(422),
            MintError::Throttled { retry_after: Duration::from_millis(1500) },
            MintError::Unfit,
            MintError::Revoked,
            MintError::Stale,
        ];
        let others = [
            Refusal::Page,
            Refusal::NoCredential,
            Refusal::CredentialFormat,
            Refusal::UnknownKey,
            Refusal::OddPath,
            Refusal::NotForCaller,
            Refusal::NoSession(text()),
            Refusal::NoTemplate(text()),
            Refusal::NotItsTemplate(template),
            Refusal::BodyTooLarge,
            Refusal::BodyLate,
            Refusal::Body,
            Refusal::NotJson,
            Refusal::Expiry("form_param_value_invalid"),
            Refusal::Unknown(text()),
            Refusal::Throttled(seconds(7200)),
            Refusal::Unreached,
            Refusal::Broken,
            Refusal::Late,
        ];
        others.into_iter().chain(mints.map(no_token)).collect()
    }

    /// Fails where a text is missing, a charset is added, or a status is 503; and where a 429 does not say when.
    #[tokio::test]
    async fn every_error_has_clerks_shape_and_asks_for_no_endless_retries() {
        for refusal in every_refusal() {
            let (status, headers, body) = read(refusal.answer()).await;
            assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{refusal:?}");
            let error = &body["errors"][0];
            for name in ["message", "long_message", "code"] {
                assert!(error[name].as_str().is_some_and(|text| !text.is_empty()), "{refusal:?} {name}");
            }
            let trace = body["clerk_trace_id"].as_str().unwrap();
            assert!(trace.len() == 16 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{trace}");
            let heard = matches!(refusal, Refusal::Broken | Refusal::Late);
            assert_eq!((400..500).contains(&status), !heard, "{refusal:?}");
            assert_eq!(headers.contains_key(header::RETRY_AFTER), status == 429, "{refusal:?}");
            if let Some(wait) = headers.get(header::RETRY_AFTER) {
                let wait: u64 = wait.to_str().unwrap().parse().unwrap();
                assert!((1..=3600).contains(&wait), "{refusal:?} {wait}");
            }
        }
    }

    #[tokio::test]
    async fn a_wait_is_rounded_up_to_whole_seconds() {
        let wait = Duration::from_millis(1500);
        let (_, headers, _) = read(no_token(MintError::Throttled { retry_after: wait }).answer()).await;
        assert_eq!(headers[header::RETRY_AFTER], "2");
    }

    #[tokio::test]
    async fn a_token_is_answered_to_the_byte() {
        let token = Token::new("a.b.c", tokio::time::Instant::now()).unwrap();
        let (head, body) = minted(&token).into_parts();
        assert_eq!(
            (head.status.as_u16(), &head.headers[header::CONTENT_TYPE]),
            (200, &"application/json".parse().unwrap())
        );
        assert_eq!(body.collect().await.unwrap().to_bytes(), r#"{"object":"token","jwt":"a.b.c"}"#);
    }
}
