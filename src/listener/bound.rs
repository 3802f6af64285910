//! Sockets that listen: TCP, Unix, and those that systemd holds for us.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use crate::address::{BoundAddress, ListenAddress, PeerAddress};
use crate::listener::socket::{Parked, Socket};
use crate::transport::io::keep_alive;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that listens, not yet part of a runtime.
#[derive(Debug)]
pub struct Bound {
    listening: Listening,
    address: BoundAddress,
    owner: Owner,
}

/// Whose the socket is.
#[derive(Debug)]
enum Owner {
    /// This process made it: nobody accepts after it. The directory entry of a Unix socket goes when the listener goes.
    Us(Option<Entry>),
    /// Another process made it, which lets others accept too.
    Other,
}

#[derive(Debug)]
enum Listening {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A socket that listens on the runtime that made it.
#[derive(Debug)]
pub struct Acceptor {
    listening: Accepting,
    address: BoundAddress,
    owner: Owner,
}

#[derive(Debug)]
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The directory entry of a Unix socket that we made; removed when dropped, unless somebody has put another one there.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    identity: (u64, u64),
}

/// What systemd has passed to this process (`LISTEN_FDS` and `LISTEN_FDNAMES`).
#[derive(Default)]
pub struct Inherited {
    sockets: Option<listenfd::ListenFd>,
    names: Vec<String>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// What the system says: in use, not allowed, not an address of this machine.
    #[error(transparent)]
    System(#[from] io::Error),
    /// Somebody listens on the Unix socket.
    #[error("another process listens on this socket")]
    Taken,
    /// What is at the path is not ours to remove.
    #[error("there is a file at this path that is not a socket")]
    NotASocket,
    /// systemd has passed no socket of that name.
    #[error("systemd has passed no socket of this name; {}", passed(.0))]
    NotPassed(Vec<String>),
    /// It has passed something else.
    #[error("what systemd has passed under this name is not a stream socket that listens")]
    NotListening(#[source] io::Error),
}

fn passed(names: &[String]) -> String {
    if names.is_empty() {
        "it has passed none: start through a socket unit with FileDescriptorName=".to_owned()
    } else {
        format!("the names are {}", names.join(", "))
    }
}

// === impl Inherited ===

impl Inherited {
    /// Takes what systemd has passed. `names` is the value of `LISTEN_FDNAMES`.
    pub fn from_environment(names: Option<&str>) -> Self {
        let names = names.map(|names| names.split(':').map(str::to_owned).collect()).unwrap_or_default();
        Self { sockets: Some(listenfd::ListenFd::from_env()), names }
    }

    /// The sockets of a name: a unit may have several under one.
    fn take(&mut self, name: &str) -> Result<Vec<Bound>, BindError> {
        let mut found = Vec::new();
        if let Some(sockets) = &mut self.sockets {
            for index in 0..sockets.len() {
                if self.names.get(index).is_some_and(|own| own == name) {
                    found.extend(take_one(sockets, index).map_err(BindError::NotListening)?);
                }
            }
        }
        if found.is_empty() {
            let there = self.sockets.as_ref().map_or(0, listenfd::ListenFd::len);
            return Err(BindError::NotPassed(self.names.iter().take(there).cloned().collect()));
        }
        Ok(found)
    }
}

fn take_one(sockets: &mut listenfd::ListenFd, index: usize) -> io::Result<Option<Bound>> {
    if let Ok(Some(listener)) = sockets.take_unix_listener(index) {
        let address = listener.local_addr()?;
        let path = address.as_pathname().unwrap_or_else(|| Path::new(""));
        let address = BoundAddress::Unix(path.into());
        listener.set_nonblocking(true)?;
        // The entry is systemd's: it stays.
        return Ok(Some(Bound { listening: Listening::Unix(listener), address, owner: Owner::Other }));
    }
    let Some(listener) = sockets.take_tcp_listener(index)? else { return Ok(None) };
    let address = BoundAddress::Tcp(listener.local_addr()?);
    listener.set_nonblocking(true)?;
    Ok(Some(Bound { listening: Listening::Tcp(listener), address, owner: Owner::Other }))
}

impl std::fmt::Debug for Inherited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inherited").field("names", &self.names).finish_non_exhaustive()
    }
}

