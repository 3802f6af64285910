//! The Clerk emulator: the part of Clerk's API that mintgate and the official SDKs use, on a real socket, without an
//! account (contract sections 1 and 6).
//!
//! It signs with a real RSA-2048 key, mints session tokens and template tokens, knows revocation, errors and the rate
//! limit. It is for trying and for tests: its users are invented and its secret key is printed.

mod claims;
pub mod echo;
pub mod error;
mod guard;
mod helpers;
pub mod keys;
pub mod limit;
mod model;
mod params;
mod seed;
mod sessions;
mod shortcodes;
mod state;
mod templates;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::emulator::error::{ApiError, MAX_BODY, json_response};
use crate::emulator::keys::CryptoError;
use crate::emulator::limit::RateLimit;
use crate::emulator::model::Template;
use crate::emulator::state::{Instance, Start};
use crate::secret::Secret;

/// An emulated instance. Cheap to clone; all clones are one instance.
#[derive(Clone)]
pub struct Emulator(Arc<Instance>);

/// How an instance is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The key that callers must present.
    pub secret_key: SecretKey,
    /// By default the one that Clerk has for this kind of key.
    pub rate_limit: Option<RateLimit>,
    /// `azp` of the tokens: the origin of the application. Without it tokens have none.
    pub authorized_party: Option<String>,
}

/// A secret key of Clerk's shape: `sk_test_...` or `sk_live_...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    text: Secret,
    production: bool,
}

/// The text is not a secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret key is sk_test_ or sk_live_ followed by letters, digits or _")]
pub struct BadSecretKey;

/// The secret key when none is given. It protects nothing.
pub const DEFAULT_SECRET_KEY: &str = "sk_test_emulator";

const DEVELOPMENT_HOST: &str = "mintgate-emulator-00.clerk.accounts.dev";
const PRODUCTION_HOST: &str = "clerk.mintgate-emulator.example";

// === impl SecretKey ===

impl SecretKey {
    /// The key itself.
    pub fn text(&self) -> &Secret {
        &self.text
    }
}

impl Default for SecretKey {
    fn default() -> Self {
        Self { text: Secret::new(DEFAULT_SECRET_KEY), production: false }
    }
}

impl FromStr for SecretKey {
    type Err = BadSecretKey;

    fn from_str(text: &str) -> Result<Self, BadSecretKey> {
        let (rest, production) = match (text.strip_prefix("sk_test_"), text.strip_prefix("sk_live_")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err(BadSecretKey),
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if rest.is_empty() || !rest.bytes().all(fits) {
            return Err(BadSecretKey);
        }
        Ok(Self { text: Secret::new(text), production })
    }
}

// === impl Emulator ===

impl Emulator {
    /// A new instance with the default seed and a new signing key.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn new(options: Options, clock: Clock) -> Result<Self, CryptoError> {
        let SecretKey { text, production } = options.secret_key;
        let (host, kind, limit) = if production {
            (PRODUCTION_HOST, "pk_live_", RateLimit::Production)
        } else {
            (DEVELOPMENT_HOST, "pk_test_", RateLimit::Development)
        };
        let start = Start {
            secret_key: text,
            production,
            rate_limit: options.rate_limit.unwrap_or(limit),
            azp: options.authorized_party,
            frontend_api: host.to_owned(),
            publishable_key: format!("{kind}{}", STANDARD.encode(format!("{host}$"))),
            records: seed::default_records(clock.wall()),
        };
        Ok(Self(Arc::new(Instance::new(start, clock)?)))
    }

