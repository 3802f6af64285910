//! `mintgate dev`: the gateway, a Clerk emulator and an echo upstream in one process, without account or configuration.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use axum::Router;

use crate::app::{self, Process};
use crate::clock::Clock;
use crate::commands::signals::Signals;
use crate::config::validate::{self, Diagnostics, Environment, Secrets};
use crate::emulator::keys::CryptoError;
use crate::emulator::{Emulator, Options, base_url, echo};
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::bound::Inherited;
use crate::surface::Surface;
use crate::telemetry::{self, FilterFrom, LogFormat};

/// Where everything listens unless the port is taken.
const GATEWAY: u16 = 6468;
const ADMIN: u16 = 6469;
const EMULATOR: u16 = 6470;
const ECHO: u16 = 6471;

/// The origin of an application that does not exist: session tokens are issued to it.
const PARTY: &str = "http://localhost:3000";

/// Why `dev` did not run.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Logging.
    #[error("cannot start logging")]
    Telemetry(#[from] telemetry::TelemetryError),
    /// The runtime, or signals.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The machine has no randomness.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// No port is free on loopback.
    #[error("cannot listen on loopback")]
    Bind(#[source] io::Error),
    /// The configuration that `dev` makes for itself is refused.
    #[error("dev's own configuration is refused: {0}")]
    Config(String),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] app::StartError),
    /// The output is gone.
    #[error("cannot write to the output")]
    Output(#[from] io::Error),
}

/// The environment with the emulator's secret key in it.
struct WithKey<'a> {
    environment: &'a dyn Environment,
    secret_key: String,
}

/// Serves until a signal. What runs where, and a line to paste, goes to `out` when all of it is ready.
///
/// # Errors
/// See [`DevError`].
pub fn run(environment: &dyn Environment, out: &mut (dyn Write + Send)) -> Result<(), DevError> {
    let filter = environment.var("MINTGATE_LOG").filter(|filter| !filter.is_empty());
    let _guard = telemetry::init(filter.as_deref().unwrap_or("info"), FilterFrom::Environment, LogFormat::Auto)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DevError::Runtime)?;
    runtime.block_on(serve(environment, out))
}

async fn serve(environment: &dyn Environment, out: &mut (dyn Write + Send)) -> Result<(), DevError> {
    let (clock, shutdown, control) = (Clock::system(), Shutdown::new(), Spawner::current());
    let mut signals = Signals::new().map_err(DevError::Runtime)?;
    let options = Options { authorized_party: Some(PARTY.to_owned()), ..Options::default() };
    let emulator = Emulator::new(options, clock.clone())?;
    let mut moved = Vec::new();
    let clerk = surface(EMULATOR, emulator.router(), &mut moved)?;
    let upstream = surface(ECHO, echo::router(), &mut moved)?;
    let (gateway, admin) = (free(GATEWAY, &mut moved)?, free(ADMIN, &mut moved)?);
    let text = config(&emulator, clerk.address(), upstream.address(), gateway, admin);
    let with_key = WithKey { environment, secret_key: emulator.secret_key().expose().to_owned() };
    let parsed = validate::parse(&text, Path::new("dev.toml"), &with_key, Secrets::Required);
    let (config, _) = parsed.map_err(|problems: Diagnostics| DevError::Config(problems.render(false)))?;
    let process = Process {
        clock,
        shutdown: shutdown.clone(),
        control: control.clone(),
        dropped_lines: None,
        inherited: Inherited::default(),
        in_place: false,
    };
    let bound = app::bind(config, process)?;
    let (gateway, admin) = (bound.address().unwrap_or(gateway), bound.admin());
    let ready = bound.readiness().clone();
    let (clerk_at, echo_at) = (clerk.address(), upstream.address());
    for surface in [clerk, upstream] {
        let (tasks, shutdown, until) = (control.sibling(), shutdown.clone(), shutdown.stopped());
        drop(control.spawn(async move {
            if let Err(error) = surface.run(tasks, shutdown, until).await {
                tracing::error!(%error, "a part of dev has ended");
            }
        }));
    }
    let told = async {
        // The line works from the moment on that it is printed.
        while ready.ready().is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let told = tell(out, &moved, &emulator, [gateway, clerk_at, echo_at], admin);
        if let Err(error) = told.and_then(|()| out.flush()) {
            tracing::error!(%error, "cannot write to the output");
        }
        signals.next().await;
        let shutdown = shutdown.clone();
        drop(control.spawn(async move {
            signals.next().await;
            shutdown.stop();
        }));
    };
    Ok(bound.run(told).await?)
}

