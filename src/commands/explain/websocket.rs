//! Whether a request that is explained opens a WebSocket, and what ends that.

use http::header::{self, HeaderMap};
use http::request::Parts;

use crate::config::{CloseAt, ConnectionInit, InPayload, Route, SessionSource};
use crate::proxy::opening::PATIENCE;
use crate::proxy::upgrade::handshake::{Handshake, Protocol};

use super::report::WebSocket;

/// What comes of the request's wish for another protocol; `None`: it has none. With the handshake that the upstream
/// gets, where it gets one.
pub(super) fn judge(head: &Parts, route: &Route) -> Option<(WebSocket, Option<Handshake>)> {
    if !head.headers.contains_key(header::UPGRADE) {
        return None;
    }
    let ordinary = |because| Some((WebSocket::Ordinary { because }, None));
    match (Protocol::of(head, announces_body(&head.headers)), &route.websocket) {
        (Protocol::Other, _) => ordinary("Upgrade names no websocket, and nothing else is granted"),
        (Protocol::Invalid(fault), _) => ordinary(fault.0),
        (Protocol::WebSocket(_), None) => ordinary("the route says websocket = false"),
        (Protocol::WebSocket(handshake), Some(rules)) => {
            let close_at = match rules.close_at {
                CloseAt::Never => "never",
                CloseAt::Token => "token",
                CloseAt::Session => "session",
            };
            let max_lifetime = rules.max_lifetime.map(|limit| limit.as_secs());
            let first_message = route.connection_init.as_ref().map(|init| first_message(route, init));
            Some((WebSocket::Opens { close_at, max_lifetime, verified: false, first_message }, Some(handshake)))
        }
    }
}

/// Where the route looks for a session, in order.
pub(super) fn sources(route: &Route) -> Vec<String> {
    let name = |source: &SessionSource| match source {
        SessionSource::Bearer => "Authorization: Bearer".to_owned(),
        SessionSource::Cookie => "Clerk's session cookie".to_owned(),
        SessionSource::Header(name) => format!("header {name}"),
    };
    let late =
        |place: &InPayload| format!("the first message of the WebSocket, at payload / {}", place.steps.join(" / "));
    route.session.iter().map(name).chain(route.late_session().map(late)).collect()
}

/// What is done with `connection_init`.
fn first_message(route: &Route, init: &ConnectionInit) -> String {
    let place = init.token.steps.join(" / ");
    let header = &route.inject[init.injection].header;
    let waits = match init.session {
        Some(_) => format!("nothing passes before it, at most {} s, else 4401; ", PATIENCE.as_secs()),
        None => String::new(),
    };
    format!("{waits}connection_init gets the token of {header} at payload / {place}; no extension is agreed to")
}

/// A request that is explained has no body, but may say that it has one.
fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}
