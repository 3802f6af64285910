//! `[server]`, `[admin]`, `[log]` and `[cache]`: everything that is about this process alone.

use std::net::SocketAddr;
use std::time::Duration;

use crate::address::ListenAddress;
use crate::config::raw;
use crate::config::raw::reader::{At, Field};
use crate::config::raw::shapes::NumberOrWord;
use crate::config::{Access, Admin, Cache, Control, Identity, Limits, Listen, Log, LogFormat, Server};
use crate::telemetry::{self, FilterFrom};

use super::context::Context;
use super::{listen, net, units};

const SECOND: Duration = Duration::from_secs(1);
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Beyond this a size is a slip of the pen.
const HUGE: u64 = 1 << 50;

/// `[server]`
pub(crate) fn server(raw: &raw::Server, cx: &mut Context<'_>) -> Server {
    let limits = limits(raw, cx);
    let listen = listen::listeners(&raw.listen, cx);
    Server {
        tls: listen::tls(&raw.tls, &listen.iter().map(|listen| &listen.address).collect::<Vec<_>>(), cx),
        listen,
        workers: cx.count(&raw.workers, 0, 0..=1024),
        limits,
        drain_delay: cx.limit(&raw.drain_delay, None).unwrap_or_default(),
        drain_timeout: match raw.drain_timeout {
            Field::Absent => 25 * SECOND,
            ref field => cx.limit(field, None).unwrap_or_default(),
        },
        trusted_proxies: listen::trusted(&raw.trusted_proxies, cx),
    }
}

/// `[admin]`, which is off when it is absent.
pub(crate) fn admin(field: Field<raw::Admin>, data: &[Listen], cx: &mut Context<'_>) -> Option<Admin> {
    let Field::Good(At { value: raw, .. }) = field else { return None };
    let default = ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 6469)));
    let listen = raw.listen.get().and_then(|at| listen::address(at, cx)).unwrap_or(default);
    if let (Some(at), true) = (raw.listen.get(), data.iter().any(|own| listen::same(&own.address, &listen))) {
        cx.error(&at.span, "[server] listens on this address too")
            .advice("probes and metrics are never served on a data port");
    }
    let mut hosts = Vec::new();
    for at in raw.hosts.get().into_iter().flat_map(|list| &list.value) {
        match net::host(at) {
            Ok(host) => hosts.push(host),
            Err(bad) => {
                cx.error(&at.span, bad.to_string()).advice("write a host name as it stands in `Host`, without a port");
            }
        }
    }
    let control = control(&raw, &listen, data, cx);
    Some(Admin { listen, hosts, control })
}

/// `admin.control`: only this machine reaches it, and on TCP every user of this machine, so there a token is shown.
fn control(raw: &raw::Admin, admin: &ListenAddress, data: &[Listen], cx: &mut Context<'_>) -> Option<Control> {
    let Some(at) = raw.control.get() else {
        if let Some(token) = raw.token.get() {
            cx.error(&token.span, "nobody asks for this token: there is no `control`")
                .advice("add control = \"unix:/run/mintgate/control.sock\", or leave the token out");
        }
        return None;
    };
    let listen = listen::address(at, cx)?;
    let taken = listen::same(&listen, admin) || data.iter().any(|own| listen::same(&own.address, &listen));
    if taken {
        cx.error(&at.span, "another listener has this address").advice("give `control` one of its own");
    }
    match &listen {
        address if address.is_exposed() => {
            cx.error(&at.span, "other machines could reach this address")
                .advice("write \"unix:/run/mintgate/control.sock\", or a loopback address and a `token`");
        }
        ListenAddress::Tcp(_) | ListenAddress::Systemd(_) if raw.token.is_absent() => {
            cx.error(&at.span, "`control` needs a `token` here: every process of this machine could ask")
                .advice("write \"unix:/run/mintgate/control.sock\", or add token = { file = \"control-token\" }");
        }
        ListenAddress::Tcp(_) | ListenAddress::Systemd(_) | ListenAddress::Unix(_) => {}
    }
    let token = raw.token.get().and_then(|at| cx.secret(at));
    Some(Control { listen, token })
}