/// A surface on its usual port, or on a free one when that is taken.
fn surface(port: u16, router: Router, moved: &mut Vec<u16>) -> Result<Surface, DevError> {
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match Surface::bind(at(port), router.clone()) {
        Ok(surface) => Ok(surface),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            moved.push(port);
            Surface::bind(at(0), router).map_err(DevError::Bind)
        }
        Err(error) => Err(DevError::Bind(error)),
    }
}

/// The usual port, or 0 when it is taken. Whoever takes it in between makes the start fail, and says so.
fn free(port: u16, moved: &mut Vec<u16>) -> Result<SocketAddr, DevError> {
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match crate::listener::bound::Bound::tcp(at(port)) {
        Ok(_) => Ok(at(port)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            moved.push(port);
            Ok(at(0))
        }
        Err(error) => Err(DevError::Bind(error)),
    }
}

/// The configuration of `dev`, as a user would write it.
fn config(
    emulator: &Emulator,
    clerk: SocketAddr,
    upstream: SocketAddr,
    gateway: SocketAddr,
    admin: SocketAddr,
) -> String {
    let (key, clerk, upstream) = (emulator.publishable_key(), base_url(clerk), base_url(upstream));
    format!(
        r#"[clerk]
secret_key = {{ env = "CLERK_SECRET_KEY" }}
publishable_key = "{key}"
authorized_parties = ["{PARTY}"]
api_url = "{clerk}"

[server]
listen = ["{gateway}"]

[admin]
listen = "{admin}"

[log]
access = "all"

[[routes]]
name = "echo"
upstream = "{upstream}"
inject = [
  {{ header = "authorization", prefix = "Bearer ", template = "custom_hasura" }},
  {{ header = "x-user-id", claim = "sub" }},
]
"#
    )
}

fn tell(
    out: &mut (dyn Write + Send),
    moved: &[u16],
    emulator: &Emulator,
    [gateway, clerk, echo]: [SocketAddr; 3],
    admin: Option<SocketAddr>,
) -> io::Result<()> {
    for port in moved {
        writeln!(out, "Port {port} is taken; a free one is used instead.")?;
    }
    writeln!(out, "mintgate   {}   the gateway", base_url(gateway))?;
    if let Some(admin) = admin {
        writeln!(out, "admin      {}   /readyz, /metrics", base_url(admin))?;
    }
    writeln!(out, "clerk      {}   an emulator: sessions, tokens, keys", base_url(clerk))?;
    writeln!(out, "upstream   {}   answers with what it received", base_url(echo))?;
    let state = emulator.state();
    if let Some(session) = state["sessions"][0]["id"].as_str() {
        writeln!(out, "\nPaste this into a second shell; it sends a fresh session token through the gateway:\n")?;
        writeln!(out, "{}", emulator.curl(clerk, &format!("{}/hello", base_url(gateway)), session))?;
        writeln!(out, "\nThe answer shows what the upstream received: \"authorization\" holds the minted token.")?;
    }
    writeln!(out, "Stop with ctrl-c.")
}

// === impl WithKey ===

impl Environment for WithKey<'_> {
    fn var(&self, name: &str) -> Option<String> {
        if name == "CLERK_SECRET_KEY" { Some(self.secret_key.clone()) } else { self.environment.var(name) }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.environment.read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.environment.exists(path)
    }
}
