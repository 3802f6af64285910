//! The claims of a session token, v1 and v2 alike (contract section 3.1), read from a payload whose signature fits.

mod permissions;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::clock::Wall;
use crate::secret::Digest;
use crate::session::json::{self, Text, Unique, Value};
use crate::session::{KeyId, Org, Reason, Session, SessionId, UserId};

use permissions::Permissions;

/// How the id of a machine begins.
const MACHINE: &str = "mch_";

/// What the configuration demands of every token.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    pub(super) issuer: Option<Box<str>>,
    /// One of these; empty: not looked at.
    pub(super) audience: Box<[Box<str>]>,
}

/// The fixed claims, read in the one pass that also refuses what is not strict JSON. Their types are looked at after it,
/// and those of what an instance may have put under another meaning (`o` before v2, `org_*` since) only where it counts.
#[derive(Default)]
struct Claims<'a> {
    sid: Option<Value<'a>>,
    sub: Option<Value<'a>>,
    exp: Option<Value<'a>>,
    nbf: Option<Value<'a>>,
    iat: Option<Value<'a>>,
    iss: Option<Value<'a>>,
    azp: Option<Value<'a>>,
    aud: Option<Value<'a>>,
    sts: Option<Value<'a>>,
    act: Option<Value<'a>>,
    v: Option<Value<'a>>,
    o: Option<Value<'a>>,
    fea: Option<Value<'a>>,
    org_id: Option<Value<'a>>,
    org_role: Option<Value<'a>>,
    org_slug: Option<Value<'a>>,
    org_permissions: Option<Value<'a>>,
}

/// The actor as it is written.
#[derive(Deserialize)]
struct Actor<'a> {
    #[serde(borrow)]
    act: Option<&'a RawValue>,
}

struct ClaimsVisitor;

/// The session that the payload describes; with all its claims where they are `kept`.
pub(super) fn session(payload: Vec<u8>, key: KeyId, expected: &Expected, kept: bool) -> Result<Session, Reason> {
    let payload = String::from_utf8(payload).map_err(|_| Reason::Malformed)?;
    let claims: Claims<'_> = serde_json::from_str(&payload).map_err(|_| Reason::Malformed)?;
    let sid = required(claims.sid.as_ref().and_then(Value::text))?;
    let sub = required(claims.sub.as_ref().and_then(Value::text))?;
    let expires_at = required(seconds(claims.exp.as_ref())?)?;
    let not_before = seconds(claims.nbf.as_ref())?;
    let issued_at = seconds(claims.iat.as_ref())?;
    expected.check(&claims)?;
    // A machine's token, whatever else it says: Clerk's SDK takes none that begins so for a session's.
    if sub.starts_with(MACHINE) {
        return Err(Reason::NotASessionToken);
    }
    let (org, permissions) = claims.org()?;
    let act = match present(claims.act.as_ref()) {
        // Rare. Only the text tells how it is written.
        Some(_) => serde_json::from_str::<Actor<'_>>(&payload).map_err(|_| Reason::Malformed)?.act,
        None => None,
    };
    let session = Session {
        sid: SessionId::new(sid).map_err(|_| Reason::Claims)?,
        sub: UserId::new(sub).map_err(|_| Reason::Claims)?,
        expires_at,
        not_before,
        issued_at,
        // One of another type is none: it equals nothing, and where nothing is compared with it, Clerk's SDK takes the
        // token.
        azp: claims.azp.as_ref().and_then(Value::text).map(Into::into),
        pending: claims.sts.as_ref().and_then(Value::text) == Some("pending"),
        impersonated: act.is_some(),
        scope: scope(org.as_ref(), permissions, act),
        org,
        key,
        claims: kept.then(|| RawValue::from_string(payload)).transpose().map_err(|_| Reason::Malformed)?,
    };
    Ok(session)
}

fn required<T>(claim: Option<T>) -> Result<T, Reason> {
    claim.ok_or(Reason::Claims)
}

/// For claims whose `null` is none.
fn present<'a, 'b>(claim: Option<&'b Value<'a>>) -> Option<&'b Value<'a>> {
    claim.filter(|value| !matches!(value, Value::Null))
}

/// A time, or none; `null` is not none.
fn seconds(claim: Option<&Value<'_>>) -> Result<Option<Wall>, Reason> {
    match claim {
        None => Ok(None),
        Some(&Value::Integer(seconds)) => Ok(Some(Wall::from_seconds(seconds))),
        Some(_) => Err(Reason::Claims),
    }
}

/// A text, or none; `null` is none.
fn optional<'b>(claim: Option<&'b Value<'_>>) -> Result<Option<&'b str>, Reason> {
    present(claim).map(|value| required(value.text())).transpose()
}

