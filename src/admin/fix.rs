//! What the operator does about each error code: one sentence each, for the status page.
//!
//! The answer itself speaks to the caller (`proxy/error/code.rs`); this speaks to who runs the gateway.

use crate::proxy::error::Code;

/// Exhaustive: a new code does not compile without its way out.
#[rustfmt::skip]
pub(super) const fn fix(code: Code) -> &'static str {
    match code {
        Code::NoRoute => "Add a route for this host and path, or correct the caller's URL; `mintgate explain` shows what a request matches.",
        Code::MethodNotAllowed => "Add the method to `match.methods` of the route, or have the caller use one that is listed.",
        Code::SessionMissing => "Have the application send its session token, or make the route public with `session = []`.",
        Code::SessionInvalid => "Compare the keys, `issuer` and `authorized_parties` with the application's Clerk instance; the reason tells which.",
        Code::SessionExpired => "Have the application call `getToken()` for each request instead of keeping what it returned.",
        Code::SessionRevoked => "Nothing to repair: the user has to sign in again.",
        Code::SessionPending => "Have the user finish signing in, or allow it with `allow_pending = true` on the route.",
        Code::SessionEnded => "The user has to sign in again; if many do, check that secret key and publishable key are of one Clerk instance.",
        Code::SessionStale => "Compare `expect` of the route with what the template puts into its tokens.",
        Code::CredentialAmbiguous => "Have the caller send one session token, in one place.",
        Code::RequestMalformed => "Look at the cause in the log; odd paths that are meant so need `allow_odd_paths = true` on the route.",
        Code::SessionForbidden => "Give the user the role that `require` of the route asks for, or correct `require`.",
        Code::OriginForbidden => "Add the application's origin to `clerk.authorized_parties`, or send the token in `Authorization` instead of a cookie.",
        Code::TemplateUnknown => "Create the JWT template in Clerk's dashboard, or correct its name in `inject`.",
        Code::IssuerRejectedKey => "Put a valid key of this Clerk instance where `clerk.secret_key` reads it; a changed file is used without a restart.",
        Code::IssuerMalformed => "Check that `clerk.api_url` leads to Clerk and not to a proxy's page; the log says what was wrong.",
        Code::IssuerRefused => "Look for Clerk's code and trace id in the log.",
        Code::TokenUnfit => "Look in the log which value does not fit; shorten the template or raise `max_header_bytes` of the upstream.",
        Code::IssuerUnavailable => "Check the network's way to `clerk.api_url` and Clerk's status; live tokens serve meanwhile.",
        Code::IssuerThrottled => "Raise `clerk.budget` if Clerk's limit is higher, set `replicas` right, or mint longer tokens with `expires_in`.",
        Code::IssuerTimeout => "Check the network's way to Clerk, or raise `clerk.timeout`.",
        Code::UpstreamUnreachable => "Start the upstream, or correct its `url`.",
        Code::UpstreamBroken => "Look into the upstream's log; if it closes idle connections early, lower `pool.idle_timeout`.",
        Code::UpstreamTimeout => "Make the upstream faster, or raise its `response_timeout`.",
        Code::Overloaded => "Raise `server.max_connections` and the limit of descriptors, or add replicas.",
        Code::BodyTooLarge => "Raise `server.request_body_limit`, or send less.",
        Code::HeadersTooLarge => "Raise `max_header_bytes` of the server or of the upstream, or send fewer cookies.",
        Code::UriTooLong => "Raise `server.max_uri_bytes`, or send a shorter URL.",
        Code::RequestTimeout => "Look for callers that stop amid a body; `server.body_progress_timeout` is how long they may.",
        Code::ExpectationFailed => "Have the caller leave out `Expect`, or send `100-continue`.",
        Code::ProtocolUnsupported => "Leave out `websocket = false` on the route if it is to open WebSockets; other protocols are not spoken.",
        Code::Misdirected => "Add the host to the certificate of `server.tls`, or have callers use a name that it covers.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_sentence_that_says_what_to_do() {
        for &code in Code::ALL {
            let text = fix(code);
            assert!(text.ends_with('.') && !text.contains(". ") && text.len() < 140, "{code:?}: {text}");
        }
    }
}
