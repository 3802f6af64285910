//! What the emulator's tokens say: session tokens of both versions, and template tokens (contract sections 3 and 4).

use serde_json::{Map, Value, json};

use crate::clock::Wall;
use crate::emulator::keys::{self, CryptoError};
use crate::emulator::model::{Membership, Organization, Status, Subject, Template};
use crate::emulator::shortcodes;
use crate::emulator::version::TokenVersion;

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

/// The claims of a session token. `custom` are those that the instance adds to every session token.
pub(crate) fn of_session(
    stamp: Stamp<'_>,
    subject: Subject<'_>,
    version: TokenVersion,
    custom: Option<&Map<String, Value>>,
) -> Result<Value, CryptoError> {
    let mut claims = custom.map(|custom| shortcodes::expand_claims(custom, subject)).unwrap_or_default();
    claims.extend(stamp.claims(&subject.user.id, SESSION_LIFETIME, SESSION_SKEW)?);
    let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    set("fva", json!(subject.session.factor_ages(stamp.now)));
    set("sid", json!(subject.session.id));
    set("sts", json!(if subject.session.status == Status::Pending { "pending" } else { "active" }));
    if let Some(actor) = &subject.session.actor {
        set("act", actor.clone());
    }
    match version {
        TokenVersion::V1 => {
            if let Some((organization, membership)) = subject.organization {
                set("org_id", json!(organization.id));
                set("org_slug", json!(organization.slug));
                set("org_role", json!(membership.role));
                set("org_permissions", json!(membership.permissions));
            }
            claims.remove("jti");
        }
        TokenVersion::V2 => {
            set("v", json!(2));
            if let Some(plan) = plan(subject) {
                set("pla", json!(plan));
            }
            let (features, object) = match subject.organization {
                Some((organization, membership)) => organization_claim(organization, membership),
                None => (Vec::new(), Value::Null),
            };
            let own = subject.user.grants.features.iter().map(|feature| format!("u:{feature}"));
            let features: Vec<String> = features.into_iter().chain(own).collect();
            if !features.is_empty() {
                set("fea", json!(features.join(",")));
            }
            if !object.is_null() {
                set("o", object);
            }
        }
    }
    Ok(Value::Object(claims))
}

/// The plan of the active organization, else of the user.
fn plan(subject: Subject<'_>) -> Option<String> {
    let of_organization = subject.organization.and_then(|(organization, _)| organization.grants.plan.as_ref());
    let of_user = subject.user.grants.plan.as_ref();
    of_organization.map(|plan| format!("o:{plan}")).or(of_user.map(|plan| format!("u:{plan}")))
}

/// The claims of a template token: never `sid`, `v` or `sts`, and what Clerk sets wins over the template.
pub(crate) fn of_template(stamp: Stamp<'_>, subject: Subject<'_>, template: &Template) -> Result<Value, CryptoError> {
    let mut claims = shortcodes::expand_claims(&template.claims, subject);
    claims.extend(stamp.claims(&subject.user.id, template.lifetime, template.allowed_clock_skew)?);
    Ok(Value::Object(claims))
}

