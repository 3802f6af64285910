//! The seed file as it is written: its tables and keys, with their positions, and nothing decided yet.

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::raw::describe::{Describe, Shape};
use crate::config::raw::reader::{At, Field, Read, Reader, Table, tables};
use crate::config::raw::shapes::SecretRef;

tables! {
    /// The whole file.
    File at "seed" {
        session_token_version: i64,
        authorized_party: String,
        session_token: SessionToken,
        users: Vec<At<User>>,
        organizations: Vec<At<Organization>>,
        memberships: Vec<At<Membership>>,
        sessions: Vec<At<Session>>,
        templates: Vec<At<Template>>,
    }

    /// `[session_token]`
    SessionToken at "seed.session_token" {
        claims: Members,
    }

    /// `[[users]]`
    User at "seed.users[]" {
        id: String,
        username: String,
        external_id: String,
        first_name: String,
        last_name: String,
        email: String,
        email_verified: bool,
        phone: String,
        phone_verified: bool,
        image_url: String,
        two_factor_enabled: bool,
        banned: bool,
        locked: bool,
        public_metadata: Members,
        private_metadata: Members,
        unsafe_metadata: Members,
        plan: String,
        features: Vec<At<String>>,
    }

    /// `[[organizations]]`
    Organization at "seed.organizations[]" {
        id: String,
        name: String,
        slug: String,
        public_metadata: Members,
        plan: String,
        features: Vec<At<String>>,
    }

    /// `[[memberships]]`
    Membership at "seed.memberships[]" {
        user: String,
        organization: String,
        role: String,
        permissions: Vec<At<String>>,
        public_metadata: Members,
    }

    /// `[[sessions]]`
    Session at "seed.sessions[]" {
        id: String,
        user: String,
        client: String,
        organization: String,
        status: String,
        tasks: Vec<At<String>>,
        actor: Members,
        factor_age: Vec<At<i64>>,
    }

    /// `[[templates]]`
    Template at "seed.templates[]" {
        name: String,
        claims: Members,
        lifetime: String,
        allowed_clock_skew: String,
        signing_algorithm: String,
        signing_key: KeyText,
    }
}

/// A table of any content, as JSON.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members(pub(crate) Map<String, Value>);

/// A signing key. One that was made up for a test may stand in the file; a real one is named.
pub(crate) enum KeyText {
    Text(String),
    Named(SecretRef),
}

// === impl File ===

impl File {
    /// The whole document; everything about its shape that is wrong is reported.
    pub(crate) fn document(document: &toml::de::DeTable<'_>, reader: &mut Reader<'_>) -> Self {
        let reported = reader.check_keys(document, Self::KEYS);
        Self::from_table(document, reported, reader)
    }
}

// === impl Members ===

impl Read for Members {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Table(_) = value.get_ref() else {
            reader.wrong_type(value, "a table");
            return None;
        };
        match json(value, reader)? {
            Value::Object(members) => Some(Self(members)),
            _ => None,
        }
    }
}

fn json(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Value> {
    match value.get_ref() {
        DeValue::String(text) => reader.text(text, &value.span()).map(Value::String),
        DeValue::Integer(_) => i64::read(value, reader).map(Value::from),
        DeValue::Float(_) => f64::read(value, reader).and_then(Number::from_f64).map(Value::Number),
        DeValue::Boolean(flag) => Some(Value::Bool(*flag)),
        DeValue::Datetime(date) => Some(Value::String(date.to_string())),
        DeValue::Array(items) => {
            let read: Vec<Option<Value>> = items.iter().map(|item| json(item, reader)).collect();
            read.into_iter().collect::<Option<Vec<Value>>>().map(Value::Array)
        }
        DeValue::Table(table) => {
            let read: Vec<Option<(String, Value)>> =
                table.iter().map(|(name, value)| Some((name.get_ref().to_string(), json(value, reader)?))).collect();
            read.into_iter().collect::<Option<Map<String, Value>>>().map(Value::Object)
        }
    }
}

impl Describe for Members {
    fn shape() -> Shape {
        Shape::Anything
    }
}

// === impl KeyText ===

impl Read for KeyText {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.hide(value);
        match value.get_ref() {
            DeValue::String(text) => reader.text(text, &value.span()).map(Self::Text),
            _ => SecretRef::read(value, reader).map(Self::Named),
        }
    }
}

impl Describe for KeyText {
    fn shape() -> Shape {
        Shape::Either(Box::new(Shape::Text), Box::new(Shape::Secret))
    }
}
