//! Cleaning a request's headers, for routes of several kinds: nothing on the list survives, in a head or as a trailer, and
//! nothing else is lost, changed or moved. The same for an upstream's answer.
//!
//! An input is one byte (from its lowest bit on: whether the peer is trusted; three bits which credential was consumed;
//! four bits which route), then header lines.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use mintgate::proxy::clean::{self, Cleaner, Consumed};
use mintgate_fuzz::{Cookie, cookies, gateway, is_clerk, is_something};

const CONFIG: &str = r#"
[upstreams.other]
url = "unix:/run/other"
remove_headers = ["x-secret-*", "x-plain"]
[upstreams.third]
url = "unix:/run/third"
[[routes]]
name = "plain"
match = { path = "/" }
upstream = "up"
keep_headers = ["x-hasura-kept"]
inject = [{ header = "x-user-id", claim = "sub", required = true }]
[[routes]]
name = "token"
match = { path = "/b" }
upstream = "other"
inject = [{ header = "authorization", prefix = "Bearer ", template = "t" }, { header = "x-token", template = "t" }]
[[routes]]
name = "beside"
match = { path = "/c" }
upstream = "other"
session = [{ header = "x-session-token" }]
keep_headers = ["x-secret-kept", "x-plain"]
inject = [{ header = "x-org-id", claim = "org_id" }]
[[routes]]
name = "keeps"
match = { path = "/d" }
upstream = "other"
session = ["bearer", { header = "x-session-token" }]
forward_credential = true
[[routes]]
name = "app"
match = { path = "/e" }
upstream = "up"
clerk_app = true
[[routes]]
name = "cookie"
match = { path = "/f" }
upstream = "third"
inject = [{ header = "cookie", prefix = "s=", template = "t" }]
[[routes]]
name = "public"
match = { path = "/g" }
upstream = "third"
session = []
[[routes]]
name = "cookies"
match = { path = "/h" }
upstream = "up"
forward_clerk_cookies = true
"#;

/// What the configuration says of a route, in the words of the design.
struct Slow {
    name: &'static str,
    /// Taken from no caller; `*` at the end.
    removed: &'static [&'static str],
    kept: &'static [&'static str],
    /// The headers in which it looks for a session, `authorization` apart.
    credentials: &'static [&'static str],
    forwards_credential: bool,
    forwards_cookies: bool,
    /// Of its own targets and those of routes to the same upstream: whether `authorization`, `cookie` is one.
    own: (bool, bool),
    beside: (bool, bool),
}

const HASURA: &[&str] = &["x-hasura-*"];
const SECRET: &[&str] = &["x-secret-*", "x-plain"];
const USUAL: Slow = Slow {
    name: "",
    removed: HASURA,
    kept: &[],
    credentials: &[],
    forwards_credential: false,
    forwards_cookies: false,
    own: (false, false),
    beside: (false, false),
};
const ROUTES: [Slow; 8] = [
    Slow { name: "plain", kept: &["x-hasura-kept"], ..USUAL },
    Slow { name: "token", removed: SECRET, own: (true, false), ..USUAL },
    Slow {
        name: "beside",
        removed: SECRET,
        kept: &["x-secret-kept", "x-plain"],
        credentials: &["x-session-token"],
        beside: (true, false),
        ..USUAL
    },
    Slow {
        name: "keeps",
        removed: SECRET,
        credentials: &["x-session-token"],
        forwards_credential: true,
        beside: (true, false),
        ..USUAL
    },
    Slow { name: "app", forwards_credential: true, forwards_cookies: true, ..USUAL },
    Slow { name: "cookie", removed: &[], own: (false, true), ..USUAL },
    Slow { name: "public", removed: &[], beside: (false, true), ..USUAL },
    Slow { name: "cookies", forwards_cookies: true, ..USUAL },
];

static CLEANERS: LazyLock<Vec<Cleaner>> = LazyLock::new(|| {
    let config = gateway(CONFIG);
    let cleaner = |(route, slow): (&mintgate::config::Route, &Slow)| {
        assert_eq!(route.name, slow.name);
        Cleaner::new(route, config.upstream_of(route), &config.routes)
    };
    assert_eq!(config.routes.len(), ROUTES.len());
    config.routes.iter().zip(&ROUTES).map(cleaner).collect()
});

/// Means one connection.
const HOP: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "transfer-encoding", "te"];
/// Leaves every request beside that.
const ALWAYS: &[&str] = &["expect", "content-length", "proxy-authorization"];
/// What some route injects, apart from `authorization` and `cookie`.
const INJECTED: &[&str] = &["x-user-id", "x-token", "x-org-id"];
/// A caller's `Connection` must not name it, nor what is injected.
const PROTECTED: &[&str] = &["host", "authorization", "cookie", "content-length", "transfer-encoding"];
const FORWARDING: &[&str] = &["forwarded", "x-real-ip", "x-request-id"];
/// No trailer, beside all of these.
const HEAD_ONLY: &[&str] = &["content-encoding", "content-range", "content-type", "set-cookie", "trailer"];

fn plain(name: &str) -> String {
    name.chars().map(|one| if one.is_ascii_alphanumeric() { one.to_ascii_lowercase() } else { '-' }).collect()
}

