//! What an emulated instance holds: users, organizations, sessions and JWT templates.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::Wall;
use crate::emulator::own_key::OwnKey;

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
    pub(crate) banned: bool,
    pub(crate) locked: bool,
    pub(crate) public_metadata: Value,
    pub(crate) private_metadata: Value,
    pub(crate) unsafe_metadata: Value,
    pub(crate) grants: Grants,
    pub(crate) created_at: Wall,
    pub(crate) updated_at: Wall,
}

/// What a user or an organization has subscribed to: the claims `pla` and `fea`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grants {
    /// Slug of the plan.
    pub(crate) plan: Option<String>,
    /// Slugs of features.
    pub(crate) features: Vec<String>,
}

/// An organization.
#[derive(Debug, Clone, Default)]
pub(crate) struct Organization {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) slug: String,
    pub(crate) public_metadata: Value,
    pub(crate) grants: Grants,
    pub(crate) created_at: Wall,
    pub(crate) updated_at: Wall,
}

/// A user's place in an organization.
#[derive(Debug, Clone, Default)]
pub(crate) struct Membership {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) organization_id: String,
    /// As `org:admin`.
    pub(crate) role: String,
    /// As `org:reports:read`.
    pub(crate) permissions: Vec<String>,
    pub(crate) public_metadata: Value,
    pub(crate) created_at: Wall,
    pub(crate) updated_at: Wall,
}

/// A session (contract section 1.3).
#[derive(Debug, Clone)]
pub(crate) struct SessionRecord {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) client_id: String,
    pub(crate) status: Status,
    pub(crate) organization_id: Option<String>,
    /// Who impersonates the user: the claim `act`.
    pub(crate) actor: Option<Value>,
    /// What is left to be done while the session is pending, as `choose-organization`.
    pub(crate) tasks: Vec<String>,
    /// When the first and the second factor were verified; `None`: there is no such factor.
    pub(crate) verified_at: [Option<Wall>; 2],
    pub(crate) created_at: Wall,
    pub(crate) updated_at: Wall,
    pub(crate) expire_at: Wall,
}

/// The states of a session (contract section 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Active,
    /// Signed in, with tasks left.
    Pending,
    /// The user signed out.
    Ended,
    /// The user signed out and the client forgot the session.
    Removed,
    /// The application ended it.
    Revoked,
    /// By its own age.
    Expired,
    Abandoned,
    Replaced,
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
    pub(crate) key: Option<OwnKey>,
    pub(crate) created_at: Wall,
    pub(crate) updated_at: Wall,
}

/// What a call does to a value that need not be there.
#[derive(Debug, Clone, Default)]
pub(crate) enum Change<T> {
    #[default]
    Keep,
    To(Option<T>),
}

/// Everything that a token can say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) session: &'a SessionRecord,
    pub(crate) user: &'a User,
    /// The session's active organization.
    pub(crate) organization: Option<(&'a Organization, &'a Membership)>,
}

// === impl Change ===

impl<T> Change<T> {
    pub(crate) fn apply(self, to: &mut Option<T>) {
        if let Self::To(value) = self {
            *to = value;
        }
    }
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

// === impl Membership ===

impl Membership {
    /// Whether it is this user's place in this organization.
    pub(crate) fn is(&self, user_id: &str, organization_id: &str) -> bool {
        self.user_id == user_id && self.organization_id == organization_id
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
            actor: None,
            tasks: Vec::new(),
            verified_at: [Some(now), None],
            created_at: now,
            updated_at: now,
            expire_at: now.plus(Self::LIFETIME),
        }
    }

    /// The state at this moment.
    pub(crate) fn status_at(&self, now: Wall) -> Status {
        if self.status.is_signed_in() && now >= self.expire_at { Status::Expired } else { self.status }
    }

    /// Minutes since each factor was verified, -1 for one that is not there: the claim `fva`.
    pub(crate) fn factor_ages(&self, now: Wall) -> [i64; 2] {
        self.verified_at.map(|at| at.map_or(-1, |at| i64::try_from(now.since(at).as_secs() / 60).unwrap_or(i64::MAX)))
    }

    fn tasks(&self, now: Wall) -> Value {
        match self.status_at(now) {
            Status::Pending => self.tasks.iter().map(|key| json!({ "key": key })).collect(),
            _ => Value::Null,
        }
    }

    /// The object that the API shows; times are milliseconds.
    pub(crate) fn to_json(&self, now: Wall) -> Value {
        json!({
            "object": "session",
            "id": self.id,
            "user_id": self.user_id,
            "client_id": self.client_id,
            "actor": self.actor,
            "status": self.status_at(now).as_str(),
            "last_active_organization_id": self.organization_id,
            "last_active_at": self.updated_at.as_millis(),
            "latest_activity": null,
            "expire_at": self.expire_at.as_millis(),
            "abandon_at": self.expire_at.plus(Self::LIFETIME).as_millis(),
            "updated_at": self.updated_at.as_millis(),
            "created_at": self.created_at.as_millis(),
            "tasks": self.tasks(now),
        })
    }
}

impl Status {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Active,
        Self::Pending,
        Self::Ended,
        Self::Removed,
        Self::Revoked,
        Self::Expired,
        Self::Abandoned,
        Self::Replaced,
    ];

    /// As the API writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Ended => "ended",
            Self::Removed => "removed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Abandoned => "abandoned",
            Self::Replaced => "replaced",
        }
    }

    /// The state of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether tokens are minted: a pending session is signed in too, and its session tokens say `sts: pending`.
    pub(crate) const fn is_signed_in(self) -> bool {
        matches!(self, Self::Active | Self::Pending)
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
        self.key.as_ref().map_or("RS256", OwnKey::algorithm)
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
