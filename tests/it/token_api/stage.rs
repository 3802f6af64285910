//! An emulator whose calls are all seen, and gateways out of a configuration's text in front of it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use mintgate::app::issuance::ClerkMint;
use mintgate::clock::Clock;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::emulator::{Emulator, Options, base_url};
use mintgate::lifecycle::Shutdown;
use mintgate::metrics::Lookup;
use mintgate::proxy::gateway::Gateway;
use serde_json::Value;
use tokio::sync::watch;

use crate::harness::{Answer, Client, call, client, in_place, serve};

/// What a local caller shows.
pub(super) const BILLING: &str = "local-bearer-of-billing";

/// It ends when it is dropped.
pub(super) struct Stage {
    /// Everybody's; can be set forward.
    pub(super) clock: Clock,
    pub(super) emulator: Emulator,
    pub(super) issuer: SocketAddr,
    pub(super) client: Client,
    desk: Desk,
    pub(super) shutdown: Shutdown,
}

/// What stands before the emulator.
#[derive(Clone)]
struct Desk {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// What every mint is answered, with its `Retry-After`.
    refusal: Arc<Mutex<Option<(u16, &'static str)>>>,
    held: watch::Sender<bool>,
}

/// A call that reached the issuer.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
}

/// A gateway that serves.
pub(super) struct Served {
    pub(super) data: SocketAddr,
    api: Option<SocketAddr>,
    pub(super) gateway: Arc<Gateway<ClerkMint>>,
    client: Client,
}

struct Outside(HashMap<String, String>);

// === impl Stage ===

impl Stage {
    pub(super) fn new() -> Self {
        let clock = Clock::following(Clock::system().wall());
        let emulator = Emulator::new(Options::default(), clock.clone()).unwrap();
        let desk = Desk { seen: Arc::default(), refusal: Arc::default(), held: watch::Sender::new(false) };
        let shutdown = Shutdown::new();
        let issuer = serve(emulator.router().layer(from_fn_with_state(desk.clone(), watched)), &shutdown);
        Self { clock, emulator, issuer, client: client(false), desk, shutdown }
    }

    /// A gateway with a `[token_api]` that one local caller may use for `custom_hasura`; and with these tables.
    pub(super) async fn hub(&self, tables: &str) -> Served {
        self.hub_of(&base_url(self.issuer), "30s", tables).await
    }

    /// The same with more keys of `[token_api]`.
    pub(super) async fn hub_with(&self, keys: &str) -> Served {
        self.hub_of(&base_url(self.issuer), "30s", keys).await
    }

    /// The same of another issuer, and with another `clerk.timeout`.
    pub(super) async fn hub_of(&self, issuer: &str, timeout: &str, tables: &str) -> Served {
        let text = format!(
            "{}\n[token_api]\nlisten = \"127.0.0.1:0\"\n\
             callers = [{{ name = \"billing\", token = {{ env = \"BILLING\" }}, templates = [\"custom_hasura\"] }}]\n{tables}",
            self.clerk(issuer, timeout)
        );
        self.boot(&text, self.emulator.secret_key().expose()).await
    }

    /// A gateway that has what it mints from that hub, by the local caller's bearer. `routes` go to `up`.
    pub(super) async fn sidecar(&self, hub: &Served, up: SocketAddr, tables: &str) -> Served {
        let text =
            format!("{}\n[upstreams.up]\nurl = \"http://{up}\"\n{tables}", self.clerk(&base_url(hub.api()), "30s"));
        self.boot(&text, BILLING).await
    }

    fn clerk(&self, api_url: &str, timeout: &str) -> String {
        format!(
            "[clerk]\nsecret_key = {{ env = \"KEY\" }}\npublishable_key = \"{}\"\napi_url = \"{api_url}\"\n\
             timeout = \"{timeout}\"\n\
             [server]\nlisten = [\"127.0.0.1:0\"]\n",
            self.emulator.publishable_key()
        )
    }

