//! Every way in which a request can fail, and the one table of what the caller is told.
//!
//! The public text is fixed per code and says what to do; what really happened goes to the log.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use serde::Serialize;

use crate::config::Origin;
use crate::headers;
use crate::metrics::{OutcomeId, OutcomeName, labels};
use crate::proxy::aim::BadTarget;
use crate::proxy::forward::ForwardError;
use crate::proxy::grpc::is_grpc;
use crate::route::RouteError;
use crate::session::SessionError;
use crate::token::MintError;

/// Why a request was not answered by its upstream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Step 4.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The head could be read in two ways.
    #[error("{0}")]
    Malformed(&'static str),
    /// Step 5.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Step 5, while no verification key has come from the issuer.
    #[error("no verification key is known yet")]
    NoKeys,
    /// Step 6.
    #[error("a cookie came with an origin that is not trusted")]
    OriginForbidden,
    /// Step 7.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// A required value is absent or not header-safe, or the head would be too large for the upstream.
    #[error("{0}")]
    Unfit(&'static str),
    /// The route's rewriting made a target that is not one.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// Step 10.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// `Expect` other than `100-continue`.
    #[error("an expectation that nobody meets")]
    Expectation,
    /// The target is longer than `max_uri_bytes`.
    #[error("the request target is too long")]
    UriTooLong,
    /// The head is longer than `max_header_bytes`, ours or the upstream's.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// The length that was announced is above `request_body_limit`.
    #[error("the request body is too large")]
    BodyTooLarge,
}

labels!(
    /// The codes of `x-mintgate-error`; relied on from outside.
    Code {
        /// No host and path match.
        NoRoute = "no-route",
        /// The path matches, the method does not.
        MethodNotAllowed = "method-not-allowed",
        /// No credential.
        SessionMissing = "session-missing",
        /// Not a session token of ours.
        SessionInvalid = "session-invalid",
        /// Past its `exp`.
        SessionExpired = "session-expired",
        /// Revoked.
        SessionRevoked = "session-revoked",
        /// `sts: pending`.
        SessionPending = "session-pending",
        /// The issuer no longer knows it.
        SessionEnded = "session-ended",
        /// The minted token contradicts it.
        SessionStale = "session-stale",
        /// Two credentials where one may be.
        CredentialAmbiguous = "credential-ambiguous",
        /// The request could be read in two ways.
        RequestMalformed = "request-malformed",
        /// A cookie with a foreign origin.
        OriginForbidden = "origin-forbidden",
        /// The issuer knows no such template.
        TemplateUnknown = "template-unknown",
        /// The issuer refuses the secret key.
        IssuerRejectedKey = "issuer-rejected-key",
        /// The issuer's answer made no sense.
        IssuerMalformed = "issuer-malformed",
        /// The issuer refused.
        IssuerRefused = "issuer-refused",
        /// The token cannot be injected.
        TokenUnfit = "token-unfit",
        /// The issuer cannot be reached.
        IssuerUnavailable = "issuer-unavailable",
        /// The issuer's rate limit is reached.
        IssuerThrottled = "issuer-throttled",
        /// The issuer took too long.
        IssuerTimeout = "issuer-timeout",
        /// No connection to the upstream.
        UpstreamUnreachable = "upstream-unreachable",
        /// The upstream broke off, or its answer made no sense.
        UpstreamBroken = "upstream-broken",
        /// The upstream took too long.
        UpstreamTimeout = "upstream-timeout",
        /// Too many connections.
        Overloaded = "overloaded",
        /// The request's body is too large.
        BodyTooLarge = "body-too-large",
        /// The request's head is too large.
        HeadersTooLarge = "headers-too-large",
        /// The request's target is too long.
        UriTooLong = "uri-too-long",
        /// The request's body stood still.
        RequestTimeout = "request-timeout",
        /// `Expect` other than `100-continue`.
        ExpectationFailed = "expectation-failed",
    }
);

/// What callers are told of a code.
#[derive(Debug, Clone, Copy)]
struct Row {
    status: u16,
    title: &'static str,
    detail: &'static str,
}

/// What an answer of ours takes from its request, before the head is sent on.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Whether the connection must end after a head that could be read in two ways.
    pub closes: bool,
    /// A gRPC caller gets a trailers-only answer.
    pub grpc: bool,
    /// An `Origin` that may read our errors.
    pub origin: Option<HeaderValue>,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    request_id: &'a str,
}

/// Status classes of an upstream's answers, in the order of their outcome ids; our codes follow.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

// === impl Code ===

