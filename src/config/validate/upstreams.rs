//! `[upstreams]`, and those that are written into a route as a URL.

use std::time::Duration;

use http::uri::Authority;

use crate::config::raw;
use crate::config::raw::problem::{Span, nearest};
use crate::config::raw::reader::{At, Field, Table};
use crate::config::raw::shapes::Named;
use crate::config::{Addresses, Place, Pool, Upstream, UpstreamAddress, Wire};
use crate::headers::NameSet;
use crate::metrics::UpstreamId;

use super::context::Context;
use super::names::{LABEL, MOST, is_label};
use super::net::UpstreamScheme;
use super::{headers, net, upstream_tls};

const SECOND: Duration = Duration::from_secs(1);
/// URLs of one upstream: the pool keeps what it has tried in the bits of one word.
const MOST_URLS: usize = 64;
/// `sun_path` of Linux has room for this and a NUL.
const MOST_SOCKET_PATH: usize = 107;

/// The upstreams so far. Routes may add to them.
pub(crate) struct Upstreams {
    list: Vec<Upstream>,
    /// How many were named; the others came from routes.
    named: usize,
}

/// The section, in the order of the file.
pub(crate) fn read(named: Named<raw::Upstream>, cx: &mut Context<'_>) -> Upstreams {
    let mut list = Vec::new();
    for (name, At { value: raw, span }) in named.0 {
        if list.len() == MOST {
            cx.error(&name.span, "too many upstreams").label("at most 1000");
            break;
        }
        if !is_label(&name) {
            cx.error(&name.span, "not a name").advice(LABEL);
        }
        let addresses = addresses(&raw, &span, cx).unwrap_or_else(|| (UpstreamScheme::Http, nowhere().into()));
        list.push(upstream(UpstreamId::new(list.len()), name.value, addresses, raw, cx));
    }
    let named = list.len();
    Upstreams { list, named }
}

// === impl Upstreams ===

impl Upstreams {
    /// The upstream that a route names, by its name or its URL.
    pub(crate) fn resolve(&mut self, at: &At<String>, cx: &mut Context<'_>) -> Option<UpstreamId> {
        if !at.contains(':') {
            let found = self.list[..self.named].iter().find(|upstream| upstream.name == at.value);
            if let Some(upstream) = found {
                return Some(upstream.id);
            }
            let near = nearest(at, self.list[..self.named].iter().map(|upstream| upstream.name.as_str()));
            let near = near.map(|near| format!("did you mean `{near}`?"));
            let problem = cx.error(&at.span, "no upstream has this name");
            problem.advice("name a table of [upstreams], or write a URL: \"http://127.0.0.1:8090\"");
            if let Some(near) = near {
                problem.label(near);
            }
            return None;
        }
        let (scheme, address) = address(at, cx)?;
        let name = match scheme {
            UpstreamScheme::Http => format!("http://{address}"),
            UpstreamScheme::Https => format!("https://{address}"),
            UpstreamScheme::Unix => address.to_string(),
        };
        if let Some(upstream) = self.list[self.named..].iter().find(|upstream| upstream.name == name) {
            return Some(upstream.id);
        }
        let id = UpstreamId::new(self.list.len());
        self.list.push(upstream(id, name, (scheme, address.into()), raw::Upstream::default(), cx));
        Some(id)
    }

    /// One of them.
    pub(crate) fn get(&self, id: UpstreamId) -> &Upstream {
        &self.list[id.index()]
    }

    /// All of them, in the order of their ids.
    pub(crate) fn into_list(self) -> Vec<Upstream> {
        self.list
    }
}

/// Stands for an address that was reported.
fn nowhere() -> UpstreamAddress {
    let authority = Authority::from_static("invalid.invalid");
    UpstreamAddress { place: Place::Tcp { host: authority.host().to_owned(), port: 80 }, authority, loopback: false }
}

/// The `url` or the `urls` of a table; `None` when that was reported.
fn addresses(raw: &raw::Upstream, span: &Span, cx: &mut Context<'_>) -> Option<(UpstreamScheme, Addresses)> {
    match (&raw.url, &raw.urls) {
        (Field::Good(_), Field::Good(urls)) => {
            cx.error(&urls.span, "an upstream has one of `url` and `urls`").advice("put the one URL into the list too");
            None
        }
        (Field::Absent, Field::Absent) => {
            if !raw.reported() {
                cx.error(span, "an upstream needs a `url`").advice("add url = \"http://127.0.0.1:8090\"");
            }
            None
        }
        (Field::Good(url), _) => address(url, cx).map(|(scheme, address)| (scheme, address.into())),
        (_, Field::Good(urls)) => list(urls, cx),
        _ => None,
    }
}