    /// A gateway with this configuration.
    pub(super) async fn boot(&self, text: &str, key: &str) -> Served {
        let vars = [("KEY", key), ("BILLING", BILLING)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let parsed = validate::parse(text, Path::new("test.toml"), &Outside(vars.into()), Secrets::Required);
        let (config, _) = parsed.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let booted = in_place(config, self.clock.clone(), &self.shutdown).await;
        Served { data: booted.address, api: booted.token_api, gateway: booted.gateway, client: client(false) }
    }

    /// `Bearer` and the secret key.
    pub(super) fn key(&self) -> String {
        format!("Bearer {}", self.emulator.secret_key().expose())
    }

    /// `Bearer` and a fresh session token.
    pub(super) fn session(&self, sid: &str) -> String {
        format!("Bearer {}", self.emulator.session_token(sid).unwrap())
    }

    /// What has reached the issuer and begins so, such as `POST /v1/sessions`.
    pub(super) fn seen(&self, beginning: &str) -> Vec<Seen> {
        self.desk.seen.lock().unwrap().iter().filter(|seen| seen.line.starts_with(beginning)).cloned().collect()
    }

    /// The same, beside the keys, which a gateway asks for when it likes.
    pub(super) fn reached(&self) -> Vec<Seen> {
        self.desk.seen.lock().unwrap().iter().filter(|seen| seen.line != "GET /v1/jwks").cloned().collect()
    }

    /// How many tokens of templates were asked for at the issuer.
    pub(super) fn mints(&self) -> usize {
        self.seen("POST /v1/sessions/").iter().filter(|seen| seen.line.contains("/tokens/")).count()
    }

    /// Answers every mint so, or as the emulator does.
    pub(super) fn refuse(&self, refusal: Option<(u16, &'static str)>) {
        *self.desk.refusal.lock().unwrap() = refusal;
    }

    /// Holds every mint back, or lets them go.
    pub(super) fn hold(&self, held: bool) {
        self.desk.held.send_replace(held);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

async fn watched(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let mint = line.contains("/tokens");
    desk.seen.lock().unwrap().push(Seen { line, headers: request.headers().clone() });
    if !mint {
        return next.run(request).await;
    }
    desk.held.subscribe().wait_for(|held| !held).await.unwrap();
    let refusal = *desk.refusal.lock().unwrap();
    match refusal {
        Some((status, wait)) => {
            let status = StatusCode::from_u16(status).unwrap();
            if wait.is_empty() {
                status.into_response()
            } else {
                (status, [(header::RETRY_AFTER, wait)]).into_response()
            }
        }
        None => next.run(request).await,
    }
}

/// An upstream that answers with the `Authorization` that it got.
pub(super) fn echo(stage: &Stage) -> SocketAddr {
    echo_of(stage, header::AUTHORIZATION)
}

/// An upstream that answers with what it got under this name.
pub(super) fn echo_of(stage: &Stage, name: HeaderName) -> SocketAddr {
    let got = async move |headers: HeaderMap| {
        headers.get(&name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    };
    serve(Router::new().fallback(got), &stage.shutdown)
}

// === impl Served ===

impl Served {
    /// Where its token API is.
    pub(super) fn api(&self) -> SocketAddr {
        self.api.unwrap()
    }

    /// Calls its token API.
    pub(super) async fn ask(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        call(&self.client, method, &format!("http://{}{target}", self.api()), headers, body).await
    }

    /// Asks for a token of a template, as the JavaScript SDK does.
    pub(super) async fn token(&self, bearer: &str, sid: &str, template: &str, body: &str) -> Answer {
        let headers = [("authorization", bearer), ("content-type", "application/json"), ("sec-fetch-mode", "cors")];
        self.ask(Method::POST, &format!("/v1/sessions/{sid}/tokens/{template}"), &headers, body).await
    }

    /// A request through it, as this session.
    pub(super) async fn get(&self, path: &str, session: &str) -> Answer {
        let url = format!("http://{}{path}", self.data);
        call(&self.client, Method::GET, &url, &[("authorization", session)], "").await
    }

    /// Look-ups of its token API that ended so.
    pub(super) fn lookups(&self, lookup: Lookup) -> u64 {
        let metrics = &self.gateway.metrics;
        metrics.shards().iter().map(|shard| shard.lookups(metrics.no_route(), lookup).get()).sum()
    }
}

/// The token of a good answer.
pub(super) fn jwt(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["jwt"].as_str().unwrap().to_owned()
}

/// Status and Clerk's code of an error, whose shape is looked at.
pub(super) fn refused(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json", "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let error = &body["errors"][0];
    assert!(error["message"].is_string() && error["long_message"].is_string(), "{answer:?}");
    (answer.status, error["code"].as_str().unwrap().to_owned())
}

// === impl Outside ===

impl Environment for Outside {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn exists(&self, _path: &Path) -> bool {
        false
    }
}
