//! `[upstreams]`, and those that are written into a route as a URL.

use std::time::Duration;

use http::uri::Authority;

use crate::config::raw;
use crate::config::raw::problem::nearest;
use crate::config::raw::reader::{At, Field, Table};
use crate::config::raw::shapes::Named;
use crate::config::{Pool, Upstream, UpstreamAddress};
use crate::headers::NameSet;
use crate::metrics::UpstreamId;

use super::context::Context;
use super::names::{LABEL, MOST, is_label};
use super::{headers, net};

const SECOND: Duration = Duration::from_secs(1);

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
        let address = raw.url.get().and_then(|at| address(at, cx));
        if raw.url.is_absent() && !raw.reported() {
            cx.error(&span, "an upstream needs a `url`").advice("add url = \"http://127.0.0.1:8090\"");
        }
        list.push(upstream(UpstreamId::new(list.len()), name.value, address.unwrap_or_else(nowhere), raw, cx));
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
        let address = address(at, cx)?;
        let name = format!("http://{}", address.authority);
        if let Some(upstream) = self.list[self.named..].iter().find(|upstream| upstream.name == name) {
            return Some(upstream.id);
        }
        let id = UpstreamId::new(self.list.len());
        self.list.push(upstream(id, name, address, raw::Upstream::default(), cx));
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
    UpstreamAddress { host: authority.host().to_owned(), port: 80, authority, loopback: false }
}

fn address(at: &At<String>, cx: &mut Context<'_>) -> Option<UpstreamAddress> {
    if cx.not_yet("upstreams.*.url", at) {
        return None;
    }
    match net::upstream(at) {
        Ok(address) => Some(address),
        Err(bad) => {
            let advice = match bad {
                net::Bad::UpstreamPath => "take the path away here and use `rewrite_prefix` in the route",
                net::Bad::UserInfo => "inject an `authorization` header with a `value` instead",
                _ => "write \"http://127.0.0.1:8090\"",
            };
            cx.error(&at.span, bad.to_string()).advice(advice);
            None
        }
    }
}

fn upstream(
    id: UpstreamId,
    name: String,
    address: UpstreamAddress,
    raw: raw::Upstream,
    cx: &mut Context<'_>,
) -> Upstream {
    let head = cx.size(&raw.max_header_bytes, 16 * 1024, 1024..=16 * 1024 * 1024);
    Upstream {
        id,
        name,
        address,
        http2: raw.http2.or(false),
        connect_timeout: cx.limit(&raw.connect_timeout, Some(2 * SECOND)),
        response_timeout: cx.limit(&raw.response_timeout, Some(60 * SECOND)),
        pool: pool(&raw.pool.or_default(), cx),
        max_header_bytes: usize::try_from(head).unwrap_or(usize::MAX),
        remove_headers: remove_headers(&raw.remove_headers, cx),
    }
}

fn pool(raw: &raw::Pool, cx: &mut Context<'_>) -> Pool {
    Pool {
        max_idle: cx.count(&raw.max_idle, 64, 0..=1_000_000),
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
