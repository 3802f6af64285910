//! A TCP proxy that misbehaves as it is told, between the gateway and an issuer or an upstream; with TLS it ends it.
//!
//! It reads its callers' requests, in HTTP/1.1 or HTTP/2, so that a fault hits a request, not a point in time, and so that
//! it can count them. What it does to a connection it does for good: the socket's other end sees a real FIN, RST or silence.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mintgate::lifecycle::Spawner;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::wire::Stream;

/// What happens to a request, or to a connection.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing: the answer is the real one.
    None,
    /// Nobody listens. Connections that are there are reset by their next request.
    Refused,
    /// The connection is accepted and ends so before a byte of it is read, the TLS handshake's too.
    Accepted(End),
    /// The request is read whole, and the connection ends so without an answer.
    Asked(End),
    /// These bytes are the answer; nobody else is asked.
    Says(Vec<u8>, End),
    /// These bytes, one at a time with a pause before each, and then silence.
    Drips(Vec<u8>, Duration),
    /// These bytes, and then spaces for as long as they are taken.
    Endless(Vec<u8>),
    /// So many bytes of the real answer.
    Cut(usize, End),
    /// The head of the real answer (HTTP/1.1) and so many bytes of its body.
    CutBody(usize, End),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It does not; the next request is read.
    Stays,
    /// With a FIN.
    Closes,
    /// With an RST.
    Resets,
    /// Half-open: nothing is read any more and nothing said, and a FIN of the peer is not answered.
    Hangs,
}

/// The proxy. It serves for as long as the runtime does.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    /// Holds the port while nobody listens.
    _port: TcpSocket,
}

struct Shared {
    behind: SocketAddr,
    tls: Option<TlsAcceptor>,
    http2: bool,
    listens: watch::Sender<bool>,
    hung_up: watch::Sender<()>,
    standing: Mutex<Fault>,
    /// For the next requests, before the standing one.
    script: Mutex<VecDeque<Fault>>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    mints: AtomicUsize,
}

/// One caller's connection.
struct Visit {
    stream: Box<dyn Stream>,
    /// The same socket.
    socket: socket2::Socket,
    shared: Arc<Shared>,
    /// Read from the caller and not yet passed on.
    buffer: Vec<u8>,
    /// Whether the HTTP/2 preface has come.
    greeted: bool,
}

/// Which part of a real answer still goes through.
struct Limit {
    fault: Fault,
    answer: Vec<u8>,
    passed: usize,
}

// === impl Proxy ===

impl Proxy {
    /// In front of that address, speaking HTTP/1.1.
    pub(crate) fn before(behind: SocketAddr) -> Self {
        Self::start(behind, None, false)
    }

    /// The same with TLS; HTTP/2 when `tls` offers nothing else.
    pub(crate) fn with_tls(behind: SocketAddr, tls: ServerConfig) -> Self {
        let http2 = tls.alpn_protocols == [b"h2"];
        Self::start(behind, Some(TlsAcceptor::from(Arc::new(tls))), http2)
    }

