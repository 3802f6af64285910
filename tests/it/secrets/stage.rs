//! The real binary with everything turned on that has to do with secrets, an issuer that fails as its template says and
//! repeats what it was asked with, and upstreams that say back whatever reaches them.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use mintgate::lifecycle::Shutdown;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixStream};

use super::canaries::Canaries;
use crate::harness::{Binary, now_ms, serve};
use crate::support::authority::Authority;
use crate::support::directory::Directory;
use crate::support::doors::Door;
use crate::support::faults::Proxy;
use crate::support::http2;
use crate::support::issuer::Issuer;
use crate::support::tls;
use crate::support::upstream::{Upstream, Visit};
use crate::support::websocket::{accept, agreement, frame};
use crate::support::wire::Wire;

/// Letters that stand nowhere else. Two secret keys, as during a rotation; what is fixed has characters that a URL
/// escapes.
pub(super) const SECRET: &str = "sk_test_canaryQ7x9Zk2Vw4mN8r";
const OLD_SECRET: &str = "sk_test_canaryOldT5y1Bc7Hd3Lf";
const FIXED: &str = "canaryFixed+/=8Hj3LpW6sD2x";
pub(super) const CALLER: &str = "canaryCaller9Gv4Ns7Qm2Ze";
pub(super) const COOKIE: &str = "canaryCookieK2m9Xw4bRt7J";
pub(super) const QUERY: &str = "canaryQueryR5t7Yb3Nc8Mz";
pub(super) const BODY: &str = "canaryBodyU6i8Oq1Wf4Vx";

/// Everything that runs.
pub(super) struct Stage {
    pub(super) binary: Binary,
    /// Signs session tokens.
    pub(super) issuer: Issuer,
    authority: tls::Authority,
    files: Directory,
    minted: Minted,
    /// Where the environment says that a proxy is.
    pub(super) env_proxy: TcpListener,
    /// For the issuer, over TLS.
    _front: Proxy,
    shutdown: Shutdown,
}

/// How a caller comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Plain1,
    Plain2,
    Tls1,
    Tls2,
}

/// A request.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) host: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) status: u16,
    /// Empty for an upstream's answer.
    pub(super) code: String,
    /// All of it.
    pub(super) text: String,
}

/// The tokens that were minted.
#[derive(Clone, Default)]
struct Minted(Arc<Mutex<Vec<String>>>);

const CONFIG: &str = r#"
[clerk]
secret_key = [{ file = "secret" }, { env = "OLD_SECRET" }]
publishable_key = "pk_test_Y2xlcmsuZW11bGF0b3IuaW52YWxpZCQ"
issuer = "https://clerk.emulator.invalid"
authorized_parties = ["https://app.example.com"]
api_url = "{clerk}"
ca_file = "ca.pem"
jwt_key = { file = "jwt.pem" }
timeout = "2s"
[clerk.budget]
requests = 100000
per_session = "10000/10s"
[server]
listen = ["127.0.0.1:0", { name = "local", address = "unix:proxy.sock" }]
tls = { cert = "cert.pem", key = "key.pem" }
max_connections = 60
max_uri_bytes = "4KiB"
max_header_bytes = "16KiB"
request_body_limit = "1KiB"
body_progress_timeout = "1s"
[admin]
listen = "127.0.0.1:0"
[log]
access = "all"
identity = "plain"
filter = "trace"
format = "json"
[upstreams.up]
url = "{up}"
[upstreams.tls]
url = "{tls}"
tls = { ca_file = "ca.pem" }
[upstreams.h2]
url = "{h2}"
http2 = true
[upstreams.slow]
url = "{up}"
response_timeout = "300ms"
[upstreams.small]
url = "{up}"
max_header_bytes = "1KiB"
[upstreams.gone]
url = "{gone}"
"#;

/// What every route injects beside its own.
const ALWAYS: &str = r#"{ header = "apikey", value = { env = "FIXED" } },
  { header = "x-session-token", session_token = true }"#;

// === impl Stage ===