fn among(names: &[&str], plain: &str) -> bool {
    names.iter().any(|own| own.strip_suffix('*').map_or(plain == *own, |start| plain.starts_with(start)))
}

/// The headers that `Connection` names.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION);
    let options = lines.iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    options.filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok()).collect()
}

fn is_session(name: &[u8]) -> bool {
    name == b"__session" || name.starts_with(b"__session_")
}

fn read(headers: &HeaderMap) -> Vec<Cookie> {
    let lines = headers.get_all(header::COOKIE);
    lines.iter().flat_map(|line| cookies(line.as_bytes())).filter(is_something).collect()
}

impl Slow {
    fn request(&self, headers: &HeaderMap, after: Option<&HeaderMap>, consumed: &Consumed, trusted: bool) {
        let named = named(headers);
        let any = *consumed == Consumed::Any;
        let forwarded = self.forwards_credential && !any;
        let beside = |of: (bool, bool)| (of.0 && !self.forwards_credential, of.1 && !self.forwards_credential);
        let authorization_goes = self.own.0
            || beside(self.beside).0
            || (matches!(consumed, Consumed::Authorization | Consumed::Any) && !forwarded);
        let cookie_goes = self.own.1 || beside(self.beside).1;
        let forbidden =
            |name: &HeaderName| among(PROTECTED, &plain(name.as_str())) || among(INJECTED, &plain(name.as_str()));
        let refused = named.iter().any(forbidden)
            || (!authorization_goes && headers.get_all(header::AUTHORIZATION).iter().count() > 1);
        let Some(after) = after else { return assert!(refused, "{}: refused: {headers:?}", self.name) };
        assert!(!refused, "{}: not refused: {headers:?}", self.name);
        let stays = |name: &HeaderName| {
            let plain = plain(name.as_str());
            let goes = among(HOP, &plain)
                || among(ALWAYS, &plain)
                || among(INJECTED, &plain)
                || plain.starts_with("x-mintgate-")
                || named.contains(name)
                || (among(self.removed, &plain) && !among(self.kept, &plain))
                || (among(self.credentials, &plain) && !forwarded)
                || (!trusted && (among(FORWARDING, &plain) || plain.starts_with("x-forwarded-")))
                || (*name == header::AUTHORIZATION && authorization_goes)
                || (*name == header::COOKIE && cookie_goes);
            !goes
        };
        let cookie_stays = |(name, _): &Cookie| {
            if let Consumed::KeptCookie(kept) = consumed
                && *name == kept.as_bytes()
            {
                return true;
            }
            let other_session = self.name == "app" && !matches!(consumed, Consumed::Nothing) && is_session(name);
            !(if self.forwards_cookies && !any { other_session } else { is_clerk(name) })
        };
        for name in after.keys() {
            assert!(headers.contains_key(name) && stays(name), "{}: {name} is left of {headers:?}", self.name);
        }
        for name in headers.keys().filter(|name| stays(name)) {
            if *name == header::COOKIE {
                let expected: Vec<_> = read(headers).into_iter().filter(cookie_stays).collect();
                assert_eq!(read(after), expected, "{}", self.name);
            } else {
                let lines = |of: &HeaderMap| of.get_all(name).iter().cloned().collect::<Vec<_>>();
                assert_eq!(lines(headers), lines(after), "{}: {name}", self.name);
            }
        }
    }

    fn is_trailer(&self, name: &HeaderName) -> bool {
        let plain = plain(name.as_str());
        let lists = [HOP, ALWAYS, INJECTED, PROTECTED, FORWARDING, HEAD_ONLY, self.removed, self.credentials];
        !lists.iter().any(|list| among(list, &plain))
            && !plain.starts_with("x-mintgate-")
            && !plain.starts_with("x-forwarded-")
    }
}

/// An upstream's answer loses what means its connection and what only we may say.
fn response(headers: &HeaderMap) {
    let named = named(headers);
    let mut after = headers.clone();
    clean::response(&mut after, &clean::response_names());
    let stays = |name: &HeaderName| {
        let plain = plain(name.as_str());
        let needed = *name == header::CONTENT_LENGTH || *name == header::CONTENT_TYPE;
        !among(HOP, &plain) && !plain.starts_with("x-mintgate-") && (needed || !named.contains(name))
    };
    let mut expected = headers.clone();
    for name in headers.keys().filter(|name| !stays(name)) {
        expected.remove(name);
    }
    assert_eq!(after, expected, "answer: {headers:?}");
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
    let consumed = match kind >> 1 & 7 {
        0 => Consumed::Nothing,
        1 => Consumed::Authorization,
        2 => Consumed::Other,
        3 => Consumed::Any,
        4 | 5 => Consumed::KeptCookie("__session".into()),
        _ => Consumed::KeptCookie("__session_QvfNY2dr".into()),
    };
    let index = usize::from(kind >> 4) % ROUTES.len();
    let (cleaner, slow) = (&CLEANERS[index], &ROUTES[index]);
    let mut after = headers.clone();
    let outcome = cleaner.request(&mut after, &consumed, trusted);
    slow.request(&headers, outcome.is_ok().then_some(&after), &consumed, trusted);
    for name in headers.keys() {
        assert_eq!(!cleaner.trailers.contains(name), slow.is_trailer(name), "{}: the trailer {name}", slow.name);
    }
    response(&headers);
});
