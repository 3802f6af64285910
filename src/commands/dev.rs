//! `mintgate dev`: the gateway and a Clerk emulator in one process, without an account: in front of an echo, of an
//! application, or as a user's own configuration says.

mod guide;
mod key;
mod stage;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;

use crate::app::{self, Process};
use crate::clock::Clock;
use crate::commands::check;
use crate::commands::console::Console;
use crate::commands::signals::Signals;
use crate::config::Config;
use crate::config::validate::{self, Diagnostics, Environment, Secrets};
use crate::emulator::keys::CryptoError;
use crate::emulator::limit::RateLimit;
use crate::emulator::seed::file::Seed;
use crate::emulator::{Emulator, Options, base_url, echo};
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::bound::Inherited;
use crate::surface::Surface;
use crate::telemetry::{self, FilterFrom, LogFormat};

use self::guide::{Example, Guide};
use self::key::WithKey;
use self::stage::{Clerk, Wishes};

/// Where the emulator and the echo listen unless the port is taken.
const EMULATOR: u16 = 6470;
const ECHO: u16 = 6471;

/// The origin of an application that does not exist: session tokens are issued to it where no configuration says to
/// whom.
const PARTY: &str = "http://localhost:3000";

/// Calls in 10 s that a development instance has; a configuration that reckons with more gets the other limit.
const DEVELOPMENT_BUDGET: u32 = 100;

/// `--upstream` for the echo.
const ECHO_NAME: &str = "echo";

/// A command line that cannot be followed.
const BAD_USAGE: u8 = 2;

/// The configuration without `--config`, as a user would write it.
const OWN: &str = r#"[clerk]
secret_key = { env = "CLERK_SECRET_KEY" }
publishable_key = "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k"
authorized_parties = ["http://localhost:3000"]

[upstreams.echo]
url = "http://127.0.0.1:6471"

[[routes]]
name = "echo"
upstream = "echo"
inject = [
  { header = "authorization", prefix = "Bearer ", template = "custom_hasura" },
  { header = "x-user-id", claim = "sub" },
]
"#;

/// Tries mintgate without an account: gateway, Clerk emulator and an upstream that answers with what it received.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where requests go, instead of the echo; with --config in place of every upstream, and "echo" is the echo.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Your configuration, with the emulator in Clerk's place.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Variables for the configuration, as in .env.local; the environment's own go before them.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Users, sessions and templates of the emulator, instead of its own: as for `mintgate emulator`.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// The gateway's port; 0 takes a free one. By default 6468, or that of the configuration, or a free one.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The port of probes and metrics; by default 6469.
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// The emulator's port; by default 6470.
    #[arg(long, value_name = "PORT")]
    emulator_port: Option<u16>,
    /// The echo's port; by default 6471.
    #[arg(long, value_name = "PORT")]
    echo_port: Option<u16>,
}

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
    /// A port that was asked for is taken, or none is free.
    #[error("cannot listen on {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No port is free on loopback.
    #[error("cannot listen on loopback")]
    NoPort(#[source] io::Error),
    /// The seed is bad. Everything that is wrong with it.
    #[error("the seed is bad")]
    Seed(Box<Diagnostics>),
    /// The configuration is good, but not with the emulator in Clerk's place.
    #[error("the configuration cannot be used with the emulator: {0}")]
    Config(String),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] app::StartError),
    /// The output is gone.
    #[error("cannot write to the output")]
    Output(#[from] io::Error),
}

/// A configuration that is good as it stands.
struct Script<'a> {
    text: String,
    path: &'a Path,
    config: Config,
}

/// What serves beside the gateway.
struct Stand {
    emulator: Emulator,
    clerk: Surface,
    echo: Option<Surface>,
    notes: Vec<String>,
}

// === impl Args ===

impl Args {
    /// `--env-file`
    pub fn env_file(&self) -> Option<&Path> {
        self.env_file.as_deref()
    }
}

