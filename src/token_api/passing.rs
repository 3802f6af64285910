//! Calls that are the issuer's to answer: passed on as they come, or read with our own key.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::response::Response;
use http_body_util::BodyExt as _;

use super::answer::Refusal;
use crate::headers::{self, HOP_BY_HOP};
use crate::telemetry::chain;
use crate::token::clerk::http::Streamed;
use crate::token::clerk::passage::PassError;
use crate::token::clerk::{Answer, ClerkClient, ExchangeError, FetchError};

/// What of an answer that was read whole is told.
const TOLD: [HeaderName; 4] = [header::CONTENT_TYPE, header::CACHE_CONTROL, header::DATE, header::RETRY_AFTER];

/// Passes a call on with the key that its caller shows. Both bodies stream.
pub(super) async fn pass(client: &ClerkClient, mut head: Parts, body: Body) -> Result<Response, Refusal> {
    prepare(&mut head.headers);
    let body: Streamed = body.map_err(Into::into).boxed_unsync();
    let mut answer = client.pass(&head, body).await.map_err(|error| refused(&error))?.map(Body::new);
    clean(answer.headers_mut());
    answer.headers_mut().remove(headers::ERROR);
    *answer.version_mut() = Version::HTTP_11;
    Ok(answer)
}

/// Answers with what the issuer tells us.
pub(super) async fn read(client: &ClerkClient, path: &str) -> Result<Response, Refusal> {
    let Answer { status, headers, body, .. } = client.read(path).await.map_err(|error| match error {
        FetchError::Exchange(error) => lost(&error),
        FetchError::Url(_) | FetchError::Status(_) => Refusal::OddPath,
    })?;
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    for name in TOLD {
        if let Some(value) = headers.get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    Ok(answer)
}

fn refused(error: &PassError) -> Refusal {
    match error {
        PassError::Target(_) => Refusal::OddPath,
        PassError::Exchange(error) => lost(error),
    }
}

fn lost(error: &ExchangeError) -> Refusal {
    tracing::debug!(error = chain(error), "a call that was passed on has no answer");
    match error {
        ExchangeError::Connect(_) => Refusal::Unreached,
        ExchangeError::Broken(_) | ExchangeError::Body(_) | ExchangeError::TooLarge(_) => Refusal::Broken,
        ExchangeError::Deadline => Refusal::Late,
    }
}

/// Makes a caller's headers those of a call of our own.
fn prepare(headers: &mut HeaderMap) {
    clean(headers);
    // The 100 is sent by our own server, when the body is first asked for.
    headers.remove(header::EXPECT);
    // No table of HTTP/2 and no log gets it.
    if let Some(credential) = headers.get_mut(header::AUTHORIZATION) {
        credential.set_sensitive(true);
    }
}

/// Takes out what belongs to one connection, with everything that its `Connection` lines name; but what frames the body
/// or says who asks is nobody's to name there.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers::connection_options(headers)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| ![header::AUTHORIZATION, header::CONTENT_LENGTH, header::CONTENT_TYPE].contains(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP).chain(&[header::TE, header::TRAILER]) {
        headers.remove(name);
    }
}

/// The issuer's time, where an answer does not tell it: who stands behind us corrects its clock by it, as we do by the
/// issuer's own.
pub(super) fn date(headers: &mut HeaderMap, issuers: std::time::SystemTime) {
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(issuers)) {
        headers.entry(header::DATE).or_insert(date);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails without the look at every `Connection` line, and where the key is not marked.
    #[test]
    fn what_belongs_to_a_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-private"),
            ("connection", "X-Other, authorization, content-length"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("proxy-connection", "keep-alive"),
            ("expect", "100-continue"),
            ("x-private", "1"),
            ("x-other", "2"),
            ("x-clerk-sdk", "python"),
            ("authorization", "Bearer k"),
            ("content-length", "2"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        prepare(&mut headers);
        assert!(headers[header::AUTHORIZATION].is_sensitive());
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length", "x-clerk-sdk"]);
    }
}
