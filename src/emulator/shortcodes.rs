//! Shortcodes of JWT templates: `{{user.id}}` becomes what it names.
//!
//! Clerk's rules (contract section 4): a string that is one shortcode takes the value's own type; a string with more
//! around it becomes text in which nothing prints as `null`; `||` gives the first operand that is neither null nor
//! false, else the last; literals are `'text'`, numbers and booleans; what is not known is null.

use serde_json::{Map, Value, json};

use crate::emulator::model::Subject;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// The claims of a template for one subject. Names of claims are never expanded.
pub(crate) fn expand_claims(claims: &Map<String, Value>, subject: Subject<'_>) -> Map<String, Value> {
    claims.iter().map(|(name, claim)| (name.clone(), expand(claim, subject))).collect()
}

fn expand(claim: &Value, subject: Subject<'_>) -> Value {
    match claim {
        Value::String(text) => expand_text(text, subject),
        Value::Array(items) => items.iter().map(|item| expand(item, subject)).collect(),
        Value::Object(members) => Value::Object(expand_claims(members, subject)),
        Value::Null | Value::Bool(_) | Value::Number(_) => claim.clone(),
    }
}

fn expand_text(text: &str, subject: Subject<'_>) -> Value {
    let Some((before, expression, mut rest)) = next_shortcode(text) else { return text.into() };
    if before.is_empty() && rest.is_empty() {
        return evaluate(expression, subject);
    }
    let mut out = before.to_owned();
    push_text(&mut out, evaluate(expression, subject));
    while let Some((before, expression, after)) = next_shortcode(rest) {
        out.push_str(before);
        push_text(&mut out, evaluate(expression, subject));
        rest = after;
    }
    out.push_str(rest);
    out.into()
}

/// What stands before the first shortcode, inside it, and after it.
fn next_shortcode(text: &str) -> Option<(&str, &str, &str)> {
    let (before, from) = text.split_once(OPEN)?;
    let (expression, after) = from.split_once(CLOSE)?;
    Some((before, expression, after))
}

fn push_text(out: &mut String, value: Value) {
    match value {
        Value::String(text) => out.push_str(&text),
        other => out.push_str(&other.to_string()),
    }
}

fn evaluate(expression: &str, subject: Subject<'_>) -> Value {
    let mut last = Value::Null;
    for operand in operands(expression) {
        last = evaluate_operand(operand.trim(), subject);
        if !matches!(last, Value::Null | Value::Bool(false)) {
            break;
        }
    }
    last
}

/// Splits at `||` outside of quotes.
fn operands(expression: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    let bytes = expression.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\'' => quoted = !quoted,
            b'|' if !quoted && bytes.get(at + 1) == Some(&b'|') => {
                // `|` is ASCII: both indices are character borders.
                parts.push(&expression[start..at]);
                start = at + 2;
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&expression[start..]);
    parts
}

fn evaluate_operand(operand: &str, subject: Subject<'_>) -> Value {
    if let Some(text) = operand.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return text.into();
    }
    match serde_json::from_str(operand) {
        Ok(literal @ (Value::Bool(_) | Value::Number(_))) => literal,
        _ => look_up(operand, subject),
    }
}

fn look_up(path: &str, subject: Subject<'_>) -> Value {
    let (root, path) = path.split_once('.').unwrap_or((path, ""));
    let (field, rest) = path.split_once('.').map_or((path, None), |(field, rest)| (field, Some(rest)));
    let value = match root {
        "user" => user_field(field, subject),
        "org" => organization_field(field, subject),
        "org_membership" => membership_field(field, subject),
        "session" => session_field(field, subject),
        _ => Value::Null,
    };
    rest.map_or_else(|| value.clone(), |rest| descend(&value, rest))
}

fn descend(value: &Value, path: &str) -> Value {
    path.split('.').try_fold(value, |value, member| value.get(member)).cloned().unwrap_or_default()
}

fn user_field(field: &str, subject: Subject<'_>) -> Value {
    let user = subject.user;
    match field {
        "id" => json!(user.id),
        "first_name" => json!(user.first_name),
        "last_name" => json!(user.last_name),
        "full_name" => json!(user.full_name()),
        "username" => json!(user.username),
        "external_id" => json!(user.external_id),
        "created_at" => json!(user.created_at.as_seconds()),
        "updated_at" => json!(user.updated_at.as_seconds()),
        "primary_email_address" => json!(user.email),
        "primary_phone_number" => json!(user.phone),
        "email_verified" => json!(user.email_verified),
        "phone_number_verified" => json!(user.phone_verified),
        "image_url" => json!(user.image_url),
        "two_factor_enabled" => json!(user.two_factor_enabled),
        "public_metadata" => user.public_metadata.clone(),
        "unsafe_metadata" => user.unsafe_metadata.clone(),
        _ => Value::Null,
    }
}

fn organization_field(field: &str, subject: Subject<'_>) -> Value {
    let Some((organization, membership)) = subject.organization else { return Value::Null };
    match field {
        "id" => json!(organization.id),
        "name" => json!(organization.name),
        "slug" => json!(organization.slug),
        "role" => json!(membership.role),
        "public_metadata" => organization.public_metadata.clone(),
        _ => Value::Null,
    }
}

/// A reverification is what the emulator does not have.
fn session_field(field: &str, subject: Subject<'_>) -> Value {
    match field {
        "actor" => json!(subject.session.actor),
        _ => Value::Null,
    }
}