/// Serves until a signal. What runs where, and a line to paste, goes to `out` when all of it is ready. What is wrong with
/// a user's configuration goes to `err`, with the exit status for one.
///
/// # Errors
/// See [`DevError`].
pub fn run(args: &Args, environment: &dyn Environment, to: &mut Console<'_>) -> Result<ExitCode, DevError> {
    if let Some(problem) = args.upstream.as_deref().and_then(bad_upstream) {
        writeln!(to.err, "error: --upstream: {problem}")?;
        return Ok(ExitCode::from(BAD_USAGE));
    }
    let script = match script(args, environment) {
        Ok((script, warnings)) => {
            write!(to.err, "{}", warnings.render(to.err_colours))?;
            script
        }
        Err((path, diagnostics)) => return Ok(check::refused(&path, &diagnostics, to.err_colours, to.err)?),
    };
    let filter = environment.var("MINTGATE_LOG").filter(|filter| !filter.is_empty());
    let from = if filter.is_some() { FilterFrom::Environment } else { FilterFrom::Config };
    let filter = filter.as_deref().unwrap_or(&script.config.log.filter);
    let _guard = telemetry::init(filter, from, LogFormat::Auto)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DevError::Runtime)?;
    match runtime.block_on(serve(args, &script, environment, to)) {
        Err(DevError::Seed(problems)) => {
            write!(to.err, "{}", problems.render(to.err_colours))?;
            Ok(ExitCode::from(check::BAD_CONFIG))
        }
        served => served.map(|()| ExitCode::SUCCESS),
    }
}

/// What is wrong with the URL of an upstream.
fn bad_upstream(url: &str) -> Option<String> {
    if url == ECHO_NAME {
        return None;
    }
    let quoted = toml::Value::from(url);
    let text = format!("[upstreams.a]\nurl = {quoted}\n[[routes]]\nname = \"a\"\nupstream = \"a\"\nsession = []\n");
    let parsed = validate::parse(&text, Path::new(""), &validate::Process, Secrets::Optional);
    let problem = |problems: Diagnostics| problems.titles().next().unwrap_or("not an upstream").to_owned();
    // What was typed is not shown: it may hold a password.
    parsed.err().map(|problems| format!("{}; write http://127.0.0.1:3000, or {ECHO_NAME}", problem(problems)))
}

/// The user's configuration, or `dev`'s own.
fn script<'a>(
    args: &'a Args,
    environment: &dyn Environment,
) -> Result<(Script<'a>, Diagnostics), (PathBuf, Diagnostics)> {
    let path = args.config.as_deref();
    let at = path.unwrap_or(Path::new("dev.toml"));
    let text = match path {
        None if args.upstream.as_deref().is_none_or(|upstream| upstream == ECHO_NAME) => OWN.to_owned(),
        None => OWN.replace("\"echo\"", "\"app\"").replace("upstreams.echo", "upstreams.app"),
        // What cannot be read is what `load` complains of below.
        Some(path) => environment.read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default(),
    };
    let environment = &WithKey::new(&text, environment);
    let loaded = match path {
        None => validate::parse(&text, at, environment, Secrets::Replaced),
        Some(path) => validate::load(path, environment, Secrets::Replaced),
    };
    match loaded {
        Ok((config, warnings)) => Ok((Script { text, path: at, config }, warnings)),
        Err(diagnostics) => Err((at.to_owned(), diagnostics)),
    }
}

