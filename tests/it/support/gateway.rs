//! The gateway of a test: the real composition root on ports that the kernel chose, against the emulator.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mintgate::address::BoundAddress;
use mintgate::app::{self, Process};
use mintgate::clock::Clock;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::emulator::{Emulator, Options, base_url, limit::RateLimit};
use mintgate::lifecycle::{Readiness, Shutdown, Spawner};
use mintgate::listener::bound::Inherited;
use mintgate::session::revoked::Revoked;
use mintgate::surface::Surface;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::eventually;
use super::issuer::Issuer;
use super::wire::Wire;

/// The origin of the application to which session tokens are issued, and unless told otherwise the only authorized party.
pub(crate) const PARTY: &str = "https://app.example.com";

/// What a gateway is started with. Every text is TOML.
pub(crate) struct Boot {
    /// `[[routes]]`, `[upstreams.*]`, and any other table that is not named here.
    tables: String,
    /// Keys of `[server]`.
    server: String,
    /// Keys of `[clerk]`.
    clerk: String,
    /// Another issuer than the emulator. Session tokens are then verified by the emulator's public key.
    issuer: Option<String>,
    /// Another public key than the emulator's, PEM.
    jwt_key: Option<String>,
    /// `authorized_parties`.
    parties: Vec<String>,
    /// `server.listen`, instead of one TCP listener.
    listen: String,
    in_place: bool,
    /// More keys of `[clerk]`, once it is known where the emulator is.
    beside: Option<Box<dyn FnOnce(SocketAddr) -> String>>,
}

/// A gateway that serves. Dropped, it ends at once.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Where proxies ask, when `[authz]` is there and on TCP.
    pub(crate) authz: Option<SocketAddr>,
    pub(crate) emulator: Emulator,
    /// Where the emulator is served.
    pub(crate) issuer: SocketAddr,
    pub(crate) readiness: Readiness,
    /// Sessions that it refuses.
    pub(crate) revoked: Arc<Revoked>,
    /// The gateway's and the emulator's; can be set forward.
    pub(crate) clock: Clock,
    shutdown: Shutdown,
    told: Option<oneshot::Sender<()>>,
    run: Option<JoinHandle<()>>,
}

/// The outside, as a configuration sees it: one variable for the secret key, one for a fixed value, one file.
struct Outside {
    secret_key: String,
    jwt_key: String,
}

// === impl Boot ===

impl Boot {
    pub(crate) fn new(tables: impl Into<String>) -> Self {
        Self {
            tables: tables.into(),
            server: String::new(),
            clerk: String::new(),
            issuer: None,
            jwt_key: None,
            parties: vec![PARTY.to_owned()],
            listen: "\"127.0.0.1:0\"".to_owned(),
            in_place: true,
            beside: None,
        }
    }

    /// Adds keys of `[clerk]` that need the emulator's address.
    pub(crate) fn beside(mut self, keys: impl FnOnce(SocketAddr) -> String + 'static) -> Self {
        self.beside = Some(Box::new(keys));
        self
    }

    /// Adds keys of `[server]`.
    pub(crate) fn server(mut self, keys: &str) -> Self {
        self.server.push_str(keys);
        self.server.push('\n');
        self
    }

    /// Adds keys of `[clerk]`.
    pub(crate) fn clerk(mut self, keys: &str) -> Self {
        self.clerk.push_str(keys);
        self.clerk.push('\n');
        self
    }

    /// Listens there, the first of them on TCP.
    pub(crate) fn listen(mut self, list: &str) -> Self {
        list.clone_into(&mut self.listen);
        self
    }

    /// Mints at another address than the emulator's.
    pub(crate) fn issuer(self, address: SocketAddr) -> Self {
        self.issuer_at(base_url(address))
    }

    /// The same by its URL.
    pub(crate) fn issuer_at(mut self, url: String) -> Self {
        self.issuer = Some(url);
        self
    }

    /// Mints at this issuer, and takes the session tokens that it signs.
    pub(crate) fn trusting(mut self, issuer: &Issuer) -> Self {
        self.jwt_key = Some(issuer.pem());
        self.issuer(issuer.address).clerk("issuer = \"https://clerk.emulator.invalid\"")
    }

    /// Other authorized parties than [`PARTY`] alone.
    pub(crate) fn parties(mut self, parties: &[&str]) -> Self {
        self.parties = parties.iter().map(|party| (*party).to_owned()).collect();
        self
    }

    /// Serves on worker threads, as the program does, instead of on the test's own runtime.
    pub(crate) fn threads(mut self) -> Self {
        self.in_place = false;
        self
    }

