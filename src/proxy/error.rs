//! Every way in which a request can fail, and the code that each one has.

mod code;

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use serde::Serialize;

pub use self::code::{Code, outcome_names, upstream_outcome};
use crate::config::Origin;
use crate::headers;
use crate::proxy::aim::BadTarget;
use crate::proxy::forward::ForwardError;
use crate::proxy::grpc::is_grpc;
use crate::route::RouteError;
use crate::session::named::NotACaller;
use crate::session::{Reason, SessionError};
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
    /// Step 5, where a session is only named.
    #[error(transparent)]
    NotACaller(#[from] NotACaller),
    /// Before step 4, where a proxy asks for a decision.
    #[error("who asked for a decision is not in authz.allow_from")]
    NotAnAsker,
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
    /// Over HTTP/2: another protocol than WebSocket, or one where the route opens none.
    #[error("{0}")]
    NotSpoken(&'static str),
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
    /// On TLS: asked of another name than the handshake's, which its certificate does not cover, or of `http:`.
    #[error("the request is for another server than the TLS handshake was")]
    Misdirected,
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
            | Self::Forward(ForwardError::BodyBroken | ForwardError::Target(_)) => Code::RequestMalformed,
            Self::Session(SessionError::Missing) => Code::SessionMissing,
            Self::Session(SessionError::Invalid(_)) => Code::SessionInvalid,
            Self::Session(SessionError::Expired) => Code::SessionExpired,
            Self::Session(SessionError::Revoked) | Self::Mint(MintError::Revoked) => Code::SessionRevoked,
            Self::Session(SessionError::Pending) => Code::SessionPending,
            Self::Session(SessionError::Ambiguous) => Code::CredentialAmbiguous,
            Self::Session(SessionError::Forbidden) => Code::SessionForbidden,
            Self::OriginForbidden | Self::NotACaller(_) | Self::NotAnAsker => Code::OriginForbidden,
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
            Self::Forward(
                ForwardError::Broken(_) | ForwardError::Unasked | ForwardError::Disagreed(_) | ForwardError::Framing,
            ) => Code::UpstreamBroken,
            Self::Forward(ForwardError::TimedOut) => Code::UpstreamTimeout,
            Self::Forward(ForwardError::BodyStalled) => Code::RequestTimeout,
            Self::Forward(ForwardError::BodyTooLarge) | Self::BodyTooLarge => Code::BodyTooLarge,
            Self::NotSpoken(_) => Code::ProtocolUnsupported,
            Self::Expectation => Code::ExpectationFailed,
            Self::UriTooLong => Code::UriTooLong,
            Self::HeadTooLarge => Code::HeadersTooLarge,
            Self::Misdirected => Code::Misdirected,
        }
    }

    /// The public `reason` of `session-invalid`.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Session(SessionError::Invalid(reason)) => Some(reason.as_str()),
            _ => None,
        }
    }

    /// What to do. A fresh token, which is the usual way out of `session-invalid`, helps against some reasons alone.
    fn detail(&self) -> &'static str {
        let reason = match self {
            Self::Session(SessionError::Invalid(reason)) => reason,
            Self::NotAnAsker => {
                return "Decisions are for the proxies that the operator lists in authz.allow_from, and this is none of them.";
            }
            _ => return self.code().row().detail,
        };
        match reason {
            Reason::Azp => {
                "The session token was issued to an application of another origin (`azp`). The operator lists that origin in \
                 clerk.authorized_parties, or the token comes from the wrong application."
            }
            Reason::Issuer | Reason::UnknownKey => {
                "The session token is of another Clerk instance, or its key is not known here. Compare the keys of the \
                 application with those of the gateway."
            }
            Reason::Category | Reason::NotASessionToken => {
                "This is no session token. Send what getToken() gives without a template, not a template's token or a key."
            }
            Reason::NotYetValid => {
                "The session token begins in the future. Compare the clocks of the machines, then get a fresh one."
            }
            Reason::Malformed | Reason::Algorithm | Reason::Signature | Reason::Claims | Reason::OutdatedCookie => {
                self.code().row().detail
            }
        }
    }

    /// The answer, as `application/problem+json` (RFC 9457), or to a gRPC caller as trailers only.
    pub fn answer(&self, asked: &Asked, request_id: &str) -> Response<bytes::Bytes> {
        let code = self.code();
        let mut answer = if asked.grpc { grpc(code) } else { problem(code, self.detail(), self.reason(), request_id) };
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

fn problem(code: Code, detail: &str, reason: Option<&str>, request_id: &str) -> Response<bytes::Bytes> {
    let row = code.row();
    let problem = Problem {
        r#type: format!("urn:mintgate:error:{}", code.as_str()),
        title: row.title,
        status: row.status,
        code: code.as_str(),
        detail,
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
        let trusted = origin.and_then(|origin| {
            let party = parties.iter().find(|party| party.as_str().as_bytes() == origin.as_bytes())?;
            // The same in bytes of its own: the header's are those that the whole head was read into.
            HeaderValue::from_str(party.as_str()).ok()
        });
        Self { closes: head.version < Version::HTTP_2, grpc: is_grpc(head), origin: trusted }
    }
}

/// What a connection beyond `max_connections` gets.
pub fn overloaded() -> Vec<u8> {
    let body = problem(Code::Overloaded, Code::Overloaded.row().detail, None, "-").into_body();
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
    fn a_fresh_token_is_advised_only_where_it_helps() {
        for (reason, fresh) in
            [(Reason::Signature, true), (Reason::Azp, false), (Reason::Issuer, false), (Reason::Category, false)]
        {
            let answer = answer(SessionError::Invalid(reason));
            let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            let detail = body["detail"].as_str().unwrap();
            assert_eq!(detail.contains("fresh"), fresh, "{detail}");
        }
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
