//! `expect`: what a minted token must say for the session that it was minted for.
//!
//! The issuer fills a template from its own record of the session, which may lag behind the session token that the
//! caller holds: a moment after somebody has changed the organization, the minted token may still name the old one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::config::MintSpec;
use crate::secret::Digest;
use crate::session::Session;

/// What stands at a pointer of the minted token's claims. A part of the key, so all who wait for one mint expect the
/// same.
#[derive(Clone, PartialEq)]
pub struct Expected {
    pointer: Box<str>,
    /// The session's value; `None`: it has none, and then the token must name none.
    value: Option<Value>,
}

/// What a mint depends on beside the session's scope: the values that `vary` names, and those that `expect` compares
/// with.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Of all of them; `None` where none is named.
    pub(super) digest: Option<Digest>,
    pub(super) expected: Vec<Expected>,
}

/// Whether the token says all of it. A token that cannot be read says nothing.
pub fn holds(jwt: &str, expected: &[Expected]) -> bool {
    if expected.is_empty() {
        return true;
    }
    let claims = claims(jwt).unwrap_or(Value::Null);
    expected.iter().all(|expected| {
        // A template writes `null` for what the session does not have.
        let said = claims.pointer(&expected.pointer).filter(|said| !said.is_null());
        said == expected.value.as_ref()
    })
}

/// What a token says, as long as it is a JWT that can be read.
pub(super) fn claims(jwt: &str) -> Option<Value> {
    let mut parts = jwt.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

// === impl Named ===

impl Named {
    /// The values of this session. Each is told from an absent one, stands beside its name and carries its length.
    pub(super) fn of(session: &Session, spec: &MintSpec) -> Self {
        if spec.vary.is_empty() && spec.expect.is_empty() {
            return Self::default();
        }
        let mut parts: Vec<Vec<u8>> = vec![session.scope.as_bytes().to_vec()];
        let mut put = |tag: &str, name: &str, value: Option<&str>| {
            parts.extend([tag.as_bytes().to_vec(), name.as_bytes().to_vec()]);
            parts.extend(value.map(|value| value.as_bytes().to_vec()));
        };
        for claim in &spec.vary {
            let value = session.json(claim);
            put(if value.is_some() { "vary+" } else { "vary-" }, claim.as_str(), value.as_deref());
        }
        let mut expected = Vec::with_capacity(spec.expect.len());
        for expectation in &spec.expect {
            let value = session.json(&expectation.claim);
            let tag = if value.is_some() { "expect+" } else { "expect-" };
            put(tag, &expectation.pointer, value.as_deref());
            let value =
                value.and_then(|json| serde_json::from_str(&json).ok()).filter(|value: &Value| !value.is_null());
            expected.push(Expected { pointer: expectation.pointer.as_str().into(), value });
        }
        Self { digest: Some(Digest::of_parts(parts.iter().map(Vec::as_slice))), expected }
    }
}

// === impl Expected ===

impl Eq for Expected {}

impl Expected {
    /// Bytes that it holds, for weighing.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.pointer.len() + self.value.as_ref().and_then(Value::as_str).map_or(0, str::len)
    }
}

/// A session's values are personal data.
impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expected").field("pointer", &self.pointer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected(pointer: &str, value: Value) -> Expected {
        Expected { pointer: pointer.into(), value: Some(value).filter(|value| !value.is_null()) }
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn a_claim_must_be_there_and_equal() {
        let token = jwt(&json!({ "org_id": "org_1", "o": { "a/b": [7, null] }, "none": null }));
        for (pointer, value, fits) in [
            ("/org_id", json!("org_1"), true),
            ("/org_id", json!("org_2"), false),
            ("/org_id", Value::Null, false),
            ("/absent", json!("org_1"), false),
            ("/none", json!("org_1"), false),
            // The session has none, and the token says so in one way or the other.
            ("/absent", Value::Null, true),
            ("/none", Value::Null, true),
            ("/o/a~1b/0", json!(7), true),
            ("/o/a~1b/0", json!("7"), false),
        ] {
            assert_eq!(holds(&token, &[expected(pointer, value.clone())]), fits, "{pointer} {value}");
        }
        let both = [expected("/org_id", json!("org_1")), expected("/o/a~1b/0", json!(8))];
        assert!(!holds(&token, &both), "every one counts");
    }

    #[test]
    fn a_token_that_cannot_be_read_says_nothing() {
        for opaque in ["", "opaque", "a.b", "a.b.c", "a.b.c.d", &jwt(&json!(["org_1"]))] {
            assert!(!holds(opaque, &[expected("/org_id", json!("org_1"))]), "{opaque}");
            assert!(holds(opaque, &[]), "{opaque}");
        }
    }
}
