//! `tls` of an upstream: whom it is believed by, what is presented to it, whose name it must have.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::ServerName;

use crate::config::raw;
use crate::config::raw::problem::Span;
use crate::config::raw::reader::{At, Field, Table};
use crate::config::{Addresses, ClientIdentity, Place, UpstreamTls};
use crate::file::File;
use crate::transport::tls::client::{ClientTls, ClientTlsError};
use crate::transport::tls::pem::{ENCRYPTED_KEY, PemError, VERSION_3};

use super::context::{Context, Secrets};

/// What is wrong was said.
struct Reported;

/// The table of an `https` upstream; it may be absent. `None`: something was reported.
pub(crate) fn read(
    field: &Field<raw::UpstreamTls>,
    addresses: &Addresses,
    http2_only: bool,
    cx: &mut Context<'_>,
) -> Option<UpstreamTls> {
    let none = At { value: raw::UpstreamTls::default(), span: 0..0 };
    let raw = match field {
        Field::Good(raw) => raw,
        Field::Absent => &none,
        Field::Bad => return None,
    };
    let names = names(&raw.server_name, addresses, cx);
    let ca = raw.ca_file.get().map(|at| file(at, cx)).transpose();
    let (identity, names) = (identity(raw, cx).ok(), names?);
    let read = UpstreamTls { ca: ca.ok()?, identity: identity?, names, http2_only };
    // Without the machine's roots, which are no business of a configuration.
    match ClientTls::new(&read, &Arc::new(RootCertStore::empty())) {
        Ok(_) => Some(read),
        Err(error) => {
            unusable(&error, raw, &read, cx);
            None
        }
    }
}

/// The table beside a URL that does without TLS.
pub(crate) fn refuse(
    field: &Field<raw::UpstreamTls>,
    url: &Field<String>,
    urls: &Field<Vec<At<String>>>,
    cx: &mut Context<'_>,
) {
    let url = url.get().map(|at| &at.span).or(urls.get().map(|at| &at.span));
    if let (Some(at), Some(url)) = (field.get(), url) {
        cx.error(&at.span, "`tls` is for upstreams with an https URL")
            .also(url.clone(), "this is clear text")
            .advice("write \"https://...\", or take `tls` away");
    }
}

/// The name that each address must have.
fn names(field: &Field<String>, addresses: &Addresses, cx: &mut Context<'_>) -> Option<Box<[ServerName<'static>]>> {
    if let Some(at) = field.get() {
        let Ok(name) = ServerName::try_from(at.value.clone()) else {
            cx.error(&at.span, "not a host name")
                .advice("write it as it stands in the certificate: \"api.example.com\"");
            return None;
        };
        return Some(addresses.iter().map(|_| name.clone()).collect());
    }
    let name = |place: &Place| match place {
        // RFC 6066 section 3: without the dot at its end.
        Place::Tcp { host, .. } => ServerName::try_from(host.trim_end_matches('.').to_owned()).ok(),
        Place::Unix(_) => None,
    };
    addresses.iter().map(|address| name(&address.place)).collect()
}

/// `client_cert` and `client_key`.
fn identity(raw: &At<raw::UpstreamTls>, cx: &mut Context<'_>) -> Result<Option<ClientIdentity>, Reported> {
    match (&raw.client_cert, &raw.client_key) {
        (Field::Absent, Field::Absent) => Ok(None),
        (Field::Good(cert), Field::Good(key)) => {
            let (cert, key) = (file(cert, cx), secret(key, cx));
            Ok(key?.zip(Some(cert?)).map(|(key, cert)| ClientIdentity { cert, key }))
        }
        (Field::Good(at), Field::Absent) if !raw.reported() => {
            cx.error(&at.span, "a client certificate needs its `client_key`");
            Err(Reported)
        }
        (Field::Absent, Field::Good(at)) if !raw.reported() => {
            cx.error(&at.span, "a client's key needs its `client_cert`");
            Err(Reported)
        }
        _ => Err(Reported),
    }
}

fn file(at: &At<String>, cx: &mut Context<'_>) -> Result<File, Reported> {
    let contents = cx.file(at).ok_or(Reported)?;
    Ok(File::new(cx.base.join(&at.value), contents))
}

/// A private key is a secret: `check` does without it.
fn secret(at: &At<String>, cx: &mut Context<'_>) -> Result<Option<File>, Reported> {
    if cx.secrets == Secrets::Optional
        && let Err(error) = cx.environment.read(&cx.base.join(&at.value))
    {
        cx.problems.warning(&at.span, format!("cannot read the file: {error}")).label("`run` needs it");
        return Ok(None);
    }
    file(at, cx).map(Some)
}

/// Says what is wrong with the files, at the key that names the one.
fn unusable(error: &ClientTlsError, raw: &At<raw::UpstreamTls>, read: &UpstreamTls, cx: &mut Context<'_>) {
    let span = |field: &Field<String>| field.get().map_or_else(|| raw.span.clone(), |at| at.span.clone());
    let (ca, cert, key) = (span(&raw.ca_file), span(&raw.client_cert), span(&raw.client_key));
    let is_ca = |path: &Path| read.ca.as_ref().is_some_and(|ca| ca.path() == path);
    let of = |path: &Path| -> &Span { if is_ca(path) { &ca } else { &cert } };
    match error {
        ClientTlsError::Pem(PemError::NoCertificate(path)) => {
            cx.error(of(path), "the file holds no certificate in PEM").advice("its first line says BEGIN CERTIFICATE")
        }
        ClientTlsError::Pem(PemError::Certificate { path, source }) => {
            cx.error(of(path), format!("the file holds a certificate that cannot be read: {source}"))
        }
        ClientTlsError::Pem(PemError::NoKey(_)) => {
            cx.error(&key, "the file holds no private key in PEM").advice("its first line says BEGIN PRIVATE KEY")
        }
        ClientTlsError::Pem(PemError::EncryptedKey(_)) => {
            cx.error(&key, "the private key is encrypted").advice(ENCRYPTED_KEY)
        }
        ClientTlsError::Pem(PemError::Version1(_)) => {
            cx.error(&cert, "the certificate is X.509 version 1, which no server takes").advice(VERSION_3)
        }
        ClientTlsError::Mismatch { .. } => cx
            .error(&key, "the private key is not the one of the certificate")
            .also(cert.clone(), "this certificate")
            .advice("the client's own certificate is the first one of the file"),
        ClientTlsError::Identity { source, .. } => {
            cx.error(&cert, format!("the certificate cannot be used with its key: {source}"))
        }
        ClientTlsError::NoRoots => cx.error(&raw.span, error.to_string()),
        ClientTlsError::Setup(source) => cx.error(&raw.span, format!("cannot set up TLS: {source}")),
    };
}
