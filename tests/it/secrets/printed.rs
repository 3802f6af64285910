//! `Debug` of what holds secrets and tokens, at any depth: of objects that are made as the gateway makes them.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use http::Method;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::config::{MintKind, MintSpec, TemplateName};
use mintgate::session::credential::{Credential, Found, Place, TokenText};
use mintgate::session::memory::Slots;
use mintgate::token::spent::Spent;
use mintgate::token::{Mint as _, MintRequest, TokenKey, Urgency};
use tokio::time::Instant;

use super::canaries::Canaries;
use super::{FIXED, ROUTES, SECRET, options};
use crate::harness::{ALICE, Boot, Harness, PATIENCE, call, client};
use crate::support::directory::Directory;
use crate::support::tls::Authority;

/// Secrets of every kind that a configuration has.
const CONFIG: &str = r#"
[clerk]
secret_key = [{ env = "CANARY" }, { file = "secret" }]
issuer = "https://clerk.example.com"
authorized_parties = ["https://app.example.com"]
[server]
tls = { cert = "cert.pem", key = "key.pem" }
[upstreams.up]
url = "https://127.0.0.1:1"
tls = { client_cert = "cert.pem", client_key = "key.pem" }
[[routes]]
name = "job"
upstream = "up"
session = [{ session_id_header = "x-sid", trust = "unverified", caller_token = { file = "secret" } }]
inject = [{ header = "x-a", value = { env = "CANARY" } }, { header = "x-b", prefix = "Bearer ", value = { file = "secret" } }]
"#;

/// One variable, and the real files.
struct Outside;

impl Environment for Outside {
    fn var(&self, name: &str) -> Option<String> {
        (name == "CANARY").then(|| SECRET.to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

fn canaries() -> Canaries {
    let mut canaries = Canaries::default();
    canaries.add("the secret key", &SECRET["sk_test_".len()..]);
    canaries.add("the fixed value", FIXED);
    canaries
}

/// Both forms, since the second one is made by other code.
fn printed(of: &dyn Debug) -> String {
    format!("{of:?}\n{of:#?}")
}

/// Case 39. Fails with a derived `Debug` of `Secret` or of `File`.
#[test]
fn no_secret_is_in_what_debug_prints_of_a_configuration() {
    let files = Directory::new();
    let own = Authority::new().identity(&["a.test"]);
    files.write("cert.pem", &own.cert);
    files.write("key.pem", &own.key);
    files.write("secret", FIXED);
    let path = files.path("mintgate.toml");
    let parsed = validate::parse(CONFIG, &path, &Outside, Secrets::Required);
    let (config, warnings) = parsed.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let mut canaries = canaries();
    for line in own.key.lines().filter(|line| !line.starts_with('-') && line.len() > 20) {
        canaries.add("the private key", line);
    }
    let seen = printed(&config);
    assert!(seen.contains("SessionIdSource") && seen.contains("key.pem"), "{seen}");
    canaries.assert_clean("Debug of a configuration", &seen);
    canaries.assert_clean("Debug of its warnings", &printed(&warnings));
}

/// Case 39. Fails with a derived `Debug` of `Secret`, `Token` or `TokenText`, and where a header value that is injected
/// or sent to the issuer is not marked sensitive.
#[tokio::test]
async fn no_secret_and_no_token_is_in_what_debug_prints_of_a_gateway_that_serves() {
    let tables = &ROUTES.replace("value = { env = \"FIXED\" }", "value = { env = \"CLERK_SECRET_KEY\" }");
    let harness = Harness::boot(Boot { tables, options: options(), ..Boot::default() }).await;
    let (bearer, gateway) = (harness.world.bearer(ALICE), &harness.gateway);
    let url = format!("http://{}/", harness.address);
    let answer = call(&client(false), Method::GET, &url, &[("authorization", &bearer)], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut canaries = canaries();
    canaries.add_token("the session token", &bearer);
    for head in harness.world.seen.take() {
        assert_eq!(head["apikey"], SECRET);
        canaries.add_token("a minted token", head["authorization"].to_str().unwrap());
    }

    let jwt = bearer.trim_start_matches("Bearer ");
    let session = gateway.sessions.verifier.verify(jwt, &gateway.sessions.jwks.current()).unwrap();
    let kind = MintKind::Template(TemplateName::new("plain").unwrap());
    let id = harness.metrics.other_template();
    let spec = MintSpec { id, kind, expires_in: None, expect: Vec::new(), vary: Vec::new() };
    let key = TokenKey::of(gateway.issuer, &session, &spec);
    let request = MintRequest {
        key,
        template: id,
        urgency: Urgency::Waiting,
        forced: false,
        trace: None,
        credential_issued_at: None,
        spent: Spent::default(),
        deadline: Instant::now() + PATIENCE,
    };
    let token = gateway.mint.mint(request.clone()).await.unwrap();
    canaries.add_token("a minted token", token.bare().to_str().unwrap());
    let credential = Credential { token: TokenText::from(jwt), place: Place::Bearer };
    let tag = gateway.sessions.memory.tag(jwt);
    let mut seen = printed(&Found { credential, tag: Some(tag) });
    let all: [&dyn Debug; 6] = [gateway, &session, &request, &token, &token.bearer(), &harness.metrics];
    for of in all {
        seen.push_str(&printed(of));
    }
    let (now, skew) = (mintgate::clock::Clock::system().wall(), gateway.sessions.skew);
    let remembered = gateway.sessions.memory.remember(tag, session, 0, Slots::default(), now, skew);
    seen.push_str(&printed(&remembered));
    assert!(seen.contains("Gateway") && seen.contains("ClerkClient") && seen.contains("MintRequest"), "{seen}");
    canaries.assert_clean("Debug", &seen);
    assert!(!seen.contains(ALICE), "ids are personal data: {seen}");
}
