//! `mintgate health` and `mintgate wait`: ask a running gateway whether it is ready, for images without a shell.

use std::error::Error;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::address::ListenAddress;
use crate::commands::check::{self, BAD_CONFIG};
use crate::config::validate::{self, Environment, Secrets};
use crate::lifecycle::Spawner;

/// One question, whole.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two questions.
const AGAIN: Duration = Duration::from_millis(100);

/// Bytes of an answer that are read.
const ANSWER: usize = 4096;

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

/// Where an admin listener can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Door {
    /// A host with its port.
    Tcp(String),
    Unix(PathBuf),
}

/// Not an address of an admin listener.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("write http://HOST:PORT or unix:/path, of the admin listener")]
struct NoDoor;

/// Why a gateway is not ready.
#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error("nobody answers at {0}")]
    Unreachable(Door, #[source] io::Error),
    #[error("what answers at {0} speaks no HTTP")]
    Broken(Door, #[source] hyper::Error),
    #[error("{0} does not answer in time")]
    Silent(Door),
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
    let path = match validate::locate(at.config.as_deref(), environment) {
        Ok(path) => path,
        Err(error) => {
            check::no_config(&error, err)?;
            return Ok(None);
        }
    };
    let config = match validate::load(&path, environment, Secrets::Replaced) {
        Ok((config, _)) => config,
        Err(diagnostics) => {
            check::refused(&path, &diagnostics, false, err)?;
            return Ok(None);
        }
    };
    let door = config.admin.as_ref().map(|admin| Door::of(&admin.listen));
    match door {
        Some(Some(door)) => return Ok(Some(door)),
        Some(None) => writeln!(err, "error: systemd holds the admin listener's socket: name its address with --url")?,
        None => writeln!(err, "error: {}: there is no [admin] section, so nobody can be asked", path.display())?,
    }
    Ok(None)
}

async fn ask(door: &Door) -> Result<(), NotReady> {
    match tokio::time::timeout(PATIENCE, door.ask()).await {
        Ok(answered) => answered,
        Err(_) => Err(NotReady::Silent(door.clone())),
    }
}

async fn converse<S>(stream: S, host: &str) -> Result<(StatusCode, String), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    drop(Spawner::current().spawn(connection));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from_static("/readyz");
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    // A longer text is nothing that a gateway says.
    let text = Limited::new(answer.into_body(), ANSWER).collect().await.map(Collected::to_bytes).unwrap_or_default();
    Ok((status, String::from_utf8_lossy(&text).trim().to_owned()))
}

// === impl Door ===

impl Door {
    /// Nothing for a socket that systemd holds. An address that stands for all is asked at this machine's own.
    fn of(listen: &ListenAddress) -> Option<Self> {
        match listen {
            ListenAddress::Tcp(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                Some(Self::Tcp(SocketAddr::new(ip, address.port()).to_string()))
            }
            ListenAddress::Unix(path) => Some(Self::Unix(path.to_path_buf())),
            ListenAddress::Systemd(_) => None,
        }
    }

    async fn ask(&self) -> Result<(), NotReady> {
        let unreachable = |error| NotReady::Unreachable(self.clone(), error);
        let answered = match self {
            Self::Tcp(authority) => {
                converse(TcpStream::connect(authority).await.map_err(unreachable)?, authority).await
            }
            Self::Unix(path) => converse(UnixStream::connect(path).await.map_err(unreachable)?, "localhost").await,
        };
        match answered.map_err(|error| NotReady::Broken(self.clone(), error))? {
            (StatusCode::OK, _) => Ok(()),
            (status, reason) => Err(NotReady::Told { status, reason }),
        }
    }
}

impl std::str::FromStr for Door {
    type Err = NoDoor;

    fn from_str(text: &str) -> Result<Self, NoDoor> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(Path::new(path).to_owned()));
        }
        let uri: Uri = text.parse().map_err(|_| NoDoor)?;
        let plain =
            uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/" | "/readyz") && uri.query().is_none();
        let authority = uri.authority().filter(|authority| plain && !authority.as_str().contains('@')).ok_or(NoDoor)?;
        Ok(Self::Tcp(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80))))
    }
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_listener_is_named_by_its_address() {
        for (text, door) in [
            ("http://127.0.0.1:6469", Some("http://127.0.0.1:6469")),
            ("http://127.0.0.1:6469/readyz", Some("http://127.0.0.1:6469")),
            ("http://[::1]:6469/", Some("http://[::1]:6469")),
            ("http://mintgate", Some("http://mintgate:80")),
            ("unix:/run/admin.sock", Some("unix:/run/admin.sock")),
            ("unix:", None),
            ("https://127.0.0.1:6469", None),
            ("http://a@127.0.0.1:6469", None),
            ("http://127.0.0.1:6469/metrics", None),
            ("127.0.0.1:6469", None),
        ] {
            assert_eq!(text.parse::<Door>().ok().map(|door| door.to_string()).as_deref(), door, "{text}");
        }
    }

    #[test]
    fn a_listener_on_every_address_is_asked_at_this_machines_own() {
        for (listen, door) in
            [("0.0.0.0:1", "http://127.0.0.1:1"), ("[::]:1", "http://[::1]:1"), ("192.0.2.1:1", "http://192.0.2.1:1")]
        {
            assert_eq!(Door::of(&ListenAddress::Tcp(listen.parse().unwrap())).unwrap().to_string(), door);
        }
        assert_eq!(Door::of(&ListenAddress::Systemd("admin".into())), None);
    }
}
