//! `[clerk]`: the issuer, who may present sessions, and where the keys that verify them come from.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::raw::problem::Span;
use crate::config::raw::reader::{At, Field};
use crate::config::raw::shapes::{OneOrMany, SecretRef};
use crate::config::raw::{self};
use crate::config::{ApiUrl, Budget, Clerk, KeySource, Origin, PublishableKey, Rate};
use crate::secret::Secret;

use super::context::Context;
use super::{keys, net, units};

const SECOND: Duration = Duration::from_secs(1);

/// What routes need from `[clerk]`: the place of the first that does.
#[derive(Default)]
pub(crate) struct Needs {
    /// A session.
    pub(crate) session: Option<Span>,
    /// A minted token.
    pub(crate) mint: Option<Span>,
    /// A session out of a cookie.
    pub(crate) cookie: Option<Span>,
    /// ... without a list of origins that may send it.
    pub(crate) open_cookie: Option<Span>,
}

/// `[clerk]`, as far as it does not depend on what routes need.
pub(crate) struct Draft {
    clerk: Clerk,
    /// Whether a secret key is named, present or not.
    has_secret: bool,
    has_jwt_key: bool,
    jwks_url: Option<ApiUrl>,
    jwks_refresh: Duration,
    written: Written,
}

/// What stands in the section, also where it was refused: nobody is told then that it is missing.
struct Written {
    publishable_key: bool,
    authorized_parties: bool,
}

/// Reads the section.
pub(crate) fn read(raw: raw::Clerk, cx: &mut Context<'_>) -> Draft {
    let has_secret = !raw.secret_key.is_absent();
    let has_jwt_key = !raw.jwt_key.is_absent();
    let written = Written {
        publishable_key: !raw.publishable_key.is_absent(),
        authorized_parties: raw
            .authorized_parties
            .get()
            .map_or(!raw.authorized_parties.is_absent(), |list| !list.is_empty()),
    };
    let publishable_key = publishable_key(&raw.publishable_key, cx);
    let secret_keys = secret_keys(&raw.secret_key, publishable_key.as_ref(), cx);
    let issuer = match raw.issuer.get() {
        Some(at) => parsed(at, net::issuer(at), "write it as it stands in `iss`: \"https://clerk.example.com\"", cx),
        None => publishable_key.as_ref().map(|key| format!("https://{}", key.frontend_api)),
    };
    let api_url = match raw.api_url.get() {
        Some(at) => parsed(at, net::api_base(at), "Clerk's is \"https://api.clerk.com\"", cx),
        None => None,
    };
    if let (Field::Good(jwks), false) = (&raw.jwks_url, raw.jwt_key.is_absent()) {
        cx.error(&jwks.span, "`jwks_url` has no use beside `jwt_key`").advice("keep one of them");
    }
    let jwks_url = raw.jwks_url.get().and_then(|at| parsed(at, net::api_url(at), "write an absolute URL", cx));
    let keys = match raw.jwt_key.get().and_then(|at| jwt_key(at, cx)) {
        Some(der) => KeySource::Pinned(der),
        None => KeySource::None,
    };
    // What a hub takes in a secret key's place says nothing of the instance.
    let clerks = secret_keys.first().filter(|key| key.expose().starts_with("sk_"));
    let development = match (clerks, &publishable_key) {
        (Some(key), _) => key.expose().starts_with("sk_test_"),
        (None, Some(key)) => key.development,
        (None, None) => false,
    };
    let clerk = Clerk {
        secret_keys,
        publishable_key,
        authorized_parties: origins(&raw.authorized_parties, cx),
        issuer,
        audience: audience(&raw.audience, cx),
        keys,
        api_url: api_url.unwrap_or_else(|| ApiUrl("https://api.clerk.com".into())),
        api_version: api_version(&raw.api_version, cx),
        clock_skew: clock_skew(&raw.clock_skew, cx),
        connect_timeout: cx.period(&raw.connect_timeout, 2 * SECOND, Duration::from_millis(1)),
        timeout: cx.period(&raw.timeout, 5 * SECOND, Duration::from_millis(1)),
        ca: raw.ca_file.get().and_then(|at| certificates(at, cx)),
        budget: budget(raw.budget, development, cx),
    };
    let jwks_refresh = cx.period(&raw.jwks_refresh, 300 * SECOND, SECOND);
    Draft { clerk, has_secret, has_jwt_key, jwks_url, jwks_refresh, written }
}

