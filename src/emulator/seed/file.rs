//! `--seed FILE`: what an instance holds at its start, out of TOML. Everything that is wrong is said at once, as for the
//! configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use crate::clock::Wall;
use crate::config::raw::problem::{Problems, Span, nearest};
use crate::config::raw::reader::{At, Field, Reader};
use crate::config::validate::context::Context;
use crate::config::validate::{Diagnostics, Environment, Secrets};
use crate::emulator::claims::RESERVED;
use crate::emulator::model::{Grants, Membership, Organization, SessionRecord, Status, Template, User};
use crate::emulator::own_key::{BadOwnKey, OwnKey};
use crate::emulator::seed::{Records, default_records};
use crate::emulator::version::TokenVersion;
use crate::secret::Secret;

use super::raw::{self, KeyText, Members};

/// What an instance begins with.
#[derive(Debug, Clone)]
pub struct Seed {
    pub(crate) records: Records,
    pub(crate) token_version: TokenVersion,
    pub(crate) authorized_party: Option<String>,
}

/// The ids and names that are taken, and where.
#[derive(Default)]
struct Known(BTreeMap<(&'static str, String), Span>);

/// Id of the template that adds claims to session tokens.
const SESSION_TOKEN: &str = "jtmp_emulator_session_token";

// === impl Seed ===

impl Seed {
    /// The default seed.
    pub(crate) fn standard(now: Wall) -> Self {
        Self { records: default_records(now), token_version: TokenVersion::default(), authorized_party: None }
    }

    /// Reads a seed file; its users and sessions are as old as `now`. Beside it come the warnings.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(path: &Path, environment: &dyn Environment, now: Wall) -> Result<(Self, Diagnostics), Diagnostics> {
        let unreadable = |title: String| {
            let mut problems = Problems::default();
            problems.general(title);
            Diagnostics::new(path, "", problems)
        };
        let bytes = environment.read(path).map_err(|error| unreadable(format!("cannot read the file: {error}")))?;
        let source = String::from_utf8(bytes).map_err(|_| unreadable("the file is not UTF-8 text".to_owned()))?;
        Self::parse(&source, path, environment, now)
    }

    /// Reads a seed out of a text. The path is only shown.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn parse(
        source: &str,
        path: &Path,
        environment: &dyn Environment,
        now: Wall,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let (document, syntax) = DeTable::parse_recoverable(source);
        if let Some(error) = syntax.first() {
            let mut problems = Problems::default();
            match error.span() {
                Some(span) => problems.error(&span, error.message().to_owned()),
                None => problems.general(error.message().to_owned()),
            };
            problems.hidden = crate::config::raw::problem::after_secret_keys(source);
            return Err(Diagnostics::new(path, source, problems));
        }
        let var = |name: &str| environment.var(name);
        let mut reader = Reader { problems: Problems::default(), var: &var };
        let file = raw::File::document(document.get_ref(), &mut reader);
        let base = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let mut cx = Context { problems: reader.problems, environment, secrets: Secrets::Required, base };
        let seed = seed(file, now, &mut cx);
        let broken = cx.problems.has_errors();
        let diagnostics = Diagnostics::new(path, source, cx.problems);
        if broken { Err(diagnostics) } else { Ok((seed, diagnostics)) }
    }
}

/// The whole seed.
fn seed(file: raw::File, now: Wall, cx: &mut Context<'_>) -> Seed {
    let token_version = match file.session_token_version.get() {
        Some(at) if at.value == 1 => TokenVersion::V1,
        Some(at) if at.value != 2 => {
            cx.error(&at.span, "not a version of session tokens").label("1 or 2");
            TokenVersion::V2
        }
        _ => TokenVersion::V2,
    };
    let mut records = Records::default();
    if let Some(custom) = file.session_token.get() {
        let claims = claims(&custom.value.claims, cx);
        let template = Template::new(SESSION_TOKEN.to_owned(), "session_token".to_owned(), claims, now);
        records.session_token = Some(template);
    }
    let mut known = Known::default();
    for at in file.users.or_default() {
        let user = user(&at, now, &mut known, cx);
        records.users.insert(user.id.clone(), user);
    }
    for at in file.organizations.or_default() {
        let organization = organization(&at, now, &mut known, cx);
        records.organizations.insert(organization.id.clone(), organization);
    }
    for at in file.memberships.or_default() {
        let place = membership(&at, now, &records, cx);
        records.memberships.push(place);
    }
    for at in file.sessions.or_default() {
        let session = session(&at, now, &records, &mut known, cx);
        records.sessions.insert(session.id.clone(), session);
    }
    for at in file.templates.or_default() {
        let template = template(&at, now, &mut known, cx);
        records.templates.insert(template.id.clone(), template);
    }
    Seed { records, token_version, authorized_party: file.authorized_party.get().map(|at| at.value.clone()) }
}

// === impl Known ===

