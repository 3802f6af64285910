//! The state of an emulated instance: its key, its records and its counts; and the tokens that come out of it.

pub(crate) mod people;
pub(crate) mod sessions;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::emulator::claims::{self, SESSION_CATEGORY, Stamp, TEMPLATE_CATEGORY};
use crate::emulator::error::ApiError;
use crate::emulator::faults::Faults;
use crate::emulator::keys::{self, CryptoError};
use crate::emulator::limit::{Limiter, RateLimit};
use crate::emulator::model::Template;
use crate::emulator::ring::Ring;
use crate::emulator::seed::Records;
use crate::emulator::version::TokenVersion;
use crate::emulator::webhooks::Outbox;
use crate::secret::Secret;

/// One emulated instance. The lock is held for look-ups alone: no signature is made and nothing is awaited under it.
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) issuer: String,
    pub(crate) publishable_key: String,
    pub(crate) secret_key: Secret,
    pub(crate) production: bool,
    pub(crate) rate_limit: RateLimit,
    /// `azp` of the tokens, when there is one.
    pub(crate) azp: Option<String>,
    /// Of session tokens when the call names no version of the API.
    pub(crate) token_version: TokenVersion,
    /// Events for the application, when it wants them.
    pub(crate) outbox: Option<Outbox>,
    pub(crate) clock: Clock,
    pub(crate) keys: Ring,
    tables: Mutex<Tables>,
    faults: Mutex<Faults>,
}

/// What changes.
struct Tables {
    records: Records,
    limiter: Limiter,
    calls: Calls,
}

/// Counted for tests. Only what exists is counted under its name, so the maps stay as small as the records.
#[derive(Debug, Default)]
struct Calls {
    /// Authenticated calls, refused ones too.
    requests: u64,
    /// Calls that the rate limit refused.
    throttled: u64,
    /// Downloads of the JWKS.
    jwks: u64,
    /// By session.
    mints: BTreeMap<String, Mints>,
}

/// Tokens that one session got through the API.
#[derive(Debug, Default)]
struct Mints {
    session: u64,
    templates: BTreeMap<String, u64>,
}

/// How an instance begins.
pub(crate) struct Start {
    pub(crate) secret_key: Secret,
    pub(crate) production: bool,
    pub(crate) rate_limit: RateLimit,
    pub(crate) azp: Option<String>,
    pub(crate) token_version: TokenVersion,
    pub(crate) outbox: Option<Outbox>,
    pub(crate) frontend_api: String,
    pub(crate) publishable_key: String,
    pub(crate) records: Records,
}

/// What to mint.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// Of this version, or of the instance's own.
    Session(Option<TokenVersion>),
    /// By name.
    Template(&'a str),
}

// === impl Instance ===

impl Instance {
    pub(crate) fn new(start: Start, clock: Clock) -> Result<Self, CryptoError> {
        // Another one at each start, as the key is: a verifier that still holds the old key meets an unknown
        // `kid` and fetches, where a known one with another key would be a bad signature.
        let id = keys::random_id("ins_")?;
        Ok(Self {
            keys: Ring::new(id.clone())?,
            id,
            issuer: format!("https://{}", start.frontend_api),
            publishable_key: start.publishable_key,
            secret_key: start.secret_key,
            production: start.production,
            rate_limit: start.rate_limit,
            azp: start.azp,
            token_version: start.token_version,
            outbox: start.outbox,
            clock,
            tables: Mutex::new(Tables {
                records: start.records,
                limiter: Limiter::new(start.rate_limit),
                calls: Calls::default(),
            }),
            faults: Mutex::default(),
        })
    }

    /// A panic elsewhere leaves no half-made record: every change under the lock is one insertion.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scripted faults.
    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one authenticated call against the rate limit.
    pub(crate) fn admit(&self) -> Result<(), Duration> {
        let now = self.clock.now().mono;
        let mut tables = self.tables();
        tables.calls.requests += 1;
        let admitted = tables.limiter.admit(now);
        tables.calls.throttled += u64::from(admitted.is_err());
        admitted
    }

    /// The public keys.
    pub(crate) fn jwks(&self) -> Value {
        self.tables().calls.jwks += 1;
        self.keys.jwks()
    }

    /// Mints through the API: a session that is signed in, a known template, and the call is counted.
    pub(crate) fn mint(&self, sid: &str, wanted: Wanted<'_>, expires_in: Option<u32>) -> Result<String, ApiError> {
        self.sign(sid, wanted, expires_in, self.azp.as_deref(), true)
    }

    /// A session token as a browser would hold it; not counted.
    pub(crate) fn session_token(
        &self,
        sid: &str,
        expires_in: Option<u32>,
        azp: Option<&str>,
        version: Option<TokenVersion>,
    ) -> Result<String, ApiError> {
        self.sign(sid, Wanted::Session(version), expires_in, azp.or(self.azp.as_deref()), false)
    }

