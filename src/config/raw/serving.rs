//! `[server]`, `[admin]`, `[log]` and `[cache]` as they are written: what belongs to the process and to no route.

use toml::Spanned;
use toml::de::DeValue;

use super::describe::Form::{Count, Duration, Limit, Size, SizeLimit, Words};
use super::describe::{Describe, Shape};
use super::reader::{At, Field, Read, Reader, Table, tables};
use super::shapes::{NumberOrWord, SecretRef};
use super::shared::Shared;

tables! {
    /// Where requests come in, and what a connection and a request may take.
    Server at "server" {
        /// Addresses: `"127.0.0.1:6468"`, `"unix:/path"`, `"systemd:NAME"`, or a table with a name and an address. A changed
        /// list is used after a restart, and so is everything else that changed with it.
        listen: Vec<At<Listen>> = ["127.0.0.1:6468"],
        /// The certificate of the TCP listeners; without it they speak clear text. To have one, or none any more, needs a
        /// restart; other files, and what is in them, do not.
        tls: ListenTls,
        /// Threads that serve connections; 0: the CPUs that this process may use, at most 4.
        workers: i64 = 0 as Count(0, 1024),
        /// Open connections of all listeners; the next one is answered `overloaded`.
        max_connections: i64 = 10000 as Count(1, 10_000_000),
        /// The head of a request; `headers-too-large` beyond it, and beyond 100 header lines.
        max_header_bytes: String = "32KiB" as Size,
        /// The target of a request; `uri-too-long` beyond it.
        max_uri_bytes: String = "16KiB" as Size,
        /// For a new connection to say anything.
        first_byte_timeout: String = "10s" as Limit,
        /// From the first byte of a head to its end.
        header_read_timeout: String = "10s" as Limit,
        /// Between the requests of a connection.
        idle_timeout: String = "75s" as Limit,
        /// For a request body that stands still, until the head of the answer has come.
        body_progress_timeout: String = "30s" as Limit,
        /// For a caller that takes no bytes; twice that for a closed HTTP/2 window.
        write_stall_timeout: String = "30s" as Limit,
        /// The largest request body; `body-too-large` beyond it. Bodies are streamed and not kept.
        request_body_limit: String = "0" as SizeLimit,
        /// After which a connection takes no further request, so that callers spread over new replicas.
        max_connection_age: String = "0" as Limit,
        /// After SIGTERM: not ready, and still serving, until nobody sends requests here any more.
        drain_delay: String = "0s" as Limit,
        /// Then: for what is under way to finish.
        drain_timeout: String = "25s" as Limit,
        /// Whose `X-Forwarded-*` and `Forwarded` are believed: ranges, addresses, `"private"`, `"loopback"`, `"unix"`.
        trusted_proxies: Vec<At<String>> = [],
    }

    /// A listener with a name.
    NamedListen at "server.listen[]" {
        /// What routes (`match.listener`) and metrics call it; else its address.
        name: String,
        /// `"127.0.0.1:6468"`, `"unix:/path"` or `"systemd:NAME"`.
        address: String = required,
    }

    /// TLS on every TCP listener.
    ListenTls at "server.tls" {
        /// The certificate chain (PEM), the server's own certificate first.
        cert: String = required,
        /// Its private key (PEM), not encrypted.
        key: String = required,
        /// The authorities (PEM) that sign the certificates of clients.
        client_ca: String,
        /// Whether clients show a certificate; `optional`: one that is shown must be good.
        client_auth: String = "off" as Words(&["off", "optional", "required"]),
    }

    /// Probes and metrics, never on a data port; off without this section.
    Admin at "admin" {
        /// `"127.0.0.1:6469"`, `"unix:/path"` or `"systemd:NAME"`.
        listen: String = "127.0.0.1:6469",
        /// Names that `Host` may have beside addresses and `localhost`.
        hosts: Vec<At<String>> = [],
        /// Where `POST /revoke`, `/purge`, `/log` and `/quit` are taken: `"unix:/path"`, or a loopback address, which needs
        /// `token`. Left out, nowhere.
        control: String,
        /// What requests to `control` show; not needed on a Unix socket.
        token: SecretRef,
    }

    /// What is logged, to standard error.
    Log at "log" {
        /// A level, or directives as in `"info,mintgate::token=debug"`. The variable `MINTGATE_LOG` goes before it.
        filter: String = "info",
        /// `auto`: text on a terminal, else JSON.
        format: String = "auto" as Words(&["auto", "text", "json"]),
        /// Which requests get an access record; `errors`: those with an error of ours, or an answer from 500.
        access: String = "errors" as Words(&["off", "errors", "all"]),
        /// How user, session and organization stand in the access record; `hash`: as eight digits.
        identity: String = "hash" as Words(&["none", "hash", "plain"]),
    }

    /// The tokens and sessions in memory.
    Cache at "cache" {
        /// The memory of all minted tokens.
        max_bytes: String = "64MiB" as Size,
        /// The memory of all verified sessions.
        max_session_bytes: String = "32MiB" as Size,
        /// A minted token with less life is not injected; at most a quarter of its lifetime.
        min_remaining: String = "5s" as Duration,
        /// No token is kept longer, however long it lives.
        max_lifetime: String = "1h" as Duration,
        /// The part of its life after which a token that is used is renewed in the background; `"off"`: never.
        refresh_at: NumberOrWord = 0.8 as Words(&["off"]),
        /// How long it is remembered that Clerk knows no such session or template.
        missing_ttl: String = "5s" as Limit,
        /// A second level for all replicas.
        shared: Shared,
    }
}

/// One entry of `server.listen`.
pub(crate) struct Listen {
    pub(crate) name: Field<String>,
    pub(crate) address: At<String>,
}

// === impl Listen ===

impl Read for Listen {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        if let DeValue::String(text) = value.get_ref() {
            let address = At { value: reader.text(text, &value.span())?, span: value.span() };
            return Some(Self { name: Field::Absent, address });
        }
        let NamedListen { name, address, reported } = NamedListen::read(value, reader)?;
        match address {
            Field::Good(address) => Some(Self { name, address }),
            Field::Bad => None,
            Field::Absent => {
                if !reported {
                    reader.problems.error(&value.span(), "a listener needs an `address`");
                }
                None
            }
        }
    }
}

impl Describe for Listen {
    fn shape() -> Shape {
        Shape::Either(Box::new(Shape::Text), Box::new(NamedListen::shape()))
    }
}