/// What a minted token depends on beside the session: organization, role, slug, the set of permissions and the actor.
///
/// Canonical, so that a session token that is issued again keeps its minted tokens: permissions are sorted and counted
/// once, in their long form for both versions; the actor's members are taken in the order of their names. Each part is
/// told from an absent one and has an end of its own, so no two sessions share a digest by the way their values join.
fn scope(org: Option<&Org>, mut permissions: Permissions, act: Option<&RawValue>) -> Digest {
    let mut bytes = Vec::with_capacity(256);
    put(&mut bytes, org.map(|org| &*org.id));
    put(&mut bytes, org.and_then(|org| org.role.as_deref()));
    put(&mut bytes, org.and_then(|org| org.slug.as_deref()));
    for permission in permissions.each_once() {
        put(&mut bytes, Some(permission));
    }
    put(&mut bytes, None);
    if let Some(act) = act {
        if let Ok(members) = serde_json::from_str::<BTreeMap<Text<'_>, &RawValue>>(act.get()) {
            put(&mut bytes, Some("act"));
            for (name, value) in &members {
                put(&mut bytes, Some(name.as_str()));
                put(&mut bytes, Some(value.get()));
            }
        } else {
            // Not an object: it stands for itself.
            put(&mut bytes, None);
            put(&mut bytes, Some(act.get()));
        }
    }
    Digest::of(&bytes)
}

/// The two bytes are in no UTF-8.
fn put(bytes: &mut Vec<u8>, part: Option<&str>) {
    const END: u8 = 0xff;
    const ABSENT: u8 = 0xfe;
    match part {
        Some(part) => {
            bytes.extend_from_slice(part.as_bytes());
            bytes.push(END);
        }
        None => bytes.push(ABSENT),
    }
}

// === impl Expected ===

impl Expected {
    fn check(&self, claims: &Claims<'_>) -> Result<(), Reason> {
        if let Some(issuer) = &self.issuer
            && claims.iss.as_ref().and_then(Value::text) != Some(&**issuer)
        {
            return Err(Reason::Issuer);
        }
        if self.audience.is_empty() {
            return Ok(());
        }
        let ours = |name: &str| self.audience.iter().any(|own| **own == *name);
        let named = match &claims.aud {
            Some(Value::Text(one)) => ours(one.as_str()),
            Some(Value::List(several)) => {
                several.iter().all(|name| name.text().is_some()) && several.iter().filter_map(Value::text).any(ours)
            }
            _ => false,
        };
        if named { Ok(()) } else { Err(Reason::Claims) }
    }
}

// === impl Claims ===

impl<'a> Claims<'a> {
    fn slot(&mut self, name: &str) -> Option<&mut Option<Value<'a>>> {
        let slot = match name {
            "sid" => &mut self.sid,
            "sub" => &mut self.sub,
            "exp" => &mut self.exp,
            "nbf" => &mut self.nbf,
            "iat" => &mut self.iat,
            "iss" => &mut self.iss,
            "azp" => &mut self.azp,
            "aud" => &mut self.aud,
            "sts" => &mut self.sts,
            "act" => &mut self.act,
            "v" => &mut self.v,
            "o" => &mut self.o,
            "fea" => &mut self.fea,
            "org_id" => &mut self.org_id,
            "org_role" => &mut self.org_role,
            "org_slug" => &mut self.org_slug,
            "org_permissions" => &mut self.org_permissions,
            _ => return None,
        };
        Some(slot)
    }

    /// The active organization and its permissions in their long form.
    fn org(&self) -> Result<(Option<Org>, Permissions), Reason> {
        // The same number in every notation, as JavaScript compares it.
        let second = match self.v {
            Some(Value::Integer(version)) => version == 2,
            Some(Value::Float(version)) => version.to_bits() == 2_f64.to_bits(),
            _ => false,
        };
        if second { self.org_v2() } else { self.org_v1() }
    }

    fn org_v1(&self) -> Result<(Option<Org>, Permissions), Reason> {
        let mut permissions = Permissions::default();
        let Some(id) = optional(self.org_id.as_ref())?.filter(|id| !id.is_empty()) else {
            return Ok((None, permissions));
        };
        let role = optional(self.org_role.as_ref())?.map(Into::into);
        let slug = optional(self.org_slug.as_ref())?.map(Into::into);
        match present(self.org_permissions.as_ref()) {
            None => {}
            Some(Value::List(list)) => {
                for permission in list {
                    permissions.add(&[required(permission.text())?]);
                }
            }
            Some(_) => return Err(Reason::Claims),
        }
        Ok((Some(Org { id: id.into(), role, slug }), permissions))
    }

    fn org_v2(&self) -> Result<(Option<Org>, Permissions), Reason> {
        let members = match present(self.o.as_ref()) {
            None => return Ok((None, Permissions::default())),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(Reason::Claims),
        };
        let member = |name| optional(members.iter().find(|(own, _)| own.as_str() == name).map(|(_, value)| value));
        let id = required(member("id")?.filter(|id| !id.is_empty()))?;
        let role = member("rol")?.map(|role| ["org:", role].concat().into());
        let slug = member("slg")?.map(Into::into);
        let permissions = match (optional(self.fea.as_ref())?, member("per")?, member("fpm")?) {
            (Some(features), Some(names), Some(maps)) => Permissions::unpacked(features, names, maps),
            _ => Permissions::default(),
        };
        Ok((Some(Org { id: id.into(), role, slug }), permissions))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Claims<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ClaimsVisitor)
    }
}

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object without duplicate keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims<'de>, A::Error> {
        let mut claims = Claims::default();
        let mut others: Vec<Text<'de>> = Vec::new();
        while let Some(name) = map.next_key::<Text<'de>>()? {
            let Some(slot) = claims.slot(name.as_str()) else {
                map.next_value::<Unique>()?;
                others.push(name);
                continue;
            };
            if slot.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        if json::are_distinct(&mut others) { Ok(claims) } else { Err(A::Error::custom("duplicate key")) }
    }
}