// === impl Bound ===

impl Bound {
    /// Listens where it is asked to; one name of systemd may stand for several sockets.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn listen(address: &ListenAddress, inherited: &mut Inherited) -> Result<Vec<Self>, BindError> {
        match address {
            ListenAddress::Tcp(address) => Ok(vec![Self::tcp(*address)?]),
            ListenAddress::Unix(path) => Ok(vec![Self::unix(path)?]),
            ListenAddress::Systemd(name) => inherited.take(name),
        }
    }

    /// The same where the socket says who may ask: a Unix socket is for its owner alone.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn private(address: &ListenAddress, inherited: &mut Inherited) -> Result<Vec<Self>, BindError> {
        match address {
            ListenAddress::Unix(path) => Ok(vec![Self::unix_for(path, Some(0o600))?]),
            ListenAddress::Tcp(_) | ListenAddress::Systemd(_) => Self::listen(address, inherited),
        }
    }

    /// Binds a TCP address; the bound one has the real port, also when port 0 was asked for.
    ///
    /// # Errors
    /// What the system says: in use, not allowed, not an address of this machine.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // What is accepted inherits it, at no cost for a connection.
        socket.set_tcp_keepalive(&keep_alive())?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = std::net::TcpListener::from(socket);
        let address = BoundAddress::Tcp(listener.local_addr()?);
        Ok(Self { listening: Listening::Tcp(listener), address, owner: Owner::Us(None) })
    }

    /// Binds a Unix socket. One that was left behind, on which nobody listens, is replaced.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn unix(path: &Arc<Path>) -> Result<Self, BindError> {
        Self::unix_for(path, None)
    }

    fn unix_for(path: &Arc<Path>, mode: Option<u32>) -> Result<Self, BindError> {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let address = socket2::SockAddr::unix(path)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let entry = Entry::of(path)?;
        if let Some(mode) = mode {
            // Before anybody can connect.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        socket.listen(BACKLOG)?;
        let listening = Listening::Unix(socket.into());
        Ok(Self { listening, address: BoundAddress::Unix(Arc::clone(path)), owner: Owner::Us(Some(entry)) })
    }

    /// Begins to accept on the runtime that calls this.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn acceptor(self) -> io::Result<Acceptor> {
        let listening = match self.listening {
            Listening::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
            Listening::Unix(listener) => Accepting::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Acceptor { listening, address: self.address, owner: self.owner })
    }

    /// Where it listens.
    pub fn address(&self) -> &BoundAddress {
        &self.address
    }
}

/// Removes the socket at a path when a connection to it is refused, which means that nobody listens.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(BindError::NotASocket);
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::Taken),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(std::fs::remove_file(path)?),
        // A queue that is full has somebody behind it.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::Taken),
        Err(error) => Err(error.into()),
    }
}

// === impl Entry ===

impl Entry {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let ours = identity(&self.path).is_ok_and(|there| there == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// What tells one directory entry from another at the same path.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let about = std::fs::symlink_metadata(path)?;
    Ok((about.dev(), about.ino()))
}

// === impl Acceptor ===

impl Acceptor {
    /// Where it listens.
    pub fn address(&self) -> &BoundAddress {
        &self.address
    }

