//! Accepts connections and serves HTTP on them: the one file through which every listener of the process goes.
//!
//! A connection is served by one task. hyper's own timers stay off: its HTTP/1 server starts one only when a connection
//! turns idle and allocates for it, its HTTP/2 server and the detection of the protocol have none. Instead
//! [`Watched`] holds one lazily armed timer per connection.

pub mod bound;
pub mod connection;
pub mod opened;
pub mod refusals;
pub mod rest;
pub mod sequel;
pub mod socket;
pub mod streams;
pub mod timer;
mod turns;
pub mod watched;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use crate::address::PeerAddress;
use crate::config::Limits;
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::connection::{Connection, Phase, Version};
use crate::listener::refusals::Refusals;
use crate::listener::socket::{Socket, Stream};
use crate::listener::streams::Streams;
use crate::listener::turns::{Place, Turns};
use crate::listener::watched::Watched;
use crate::live::Live;
use crate::metrics::Shard;
use crate::transport::tls::server::ServerTls;

/// The bytes with which an HTTP/2 client begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Concurrent streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 200;

/// Bytes of a request body that may come ahead of an upstream that takes them slowly.
const STREAM_WINDOW: u32 = 512 * 1024;

/// How many of those a connection has room for, before a slow upstream holds up the requests to the others.
const SLOW_STREAMS: u32 = 8;

/// How long a drain leaves open a connection on which nothing is under way: to close it at once would lose the request that
/// is on its way, and one that is used often ends with an answer that says `Connection: close`.
const LEAVE: Duration = Duration::from_secs(1);

/// What a connection is served with; one for each worker and listener.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Limits and deadlines.
    pub limits: Arc<Limits>,
    /// Spawns HTTP/2 streams.
    pub spawner: Spawner,
    /// Ends the connection.
    pub shutdown: Shutdown,
    /// On TCP.
    tls: Option<Live<ServerTls>>,
    /// Whether a stream of HTTP/2 may become a WebSocket.
    websockets: bool,
    /// Of all HTTP/1 connections of the worker.
    turns: Turns,
    /// HTTP/1 settings, made once, and what is remembered of failed handshakes.
    builders: Arc<Builders>,
}

#[derive(Debug)]
struct Builders {
    http1: http1::Builder,
    refusals: Refusals,
}

