//! `mintgate health` and `mintgate wait`: ask a running gateway whether it is ready, for images without a shell.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;

use crate::commands::check::{self, BAD_CONFIG};
use crate::commands::door::{Door, Unanswered};
use crate::config::validate::Environment;

/// Between two questions.
const AGAIN: Duration = Duration::from_millis(100);

/// Where to ask.
#[derive(Debug, Clone, clap::Args)]
pub struct Where {
    /// The admin listener: http://127.0.0.1:6469 or unix:/path; by default the one that the configuration names.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<Door>,
    /// The configuration; else $MINTGATE_CONFIG, ./mintgate.toml, /etc/mintgate/mintgate.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `mintgate wait`
#[derive(Debug, clap::Args)]
pub struct Wait {
    #[command(flatten)]
    at: Where,
    /// How long to wait at most.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Why a gateway is not ready.
#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("{status}: {reason}")]
    Told { status: StatusCode, reason: String },
}

/// Asks once: exit status 0 when requests should be sent to the gateway, else 1.
///
/// # Errors
/// When the runtime cannot start or a stream cannot be written.
pub fn health(at: &Where, environment: &dyn Environment, err: &mut dyn Write) -> Result<ExitCode, Box<dyn Error>> {
    let Some(door) = find(at, environment, err)? else { return Ok(ExitCode::from(BAD_CONFIG)) };
    block_on(async move {
        match ask(&door).await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => refused("not ready", &error, err),
        }
    })
}

/// Asks until the gateway is ready: exit status 0, or 1 when that takes too long.
///
/// # Errors
/// When the runtime cannot start or a stream cannot be written.
pub fn wait(args: &Wait, environment: &dyn Environment, err: &mut dyn Write) -> Result<ExitCode, Box<dyn Error>> {
    let Some(door) = find(&args.at, environment, err)? else { return Ok(ExitCode::from(BAD_CONFIG)) };
    let timeout = args.timeout;
    block_on(async move {
        let end = Instant::now() + timeout;
        loop {
            match ask(&door).await {
                Ok(()) => return Ok(ExitCode::SUCCESS),
                Err(error) if Instant::now() + AGAIN >= end => {
                    let waited = format!("not ready after {}", humantime::format_duration(timeout));
                    return refused(&waited, &error, err);
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    })
}

fn block_on(ask: impl Future<Output = Result<ExitCode, Box<dyn Error>>>) -> Result<ExitCode, Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask)
}

fn refused(what: &str, error: &NotReady, err: &mut dyn Write) -> Result<ExitCode, Box<dyn Error>> {
    writeln!(err, "{what}: {}", crate::telemetry::chain(error))?;
    Ok(ExitCode::FAILURE)
}

/// The address as it was given, or the one of the configuration; nothing when that is told to be impossible.
fn find(at: &Where, environment: &dyn Environment, err: &mut dyn Write) -> io::Result<Option<Door>> {
    if let Some(door) = &at.url {
        return Ok(Some(door.clone()));
    }
    let Ok((path, config)) = check::configured(at.config.as_deref(), environment, err)? else { return Ok(None) };
    let door = config.admin.as_ref().map(|admin| Door::of(&admin.listen));
    match door {
        Some(Some(door)) => return Ok(Some(door)),
        Some(None) => writeln!(err, "error: systemd holds the admin listener's socket: name its address with --url")?,
        None => writeln!(err, "error: {}: there is no [admin] section, so nobody can be asked", path.display())?,
    }
    Ok(None)
}

async fn ask(door: &Door) -> Result<(), NotReady> {
    match door.ask(Request::new(Full::default()), "/readyz").await? {
        (StatusCode::OK, _) => Ok(()),
        (status, reason) => Err(NotReady::Told { status, reason }),
    }
}
