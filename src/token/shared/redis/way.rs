//! The way to Redis: one server, a socket, the master that sentinels name, or a cluster; and what its refusals mean.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, Pipeline,
    ProtocolVersion, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, ServerErrorKind, TlsCertificates,
    TlsMode, Value,
};
use tokio::sync::Mutex;

use crate::config::Shared;
use crate::config::shared::{Node, Reach};
use crate::token::shared::store::StoreError;

/// For a connection, with all that is said at its beginning. Whoever waits for one has less time.
const CONNECT: Duration = Duration::from_secs(2);

/// For an answer on a connection on which something is waited for.
const LONG: Duration = Duration::from_secs(10);

/// How a connection is made.
pub(super) enum Way {
    Server(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<Mutex<SentinelClient>>),
}

/// A connection that many calls share.
#[derive(Clone)]
pub(super) enum Wire {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

// === impl Way ===

impl Way {
    pub(super) fn new(shared: &Shared) -> RedisResult<Self> {
        let mut login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        login = login.set_db(i64::from(shared.redis.database));
        if let Some(username) = &shared.username {
            login = login.set_username(username);
        }
        if let Some(password) = &shared.password {
            login = login.set_password(password.expose());
        }
        let tls = shared.redis.tls;
        let certificates = || TlsCertificates { client_tls: None, root_cert: shared.ca.as_ref().map(|ca| ca.to_vec()) };
        let place = |node: &Node| place(node, tls);
        match &shared.redis.reach {
            Reach::Server(node) => {
                let info = place(node).into_connection_info()?.set_redis_settings(login);
                client(info, tls.then(certificates)).map(|client| Self::Server(Box::new(client)))
            }
            Reach::Socket(path) => {
                let info = ConnectionAddr::Unix(path.clone()).into_connection_info()?.set_redis_settings(login);
                client(info, None).map(|client| Self::Server(Box::new(client)))
            }
            Reach::Cluster(nodes) => {
                let infos =
                    nodes.iter().map(|node| Ok(place(node).into_connection_info()?.set_redis_settings(login.clone())));
                let infos = infos.collect::<RedisResult<Vec<ConnectionInfo>>>()?;
                // One attempt: whoever asks has no time for more, and what is lost is looked for in the background.
                let mut builder = ClusterClient::builder(infos).retries(1).connection_timeout(CONNECT);
                builder = builder.response_timeout(CONNECT).use_protocol(ProtocolVersion::RESP2);
                if tls {
                    builder = builder.tls(TlsMode::Secure).certs(certificates());
                }
                builder.build().map(|client| Self::Cluster(Box::new(client)))
            }
            Reach::Sentinel { sentinels, master } => {
                let places: Vec<_> = sentinels.iter().map(place).collect();
                let mut builder = SentinelClientBuilder::new(places, master, SentinelServerType::Master)?;
                builder = builder.set_client_to_redis_db(i64::from(shared.redis.database));
                builder = builder.set_client_to_redis_protocol(ProtocolVersion::RESP2);
                if let Some(username) = &shared.username {
                    builder = builder.set_client_to_redis_username(username);
                }
                if let Some(password) = &shared.password {
                    builder = builder.set_client_to_redis_password(password.expose());
                }
                if tls {
                    builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
                    builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure);
                    builder = builder.set_client_to_redis_certificates(certificates());
                    builder = builder.set_client_to_sentinel_certificates(certificates());
                }
                Ok(Self::Sentinel(Box::new(Mutex::new(builder.build()?))))
            }
        }
    }

    /// A connection on which something may be waited for.
    pub(super) async fn line(&self) -> RedisResult<Wire> {
        let Self::Cluster(client) = self else { return self.connect().await };
        // Of its own it gives up what it waits for after [`CONNECT`].
        let config = ClusterConfig::new().set_connection_timeout(CONNECT).set_response_timeout(LONG);
        client.get_async_connection_with_config(config).await.map(Wire::Cluster)
    }

    pub(super) async fn connect(&self) -> RedisResult<Wire> {
        // Whoever asks has a limit of his own for the answers.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(None);
        let client = match self {
            Self::Server(client) => Client::clone(client),
            Self::Cluster(client) => return client.get_async_connection().await.map(Wire::Cluster),
            Self::Sentinel(sentinels) => sentinels.lock().await.async_get_client().await?,
        };
        client.get_multiplexed_async_connection_with_config(&config).await.map(Wire::Server)
    }
}

fn place(node: &Node, tls: bool) -> ConnectionAddr {
    let (host, port) = (node.host.clone(), node.port);
    if tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn client(info: ConnectionInfo, certificates: Option<TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    }
}

// === impl Wire ===

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// Whether it takes no writes.
pub(super) fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Whether it says that nobody can be served.
pub(super) fn is_useless(error: &RedisError) -> bool {
    let state = matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed
            | ErrorKind::Server(
                ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown
            )
    );
    state || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// What is to be done about it.
pub(super) fn judged(error: RedisError) -> StoreError {
    let (useless, kind) = (is_useless(&error), error.kind());
    let error = Arc::new(error);
    match kind {
        _ if useless => StoreError::Unusable(error),
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => StoreError::Refused(error),
        _ => StoreError::Lost(error),
    }
}
