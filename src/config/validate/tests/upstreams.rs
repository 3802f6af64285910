//! `[upstreams]`: which addresses and keys go together, and what is said where they do not.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::ServerName;

use super::{Outside, good, outside, parse_in};
use crate::config::validate::{Secrets, parse};
use crate::config::{Place, UpstreamTls, Wire};

/// A route to an upstream with these keys.
fn up(keys: &str) -> String {
    format!("[upstreams.up]\n{keys}\n[[routes]]\nname = \"api\"\nupstream = \"up\"\nsession = []\n")
}

/// That each text is refused with these words.
#[track_caller]
fn refused(cases: &[(&str, &[&str])]) {
    for (keys, words) in cases {
        let said = told(&up(keys));
        assert!(said.starts_with("error: "), "{keys}: {said}");
        for word in *words {
            assert!(said.contains(word), "{keys}: no `{word}` in\n{said}");
        }
    }
}

#[test]
fn a_unix_socket_is_relative_to_the_configuration_and_keeps_the_host() {
    for (url, path) in [("unix:/run/app.sock", "/run/app.sock"), ("unix:run/app.sock", "/etc/mintgate/run/app.sock")] {
        let config = good(&up(&format!("url = \"{url}\"")));
        let address = &config.upstreams[0].addresses[0];
        assert_eq!(address.place, Place::Unix(Path::new(path).to_owned()));
        assert_eq!((address.authority.as_str(), config.routes[0].preserve_host), ("localhost", true));
    }
}

