//! `mintgate explain`: what would become of a request, by the very code that serves requests, without sending it.

mod carried;
mod credential;
mod follow;
mod judge;
mod report;
mod websocket;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Uri};

use crate::address::ListenAddress;
use crate::commands::check;
use crate::commands::console::Console;
use crate::commands::handed::Handed;
use crate::config::Listen;
use crate::config::validate::{self, Environment, Secrets};
use crate::secret::Secret;

use self::judge::{Asked, JudgeError};

/// The exit status for a command line that cannot be followed, as clap has it.
const BAD_USAGE: u8 = 2;
/// The exit status when the request would be refused.
const REFUSED: u8 = 1;
/// The exit status when nothing can be said (`EX_UNAVAILABLE` of sysexits.h).
pub const UNJUDGED: u8 = 69;

/// Says what would become of a request: its route, its session, what leaves it and what is put into it.
///
/// Nothing is sent, no token is minted and none is printed. Exit status: 0 it would be forwarded, 1 it would be refused,
/// 69 nothing can be said (as when --online finds no keys), 64 bad configuration, 2 bad command line.
#[derive(Debug, clap::Args)]
pub struct Args {
    // What may hold a secret is read by `Typed::read`: an error of clap's would show it.
    /// The request's method.
    #[arg(value_parser = unread)]
    method: Secret,
    /// Its URL, or a path for any host; ws:// and wss:// stand for a WebSocket handshake.
    #[arg(value_parser = unread)]
    url: Secret,
    /// A header of the request, "Name: value"; may be repeated.
    #[arg(long, value_name = "HEADER", value_parser = unread)]
    header: Vec<Secret>,
    /// A session token, put where the route looks for one first: the token, - (standard input), @FILE or env:NAME.
    #[arg(long, value_name = "TOKEN", value_parser = unread)]
    token: Option<Secret>,
    /// The listener that it comes through, by its name; by default the first.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Fetch the issuer's keys, to check the signature where no clerk.jwt_key is configured.
    #[arg(long)]
    online: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The configuration; else $MINTGATE_CONFIG, ./mintgate.toml, /etc/mintgate/mintgate.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Variables for the configuration, as in .env.local; the environment's own go before them.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// What the arguments say.
struct Typed {
    method: Method,
    url: Wanted,
    lines: Vec<Line>,
    token: Option<Secret>,
}

/// What the request asks for.
#[derive(Debug, Clone)]
struct Wanted {
    host: Option<HeaderValue>,
    target: PathAndQuery,
    /// The scheme says so.
    websocket: bool,
}

/// A header line.
#[derive(Debug, Clone)]
struct Line(HeaderName, HeaderValue);

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The judgement.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The report does not become JSON.
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    /// A stream cannot be written.
    #[error("cannot write")]
    Output(#[from] io::Error),
}

/// The text does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum BadArgument {
    #[error("METHOD is not a method (GET)")]
    Method,
    #[error("URL is neither a URL (https://host/path) nor a path (/path); a secret in it is not shown")]
    Url,
    #[error("--header is not a header (\"Name: value\"); it is not shown, since it may hold a secret")]
    Header,
    #[error("--token: {0}")]
    Token(String),
}

// === impl Args ===

impl Args {
    /// `--env-file`
    pub fn env_file(&self) -> Option<&Path> {
        self.env_file.as_deref()
    }
}

