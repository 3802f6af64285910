//! `[upstreams.NAME]` as it is written: where requests go.

use super::describe::Form::{Count, Limit, Size};
use super::reader::{At, Field, Read, Reader, Table, tables};

tables! {
    /// A service that requests are forwarded to, under the name that routes call it by.
    Upstream at "upstreams.*" {
        /// `"http://127.0.0.1:8090"`, `"https://api.example.com"` or `"unix:/run/app.sock"`, without a path. It or `urls` is
        /// needed.
        url: String,
        /// Several addresses of one service, of one scheme: a request goes to the less loaded of two that are drawn.
        urls: Vec<At<String>>,
        /// HTTP/2 alone: in clear text with prior knowledge, as gRPC has it. Over TLS ALPN decides without it.
        http2: bool = false,
        /// For an `https` upstream.
        tls: UpstreamTls,
        /// To a connection.
        connect_timeout: String = "2s" as Limit,
        /// From the request to the head of the answer.
        response_timeout: String = "60s" as Limit,
        /// The connections that are kept, for each worker and address.
        pool: Pool,
        /// The largest request head that this upstream accepts; `headers-too-large` or `token-unfit` beyond it.
        max_header_bytes: String = "16KiB" as Size,
        /// Headers that no caller may send; `*` at the end stands for anything.
        remove_headers: Vec<At<String>> = [],
    }

    /// Whom the upstream is believed by, and what is shown to it.
    UpstreamTls at "upstreams.*.tls" {
        /// The authorities (PEM) that sign its certificate; else those that the machine trusts.
        ca_file: String,
        /// The certificate (PEM) that is shown to an upstream that asks.
        client_cert: String,
        /// Its private key (PEM), not encrypted.
        client_key: String,
        /// The name that is asked for and that the certificate must have; else the URL's host.
        server_name: String,
    }

    /// Connections that are kept for further requests, for each worker and address.
    Pool at "upstreams.*.pool" {
        /// Idle connections.
        max_idle: i64 = 1024 as Count(0, 1_000_000),
        /// How long one stays idle; shorter than the upstream keeps its own (Node: 5 s).
        idle_timeout: String = "4s" as Limit,
        /// All connections; requests beyond them wait. 0: no limit.
        max_connections: i64 = 0 as Count(0, 1_000_000),
        /// Requests at one time on an HTTP/2 connection, where the upstream allows as many.
        max_streams: i64 = 100 as Count(1, 1_000_000),
    }
}
