//! `mintgate revoke` and `mintgate purge`: tell a gateway that runs, for images without a shell.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;

use crate::commands::check::{self, BAD_CONFIG};
use crate::commands::console::Console;
use crate::commands::door::Door;
use crate::commands::handed::Handed;
use crate::config::validate::Environment;
use crate::secret::Secret;
use crate::telemetry::chain;

/// Refuses a session, or a user with every session, for seven days or until the gateway is started anew; forgets the tokens
/// and closes the WebSockets. Nothing is told to Clerk.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    #[command(flatten)]
    whose: OneOf,
    #[command(flatten)]
    at: Where,
}

/// Forgets minted tokens, so that the next request has one minted; nobody is refused.
#[derive(Debug, clap::Args)]
pub struct Purge {
    #[command(flatten)]
    whose: OneOfOrAll,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct OneOf {
    /// A session: sess_...
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// A user: user_...
    #[arg(long, value_name = "ID")]
    user: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct OneOfOrAll {
    /// A session: sess_...
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// A user: user_...
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Every token.
    #[arg(long)]
    all: bool,
}

/// Which gateway.
#[derive(Debug, clap::Args)]
struct Where {
    /// The control listener: http://127.0.0.1:6472 or unix:/path; by default the one that the configuration names.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<Door>,
    /// What it asks for on TCP, where --url names it: - (standard input), @FILE or env:NAME.
    #[arg(long, value_name = "TOKEN", requires = "url")]
    token: Option<String>,
    /// The configuration, which has address and token; else $MINTGATE_CONFIG, ./mintgate.toml, /etc/mintgate/mintgate.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Variables for the configuration, as in .env.local; the environment's own go before them.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// Where to ask, and what to show.
struct Found {
    door: Door,
    token: Option<Secret>,
}

/// Why there is no token to show.
#[derive(Debug, thiserror::Error)]
enum NoToken {
    #[error("--token takes - (standard input), @FILE or env:NAME, never the token itself")]
    Bare,
    #[error("--token: {0}")]
    Unreadable(String),
    #[error("the token cannot stand in a header")]
    Unfit,
}

// === impl Revoke, Purge ===

impl Revoke {
    /// The file of variables.
    pub fn env_file(&self) -> Option<&std::path::Path> {
        self.at.env_file.as_deref()
    }

    /// Asks once: exit status 0 when it was done, else 1.
    ///
    /// # Errors
    /// When the runtime cannot start or a stream cannot be written.
    pub fn run(&self, environment: &dyn Environment, to: &mut Console<'_>) -> Result<ExitCode, Box<dyn Error>> {
        let OneOf { session, user } = &self.whose;
        self.at.post("/revoke", said(session.as_deref(), user.as_deref()), environment, to)
    }
}

impl Purge {
    /// The file of variables.
    pub fn env_file(&self) -> Option<&std::path::Path> {
        self.at.env_file.as_deref()
    }

    /// Asks once: exit status 0 when it was done, else 1.
    ///
    /// # Errors
    /// When the runtime cannot start or a stream cannot be written.
    pub fn run(&self, environment: &dyn Environment, to: &mut Console<'_>) -> Result<ExitCode, Box<dyn Error>> {
        let OneOfOrAll { session, user, .. } = &self.whose;
        self.at.post("/purge", said(session.as_deref(), user.as_deref()), environment, to)
    }
}

/// The body that says whose; the command line has made sure that there is one.
fn said(session: Option<&str>, user: Option<&str>) -> String {
    match (session, user) {
        (Some(session), _) => format!("session={session}"),
        (None, Some(user)) => format!("user={user}"),
        (None, None) => "all".to_owned(),
    }
}

// === impl Where ===

impl Where {
    fn post(
        &self,
        path: &'static str,
        body: String,
        environment: &dyn Environment,
        to: &mut Console<'_>,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let found = match self.find(environment, to)? {
            Ok(found) => found,
            Err(code) => return Ok(code),
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        if let Some(token) = &found.token {
            match token.header("Bearer ") {
                Ok(shown) => drop(request.headers_mut().insert(header::AUTHORIZATION, shown)),
                Err(_) => return refused(&NoToken::Unfit, to),
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(found.door.ask(request, path)) {
            Ok((StatusCode::OK, said)) => {
                writeln!(to.out, "{said}")?;
                Ok(ExitCode::SUCCESS)
            }
            Ok((status, said)) => {
                writeln!(to.err, "error: {status}: {said}")?;
                Ok(ExitCode::FAILURE)
            }
            Err(error) => refused(&error, to),
        }
    }

    /// The address and the token as they were given, or those of the configuration. The exit status, where it was told that
    /// they are not there.
    fn find(&self, environment: &dyn Environment, to: &mut Console<'_>) -> io::Result<Result<Found, ExitCode>> {
        if let Some(door) = &self.url {
            let token = match self.token.as_deref().map(|text| given(text, environment)).transpose() {
                Ok(token) => token,
                Err(error) => {
                    writeln!(to.err, "error: {}", chain(&error))?;
                    return Ok(Err(ExitCode::from(BAD_CONFIG)));
                }
            };
            return Ok(Ok(Found { door: door.clone(), token }));
        }
        let (path, config) = match check::configured(self.config.as_deref(), environment, to.err)? {
            Ok(found) => found,
            Err(code) => return Ok(Err(code)),
        };
        let Some(control) = config.admin.and_then(|admin| admin.control) else {
            let problem = "there is no `control` in [admin], so nobody can be told";
            writeln!(to.err, "error: {}: {problem}", path.display())?;
            return Ok(Err(ExitCode::from(BAD_CONFIG)));
        };
        let Some(door) = Door::of(&control.listen) else {
            writeln!(to.err, "error: systemd holds the control listener's socket: name its address with --url")?;
            return Ok(Err(ExitCode::from(BAD_CONFIG)));
        };
        if matches!(door, Door::Tcp(_)) && control.token.is_none() {
            writeln!(to.err, "error: the secret of `admin.token` is not here, and the control listener asks for it")?;
            return Ok(Err(ExitCode::from(BAD_CONFIG)));
        }
        Ok(Ok(Found { door, token: control.token }))
    }
}

fn given(text: &str, environment: &dyn Environment) -> Result<Secret, NoToken> {
    match Handed::new(text) {
        Handed::Here(_) => Err(NoToken::Bare),
        handed => handed.read(environment).map_err(NoToken::Unreadable),
    }
}

fn refused(error: &(dyn Error + 'static), to: &mut Console<'_>) -> Result<ExitCode, Box<dyn Error>> {
    writeln!(to.err, "error: {}", chain(error))?;
    Ok(ExitCode::FAILURE)
}