    fn sign(
        &self,
        sid: &str,
        wanted: Wanted<'_>,
        expires_in: Option<u32>,
        azp: Option<&str>,
        count: bool,
    ) -> Result<String, ApiError> {
        let now = self.clock.wall();
        let stamp = Stamp { issuer: &self.issuer, azp, now, expires_in };
        let (claims, template_key) = {
            let mut tables = self.tables();
            let Tables { records, calls, .. } = &mut *tables;
            let missing = || ApiError::SessionNotFound(sid.to_owned());
            let session = records.sessions.get(sid).ok_or_else(missing)?;
            if !session.status_at(now).is_signed_in() {
                return Err(missing());
            }
            let subject = records.subject(session).ok_or_else(missing)?;
            match wanted {
                Wanted::Session(version) => {
                    if count {
                        calls.mints.entry(sid.to_owned()).or_default().session += 1;
                    }
                    let custom = records.session_token.as_ref().map(|template| &template.claims);
                    (claims::of_session(stamp, subject, version.unwrap_or(self.token_version), custom)?, None)
                }
                Wanted::Template(name) => {
                    let template = records
                        .template_named(name)
                        .ok_or_else(|| ApiError::TemplateNotFound { attribute: "name", value: name.to_owned() })?;
                    if count {
                        let mints = calls.mints.entry(sid.to_owned()).or_default();
                        *mints.templates.entry(template.name.clone()).or_default() += 1;
                    }
                    (claims::of_template(stamp, subject, template)?, Some(template.key.clone()))
                }
            }
        };
        let category = if template_key.is_some() { TEMPLATE_CATEGORY } else { SESSION_CATEGORY };
        if let Some(Some(own)) = template_key {
            let header = json!({ "alg": own.algorithm(), "cat": category, "typ": "JWT" });
            return Ok(own.sign(&header, &claims)?);
        }
        let named = self.keys.signing();
        let header = json!({ "alg": "RS256", "cat": category, "kid": named.kid, "typ": "JWT" });
        Ok(named.key.sign(&header, &claims)?)
    }

    /// The template with this id, as the API shows it.
    pub(crate) fn template(&self, id: &str) -> Result<Value, ApiError> {
        self.tables().records.template(id).map(Template::to_json).ok_or_else(|| no_template_id(id))
    }

    /// All templates, as the API shows them.
    pub(crate) fn templates(&self) -> Vec<Value> {
        self.tables().records.templates.values().map(Template::to_json).collect()
    }

    /// Puts a template in, unless another one has its name.
    pub(crate) fn add_template(&self, template: Template) -> Result<Value, ApiError> {
        let mut tables = self.tables();
        if tables.records.template_named(&template.name).is_some() {
            return Err(ApiError::NameTaken);
        }
        let shown = template.to_json();
        tables.records.templates.insert(template.id.clone(), template);
        Ok(shown)
    }

    /// Changes a template.
    pub(crate) fn change_template(
        &self,
        id: &str,
        change: impl FnOnce(Template) -> Result<Template, ApiError>,
    ) -> Result<Value, ApiError> {
        let now = self.clock.wall();
        let mut tables = self.tables();
        let before = tables.records.template(id).ok_or_else(|| no_template_id(id))?;
        let after = Template { updated_at: now, ..change(before.clone())? };
        if tables.records.template_named(&after.name).is_some_and(|other| other.id != id) {
            return Err(ApiError::NameTaken);
        }
        let shown = after.to_json();
        match &mut tables.records.session_token {
            Some(template) if template.id == id => *template = after,
            _ => drop(tables.records.templates.insert(id.to_owned(), after)),
        }
        Ok(shown)
    }

    /// Takes a template out.
    pub(crate) fn remove_template(&self, id: &str) -> Result<(), ApiError> {
        let mut tables = self.tables();
        if tables.records.session_token.as_ref().is_some_and(|template| template.id == id) {
            return Err(ApiError::SessionTokenTemplate);
        }
        tables.records.templates.remove(id).map(drop).ok_or_else(|| no_template_id(id))
    }

    /// Everything that a test wants to know.
    pub(crate) fn state(&self) -> Value {
        let now = self.clock.wall();
        let tables = self.tables();
        let (records, calls) = (&tables.records, &tables.calls);
        let none = Mints::default();
        let sessions: Vec<Value> = records
            .sessions
            .values()
            .map(|session| {
                let mints = calls.mints.get(&session.id).unwrap_or(&none);
                json!({
                    "id": session.id,
                    "user_id": session.user_id,
                    "organization_id": session.organization_id,
                    "status": session.status_at(now).as_str(),
                    "mints": { "session": mints.session, "templates": mints.templates },
                })
            })
            .collect();
        let minted: u64 = calls.mints.values().map(|mints| mints.session + mints.templates.values().sum::<u64>()).sum();
        json!({
            "instance": self.id,
            "issuer": self.issuer,
            "now": now.as_millis(),
            "calls": {
                "requests": calls.requests,
                "throttled": calls.throttled,
                "jwks": calls.jwks,
                "mints": minted,
            },
            "users": records.users.keys().collect::<Vec<_>>(),
            "sessions": sessions,
            "templates": records.templates.values().map(|template| &template.name).collect::<Vec<_>>(),
        })
    }
}

fn no_template_id(id: &str) -> ApiError {
    ApiError::TemplateNotFound { attribute: "id", value: id.to_owned() }
}