    /// The API, the public JWKS and the helpers. Paths begin at the root: the API is below `/v1`.
    pub fn router(&self) -> Router {
        let instance = &self.0;
        let limited = sessions::routes()
            .merge(templates::routes())
            .fallback(no_endpoint)
            .method_not_allowed_fallback(no_method)
            .layer(from_fn_with_state(Arc::clone(instance), guard::throttle));
        // The JWKS alone has no rate limit (contract section 2).
        let api = Router::new()
            .route("/jwks", get(jwks))
            .merge(limited)
            .layer(from_fn_with_state(Arc::clone(instance), guard::authenticate));
        Router::new()
            .nest("/v1", api)
            .route("/.well-known/jwks.json", get(jwks))
            .merge(helpers::routes())
            .fallback(no_endpoint)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(Arc::clone(instance), guard::date))
            .with_state(Arc::clone(instance))
    }

    /// What `iss` says: the URL of the Frontend API that the publishable key encodes.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// `pk_test_...`
    pub fn publishable_key(&self) -> &str {
        &self.0.publishable_key
    }

    /// What callers must present.
    pub fn secret_key(&self) -> &Secret {
        &self.0.secret_key
    }

    /// The `kid` of its key.
    pub fn key_id(&self) -> &str {
        &self.0.id
    }

    /// The public key, PEM: what Clerk's dashboard calls the JWT public key.
    ///
    /// # Errors
    /// When the cryptography library refuses.
    pub fn jwt_key(&self) -> Result<String, CryptoError> {
        self.0.key.pem()
    }

    /// A fresh session token, as a browser would hold it.
    ///
    /// # Errors
    /// [`ApiError::SessionNotFound`] when the session is not active.
    pub fn session_token(&self, session: &str) -> Result<String, ApiError> {
        self.0.session_token(session, None, None)
    }

    /// Makes sure that a template of this name exists. One that is made has the claims of the template `plain`.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn ensure_template(&self, name: &str) -> Result<(), CryptoError> {
        let id = keys::random_id("jtmp_")?;
        let template = Template::new(id, name.to_owned(), seed::plain(), self.0.clock.wall());
        match self.0.add_template(template) {
            // The name is taken: that is what was asked for.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Everything that a test wants to know: records, and calls that were counted.
    pub fn state(&self) -> Value {
        self.0.state()
    }

    /// Where the instance is served, its keys and its sessions: the line of `mintgate emulator --json`.
    ///
    /// # Errors
    /// When the cryptography library refuses.
    pub fn describe(&self, address: SocketAddr) -> Result<Value, CryptoError> {
        let base = base_url(address);
        let state = self.state();
        Ok(json!({
            "address": address.to_string(),
            "api_url": base,
            "jwks_url": format!("{base}/.well-known/jwks.json"),
            "issuer": self.issuer(),
            "secret_key": self.secret_key().expose(),
            "publishable_key": self.publishable_key(),
            "jwt_key": self.jwt_key()?,
            "kid": self.key_id(),
            "rate_limit": self.0.rate_limit.requests(),
            "sessions": state["sessions"].as_array().map(|sessions| sessions.iter().map(identity).collect::<Vec<_>>()),
            "templates": state["templates"],
        }))
    }

    /// A command line that calls `target` with a session token that it fetches itself, so it works however late it is
    /// pasted. It begins with `curl`.
    pub fn curl(&self, served_at: SocketAddr, target: &str, session: &str) -> String {
        format!("curl -s '{target}' -H \"Authorization: Bearer $({})\"", self.token_command(served_at, session))
    }

    /// A command line that prints a fresh session token.
    pub fn token_command(&self, served_at: SocketAddr, session: &str) -> String {
        format!("curl -s '{}/_emulator/token?session={session}'", base_url(served_at))
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("instance", &self.0.id).finish_non_exhaustive()
    }
}

/// `http://address`; an address that stands for all is replaced by one that can be called.
pub fn base_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// A session without its counts.
fn identity(session: &Value) -> Value {
    json!({
        "id": session["id"],
        "user_id": session["user_id"],
        "organization_id": session["organization_id"],
        "status": session["status"],
    })
}

async fn jwks(State(instance): State<Arc<Instance>>) -> Response {
    json_response(StatusCode::OK, &instance.jwks())
}

async fn no_endpoint() -> ApiError {
    ApiError::NoEndpoint
}

