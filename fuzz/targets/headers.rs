//! Cleaning a request's headers: nothing on the list survives, and nothing else is lost, changed or moved.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use mintgate::proxy::clean::{Cleaner, Consumed};
use mintgate_fuzz::{cookies, gateway, is_clerk, is_something};

static CLEANER: LazyLock<Cleaner> = LazyLock::new(|| {
    let config = gateway(
        "[[routes]]\nname = \"r\"\nmatch = { path = \"/\" }\nupstream = \"up\"\nkeep_headers = [\"x-hasura-kept\"]\n\
         inject = [{ header = \"x-user-id\", claim = \"sub\", required = true }]\n",
    );
    Cleaner::new(&config.routes[0], &config.upstreams[0], &config.routes)
});

/// Leaves always, however it is spelled.
const ALWAYS: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "http2-settings",
    "transfer-encoding",
    "te",
    "expect",
    "content-length",
    "proxy-authorization",
    "x-user-id",
];
/// A caller's `Connection` must not name it.
const PROTECTED: &[&str] = &["host", "authorization", "cookie", "content-length", "transfer-encoding", "x-user-id"];
const FORWARDING: &[&str] = &["forwarded", "x-real-ip", "x-request-id"];

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, text)) = data.split_first() else { return };
    let mut headers = HeaderMap::new();
    for line in text.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let trusted = kind & 1 == 1;
    let consumed = match kind >> 1 & 3 {
        0 => Consumed::Nothing,
        1 => Consumed::Authorization,
        2 => Consumed::Other,
        _ => Consumed::Any,
    };
    let used = matches!(consumed, Consumed::Authorization | Consumed::Any);
    let mut named: Vec<String> = Vec::new();
    for line in headers.get_all(header::CONNECTION) {
        for option in line.as_bytes().split(|&byte| byte == b',') {
            named.extend(HeaderName::from_bytes(option.trim_ascii()).map(|name| name.as_str().to_owned()));
        }
    }
    let refused = named.iter().any(|name| PROTECTED.contains(&&*plain(name)))
        || (!used && headers.get_all(header::AUTHORIZATION).iter().count() > 1);
    let stays = |name: &HeaderName| {
        let plain = plain(name.as_str());
        let goes = ALWAYS.contains(&&*plain)
            || plain.starts_with("x-mintgate-")
            || named.iter().any(|one| one == name.as_str())
            || (plain.starts_with("x-hasura-") && plain != "x-hasura-kept")
            || (!trusted && (FORWARDING.contains(&&*plain) || plain.starts_with("x-forwarded-")))
            || (used && *name == header::AUTHORIZATION);
        !goes
    };
    let mut after = headers.clone();
    let outcome = CLEANER.request(&mut after, &consumed, trusted);
    assert_eq!(outcome.is_err(), refused, "{headers:?}");
    if refused {
        return;
    }
    for name in after.keys() {
        assert!(headers.contains_key(name) && stays(name), "{name} is left of {headers:?}");
    }
    for name in headers.keys().filter(|name| stays(name)) {
        if *name == header::COOKIE {
            let read = |of: &HeaderMap| -> Vec<_> {
                of.get_all(name).iter().flat_map(|line| cookies(line.as_bytes())).filter(is_something).collect()
            };
            let expected: Vec<_> = read(&headers).into_iter().filter(|(name, _)| !is_clerk(name)).collect();
            assert_eq!(read(&after), expected);
        } else {
            let (before, after): (Vec<_>, Vec<_>) =
                (headers.get_all(name).iter().collect(), after.get_all(name).iter().collect());
            assert_eq!(before, after, "{name}");
        }
    }
});