/// Prints the report to `out`, and what is wrong with the configuration or the arguments to `err`.
///
/// # Errors
/// See [`ExplainError`].
pub fn run(args: &Args, environment: &dyn Environment, to: &mut Console<'_>) -> Result<ExitCode, ExplainError> {
    let path = match validate::locate(args.config.as_deref(), environment) {
        Ok(path) => path,
        Err(error) => return Ok(check::no_config(&error, to.err)?),
    };
    let config = match validate::load(&path, environment, Secrets::Replaced) {
        Ok((config, _)) => config,
        Err(diagnostics) => return Ok(check::refused(&path, &diagnostics, to.err_colours, to.err)?),
    };
    let mut listeners = config.server.listen.iter();
    // A configuration has at least one.
    let named = args.listener.as_ref();
    let Some(listener) = listeners.find(|listener| named.is_none_or(|name| *name == listener.name)) else {
        writeln!(to.err, "error: --listener: the configuration has no listener of this name")?;
        return Ok(ExitCode::from(BAD_USAGE));
    };
    let typed = match Typed::read(args, environment) {
        Ok(typed) => typed,
        Err(problem) => {
            writeln!(to.err, "error: {problem}")?;
            return Ok(ExitCode::from(BAD_USAGE));
        }
    };
    let asked = Asked {
        headers: headers(&typed, listener),
        method: typed.method,
        target: typed.url.target,
        listener: listener.clone(),
        token: typed.token,
        online: args.online,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ExplainError::Runtime)?;
    let report = runtime.block_on(judge::judge(&config, asked))?;
    let written = if args.json {
        let json = serde_json::to_string_pretty(&report)?;
        writeln!(to.out, "{json}")
    } else {
        report.write(to.out, to.out_colours)
    };
    // Whoever reads the first lines alone, as `head` does, has what it wants.
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
    Ok(if report.is_forwarded() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// The lines of the command, and what they lack: `Host`, and of a WebSocket's URL the handshake.
fn headers(typed: &Typed, listener: &Listen) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for Line(name, value) in &typed.lines {
        headers.append(name.clone(), value.clone());
    }
    if typed.url.websocket {
        for (name, value) in [
            (header::CONNECTION, "Upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            // Any sixteen bytes.
            (header::SEC_WEBSOCKET_KEY, "AAAAAAAAAAAAAAAAAAAAAA=="),
        ] {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
    }
    if !headers.contains_key(header::HOST) {
        let usual = match &listener.address {
            ListenAddress::Tcp(address) => HeaderValue::try_from(address.to_string()).ok(),
            ListenAddress::Unix(_) | ListenAddress::Systemd(_) => Some(HeaderValue::from_static("localhost")),
        };
        let named = typed.url.host.clone().or(usual);
        headers.extend(named.map(|host| (header::HOST, host)));
    }
    headers
}

/// Takes an argument as it is.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser that may fail")]
fn unread(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

// === impl Typed, Wanted, Line ===

impl Typed {
    /// What the arguments say. The error never shows one.
    fn read(args: &Args, environment: &dyn Environment) -> Result<Self, BadArgument> {
        let method = Method::from_bytes(args.method.expose().as_bytes()).map_err(|_| BadArgument::Method)?;
        let url = args.url.expose().parse()?;
        let lines = args.header.iter().map(|line| line.expose().parse()).collect::<Result<_, _>>()?;
        let from = args.token.as_ref().map(|from| Handed::new(from.expose()));
        let token = from.map(|from| from.read(environment)).transpose().map_err(BadArgument::Token)?;
        Ok(Self { method, url, lines, token })
    }
}

impl FromStr for Wanted {
    type Err = BadArgument;

    fn from_str(text: &str) -> Result<Self, BadArgument> {
        let bad = |_| BadArgument::Url;
        if text.starts_with('/') {
            // Not by `Uri`, which takes `//a/b` for an authority.
            return Ok(Self { host: None, target: text.parse().map_err(bad)?, websocket: false });
        }
        let uri: Uri = text.parse().map_err(bad)?;
        let (Some(scheme @ ("http" | "https" | "ws" | "wss")), Some(authority)) = (uri.scheme_str(), uri.authority())
        else {
            return Err(BadArgument::Url);
        };
        // No client sends the user info (RFC 9110 section 4.2.4).
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::try_from(host).map_err(|_| BadArgument::Url)?;
        let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        Ok(Self { host: Some(host), target, websocket: scheme.starts_with("ws") })
    }
}

impl FromStr for Line {
    type Err = BadArgument;

    fn from_str(text: &str) -> Result<Self, BadArgument> {
        let (name, value) = text.split_once(':').ok_or(BadArgument::Header)?;
        let name = HeaderName::from_str(name.trim()).map_err(|_| BadArgument::Header)?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| BadArgument::Header)?;
        value.set_sensitive(true);
        Ok(Self(name, value))
    }
}