impl Stage {
    pub(super) async fn new() -> Self {
        let (shutdown, files, minted) = (Shutdown::new(), Directory::new(), Minted::default());
        let (issuer, authority, peers) = (Issuer::minting(|_, _| Err(404)), tls::Authority::new(), Authority::new());
        let own = authority.identity(&["a.test", "localhost"]);
        for (name, text) in [
            ("cert.pem", &own.cert),
            ("key.pem", &own.key),
            ("ca.pem", &peers.pem),
            ("jwt.pem", &issuer.pem()),
            ("secret", &format!("{SECRET}\n")),
            ("caller", &CALLER.to_owned()),
        ] {
            files.write(name, text);
        }
        let clerk = serve(Router::new().fallback(clerk).with_state(minted.clone()), &shutdown);
        let front = Proxy::with_tls(clerk, peers.server(&["127.0.0.1"], &["h2"]));
        let plain = Upstream::behind(Door::tcp().await, echo);
        let secure = Upstream::behind(Door::tls(peers.server(&["127.0.0.1"], &["http/1.1"])).await, echo);
        let h2 = serve(Router::new().fallback(echo_http2), &shutdown);
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = (CONFIG.to_owned() + &routes())
            .replace("{clerk}", &front.url())
            .replace("{up}", &plain.url())
            .replace("{tls}", &format!("https://{}", secure.address))
            .replace("{h2}", &format!("http://{h2}"))
            .replace("{gone}", &format!("http://{gone}"));
        let env_proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", env_proxy.local_addr().unwrap());
        let mut vars = vec![("OLD_SECRET", OLD_SECRET), ("FIXED", FIXED), ("MINTGATE_LOG", "trace"), ("NO_PROXY", "")];
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            vars.push((name, &proxy));
        }
        let binary = Binary::start_at(&files.path("mintgate.toml"), &config, &vars).await;
        Self { binary, issuer, authority, files, minted, env_proxy, _front: front, shutdown }
    }

    /// What must be seen nowhere, beside what callers send.
    pub(super) fn canaries(&self) -> Canaries {
        let mut canaries = Canaries::default();
        for (name, text) in [
            ("the secret key", &SECRET["sk_test_".len()..]),
            ("the old secret key", &OLD_SECRET["sk_test_".len()..]),
            ("the fixed value", FIXED),
            ("the caller token", CALLER),
            ("a cookie", COOKIE),
            ("a query", QUERY),
            ("a body", BODY),
        ] {
            canaries.add(name, text);
        }
        let key = std::fs::read_to_string(self.files.path("key.pem")).unwrap();
        for line in key.lines().filter(|line| !line.starts_with('-') && line.len() > 20) {
            canaries.add("the private key", line);
        }
        for token in self.minted.0.lock().unwrap().iter() {
            canaries.add_token("a minted token", token);
        }
        canaries
    }

    /// How many tokens were minted.
    pub(super) fn mints(&self) -> usize {
        self.minted.0.lock().unwrap().len()
    }

    /// Asks on a connection of its own.
    pub(super) async fn ask(&self, way: Way, ask: &Ask) -> Heard {
        match way {
            Way::Plain1 | Way::Tls1 => {
                let mut wire = self.wire(way).await;
                wire.send(ask.written()).await;
                Heard::read(&mut wire).await
            }
            Way::Plain2 | Way::Tls2 => {
                let scheme = if way == Way::Tls2 { "https" } else { "http" };
                let uri = format!("{scheme}://{}{}", ask.host, ask.path);
                let mut request = http::Request::builder().method(ask.method).uri(uri);
                for (name, value) in &ask.headers {
                    request = request.header(*name, value);
                }
                let body = if ask.body.is_empty() { http2::empty() } else { http2::full(ask.body.clone()) };
                Heard::of(&self.streams(way).await.ask(request.body(body).unwrap()).await)
            }
        }
    }

    /// A connection of HTTP/2.
    pub(super) async fn streams(&self, way: Way) -> http2::Client {
        match way {
            Way::Tls1 | Way::Tls2 => http2::Client::over(self.tls(&["h2"]).await).await,
            Way::Plain1 | Way::Plain2 => http2::Client::over(self.unix().await).await,
        }
    }

    /// A connection of HTTP/1.
    pub(super) async fn wire(&self, way: Way) -> Wire {
        match way {
            Way::Tls1 | Way::Tls2 => Wire::over(self.tls(&["http/1.1"]).await),
            Way::Plain1 | Way::Plain2 => Wire::over(self.unix().await),
        }
    }

    async fn unix(&self) -> UnixStream {
        UnixStream::connect(self.files.path("proxy.sock")).await.unwrap()
    }

    async fn tls(&self, alpn: &[&str]) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        self.authority.client(alpn, None).connect(self.binary.address, "a.test").await.unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

