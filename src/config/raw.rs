//! The file as it is written: every key that this version knows, with its position, and nothing decided yet.
//!
//! Unknown keys, keys that are not served yet and values of the wrong type are reported here, all of them; what the
//! values mean is the business of the validation. Strings are expanded already.

pub(crate) mod expand;
pub(crate) mod not_yet;
pub(crate) mod problem;
pub(crate) mod reader;
pub(crate) mod shapes;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::problem::Problems;
use self::reader::{At, Field, Read, Reader, Table, tables};
use self::shapes::{Named, NumberOrWord, OneOrMany, SecretRef, Toggle};

tables! {
    /// The whole file.
    File at "" {
        clerk: Clerk,
        server: Server,
        admin: Admin,
        log: Log,
        cache: Cache,
        upstreams: Named<Upstream>,
        routes: Vec<At<Route>>,
    }

    /// `[clerk]`
    Clerk at "clerk" {
        secret_key: OneOrMany<SecretRef>,
        publishable_key: String,
        authorized_parties: Vec<At<String>>,
        issuer: String,
        audience: Vec<At<String>>,
        jwt_key: SecretRef,
        jwks_url: String,
        jwks_refresh: String,
        api_url: String,
        api_version: String,
        clock_skew: String,
        connect_timeout: String,
        timeout: String,
        ca_file: String,
        budget: Budget,
    }

    /// `[clerk.budget]`
    Budget at "clerk.budget" {
        requests: i64,
        per: String,
        share: f64,
        replicas: i64,
        reserve: f64,
        per_session: String,
        max_concurrent: i64,
        max_waiting: i64,
    }

    /// `[server]`
    Server at "server" {
        listen: Vec<At<Listen>>,
        tls: ListenTls,
        workers: i64,
        max_connections: i64,
        max_header_bytes: String,
        max_uri_bytes: String,
        first_byte_timeout: String,
        header_read_timeout: String,
        idle_timeout: String,
        body_progress_timeout: String,
        write_stall_timeout: String,
        request_body_limit: String,
        max_connection_age: String,
        drain_delay: String,
        drain_timeout: String,
        trusted_proxies: Vec<At<String>>,
    }

    /// A listener that is written as a table.
    NamedListen at "server.listen[]" {
        name: String,
        address: String,
    }

    /// `tls` of a listener.
    ListenTls at "server.tls" {
        cert: String,
        key: String,
        client_ca: String,
        client_auth: String,
    }

    /// `[admin]`
    Admin at "admin" {
        listen: String,
        hosts: Vec<At<String>>,
        control: String,
        token: SecretRef,
    }

    /// `[log]`
    Log at "log" {
        filter: String,
        format: String,
        access: String,
        identity: String,
    }

    /// `[cache]`
    Cache at "cache" {
        max_bytes: String,
        max_session_bytes: String,
        min_remaining: String,
        max_lifetime: String,
        refresh_at: NumberOrWord,
        missing_ttl: String,
    }

    /// `[upstreams.NAME]`
    Upstream at "upstreams.*" {
        url: String,
        urls: Vec<At<String>>,
        http2: bool,
        tls: UpstreamTls,
        connect_timeout: String,
        response_timeout: String,
        pool: Pool,
        max_header_bytes: String,
        remove_headers: Vec<At<String>>,
    }

    /// `tls` of an upstream
    UpstreamTls at "upstreams.*.tls" {
        ca_file: String,
        client_cert: String,
        client_key: String,
        server_name: String,
    }

    /// `pool`
    Pool at "upstreams.*.pool" {
        max_idle: i64,
        idle_timeout: String,
        max_connections: i64,
        max_streams: i64,
    }

    /// `[[routes]]`
    Route at "routes[]" {
        name: String,
        matching as "match": Match,
        upstream: String,
        strip_prefix: String,
        rewrite_prefix: String,
        preserve_host: bool,
        session: Vec<At<SessionSource>>,
        require: Named<OneOrMany<String>>,
        allow_impersonation: bool,
        clerk_app: bool,
        keep_headers: Vec<At<String>>,
        on_no_session: String,
        on_mint_error: String,
        preflight: String,
        allow_pending: bool,
        forward_credential: bool,
        forward_clerk_cookies: bool,
        authorized_parties: Vec<At<String>>,
        timeout: String,
        websocket: Toggle<WebSocket>,
        access: String,
        inject: Vec<At<Inject>>,
        retry_rejected: RetryRejected,
        allow_odd_paths: bool,
    }

    /// `websocket`
    WebSocket at "routes[].websocket" {
        close_at: String,
        max_lifetime: String,
    }

    /// `match`
    Match at "routes[].match" {
        host: String,
        path: String,
        exact: bool,
        methods: Vec<At<String>>,
        listener: String,
    }

    /// A session source that is written as a table.
    HeaderSource at "routes[].session[]" {
        header: String,
        session_id_header: String,
        trust: String,
        caller_token: SecretRef,
    }

    /// `retry_rejected`
    RetryRejected at "routes[].retry_rejected" {
        statuses: Vec<At<i64>>,
        max_body: String,
    }

    /// One entry of `inject`.
    Inject at "routes[].inject[]" {
        header: String,
        prefix: String,
        required: bool,
        template: String,
        expires_in: String,
        claim: String,
        session_token: bool,
        minted_session_token: bool,
        value: SecretRef,
        expect: Named<String>,
        vary: Vec<At<String>>,
    }
}

/// One entry of `server.listen`.
pub(crate) struct Listen {
    pub(crate) name: Field<String>,
    pub(crate) address: At<String>,
}

/// One entry of `session`.
pub(crate) enum SessionSource {
    /// A word.
    Word(String),
    /// `{ header = "..." }`
    Header(At<String>),
    /// `{ session_id_header = "...", trust = "...", caller_token = ... }`
    Id { header: At<String>, trust: Field<String>, caller_token: Field<SecretRef> },
}

/// The document, and everything about its shape that is wrong.
pub(crate) fn read(document: &DeTable<'_>, var: &dyn Fn(&str) -> Option<String>) -> (File, Problems) {
    let mut reader = Reader { problems: Problems::default(), var };
    let reported = reader.check_keys(document, "", File::KEYS);
    let file = File::from_table(document, reported, &mut reader);
    (file, reader.problems)
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

// === impl SessionSource ===

impl Read for SessionSource {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        if let DeValue::String(text) = value.get_ref() {
            return reader.text(text, &value.span()).map(Self::Word);
        }
        let HeaderSource { header, session_id_header, trust, caller_token, reported } =
            HeaderSource::read(value, reader)?;
        match (header, session_id_header) {
            (Field::Good(header), Field::Absent) if trust.is_absent() && caller_token.is_absent() => {
                Some(Self::Header(header))
            }
            (Field::Absent, Field::Good(header)) => Some(Self::Id { header, trust, caller_token }),
            (Field::Bad, _) | (_, Field::Bad) => None,
            (Field::Good(_), _) => {
                let advice = "{ header = \"...\" } holds a session token, { session_id_header = \"...\", trust = \"unverified\", \
                              caller_token = { file = \"...\" } } an id";
                reader.problems.error(&value.span(), "a session source is one of two kinds").advice(advice);
                None
            }
            (Field::Absent, Field::Absent) => {
                if !reported {
                    let advice = "the sources are \"bearer\", \"cookie\" and { header = \"...\" }";
                    reader.problems.error(&value.span(), "not a session source").advice(advice);
                }
                None
            }
        }
    }
}