#[test]
fn the_host_is_kept_where_every_address_is_this_machine() {
    for (urls, kept) in [
        (r#"["http://127.0.0.1:1", "http://[::1]:1"]"#, true),
        (r#"["http://127.0.0.1:1", "http://10.0.0.1:1"]"#, false),
        (r#"["unix:/a", "unix:/b"]"#, true),
    ] {
        assert_eq!(good(&up(&format!("urls = {urls}"))).routes[0].preserve_host, kept, "{urls}");
    }
}

#[test]
fn an_upstream_has_either_url_or_urls() {
    let many =
        format!("urls = [{}]", (1..=65).map(|port| format!("\"http://h:{port}\"")).collect::<Vec<_>>().join(","));
    let long = format!("url = \"unix:/{}\"", "a".repeat(107));
    refused(&[
        ("http2 = false", &["an upstream needs a `url`", "add url = "]),
        ("url = \"http://a\"\nurls = [\"http://b\"]", &["one of `url` and `urls`", "put the one URL into the list"]),
        ("urls = []", &["at least one URL"]),
        ("urls = [\"http://a\", \"unix:/a\"]", &["have one scheme", "upstreams of their own"]),
        ("urls = [\"http://a\", \"http://a:80/\"]", &["listed already"]),
        ("urls = [\"http://a\", \"http://b/c\"]", &["has no path", "rewrite_prefix"]),
        (&many, &["too many URLs", "at most 64"]),
        ("url = \"unix:\"", &["not the path of a Unix socket", "unix:/run/app.sock"]),
        ("url = \"unix://host/a\"", &["not the path of a Unix socket"]),
        (&long, &["too long", "at most 107 bytes"]),
    ]);
}

/// An outside with two pairs of certificate and key, `a` and `b`, and with files that are neither.
fn certified() -> Outside {
    let mut outside = outside()
        .file("/etc/mintgate/empty.pem", "")
        .file("/etc/mintgate/version1.pem", include_str!("version1.pem"))
        .file(
            "/etc/mintgate/locked.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        )
        .file(
            "/etc/mintgate/old.key",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        )
        .file("/etc/mintgate/odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for name in ["a", "b"] {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([format!("{name}.test")]).unwrap().self_signed(&key).unwrap();
        outside = outside.file(&format!("/etc/mintgate/{name}.pem"), cert.pem());
        outside = outside.file(&format!("/etc/mintgate/{name}.key"), key.serialize_pem());
    }
    outside
}

fn told(source: &str) -> String {
    parse_in(&certified(), source).map_or_else(|wrong| wrong.to_string(), |(_, warnings)| warnings.to_string())
}

#[track_caller]
fn tls(keys: &str) -> UpstreamTls {
    let (config, warnings) = parse_in(&certified(), &up(keys)).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(warnings.is_empty(), "{warnings}");
    match config.upstreams[0].wire.clone() {
        Wire::Tls(tls) => tls,
        wire => panic!("{wire:?}"),
    }
}

#[test]
fn an_https_upstream_is_verified_by_its_own_name() {
    let name = |text: &str| ServerName::try_from(text.to_owned()).unwrap();
    let plain = tls("url = \"https://api.example.com.\"");
    assert_eq!((&plain.names[..], plain.http2_only), (&[name("api.example.com")][..], false));
    assert_eq!((plain.ca, plain.identity), (None, None));
    let several = tls("urls = [\"https://10.0.0.1\", \"https://[::1]:8443\"]\nhttp2 = true");
    assert_eq!((&several.names[..], several.http2_only), (&[name("10.0.0.1"), name("::1")][..], true));
    let named = tls("urls = [\"https://10.0.0.1\", \"https://b\"]\ntls = { server_name = \"api.test\" }");
    assert_eq!(named.names[..], [name("api.test"), name("api.test")]);
}

#[test]
fn the_files_of_tls_are_read_and_relative_to_the_configuration() {
    let read = tls(
        "url = \"https://a\"\ntls = { ca_file = \"b.pem\", client_cert = \"a.pem\", client_key = \"/etc/mintgate/a.key\" }",
    );
    let files: Vec<_> = read.files().map(|file| file.path().to_str().unwrap()).collect();
    assert_eq!(files, ["/etc/mintgate/b.pem", "/etc/mintgate/a.pem", "/etc/mintgate/a.key"]);
    assert!(!format!("{read:?}").contains("PRIVATE"), "no formatting shows a key");
}

#[test]
fn tls_keys_that_make_no_sense_are_refused_where_they_stand() {
    let https = |tls: &str| format!("url = \"https://a\"\ntls = {{ {tls} }}");
    let cases: Vec<(String, &[&str])> = vec![
        (
            "url = \"http://a\"\ntls = {}".to_owned(),
            &["is for upstreams with an https URL", "this is clear text", "take `tls` away"],
        ),
        ("urls = [\"unix:/a\"]\ntls = { server_name = \"a\" }".to_owned(), &["is for upstreams with an https URL"]),
        (https("server_name = \"a b\""), &["not a host name", "as it stands in the certificate"]),
        (https("ca_file = \"none.pem\""), &["cannot read the file", "relative paths are relative to"]),
        (https("ca_file = \"empty.pem\""), &["holds no certificate in PEM", "its first line says"]),
        (https("ca_file = \"odd.pem\""), &["a certificate that cannot be read"]),
        (https("client_cert = \"a.pem\""), &["needs its `client_key`"]),
        (https("client_key = \"a.key\""), &["needs its `client_cert`"]),
        (https("client_cert = \"a.pem\", client_key = \"none.key\""), &["cannot read the file"]),
        (https("client_cert = \"a.key\", client_key = \"a.key\""), &["holds no certificate in PEM"]),
        (
            https("client_cert = \"a.pem\", client_key = \"a.pem\""),
            &["holds no private key in PEM", "its first line says BEGIN PRIVATE KEY"],
        ),
        (
            https("client_cert = \"a.pem\", client_key = \"b.key\""),
            &["not the one of the certificate", "this certificate"],
        ),
        (
            https("client_cert = \"a.pem\", client_key = \"locked.key\""),
            &["the private key is encrypted", "openssl pkey -in encrypted.pem -out key.pem"],
        ),
        (
            https("client_cert = \"a.pem\", client_key = \"old.key\""),
            &["the private key is encrypted", "openssl pkey -in"],
        ),
        (
            https("client_cert = \"version1.pem\", client_key = \"a.key\""),
            &["is X.509 version 1", "make it version 3: give `openssl x509 -req` an -extfile"],
        ),
        (https("cafile = \"a.pem\""), &["unknown key `cafile`", "did you mean `ca_file`?"]),
        ("url = \"https://a/b\"".to_owned(), &["has no path"]),
    ];
    let cases: Vec<_> = cases.iter().map(|(keys, words)| (keys.as_str(), *words)).collect();
    refused(&cases);
}

#[test]
fn check_does_without_a_clients_key() {
    let source = up("url = \"https://a\"\ntls = { client_cert = \"a.pem\", client_key = \"none.key\" }");
    let path = Path::new("/etc/mintgate/mintgate.toml");
    let (_, warnings) = parse(&source, path, &certified(), Secrets::Optional).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(warnings.to_string().contains("`run` needs it"), "{warnings}");
}

#[test]
fn a_listeners_files_are_told_in_full_although_they_speak_of_secrets() {
    let server = |cert: &str, key: &str| {
        told(&format!("[server]\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}\n{}", up("url = \"http://a\"")))
    };
    for (cert, key, advice) in [
        ("a.key", "a.pem", "it begins with -----BEGIN CERTIFICATE-----; the server's own certificate is the first"),
        ("a.pem", "b.pem", "it begins with -----BEGIN PRIVATE KEY----- and is not encrypted"),
        ("a.pem", "locked.key", "take its passphrase away: openssl pkey -in encrypted.pem -out key.pem"),
        ("version1.pem", "a.key", "make it version 3"),
    ] {
        let said = server(cert, key);
        assert!(said.contains(advice), "{said}");
    }
}
