//! A small listener of a gateway that runs, as a command asks it: on TCP or on a Unix socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::address::ListenAddress;
use crate::lifecycle::Spawner;

/// One question, whole.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of an answer that are read.
const ANSWER: usize = 4096;

/// Where a listener can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Door {
    /// A host with its port.
    Tcp(String),
    /// The path of a socket.
    Unix(PathBuf),
}

/// Not an address of a small listener.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("write http://HOST:PORT or unix:/path")]
pub(super) struct NoDoor;

/// Nobody has answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("nobody answers at {0}")]
    Unreachable(Door, #[source] io::Error),
    #[error("what answers at {0} speaks no HTTP")]
    Broken(Door, #[source] hyper::Error),
    #[error("{0} does not answer in time")]
    Silent(Door),
}

async fn converse<S>(
    stream: S,
    host: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    drop(Spawner::current().spawn(connection));
    if let Ok(host) = HeaderValue::from_str(host) {
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
    pub(super) fn of(listen: &ListenAddress) -> Option<Self> {
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

    /// Sends a request to that path and reads the answer: its status, and its text.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub(super) async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
        path: &'static str,
    ) -> Result<(StatusCode, String), Unanswered> {
        *request.uri_mut() = Uri::from_static(path);
        let unreachable = |error| Unanswered::Unreachable(self.clone(), error);
        let asking = async {
            let answered = match self {
                Self::Tcp(authority) => {
                    converse(TcpStream::connect(authority).await.map_err(unreachable)?, authority, request).await
                }
                Self::Unix(path) => {
                    converse(UnixStream::connect(path).await.map_err(unreachable)?, "localhost", request).await
                }
            };
            answered.map_err(|error| Unanswered::Broken(self.clone(), error))
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(Unanswered::Silent(self.clone())),
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
    fn a_listener_is_named_by_its_address() {
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