/// How a connection ended, beside well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Not a request that could be parsed; hyper has answered 400, 414 or 431.
    #[error("not a valid HTTP request")]
    Parse(#[source] hyper::Error),
    /// The caller went away, or a deadline passed.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// Before HTTP began.
    #[error("the connection ended before its first request")]
    Early(#[source] io::Error),
    /// No TLS came about: another protocol, no common version, no client certificate, a deadline.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
}

// === impl Serving ===

impl Serving {
    /// Prepares what every connection shares.
    pub fn new(limits: Arc<Limits>, spawner: Spawner, shutdown: Shutdown) -> Self {
        let head = limits.max_header_bytes;
        let mut http1 = http1::Builder::new();
        // hyper's floor for the buffer is 8 KiB.
        http1.max_buf_size(head.max(8192)).half_close(false);
        let builders = Arc::new(Builders { http1, refusals: Refusals::default() });
        let turns = Turns::new(spawner.clone());
        Self { limits, spawner, shutdown, turns, tls: None, websockets: false, builders }
    }

    /// Settings of HTTP/2, whose streams know their connection.
    fn http2(&self, connection: &Arc<Connection>) -> http2::Builder<Streams> {
        let limits = &self.limits;
        let streams = Streams::new(self.spawner.clone(), Arc::clone(connection));
        let mut http2 = http2::Builder::new(streams);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * SLOW_STREAMS)
            .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(32)
            .max_local_error_reset_streams(Some(1024))
            .keep_alive_interval(limits.idle.map(|idle| idle / 3))
            .keep_alive_timeout(Duration::from_secs(20));
        if self.websockets {
            http2.enable_connect_protocol();
        }
        http2
    }

    /// With TLS on every TCP connection.
    #[must_use]
    pub fn with_tls(self, tls: Option<Live<ServerTls>>) -> Self {
        Self { tls, ..self }
    }

    /// Lets callers open WebSockets over HTTP/2 (RFC 8441). Over HTTP/1.1 nobody has to be told that they may.
    #[must_use]
    pub fn with_websockets(self) -> Self {
        Self { websockets: true, ..self }
    }

    /// Makes of a socket what HTTP is spoken on. `None`: a drain began first.
    ///
    /// # Errors
    /// When TLS was due and did not come about in time. The limits of a first byte and of a head hold for the handshake.
    pub async fn open(&self, socket: Socket) -> Result<Option<Stream>, ServeError> {
        match (socket, &self.tls) {
            // Big, and once in a connection's life.
            (Socket::Tcp(stream), Some(tls)) => {
                Box::pin(self.handshake(stream, tls.current())).await.map_err(ServeError::Handshake)
            }
            (socket, _) => Ok(Some(socket.into())),
        }
    }

    /// Counts a failed handshake, and tells of it now and then.
    pub fn shaken_off(&self, error: &io::Error, peer: PeerAddress, shard: &Shard) {
        self.builders.refusals.tell(error, peer, shard.tls_handshake_errors());
    }

    async fn handshake(&self, stream: TcpStream, tls: Arc<ServerTls>) -> io::Result<Option<Stream>> {
        let shake = async {
            within(self.limits.first_byte, stream.peek(&mut [0])).await?;
            let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
            let stream = within(self.limits.header_read, acceptor.accept(stream)).await?;
            Ok(Some(Stream::Tls(Box::new(stream), Arc::clone(&tls.leaf))))
        };
        tokio::select! {
            () = self.shutdown.draining() => Ok(None),
            shaken = shake => shaken,
        }
    }

    /// Serves one connection to its end.
    ///
    /// # Errors
    /// When it did not end well; nothing is left to be done about it but to count it.
    pub async fn serve<S, B>(&self, stream: Stream, connection: Arc<Connection>, service: S) -> Result<(), ServeError>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = std::convert::Infallible, Future: Send + 'static>
            + Send,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let settled = stream.settled();
        let mut io = Watched::new(stream, Arc::clone(&connection), &self.limits);
        let detected = {
            let mut drain = pin!(self.drained_for_a_while());
            let mut detect = pin!(detect(&mut io));
            // What has come already is served, also in a drain.
            poll_fn(|cx| match detect.as_mut().poll(cx) {
                Poll::Ready(detected) => Poll::Ready(Some(detected)),
                Poll::Pending => drain.as_mut().poll(cx).map(|()| None),
            })
            .await
        };
        let (version, first) = match detected {
            None | Some(Ok(None)) => return Ok(()),
            // A handshake that has settled on a protocol has the last word.
            Some(Ok(Some((found, first)))) => (settled.unwrap_or(found), first),
            Some(Err(error)) => return Err(ServeError::Early(error)),
        };
        io.rewind(first);
        connection.set_version(version);
        let io = TokioIo::new(io);
        let served = match version {
            Version::Http1 => {
                let http = pin!(self.builders.http1.serve_connection(io, service).with_upgrades());
                self.drive(http, &connection, http1::UpgradeableConnection::graceful_shutdown).await
            }
            Version::Http2 => {
                let http = pin!(self.http2(&connection).serve_connection(io, service));
                self.drive(http, &connection, http2::Connection::graceful_shutdown).await
            }
        };
        served.map_err(|error| if error.is_parse() { ServeError::Parse(error) } else { ServeError::Broken(error) })
    }

    /// Resolves [`LEAVE`] after the beginning of a drain.
    async fn drained_for_a_while(&self) {
        self.shutdown.draining().await;
        tokio::time::sleep(LEAVE).await;
    }

    /// Drives a connection. A drain asks it, once, to end after what is under way; so does an HTTP/2 connection's
    /// having been idle for too long. Where nothing is under way, a request may be on its way to us: it is waited for, a
    /// while, and its answer is the last one.
    async fn drive<C: Future>(
        &self,
        mut http: Pin<&mut C>,
        connection: &Connection,
        shut: impl Fn(Pin<&mut C>),
    ) -> C::Output {
        let mut drain = pin!(self.shutdown.draining());
        let (mut registered, mut asked, mut woken) = (false, false, false);
        // Boxed: only a drain needs it.
        let mut leave: Option<Pin<Box<Sleep>>> = None;
        let mut place = Place::default();
        poll_fn(|cx| {
            // Outside a request it was most likely woken by the next one.
            if connection.version() == Version::Http1
                && connection.phase() != Phase::Busy
                && self.turns.poll(&mut place, cx).is_pending()
            {
                return Poll::Pending;
            }
            // The drain's waker is this task's, which stays the same: registering it once is enough, and afterwards a
            // poll costs one load instead of a lock that all connections share.
            if !asked && leave.is_none() && (!registered || self.shutdown.is_draining()) {
                registered = true;
                if drain.as_mut().poll(cx).is_ready() {
                    connection.leave();
                    leave = Some(Box::pin(tokio::time::sleep(LEAVE)));
                }
            }
            if let Some(leave) = &mut leave
                && !asked
                && (!connection.may_be_asked() || leave.as_mut().poll(cx).is_ready())
            {
                asked = true;
                shut(http.as_mut());
            }
            // Looked at also when it was asked already: from then on its peer's time to go is limited.
            let idle = connection.close_when_idle();
            if !asked && (idle || retires(connection)) {
                asked = true;
                shut(http.as_mut());
            }
            let polled = http.as_mut().poll(cx);
            // hyper looked at the socket while the request was under way and does not look again when it ends, so
            // nothing else arms the limit of an HTTP/1 connection that turns idle.
            if polled.is_pending() {
                let retired = connection.poll_retirement(cx).is_ready() && retires(connection) && !asked;
                let over = connection.poll_idle(cx).is_ready() || retired;
                if over && !woken {
                    cx.waker().wake_by_ref();
                }
                woken = over;
            }
            polled
        })
        .await
    }
}