/// Origins, without repetition.
pub(crate) fn origins(field: &Field<Vec<At<String>>>, cx: &mut Context<'_>) -> Vec<Origin> {
    let mut origins = Vec::new();
    for at in field.get().into_iter().flat_map(|list| &list.value) {
        let advice = "write the scheme, the host and a port that is not the usual one: \"https://app.example.com\"";
        if let Some(origin) = parsed(at, net::origin(at), advice, cx)
            && !origins.contains(&origin)
        {
            origins.push(origin);
        }
    }
    origins
}

// === impl Draft ===

impl Draft {
    /// The secret keys that are here.
    pub(crate) fn secret_keys(&self) -> &[Secret] {
        &self.clerk.secret_keys
    }

    /// The allow-list that routes narrow.
    pub(crate) fn authorized_parties(&self) -> &[Origin] {
        &self.clerk.authorized_parties
    }

    /// The section, once it is known what routes need of it.
    pub(crate) fn finish(self, needs: &Needs, cx: &mut Context<'_>) -> Clerk {
        let mut clerk = self.clerk;
        if let (Some(span), false) = (&needs.mint, self.has_secret) {
            cx.error(span, "a token cannot be minted without `clerk.secret_key`")
                .label("this has to be minted")
                .advice("add secret_key = { env = \"CLERK_SECRET_KEY\" } to [clerk]");
        }
        if let (Some(span), false) = (&needs.session, self.has_jwt_key) {
            let own = ApiUrl(format!("{}/v1/jwks", clerk.api_url.as_str()).into());
            let under_api = |url: &ApiUrl| url.as_str().starts_with(&format!("{}/", clerk.api_url.as_str()));
            clerk.keys = match self.jwks_url {
                Some(url) => {
                    let with_secret = self.has_secret && under_api(&url);
                    KeySource::Jwks { url, with_secret, refresh: self.jwks_refresh }
                }
                None if self.has_secret => KeySource::Jwks { url: own, with_secret: true, refresh: self.jwks_refresh },
                None => {
                    cx.error(span, "a session cannot be verified without keys")
                        .label("this route takes sessions")
                        .advice("set `secret_key`, `jwt_key` or `jwks_url` in [clerk]");
                    KeySource::None
                }
            };
        }
        if let (Some(span), false) = (&needs.open_cookie, self.written.authorized_parties) {
            cx.problems
                .warning(span, "cookies are taken, and `authorized_parties` does not say from which origins")
                .label("this route takes the session cookie")
                .advice("list your application's origins in `clerk.authorized_parties`, or take \"bearer\" alone");
        }
        if let (Some(span), false) = (&needs.cookie, self.written.publishable_key) {
            cx.problems
                .warning(span, "without `clerk.publishable_key` the cookie's suffix is not known")
                .label("this route takes the session cookie")
                .advice("only `__session` will be read, no `__session_<suffix>`");
        }
        clerk
    }
}

/// Reports a text that could not be parsed.
fn parsed<T>(at: &At<String>, result: Result<T, net::Bad>, advice: &'static str, cx: &mut Context<'_>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(bad) => {
            cx.error(&at.span, bad.to_string()).advice(advice);
            None
        }
    }
}

fn publishable_key(field: &Field<String>, cx: &mut Context<'_>) -> Option<PublishableKey> {
    let at = field.get()?;
    let key = keys::publishable(at);
    if key.is_none() {
        cx.error(&at.span, "not a publishable key")
            .advice("copy it from the dashboard's API keys: it begins with `pk_live_` or `pk_test_`");
    }
    key
}

fn secret_keys(
    field: &Field<OneOrMany<SecretRef>>,
    publishable: Option<&PublishableKey>,
    cx: &mut Context<'_>,
) -> Vec<Secret> {
    let Some(list) = field.get() else { return Vec::new() };
    if list.0.is_empty() {
        cx.error(&list.span, "the list of secret keys is empty")
            .advice("leave `secret_key` out where nothing is minted");
    }
    let mut found = Vec::new();
    for at in &list.0 {
        let Some(secret) = cx.secret(at) else { continue };
        if secret.expose().contains(char::is_whitespace) || secret.header("Bearer ").is_err() {
            cx.error(&at.span, "the secret key holds characters that no secret key has")
                .advice("it is one word of ASCII characters, such as `sk_live_...`");
        } else if secret.expose().starts_with(['"', '\'']) {
            cx.problems
                .warning(&at.span, "the secret key begins with a quotation mark")
                .advice("some shells and tools keep the quotes of NAME=\"value\": leave them out");
        } else if secret.expose().starts_with("pk_") {
            cx.problems
                .warning(&at.span, "this is a publishable key, not a secret key")
                .advice("secret keys begin with sk_live_ or sk_test_");
        } else if publishable.is_some_and(|key| is_of_other_kind(&secret, key)) {
            cx.problems
                .warning(&at.span, "the secret key and `publishable_key` belong to two instances")
                .label("one is for development, the other for production");
        }
        found.push(secret);
    }
    found
}

