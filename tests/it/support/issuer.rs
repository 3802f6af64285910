//! An issuer under a test's command: it signs session tokens with any claims, and what it mints is the test's to say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use http_body_util::BodyExt as _;
use mintgate::clock::Clock;
use mintgate::lifecycle::{Shutdown, Spawner};
use mintgate::surface::Surface;
use serde_json::{Value, json};

use super::gateway::PARTY;

/// What it answers to the mint with this number, from 0: the claims of the token, or a status.
type Script = dyn Fn(usize, &Asked) -> Result<Value, u16> + Send + Sync;

/// It serves until it is dropped.
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    key: KeyPair,
    desk: Arc<Desk>,
    shutdown: Shutdown,
}

struct Desk {
    /// What `/v1/jwks` says.
    jwks: Value,
    asked: Mutex<Vec<Asked>>,
    script: Box<Script>,
}

/// The `kid` of its key.
pub(crate) const KID: &str = "ins_1";

/// One call of its API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// `Cache-Control`
    pub(crate) cache_control: Option<String>,
    pub(crate) body: String,
}

// === impl Issuer ===

impl Issuer {
    /// Mints tokens with the claims that `script` gives, beside `iat` and, unless it says another one, an `exp` in five
    /// minutes.
    pub(crate) fn minting(script: impl Fn(usize, &Asked) -> Result<Value, u16> + Send + Sync + 'static) -> Self {
        let (shutdown, key) = (Shutdown::new(), KeyPair::generate(KeySize::Rsa2048).unwrap());
        // PKCS #1, with a modulus of 2048 bits and the exponent 65537: where they stand is always the same.
        let modulus = URL_SAFE_NO_PAD.encode(&key.public_key().as_ref()[9..265]);
        let jwk = json!({ "use": "sig", "kty": "RSA", "kid": KID, "alg": "RS256", "n": modulus, "e": "AQAB" });
        let desk = Arc::new(Desk { jwks: json!({ "keys": [jwk] }), asked: Mutex::default(), script: Box::new(script) });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&desk));
        let surface = Surface::bind("127.0.0.1:0".parse().unwrap(), router).unwrap();
        let (address, tasks) = (surface.address(), Spawner::current());
        drop(tasks.spawn(surface.run(tasks.sibling(), shutdown.clone(), shutdown.stopped())));
        Self { address, key, desk, shutdown }
    }

    /// A session token of `sess_1` of `user_1`, with these claims set; `null` removes one.
    pub(crate) fn session(&self, changes: &Value) -> String {
        let iat = Clock::system().wall().as_seconds();
        let mut claims = json!({
            "azp": PARTY, "exp": iat + 60, "iat": iat, "nbf": iat - 10, "v": 2, "jti": "j", "sts": "active",
            "iss": "https://clerk.emulator.invalid", "sid": "sess_1", "sub": "user_1",
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let signed = format!("{}.{}", part(&header(KID)), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The same under another key's name, with a signature that is none: it costs nothing to make.
    pub(crate) fn forged(kid: &str, claims: &Value) -> String {
        format!("{}.{}.{}", part(&header(kid)), part(claims), URL_SAFE_NO_PAD.encode([1; 256]))
    }

    /// `Authorization: Bearer ...`, a whole header line.
    pub(crate) fn bearer(&self, changes: &Value) -> String {
        format!("Authorization: Bearer {}\r\n", self.session(changes))
    }

    /// Its public key, PEM.
    pub(crate) fn pem(&self) -> String {
        let der = self.key.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.desk.asked.lock().unwrap().clone()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn header(kid: &str) -> Value {
    json!({ "alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": kid, "typ": "JWT" })
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/v1/jwks" {
        return axum::Json(&desk.jwks).into_response();
    }
    if !head.uri.path().contains("/tokens") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let cache_control = head.headers.get("cache-control").map(|value| value.to_str().unwrap().to_owned());
    // A request that breaks off has asked for nothing.
    let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    let asked = Asked { path: head.uri.path().to_owned(), cache_control, body };
    let number = {
        let mut all = desk.asked.lock().unwrap();
        all.push(asked.clone());
        all.len() - 1
    };
    match (desk.script)(number, &asked) {
        Err(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Ok(mut claims) => {
            let iat = Clock::system().wall().as_seconds();
            claims["iat"] = json!(iat);
            if claims["exp"].is_null() {
                claims["exp"] = json!(iat + 300);
            }
            // Signed with a key that only the upstream knows: the gateway must not care.
            let jwt = format!("{}.{}.c2ln", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
            axum::Json(json!({ "object": "token", "jwt": jwt })).into_response()
        }
    }
}