    /// The next connection. Waits out a shortage of descriptors instead of spinning on it.
    pub async fn accept(&self) -> (Socket, PeerAddress) {
        loop {
            match self.next().await {
                Ok(accepted) => return accepted,
                Err(error) if gone(&error) => {}
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "cannot accept connections; trying again");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Stops listening, and gives what the kernel has accepted already: these callers believe that they are connected, and
    /// would be reset. On a socket that others accept from too they are left to those.
    ///
    /// # Errors
    /// When the runtime does not let go of the socket.
    pub fn rest(self) -> io::Result<Vec<(Parked, PeerAddress)>> {
        let Owner::Us(entry) = self.owner else { return Ok(Vec::new()) };
        // Nobody finds the way to it any more.
        drop(entry);
        match self.listening {
            Accepting::Tcp(listener) => {
                let listener = listener.into_std()?;
                Ok(waiting(|| {
                    let (stream, peer) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    let _ = stream.set_nodelay(true);
                    Ok((Parked::Tcp(stream), PeerAddress::Tcp(peer)))
                }))
            }
            Accepting::Unix(listener) => {
                let listener = listener.into_std()?;
                Ok(waiting(|| {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok((Parked::Unix(stream), PeerAddress::Unix))
                }))
            }
        }
    }

    async fn next(&self) -> io::Result<(Socket, PeerAddress)> {
        match &self.listening {
            Accepting::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Best effort: without it answers are only later, never wrong.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), PeerAddress::Tcp(peer)))
            }
            Accepting::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), PeerAddress::Unix))
            }
        }
    }
}

/// Everything that is there without waiting; no more than can have been there, since callers may go on coming.
fn waiting<T>(mut accept: impl FnMut() -> io::Result<T>) -> Vec<T> {
    let mut found = Vec::new();
    for _ in 0..BACKLOG {
        match accept() {
            Ok(one) => found.push(one),
            Err(error) if gone(&error) => {}
            Err(_) => break,
        }
    }
    found
}

/// The caller went away before it was accepted.
fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Arc<Path> {
        std::env::temp_dir().join(format!("mintgate-{name}-{}.sock", std::process::id())).into()
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_removed_at_the_end() {
        let path = path("stale");
        // std leaves the entry behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = Bound::unix(&path).unwrap();
        assert_eq!(*bound.address(), BoundAddress::Unix(Arc::clone(&path)));
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_private_socket_is_its_owners_alone() {
        let path = path("private");
        let bound = Bound::private(&ListenAddress::Unix(Arc::clone(&path)), &mut Inherited::default()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(bound);
    }

    #[test]
    fn a_socket_on_which_somebody_listens_stays() {
        let path = path("taken");
        let first = Bound::unix(&path).unwrap();
        assert!(matches!(Bound::unix(&path), Err(BindError::Taken)));
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(first);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let path = path("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Bound::unix(&path), Err(BindError::NotASocket)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let path = path("successor");
        let first = Bound::unix(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Bound::unix(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }

    #[test]
    fn a_name_that_systemd_has_not_passed_is_told_with_the_others() {
        let error = Bound::listen(&ListenAddress::Systemd("web".into()), &mut Inherited::default()).unwrap_err();
        assert!(error.to_string().contains("it has passed none"), "{error}");
    }

    /// As many as have come: the kernel says "connected" to a caller before anybody has accepted it.
    #[tokio::test]
    async fn who_was_connected_when_the_listener_ended_is_not_reset() {
        let path = path("rest");
        for bound in [Bound::tcp("127.0.0.1:0".parse().unwrap()).unwrap(), Bound::unix(&path).unwrap()] {
            let address = bound.address().clone();
            let acceptor = bound.acceptor().unwrap();
            let connect = || match &address {
                BoundAddress::Tcp(address) => std::net::TcpStream::connect(address).is_ok(),
                BoundAddress::Unix(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
            };
            assert!(connect() && connect() && connect());
            assert_eq!(acceptor.rest().unwrap().len(), 3, "{address}");
            assert!(!connect(), "{address}");
        }
    }

    #[tokio::test]
    async fn what_is_accepted_is_kept_alive() {
        let acceptor = Bound::tcp("127.0.0.1:0".parse().unwrap()).unwrap().acceptor().unwrap();
        let BoundAddress::Tcp(address) = *acceptor.address() else { panic!("TCP") };
        let _caller = std::net::TcpStream::connect(address).unwrap();
        let (Socket::Tcp(stream), _) = acceptor.accept().await else { panic!("TCP") };
        assert!(socket2::SockRef::from(&stream).keepalive().unwrap());
    }
}
