//! `mintgate run`: loads the configuration and serves until it is told to end.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::sync::Notify;

use crate::app::renewal::Renewal;
use crate::app::surfaces::Kind;
use crate::app::{self, Process};
use crate::clock::Clock;
use crate::commands::check;
use crate::commands::seal::seal;
use crate::commands::signals::Signals;
use crate::config::Config;
use crate::config::validate::{self, Environment};
use crate::control::{Levers, SetFilter};
use crate::lifecycle::{Readiness, Shutdown, Spawner};
use crate::listener::bound::Inherited;
use crate::manager::Manager;
use crate::reload::{Seen, Source, follow};
use crate::server::Pulse;
use crate::telemetry::{self, FilterFrom};

/// How long the service manager is not told "ready" for want of the issuer's keys.
const KEYS_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at whether requests can be served.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How the log filter changes while the process runs.
struct Filters {
    set: SetFilter,
    /// Whether the configuration says which: what the environment says goes before every configuration.
    followed: bool,
}

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
    let set = Arc::new(guard.refilter());
    let filters = Filters { set, followed: filter.is_none() };
    if let Err(error) = sealed {
        tracing::warn!(%error, "a core dump of this process could hold secrets");
    }
    gather_entropy();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let inherited = Inherited::from_environment(environment.var("LISTEN_FDNAMES").as_deref());
    let served = runtime.block_on(serve(config, Box::new(dropped), inherited, &source, seen, filters));
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
    filters: Filters,
) -> Result<(), RunError> {
    let (shutdown, quit) = (Shutdown::new(), Arc::new(Notify::new()));
    let process = Process {
        clock: Clock::system(),
        shutdown: shutdown.clone(),
        control: Spawner::current(),
        dropped_lines: Some(dropped),
        inherited,
        levers: Some(Levers { quit: Arc::clone(&quit), filter: filters.set.clone() }),
        in_place: false,
    };
    let asked = Arc::new(Notify::new());
    let mut signals = Signals::new().map_err(RunError::Runtime)?.reloading(Arc::clone(&asked));
    let mut filter = config.log.filter.clone();
    let bound = app::bind(config, process)?;
    for (name, address) in bound.listeners() {
        tracing::info!(listener = name, %address, "listening");
    }
    for address in bound.authz_listeners() {
        tracing::info!(%address, "authz listening");
    }
    for (kind, what) in [
        (Kind::Admin, "admin listening: the status page, /readyz, /metrics"),
        (Kind::Control, "control listening: POST /revoke, /purge, /log, /quit"),
        (Kind::TokenApi, "token API listening"),
        (Kind::Webhooks, "webhooks listening"),
    ] {
        for address in bound.surfaces(kind) {
            tracing::info!(%address, "{what}");
        }
    }
    let told = async move |mut renewal: Renewal| {
        let (ledger, tasks) = (renewal.ledger(), Spawner::current());
        let (readiness, pulse) = (renewal.readiness(), renewal.pulse());
        drop(tasks.spawn(keep_watchdog(pulse)));
        let apply = async |config: Config| {
            let wanted = config.log.filter.clone();
            let kept = renewal.renew(config).await?;
            // One that was set through the control listener stays while the configuration does not say another.
            if filters.followed && wanted != filter {
                if let Err(error) = (filters.set)(&wanted) {
                    tracing::error!(%error, "the log filter stays as it is");
                }
                filter = wanted;
            }
            Ok(kept)
        };
        // Together: where the keys do not come because a file says the wrong thing, its correction is not waited out.
        let serving = async {
            tokio::join!(tell_when_ready(&readiness), follow(source, seen, &asked, ledger.common(), Manager, apply))
        };
        tokio::select! {
            _ = serving => {}
            () = signals.next() => {}
            () = quit.notified() => {}
        }
        Manager.stopping();
        tracing::info!("told to end; a second signal ends at once");
        drop(tasks.spawn(async move {
            signals.next().await;
            shutdown.stop();
        }));
    };
    // Big, and once in the life of a process.
    Ok(Box::pin(bound.run_renewable(told)).await?)
}

/// A process whose workers do not turn is not alive, whatever this thread does.
async fn keep_watchdog(pulse: Pulse) {
    let Some(every) = Manager.watchdog() else { return };
    loop {
        if pulse.beats(every).await {
            Manager.alive();
        } else {
            tracing::error!("a worker does not turn: the watchdog is not told that this process is alive");
        }
        tokio::time::sleep(every).await;
    }
}

/// An issuer that does not answer holds up no start of other services for longer than [`KEYS_PATIENCE`]: what needs no key is
/// served already.
async fn tell_when_ready(readiness: &Readiness) {
    let ready = async {
        while readiness.ready().is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(KEYS_PATIENCE, ready).await {
        Ok(()) => Manager.ready("serving"),
        Err(_) => Manager.ready("serving what needs no session: the issuer's keys have not come yet"),
    }
}
