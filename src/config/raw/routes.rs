//! `[[routes]]` as they are written: what is matched, where it goes, under which rules and with which tokens.

use toml::Spanned;
use toml::de::DeValue;

use super::describe::Form::{Duration, Limit, SizeLimit, Words};
use super::describe::{Describe, Shape};
use super::reader::{At, Field, Read, Reader, Table, tables};
use super::shapes::{Named, OneOrMany, Scalar, SecretRef, Toggle};

tables! {
    /// A route: the requests that it matches, where they go, what they need, and what is put into them. An exact host goes before
    /// `*.suffix`, that before any; then the longest path.
    Route at "routes[]" {
        /// Its label in metrics and logs; unique.
        name: String = required,
        /// Which requests are its own; everything else left out, all of them.
        matching as "match": Match,
        /// The name of an upstream, or a URL. It may be left out only where `[authz]` is there: the route is then for requests that a
        /// proxy forwards, and none of its own.
        upstream: String,
        /// Taken away from the beginning of the path.
        strip_prefix: String,
        /// Stands where the matched path stood.
        rewrite_prefix: String,
        /// Whether the upstream sees the caller's `Host`. Left out, it does on loopback addresses and Unix sockets.
        preserve_host: bool,
        /// Where a session token is looked for, in this order: `"bearer"`, `"cookie"`, or a header. The first place that holds one
        /// decides. Empty: the route is public, and no session is looked at.
        session: Vec<At<SessionSource>> = ["bearer", "cookie"] as Words(&["bearer", "cookie"]),
        /// Values of the session that must be one of these, else `session-forbidden`: `sid`, `sub`, `org_id`, `org_role`,
        /// `org_slug`, `azp`, or a JSON pointer into the claims.
        require: Named<OneOrMany<String>>,
        /// Whether sessions may be of somebody who acts as another user (`act`).
        allow_impersonation: bool = true,
        /// The upstream runs a Clerk SDK: it sees the credential and Clerk's cookies, and a session that is not good counts as none.
        clerk_app: bool = false,
        /// Headers that a caller may send although the upstream's `remove_headers` says otherwise.
        keep_headers: Vec<At<String>> = [],
        /// A request without a session; `pass`: forwarded without tokens.
        on_no_session: String = "reject" as Words(&["reject", "pass"]),
        /// A token that cannot be minted; `pass`: forwarded without it, `session`: with the caller's session token.
        on_mint_error: String = "fail" as Words(&["fail", "pass", "session"]),
        /// A CORS preflight; `pass`: it needs no session and gets nothing that needs one, fixed values neither.
        preflight: String = "pass" as Words(&["pass", "reject"]),
        /// Whether sessions with unfinished tasks (`sts: pending`) are let in.
        allow_pending: bool = false,
        /// Whether the upstream sees the session token too.
        forward_credential: bool = false,
        /// Whether the upstream sees Clerk's cookies too.
        forward_clerk_cookies: bool = false,
        /// Narrows those of `[clerk]`. Left out, all of them.
        authorized_parties: Vec<At<String>>,
        /// For the whole request.
        timeout: String = "0" as Limit,
        /// WebSockets: `false` for none, or what closes them.
        websocket: Toggle<WebSocket> = true,
        /// `off`: requests of this route get no access record.
        access: String = "on" as Words(&["on", "off"]),
        /// Answers tell in `x-mintgate-token` how the tokens were come by: `hit; age=12; ttl=43`.
        show_token: bool = false,
        /// What is put into the request.
        inject: Vec<At<Inject>> = [],
        /// A token that the upstream refuses is minted anew, and the request sent once more.
        retry_rejected: RetryRejected,
        /// Paths with `//`, `%2f` or dot segments pass as they are, where every reading of them stays in this route.
        allow_odd_paths: bool = false,
    }

    /// What ends a WebSocket that is open.
    WebSocket at "routes[].websocket" {
        /// What has to expire: the first of the injected tokens, or the session token.
        close_at: String = "never" as Words(&["never", "token", "session"]),
        /// Since it was opened.
        max_lifetime: String = "0" as Limit,
        /// The first message of GraphQL's protocols, `connection_init`, gets the minted token too.
        rewrite_connection_init: RewriteInit,
    }

    /// Where in the first message of a WebSocket the minted token is put. The message is held back until it is whole.
    RewriteInit at "routes[].websocket.rewrite_connection_init" {
        /// A JSON pointer into the message's `payload`: `"/headers/Authorization"`.
        pointer: String = required,
        /// Stands before the token: `"Bearer "`.
        prefix: String,
        /// Which of the tokens that the route injects. Left out, the only one.
        template: String,
    }

    /// Which requests a route takes.
    Match at "routes[].match" {
        /// `"api.example.com"` or `"*.example.com"`. Left out, every host.
        host: String,
        /// This path and everything below it.
        path: String = "/",
        /// This path alone.
        exact: bool = false,
        /// `["GET", "POST"]`. Left out, every method.
        methods: Vec<At<String>>,
        /// The name of a listener of `[server]`. Left out, every listener.
        listener: String,
    }

    /// A header that holds a session token, or (`session_id_header`) the id of a session that a program of this machine has verified,
    /// or (`connection_init`) a place in the first message of a WebSocket.
    HeaderSource at "routes[].session[]" {
        /// The header that holds a session token.
        header: String,
        /// The header that holds the id of a session. Nothing is verified: loopback addresses and Unix sockets alone.
        session_id_header: String,
        /// Says that this is meant; needed beside `session_id_header`.
        trust: String as Words(&["unverified"]),
        /// What the program shows in `x-mintgate-caller`.
        caller_token: SecretRef,
        /// A JSON pointer into the `payload` of a WebSocket's first message, where the session token stands: a browser cannot send it
        /// in a header. Alone in `session`; the route is for WebSockets only.
        connection_init: String,
        /// What stands before that token: `"Bearer "`.
        prefix: String,
    }

    /// What is done when the upstream refuses a minted token.
    RetryRejected at "routes[].retry_rejected" {
        /// Answers by which the upstream says that it has done nothing, as it did not take the token: `[401]`. With `json`, those
        /// that may say so, 200 among them.
        statuses: Vec<At<i64>> = required,
        /// What an answer of these statuses has to say besides, in a body of JSON.
        json: RetryJson,
        /// Of a longer body nothing is kept, and the refusal is passed on. With `json`, an answer that is longer is none.
        max_body: String = "64KiB" as SizeLimit,
    }

    /// What the body of an answer says where a token was refused, and nothing was done.
    RetryJson at "routes[].retry_rejected.json" {
        /// A JSON pointer into it: `"/errors/0/extensions/code"`.
        pointer: String = required,
        /// The values of which one stands there: texts, whole numbers, `true` or `false`.
        equals: Vec<At<Scalar>> = required,
    }

    /// A header that is set, from exactly one of `template`, `claim`, `session_token`, `minted_session_token` and `value`.
    Inject at "routes[].inject[]" {
        /// Its name.
        header: String = required,
        /// Stands before the value: `"Bearer "`.
        prefix: String,
        /// Whether the request is refused (`token-unfit`) where there is no value that fits into a header.
        required: bool = false,
        /// A token that Clerk mints from the JWT template of this name.
        template: String,
        /// How long a minted token lives, 30 s or more. Left out, as the template says.
        expires_in: String as Duration,
        /// A value of the session: `sid`, `sub`, `org_id`, `org_role`, `org_slug`, `azp`, or a JSON pointer into the claims.
        claim: String,
        /// The caller's own session token, while it lives.
        session_token: bool,
        /// A session token that Clerk mints, for upstreams of Clerk's native integrations.
        minted_session_token: bool,
        /// A fixed secret value, also on public routes.
        value: SecretRef,
        /// JSON pointers into the minted token, and the session's value that must stand there; else `session-stale`.
        expect: Named<String>,
        /// Further claims of the session that the template depends on: each combination has a token of its own.
        vary: Vec<At<String>>,
    }
}

