//! Out of the text of a file, the configuration that the gateway runs on, or everything that is wrong with it.
//!
//! The document is parsed, then read into raw tables with positions, then each section is checked by a file of
//! its own. Only this layer reads the outside: the file, the environment, and the files that secrets are kept in.

pub(crate) mod clerk;
pub(crate) mod connection_init;
pub(crate) mod context;
pub(crate) mod diagnostics;
pub(crate) mod guards;
pub(crate) mod headers;
pub(crate) mod inject;
pub(crate) mod keys;
pub(crate) mod listen;
pub(crate) mod names;
pub(crate) mod net;
pub(crate) mod retry;
pub(crate) mod routes;
pub(crate) mod server;
pub(crate) mod session_id;
pub(crate) mod shared;
pub(crate) mod traces;
pub(crate) mod units;
pub(crate) mod upstream_tls;
pub(crate) mod upstreams;
pub(crate) mod ways;
pub(crate) mod websocket;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::config::Config;
use crate::config::raw;
use crate::config::raw::problem::{Problems, after_secret_keys};

use self::context::Context;

pub use self::context::{Environment, Process, Secrets};
pub use self::diagnostics::Diagnostics;

/// Syntax errors that are shown: the later ones are mostly echoes of the first.
const SYNTAX_ERRORS: usize = 10;

/// Where a configuration is looked for when nothing names one.
const USUAL: [&str; 2] = ["./mintgate.toml", "/etc/mintgate/mintgate.toml"];

/// There is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no configuration: --config and MINTGATE_CONFIG name none, and there is no {}",
    .looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and no ")
)]
pub struct NoConfig {
    /// The files that were looked for.
    pub looked_at: Vec<PathBuf>,
}

/// The configuration file: `--config`, else `MINTGATE_CONFIG`, else `./mintgate.toml`, else
/// `/etc/mintgate/mintgate.toml`.
///
/// # Errors
/// When nothing names one and there is none in the usual places. A named one is not looked at: what is wrong with it is
/// said by [`load`].
pub fn locate(flag: Option<&Path>, environment: &dyn Environment) -> Result<PathBuf, NoConfig> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = environment.var("MINTGATE_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let usual = USUAL.map(PathBuf::from);
    let found = usual.iter().find(|path| environment.exists(path)).cloned();
    found.ok_or_else(|| NoConfig { looked_at: usual.to_vec() })
}

/// Reads a configuration file. Beside the configuration come the warnings.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(
    path: &Path,
    environment: &dyn Environment,
    secrets: Secrets,
) -> Result<(Config, Diagnostics), Diagnostics> {
    let unreadable = |title: String| {
        let mut problems = Problems::default();
        problems.general(title);
        Diagnostics::new(path, "", problems)
    };
    let bytes = environment.read(path).map_err(|error| unreadable(format!("cannot read the file: {error}")))?;
    let source = String::from_utf8(bytes).map_err(|_| unreadable("the file is not UTF-8 text".to_owned()))?;
    parse(&source, path, environment, secrets)
}

/// Reads a configuration out of a text. The path is shown, and relative paths in the text are relative to its
/// directory; it is not read.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(
    source: &str,
    path: &Path,
    environment: &dyn Environment,
    secrets: Secrets,
) -> Result<(Config, Diagnostics), Diagnostics> {
    let (document, syntax) = DeTable::parse_recoverable(source);
    if !syntax.is_empty() {
        return Err(Diagnostics::new(path, source, syntax_problems(source, &syntax)));
    }
    let var = |name: &str| environment.var(name);
    let (file, problems) = raw::read(document.get_ref(), &var);
    let base = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let mut cx = Context { problems, environment, secrets, base };
    let config = config(file, &mut cx);
    let broken = cx.problems.has_errors();
    let diagnostics = Diagnostics::new(path, source, cx.problems);
    if broken { Err(diagnostics) } else { Ok((config, diagnostics)) }
}

fn config(file: raw::File, cx: &mut Context<'_>) -> Config {
    let clerk = clerk::read(file.clerk.or_default(), cx);
    let server = server::server(&file.server.or_default(), cx);
    let admin = server::admin(file.admin, &server.listen, cx);
    let raw_cache = file.cache.or_default();
    let mut ways = ways::Ways::beside(&server, admin.as_ref());
    let authz = ways.authz(&file.authz, cx);
    let token_api = ways.token_api(&file.token_api, clerk.secret_keys(), cx);
    let webhooks = ways.webhooks(&file.webhooks, !raw_cache.shared.is_absent(), cx);
    let log = server::log(&file.log.or_default(), cx);
    let traces = traces::read(file.traces, cx);
    let (cache, shared) = (server::cache(&raw_cache, cx), shared::read(&raw_cache.shared, cx));
    let mut upstreams = upstreams::read(file.upstreams.or_default(), cx);
    if file.routes.is_absent() && file.token_api.is_absent() && file.webhooks.is_absent() {
        cx.problems.general("there is no route").advice("add [[routes]] with a name and an upstream");
    }
    let mut routes = routes::read(file.routes, &server.listen, !file.authz.is_absent(), &clerk, &mut upstreams, cx);
    routes.needs.mint = routes.needs.mint.or(ways.mint);
    let clerk = clerk.finish(&routes.needs, cx);
    let (upstreams, minted, routes) = (upstreams.into_list(), routes.minted, routes.list);
    Config { clerk, server, admin, authz, token_api, webhooks, log, traces, cache, shared, upstreams, routes, minted }
}

/// What the parser says. Nothing is known about the parts of such a file, so whatever may be a secret is hidden.
fn syntax_problems(source: &str, errors: &[toml::de::Error]) -> Problems {
    let mut problems = Problems::default();
    for error in errors.iter().take(SYNTAX_ERRORS) {
        let title = error.message().to_owned();
        match error.span() {
            Some(span) => problems.error(&span, title),
            None => problems.general(title),
        };
    }
    problems.hidden = after_secret_keys(source);
    problems
}

#[cfg(test)]
mod tests;
