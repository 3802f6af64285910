//! Where the gateway listens, and with which certificate: `listen` of every section that has one, and `tls`.

use std::net::SocketAddr;
use std::path::Path;

use crate::address::ListenAddress;
use crate::clock::Clock;
use crate::config::raw;
use crate::config::raw::problem::Span;
use crate::config::raw::reader::{At, Field, Table};
use crate::config::{ClientAuth, Listen, Tls, Trusted};
use crate::file::File;
use crate::metrics::ListenerId;
use crate::transport::tls::pem::{ENCRYPTED_KEY, PemError, VERSION_3};
use crate::transport::tls::server::{ServerTls, ServerTlsError};

use super::context::{Context, Secrets};
use super::names::{LABEL, MOST, is_label};
use super::net;

/// Where data is served when nobody says where.
const DATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 6468);

/// Bytes of a Unix socket's path (`sun_path` with its NUL).
const LONGEST_PATH: usize = 107;

/// `server.listen`
pub(crate) fn listeners(field: &Field<Vec<At<raw::Listen>>>, cx: &mut Context<'_>) -> Vec<Listen> {
    let Some(list) = field.get() else {
        let address = ListenAddress::Tcp(DATA);
        return vec![Listen { id: ListenerId::new(0), name: address.to_string(), address }];
    };
    if list.is_empty() || list.len() > MOST {
        cx.error(&list.span, "the gateway needs a listener, and not thousands").label("from 1 to 1000");
        return Vec::new();
    }
    let mut found: Vec<(Listen, &At<String>)> = Vec::new();
    for at in &list.value {
        let Some(address) = address(&at.address, cx) else { continue };
        let name = at.name.or(address.to_string());
        let place = at.name.get().unwrap_or(&at.address);
        if at.name.get().is_some_and(|name| !is_label(name)) {
            cx.error(&place.span, "not a name").advice(LABEL);
        }
        if let Some((_, first)) = found.iter().find(|(own, _)| same(&own.address, &address)) {
            cx.error(&at.address.span, "two listeners have the same address").also(first.span.clone(), "the first one");
        } else if let Some((_, first)) = found.iter().find(|(own, _)| own.name == name) {
            cx.error(&place.span, "two listeners have the same name")
                .also(first.span.clone(), "the first one")
                .advice("name them: { name = \"...\", address = \"...\" }");
        }
        found.push((Listen { id: ListenerId::new(found.len()), name, address }, &at.address));
    }
    found.into_iter().map(|(listen, _)| listen).collect()
}

/// Whether two listeners cannot both be had. The kernel chooses another port each time that it is let.
pub(crate) fn same(one: &ListenAddress, other: &ListenAddress) -> bool {
    one == other && !matches!(one, ListenAddress::Tcp(address) if address.port() == 0)
}

/// An address with its port, `unix:/path` or `systemd:NAME`.
pub(crate) fn address(at: &At<String>, cx: &mut Context<'_>) -> Option<ListenAddress> {
    if let Some(path) = at.strip_prefix("unix:") {
        return unix(path, at, cx);
    }
    if let Some(name) = at.strip_prefix("systemd:") {
        // What systemd.socket(5) allows.
        let fits =
            (1..=255).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b':');
        if !fits {
            cx.error(&at.span, "not a name of a systemd socket")
                .advice("write \"systemd:NAME\" as in FileDescriptorName=NAME");
        }
        return fits.then(|| ListenAddress::Systemd(name.into()));
    }
    let parsed = at.parse().ok().map(ListenAddress::Tcp);
    if parsed.is_none() {
        cx.error(&at.span, "not an address and a port").advice(
            "write \"127.0.0.1:6468\" or \"[::1]:6468\" for this machine, \"0.0.0.0:6468\" or \"[::]:6468\" for every network, \
             \"unix:/path\" or \"systemd:NAME\"",
        );
    }
    parsed
}

fn unix(path: &str, at: &At<String>, cx: &mut Context<'_>) -> Option<ListenAddress> {
    let full = cx.base.join(path);
    let problem = if path.is_empty() || path.ends_with('/') || path.contains('\0') {
        "not the path of a Unix socket"
    } else if full.as_os_str().len() > LONGEST_PATH {
        "the path is too long for a Unix socket"
    } else {
        return Some(ListenAddress::Unix(full.into()));
    };
    cx.error(&at.span, problem)
        .advice("write \"unix:/run/mintgate/proxy.sock\"; at most 107 bytes with its directories");
    None
}

/// `tls` of a section. `None`: there is none, it was reported, or (under `check`) its key is not there.
pub(crate) fn tls(field: &Field<raw::ListenTls>, listen: &[&ListenAddress], cx: &mut Context<'_>) -> Option<Tls> {
    let raw = field.get()?;
    for (name, field) in [("cert", &raw.cert), ("key", &raw.key)] {
        if field.is_absent() && !raw.reported() {
            cx.error(&raw.span, format!("TLS needs a `{name}`"))
                .advice("tls = { cert = \"cert.pem\", key = \"key.pem\" }");
        }
    }
    if !listen.is_empty() && listen.iter().all(|address| matches!(address, ListenAddress::Unix(_))) {
        cx.problems.warning(&raw.span, "TLS is for TCP listeners, and there is none").label("has no effect");
    }
    let client_auth = client_auth(raw, cx);
    let (cert, key) = (raw.cert.get().and_then(|at| file(at, cx)), raw.key.get().and_then(|at| key(at, cx)));
    let tls = Tls { cert: cert?, key: key?, client_auth: client_auth? };
    match ServerTls::new(&tls) {
        Ok(built) => {
            if let (Some(problem), Some(at)) = (built.leaf.expired(Clock::system().wall()), raw.cert.get()) {
                cx.problems.warning(&at.span, problem).label("clients will refuse it");
            }
            Some(tls)
        }
        Err(error) => {
            unusable(&error, raw, &tls, cx);
            None
        }
    }
}