// === impl Ask, Heard ===

impl Ask {
    pub(super) fn get(path: &str) -> Self {
        Self { method: "GET", host: "a.test", path: path.to_owned(), headers: Vec::new(), body: String::new() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// In HTTP/1.1.
    pub(super) fn written(&self) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.path, self.host);
        for (name, value) in &self.headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        if !self.body.is_empty() {
            write!(text, "content-length: {}\r\n", self.body.len()).unwrap();
        }
        text + "\r\n" + &self.body
    }
}

impl Heard {
    /// The next answer of HTTP/1; one that is none has neither status nor code.
    pub(super) async fn read(wire: &mut Wire) -> Self {
        match wire.response_to("GET").await {
            Ok(answer) => Self {
                status: answer.status(),
                code: answer.outcome().1.to_owned(),
                text: String::from_utf8_lossy(&answer.raw).into_owned(),
            },
            Err(error) => Self { status: 0, code: String::new(), text: error.0 },
        }
    }

    /// An answer of HTTP/2.
    pub(super) fn of(answer: &http2::Answer) -> Self {
        Self {
            status: answer.status,
            code: answer.outcome().1.to_owned(),
            text: format!("{}\n{}", shown(&answer.headers), String::from_utf8_lossy(&answer.body)),
        }
    }
}

fn shown(headers: &HeaderMap) -> String {
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    headers.iter().map(line).collect::<Vec<_>>().concat()
}

// === what it stands between ===

fn routes() -> String {
    let route = |name: &str, more: &str, token: &str| {
        let inject = if token.is_empty() { ALWAYS.to_owned() } else { format!("{token},\n  {ALWAYS}") };
        format!("[[routes]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\n{more}\ninject = [\n  {inject},\n]\n")
    };
    let minting =
        |template: &str| format!("{{ header = \"authorization\", prefix = \"Bearer \", template = \"{template}\" }}");
    let mut all = String::new();
    for template in
        ["good", "absent", "ended", "rejected", "refused", "malformed", "unfit", "down", "throttled", "slow"]
    {
        all += &route(template, "upstream = \"up\"", &minting(template));
    }
    let stale = "{ header = \"x-token\", template = \"stale\", expect = { \"/org_id\" = \"org_id\" } }";
    all += &route("stale", "upstream = \"up\"", stale);
    for (name, upstream) in
        [("tls", "tls"), ("h2", "h2"), ("hang", "slow"), ("stall", "up"), ("small", "small"), ("gone", "gone")]
    {
        all += &route(name, &format!("upstream = \"{upstream}\""), &minting("good"));
    }
    all += &route("broken", "upstream = \"up\"", &minting("good"));
    all += &route("ws", "upstream = \"up\"", &minting("good"));
    all += &route("owners", "upstream = \"up\"\nrequire = { org_role = [\"org:owner\"] }", "");
    let retry = "retry_rejected = { statuses = [401], max_body = \"1KiB\" }";
    all += &route("refuse", &format!("upstream = \"up\"\n{retry}"), &minting("good"));
    let named =
        "session = [{ session_id_header = \"x-sid\", trust = \"unverified\", caller_token = { file = \"caller\" } }]";
    let job = format!(
        "[[routes]]\nname = \"job\"\nmatch = {{ path = \"/job\" }}\nupstream = \"up\"\n{named}\ninject = [{}]\n",
        minting("good")
    );
    all + &job
        + "[[routes]]\nname = \"read\"\nmatch = { path = \"/read\", methods = [\"GET\"] }\nupstream = \"up\"\nsession = []\n"
}