async fn no_method() -> ApiError {
    ApiError::NoMethod
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
    use http::{Method, Request, request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::clock::Wall;

    const ALICE: &str = "sess_emulator_alice";
    const BOB: &str = "sess_emulator_bob";

    fn emulator() -> Emulator {
        Emulator::new(Options::default(), Clock::following(Wall::from_seconds(1_800_000_000))).unwrap()
    }

    struct Answer {
        status: u16,
        headers: http::HeaderMap,
        body: Value,
    }

    async fn send(emulator: &Emulator, request: Request<Body>) -> Answer {
        let (parts, body) = emulator.router().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn builder(method: Method, target: &str) -> request::Builder {
        Request::builder().method(method).uri(target)
    }

    async fn call(emulator: &Emulator, method: Method, target: &str, body: &str) -> Answer {
        let request = builder(method, target)
            .header("authorization", format!("Bearer {DEFAULT_SECRET_KEY}"))
            .header("content-type", "application/json");
        send(emulator, request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn mint(emulator: &Emulator, session: &str, template: &str, body: &str) -> Answer {
        call(emulator, Method::POST, &format!("/v1/sessions/{session}/tokens{template}"), body).await
    }

    /// Header and claims of a token.
    fn read(token: &Value) -> (Value, Value) {
        let parts: Vec<Value> = token
            .as_str()
            .unwrap()
            .split('.')
            .take(2)
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        (parts[0].clone(), parts[1].clone())
    }

    /// The one error of an answer, in Clerk's shape.
    fn error(answer: &Answer) -> (u16, String, String) {
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
        assert_eq!(answer.body["clerk_trace_id"].as_str().map(str::len), Some(16));
        let error = &answer.body["errors"][0];
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        assert!(!text("message").is_empty());
        (answer.status, text("code"), text("long_message"))
    }

    #[tokio::test]
    async fn a_template_token_has_the_templates_claims_and_no_session() {
        let emulator = emulator();
        let answer = mint(&emulator, ALICE, "/custom_hasura", "").await;
        assert_eq!((answer.status, &answer.headers[CONTENT_TYPE]), (200, &"application/json".parse().unwrap()));
        assert_eq!(answer.body["object"], "token");
        let (header, mut claims) = read(&answer.body["jwt"]);
        assert_eq!(header, json!({"alg": "RS256", "cat": "cl_B7d4PD222AAA", "kid": emulator.key_id(), "typ": "JWT"}));
        claims["jti"] = json!("");
        assert_eq!(
            claims,
            json!({
                "exp": 1_800_000_060, "iat": 1_800_000_000, "iss": emulator.issuer(), "jti": "", "nbf": 1_799_999_995,
                "sub": "user_emulator_alice",
                "https://hasura.io/jwt/claims": {
                    "x-hasura-allowed-roles": ["user", "admin"],
                    "x-hasura-default-role": "admin",
                    "x-hasura-user-id": "user_emulator_alice",
                    "x-hasura-org-id": "org_emulator_acme",
                },
            })
        );
    }

    #[tokio::test]
    async fn a_session_token_names_its_session_and_organization() {
        let emulator = emulator();
        let (header, claims) = read(&mint(&emulator, ALICE, "", "null").await.body["jwt"]);
        assert_eq!((&header["cat"], &header["kid"]), (&json!("cl_B7d4PD111AAA"), &json!(emulator.key_id())));
        assert_eq!((&claims["sid"], &claims["v"], &claims["sts"]), (&json!(ALICE), &json!(2), &json!("active")));
        assert_eq!((&claims["o"]["rol"], &claims["o"]["id"]), (&json!("admin"), &json!("org_emulator_acme")));
        let (_, claims) = read(&mint(&emulator, BOB, "", r#"{"expires_in_seconds":300}"#).await.body["jwt"]);
        assert_eq!((claims.get("o"), &claims["exp"]), (None, &json!(1_800_000_300)));
        assert_ne!(claims["jti"], read(&mint(&emulator, BOB, "", "{}").await.body["jwt"]).1["jti"], "no token twice");
    }

    #[tokio::test]
    async fn refusals_are_in_clerks_words() {
        let emulator = emulator();
        let not_found = "resource_not_found".to_owned();
        for (session, template, body, expected) in [
            ("sess_none", "/plain", "", (404, &*not_found, "No session was found with id sess_none")),
            ("sess_none", "", "", (404, &*not_found, "No session was found with id sess_none")),
            (ALICE, "/none", "", (404, &*not_found, "No JWT template exists with name: none")),
            (ALICE, "/a%2Fb", "", (404, &*not_found, "No JWT template exists with name: a/b")),
            (
                ALICE,
                "/plain",
                r#"{"expires_in_seconds":29}"#,
                (422, "form_param_value_invalid", "expires_in_seconds is invalid"),
            ),
            (
                ALICE,
                "/plain",
                r#"{"x":1}"#,
                (422, "form_param_unknown", "x is not a valid parameter for this request."),
            ),
        ] {
            let answer = mint(&emulator, session, template, body).await;
            let (status, code, long) = error(&answer);
            assert_eq!((status, &*code, &*long), expected, "{session} {template} {body}");
        }
        assert_eq!(error(&mint(&emulator, ALICE, "/plain", "{").await).1, "request_body_invalid");
        let long = format!("\"{}\"", "x".repeat(MAX_BODY));
        assert_eq!(error(&mint(&emulator, ALICE, "/plain", &long).await).0, 413);
        assert_eq!(error(&call(&emulator, Method::GET, "/v1/nothing", "").await).0, 404);
        assert_eq!(error(&call(&emulator, Method::PUT, "/v1/sessions", "").await).0, 405);
    }

    #[tokio::test]
    async fn only_the_secret_key_opens_the_api() {
        let emulator = emulator();
        for (presented, code) in [
            (None, "authentication_invalid"),
            (Some("Bearer sk_test_other"), "clerk_key_invalid"),
            (Some("Bearer sk_test_emulato"), "clerk_key_invalid"),
            (Some("Basic c2s6"), "authorization_header_format_invalid"),
            (Some("sk_test_emulator"), "authorization_header_format_invalid"),
            (Some(""), "authorization_header_format_invalid"),
        ] {
            for target in ["/v1/jwks", "/v1/sessions", "/v1/nothing"] {
                let mut request = builder(Method::GET, target);
                if let Some(presented) = presented {
                    request = request.header("authorization", presented);
                }
                let answer = send(&emulator, request.body(Body::empty()).unwrap()).await;
                let (status, found, _) = error(&answer);
                assert_eq!((status, &*found), (401, code), "{presented:?} {target}");
            }
        }
        let public = builder(Method::GET, "/.well-known/jwks.json").body(Body::empty()).unwrap();
        assert_eq!(send(&emulator, public).await.body["keys"][0]["kid"], emulator.key_id());
    }

    #[tokio::test]
    async fn a_revoked_session_mints_nothing() {
        let emulator = emulator();
        let revoked = call(&emulator, Method::POST, &format!("/v1/sessions/{BOB}/revoke"), "").await;
        assert_eq!((revoked.status, &revoked.body["status"]), (200, &json!("revoked")));
        assert_eq!(error(&mint(&emulator, BOB, "/plain", "").await).0, 404);
        assert_eq!(error(&mint(&emulator, BOB, "", "").await).0, 404);
        assert!(matches!(emulator.session_token(BOB), Err(ApiError::SessionNotFound(_))));
        assert_eq!(mint(&emulator, ALICE, "", "").await.status, 200);
        let list = call(&emulator, Method::GET, "/v1/sessions?status=active&paginated=true", "").await;
        assert_eq!((&list.body["total_count"], &list.body["data"][0]["id"]), (&json!(1), &json!(ALICE)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_by_age() {
        let emulator = emulator();
        tokio::time::advance(std::time::Duration::from_hours(7 * 24)).await;
        assert_eq!(error(&mint(&emulator, ALICE, "", "").await).0, 404);
        assert_eq!(call(&emulator, Method::GET, &format!("/v1/sessions/{ALICE}"), "").await.body["status"], "expired");
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_rate_limit_the_answer_says_when_to_come_back() {
        let emulator = emulator();
        for _ in 0..100 {
            assert_eq!(call(&emulator, Method::GET, "/v1/sessions", "").await.status, 200);
        }
        let refused = mint(&emulator, ALICE, "", "").await;
        assert_eq!(
            (error(&refused).1.as_str(), &refused.headers[RETRY_AFTER]),
            ("too_many_requests", &"10".parse().unwrap())
        );
        assert_eq!(call(&emulator, Method::GET, "/v1/jwks", "").await.status, 200);
        assert_eq!(emulator.state()["calls"], json!({"requests": 101, "throttled": 1, "jwks": 1, "mints": 0}));
        tokio::time::advance(RateLimit::WINDOW).await;
        assert_eq!(mint(&emulator, ALICE, "", "").await.status, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_begun_for_a_user_in_its_organization() {
        let emulator = emulator();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let body = r#"{"user_id":"user_emulator_alice","active_organization_id":"org_emulator_acme"}"#;
        let begun = call(&emulator, Method::POST, "/v1/sessions", body).await;
        assert_eq!(begun.body["status"], "active");
        let list = call(&emulator, Method::GET, "/v1/sessions?limit=1", "").await;
        assert_eq!(list.body[0]["id"], begun.body["id"], "the newest first");
        let (_, claims) = read(&mint(&emulator, begun.body["id"].as_str().unwrap(), "", "").await.body["jwt"]);
        assert_eq!((&claims["sid"], &claims["o"]["slg"]), (&begun.body["id"], &json!("acme")));
        for (body, status) in [
            (r#"{"user_id":"user_none"}"#, 404),
            (r#"{"user_id":"user_emulator_bob","active_organization_id":"org_emulator_acme"}"#, 404),
            ("{}", 422),
        ] {
            assert_eq!(error(&call(&emulator, Method::POST, "/v1/sessions", body).await).0, status, "{body}");
        }
        let options = Options { secret_key: "sk_live_1".parse().unwrap(), ..Options::default() };
        let live = Emulator::new(options, Clock::system()).unwrap();
        assert!(live.publishable_key().starts_with("pk_live_"));
        let request = builder(Method::POST, "/v1/sessions").header("authorization", "Bearer sk_live_1");
        let refused = send(&live, request.body(Body::empty()).unwrap()).await;
        assert_eq!(error(&refused).1, "request_invalid_for_environment");
    }

    #[tokio::test]
    async fn templates_are_made_changed_and_removed() {
        let emulator = emulator();
        let body = r#"{"name":"mine","claims":{"who":"{{user.full_name}}"},"lifetime":90,"allowed_clock_skew":0}"#;
        let made = call(&emulator, Method::POST, "/v1/jwt_templates", body).await;
        let path = format!("/v1/jwt_templates/{}", made.body["id"].as_str().unwrap());
        let (_, claims) = read(&mint(&emulator, ALICE, "/mine", "").await.body["jwt"]);
        assert_eq!(
            (&claims["who"], &claims["exp"], &claims["nbf"]),
            (&json!("Alice Adams"), &json!(1_800_000_090), &json!(1_800_000_000))
        );
        assert_eq!(error(&call(&emulator, Method::POST, "/v1/jwt_templates", body).await).1, "form_identifier_exists");

        let shared = r#"{"custom_signing_key":true,"signing_algorithm":"HS256","signing_key":"canary"}"#;
        let changed = call(&emulator, Method::PATCH, &path, shared).await;
        assert_eq!(
            (&changed.body["signing_algorithm"], &changed.body["custom_signing_key"]),
            (&json!("HS256"), &json!(true))
        );
        assert!(!changed.body.to_string().contains("canary"));
        let (header, _) = read(&mint(&emulator, ALICE, "/mine", "").await.body["jwt"]);
        assert_eq!(header["alg"], "HS256");

        for (body, code) in [
            (r#"{"claims":{"sid":"x"}}"#, "jwt_template_reserved_claim"),
            (r#"{"lifetime":29}"#, "form_param_value_invalid"),
            (r#"{"allowed_clock_skew":301}"#, "form_param_value_invalid"),
            (r#"{"name":"plain"}"#, "form_identifier_exists"),
            (r#"{"custom_signing_key":true,"signing_algorithm":"ES256"}"#, "form_param_value_invalid"),
            (r#"{"claims":[]}"#, "form_param_type_invalid"),
        ] {
            assert_eq!(error(&call(&emulator, Method::PATCH, &path, body).await).1, code, "{body}");
        }
        assert_eq!(call(&emulator, Method::DELETE, &path, "").await.body["deleted"], true);
        assert_eq!(
            error(&call(&emulator, Method::GET, &path, "").await).2,
            format!("No JWT template exists with id: {}", made.body["id"].as_str().unwrap())
        );
        emulator.ensure_template("fresh").unwrap();
        emulator.ensure_template("fresh").unwrap();
        assert_eq!(mint(&emulator, ALICE, "/fresh", "").await.status, 200);
    }

    #[tokio::test]
    async fn the_helpers_need_no_key_and_count_apart() {
        let emulator = emulator();
        mint(&emulator, ALICE, "/plain", "").await;
        mint(&emulator, ALICE, "", "").await;
        let target = format!("/_emulator/token?session={ALICE}&azp=https://app.example.com");
        let answer = send(&emulator, builder(Method::GET, &target).body(Body::empty()).unwrap()).await;
        assert!(answer.headers[CONTENT_TYPE].to_str().unwrap().starts_with("text/plain"));
        let (_, claims) = read(&answer.body);
        assert_eq!((&claims["sid"], &claims["azp"]), (&json!(ALICE), &json!("https://app.example.com")));
        let state = send(&emulator, builder(Method::GET, "/_emulator/state").body(Body::empty()).unwrap()).await.body;
        assert_eq!(state["sessions"][0]["mints"], json!({"session": 1, "templates": {"plain": 1}}));
        assert_eq!(state["calls"]["mints"], 2);
        let bare = builder(Method::GET, "/_emulator/token").body(Body::empty()).unwrap();
        assert_eq!(error(&send(&emulator, bare).await).0, 422);
    }

    #[tokio::test(start_paused = true)]
    async fn the_date_is_the_emulators_own() {
        let clock = Clock::following(Wall::from_seconds(1_800_000_000));
        let emulator = Emulator::new(Options::default(), clock.clone()).unwrap();
        clock.step(3_600_000);
        let answer = call(&emulator, Method::GET, "/v1/jwks", "").await;
        assert_eq!(answer.headers[DATE], "Fri, 15 Jan 2027 09:00:00 GMT");
    }

    #[test]
    fn secret_keys_are_of_clerks_shape() {
        for bad in ["", "sk_test_", "sk_test_a b", "pk_test_x", "sk_test_é", "xsk_test_a"] {
            assert_eq!(bad.parse::<SecretKey>(), Err(BadSecretKey), "{bad:?}");
        }
        assert_eq!(DEFAULT_SECRET_KEY.parse::<SecretKey>(), Ok(SecretKey::default()));
    }

    #[tokio::test]
    async fn the_line_to_paste_fetches_its_token() {
        let line = emulator().curl("0.0.0.0:6470".parse().unwrap(), "http://127.0.0.1:6468/x", ALICE);
        assert_eq!(
            line,
            "curl -s 'http://127.0.0.1:6468/x' -H \"Authorization: Bearer $(curl -s \
             'http://127.0.0.1:6470/_emulator/token?session=sess_emulator_alice')\""
        );
    }
}
