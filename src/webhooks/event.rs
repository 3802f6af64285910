//! What an event asks for (contract section 5). Of its body only ids and a few flags are read.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::metrics::WebhookType;
use crate::revocation::Whom;
use crate::session::{SessionId, UserId};
use crate::token::cache::PurgeScope;

/// An event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// What it tells.
    pub kind: WebhookType,
    /// What follows from it.
    pub action: Action,
}

/// What follows from an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// The session or the user is refused.
    Revoke(Whom),
    /// A user who is banned or locked is refused until a later event says otherwise. As of that change, in milliseconds.
    Bar(UserId, i64),
    /// A user is neither banned nor locked, as of that change; his tokens may say what is not so any more.
    Admit(UserId, i64),
    /// Tokens may say what is not so any more.
    Purge(PurgeScope),
    /// It is nothing to us.
    Nothing,
}

/// Signed, and not what such an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEvent;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct User {
    id: String,
    #[serde(default)]
    banned: Option<bool>,
    #[serde(default)]
    locked: Option<bool>,
    #[serde(default)]
    updated_at: Option<i64>,
}

#[derive(Deserialize)]
struct Membership {
    public_user_data: Member,
}

#[derive(Deserialize)]
struct Member {
    user_id: String,
}

// === impl Event ===

impl Event {
    /// Reads an event that was signed.
    ///
    /// # Errors
    /// When it lacks what its type always has.
    pub fn read(body: &[u8]) -> Result<Self, NoEvent> {
        let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|_| NoEvent)?;
        let kind = WebhookType::ALL.iter().copied().find(|kind| kind.as_str() == envelope.kind);
        // An event that calls itself "other" is one of those.
        let kind = kind.unwrap_or(WebhookType::Other);
        let data = envelope.data.map_or("null", RawValue::get);
        let action = match kind {
            WebhookType::SessionEnded | WebhookType::SessionRemoved | WebhookType::SessionRevoked => {
                Action::Revoke(Whom::Session(session(data)?))
            }
            WebhookType::SessionPending => Action::Purge(PurgeScope::Session(session(data)?)),
            WebhookType::UserDeleted => Action::Revoke(Whom::User(user(&read::<Named>(data)?.id)?)),
            WebhookType::UserUpdated => {
                let User { id, banned, locked, updated_at } = read(data)?;
                let (id, as_of) = (user(&id)?, updated_at.unwrap_or(0));
                match (banned.unwrap_or(false) || locked.unwrap_or(false), banned.is_some() && locked.is_some()) {
                    (true, _) => Action::Bar(id, as_of),
                    (false, true) => Action::Admit(id, as_of),
                    // What does not say both lets nobody in again.
                    (false, false) => Action::Purge(PurgeScope::User(id)),
                }
            }
            WebhookType::MembershipCreated | WebhookType::MembershipUpdated | WebhookType::MembershipDeleted => {
                let member = read::<Membership>(data)?.public_user_data;
                Action::Purge(PurgeScope::User(user(&member.user_id)?))
            }
            WebhookType::Other => Action::Nothing,
        };
        Ok(Self { kind, action })
    }
}

fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, NoEvent> {
    serde_json::from_str(data).map_err(|_| NoEvent)
}

fn session(data: &str) -> Result<SessionId, NoEvent> {
    SessionId::new(&read::<Named>(data)?.id).map_err(|_| NoEvent)
}

fn user(id: &str) -> Result<UserId, NoEvent> {
    UserId::new(id).map_err(|_| NoEvent)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(kind: &str, data: &Value) -> Result<(WebhookType, Action), NoEvent> {
        let body = json!({ "object": "event", "type": kind, "timestamp": 1, "instance_id": "ins_1", "data": data });
        Event::read(body.to_string().as_bytes()).map(|event| (event.kind, event.action))
    }

    fn of_user() -> UserId {
        UserId::new("user_1").unwrap()
    }

    /// The trimmed sample of Clerk's catalogue stands for the sessions'.
    #[test]
    fn every_event_of_the_contract_asks_for_what_the_design_says() {
        let sid = SessionId::new("sess_1").unwrap();
        let session = json!({ "object": "session", "id": "sess_1", "user_id": "user_1", "user": { "id": "user_1" },
            "client_id": "client_1", "actor": null, "status": "revoked", "latest_activity": null });
        for kind in ["session.ended", "session.removed", "session.revoked"] {
            assert_eq!(read(kind, &session).unwrap().1, Action::Revoke(Whom::Session(sid.clone())), "{kind}");
        }
        let pending = read("session.pending", &session).unwrap();
        assert_eq!(pending, (WebhookType::SessionPending, Action::Purge(PurgeScope::Session(sid))));
        let deleted = json!({ "object": "user", "id": "user_1", "deleted": true });
        assert_eq!(read("user.deleted", &deleted).unwrap().1, Action::Revoke(Whom::User(of_user())));
        let of = |banned: Value, locked: Value| json!({ "id": "user_1", "banned": banned, "locked": locked, "updated_at": 7 });
        for (data, action) in [
            (of(json!(true), json!(false)), Action::Bar(of_user(), 7)),
            (of(json!(false), json!(true)), Action::Bar(of_user(), 7)),
            (of(json!(true), Value::Null), Action::Bar(of_user(), 7)),
            (of(json!(false), json!(false)), Action::Admit(of_user(), 7)),
            (of(json!(false), Value::Null), Action::Purge(PurgeScope::User(of_user()))),
            (json!({ "id": "user_1" }), Action::Purge(PurgeScope::User(of_user()))),
        ] {
            assert_eq!(read("user.updated", &data).unwrap().1, action, "{data}");
        }
        let membership = json!({ "object": "organization_membership", "id": "orgmem_1", "role": "org:admin",
            "organization": { "id": "org_1" }, "public_user_data": { "user_id": "user_1" } });
        for kind in ["created", "updated", "deleted"] {
            let (_, action) = read(&format!("organizationMembership.{kind}"), &membership).unwrap();
            assert_eq!(action, Action::Purge(PurgeScope::User(of_user())), "{kind}");
        }
    }

    #[test]
    fn an_event_of_another_type_is_nothing_to_us() {
        for kind in ["user.created", "session.created", "email.created", "other", "", "SESSION.REVOKED"] {
            assert_eq!(read(kind, &Value::Null), Ok((WebhookType::Other, Action::Nothing)), "{kind}");
        }
    }

    #[test]
    fn what_lacks_what_its_type_has_is_no_event() {
        for (kind, data) in [
            ("session.revoked", json!({})),
            ("session.revoked", json!({ "id": "../sess" })),
            ("session.revoked", json!({ "id": 5 })),
            ("session.revoked", Value::Null),
            ("user.deleted", json!({ "id": "" })),
            ("user.updated", json!({ "id": "user_1", "banned": "yes" })),
            ("organizationMembership.created", json!({ "public_user_data": null })),
        ] {
            assert_eq!(read(kind, &data), Err(NoEvent), "{kind} {data}");
        }
        for body in ["", "null", "[]", "{}", r#"{"type":5}"#, r#"{"type":"a"} x"#, "\u{feff}{}"] {
            assert_eq!(Event::read(body.as_bytes()), Err(NoEvent), "{body}");
        }
    }
}
