//! Header names that the file may and may not use.

use http::HeaderName;

use crate::config::raw::reader::At;
use crate::headers::NameSet;

use super::context::Context;

/// What a request is delimited and addressed by.
pub(crate) const FRAMING: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// Names that the gateway or the protocol decides about; twins and `*` as in [`NameSet`].
const RESERVED: [&str; 22] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "http2-settings",
    "content-encoding",
    "sec-websocket-*",
    "sec-fetch-*",
    "x-mintgate-*",
    "x-request-id",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

/// A name that may be set in a request.
pub(crate) fn settable(at: &At<String>, cx: &mut Context<'_>) -> Option<HeaderName> {
    let name = name(at, cx)?;
    if reserved().contains(&name) {
        cx.error(&at.span, "this header is not for the configuration to set")
            .advice("the protocol or the gateway decides about it");
        return None;
    }
    Some(name)
}

/// A name in which a credential may stand.
pub(crate) fn credential(at: &At<String>, cx: &mut Context<'_>) -> Option<HeaderName> {
    let name = name(at, cx)?;
    let words: &[(&str, &str)] = &[("authorization", "write \"bearer\""), ("cookie", "write \"cookie\"")];
    if let Some((_, advice)) = words.iter().find(|(word, _)| *word == name.as_str()) {
        cx.error(&at.span, "this header has a session source of its own").advice(*advice);
        return None;
    }
    if reserved().contains(&name) {
        cx.error(&at.span, "this header cannot hold a credential")
            .advice("the protocol or the gateway decides about it");
        return None;
    }
    Some(name)
}

/// One name, or every name with a prefix.
pub(crate) fn pattern(at: &At<String>, cx: &mut Context<'_>) -> Option<NameSet> {
    let mut set = NameSet::new();
    if set.insert_pattern(at).is_err() {
        cx.error(&at.span, "not a header name").advice("\"*\" may stand at the end alone: \"x-hasura-*\"");
        return None;
    }
    Some(set)
}

fn name(at: &At<String>, cx: &mut Context<'_>) -> Option<HeaderName> {
    let parsed = HeaderName::try_from(at.value.as_str()).ok();
    if parsed.is_none() {
        cx.error(&at.span, "not a header name");
    }
    parsed
}

fn reserved() -> NameSet {
    let mut set = NameSet::new();
    for pattern in RESERVED {
        // The table holds good patterns only; a test reads them all.
        let _ = set.insert_pattern(pattern);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_name_is_a_pattern() {
        for pattern in RESERVED {
            assert_eq!(NameSet::new().insert_pattern(pattern), Ok(()), "{pattern}");
        }
        for framing in FRAMING {
            assert!(reserved().contains_str(framing), "{framing}");
        }
    }
}