fn membership_field(field: &str, subject: Subject<'_>) -> Value {
    let Some((_, membership)) = subject.organization else { return Value::Null };
    match field {
        "permissions" => json!(membership.permissions),
        "public_metadata" => membership.public_metadata.clone(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Wall;
    use crate::emulator::model::{Membership, Organization, SessionRecord, User};

    /// The user of the example in Clerk's page on JWT templates, in an organization.
    fn with_maria<T>(check: impl FnOnce(Subject<'_>) -> T) -> T {
        let user = User {
            id: "user_1".to_owned(),
            first_name: Some("Maria".to_owned()),
            email: Some("maria@example.com".to_owned()),
            phone_verified: true,
            public_metadata: json!({"profile": {"interests": ["reading", "climbing"]}, "zero": 0}),
            unsafe_metadata: json!({"foo": {"bar": 42}}),
            created_at: Wall::from_seconds(1_227_618_844),
            ..User::default()
        };
        let organization = Organization {
            id: "org_1".to_owned(),
            name: "Acme".to_owned(),
            slug: "acme".to_owned(),
            public_metadata: json!({"plan": "gold"}),
            ..Organization::default()
        };
        let membership = Membership {
            role: "org:admin".to_owned(),
            permissions: vec!["org:reports:read".to_owned()],
            ..Membership::default()
        };
        let mut session = SessionRecord::begin(
            "sess_1".to_owned(),
            "user_1".to_owned(),
            "client_1".to_owned(),
            Some("org_1".to_owned()),
            Wall::default(),
        );
        session.actor = Some(json!({"sub": "user_2"}));
        check(Subject { session: &session, user: &user, organization: Some((&organization, &membership)) })
    }

    fn maria(text: &str) -> Value {
        with_maria(|subject| expand(&json!(text), subject))
    }

    #[test]
    fn a_lone_shortcode_keeps_the_type_of_what_it_names() {
        for (text, expected) in [
            ("{{user.id}}", json!("user_1")),
            ("{{ user.created_at }}", json!(1_227_618_844)),
            ("{{user.email_verified}}", json!(false)),
            ("{{user.public_metadata.profile.interests}}", json!(["reading", "climbing"])),
            ("{{user.unsafe_metadata}}", json!({"foo": {"bar": 42}})),
            ("{{user.unsafe_metadata.foo.bar}}", json!(42)),
            ("{{user.last_name}}", Value::Null),
            ("{{user.full_name}}", json!("Maria")),
            ("{{user.i_dont_exist}}", Value::Null),
            ("{{user.id.more}}", Value::Null),
            ("{{nothing}}", Value::Null),
            ("{{}}", Value::Null),
            ("{{org.role}}", json!("org:admin")),
            ("{{org.public_metadata.plan}}", json!("gold")),
            ("{{org_membership.permissions}}", json!(["org:reports:read"])),
            ("{{org_membership.public_metadata}}", Value::Null),
            ("{{session.actor}}", json!({"sub": "user_2"})),
            ("{{session.actor.sub}}", json!("user_2")),
            ("{{session.reverification_id}}", Value::Null),
            ("{{session.id}}", Value::Null),
        ] {
            assert_eq!(maria(text), expected, "{text}");
        }
    }

    #[test]
    fn interpolation_gives_text_and_prints_null() {
        for (text, expected) in [
            ("{{user.last_name}} {{user.first_name}}", "null Maria"),
            ("id={{user.id}}", "id=user_1"),
            ("{{user.id}} ", "user_1 "),
            ("n={{user.unsafe_metadata.foo.bar}};", "n=42;"),
            ("no shortcode }} here", "no shortcode }} here"),
            ("open {{user.id", "open {{user.id"),
        ] {
            assert_eq!(maria(text), json!(expected), "{text}");
        }
    }

    #[test]
    fn alternatives_skip_null_and_false_but_keep_the_last() {
        for (text, expected) in [
            ("{{user.last_name || 'Awesome User'}}", json!("Awesome User")),
            ("{{user.email_verified || user.phone_number_verified}}", json!(true)),
            ("{{user.public_metadata.age || user.unsafe_metadata.age || 30 }}", json!(30)),
            ("{{user.public_metadata.zero || 7}}", json!(0)),
            ("{{user.last_name || false}}", json!(false)),
            ("{{user.last_name || 'a || b'}}", json!("a || b")),
            ("{{user.last_name || ''}}", json!("")),
            ("hi {{user.last_name || 'you'}}", json!("hi you")),
        ] {
            assert_eq!(maria(text), expected, "{text}");
        }
    }

    #[test]
    fn nested_claims_are_expanded_and_names_are_not() {
        let claims = json!({"{{user.id}}": [{"a": "{{user.id}}"}, 1, null]});
        let expanded = with_maria(|subject| expand(&claims, subject));
        assert_eq!(expanded, json!({"{{user.id}}": [{"a": "user_1"}, 1, null]}));
    }

    proptest! {
        #[test]
        fn any_template_expands_and_text_without_shortcodes_stays(text in "[ -~é{}|'.]{0,60}") {
            let expanded = maria(&text);
            if next_shortcode(&text).is_none() {
                prop_assert_eq!(expanded, json!(text));
            }
        }

        #[test]
        fn operands_lose_nothing_but_the_bars(text in "[a-z|' é]{0,40}") {
            prop_assert_eq!(operands(&text).join("||"), text);
        }
    }
}