/// Peers that are believed: ranges, addresses, and the names of groups.
pub(crate) fn trusted(field: &Field<Vec<At<String>>>, cx: &mut Context<'_>) -> Trusted {
    let mut trusted = Trusted::default();
    for at in field.get().into_iter().flat_map(|list| &list.value) {
        if at.value == "unix" {
            trusted.unix = true;
            continue;
        }
        match net::networks(at) {
            Some(networks) => trusted.networks.extend(networks),
            None => {
                cx.error(&at.span, "not a network")
                    .advice("write a range (\"10.0.0.0/8\"), an address, \"private\", \"loopback\" or \"unix\"");
            }
        }
    }
    trusted
}

fn client_auth(raw: &At<raw::ListenTls>, cx: &mut Context<'_>) -> Option<ClientAuth> {
    type Kind = Option<fn(File) -> ClientAuth>;
    let kinds: [(&str, Kind); 3] =
        [("off", None), ("optional", Some(ClientAuth::Optional)), ("required", Some(ClientAuth::Required))];
    let kind = cx.choice(&raw.client_auth, &kinds, None);
    if matches!(raw.client_auth, Field::Bad) || matches!(raw.client_ca, Field::Bad) {
        return None;
    }
    match (kind, raw.client_ca.get()) {
        (None, None) => Some(ClientAuth::Off),
        (None, Some(at)) => {
            // Who names authorities believes that clients are asked for certificates.
            cx.error(&at.span, "no client is asked for a certificate")
                .advice("add client_auth = \"required\", or \"optional\"");
            None
        }
        (Some(_), None) => {
            let span = raw.client_auth.get().map_or(&raw.span, |at| &at.span);
            cx.error(span, "client certificates need a `client_ca`")
                .advice("name the file of the authorities that sign them");
            None
        }
        (Some(kind), Some(at)) => file(at, cx).map(kind),
    }
}

fn file(at: &At<String>, cx: &mut Context<'_>) -> Option<File> {
    let contents = cx.file(at)?;
    Some(File::new(cx.base.join(&at.value), contents))
}

/// A private key is a secret: `check` does without it.
fn key(at: &At<String>, cx: &mut Context<'_>) -> Option<File> {
    let path = cx.base.join(&at.value);
    if cx.secrets == Secrets::Optional
        && let Err(error) = cx.environment.read(&path)
    {
        cx.problems.warning(&at.span, format!("cannot read the file: {error}")).label("`run` needs it");
        return None;
    }
    file(at, cx)
}

/// Says what is wrong with the files, at the key that names the one.
fn unusable(error: &ServerTlsError, raw: &At<raw::ListenTls>, tls: &Tls, cx: &mut Context<'_>) {
    let span = |field: &Field<String>| field.get().map_or_else(|| raw.span.clone(), |at| at.span.clone());
    let (cert, key, ca) = (span(&raw.cert), span(&raw.key), span(&raw.client_ca));
    let of = |path: &Path| -> &Span { if path == tls.cert.path() { &cert } else { &ca } };
    match error {
        ServerTlsError::Pem(PemError::NoCertificate(path)) => cx
            .error(of(path), "the file holds no certificate in PEM")
            .advice("it begins with -----BEGIN CERTIFICATE-----; the server's own certificate is the first"),
        ServerTlsError::Pem(PemError::Certificate { path, source }) => {
            cx.error(of(path), format!("the file holds a certificate that cannot be read: {source}"))
        }
        ServerTlsError::Pem(PemError::NoKey(_)) => cx
            .error(&key, "the file holds no private key in PEM")
            .advice("it begins with -----BEGIN PRIVATE KEY----- and is not encrypted"),
        ServerTlsError::Pem(PemError::EncryptedKey(_)) => {
            cx.error(&key, "the private key is encrypted").advice(ENCRYPTED_KEY)
        }
        ServerTlsError::Pem(PemError::Version1(_)) => {
            cx.error(&cert, "the certificate is X.509 version 1, which no client takes").advice(VERSION_3)
        }
        ServerTlsError::Key { source, .. } => cx.error(&key, format!("the private key cannot be used: {source}")),
        ServerTlsError::Mismatch { .. } => cx
            .error(&key, "the private key is not the one of the certificate")
            .also(cert.clone(), "this certificate")
            .advice("the server's own certificate is the first one of the file"),
        ServerTlsError::Certificate { source, .. } => {
            cx.error(&cert, format!("the certificate cannot be used: {source}"))
        }
        ServerTlsError::ClientCa { source, .. } => {
            cx.error(&ca, format!("clients cannot be verified by this file: {source}"))
        }
        ServerTlsError::Setup(source) => cx.error(&raw.span, format!("cannot set up TLS: {source}")),
    };
}