fn is_of_other_kind(secret: &Secret, publishable: &PublishableKey) -> bool {
    secret.expose().starts_with(if publishable.development { "sk_live_" } else { "sk_test_" })
}

fn jwt_key(at: &At<SecretRef>, cx: &mut Context<'_>) -> Option<Arc<[u8]>> {
    let pem = cx.secret(at)?;
    match keys::rsa_public(pem.expose()) {
        Ok(der) => Some(der.into()),
        Err(bad) => {
            cx.error(&at.span, bad.to_string()).advice("copy \"JWKS Public Key\" from the dashboard's API keys");
            None
        }
    }
}

fn audience(field: &Field<Vec<At<String>>>, cx: &mut Context<'_>) -> Vec<String> {
    let list = field.get().map_or(&[][..], |list| &list.value);
    for at in list.iter().filter(|at| at.is_empty()) {
        cx.error(&at.span, "an audience is not empty");
    }
    list.iter().map(|at| at.value.clone()).collect()
}

fn api_version(field: &Field<String>, cx: &mut Context<'_>) -> String {
    let default = "2026-05-12";
    let Some(at) = field.get() else { return default.to_owned() };
    let shape = |(index, byte): (usize, u8)| if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    if at.len() != default.len() || !at.bytes().enumerate().all(shape) {
        cx.error(&at.span, "not a version of Clerk's API").advice(format!("versions are dates, such as \"{default}\""));
    }
    at.value.clone()
}

fn clock_skew(field: &Field<String>, cx: &mut Context<'_>) -> Duration {
    let skew = cx.period(field, 5 * SECOND, Duration::ZERO);
    if let (Some(at), true) = (field.get(), skew > 300 * SECOND) {
        cx.error(&at.span, "the tolerance is longer than sessions live").label("at most 5m");
    }
    skew
}

/// Certificates in PEM.
pub(crate) fn certificates(at: &At<String>, cx: &mut Context<'_>) -> Option<Arc<[u8]>> {
    let pem = cx.file(at)?;
    let mut found = 0;
    let sound = CertificateDer::pem_slice_iter(&pem).inspect(|_| found += 1).all(|certificate| certificate.is_ok());
    if !sound || found == 0 {
        cx.error(&at.span, "the file holds no certificates in PEM").advice("it begins with `-----BEGIN CERTIFICATE`");
        return None;
    }
    Some(pem.into())
}

fn budget(field: Field<raw::Budget>, development: bool, cx: &mut Context<'_>) -> Budget {
    let place = field.get().map(|at| at.span.clone());
    let raw = field.or_default();
    let budget = Budget {
        requests: cx.count(&raw.requests, if development { 100 } else { 1000 }, 1..=1_000_000_000),
        per: cx.period(&raw.per, 10 * SECOND, Duration::from_millis(100)),
        share: part(&raw.share, 0.8, cx),
        replicas: cx.count(&raw.replicas, 1, 1..=100_000),
        reserve: part(&raw.reserve, 0.2, cx),
        per_session: per_session(&raw.per_session, cx),
        max_concurrent: cx.count(&raw.max_concurrent, 32, 1..=100_000),
        max_waiting: cx.count(&raw.max_waiting, 1024, 1..=10_000_000),
    };
    let ours = f64::from(budget.requests) * budget.share / f64::from(budget.replicas);
    if let (Some(span), true) = (place, ours < 1.0) {
        let span = raw.share.get().map_or(span, |at| at.span.clone());
        cx.error(&span, "this leaves less than one mint in `per` for this gateway")
            .advice("requests x share / replicas must be 1 or more");
    }
    budget
}

/// A number from 0 to 1.
pub(crate) fn part(field: &Field<f64>, default: f64, cx: &mut Context<'_>) -> f64 {
    let Some(at) = field.get() else { return default };
    if !(0.0..=1.0).contains(&at.value) {
        cx.error(&at.span, "a part is a number from 0 to 1");
        return default;
    }
    at.value
}

fn per_session(field: &Field<String>, cx: &mut Context<'_>) -> Rate {
    let default = Rate { count: 20, per: 10 * SECOND };
    let Some(at) = field.get() else { return default };
    units::rate(at).unwrap_or_else(|| {
        cx.error(&at.span, "not a rate").advice("write a count and a time: \"20/10s\"");
        default
    })
}
