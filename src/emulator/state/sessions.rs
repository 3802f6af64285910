//! What can be done to the sessions of an instance; changes are told to the application's webhook.

use std::cmp::Reverse;

use serde_json::Value;

use crate::clock::Wall;
use crate::emulator::error::ApiError;
use crate::emulator::keys;
use crate::emulator::model::{Change, SessionRecord, Status};
use crate::emulator::seed::Records;
use crate::emulator::shapes;

use super::Instance;

/// Which sessions a list shows.
#[derive(Debug, Default)]
pub(crate) struct SessionFilter {
    pub(crate) client_id: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) status: Option<Status>,
}

/// What a session is to become; what is not named stays.
#[derive(Debug, Default)]
pub(crate) struct SessionChange {
    pub(crate) status: Option<Status>,
    pub(crate) organization: Change<String>,
    pub(crate) actor: Change<Value>,
    pub(crate) tasks: Option<Vec<String>>,
}

// === impl Instance ===

impl Instance {
    /// The session as the API shows it.
    pub(crate) fn session(&self, sid: &str) -> Result<Value, ApiError> {
        let now = self.clock.wall();
        let tables = self.tables();
        let session = tables.records.sessions.get(sid).ok_or_else(|| ApiError::SessionNotFound(sid.to_owned()))?;
        Ok(session.to_json(now))
    }

    /// All sessions that the filter lets through, as the API shows them: the newest first.
    pub(crate) fn sessions(&self, filter: &SessionFilter) -> Vec<Value> {
        let now = self.clock.wall();
        let fits = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        let tables = self.tables();
        let mut found: Vec<&SessionRecord> = tables
            .records
            .sessions
            .values()
            .filter(|session| {
                fits(&filter.client_id, &session.client_id)
                    && fits(&filter.user_id, &session.user_id)
                    && filter.status.is_none_or(|status| status == session.status_at(now))
            })
            .collect();
        found.sort_by_key(|session| Reverse(session.created_at));
        found.into_iter().map(|session| session.to_json(now)).collect()
    }

    /// Ends a session. One that has ended already stays as it is.
    pub(crate) fn revoke(&self, sid: &str) -> Result<Value, ApiError> {
        let now = self.clock.wall();
        let signed_in = {
            let tables = self.tables();
            let session = tables.records.sessions.get(sid).ok_or_else(|| ApiError::SessionNotFound(sid.to_owned()))?;
            session.status_at(now).is_signed_in()
        };
        if !signed_in {
            return self.session(sid);
        }
        self.change_session(sid, SessionChange { status: Some(Status::Revoked), ..SessionChange::default() })
    }

    /// Begins a session for a user, in one of its organizations.
    pub(crate) fn begin_session(&self, user_id: &str, change: SessionChange) -> Result<Value, ApiError> {
        let (id, client_id) = (keys::random_id("sess_")?, keys::random_id("client_")?);
        let now = self.clock.wall();
        let mut tables = self.tables();
        let records = &mut tables.records;
        if !records.users.contains_key(user_id) {
            return Err(ApiError::UserNotFound(user_id.to_owned()));
        }
        let mut session = SessionRecord::begin(id.clone(), user_id.to_owned(), client_id, None, now);
        apply(&mut session, change, records, now)?;
        let shown = session.to_json(now);
        records.sessions.insert(id, session.clone());
        let kind = if session.status == Status::Pending { "session.pending" } else { "session.created" };
        self.tell(kind, || shapes::session(records, &session, now));
        Ok(shown)
    }

    /// Changes a session as the user, the application or an administrator would.
    pub(crate) fn change_session(&self, sid: &str, change: SessionChange) -> Result<Value, ApiError> {
        let now = self.clock.wall();
        let mut tables = self.tables();
        let records = &mut tables.records;
        let before = records.sessions.get(sid).ok_or_else(|| ApiError::SessionNotFound(sid.to_owned()))?;
        let (mut session, was) = (before.clone(), before.status_at(now));
        apply(&mut session, change, records, now)?;
        session.updated_at = now;
        let shown = session.to_json(now);
        records.sessions.insert(sid.to_owned(), session.clone());
        let kind = match session.status {
            status if status == was => None,
            Status::Pending => Some("session.pending"),
            Status::Ended => Some("session.ended"),
            Status::Removed => Some("session.removed"),
            Status::Revoked => Some("session.revoked"),
            // Clerk tells nothing about these (contract section 5).
            Status::Active | Status::Expired | Status::Abandoned | Status::Replaced => None,
        };
        if let Some(kind) = kind {
            self.tell(kind, || shapes::session(records, &session, now));
        }
        Ok(shown)
    }
}

fn apply(session: &mut SessionRecord, change: SessionChange, records: &Records, now: Wall) -> Result<(), ApiError> {
    if let Change::To(Some(organization)) = &change.organization {
        records.membership(&session.user_id, organization).ok_or(ApiError::OrganizationNotFound)?;
    }
    change.organization.apply(&mut session.organization_id);
    change.actor.apply(&mut session.actor);
    if let Some(status) = change.status {
        // One that is brought back to life gets a whole one.
        if status.is_signed_in() && !session.status_at(now).is_signed_in() {
            session.expire_at = now.plus(SessionRecord::LIFETIME);
        }
        session.status = status;
    }
    if let Some(tasks) = change.tasks {
        session.tasks = tasks;
    }
    Ok(())
}