impl Known {
    /// An id: there, safe in a path, and used once among things of its kind.
    fn id(&mut self, kind: &'static str, table: &Span, field: &Field<String>, cx: &mut Context<'_>) -> String {
        let Some(at) = field.get() else {
            if field.is_absent() {
                cx.error(table, format!("a {kind} needs an {}", if kind == "template" { "name" } else { "id" }));
            }
            return String::new();
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if at.is_empty() || at.len() > 128 || !at.bytes().all(fits) {
            cx.error(&at.span, format!("not good for a {kind}")).advice("use letters, digits, `_` and `-`");
        }
        match self.0.get(&(kind, at.value.clone())) {
            Some(first) => {
                let first = first.clone();
                cx.error(&at.span, format!("there is another {kind} of this name")).also(first, "the first one");
            }
            None => drop(self.0.insert((kind, at.value.clone()), at.span.clone())),
        }
        at.value.clone()
    }
}

/// A reference to something that stands earlier in the file's order of things; empty when it was reported.
fn named<T>(
    what: &str,
    field: &Field<String>,
    table: &Span,
    among: &BTreeMap<String, T>,
    cx: &mut Context<'_>,
) -> String {
    let Some(at) = field.get() else {
        if field.is_absent() {
            cx.error(table, format!("`{what}` is missing"));
        }
        return String::new();
    };
    if !among.contains_key(&at.value) {
        let near = nearest(at, among.keys().map(String::as_str)).map(str::to_owned);
        let problem = cx.error(&at.span, format!("there is no such {what}"));
        match near {
            Some(near) => problem.label(format!("did you mean \"{near}\"?")),
            None => problem.advice(format!("add it under [[{what}s]]")),
        };
    }
    at.value.clone()
}

fn user(at: &At<raw::User>, now: Wall, known: &mut Known, cx: &mut Context<'_>) -> User {
    let raw = &at.value;
    User {
        id: known.id("user", &at.span, &raw.id, cx),
        username: text(&raw.username),
        external_id: text(&raw.external_id),
        first_name: text(&raw.first_name),
        last_name: text(&raw.last_name),
        email_verified: raw.email_verified.or(!raw.email.is_absent()),
        email: text(&raw.email),
        phone_verified: raw.phone_verified.or(!raw.phone.is_absent()),
        phone: text(&raw.phone),
        image_url: text(&raw.image_url).unwrap_or_default(),
        two_factor_enabled: raw.two_factor_enabled.or(false),
        banned: raw.banned.or(false),
        locked: raw.locked.or(false),
        public_metadata: object(&raw.public_metadata),
        private_metadata: object(&raw.private_metadata),
        unsafe_metadata: object(&raw.unsafe_metadata),
        grants: grants(&raw.plan, &raw.features),
        created_at: now,
        updated_at: now,
    }
}

fn organization(at: &At<raw::Organization>, now: Wall, known: &mut Known, cx: &mut Context<'_>) -> Organization {
    let raw = &at.value;
    let id = known.id("organization", &at.span, &raw.id, cx);
    Organization {
        name: raw.name.or(id.clone()),
        slug: raw.slug.or(id.strip_prefix("org_").unwrap_or(&id).to_owned()),
        id,
        public_metadata: object(&raw.public_metadata),
        grants: grants(&raw.plan, &raw.features),
        created_at: now,
        updated_at: now,
    }
}

fn membership(at: &At<raw::Membership>, now: Wall, records: &Records, cx: &mut Context<'_>) -> Membership {
    let raw = &at.value;
    let user_id = named("user", &raw.user, &at.span, &records.users, cx);
    let organization_id = named("organization", &raw.organization, &at.span, &records.organizations, cx);
    if records.membership(&user_id, &organization_id).is_some() {
        cx.error(&at.span, "this user is a member of this organization already");
    }
    if let Some(role) = raw.role.get().filter(|role| !role.starts_with("org:")) {
        cx.error(&role.span, "not a role").advice("a role is written \"org:admin\"");
    }
    for permission in list(&raw.permissions) {
        if !permission.strip_prefix("org:").is_some_and(|rest| rest.contains(':')) {
            cx.error(&permission.span, "not a permission").advice("a permission is written \"org:reports:read\"");
        }
    }
    Membership {
        id: format!("orgmem_emulator_{}", records.memberships.len() + 1),
        user_id,
        organization_id,
        role: raw.role.or("org:member".to_owned()),
        permissions: texts(&raw.permissions),
        public_metadata: object(&raw.public_metadata),
        created_at: now,
        updated_at: now,
    }
}

fn session(
    at: &At<raw::Session>,
    now: Wall,
    records: &Records,
    known: &mut Known,
    cx: &mut Context<'_>,
) -> SessionRecord {
    let raw = &at.value;
    let id = known.id("session", &at.span, &raw.id, cx);
    let user = named("user", &raw.user, &at.span, &records.users, cx);
    let organization = raw.organization.get().map(|place| {
        let id = named("organization", &raw.organization, &at.span, &records.organizations, cx);
        if records.organizations.contains_key(&id) && records.membership(&user, &id).is_none() {
            cx.error(&place.span, "the user is no member of this organization").advice("add it under [[memberships]]");
        }
        id
    });
    let client = raw.client.or(format!("client_{}", id.strip_prefix("sess_").unwrap_or(&id)));
    let mut session = SessionRecord::begin(id, user, client, organization, now);
    session.status = cx.choice(&raw.status, &Status::ALL.map(|status| (status.as_str(), status)), Status::Active);
    session.tasks = texts(&raw.tasks);
    if let Some(tasks) = raw.tasks.get().filter(|_| session.status != Status::Pending) {
        cx.error(&tasks.span, "only a pending session has tasks").advice("add status = \"pending\"");
    }
    if let Some(actor) = raw.actor.get() {
        if !actor.0.get("sub").is_some_and(Value::is_string) {
            cx.error(&actor.span, "an actor needs a `sub`").advice("{ sub = \"user_...\" } says who impersonates");
        }
        session.actor = Some(Value::Object(actor.0.clone()));
    }
    if let Some(ages) = raw.factor_age.get() {
        let age = |minutes: i64| u64::try_from(minutes).ok().map(|minutes| now.minus(Duration::from_mins(minutes)));
        match ages.iter().map(|age| age.value).collect::<Vec<_>>()[..] {
            [first, second] if (-1..=5_256_000).contains(&first) && (-1..=5_256_000).contains(&second) => {
                session.verified_at = [age(first), age(second)];
            }
            _ => {
                let advice = "[5, -1]: the first factor was verified 5 minutes ago, there is no second one";
                cx.error(&ages.span, "not two ages in minutes").advice(advice);
            }
        }
    }
    session
}

fn template(at: &At<raw::Template>, now: Wall, known: &mut Known, cx: &mut Context<'_>) -> Template {
    let raw = &at.value;
    let name = known.id("template", &at.span, &raw.name, cx);
    let mut template = Template::new(format!("jtmp_emulator_{name}"), name, claims(&raw.claims, cx), now);
    template.lifetime = seconds(&raw.lifetime, 30, 315_360_000, Template::LIFETIME, cx);
    template.allowed_clock_skew = seconds(&raw.allowed_clock_skew, 0, 300, Template::CLOCK_SKEW, cx);
    match (raw.signing_algorithm.get(), raw.signing_key.get()) {
        (Some(algorithm), Some(key)) => {
            let text = match &key.value {
                KeyText::Text(text) => Some(Secret::new(text.clone())),
                KeyText::Named(named) => cx.secret(named),
            };
            match text.map(|text| OwnKey::new(algorithm, text)) {
                Some(Ok(own)) => template.key = Some(own),
                Some(Err(bad)) => {
                    let span = if bad == BadOwnKey::Algorithm { &algorithm.span } else { &key.span };
                    cx.error(span, "cannot sign with this").advice(bad.to_string());
                }
                None => {}
            }
        }
        (Some(at), None) if raw.signing_key.is_absent() => {
            cx.error(&at.span, "`signing_key` is missing").advice("an algorithm of its own needs a key of its own");
        }
        (None, Some(at)) if raw.signing_algorithm.is_absent() => {
            cx.error(&at.span, "`signing_algorithm` is missing").advice("say which: \"HS256\", \"RS256\"");
        }
        _ => {}
    }
    template
}

fn claims(field: &Field<Members>, cx: &mut Context<'_>) -> Map<String, Value> {
    let Some(at) = field.get() else { return Map::new() };
    for name in RESERVED.into_iter().filter(|name| at.0.contains_key(*name)) {
        cx.error(&at.span, format!("`{name}` is a reserved claim")).advice("Clerk sets it, or it cannot be in a token");
    }
    at.0.clone()
}

fn seconds(field: &Field<String>, least: u32, most: u32, default: u32, cx: &mut Context<'_>) -> u32 {
    let Some(at) = field.get() else { return default };
    let Some(duration) = cx.duration(at) else { return default };
    let whole = u32::try_from(duration.as_secs()).ok().filter(|seconds| (least..=most).contains(seconds));
    whole.unwrap_or_else(|| {
        cx.error(&at.span, "the duration is out of bounds").label(format!("from {least} s to {most} s"));
        default
    })
}

fn grants(plan: &Field<String>, features: &Field<Vec<At<String>>>) -> Grants {
    Grants { plan: text(plan), features: texts(features) }
}

fn text(field: &Field<String>) -> Option<String> {
    field.get().map(|at| at.value.clone())
}

fn list(field: &Field<Vec<At<String>>>) -> &[At<String>] {
    field.get().map_or(&[], |at| at.value.as_slice())
}

fn texts(field: &Field<Vec<At<String>>>) -> Vec<String> {
    list(field).iter().map(|at| at.value.clone()).collect()
}

fn object(field: &Field<Members>) -> Value {
    field.get().map_or_else(|| json!({}), |at| Value::Object(at.0.clone()))
}

#[cfg(test)]
mod tests;