/// `urls`: at least one, all of one scheme, each once.
fn list(urls: &At<Vec<At<String>>>, cx: &mut Context<'_>) -> Option<(UpstreamScheme, Addresses)> {
    if urls.len() > MOST_URLS {
        cx.error(&urls.span, "too many URLs").label(format!("at most {MOST_URLS}"));
        return None;
    }
    let mut found: Vec<(UpstreamScheme, UpstreamAddress)> = Vec::new();
    for at in &urls.value {
        let (scheme, address) = address(at, cx)?;
        if found.iter().any(|(_, other)| other.place == address.place) {
            cx.error(&at.span, "this URL is listed already");
        } else if found.first().is_some_and(|(first, _)| *first != scheme) {
            cx.error(&at.span, "the URLs of an upstream have one scheme")
                .advice("requests are spread over all of them: make them upstreams of their own");
        }
        found.push((scheme, address));
    }
    let Some(scheme) = found.first().map(|(scheme, _)| *scheme) else {
        cx.error(&urls.span, "an upstream needs at least one URL").advice("urls = [\"http://127.0.0.1:8090\"]");
        return None;
    };
    Addresses::new(found.into_iter().map(|(_, address)| address).collect()).map(|addresses| (scheme, addresses))
}

fn address(at: &At<String>, cx: &mut Context<'_>) -> Option<(UpstreamScheme, UpstreamAddress)> {
    match net::upstream(at) {
        Ok((scheme, mut address)) => {
            if let Place::Unix(path) = &mut address.place {
                *path = cx.base.join(&*path);
                if path.as_os_str().len() > MOST_SOCKET_PATH {
                    cx.error(&at.span, "the path of a Unix socket is too long")
                        .label(format!("at most {MOST_SOCKET_PATH} bytes, from the root on"));
                }
            }
            Some((scheme, address))
        }
        Err(bad) => {
            let advice = match bad {
                net::Bad::UpstreamPath => "take the path away here and use `rewrite_prefix` in the route",
                net::Bad::UserInfo => "inject an `authorization` header with a `value` instead",
                net::Bad::SocketPath => "write \"unix:/run/app.sock\"",
                _ => "write \"http://127.0.0.1:8090\", \"https://api.example.com\" or \"unix:/run/app.sock\"",
            };
            cx.error(&at.span, bad.to_string()).advice(advice);
            None
        }
    }
}

fn upstream(
    id: UpstreamId,
    name: String,
    (scheme, addresses): (UpstreamScheme, Addresses),
    raw: raw::Upstream,
    cx: &mut Context<'_>,
) -> Upstream {
    let http2 = raw.http2.or(false);
    let tls = if scheme == UpstreamScheme::Https {
        upstream_tls::read(&raw.tls, &addresses, http2, cx).map(Wire::Tls)
    } else {
        upstream_tls::refuse(&raw.tls, &raw.url, &raw.urls, cx);
        None
    };
    let head = cx.size(&raw.max_header_bytes, 16 * 1024, 1024..=16 * 1024 * 1024);
    Upstream {
        id,
        name,
        addresses,
        wire: tls.unwrap_or(if http2 { Wire::Http2 } else { Wire::Http1 }),
        connect_timeout: cx.limit(&raw.connect_timeout, Some(2 * SECOND)),
        response_timeout: cx.limit(&raw.response_timeout, Some(60 * SECOND)),
        pool: pool(&raw.pool.or_default(), cx),
        max_header_bytes: usize::try_from(head).unwrap_or(usize::MAX),
        remove_headers: remove_headers(&raw.remove_headers, cx),
    }
}

fn pool(raw: &raw::Pool, cx: &mut Context<'_>) -> Pool {
    Pool {
        max_idle: cx.count(&raw.max_idle, 1024, 0..=1_000_000),
        idle_timeout: cx.limit(&raw.idle_timeout, Some(4 * SECOND)),
        max_connections: Some(cx.count(&raw.max_connections, 0, 0..=1_000_000)).filter(|most| *most > 0),
        max_streams: cx.count(&raw.max_streams, 100, 1..=1_000_000),
    }
}

fn remove_headers(field: &Field<Vec<At<String>>>, cx: &mut Context<'_>) -> NameSet {
    let mut set = NameSet::new();
    for at in field.get().into_iter().flat_map(|list| &list.value) {
        let Some(pattern) = headers::pattern(at, cx) else { continue };
        if headers::FRAMING.iter().any(|name| pattern.contains_str(name)) {
            cx.error(&at.span, "a request cannot do without a header that this removes")
                .advice("hop-by-hop headers are removed anyway");
        }
        set.extend(&pattern);
    }
    set
}
