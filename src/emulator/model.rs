//! What an emulated instance holds: users, organizations, sessions and JWT templates.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::Wall;
use crate::emulator::keys::SharedKey;

/// A user, as far as shortcodes can name it.
#[derive(Debug, Clone, Default)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) username: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) email_verified: bool,
    pub(crate) phone: Option<String>,
    pub(crate) phone_verified: bool,
    pub(crate) image_url: String,
    pub(crate) two_factor_enabled: bool,
    pub(crate) public_metadata: Value,
    pub(crate) unsafe_metadata: Value,
    pub(crate) created_at: Wall,
    pub(crate) updated_at: Wall,
}

/// An organization.
#[derive(Debug, Clone)]
pub(crate) struct Organization {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) slug: String,
    pub(crate) public_metadata: Value,
}

/// A user's place in an organization.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) user_id: String,
    pub(crate) organization_id: String,
    /// As `org:admin`.
    pub(crate) role: String,
    /// As `org:reports:read`.
    pub(crate) permissions: Vec<String>,
    pub(crate) public_metadata: Value,
}

/// A session (contract section 1.3).
#[derive(Debug, Clone)]
pub(crate) struct SessionRecord {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) client_id: String,
    pub(crate) status: Status,
    pub(crate) organization_id: Option<String>,
    pub(crate) created_at: Wall,
    pub(crate) updated_at: Wall,
    pub(crate) expire_at: Wall,
}

/// The states of a session that the emulator can bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Active,
    Revoked,
    /// By its own age.
    Expired,
}

/// A JWT template (contract sections 1.5 and 4).
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) claims: Map<String, Value>,
    /// Seconds.
    pub(crate) lifetime: u32,
    /// Seconds.
    pub(crate) allowed_clock_skew: u32,
    /// Instead of the instance's own key.
    pub(crate) key: Option<SharedKey>,
    pub(crate) created_at: Wall,
    pub(crate) updated_at: Wall,
}

/// Everything that a token can say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) session: &'a SessionRecord,
    pub(crate) user: &'a User,
    /// The session's active organization.
    pub(crate) organization: Option<(&'a Organization, &'a Membership)>,
}

// === impl User ===

impl User {
    /// First and last name; `None` when there is neither.
    pub(crate) fn full_name(&self) -> Option<String> {
        match (&self.first_name, &self.last_name) {
            (Some(first), Some(last)) => Some(format!("{first} {last}")),
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (None, None) => None,
        }
    }
}

// === impl SessionRecord, Status ===

impl SessionRecord {
    /// Clerk's default life of a session (contract section 1.3).
    pub(crate) const LIFETIME: Duration = Duration::from_hours(7 * 24);

    /// An active session that begins now.
    pub(crate) fn begin(id: String, user_id: String, client_id: String, org: Option<String>, now: Wall) -> Self {
        Self {
            id,
            user_id,
            client_id,
            status: Status::Active,
            organization_id: org,
            created_at: now,
            updated_at: now,
            expire_at: now.plus(Self::LIFETIME),
        }
    }

    /// The state at this moment.
    pub(crate) fn status_at(&self, now: Wall) -> Status {
        if self.status == Status::Active && now >= self.expire_at { Status::Expired } else { self.status }
    }

    /// The object that the API shows; times are milliseconds.
    pub(crate) fn to_json(&self, now: Wall) -> Value {
        json!({
            "object": "session",
            "id": self.id,
            "user_id": self.user_id,
            "client_id": self.client_id,
            "actor": null,
            "status": self.status_at(now).as_str(),
            "last_active_organization_id": self.organization_id,
            "last_active_at": self.updated_at.as_millis(),
            "latest_activity": null,
            "expire_at": self.expire_at.as_millis(),
            "abandon_at": self.expire_at.plus(Self::LIFETIME).as_millis(),
            "updated_at": self.updated_at.as_millis(),
            "created_at": self.created_at.as_millis(),
            "tasks": null,
        })
    }
}

impl Status {
    /// As the API writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

// === impl Template ===

impl Template {
    /// Seconds that a token of a template lives unless the template says otherwise.
    pub(crate) const LIFETIME: u32 = 60;
    /// Seconds by which `nbf` lies before `iat` unless the template says otherwise.
    pub(crate) const CLOCK_SKEW: u32 = 5;

    /// A template with Clerk's defaults.
    pub(crate) fn new(id: String, name: String, claims: Map<String, Value>, now: Wall) -> Self {
        Self {
            id,
            name,
            claims,
            lifetime: Self::LIFETIME,
            allowed_clock_skew: Self::CLOCK_SKEW,
            key: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// The JOSE name of its algorithm.
    pub(crate) fn algorithm(&self) -> &'static str {
        self.key.as_ref().map_or("RS256", |key| key.algorithm.name())
    }

    /// The object that the API shows. A key of its own is never shown.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "object": "jwt_template",
            "id": self.id,
            "name": self.name,
            "claims": self.claims,
            "lifetime": self.lifetime,
            "allowed_clock_skew": self.allowed_clock_skew,
            "custom_signing_key": self.key.is_some(),
            "signing_algorithm": self.algorithm(),
            "created_at": self.created_at.as_millis(),
            "updated_at": self.updated_at.as_millis(),
        })
    }
}
