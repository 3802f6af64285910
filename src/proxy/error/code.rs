//! The closed set of codes, and the one table of what each of them means to a caller.
//!
//! The public text is fixed per code and says what to do; what really happened goes to the log.

use http::StatusCode;

use crate::metrics::{OutcomeId, OutcomeName, labels};

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
        /// The session is not what the route asks for.
        SessionForbidden = "session-forbidden",
        /// A cookie with a foreign origin, or a session that is named by who may not.
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
        /// A protocol that is not spoken there.
        ProtocolUnsupported = "protocol-unsupported",
        /// The TLS certificate does not cover the host.
        Misdirected = "misdirected",
    }
);

/// What callers are told of a code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) status: u16,
    pub(super) title: &'static str,
    pub(super) detail: &'static str,
}

/// Status classes of an upstream's answers, in the order of their outcome ids; our codes follow.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

// === impl Code ===

impl Code {
    /// The one table.
    #[rustfmt::skip]
    pub(super) const fn row(self) -> Row {
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
            Self::OriginForbidden => (403, "Origin forbidden", "The request may not be made from there: a session cookie is taken from trusted origins only, the id of a session from trusted local programs only. Send the session token in the Authorization header."),
            Self::SessionForbidden => (403, "Session forbidden", "The session is valid, and not allowed here. Ask for the role or the membership that this needs."),
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
            Self::ProtocolUnsupported => (501, "Protocol not supported", "Over HTTP/2 only WebSockets can be opened, and not on every route. Use another route or another protocol."),
            Self::Misdirected => (421, "Misdirected request", "The TLS connection was made to another host. Send the request on a connection to its own host."),
        };
        Row { status, title, detail }
    }

    /// The status of an answer with this code.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What a WebSocket is closed with that is open when this comes out: what GraphQL's protocols say where there is no
    /// session, or one that may not; else whether it is worth another try (RFC 6455 section 7.4).
    pub fn close(self) -> u16 {
        match self.row().status {
            400 | 401 => 4401,
            403 => 4403,
            503 | 504 => 1013,
            _ => 1011,
        }
    }

    /// What it is called in an answer.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// Its place in the metrics.
    pub fn outcome(self) -> OutcomeId {
        OutcomeId::new(CLASSES.len() + self.index())
    }

    /// The same as a number.
    pub fn grpc_code(self) -> i32 {
        // Each of them is one; 2 is 'unknown'.
        self.grpc_status().parse().unwrap_or(2)
    }

    /// The code of gRPC (its `statuscodes` document) that means the same.
    pub(super) fn grpc_status(self) -> &'static str {
        match self.row().status {
            401 => "16",
            403 => "7",
            404 | 405 | 501 => "12",
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