/// Fails as the template says, and repeats what it was asked with wherever an answer has room for it.
async fn clerk(State(minted): State<Minted>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let key = request.headers().get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap()).to_owned();
    if path == "/v1/jwks" {
        return axum::Json(json!({ "keys": [], "asked": key })).into_response();
    }
    let Some((sid, template)) = path.strip_prefix("/v1/sessions/").and_then(|rest| rest.split_once("/tokens/")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let key = key.trim_start_matches("Bearer ");
    let token = minted.mint(sid, template);
    let problem = |status: u16, message: &str| {
        let text = format!("{message}: {key} {token}");
        let error = json!({ "message": message, "long_message": text, "code": key });
        let body = json!({ "errors": [error], "clerk_trace_id": token.rsplit('.').next(), "jwt": token });
        let headers =
            [("x-echo", HeaderValue::from_str(&text).unwrap()), ("retry-after", HeaderValue::from_static("1"))];
        (StatusCode::from_u16(status).unwrap(), headers, axum::Json(body)).into_response()
    };
    match template {
        "absent" => problem(404, "JWT template not found"),
        "ended" => problem(404, "Session not found"),
        "rejected" => problem(401, "Invalid key"),
        "refused" => problem(400, "no"),
        "malformed" => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], format!("{key} {token}")).into_response()
        }
        "unfit" => axum::Json(json!({ "jwt": format!("{token}\r\nx: {key}") })).into_response(),
        "down" => problem(500, "out of order"),
        "throttled" => problem(429, "too many"),
        "slow" => std::future::pending().await,
        _ => axum::Json(json!({ "object": "token", "jwt": token })).into_response(),
    }
}

impl Minted {
    /// A token that nobody verifies, with a signature of its own.
    fn mint(&self, sid: &str, template: &str) -> String {
        let mut all = self.0.lock().unwrap();
        let iat = now_ms() / 1000;
        let claims =
            json!({ "sid": sid, "iat": iat, "exp": iat + 300, "org_id": "org_other", "jti": all.len(), "t": template });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signature = URL_SAFE_NO_PAD.encode(mintgate::secret::Digest::of(claims.to_string().as_bytes()).as_bytes());
        let token = format!("{}.{}.{signature}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
        all.push(token.clone());
        token
    }
}

/// Says the request's head back in its answer's, by its path well or badly.
async fn echo(mut visit: Visit) {
    while let Some(request) = visit.request().await {
        let path = request.start.split(' ').nth(1).unwrap_or_default();
        let line = |(name, value): &(String, String)| format!("x-echo: {name}: {value}\r\n");
        let lines = request.fields.iter().map(line).collect::<Vec<_>>().concat();
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let answer = |status: &str| {
            format!("HTTP/1.1 {status}\r\nset-cookie: {COOKIE}\r\n{lines}content-length: {}\r\n\r\n{body}", body.len())
        };
        if let Some(key) = request.one("sec-websocket-key") {
            let agreed = agreement(&accept(key)).replace("\r\n\r\n", &format!("\r\n{lines}\r\n"));
            visit.wire.send(agreed).await;
            let Ok(got) = visit.wire.frame().await else { return };
            visit.wire.send(frame(got.first, &got.payload)).await;
            // Not a frame: the gateway has to say what is wrong with it.
            visit.wire.send(format!("\u{7f}{lines}")).await;
            return;
        }
        match path.split(['/', '?']).nth(1).unwrap_or_default() {
            "broken" => {
                visit.wire.send(format!("HTTP/1.1 200 OK\r\n{}", lines.replace("x-echo: ", "x echo "))).await;
                visit.wire.send("\r\n").await;
                return;
            }
            "hang" => visit.wire.wait().await,
            "refuse" => visit.wire.send(answer("401 Unauthorized")).await,
            _ => visit.wire.send(answer("200 OK")).await,
        }
    }
}

async fn echo_http2(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut answer = Response::new(axum::body::Body::from(body.collect().await.unwrap().to_bytes()));
    for (name, value) in &head.headers {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes()].concat();
        answer.headers_mut().append("x-echo", HeaderValue::from_bytes(&line).unwrap());
    }
    answer
}