    /// Starts the gateway and waits until it is ready.
    ///
    /// # Panics
    /// When the configuration is refused or the gateway does not start.
    pub(crate) async fn start(mut self) -> Gateway {
        let (shutdown, control) = (Shutdown::new(), Spawner::current());
        let clock = Clock::following(Clock::system().wall());
        let options = Options {
            authorized_party: Some(PARTY.to_owned()),
            rate_limit: Some(RateLimit::Off),
            ..Options::default()
        };
        let emulator = Emulator::new(options, clock.clone()).unwrap();
        let clerk = Surface::bind("127.0.0.1:0".parse().unwrap(), emulator.router()).unwrap();
        let issuer = clerk.address();
        drop(control.spawn(clerk.run(control.sibling(), shutdown.clone(), shutdown.draining())));
        if let Some(beside) = self.beside.take() {
            self = {
                let keys = beside(issuer);
                self.clerk(&keys)
            };
        }
        let text = self.text(&emulator, issuer);
        let jwt_key = self.jwt_key.clone().unwrap_or_else(|| emulator.jwt_key().unwrap());
        let outside = Outside { secret_key: emulator.secret_key().expose().to_owned(), jwt_key };
        let (config, _) = validate::parse(&text, Path::new("test.toml"), &outside, Secrets::Required)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let in_place = self.in_place;
        let process = Process {
            clock: clock.clone(),
            shutdown: shutdown.clone(),
            control: control.clone(),
            dropped_lines: None,
            inherited: Inherited::default(),
            levers: None,
            in_place,
        };
        let bound = app::bind(config, process).unwrap();
        let (address, admin) = (bound.address().unwrap(), bound.admin().unwrap());
        let authz = bound.authz_listeners().find_map(BoundAddress::tcp);
        let readiness = bound.readiness().clone();
        let revoked = Arc::clone(&bound.gateway().sessions.revoked);
        let (told, hears) = oneshot::channel::<()>();
        let run = control.spawn(async move {
            let told = async move { drop(hears.await) };
            bound.run(told).await.unwrap();
        });
        let ready = readiness.clone();
        eventually("the gateway is ready", || ready.ready().is_ok()).await;
        let (told, run) = (Some(told), Some(run));
        Gateway { address, admin, authz, emulator, issuer, readiness, revoked, clock, shutdown, told, run }
    }

    fn text(&self, emulator: &Emulator, issuer: SocketAddr) -> String {
        let Self { tables, server, clerk, listen, .. } = self;
        let key = emulator.publishable_key();
        let url = self.issuer.clone().unwrap_or_else(|| base_url(issuer));
        let pinned = if self.issuer.is_some() { "jwt_key = { file = \"clerk-jwt.pem\" }\n" } else { "" };
        format!(
            "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\npublishable_key = \"{key}\"\n\
             authorized_parties = {:?}\napi_url = \"{url}\"\n{pinned}{clerk}\n\
             [server]\nlisten = [{listen}]\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n\n{tables}\n",
            self.parties
        )
    }
}

// === impl Gateway ===

impl Gateway {
    /// A gateway with these tables and defaults for everything else.
    pub(crate) async fn start(tables: impl Into<String>) -> Self {
        Boot::new(tables).start().await
    }

    /// A value out of a scrape, as it is written there.
    ///
    /// # Panics
    /// When there is none of this name.
    pub(crate) async fn metric(&self, name: &str) -> String {
        let scrape = Wire::connect(self.admin).await.ask("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        let found = scrape.text().lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()));
        found.unwrap_or_else(|| panic!("{name}\n{}", scrape.text()))
    }

    /// A fresh session token of `alice` or `bob`.
    pub(crate) fn session_token(&self, user: &str) -> String {
        self.emulator.session_token(&format!("sess_emulator_{user}")).unwrap()
    }

    /// `Authorization: Bearer ...` of `alice` or `bob`, a whole header line.
    pub(crate) fn bearer(&self, user: &str) -> String {
        format!("Authorization: Bearer {}\r\n", self.session_token(user))
    }

    /// Tokens that the emulator has minted for templates.
    pub(crate) fn mints(&self) -> u64 {
        self.emulator.state()["calls"]["mints"].as_u64().unwrap()
    }

    /// As a SIGTERM does: tells the gateway to end. [`Gateway::ended`] waits for it.
    pub(crate) fn tell(&mut self) {
        drop(self.told.take());
    }

    /// Waits until the gateway has ended.
    pub(crate) async fn ended(&mut self) {
        tokio::time::timeout(super::PATIENCE, self.run.take().unwrap()).await.unwrap().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

// === impl Outside ===

impl Environment for Outside {
    fn var(&self, name: &str) -> Option<String> {
        match name {
            "CLERK_SECRET_KEY" => Some(self.secret_key.clone()),
            "FIXED_VALUE" => Some("fixed-value".to_owned()),
            _ => None,
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new("clerk-jwt.pem") {
            Ok(self.jwt_key.clone().into())
        } else if path.is_absolute() {
            std::fs::read(path)
        } else {
            // Certificates and keys, which are read again later.
            std::fs::read(path)
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path == Path::new("clerk-jwt.pem")
    }
}
