//! The admin listener's answers: probes, metrics and the status page. It reads and never changes anything.
//!
//! A web page in a developer's browser can reach a loopback port. What it may not do is read the answer: there are no
//! CORS headers, and a request that names a host which somebody else's DNS could point here (DNS rebinding) is refused,
//! like one of which the browser says that another site's page makes it.

mod events;
pub mod exposition;
pub mod facts;
mod fix;
mod history;
mod page;
mod status;
#[cfg(test)]
mod testing;
mod traffic;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::clock::Clock;
use crate::lifecycle::{NotReady, Readiness, Shutdown, Spawner};
use crate::live::Live;
use crate::metrics::ledger::Ledger;
use events::Watchtower;
use exposition::{Exposition, Format};
use facts::Facts;
use history::History;
use status::Status;
use traffic::Sample;

pub use status::Hook;

/// What the admin listener shows.
pub struct Admin {
    /// Everything that is counted.
    pub ledger: Arc<Ledger>,
    /// What the probes tell.
    pub readiness: Readiness,
    /// For the age of what was fetched.
    pub clock: Clock,
    /// Hosts allowed beside IP literals and `localhost`, lower case.
    pub hosts: Vec<String>,
    /// Run before each scrape, in this order.
    pub hooks: Vec<Hook>,
    /// What is told of the configuration in use.
    pub facts: Live<Facts>,
    /// Ends the looks at the counters, and who watches.
    pub shutdown: Shutdown,
    /// Runs the looks at the counters.
    pub tasks: Spawner,
}

/// What every answer is made with.
struct Desk {
    hosts: Vec<String>,
    status: Arc<Status>,
    tower: Arc<Watchtower>,
    /// Of the status page.
    policy: String,
}

/// Why a request is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("only GET and HEAD are answered here")]
    Method,
    #[error("a request names its host once")]
    Host,
    #[error("this host name is not allowed here: use an IP address or localhost, or add the name to admin.hosts")]
    Misdirected,
    #[error("a page of another origin may not ask this")]
    Foreign,
}

const INDEX: &str = "mintgate admin

/               the status page, for a browser
/status         the same as JSON
/status/events  the same each second, as Server-Sent Events
/startupz       200 once the listeners are bound
/readyz         200 while requests should be sent here
/livez          200 while the process answers
/metrics        Prometheus text, or OpenMetrics by Accept
";

// === impl Admin ===

impl Admin {
    /// The routes. The listener, its limits and its drain are not their concern. From now on the counters are looked at,
    /// every few seconds.
    pub fn router(self) -> Router {
        let Self { ledger, readiness, clock, hosts, hooks, facts, shutdown, tasks } = self;
        let history = History::new(Sample::read(&ledger.sum(), clock.now()));
        let started = tokio::time::Instant::now();
        let status = Arc::new(Status { ledger, readiness, clock, hooks, facts, history, started });
        drop(tasks.spawn(look(Arc::clone(&status), shutdown.clone())));
        let tower = Watchtower::new(Arc::clone(&status), shutdown);
        let desk = Arc::new(Desk { hosts, status, tower, policy: page::policy() });
        Router::new()
            .route("/", get(index))
            .route("/status", get(async |State(desk): State<Arc<Desk>>| json(desk.status.json(true))))
            .route("/status/events", get(watch))
            .route("/livez", get(async || text(StatusCode::OK, "alive\n")))
            .route("/startupz", get(async |State(desk): State<Arc<Desk>>| probe(desk.status.readiness.started())))
            .route("/readyz", get(async |State(desk): State<Arc<Desk>>| probe(desk.status.readiness.ready())))
            .route("/metrics", get(scrape))
            .fallback(async || text(StatusCode::NOT_FOUND, "no such page\n"))
            .layer(middleware::from_fn_with_state(Arc::clone(&desk), guard))
            .with_state(desk)
    }
}

// === impl Desk ===

