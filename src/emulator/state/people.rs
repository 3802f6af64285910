//! What can be done to the users and memberships of an instance; changes are told to the application's webhook.

use serde_json::Value;

use crate::emulator::error::ApiError;
use crate::emulator::keys;
use crate::emulator::model::{Membership, User};
use crate::emulator::shapes;

use super::Instance;

/// What a membership is to become; what is not named stays, or is as little as there can be.
#[derive(Debug, Default)]
pub(crate) struct MembershipChange {
    pub(crate) role: Option<String>,
    pub(crate) permissions: Option<Vec<String>>,
    pub(crate) public_metadata: Option<Value>,
}

// === impl Instance ===

impl Instance {
    /// Tells the application's webhook; without one the data is not even made. The caller holds the lock, so events
    /// leave in the order of the changes.
    pub(super) fn tell(&self, kind: &'static str, data: impl FnOnce() -> Value) {
        if let Some(outbox) = &self.outbox {
            outbox.put(&self.id, kind, &data(), self.clock.wall());
        }
    }

    /// The user, as Clerk shows it.
    pub(crate) fn user(&self, id: &str) -> Result<Value, ApiError> {
        let tables = self.tables();
        let user = tables.records.users.get(id).ok_or_else(|| ApiError::UserNotFound(id.to_owned()))?;
        Ok(shapes::user(user))
    }

    /// Changes a user.
    pub(crate) fn change_user(
        &self,
        id: &str,
        change: impl FnOnce(&mut User) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let now = self.clock.wall();
        let mut tables = self.tables();
        let before = tables.records.users.get(id).ok_or_else(|| ApiError::UserNotFound(id.to_owned()))?;
        let mut user = before.clone();
        change(&mut user)?;
        user.updated_at = now;
        let shown = shapes::user(&user);
        tables.records.users.insert(id.to_owned(), user);
        self.tell("user.updated", || shown.clone());
        Ok(shown)
    }

    /// Removes a user with its sessions and memberships.
    pub(crate) fn remove_user(&self, id: &str) -> Result<Value, ApiError> {
        let mut tables = self.tables();
        let records = &mut tables.records;
        let user = records.users.remove(id).ok_or_else(|| ApiError::UserNotFound(id.to_owned()))?;
        records.sessions.retain(|_, session| session.user_id != id);
        records.memberships.retain(|place| place.user_id != id);
        let shown = shapes::deleted("user", id, user.external_id.as_deref());
        self.tell("user.deleted", || shown.clone());
        Ok(shown)
    }

    /// Makes a user a member of an organization, or changes its place there.
    pub(crate) fn put_membership(
        &self,
        organization_id: &str,
        user_id: &str,
        change: MembershipChange,
    ) -> Result<Value, ApiError> {
        let (now, new_id) = (self.clock.wall(), keys::random_id("orgmem_")?);
        let mut tables = self.tables();
        let records = &mut tables.records;
        let organization = records.organizations.get(organization_id).ok_or(ApiError::OrganizationNotFound)?.clone();
        let user = records.users.get(user_id).ok_or_else(|| ApiError::UserNotFound(user_id.to_owned()))?.clone();
        let at = records.memberships.iter().position(|place| place.is(user_id, organization_id));
        let mut place = at.map_or_else(
            || Membership {
                id: new_id,
                user_id: user_id.to_owned(),
                organization_id: organization_id.to_owned(),
                role: "org:member".to_owned(),
                public_metadata: Value::Object(serde_json::Map::new()),
                created_at: now,
                ..Membership::default()
            },
            |at| records.memberships[at].clone(),
        );
        place.role = change.role.unwrap_or(place.role);
        place.permissions = change.permissions.unwrap_or(place.permissions);
        place.public_metadata = change.public_metadata.unwrap_or(place.public_metadata);
        place.updated_at = now;
        let shown = shapes::membership(&organization, &user, &place);
        let kind = if let Some(at) = at {
            records.memberships[at] = place;
            "organizationMembership.updated"
        } else {
            records.memberships.push(place);
            "organizationMembership.created"
        };
        self.tell(kind, || shown.clone());
        Ok(shown)
    }

    /// Takes a user out of an organization. Sessions in which it was active have none any more.
    pub(crate) fn remove_membership(&self, organization_id: &str, user_id: &str) -> Result<Value, ApiError> {
        let mut tables = self.tables();
        let records = &mut tables.records;
        let at = records.memberships.iter().position(|place| place.is(user_id, organization_id));
        let place = records.memberships.remove(at.ok_or(ApiError::OrganizationNotFound)?);
        for session in records.sessions.values_mut() {
            if session.user_id == user_id && session.organization_id.as_deref() == Some(organization_id) {
                session.organization_id = None;
            }
        }
        let organization = records.organizations.get(organization_id).ok_or(ApiError::OrganizationNotFound)?;
        let user = records.users.get(user_id).ok_or_else(|| ApiError::UserNotFound(user_id.to_owned()))?;
        let shown = shapes::membership(organization, user, &place);
        self.tell("organizationMembership.deleted", || shown.clone());
        Ok(shown)
    }
}