/// Whether a connection that has served for long enough, or is worn, is told to end now: HTTP/2 at once, by GOAWAY. HTTP/1
/// has no such word between two requests, where closing would race with the next one: its next answer says
/// `Connection: close`.
fn retires(connection: &Connection) -> bool {
    (connection.is_retired() || connection.is_worn()) && connection.version() == Version::Http2
}

async fn within<T>(limit: Option<Duration>, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, what).await?,
        None => what.await,
    }
}

/// Reads until it is certain which protocol the caller speaks. `None`: it said nothing and left.
async fn detect(io: &mut Watched) -> io::Result<Option<(Version, Bytes)>> {
    let mut buffer = bytes::BytesMut::with_capacity(8192);
    loop {
        if io.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
        let compared = buffer.len().min(PREFACE.len());
        if buffer[..compared] != PREFACE[..compared] {
            return Ok(Some((Version::Http1, buffer.freeze())));
        }
        if compared == PREFACE.len() {
            return Ok(Some((Version::Http2, buffer.freeze())));
        }
    }
}

/// Answers a connection beyond `max_connections` and closes it. Reads a little first: closing a socket with unread
/// bytes would reset it, and the answer would be lost.
pub async fn turn_away(serving: &Serving, socket: Socket, answer: &[u8]) {
    let patience = Duration::from_secs(1);
    let mut scratch = [0; 4096];
    let polite = async {
        let Ok(Some(mut stream)) = serving.open(socket).await else { return Ok(()) };
        // HTTP/2 has no answer before its settings; a close says enough.
        if stream.settled() == Some(Version::Http2) {
            return Ok(());
        }
        let _ = stream.read(&mut scratch).await?;
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // A caller that breaks off here has got all that there was for it.
    let _ = tokio::time::timeout(patience, polite).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures_util::future::join_all;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::address::BoundAddress;
    use crate::listener::connection::Ends;
    use crate::metrics::ListenerId;

    const LIMITS: Limits = Limits {
        max_connections: 100,
        max_header_bytes: 8192,
        max_uri_bytes: 8192,
        first_byte: None,
        header_read: None,
        idle: None,
        body_progress: None,
        write_stall: None,
        request_body: None,
        max_age: None,
    };

    /// Fails where all requests that have come are begun before the sockets are looked at again.
    #[tokio::test]
    async fn requests_that_came_together_are_begun_in_turns() {
        let serving = Serving::new(Arc::new(LIMITS), Spawner::current(), Shutdown::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ends =
            Ends { peer: PeerAddress::Tcp(address), local: BoundAddress::Tcp(address), listener: ListenerId::new(0) };
        let (begun, before_the_first_end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (mut callers, mut sockets) = (Vec::new(), Vec::new());
        for _ in 0..turns::TURN * 3 {
            let mut caller = TcpStream::connect(address).await.unwrap();
            caller.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            callers.push(caller);
            sockets.push(listener.accept().await.unwrap().0);
        }
        join_all(sockets.into_iter().map(|socket| {
            let (serving, connection) = (serving.clone(), Arc::new(Connection::new(ends.clone(), None, &LIMITS)));
            let (on, begun, first) = (Arc::clone(&connection), Arc::clone(&begun), Arc::clone(&before_the_first_end));
            let service = service_fn(move |_| {
                let (on, begun, first) = (Arc::clone(&on), Arc::clone(&begun), Arc::clone(&first));
                async move {
                    on.begin_request();
                    begun.fetch_add(1, Relaxed);
                    // Goes on after the next look at the sockets, as what waits for an answer does at the earliest.
                    tokio::task::yield_now().await;
                    let _ = first.compare_exchange(0, begun.load(Relaxed), Relaxed, Relaxed);
                    on.end_request(Instant::now());
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
                }
            });
            Spawner::current()
                .spawn(async move { serving.serve(Socket::Tcp(socket).into(), connection, service).await })
        }))
        .await;
        assert_eq!(begun.load(Relaxed), callers.len());
        assert!(before_the_first_end.load(Relaxed) <= turns::TURN as usize * 2, "{before_the_first_end:?}");
    }
}