impl Desk {
    /// Whether a name cannot have been made to point here by somebody else's DNS.
    fn allows(&self, authority: &str) -> Result<(), Refusal> {
        let parsed: Authority = authority.parse().map_err(|_| Refusal::Host)?;
        if authority.contains('@') {
            return Err(Refusal::Host);
        }
        let host = parsed.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = bare.strip_suffix('.').unwrap_or(bare);
        let known = |own: &str| own.eq_ignore_ascii_case(name);
        if bare.parse::<IpAddr>().is_ok() || known("localhost") || self.hosts.iter().any(|own| known(own)) {
            Ok(())
        } else {
            Err(Refusal::Misdirected)
        }
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refusal::Method);
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (host, second) = (hosts.next(), hosts.next());
        let target = request.uri().authority();
        if let Some(authority) = target {
            self.allows(authority.as_str())?;
        }
        match (host, second) {
            (Some(host), None) => self.allows(host.to_str().map_err(|_| Refusal::Host)?),
            // Browsers name a host, so what names none is no page: an old prober.
            (None, _) if target.is_some() || request.version() < Version::HTTP_11 => Ok(()),
            _ => Err(Refusal::Host),
        }?;
        if is_foreign(request.headers()) { Err(Refusal::Foreign) } else { Ok(()) }
    }
}

/// Whether a page of another origin asks, as its browser says. It could not read the answer, but hold places of those who
/// watch. Following a link to here is no such thing.
fn is_foreign(headers: &HeaderMap) -> bool {
    let says = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let own = matches!(says("sec-fetch-site"), None | Some(b"none" | b"same-origin"));
    !own && says("sec-fetch-mode") != Some(b"navigate")
}

/// Looks at the counters until the process ends.
async fn look(status: Arc<Status>, shutdown: Shutdown) {
    let stopped = shutdown.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return,
            () = tokio::time::sleep(history::LOOK_EVERY) => status.history.look(status.sample()),
        }
    }
}

async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let mut answer = match desk.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.answer(),
    };
    let headers = answer.headers_mut();
    let policy = header::CONTENT_SECURITY_POLICY;
    headers.entry(policy).or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    answer
}

