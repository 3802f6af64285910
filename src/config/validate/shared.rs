//! `[cache.shared]`: where Redis is, and the keys that seal what is kept there.

use std::time::Duration;

use crate::config::raw;
use crate::config::raw::reader::{At, Field, Table as _};
use crate::config::raw::shapes::SecretRef;
use crate::config::shared::{CacheKey, Node, Reach, Redis, Shared};

use super::clerk::certificates;
use super::context::{Context, Secrets};
use super::net;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const LONGEST: Duration = Duration::from_secs(5);

/// The section, which is off when it is absent. Under `check` a key that is not there has one that stands in.
pub(crate) fn read(field: &Field<raw::Shared>, cx: &mut Context<'_>) -> Option<Shared> {
    let raw = field.get()?;
    for (key, absent) in [("url", raw.url.is_absent()), ("encryption_key", raw.encryption_key.is_absent())] {
        if absent && !raw.reported() {
            let advice = "url = \"redis://127.0.0.1:6379/0\", encryption_key = { env = \"MINTGATE_CACHE_KEY\" }";
            cx.error(&raw.span, format!("[cache.shared] needs `{key}`")).advice(advice);
        }
    }
    let redis = raw.url.get().and_then(|at| redis(at, cx));
    let password = raw.password.get().and_then(|at| cx.secret(at));
    if let (Some(at), Some(redis), Some(written)) = (raw.url.get(), &redis, raw.password.get())
        && !redis.tls
        && !redis.nodes().iter().all(|node| is_near(&node.host))
    {
        cx.problems
            .warning(&at.span, "the password goes to Redis in clear text")
            .also(written.span.clone(), "this one")
            .advice("write a URL that begins with rediss, where Redis takes TLS");
    }
    let key = raw.encryption_key.get().and_then(|at| cache_key(at, cx));
    let previous = raw.encryption_key_previous.get().and_then(|at| cache_key(at, cx));
    if let (Some(at), true) = (raw.encryption_key_previous.get(), key.is_some() && key == previous) {
        cx.error(&at.span, "both keys are the same")
            .advice("leave `encryption_key_previous` out when the rotation is over");
    }
    let timeout = cx.period(&raw.timeout, Duration::from_millis(50), Duration::from_millis(1));
    if let (Some(at), true) = (raw.timeout.get(), timeout > LONGEST) {
        cx.error(&at.span, "Redis would hold up every mint for so long when it hangs").label("at most 5s");
    }
    let ca = raw.ca_file.get().and_then(|at| certificates(at, cx));
    if let (Some(at), Some(false)) = (raw.ca_file.get(), redis.as_ref().map(|redis| redis.tls)) {
        cx.error(&at.span, "`ca_file` has no use without TLS").advice("write a `url` that begins with rediss");
    }
    let username = raw.username.get().map(|at| at.value.clone());
    if let (Some(at), true) = (raw.username.get(), raw.password.is_absent()) {
        cx.error(&at.span, "a user logs in with a `password`");
    }
    let prefix = prefix(&raw.prefix, cx);
    Some(Shared { redis: redis?, username, password, key: key?, previous, prefix, timeout, ca })
}

fn cache_key(at: &At<SecretRef>, cx: &mut Context<'_>) -> Option<CacheKey> {
    let Some(secret) = cx.secret(at) else {
        // What else the section says is worth a look.
        return if cx.secrets == Secrets::Optional { CacheKey::stand_in() } else { None };
    };
    let key = CacheKey::parse(secret.expose());
    if key.is_none() {
        cx.error(&at.span, "not a key").label("32 bytes in base64").advice("make one: openssl rand -base64 32");
    }
    key
}

/// Braces are the cluster's: what stands in them says where a name is kept.
fn prefix(field: &Field<String>, cx: &mut Context<'_>) -> String {
    let prefix = field.or("mintgate:".to_owned());
    let fits = prefix.len() <= 64 && prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'));
    if let (Some(at), false) = (field.get(), fits) {
        cx.error(&at.span, "not a prefix of names").label("at most 64 visible ASCII characters, without braces");
    }
    prefix
}

/// This machine, or a network that is nobody else's.
fn is_near(host: &str) -> bool {
    let private = |address: std::net::IpAddr| match address.to_canonical() {
        std::net::IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        std::net::IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    net::is_loopback(host) || host.parse().is_ok_and(private)
}

fn redis(at: &At<String>, cx: &mut Context<'_>) -> Option<Redis> {
    let parsed = if at.contains('@') { Err("a URL holds no user name or password here") } else { parse(at) };
    match parsed {
        Ok(mut redis) => {
            if let Reach::Socket(path) = &mut redis.reach {
                *path = cx.base.join(&*path);
            }
            Some(redis)
        }
        Err(problem) => {
            cx.error(&at.span, problem).advice(
                "write \"redis://host:6379/0\", \"rediss://host\", \"unix:/path\", \"redis-cluster://host1,host2\" or \
                 \"redis-sentinel://host1,host2/0#master\"",
            );
            None
        }
    }
}

fn parse(text: &str) -> Result<Redis, &'static str> {
    const BAD: &str = "not a URL of Redis";
    if let Some(path) = text.strip_prefix("redis+unix://").or_else(|| text.strip_prefix("unix:")) {
        let (path, database) = path.split_once("?db=").unwrap_or((path, ""));
        if path.is_empty() || path.contains(['?', '#']) {
            return Err("not the path of a Unix socket");
        }
        return Ok(Redis { reach: Reach::Socket(path.into()), tls: false, database: number(database)? });
    }
    let (scheme, rest) = text.split_once("://").ok_or(BAD)?;
    let (tls, kind) = match scheme.strip_prefix("rediss") {
        Some(kind) => (true, kind),
        None => (false, scheme.strip_prefix("redis").ok_or(BAD)?),
    };
    let (rest, master) = rest.split_once('#').map_or((rest, None), |(rest, master)| (rest, Some(master)));
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = number(database)?;
    let port = if kind == "-sentinel" { SENTINEL_PORT } else { PORT };
    let mut nodes = hosts.split(',').map(|text| node(text, port)).collect::<Option<Vec<_>>>().ok_or(BAD)?;
    let reach = match (kind, master) {
        ("", None) => match (nodes.pop(), nodes.is_empty()) {
            (Some(node), true) => Reach::Server(node),
            _ => return Err("several hosts are a cluster, or sentinels"),
        },
        ("-cluster", None) if database == 0 => Reach::Cluster(nodes),
        ("-cluster", None) => return Err("a cluster has no databases"),
        ("-sentinel", Some(master)) if !master.is_empty() => {
            Reach::Sentinel { sentinels: nodes, master: master.to_owned() }
        }
        ("-sentinel", _) => return Err("sentinels are asked for a name: end the URL with #NAME"),
        _ => return Err(BAD),
    };
    Ok(Redis { reach, tls, database })
}

fn number(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| "not the number of a database") }
}

fn node(text: &str, port: u16) -> Option<Node> {
    let (host, port) = match text.rsplit_once(':') {
        // An address in brackets, without a port.
        Some((_, rest)) if rest.ends_with(']') => (text, port),
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (text, port),
    };
    let host = net::host(host).ok().filter(|host| !host.is_empty())?;
    Some(Node { host: host.trim_matches(['[', ']']).to_owned(), port })
}
