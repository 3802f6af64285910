//! `[upstreams]`: which addresses and keys go together, and what is said where they do not.

use std::path::Path;

use super::{good, said};
use crate::config::Place;

/// A route to an upstream with these keys.
fn up(keys: &str) -> String {
    format!("[upstreams.up]\n{keys}\n[[routes]]\nname = \"api\"\nupstream = \"up\"\nsession = []\n")
}

/// That each text is refused with these words.
#[track_caller]
fn refused(cases: &[(&str, &[&str])]) {
    for (keys, words) in cases {
        let said = said(&up(keys));
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