/// The organization's part of `fea`, and `o`. Permissions are packed: `per` lists their names, `fpm` has a number for each
/// of these features whose bit `i` stands for the name at place `i`.
fn organization_claim(organization: &Organization, membership: &Membership) -> (Vec<String>, Value) {
    let pairs: Vec<(&str, &str)> = membership
        .permissions
        .iter()
        .filter_map(|permission| permission.strip_prefix("org:").and_then(|rest| rest.split_once(':')))
        .collect();
    let (mut features, mut names): (Vec<&str>, Vec<&str>) = pairs.iter().copied().unzip();
    features.extend(organization.grants.features.iter().map(String::as_str));
    for list in [&mut features, &mut names] {
        list.sort_unstable();
        list.dedup();
    }
    let mut object = json!({
        "id": organization.id,
        "rol": membership.role.strip_prefix("org:").unwrap_or(&membership.role),
        "slg": organization.slug,
    });
    if !names.is_empty() {
        let map: Vec<String> = features
            .iter()
            .map(|feature| {
                let bit = |name: &&str| u64::from(pairs.contains(&(*feature, *name)));
                names.iter().rev().fold(0_u64, |bits, name| (bits << 1) | bit(name)).to_string()
            })
            .collect();
        object["per"] = json!(names.join(","));
        object["fpm"] = json!(map.join(","));
    }
    (features.iter().map(|feature| format!("o:{feature}")).collect(), object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::model::{Grants, SessionRecord, User};

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
        let mut claims = with_subject(|subject| of_session(stamp(None), subject, TokenVersion::V2, None)).unwrap();
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
        let (organization, membership) = acme();
        let (features, object) = organization_claim(&organization, &membership);
        assert_eq!(features, ["o:audit", "o:reports", "o:teams"]);
        assert_eq!(object, json!({"id": "org_1", "rol": "admin", "slg": "acme", "per": "read,write", "fpm": "0,3,2"}));
        let nobody = Membership { permissions: Vec::new(), ..membership };
        let (features, object) = organization_claim(&organization, &nobody);
        assert_eq!((features.len(), object.get("per"), object.get("fpm")), (1, None, None));
    }

    fn acme() -> (Organization, Membership) {
        let organization = Organization {
            id: "org_1".to_owned(),
            slug: "acme".to_owned(),
            grants: Grants { plan: Some("team".to_owned()), features: vec!["audit".to_owned()] },
            ..Organization::default()
        };
        let membership = Membership {
            role: "org:admin".to_owned(),
            permissions: ["org:reports:read", "org:reports:write", "org:teams:write"].map(str::to_owned).to_vec(),
            ..Membership::default()
        };
        (organization, membership)
    }

    /// A session of an impersonated user, with everything that a token can say.
    fn full(version: TokenVersion, custom: &Value) -> Value {
        let user = User {
            id: "user_1".to_owned(),
            public_metadata: json!({"role": "x"}),
            grants: Grants { plan: Some("solo".to_owned()), features: vec!["beta".to_owned()] },
            ..User::default()
        };
        let now = Wall::from_seconds(1000);
        let mut session = SessionRecord::begin("sess_1".to_owned(), "user_1".to_owned(), String::new(), None, now);
        session.actor = Some(json!({"sub": "user_2"}));
        session.status = Status::Pending;
        session.verified_at = [None, Some(Wall::from_seconds(0))];
        let (organization, membership) = acme();
        let subject = Subject { session: &session, user: &user, organization: Some((&organization, &membership)) };
        let mut claims = of_session(stamp(None), subject, version, custom.as_object()).unwrap();
        for name in ["exp", "iat", "iss", "nbf"] {
            claims.as_object_mut().unwrap().remove(name).unwrap();
        }
        claims
    }

    #[test]
    fn the_first_version_names_the_organization_in_claims_of_its_own() {
        assert_eq!(
            full(TokenVersion::V1, &Value::Null),
            json!({
                "act": {"sub": "user_2"}, "fva": [-1, 16], "sid": "sess_1", "sts": "pending", "sub": "user_1",
                "org_id": "org_1", "org_slug": "acme", "org_role": "org:admin",
                "org_permissions": ["org:reports:read", "org:reports:write", "org:teams:write"],
            })
        );
    }

    #[test]
    fn the_second_version_has_plan_features_and_custom_claims() {
        let custom = json!({"role": "{{user.public_metadata.role}}", "sub": "mine", "sid": "mine"});
        let mut claims = full(TokenVersion::V2, &custom);
        claims["jti"] = json!("");
        assert_eq!(
            claims,
            json!({
                "act": {"sub": "user_2"}, "fva": [-1, 16], "jti": "", "sid": "sess_1", "sts": "pending", "sub": "user_1",
                "v": 2, "pla": "o:team", "fea": "o:audit,o:reports,o:teams,u:beta", "role": "x",
                "o": {"id": "org_1", "rol": "admin", "slg": "acme", "per": "read,write", "fpm": "0,3,2"},
            })
        );
    }
}