    fn start(behind: SocketAddr, tls: Option<TlsAcceptor>, http2: bool) -> Self {
        let port = bound("127.0.0.1:0".parse().unwrap());
        let address = port.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behind,
            tls,
            http2,
            listens: watch::Sender::new(true),
            hung_up: watch::Sender::new(()),
            standing: Mutex::new(Fault::None),
            script: Mutex::default(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            mints: AtomicUsize::new(0),
        });
        let listener = bound(address).listen(1024).unwrap();
        drop(Spawner::current().spawn(accept(address, Some(listener), Arc::clone(&shared))));
        Self { address, shared, _port: port }
    }

    /// `http://127.0.0.1:...`, or `https`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What happens to every request from now on, and to every connection.
    pub(crate) async fn set(&self, fault: Fault) {
        let (listens, listened) = (!matches!(fault, Fault::Refused), *self.shared.listens.borrow());
        *self.shared.standing.lock().unwrap() = fault;
        self.shared.script.lock().unwrap().clear();
        if listens == listened {
            return;
        }
        self.shared.listens.send_replace(listens);
        // Sockets are let go and taken again by a task: whoever connects proves it.
        super::eventually_async("the proxy listens, or does not", async || {
            TcpStream::connect(self.address).await.is_ok() == listens
        })
        .await;
    }

    /// What happens to the next request, or to the next connection, alone.
    pub(crate) fn once(&self, fault: Fault) {
        assert!(!matches!(fault, Fault::Refused), "it stands, or it does not");
        self.shared.script.lock().unwrap().push_back(fault);
    }

    /// Closes every connection that is idle, with a FIN.
    pub(crate) fn hang_up(&self) {
        self.shared.hung_up.send_replace(());
    }

    /// Connections that sent something, or that were ended before they could.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Requests that came whole.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(SeqCst)
    }

    /// Those of them that ask for a token; in HTTP/2 all that have a body.
    pub(crate) fn mints(&self) -> usize {
        self.shared.mints.load(SeqCst)
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    // Two sockets have the port, of which one may listen.
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn accept(address: SocketAddr, mut listener: Option<TcpListener>, shared: Arc<Shared>) {
    let (mut listens, tasks) = (shared.listens.subscribe(), Spawner::current());
    loop {
        let wanted = *listens.borrow_and_update();
        match (wanted, listener.is_some()) {
            (true, false) => listener = Some(bound(address).listen(1024).unwrap()),
            (false, true) => listener = None,
            _ => {}
        }
        let stream = tokio::select! {
            Ok((stream, _)) = async { listener.as_ref().unwrap().accept().await }, if listener.is_some() => stream,
            changed = listens.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        drop(tasks.spawn(async move {
            if let Some(visit) = Visit::begin(stream, shared).await {
                visit.serve().await;
            }
        }));
    }
}

// === impl Shared ===

impl Shared {
    fn next(&self) -> Fault {
        let scripted = self.script.lock().unwrap().pop_front();
        scripted.unwrap_or_else(|| self.standing.lock().unwrap().clone())
    }

    /// The fault of a connection that was just accepted, when there is one.
    fn at_the_door(&self) -> Option<End> {
        let mut script = self.script.lock().unwrap();
        match script.front() {
            Some(Fault::Accepted(end)) => {
                let end = *end;
                script.pop_front();
                Some(end)
            }
            Some(_) => None,
            None => match *self.standing.lock().unwrap() {
                Fault::Accepted(end) => Some(end),
                _ => None,
            },
        }
    }
}

// === impl Visit ===

impl Visit {
    async fn begin(stream: TcpStream, shared: Arc<Shared>) -> Option<Self> {
        stream.set_nodelay(true).unwrap();
        let socket = socket2::Socket::from(stream.as_fd().try_clone_to_owned().unwrap());
        let visit = |stream, socket| {
            let shared = Arc::clone(&shared);
            Self { stream, socket, shared, buffer: Vec::new(), greeted: false }
        };
        if let Some(end) = shared.at_the_door() {
            shared.connections.fetch_add(1, SeqCst);
            visit(Box::new(stream), socket).end(end).await;
            return None;
        }
        // Whoever only looks whether somebody listens is no caller.
        if stream.peek(&mut [0]).await.is_ok_and(|count| count > 0) {
            shared.connections.fetch_add(1, SeqCst);
        }
        let stream: Box<dyn Stream> = match &shared.tls {
            Some(tls) => Box::new(tls.accept(stream).await.ok()?),
            None => Box::new(stream),
        };
        Some(visit(stream, socket))
    }

    async fn serve(mut self) {
        let mut behind: Option<TcpStream> = None;
        let mut limit: Option<Limit> = None;
        let mut answer = Vec::new();
        let mut hung_up = self.shared.hung_up.subscribe();
        loop {
            while let Some((length, request)) = self.unit() {
                let unit: Vec<u8> = self.buffer.drain(..length).collect();
                let fault = if request {
                    self.count(&unit);
                    limit = None;
                    self.shared.next()
                } else {
                    Fault::None
                };
                match fault {
                    Fault::None => {}
                    fault @ (Fault::Cut(..) | Fault::CutBody(..)) => {
                        limit = Some(Limit { fault, answer: Vec::new(), passed: 0 });
                    }
                    Fault::Says(bytes, end) => {
                        if self.say(&bytes).await.is_err() || end != End::Stays {
                            return self.end(end).await;
                        }
                        continue;
                    }
                    Fault::Drips(bytes, pause) => {
                        for byte in bytes {
                            tokio::time::sleep(pause).await;
                            if self.say(&[byte]).await.is_err() {
                                return;
                            }
                        }
                        return self.end(End::Hangs).await;
                    }
                    Fault::Endless(head) => {
                        let mut said = self.say(&head).await;
                        while said.is_ok() {
                            said = self.say(&[b' '; 8192]).await;
                        }
                        return;
                    }
                    Fault::Asked(end) | Fault::Accepted(end) => return self.end(end).await,
                    Fault::Refused => return self.end(End::Resets).await,
                }
                if behind.is_none() {
                    behind = TcpStream::connect(self.shared.behind).await.ok();
                }
                let Some(behind) = &mut behind else { return };
                if behind.write_all(&unit).await.is_err() {
                    return;
                }
            }
            answer.clear();
            let answered = async {
                match &mut behind {
                    Some(behind) => behind.read_buf(&mut answer).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = hung_up.changed() => return self.end(End::Closes).await,
                read = self.stream.read_buf(&mut self.buffer) => {
                    if !read.is_ok_and(|count| count > 0) {
                        return;
                    }
                }
                read = answered => {
                    let over = !read.is_ok_and(|count| count > 0);
                    let (bytes, end) = match &mut limit {
                        None => (std::mem::take(&mut answer), None),
                        Some(limit) => limit.pass(&answer),
                    };
                    if self.say(&bytes).await.is_err() {
                        return;
                    }
                    if let Some(end) = end.or(over.then_some(End::Closes)) {
                        return self.end(end).await;
                    }
                }
            }
        }
    }

    fn count(&self, unit: &[u8]) {
        self.shared.requests.fetch_add(1, SeqCst);
        // The frame that ends a request in HTTP/2 is one of DATA where it has a body.
        let mint = if self.shared.http2 { unit[3] == 0 } else { unit.starts_with(b"POST ") };
        self.shared.mints.fetch_add(usize::from(mint), SeqCst);
    }

    /// The length of what can be passed on as one, and whether a request is complete with it.
    fn unit(&mut self) -> Option<(usize, bool)> {
        let buffer = &self.buffer;
        if !self.shared.http2 {
            let head = buffer.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
            let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let whole = head + length.unwrap_or(0);
            return (buffer.len() >= whole).then_some((whole, true));
        }
        if !self.greeted {
            self.greeted = buffer.len() >= 24;
            return self.greeted.then_some((24, false));
        }
        // RFC 9113 section 4.1: length, type, flags, stream.
        let &[high, middle, low, kind, flags, ..] = &buffer[..] else { return None };
        let whole = 9 + u32::from_be_bytes([0, high, middle, low]) as usize;
        (buffer.len() >= whole).then_some((whole, kind < 2 && flags & 1 == 1))
    }

    async fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn end(mut self, end: End) {
        match end {
            End::Stays => panic!("a connection cannot stay at its end"),
            End::Closes => drop(self.stream.shutdown().await),
            End::Resets => self.socket.set_linger(Some(Duration::ZERO)).unwrap(),
            End::Hangs => std::future::pending().await,
        }
    }
}

// === impl Limit ===

impl Limit {
    /// What goes through of these bytes, and how the connection ends when that is the last of it.
    fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<End>) {
        self.answer.extend_from_slice(bytes);
        let head = self.answer.windows(4).position(|part| part == b"\r\n\r\n");
        let (allowed, end) = match (&self.fault, head) {
            (Fault::Cut(count, end), _) => (*count, *end),
            (Fault::CutBody(count, end), Some(head)) => (head + 4 + count, *end),
            _ => (usize::MAX, End::Closes),
        };
        let until = allowed.min(self.answer.len());
        let passed = self.answer[self.passed.min(until)..until].to_vec();
        self.passed = until;
        (passed, (self.answer.len() >= allowed).then_some(end))
    }
}
