//! A gateway on loopback with everything around it: a Clerk emulator whose mints a test can hold back, forge or refuse,
//! an upstream that remembers what reached it, and callers. Or the real binary, with its log.

use std::collections::HashMap;
use std::io::{self, BufRead as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mintgate::app::issuance::ClerkMint;
use mintgate::app::surfaces::Kind;
use mintgate::app::{self, Process};
use mintgate::clock::Clock;
use mintgate::config::Config;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::emulator::{Emulator, Options, base_url};
use mintgate::lifecycle::{Shutdown, Spawner};
use mintgate::listener::bound::Inherited;
use mintgate::metrics::{Lookup, Metrics, RouteId};
use mintgate::proxy::gateway::Gateway;
use mintgate::surface::Surface;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Long enough for any machine: only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The two sessions of the emulator's seed.
pub(crate) const ALICE: &str = "sess_emulator_alice";
pub(crate) const BOB: &str = "sess_emulator_bob";

/// A caller's connections.
pub(crate) type Client = legacy::Client<HttpConnector, Full<Bytes>>;

/// What is booted.
#[derive(Default)]
pub(crate) struct Boot<'a> {
    /// More lines of `[clerk]`.
    pub(crate) clerk: &'a str,
    /// The other tables and the routes; the upstream is `up`.
    pub(crate) tables: &'a str,
    /// HTTP/2 to the upstream.
    pub(crate) http2: bool,
    /// Of the emulator.
    pub(crate) options: Options,
    /// What the gateway presents, when it is not the emulator's secret key.
    pub(crate) secret_key: Option<&'a str>,
}

/// Everything that runs. It ends when this is dropped.
pub(crate) struct Harness {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) world: World,
    /// What requests meet.
    pub(crate) gateway: Arc<Gateway<ClerkMint>>,
}

/// What a gateway stands between.
pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) emulator_at: SocketAddr,
    pub(crate) upstream_at: SocketAddr,
    pub(crate) script: Script,
    pub(crate) seen: Seen,
    shutdown: Shutdown,
}

/// What the issuer does when a token is asked for.
#[derive(Clone)]
pub(crate) struct Script(Arc<ScriptState>);

struct ScriptState {
    mints: AtomicU64,
    held: watch::Sender<bool>,
    refusal: Mutex<Option<(u16, &'static str)>>,
    /// Seconds of life of what is minted for the template `forged`.
    life: AtomicU64,
}

/// The heads of the requests that reached the upstream.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<HeaderMap>>>);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// The real binary, running.
pub(crate) struct Binary {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Standard output.
    printed: Arc<Mutex<String>>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// An environment that has nothing but what a test put there.
struct Prepared {
    vars: HashMap<&'static str, String>,
    /// What every file holds.
    file: String,
}

/// Waits for something that must come about.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never came about: {what}");
}

/// Connections of one caller.
pub(crate) fn client(http2: bool) -> Client {
    legacy::Client::builder(TokioExecutor::new()).http2_only(http2).build_http()
}

/// Calls and reads the answer.
pub(crate) async fn call(client: &Client, method: Method, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let exchange = async {
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap()
}

/// The claims of a token, whoever signed it.
pub(crate) fn claims(token: &str) -> Value {
    let part = token.trim_start_matches("Bearer ").split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    Clock::system().now().wall.as_millis()
}

/// Serves a router on a port that the kernel chose, on the runtime that calls this.
pub(crate) fn serve(router: Router, shutdown: &Shutdown) -> SocketAddr {
    let surface = Surface::bind("127.0.0.1:0".parse().unwrap(), router).unwrap();
    let address = surface.address();
    let (tasks, shutdown) = (Spawner::current(), shutdown.clone());
    let until = shutdown.stopped();
    drop(tasks.spawn(surface.run(tasks.sibling(), shutdown, until)));
    address
}

// === impl World ===

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let shutdown = Shutdown::new();
        let emulator = Emulator::new(options, Clock::system()).unwrap();
        let (script, seen) = (Script::new(), Seen::default());
        let scripted = emulator.router().layer(from_fn_with_state(script.clone(), scripted));
        let upstream = Router::new().fallback(record).with_state(seen.clone());
        let (emulator_at, upstream_at) = (serve(scripted, &shutdown), serve(upstream, &shutdown));
        Self { emulator, emulator_at, upstream_at, script, seen, shutdown }
    }

    /// The configuration of a gateway in the midst of it.
    pub(crate) fn config(&self, clerk: &str, tables: &str, http2: bool) -> String {
        format!(
            r#"[clerk]
secret_key = {{ env = "CLERK_SECRET_KEY" }}
publishable_key = "{}"
api_url = "{}"
{clerk}
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[upstreams.up]
url = "{}"
http2 = {http2}
{tables}
"#,
            self.emulator.publishable_key(),
            base_url(self.emulator_at),
            base_url(self.upstream_at),
        )
    }