impl Code {
    /// The one table.
    #[rustfmt::skip]
    const fn row(self) -> Row {
        let (status, title, detail) = match self {
            Self::NoRoute => (404, "No route", "No route of the gateway matches this host and path. Check the URL."),
            Self::MethodNotAllowed => (405, "Method not allowed", "The route does not take this method. See the Allow header."),
            Self::SessionMissing => (401, "Session missing", "The request carries no session. Sign in and send the session token."),
            Self::SessionInvalid => (401, "Session invalid", "The session token is not valid here. Get a fresh one and send it unchanged."),
            Self::SessionExpired => (401, "Session token expired", "The session token has expired. Get a fresh one and try again."),
            Self::SessionRevoked => (401, "Session revoked", "The session was revoked. Sign in again."),
            Self::SessionPending => (401, "Session pending", "The session has tasks that are not done. Finish signing in."),
            Self::SessionEnded => (401, "Session ended", "The session has ended. Sign in again."),
            Self::SessionStale => (401, "Session stale", "The session has changed and the issuer does not know it yet. Get a fresh session token and try again."),
            Self::CredentialAmbiguous => (400, "Credential ambiguous", "The request carries more than one session credential. Send one."),
            Self::RequestMalformed => (400, "Request malformed", "The request could be read in two ways, or is not valid HTTP. Correct it; repeating it does not help."),
            Self::OriginForbidden => (403, "Origin forbidden", "A session cookie is taken from trusted origins only. Send the session token in the Authorization header."),
            Self::TemplateUnknown => (502, "Template unknown", "The token template of this route does not exist. The operator has to create it or correct the route."),
            Self::IssuerRejectedKey => (502, "Issuer rejected the key", "The issuer does not accept the gateway's key. The operator has to renew it."),
            Self::IssuerMalformed => (502, "Issuer's answer malformed", "The issuer's answer could not be used. Try again later."),
            Self::IssuerRefused => (502, "Issuer refused", "The issuer refused to issue a token. The operator finds the reason in the gateway's log."),
            Self::TokenUnfit => (502, "Token unfit", "A value of this route cannot be put into a header that the upstream accepts. The operator finds the reason in the gateway's log."),
            Self::IssuerUnavailable => (503, "Issuer unavailable", "The issuer cannot be reached. Try again after the time in Retry-After."),
            Self::IssuerThrottled => (503, "Issuer throttled", "The issuer's rate limit is reached. Try again after the time in Retry-After."),
            Self::IssuerTimeout => (504, "Issuer timed out", "The issuer did not answer in time. Try again."),
            Self::UpstreamUnreachable => (502, "Upstream unreachable", "The upstream does not accept connections. Try again later."),
            Self::UpstreamBroken => (502, "Upstream broke off", "The upstream ended the connection or sent what is not valid HTTP. Try again if the request may be repeated."),
            Self::UpstreamTimeout => (504, "Upstream timed out", "The upstream did not answer in time. Try again if the request may be repeated."),
            Self::Overloaded => (503, "Overloaded", "The gateway has too many connections. Try again after the time in Retry-After."),
            Self::BodyTooLarge => (413, "Body too large", "The request body is larger than the gateway takes. Send less."),
            Self::HeadersTooLarge => (431, "Headers too large", "The request head is larger than the gateway or the upstream takes. Send fewer or shorter headers."),
            Self::UriTooLong => (414, "URI too long", "The request target is longer than the gateway takes. Shorten it."),
            Self::RequestTimeout => (408, "Request timed out", "The request body stood still for too long. Send it again."),
            Self::ExpectationFailed => (417, "Expectation failed", "Only the expectation 100-continue can be met. Send the request without Expect."),
        };
        Row { status, title, detail }
    }

    /// The status of an answer with this code.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Its place in the metrics.
    pub fn outcome(self) -> OutcomeId {
        OutcomeId::new(CLASSES.len() + self.index())
    }

    /// The code of gRPC (its `statuscodes` document) that means the same.
    fn grpc_status(self) -> &'static str {
        match self.row().status {
            401 => "16",
            403 => "7",
            404 | 405 => "12",
            429 => "8",
            408 | 504 => "14",
            400..=499 => "3",
            _ => "14",
        }
    }
}

/// The outcome of an upstream's answer.
pub fn upstream_outcome(status: StatusCode) -> OutcomeId {
    OutcomeId::new(usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1)
}

/// The texts of every outcome, in the order of their ids.
pub fn outcome_names() -> Vec<OutcomeName> {
    let classes = CLASSES.iter().map(|class| OutcomeName { status: (*class).to_owned(), code: "" });
    let codes = Code::ALL.iter().map(|code| OutcomeName { status: code.row().status.to_string(), code: code.as_str() });
    classes.chain(codes).collect()
}

