//! `mintgate token`: signs a user of a development instance in and prints a session token, to try a gateway with.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use http::StatusCode;

use crate::clock::Clock;
use crate::config::Clerk;
use crate::config::validate::{self, Environment, Secrets};
use crate::lifecycle::Spawner;
use crate::metrics::{Metrics, Names};
use crate::secret::Secret;
use crate::token::clerk::instance::InstanceError;
use crate::token::clerk::{BuildError, ClerkClient};

use super::check;
use super::console::Console;

/// Signs a user in and prints a session token, which lives for a minute.
///
/// The secret key is that of the configuration, else $CLERK_SECRET_KEY; a production instance's is refused. Each call begins a
/// session of its own, which stands in Clerk's dashboard.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user's id: user_...
    #[arg(long, value_name = "ID")]
    user: String,
    /// The organization that is active in the session: org_...
    #[arg(long, value_name = "ID")]
    org: Option<String>,
    /// The configuration; else $MINTGATE_CONFIG, ./mintgate.toml, /etc/mintgate/mintgate.toml; none is needed.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Variables for the configuration, as in .env.local; the environment's own go before them.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No key.
    #[error(
        "no secret key: neither the configuration nor the variable CLERK_SECRET_KEY has one (--env-file .env.local?)"
    )]
    NoKey,
    /// The key of an instance whose users are real.
    #[error(
        "the secret key is not one of a development instance (sk_test_...): Clerk begins no session for a user of a \
         production instance, and nobody should try with one"
    )]
    Production,
    /// 404.
    #[error("the instance has no such user, or organization")]
    NoUser,
    /// Clerk did not do it.
    #[error("cannot get a session token")]
    Instance(#[source] InstanceError),
    /// The issuer's client.
    #[error("cannot ask the issuer")]
    Client(#[from] BuildError),
    /// `CLERK_API_URL` is no URL.
    #[error("the variable CLERK_API_URL is not an https URL (http for loopback addresses alone)")]
    ApiUrl,
    /// The runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// A stream cannot be written.
    #[error("cannot write")]
    Output(#[from] io::Error),
}

// === impl Args ===

impl Args {
    /// `--env-file`
    pub fn env_file(&self) -> Option<&Path> {
        self.env_file.as_deref()
    }
}

/// Prints the token alone to `out`, so that a shell can put it into a header.
///
/// # Errors
/// See [`TokenError`].
pub fn run(args: &Args, environment: &dyn Environment, to: &mut Console<'_>) -> Result<ExitCode, TokenError> {
    let clerk = match validate::locate(args.config.as_deref(), environment) {
        Ok(path) => match validate::load(&path, environment, Secrets::Optional) {
            Ok((config, _)) => config.clerk,
            Err(diagnostics) => return Ok(check::refused(&path, &diagnostics, to.err_colours, to.err)?),
        },
        Err(_) => without_configuration(environment)?,
    };
    let key = clerk.secret_keys.first().cloned();
    let key = key.or_else(|| environment.var("CLERK_SECRET_KEY").filter(|key| !key.is_empty()).map(Secret::new));
    let key = key.ok_or(TokenError::NoKey)?;
    if !key.expose().starts_with("sk_test_") {
        return Err(TokenError::Production);
    }
    let clerk = Clerk { secret_keys: vec![key], ..clerk };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TokenError::Runtime)?;
    let token = runtime.block_on(token(&clerk, args))?;
    writeln!(to.out, "{}", token.expose())?;
    if to.out_colours && to.err_colours {
        writeln!(to.err, "It lives for a minute: curl ... -H \"Authorization: Bearer $(mintgate token --user ID)\"")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn token(clerk: &Clerk, args: &Args) -> Result<Secret, TokenError> {
    let metrics = Arc::new(Metrics::new(Names::default()));
    let client = ClerkClient::new(clerk, Clock::system(), Spawner::current(), metrics)?;
    let failed = |error| match error {
        InstanceError::Refused { status: StatusCode::NOT_FOUND, .. } => TokenError::NoUser,
        error => TokenError::Instance(error),
    };
    let session = client.begin_session(&args.user, args.org.as_deref()).await.map_err(failed)?;
    client.session_token(&session).await.map_err(TokenError::Instance)
}

/// Clerk as it is without a configuration; `CLERK_API_URL` as Clerk's own SDKs read it.
fn without_configuration(environment: &dyn Environment) -> Result<Clerk, TokenError> {
    // The defaults are the validation's: it reads a configuration in which nothing needs Clerk.
    const LEAST: &str = "[[routes]]\nname = \"none-here\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n";
    let api_url = environment.var("CLERK_API_URL").filter(|url| !url.is_empty());
    let text = match &api_url {
        Some(url) => format!("[clerk]\napi_url = {}\n{LEAST}", serde_json::Value::from(url.as_str())),
        None => LEAST.to_owned(),
    };
    let parsed = validate::parse(&text, Path::new("mintgate.toml"), environment, Secrets::Optional);
    parsed.map(|(config, _)| config.clerk).map_err(|_| TokenError::ApiUrl)
}