    /// A new session of a user.
    pub(crate) async fn begin_session(&self, client: &Client, user: &str) -> String {
        let answer = self.api(client, "/v1/sessions", &json!({ "user_id": user })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// A call of the emulator's API with the secret key.
    pub(crate) async fn api(&self, client: &Client, path: &str, body: &Value) -> Answer {
        let key = format!("Bearer {}", self.emulator.secret_key().expose());
        let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
        let url = format!("{}{path}", base_url(self.emulator_at));
        call(client, Method::POST, &url, &headers, &body.to_string()).await
    }

    /// `Bearer` and a fresh session token.
    pub(crate) fn bearer(&self, session: &str) -> String {
        format!("Bearer {}", self.emulator.session_token(session).unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

/// A gateway that serves on the test's own runtime, and where.
pub(crate) struct Booted {
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) token_api: Option<SocketAddr>,
    pub(crate) gateway: Arc<Gateway<ClerkMint>>,
}

/// Boots on the runtime that calls this, and waits until requests are welcome.
pub(crate) async fn in_place(config: Config, clock: Clock, shutdown: &Shutdown) -> Booted {
    let process = Process {
        clock,
        shutdown: shutdown.clone(),
        control: Spawner::current(),
        dropped_lines: None,
        inherited: Inherited::default(),
        levers: None,
        in_place: true,
    };
    let bound = app::bind(config, process).unwrap();
    let (address, admin, token_api) = (bound.address().unwrap(), bound.admin(), bound.surface(Kind::TokenApi));
    let (gateway, ready) = (bound.gateway(), bound.readiness().clone());
    let stopped = shutdown.stopped();
    drop(Spawner::current().spawn(async move { bound.run(stopped).await.unwrap() }));
    until("the gateway is ready", || ready.ready().is_ok()).await;
    Booted { address, admin, token_api, gateway }
}

// === impl Harness ===

impl Harness {
    /// Boots on the runtime that calls this, and waits until requests are welcome.
    pub(crate) async fn boot(boot: Boot<'_>) -> Self {
        let world = World::new(boot.options);
        let text = world.config(boot.clerk, boot.tables, boot.http2);
        let key = boot.secret_key.unwrap_or_else(|| world.emulator.secret_key().expose()).to_owned();
        let environment =
            Prepared { vars: HashMap::from([("CLERK_SECRET_KEY", key)]), file: world.emulator.jwt_key().unwrap() };
        let parsed = validate::parse(&text, Path::new("test.toml"), &environment, Secrets::Required);
        let (config, _) = parsed.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let booted = in_place(config, Clock::system(), &world.shutdown).await;
        let (metrics, admin) = (Arc::clone(&booted.gateway.metrics), booted.admin.unwrap());
        let Booted { address, gateway, .. } = booted;
        Self { address, admin, metrics, world, gateway }
    }

    /// A GET through the gateway as this session; `None`: without a credential.
    pub(crate) async fn get(&self, client: &Client, path: &str, bearer: Option<&str>) -> Answer {
        let sent = now_ms().to_string();
        let mut headers = vec![("x-sent-at", sent.as_str())];
        headers.extend(bearer.map(|bearer| ("authorization", bearer)));
        call(client, Method::GET, &format!("http://{}{path}", self.address), &headers, "").await
    }

    /// Look-ups of the first route that ended so.
    pub(crate) fn lookups(&self, lookup: Lookup) -> u64 {
        self.metrics.shards().iter().map(|shard| shard.lookups(RouteId::new(0), lookup).get()).sum()
    }

    /// Requests of the first route whose caller went away.
    pub(crate) fn gone(&self) -> u64 {
        let gone = self.metrics.client_gone();
        self.metrics.shards().iter().map(|shard| shard.requests(RouteId::new(0), gone).get()).sum()
    }
}

// === impl Script ===

impl Script {
    fn new() -> Self {
        Self(Arc::new(ScriptState {
            mints: AtomicU64::new(0),
            held: watch::Sender::new(false),
            refusal: Mutex::default(),
            life: AtomicU64::new(300),
        }))
    }

    /// How many tokens were asked for.
    pub(crate) fn mints(&self) -> u64 {
        self.0.mints.load(SeqCst)
    }

    /// Hold every answer back, or let them go.
    pub(crate) fn hold(&self, held: bool) {
        self.0.held.send_replace(held);
    }

    /// Answer with this status, and `Retry-After` when it is not empty.
    pub(crate) fn refuse(&self, refusal: Option<(u16, &'static str)>) {
        *self.0.refusal.lock().unwrap() = refusal;
    }

    /// How long the tokens of the template `forged` live, in seconds.
    pub(crate) fn life(&self, seconds: u64) {
        self.0.life.store(seconds, SeqCst);
    }
}

/// Before the emulator: what the script says.
async fn scripted(State(Script(script)): State<Script>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let Some((session, template)) = path.strip_prefix("/v1/sessions/").and_then(|rest| rest.split_once("/tokens"))
    else {
        return next.run(request).await;
    };
    script.mints.fetch_add(1, SeqCst);
    let mut held = script.held.subscribe();
    held.wait_for(|held| !held).await.unwrap();
    if let Some((status, retry_after)) = *script.refusal.lock().unwrap() {
        let status = StatusCode::from_u16(status).unwrap();
        return if retry_after.is_empty() {
            status.into_response()
        } else {
            (status, [(header::RETRY_AFTER, retry_after)]).into_response()
        };
    }
    if template != "/forged" {
        return next.run(request).await;
    }
    let iat = now_ms() / 1000;
    let life = i64::try_from(script.life.load(SeqCst)).unwrap();
    let claims = json!({ "sid": session, "iat": iat, "exp": iat + life });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let jwt = format!("{}.{}.c2ln", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
    axum::Json(json!({ "object": "token", "jwt": jwt })).into_response()
}

// === impl Seen ===

impl Seen {
    /// What has come so far.
    pub(crate) fn take(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn record(State(Seen(seen)): State<Seen>, request: Request) -> &'static str {
    seen.lock().unwrap().push(request.headers().clone());
    "ok"
}

// === impl Answer ===

impl Answer {
    /// The gateway's own error code; empty when the answer is the upstream's.
    pub(crate) fn code(&self) -> &str {
        self.headers.get("x-mintgate-error").map_or("", |code| code.to_str().unwrap())
    }
}

// === impl Binary ===

impl Binary {
    /// Starts the binary with a configuration of this text and waits until it is ready.
    pub(crate) async fn start(name: &str, config: &str, vars: &[(&str, &str)]) -> Self {
        Self::start_under(":", name, config, vars).await
    }

    /// The same, after that line of a shell, such as `ulimit -n 64`.
    pub(crate) async fn start_under(line: &str, name: &str, config: &str, vars: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{line}\nexec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_mintgate"));
        command.envs(vars.iter().copied());
        Self::run(command, &path, config).await
    }

    /// The same with the configuration in that file.
    pub(crate) async fn start_at(path: &Path, config: &str, vars: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
        command.envs(vars.iter().copied());
        Self::run(command, path, config).await
    }

    /// The same, as soon as it listens: it may never be ready.
    pub(crate) async fn start_listening(name: &str, config: &str, vars: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
        command.envs(vars.iter().copied());
        Self::listening(command, &path, config).await
    }

    async fn listening(mut command: Command, path: &Path, config: &str) -> Self {
        std::fs::write(path, config).unwrap();
        command.arg("run").arg("--config").arg(path);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (log, printed) = (collect(child.stderr.take().unwrap()), collect(child.stdout.take().unwrap()));
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut binary = Self { child, log, printed, address: unknown, admin: unknown };
        until("the binary listens", || {
            let ended = binary.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}\n{}", binary.log());
            let said = binary.said("listening").zip(binary.said("admin listening"));
            if let Some(addresses) = said {
                (binary.address, binary.admin) = addresses;
            }
            said.is_some()
        })
        .await;
        binary
    }

    async fn run(command: Command, path: &Path, config: &str) -> Self {
        let binary = Self::listening(command, path, config).await;
        let client = client(false);
        let waited = tokio::time::timeout(PATIENCE, async {
            let url = format!("http://{}/readyz", binary.admin);
            while call(&client, Method::GET, &url, &[], "").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "never ready\n{}", binary.log());
        binary
    }

    /// The address in the log line that begins so.
    pub(crate) fn said(&self, message: &str) -> Option<SocketAddr> {
        let log = self.log.lock().unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut listening = lines.filter(|line| {
            let text = line["message"].as_str().unwrap_or_default();
            text.starts_with(message) && line["address"].is_string()
        });
        listening.find_map(|line| line["address"].as_str()?.parse().ok())
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    /// Sends it SIGHUP.
    pub(crate) fn hang_up(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Everything that it has written to its log.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Everything that it has written to its standard output.
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// The memory that it has, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// What of it is no part of a file, such as its own code, in KiB.
    pub(crate) fn allocated_kib(&self) -> u64 {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }
}

/// What comes out of a pipe, from now to its end.
fn collect(pipe: impl io::Read + Send + 'static) -> Arc<Mutex<String>> {
    let all = Arc::<Mutex<String>>::default();
    let there = Arc::clone(&all);
    drop(std::thread::spawn(move || {
        for line in io::BufReader::new(pipe).split(b'\n') {
            let mut lines = there.lock().unwrap();
            lines.push_str(&String::from_utf8_lossy(&line.unwrap()));
            lines.push('\n');
        }
    }));
    all
}

impl Drop for Binary {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Prepared ===

impl Environment for Prepared {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.file.clone().into_bytes())
    }

    fn exists(&self, _path: &Path) -> bool {
        true
    }
}