// === impl Error ===

impl Error {
    /// The code. Exhaustive: a new way to fail does not compile without one.
    pub fn code(&self) -> Code {
        match self {
            Self::Route(RouteError::NoRoute) => Code::NoRoute,
            Self::Route(RouteError::MethodNotAllowed { .. }) => Code::MethodNotAllowed,
            Self::Route(RouteError::OddPath | RouteError::OddHost)
            | Self::Malformed(_)
            | Self::Target(_)
            | Self::Forward(ForwardError::BodyBroken) => Code::RequestMalformed,
            Self::Session(SessionError::Missing) => Code::SessionMissing,
            Self::Session(SessionError::Invalid(_)) => Code::SessionInvalid,
            Self::Session(SessionError::Expired) => Code::SessionExpired,
            Self::Session(SessionError::Revoked) | Self::Mint(MintError::Revoked) => Code::SessionRevoked,
            Self::Session(SessionError::Pending) => Code::SessionPending,
            Self::Session(SessionError::Ambiguous) => Code::CredentialAmbiguous,
            Self::OriginForbidden => Code::OriginForbidden,
            Self::Mint(MintError::TemplateUnknown) => Code::TemplateUnknown,
            Self::Mint(MintError::SessionEnded) => Code::SessionEnded,
            Self::Mint(MintError::Stale) => Code::SessionStale,
            Self::Mint(MintError::RejectedKey) => Code::IssuerRejectedKey,
            Self::Mint(MintError::Unavailable { .. }) | Self::NoKeys => Code::IssuerUnavailable,
            Self::Mint(MintError::Timeout) => Code::IssuerTimeout,
            Self::Mint(MintError::Malformed(_)) => Code::IssuerMalformed,
            Self::Mint(MintError::Refused(_)) => Code::IssuerRefused,
            Self::Mint(MintError::Throttled { .. }) => Code::IssuerThrottled,
            Self::Mint(MintError::Unfit) | Self::Unfit(_) => Code::TokenUnfit,
            Self::Forward(ForwardError::Unreachable(_)) => Code::UpstreamUnreachable,
            Self::Forward(ForwardError::Broken(_) | ForwardError::Unasked | ForwardError::Framing) => {
                Code::UpstreamBroken
            }
            Self::Forward(ForwardError::TimedOut) => Code::UpstreamTimeout,
            Self::Forward(ForwardError::BodyStalled) => Code::RequestTimeout,
            Self::Forward(ForwardError::BodyTooLarge) | Self::BodyTooLarge => Code::BodyTooLarge,
            Self::Expectation => Code::ExpectationFailed,
            Self::UriTooLong => Code::UriTooLong,
            Self::HeadTooLarge => Code::HeadersTooLarge,
        }
    }

    /// The public `reason` of `session-invalid`.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Session(SessionError::Invalid(reason)) => Some(reason.as_str()),
            _ => None,
        }
    }

    /// The answer, as `application/problem+json` (RFC 9457), or to a gRPC caller as trailers only.
    pub fn answer(&self, asked: &Asked, request_id: &str) -> Response<bytes::Bytes> {
        let code = self.code();
        let mut answer = if asked.grpc { grpc(code) } else { problem(code, self.reason(), request_id) };
        let headers = answer.headers_mut();
        headers.insert(headers::ERROR, HeaderValue::from_static(code.as_str()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, challenge(code, self.reason()));
        }
        match self {
            Self::Route(RouteError::MethodNotAllowed { allow }) => {
                headers.insert(header::ALLOW, allow_list(allow));
            }
            Self::Mint(MintError::Unavailable { retry_after, .. } | MintError::Throttled { retry_after }) => {
                headers.insert(header::RETRY_AFTER, whole_seconds(*retry_after));
            }
            Self::NoKeys => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if asked.closes && code == Code::RequestMalformed {
            // What follows such a head may be part of it for somebody: nothing of it is read as a request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(origin) = &asked.origin {
            allow_reading(headers, origin);
        }
        answer
    }
}

fn problem(code: Code, reason: Option<&str>, request_id: &str) -> Response<bytes::Bytes> {
    let row = code.row();
    let problem = Problem {
        r#type: format!("urn:mintgate:error:{}", code.as_str()),
        title: row.title,
        status: row.status,
        code: code.as_str(),
        detail: row.detail,
        reason,
        request_id,
    };
    // Strings and a number: nothing that JSON could not hold.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut answer = Response::new(body.into());
    *answer.status_mut() = code.status();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

fn grpc(code: Code) -> Response<bytes::Bytes> {
    let mut answer = Response::new(bytes::Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code.grpc_status()));
    headers.insert("grpc-message", HeaderValue::from_static(code.as_str()));
    answer
}

