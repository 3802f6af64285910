//! `[authz]`, `[token_api]` and `[webhooks]` as they are written.

use super::reader::{At, Field, Read, Reader, Table, tables};
use super::serving::ListenTls;
use super::shapes::{OneOrMany, SecretRef};

tables! {
    /// Decisions for a proxy that already stands before the application, over HTTP and gRPC; off without this section.
    Authz at "authz" {
        /// `"127.0.0.1:6473"`, `"unix:/path"` or `"systemd:NAME"`.
        listen: String = required,
        /// As in `[server]`.
        tls: ListenTls,
        /// Who may ask, since the answers hold tokens: ranges, addresses, `"private"`, `"loopback"`, `"unix"`.
        allow_from: Vec<At<String>> = ["loopback", "unix"],
    }

    /// Clerk's own API, with the tokens of templates out of the cache; off without this section.
    TokenApi at "token_api" {
        /// `"127.0.0.1:6474"`, `"unix:/path"` or `"systemd:NAME"`; with `tls` where other machines reach it.
        listen: String = required,
        /// As in `[server]`.
        tls: ListenTls,
        /// Who may ask without the secret key, and for what.
        callers: Vec<At<ApiCaller>> = [],
    }

    /// A caller that reaches the tokens of its templates alone.
    ApiCaller at "token_api.callers[]" {
        /// What the log calls it; unique.
        name: String = required,
        /// What it shows, as `Authorization: Bearer`; unique.
        token: SecretRef = required,
        /// The JWT templates that it may ask for; at least one.
        templates: Vec<At<String>> = required,
    }

    /// Clerk's webhooks, so that a session that was revoked is refused at once; off without this section.
    Webhooks at "webhooks" {
        /// `"0.0.0.0:6475"`, `"unix:/path"` or `"systemd:NAME"`. Clerk has to reach it, through whatever stands before it.
        listen: String = required,
        /// As in `[server]`.
        tls: ListenTls,
        /// The path of the endpoint's URL, as Clerk knows it.
        path: String = "/webhooks/clerk",
        /// The endpoint's signing secret, `whsec_...`; a list while it is rotated.
        signing_secret: OneOrMany<SecretRef> = required,
    }
}
