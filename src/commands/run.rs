//! `mintgate run`: loads the configuration and serves until it is told to end.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use aws_lc_rs::rand;
use tokio::sync::Notify;

use crate::app::renewal::Renewal;
use crate::app::{self, Process};
use crate::clock::Clock;
use crate::commands::check;
use crate::commands::seal::seal;
use crate::commands::signals::Signals;
use crate::config::Config;
use crate::config::validate::{self, Environment};
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::bound::Inherited;
use crate::reload::{Seen, Source, follow};
use crate::telemetry::{self, FilterFrom};

/// Why the gateway did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Logging.
    #[error("cannot start logging")]
    Telemetry(#[from] telemetry::TelemetryError),
    /// The runtime, or signals.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] app::StartError),
    /// A stream cannot be written.
    #[error("cannot write")]
    Output(#[from] io::Error),
}

/// Serves. Diagnostics of a bad configuration go to `err`, with the exit status for one.
///
/// # Errors
/// See [`RunError`].
pub fn run(
    config: Option<&Path>,
    environment: &dyn Environment,
    colours: bool,
    err: &mut dyn Write,
) -> Result<ExitCode, RunError> {
    // Before anything secret is read.
    let sealed = seal();
    let path = match validate::locate(config, environment) {
        Ok(path) => path,
        Err(error) => return Ok(check::no_config(&error, err)?),
    };
    let source = Source { path, environment };
    let (loaded, seen) = source.load();
    let (config, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(diagnostics) => return Ok(check::refused(&source.path, &diagnostics, colours, err)?),
    };
    write!(err, "{}", warnings.render(colours))?;
    let filter = environment.var("MINTGATE_LOG").filter(|filter| !filter.is_empty());
    let from = if filter.is_some() { FilterFrom::Environment } else { FilterFrom::Config };
    let guard = telemetry::init(filter.as_deref().unwrap_or(&config.log.filter), from, config.log.format)?;
    let dropped = guard.dropped();
    // What the environment says goes before every configuration.
    let refilter: Box<dyn Fn(&str)> = if filter.is_some() { Box::new(|_| {}) } else { Box::new(guard.refilter()) };
    if let Err(error) = sealed {
        tracing::warn!(%error, "a core dump of this process could hold secrets");
    }
    gather_entropy();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let inherited = Inherited::from_environment(environment.var("LISTEN_FDNAMES").as_deref());
    let served = runtime.block_on(serve(config, Box::new(dropped), inherited, &source, seen, &refilter));
    // A file that is being read cannot be told to stop, and nobody waits for it any more.
    runtime.shutdown_background();
    drop(guard);
    served.map(|()| ExitCode::SUCCESS)
}

/// The first random number of a process costs aws-lc 50 ms of gathering entropy. Drawn here, beside the start, it does not
/// hold up the worker that shakes hands first, and with it every connection there.
fn gather_entropy() {
    let draw = || _ = rand::fill(&mut [0]);
    // Without this thread whoever draws first waits, as said.
    drop(thread::Builder::new().name("entropy".to_owned()).spawn(draw));
}

async fn serve(
    config: Config,
    dropped: app::DroppedLines,
    inherited: Inherited,
    source: &Source<'_>,
    seen: Seen,
    refilter: &dyn Fn(&str),
) -> Result<(), RunError> {
    let shutdown = Shutdown::new();
    let process = Process {
        clock: Clock::system(),
        shutdown: shutdown.clone(),
        control: Spawner::current(),
        dropped_lines: Some(dropped),
        inherited,
        in_place: false,
    };
    let asked = Arc::new(Notify::new());
    let mut signals = Signals::new().map_err(RunError::Runtime)?.reloading(Arc::clone(&asked));
    let bound = app::bind(config, process)?;
    for (name, address) in bound.listeners() {
        tracing::info!(listener = name, %address, "listening");
    }
    for address in bound.admin_listeners() {
        tracing::info!(%address, "admin listening: /readyz, /metrics");
    }
    let told = async move |mut renewal: Renewal| {
        let ledger = renewal.ledger();
        let apply = async |config: Config| {
            let filter = config.log.filter.clone();
            let kept = renewal.renew(config).await?;
            refilter(&filter);
            Ok(kept)
        };
        tokio::select! {
            () = follow(source, seen, &asked, ledger.common(), apply) => {}
            () = signals.next() => {}
        }
        tracing::info!("told to end; a second signal ends at once");
        drop(Spawner::current().spawn(async move {
            signals.next().await;
            shutdown.stop();
        }));
    };
    Ok(bound.run_renewable(told).await?)
}