async fn serve(
    args: &Args,
    script: &Script<'_>,
    environment: &dyn Environment,
    to: &mut Console<'_>,
) -> Result<(), DevError> {
    let (clock, shutdown, control) = (Clock::system(), Shutdown::new(), Spawner::current());
    let mut signals = Signals::new().map_err(DevError::Runtime)?;
    let party = script.config.clerk.authorized_parties.first().map_or(PARTY, |party| party.as_str());
    let mut stand = stand(args, script, party, environment, clock.clone())?;
    let config = stage(args, script, environment, &mut stand)?;
    let process = Process {
        clock,
        shutdown: shutdown.clone(),
        control: control.clone(),
        dropped_lines: None,
        inherited: Inherited::default(),
        levers: None,
        in_place: false,
    };
    let example = Example::of(&config, party);
    let bound = app::bind(config, process)?;
    let ready = bound.readiness().clone();
    let file = args.config.as_ref().map(|path| path.display().to_string());
    let guide = Guide {
        // The stage has a TCP listener in any case.
        gateway: bound.address().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        admin: bound.admin(),
        clerk: stand.clerk.address(),
        echo: stand.echo.as_ref().map(Surface::address),
        upstream: args.upstream.as_deref(),
        file: file.as_deref(),
        notes: &stand.notes,
        example,
        emulator: &stand.emulator,
    };
    for surface in std::iter::once(stand.clerk).chain(stand.echo) {
        let (tasks, shutdown, until) = (control.sibling(), shutdown.clone(), shutdown.stopped());
        drop(control.spawn(async move {
            if let Err(error) = surface.run(tasks, shutdown, until).await {
                tracing::error!(%error, "a part of dev has ended");
            }
        }));
    }
    let told = async {
        let tell = async {
            // The line works from the moment on that it is printed.
            while ready.ready().is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if let Err(error) = guide.tell(to.out).and_then(|()| to.out.flush()) {
                tracing::error!(%error, "cannot write to the output");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = tell => {}
            () = signals.next() => {}
        }
        let shutdown = shutdown.clone();
        drop(control.spawn(async move {
            signals.next().await;
            shutdown.stop();
        }));
    };
    Ok(bound.run(told).await?)
}

/// The emulator with the templates that the configuration names, and the echo where it is wanted.
fn stand(
    args: &Args,
    script: &Script<'_>,
    party: &str,
    environment: &dyn Environment,
    clock: Clock,
) -> Result<Stand, DevError> {
    let seed = args.seed.as_deref().map(|path| Seed::load(path, environment, clock.wall())).transpose();
    let seed = seed.map_err(|problems| DevError::Seed(Box::new(problems)))?;
    let many = args.config.is_some() && script.config.clerk.budget.requests > DEVELOPMENT_BUDGET;
    let options = Options {
        authorized_party: Some(party.to_owned()),
        seed: seed.map(|(seed, _)| seed),
        rate_limit: many.then_some(RateLimit::Production),
        ..Options::default()
    };
    let emulator = Emulator::new(options, clock)?;
    let mut notes = Vec::new();
    let state = emulator.state();
    let known = |name: &str| state["templates"].as_array().is_some_and(|known| known.iter().any(|own| own == name));
    let names: Vec<&str> = script.config.templates().map(crate::config::TemplateName::as_str).collect();
    let made: Vec<&str> = names.into_iter().filter(|name| !known(name)).collect();
    for name in &made {
        emulator.ensure_template(name)?;
    }
    if !made.is_empty() {
        let made = made.join(", ");
        notes.push(format!("Templates that the emulator did not have, made with claims of its own: {made}."));
    }
    let clerk = surface(args.emulator_port, EMULATOR, emulator.router(), &mut notes)?;
    let echoes = match args.upstream.as_deref() {
        None => args.config.is_none(),
        Some(upstream) => upstream == ECHO_NAME,
    };
    let echo = echoes.then(|| surface(args.echo_port, ECHO, echo::router(), &mut notes)).transpose()?;
    Ok(Stand { emulator, clerk, echo, notes })
}

/// The configuration with the emulator in Clerk's place.
fn stage(
    args: &Args,
    script: &Script<'_>,
    environment: &dyn Environment,
    stand: &mut Stand,
) -> Result<Config, DevError> {
    let emulator = &stand.emulator;
    let (api_url, jwt_key) = (base_url(stand.clerk.address()), emulator.jwt_key()?);
    let clerk = Clerk {
        api_url: &api_url,
        issuer: emulator.issuer(),
        publishable_key: emulator.publishable_key(),
        secret_key: emulator.secret_key().expose(),
        jwt_key: &jwt_key,
    };
    let echo = stand.echo.as_ref().map(|echo| base_url(echo.address()));
    let wishes =
        Wishes { port: args.port, admin_port: args.admin_port, upstream: echo.as_deref().or(args.upstream.as_deref()) };
    let parsed = script.text.parse().map_err(|error: toml::de::Error| DevError::Config(error.message().to_owned()))?;
    let mut free = free;
    let staged = stage::set(parsed, script.path, environment, &clerk, &wishes, &mut free).map_err(DevError::NoPort)?;
    let parsed = validate::parse(&staged.text, script.path, &staged, Secrets::Required);
    let (config, _) = parsed.map_err(|problems| DevError::Config(problems.titles().collect::<Vec<_>>().join("; ")))?;
    stand.notes.extend(staged.notes);
    Ok(config)
}

/// A surface on its port; on a free one when that is taken and nobody asked for it.
fn surface(asked: Option<u16>, usual: u16, router: Router, notes: &mut Vec<String>) -> Result<Surface, DevError> {
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let address = at(asked.unwrap_or(usual));
    match Surface::bind(address, router.clone()) {
        Ok(surface) => Ok(surface),
        Err(error) if asked.is_none() && error.kind() == io::ErrorKind::AddrInUse => {
            notes.push(format!("Port {usual} is taken; a free one is used instead."));
            Surface::bind(at(0), router).map_err(DevError::NoPort)
        }
        Err(source) => Err(DevError::Bind { address, source }),
    }
}

/// The address, or any port on loopback when it is taken or not ours to take. Whoever takes it in between makes the
/// start fail, and says so.
fn free(address: SocketAddr) -> io::Result<SocketAddr> {
    match crate::listener::bound::Bound::tcp(address) {
        Ok(_) => Ok(address),
        Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            Ok(SocketAddr::new(address.ip(), 0))
        }
        Err(error) => Err(error),
    }
}
