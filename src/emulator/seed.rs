//! What an instance holds at its start: two users, their sessions, and three templates; or what a file says.

pub mod file;
mod raw;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::clock::Wall;
use crate::emulator::model::{Membership, Organization, SessionRecord, Subject, Template, User};

/// The records of an instance, by id where they have one. Sessions and templates keep the order of their ids, which
/// is the order in which lists show them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) organizations: BTreeMap<String, Organization>,
    pub(crate) memberships: Vec<Membership>,
    pub(crate) sessions: BTreeMap<String, SessionRecord>,
    pub(crate) templates: BTreeMap<String, Template>,
    /// What the instance adds to every session token. Lists do not show it, and it cannot be removed.
    pub(crate) session_token: Option<Template>,
}

// === impl Records ===

impl Records {
    /// Everything that a token of this session can say; `None` when its user is gone.
    pub(crate) fn subject<'a>(&'a self, session: &'a SessionRecord) -> Option<Subject<'a>> {
        let user = self.users.get(&session.user_id)?;
        let organization = session.organization_id.as_deref().and_then(|id| {
            let membership = self.membership(&user.id, id)?;
            Some((self.organizations.get(id)?, membership))
        });
        Some(Subject { session, user, organization })
    }

    /// The user's place in the organization.
    pub(crate) fn membership(&self, user_id: &str, organization_id: &str) -> Option<&Membership> {
        self.memberships.iter().find(|place| place.is(user_id, organization_id))
    }

    /// The template with this id.
    pub(crate) fn template(&self, id: &str) -> Option<&Template> {
        self.templates.get(id).or(self.session_token.as_ref().filter(|template| template.id == id))
    }

    /// The template with this name.
    pub(crate) fn template_named(&self, name: &str) -> Option<&Template> {
        self.templates.values().find(|template| template.name == name)
    }
}

const ALICE: &str = "user_emulator_alice";
const BOB: &str = "user_emulator_bob";
const ACME: &str = "org_emulator_acme";

/// The default seed. Its ids are fixed, so that a command line that names them outlives a restart.
pub(crate) fn default_records(now: Wall) -> Records {
    let mut records = Records::default();
    for user in [alice(now), bob(now)] {
        records.users.insert(user.id.clone(), user);
    }
    let acme = Organization {
        id: ACME.to_owned(),
        name: "Acme".to_owned(),
        slug: "acme".to_owned(),
        public_metadata: json!({ "plan": "gold" }),
        created_at: now,
        updated_at: now,
        ..Organization::default()
    };
    records.organizations.insert(acme.id.clone(), acme);
    records.memberships.push(Membership {
        id: "orgmem_emulator_alice".to_owned(),
        user_id: ALICE.to_owned(),
        organization_id: ACME.to_owned(),
        role: "org:admin".to_owned(),
        permissions: ["org:reports:read", "org:reports:write", "org:teams:write"].map(str::to_owned).to_vec(),
        public_metadata: json!({ "desk": 7 }),
        created_at: now,
        updated_at: now,
    });
    for (name, user, org) in [("alice", ALICE, Some(ACME)), ("bob", BOB, None)] {
        let (id, client) = (format!("sess_emulator_{name}"), format!("client_emulator_{name}"));
        let session = SessionRecord::begin(id.clone(), user.to_owned(), client, org.map(str::to_owned), now);
        records.sessions.insert(id, session);
    }
    for (name, claims) in [("custom_hasura", hasura()), ("postgrest", postgrest()), ("plain", plain())] {
        let template = Template::new(format!("jtmp_emulator_{name}"), name.to_owned(), claims, now);
        records.templates.insert(template.id.clone(), template);
    }
    records
}

fn alice(now: Wall) -> User {
    User {
        id: ALICE.to_owned(),
        username: Some("alice".to_owned()),
        external_id: Some("1".to_owned()),
        first_name: Some("Alice".to_owned()),
        last_name: Some("Adams".to_owned()),
        email: Some("alice@example.com".to_owned()),
        email_verified: true,
        phone: Some("+15555550100".to_owned()),
        phone_verified: true,
        image_url: "https://img.example.com/alice.png".to_owned(),
        public_metadata: json!({ "role": "admin", "tenant": { "id": "t-1" } }),
        private_metadata: json!({}),
        unsafe_metadata: json!({ "theme": "dark" }),
        created_at: now,
        updated_at: now,
        ..User::default()
    }
}

/// As little as a user can have: what templates make of a missing value is part of the trial.
fn bob(now: Wall) -> User {
    User {
        id: BOB.to_owned(),
        first_name: Some("Bob".to_owned()),
        email: Some("bob@example.com".to_owned()),
        email_verified: true,
        image_url: "https://img.example.com/bob.png".to_owned(),
        public_metadata: json!({}),
        private_metadata: json!({}),
        unsafe_metadata: json!({}),
        created_at: now,
        updated_at: now,
        ..User::default()
    }
}

fn hasura() -> Map<String, Value> {
    object(json!({
        "https://hasura.io/jwt/claims": {
            "x-hasura-allowed-roles": ["user", "{{user.public_metadata.role || 'user'}}"],
            "x-hasura-default-role": "{{user.public_metadata.role || 'user'}}",
            "x-hasura-user-id": "{{user.id}}",
            "x-hasura-org-id": "{{org.id || ''}}",
        },
    }))
}

fn postgrest() -> Map<String, Value> {
    object(json!({
        "aud": "authenticated",
        "role": "authenticated",
        "email": "{{user.primary_email_address}}",
        "app_metadata": { "org_id": "{{org.id}}", "org_role": "{{org.role}}" },
        "user_metadata": { "name": "{{user.full_name}}" },
    }))
}

/// The claims of the template `plain`, and of a template of which nothing but the name is known.
pub(crate) fn plain() -> Map<String, Value> {
    object(json!({
        "email": "{{user.primary_email_address}}",
        "name": "{{user.full_name || 'nobody'}}",
        "org_id": "{{org.id}}",
        "org_role": "{{org.role}}",
        "org_slug": "{{org.slug}}",
        "metadata": "{{user.public_metadata}}",
    }))
}

/// The members of a JSON object; none of anything else.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