/// One entry of `session`.
pub(crate) enum SessionSource {
    /// A word.
    Word(String),
    /// `{ header = "..." }`
    Header(At<String>),
    /// `{ session_id_header = "...", trust = "...", caller_token = ... }`
    Id { header: At<String>, trust: Field<String>, caller_token: Field<SecretRef> },
    /// `{ connection_init = "...", prefix = "..." }`
    Init { pointer: At<String>, prefix: Field<String> },
}

fn two_kinds(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<SessionSource> {
    let advice = "{ header = \"...\" } holds a session token, { session_id_header = \"...\", trust = \"unverified\", \
                  caller_token = { file = \"...\" } } an id, { connection_init = \"...\", prefix = \"...\" } says where one stands \
                  in the first message of a WebSocket";
    reader.problems.error(&value.span(), "a session source is of one kind").advice(advice);
    None
}

// === impl SessionSource ===

impl Describe for SessionSource {
    fn shape() -> Shape {
        Shape::Either(Box::new(Shape::Text), Box::new(HeaderSource::shape()))
    }
}

impl Read for SessionSource {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        if let DeValue::String(text) = value.get_ref() {
            return reader.text(text, &value.span()).map(Self::Word);
        }
        let HeaderSource { header, session_id_header, trust, caller_token, connection_init, prefix, reported } =
            HeaderSource::read(value, reader)?;
        let alone = header.is_absent() && session_id_header.is_absent();
        match connection_init {
            Field::Good(pointer) if alone && trust.is_absent() && caller_token.is_absent() => {
                return Some(Self::Init { pointer, prefix });
            }
            Field::Bad => return None,
            Field::Good(_) => {
                return two_kinds(value, reader);
            }
            Field::Absent if !prefix.is_absent() => return two_kinds(value, reader),
            Field::Absent => {}
        }
        match (header, session_id_header) {
            (Field::Good(header), Field::Absent) if trust.is_absent() && caller_token.is_absent() => {
                Some(Self::Header(header))
            }
            (Field::Absent, Field::Good(header)) => Some(Self::Id { header, trust, caller_token }),
            (Field::Bad, _) | (_, Field::Bad) => None,
            (Field::Good(_), _) => two_kinds(value, reader),
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
