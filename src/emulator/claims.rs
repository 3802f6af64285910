//! What the emulator's tokens say: session tokens of version 2, and template tokens (contract sections 3 and 4).

use serde_json::{Map, Value, json};

use crate::clock::Wall;
use crate::emulator::keys::{self, CryptoError};
use crate::emulator::model::{Membership, Organization, Subject, Template};
use crate::emulator::shortcodes;

/// `cat` of a session token.
pub(crate) const SESSION_CATEGORY: &str = "cl_B7d4PD111AAA";
/// `cat` of a template token.
pub(crate) const TEMPLATE_CATEGORY: &str = "cl_B7d4PD222AAA";

/// Seconds that a session token lives.
pub(crate) const SESSION_LIFETIME: u32 = 60;
/// Seconds by which a session token's `nbf` lies before its `iat`.
const SESSION_SKEW: u32 = 10;

/// Claims that a template may not set: those that Clerk sets itself, and those that are bound to a session.
pub(crate) const RESERVED: [&str; 11] = ["azp", "exp", "iat", "iss", "jti", "nbf", "sub", "sid", "v", "pla", "fea"];

/// Who signs, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp<'a> {
    /// `iss`
    pub(crate) issuer: &'a str,
    /// `azp`
    pub(crate) azp: Option<&'a str>,
    /// `iat`
    pub(crate) now: Wall,
    /// Life in seconds, when the caller asked for one.
    pub(crate) expires_in: Option<u32>,
}

// === impl Stamp ===

impl Stamp<'_> {
    /// The claims that every token has.
    fn claims(&self, sub: &str, lifetime: u32, skew: u32) -> Result<Map<String, Value>, CryptoError> {
        let now = self.now.as_seconds();
        let mut claims = Map::new();
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        set("exp", json!(now + i64::from(self.expires_in.unwrap_or(lifetime))));
        set("iat", json!(now));
        set("iss", json!(self.issuer));
        set("jti", json!(keys::random_hex::<10>()?));
        set("nbf", json!(now - i64::from(skew)));
        set("sub", json!(sub));
        if let Some(azp) = self.azp {
            set("azp", json!(azp));
        }
        Ok(claims)
    }
}

/// The claims of a session token, version 2.
pub(crate) fn of_session(stamp: Stamp<'_>, subject: Subject<'_>) -> Result<Value, CryptoError> {
    let mut claims = stamp.claims(&subject.user.id, SESSION_LIFETIME, SESSION_SKEW)?;
    let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    // Minutes since the first and the second factor were verified; -1: there is no second one.
    let age = stamp.now.since(subject.session.created_at).as_secs() / 60;
    set("fva", json!([age, -1]));
    set("sid", json!(subject.session.id));
    set("sts", json!("active"));
    set("v", json!(2));
    if let Some((organization, membership)) = subject.organization {
        let (features, object) = organization_claim(organization, membership);
        if let Some(features) = features {
            set("fea", json!(features));
        }
        set("o", object);
    }
    Ok(Value::Object(claims))
}

/// The claims of a template token: never `sid`, `v` or `sts`, and what Clerk sets wins over the template.
pub(crate) fn of_template(stamp: Stamp<'_>, subject: Subject<'_>, template: &Template) -> Result<Value, CryptoError> {
    let mut claims = shortcodes::expand_claims(&template.claims, subject);
    claims.extend(stamp.claims(&subject.user.id, template.lifetime, template.allowed_clock_skew)?);
    Ok(Value::Object(claims))
}

/// `fea` and `o`. Permissions are packed: `per` lists their names, `fpm` has a number for each feature of `fea` whose
/// bit `i` stands for the name at place `i`.
fn organization_claim(organization: &Organization, membership: &Membership) -> (Option<String>, Value) {
    let pairs: Vec<(&str, &str)> = membership
        .permissions
        .iter()
        .filter_map(|permission| permission.strip_prefix("org:").and_then(|rest| rest.split_once(':')))
        .collect();
    let (mut features, mut names): (Vec<&str>, Vec<&str>) = pairs.iter().copied().unzip();
    for list in [&mut features, &mut names] {
        list.sort_unstable();
        list.dedup();
    }
    let map: Vec<String> = features
        .iter()
        .map(|feature| {
            let bit = |name: &&str| u64::from(pairs.contains(&(*feature, *name)));
            names.iter().rev().fold(0_u64, |bits, name| (bits << 1) | bit(name)).to_string()
        })
        .collect();
    let mut object = json!({
        "id": organization.id,
        "rol": membership.role.strip_prefix("org:").unwrap_or(&membership.role),
        "slg": organization.slug,
    });
    if features.is_empty() {
        return (None, object);
    }
    object["per"] = json!(names.join(","));
    object["fpm"] = json!(map.join(","));
    let features: Vec<String> = features.iter().map(|feature| format!("o:{feature}")).collect();
    (Some(features.join(",")), object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::model::{SessionRecord, User};

    fn with_subject<T>(check: impl FnOnce(Subject<'_>) -> T) -> T {
        let user = User { id: "user_1".to_owned(), ..User::default() };
        let now = Wall::from_seconds(1000);
        let session = SessionRecord::begin("sess_1".to_owned(), "user_1".to_owned(), "client_1".to_owned(), None, now);
        check(Subject { session: &session, user: &user, organization: None })
    }

    fn stamp(expires_in: Option<u32>) -> Stamp<'static> {
        Stamp { issuer: "https://clerk.example.com", azp: None, now: Wall::from_millis(1_000_999), expires_in }
    }

    #[test]
    fn a_session_token_lives_sixty_seconds_and_began_ten_ago() {
        let mut claims = with_subject(|subject| of_session(stamp(None), subject)).unwrap();
        claims["jti"] = json!("");
        assert_eq!(
            claims,
            json!({
                "exp": 1060, "fva": [0, -1], "iat": 1000, "iss": "https://clerk.example.com", "jti": "", "nbf": 990,
                "sid": "sess_1", "sts": "active", "sub": "user_1", "v": 2,
            })
        );
    }

    #[test]
    fn what_the_issuer_sets_wins_over_the_template() {
        let claims = RESERVED.iter().map(|name| ((*name).to_owned(), json!("mine"))).collect();
        let template = Template::new("jtmp_1".to_owned(), "all".to_owned(), claims, Wall::default());
        let claims = with_subject(|subject| of_template(stamp(Some(300)), subject, &template)).unwrap();
        assert_eq!((&claims["exp"], &claims["iat"], &claims["nbf"]), (&json!(1300), &json!(1000), &json!(995)));
        assert_eq!((&claims["sub"], &claims["iss"]), (&json!("user_1"), &json!("https://clerk.example.com")));
        assert_ne!(claims["jti"], "mine");
    }

    #[test]
    fn permissions_are_packed_by_feature() {
        let organization = Organization {
            id: "org_1".to_owned(),
            name: String::new(),
            slug: "acme".to_owned(),
            public_metadata: Value::Null,
        };
        let membership = Membership {
            user_id: "user_1".to_owned(),
            organization_id: "org_1".to_owned(),
            role: "org:admin".to_owned(),
            permissions: ["org:reports:read", "org:reports:write", "org:teams:write"].map(str::to_owned).to_vec(),
            public_metadata: Value::Null,
        };
        let (features, object) = organization_claim(&organization, &membership);
        assert_eq!(features.as_deref(), Some("o:reports,o:teams"));
        assert_eq!(object, json!({"id": "org_1", "rol": "admin", "slg": "acme", "per": "read,write", "fpm": "3,2"}));
    }
}