/// The status page for who asks for HTML, as browsers do; for everybody else what there is.
async fn index(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let mut answer = if wants_html(&headers) {
        let mut page = respond(StatusCode::OK, "text/html; charset=utf-8", page::HTML);
        if let Ok(policy) = HeaderValue::from_str(&desk.policy) {
            page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        page
    } else {
        text(StatusCode::OK, INDEX)
    };
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    answer
}

fn json(body: String) -> Response {
    respond(StatusCode::OK, "application/json", body)
}

async fn watch(State(desk): State<Arc<Desk>>) -> Response {
    if let Some(body) = desk.tower.watch() {
        return respond(StatusCode::OK, "text/event-stream", body);
    }
    let why = "the gateway ends, or too many watch already\n";
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

async fn scrape(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let status = &desk.status;
    status.observe();
    let format = wanted(&headers);
    let body = Exposition::new(&status.ledger.sum(), status.clock.wall(), format).to_string();
    respond(StatusCode::OK, format.content_type(), body)
}

fn probe(state: Result<(), NotReady>) -> Response {
    match state {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let headers: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body.into()).into_response()
}

// === impl Refusal ===

impl Refusal {
    fn answer(self) -> Response {
        let status = match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Foreign => StatusCode::FORBIDDEN,
        };
        let mut response = text(status, format!("{self}\n"));
        if self == Self::Method {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

// === Accept ===

/// OpenMetrics for a client that names it (a version 1 of it, or none) and likes it as much as plain text; plain text
/// for everybody else (RFC 9110 section 12.5.1; never a 406, which would help nobody).
fn wanted(headers: &HeaderMap) -> Format {
    let (mut open, mut plain) = (0, 0);
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    for element in lines.flat_map(|line| line.split(',')) {
        let mut parts = element.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1000, None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = thousandths(value.trim()),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        match media.as_str() {
            "application/openmetrics-text" if version.is_none_or(|of| of.starts_with("1.")) => open = open.max(quality),
            "text/plain" if version.is_none_or(|of| of == "0.0.4") => plain = plain.max(quality),
            _ => {}
        }
    }
    if open > 0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
}

/// Whether HTML is named, and not as what is not wanted: `*/*` is what programs say.
fn wants_html(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|element| {
        let mut parts = element.split(';').map(str::trim);
        let html = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("text/html"));
        let mut quality = parts.filter_map(|part| part.strip_prefix("q="));
        html && quality.next().is_none_or(|quality| thousandths(quality) > 0)
    })
}

/// A quality (RFC 9110 section 12.4.2) in thousandths; what is none counts as 0.
fn thousandths(quality: &str) -> u16 {
    let (whole, part) = quality.split_once('.').unwrap_or((quality, ""));
    let fits = part.len() <= 3 && part.bytes().all(|digit| digit.is_ascii_digit());
    match (whole, format!("{part:0<3}").parse()) {
        ("0", Ok(part)) if fits => part,
        ("1", Ok(0)) if fits => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::admin::testing::config;
    use crate::clock::Wall;
    use crate::lifecycle::{Needs, Shutdown};
    use crate::metrics::{CacheName, Metrics, Names};

    struct Test {
        router: Router,
        readiness: Readiness,
        shutdown: Shutdown,
    }

    fn test() -> Test {
        let shutdown = Shutdown::new();
        let readiness = Readiness::new(shutdown.clone(), Needs { key: true, others: false });
        let admin = Admin {
            ledger: Arc::new(Ledger::new(Arc::new(Metrics::new(Names::default())))),
            readiness: readiness.clone(),
            clock: Clock::following(Wall::from_seconds(1000)),
            hosts: vec!["admin.example.com".to_owned()],
            hooks: vec![Box::new(|counts| counts.cache_entries(CacheName::Tokens).set(7))],
            facts: Live::new(Facts::of(&config(), 1)),
            shutdown: shutdown.clone(),
            tasks: Spawner::current(),
        };
        Test { router: admin.router(), readiness, shutdown }
    }

    impl Test {
        async fn send(&self, request: http::request::Builder) -> Response {
            self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
        }

        async fn get(&self, path: &str) -> (u16, String) {
            let response = self.send(Request::get(path).header("host", "127.0.0.1:6469")).await;
            let status = response.status().as_u16();
            (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
        }

        async fn status(&self, path: &str) -> u16 {
            self.get(path).await.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn probes_follow_the_life_of_the_process() {
        let test = test();
        let probes =
            async || [test.status("/startupz").await, test.status("/readyz").await, test.status("/livez").await];
        assert_eq!(probes().await, [503, 503, 200]);
        test.readiness.set_listening();
        assert_eq!(probes().await, [200, 503, 200]);
        assert!(test.get("/readyz").await.1.contains("verification keys"));
        test.readiness.set_key_known();
        assert_eq!(probes().await, [200, 200, 200]);
        test.shutdown.drain();
        assert_eq!(probes().await, [200, 503, 200]);
        assert_eq!(test.get("/readyz").await.1, "draining\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrape_runs_the_hooks_and_negotiates() {
        let test = test();
        let (status, body) = test.get("/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("mintgate_cache_entries{cache=\"tokens\"} 7\n"), "{body}");
        let request = Request::get("/metrics").header("host", "[::1]:6469");
        let response = test.send(request.header("accept", "application/openmetrics-text")).await;
        assert_eq!(response.headers()["content-type"], Format::OpenMetrics.content_type());
        assert_eq!(response.headers()["cache-control"], "no-store");
    }

    #[tokio::test(start_paused = true)]
    async fn every_path_is_read_only() {
        let test = test();
        for path in ["/", "/livez", "/readyz", "/metrics", "/status", "/status/events", "/none"] {
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW"] {
                let request = Request::builder().method(method).uri(path).header("host", "localhost");
                let response = test.send(request.header("origin", "http://localhost")).await;
                assert_eq!(response.status(), 405, "{method} {path}");
                assert_eq!(response.headers()["allow"], "GET, HEAD");
            }
        }
        assert_eq!(test.status("/none").await, 404);
        let head = test.send(Request::head("/").header("host", "localhost")).await;
        assert_eq!(head.status(), 200);
        assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rebound_name_reaches_nothing() {
        let test = test();
        for (host, status) in [
            ("127.0.0.1:6469", 200),
            ("10.1.2.3", 200),
            ("[::1]:6469", 200),
            ("LocalHost:6469", 200),
            ("localhost.", 200),
            ("admin.example.com", 200),
            ("evil.example.com:6469", 421),
            ("localhost.evil.example.com", 421),
            ("127.0.0.1.evil.example.com", 421),
            ("x.admin.example.com", 421),
            ("2130706433", 421),
            ("127.1", 421),
            ("user@127.0.0.1", 400),
            ("evil.example.com@localhost", 400),
            ("", 400),
            ("127.0.0.1, localhost", 400),
        ] {
            for path in ["/livez", "/metrics", "/", "/status", "/status/events", "/none"] {
                let seen = test.send(Request::get(path).header("host", host).header("accept", "text/html")).await;
                let expected = if path == "/none" && status == 200 { 404 } else { status };
                assert_eq!(seen.status(), expected, "{host:?} {path}");
                assert!(seen.headers().keys().all(|name| !name.as_str().starts_with("access-control")));
            }
        }
        let twice = Request::get("/livez").header("host", "localhost").header("host", "localhost");
        assert_eq!(test.send(twice).await.status(), 400);
        let absolute = Request::get("http://evil.example.com/livez").header("host", "localhost");
        assert_eq!(test.send(absolute).await.status(), 421);
        assert_eq!(test.send(Request::get("/livez")).await.status(), 400);
        assert_eq!(test.send(Request::get("/livez").version(Version::HTTP_10)).await.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_browser_gets_the_page_and_a_program_the_list() {
        let test = test();
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, html) in
            [(browser, true), ("text/html", true), ("*/*", false), ("text/html;q=0", false), ("", false)]
        {
            let response = test.send(Request::get("/").header("host", "localhost").header("accept", accept)).await;
            let policy = response.headers()["content-security-policy"].to_str().unwrap();
            assert_eq!(policy.contains("script-src 'sha256-"), html, "{accept:?}");
            assert!(policy.contains("frame-ancestors 'none'") && policy.starts_with("default-src 'none'"));
            let kind = response.headers()["content-type"].to_str().unwrap();
            assert_eq!(kind.starts_with("text/html"), html, "{accept:?}");
        }
        for path in ["/", "/status", "/status/events", "/livez", "/metrics", "/none"] {
            let response =
                test.send(Request::get(path).header("host", "localhost").header("accept", "text/html")).await;
            for (name, value) in [
                ("cache-control", "no-store"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(response.headers()[name], value, "{path}");
            }
        }
    }

    /// Fails without `is_foreign`: sixteen requests of any web page that is open would hold all places of who watches.
    #[tokio::test(start_paused = true)]
    async fn a_page_of_another_origin_may_follow_a_link_and_nothing_else() {
        let test = test();
        for (site, mode, status) in [
            ("cross-site", "cors", 403),
            ("cross-site", "no-cors", 403),
            ("same-site", "no-cors", 403),
            ("cross-site", "navigate", 200),
            ("same-origin", "cors", 200),
            ("none", "navigate", 200),
        ] {
            for path in ["/", "/status", "/status/events", "/metrics"] {
                let request = Request::get(path).header("host", "localhost");
                let request = request.header("sec-fetch-site", site).header("sec-fetch-mode", mode);
                assert_eq!(test.send(request).await.status(), status, "{site} {mode} {path}");
            }
        }
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\", text/plain", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.501", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=2", Format::Prometheus),
            ("application/openmetrics-text;version=0.0.1", Format::Prometheus),
            ("text/html,*/*", Format::Prometheus),
            ("", Format::Prometheus),
            (";;=,q=é", Format::Prometheus),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_bytes(accept.as_bytes()).unwrap());
            assert_eq!(wanted(&headers), expected, "{accept:?}");
        }
    }
}