/// RFC 6750 section 3.
fn challenge(code: Code, reason: Option<&str>) -> HeaderValue {
    let text = match (code, reason) {
        (Code::SessionMissing, _) => "Bearer".to_owned(),
        (_, Some(reason)) => {
            format!("Bearer error=\"invalid_token\", error_description=\"{}: {reason}\"", code.as_str())
        }
        (_, None) => format!("Bearer error=\"invalid_token\", error_description=\"{}\"", code.as_str()),
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
}

fn allow_list(methods: &[Method]) -> HeaderValue {
    let list = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(list).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// At most an hour: after that it is worth a try whatever the issuer said.
fn whole_seconds(time: Duration) -> HeaderValue {
    let time = time.min(Duration::from_hours(1));
    HeaderValue::from(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// A browser shows an answer to a page of another origin only with these.
fn allow_reading(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-mintgate-error, retry-after"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

// === impl Asked ===

impl Asked {
    /// Reads the head. `parties`: whose pages may read our errors.
    pub fn of(head: &Parts, parties: &[Origin]) -> Self {
        let origin = head.headers.get(header::ORIGIN);
        let trusted =
            origin.filter(|origin| parties.iter().any(|party| party.as_str().as_bytes() == origin.as_bytes()));
        Self { closes: head.version < Version::HTTP_2, grpc: is_grpc(head), origin: trusted.cloned() }
    }
}

/// What a connection beyond `max_connections` gets.
pub fn overloaded() -> Vec<u8> {
    let body = problem(Code::Overloaded, None, "-").into_body();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nx-mintgate-error: overloaded\r\n\
         cache-control: no-store\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Reason;

    fn answer(error: impl Into<Error>) -> Response<bytes::Bytes> {
        error.into().answer(&Asked::default(), "r1")
    }

    #[test]
    fn every_code_has_a_real_status_and_its_own_outcome() {
        let names = outcome_names();
        for code in Code::ALL {
            assert!(code.status().as_u16() >= 400, "{code:?}");
            assert_eq!(names[code.outcome().index()].code, code.as_str());
        }
        assert_eq!(names[upstream_outcome(StatusCode::CREATED).index()].status, "2xx");
        assert_eq!(names[upstream_outcome(StatusCode::BAD_GATEWAY).index()].status, "5xx");
        assert_eq!(names[upstream_outcome(StatusCode::from_u16(999).unwrap()).index()].status, "5xx");
    }

    #[test]
    fn an_invalid_session_tells_its_reason() {
        let answer = answer(SessionError::Invalid(Reason::Signature));
        assert_eq!(answer.status(), 401);
        assert_eq!(
            answer.headers()[header::WWW_AUTHENTICATE],
            "Bearer error=\"invalid_token\", error_description=\"session-invalid: signature\""
        );
        let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!((&body["code"], &body["reason"]), (&"session-invalid".into(), &"signature".into()));
        assert_eq!((&body["request_id"], &body["status"]), (&"r1".into(), &401.into()));
    }

    #[test]
    fn the_issuers_failure_is_never_the_users_fault() {
        let retry_after = Duration::from_millis(1500);
        for (error, status) in [
            (MintError::RejectedKey, 502),
            (MintError::TemplateUnknown, 502),
            (MintError::Refused(422), 502),
            (MintError::Throttled { retry_after }, 503),
            (MintError::Unavailable { retry_after, source: None }, 503),
            (MintError::Timeout, 504),
        ] {
            let retry = matches!(error, MintError::Throttled { .. } | MintError::Unavailable { .. });
            let answer = answer(error);
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers().get(header::RETRY_AFTER).map(|v| v == "2"), retry.then_some(true));
        }
    }

    #[test]
    fn a_grpc_caller_gets_trailers_only() {
        let answer = Error::from(SessionError::Expired).answer(&Asked { grpc: true, ..Asked::default() }, "r1");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "16");
        assert_eq!(answer.headers()["grpc-message"], "session-expired");
        assert!(answer.body().is_empty());
    }

    #[test]
    fn a_trusted_origin_may_read_the_error() {
        let asked = Asked { origin: Some(HeaderValue::from_static("https://app.example.com")), ..Asked::default() };
        let answer = Error::from(SessionError::Missing).answer(&asked, "r1");
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example.com");
        assert_eq!(answer.headers()[header::VARY], "Origin");
        assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}