/// `[log]`, with `MINTGATE_LOG` before `filter`.
pub(crate) fn log(raw: &raw::Log, cx: &mut Context<'_>) -> Log {
    let is_filter = |text: &str| telemetry::parse(text, FilterFrom::Config).is_ok();
    let advice = "write a level (\"info\") or directives (\"info,mintgate::token=debug\")";
    let written = raw.filter.or("info".to_owned());
    if let (Some(at), false) = (raw.filter.get(), is_filter(&written)) {
        cx.error(&at.span, "not a log filter").advice(advice);
    }
    let filter = match cx.environment.var("MINTGATE_LOG").filter(|filter| !filter.is_empty()) {
        Some(filter) => {
            if !is_filter(&filter) {
                cx.problems.general("the environment variable MINTGATE_LOG is not a log filter").advice(advice);
            }
            filter
        }
        None => written,
    };
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let access = [("off", Access::Off), ("errors", Access::Errors), ("all", Access::All)];
    let identity = [("none", Identity::None), ("hash", Identity::Hash), ("plain", Identity::Plain)];
    Log {
        filter,
        format: cx.choice(&raw.format, &formats, LogFormat::Auto),
        access: cx.choice(&raw.access, &access, Access::Errors),
        identity: cx.choice(&raw.identity, &identity, Identity::Hash),
    }
}

/// `[cache]`
pub(crate) fn cache(raw: &raw::Cache, cx: &mut Context<'_>) -> Cache {
    let cache = Cache {
        max_bytes: cx.size(&raw.max_bytes, 64 * MIB, 64 * KIB..=HUGE),
        max_session_bytes: cx.size(&raw.max_session_bytes, 32 * MIB, 64 * KIB..=HUGE),
        min_remaining: cx.period(&raw.min_remaining, 5 * SECOND, Duration::ZERO),
        max_lifetime: cx.period(&raw.max_lifetime, 3600 * SECOND, SECOND),
        refresh_at: refresh_at(&raw.refresh_at, cx),
        missing_ttl: cx.limit(&raw.missing_ttl, Some(5 * SECOND)),
    };
    if let (Some(at), true) = (raw.min_remaining.get(), cache.min_remaining >= cache.max_lifetime) {
        cx.error(&at.span, "no token would ever be kept: `max_lifetime` is not longer than this");
    }
    cache
}

fn limits(raw: &raw::Server, cx: &mut Context<'_>) -> Limits {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    // hyper reads heads into a buffer of 8 KiB at least, and `http::Uri` holds 65534 bytes at most.
    let max_header_bytes = bytes(cx.size(&raw.max_header_bytes, 32 * KIB, 8 * KIB..=16 * MIB));
    let max_uri_bytes = bytes(cx.size(&raw.max_uri_bytes, 16 * KIB, 256..=65_534));
    if let (Some(at), true) = (raw.max_uri_bytes.get(), max_uri_bytes > max_header_bytes) {
        cx.error(&at.span, "the target is a part of the head").label("more than `max_header_bytes`");
    }
    Limits {
        max_connections: cx.count(&raw.max_connections, 10_000, 1..=10_000_000),
        max_header_bytes,
        max_uri_bytes,
        first_byte: cx.limit(&raw.first_byte_timeout, Some(10 * SECOND)),
        header_read: cx.limit(&raw.header_read_timeout, Some(10 * SECOND)),
        idle: cx.limit(&raw.idle_timeout, Some(75 * SECOND)),
        body_progress: cx.limit(&raw.body_progress_timeout, Some(30 * SECOND)),
        write_stall: cx.limit(&raw.write_stall_timeout, Some(30 * SECOND)),
        request_body: cx.size_limit(&raw.request_body_limit),
        max_age: cx.limit(&raw.max_connection_age, None),
    }
}

fn refresh_at(field: &Field<NumberOrWord>, cx: &mut Context<'_>) -> Option<f64> {
    let Some(at) = field.get() else { return Some(0.8) };
    match &at.value {
        NumberOrWord::Word(word) if units::is_off(word) || word == "0" => return None,
        NumberOrWord::Number(part) if *part > 0.0 && *part <= 1.0 => return Some(*part),
        NumberOrWord::Word(_) | NumberOrWord::Number(_) => {}
    }
    cx.error(&at.span, "not a part of a token's life").advice("write a number above 0 and up to 1, or \"off\"");
    None
}
