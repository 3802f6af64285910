//! The claims of a session token, v1 and v2 alike (contract section 3.1), read from a payload whose signature fits.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock::Wall;
use crate::secret::Digest;
use crate::session::json::{self, Text};
use crate::session::{KeyId, Org, Reason, Session, SessionId, UserId};

/// How the id of a machine begins.
const MACHINE: &str = "mch_";

/// What the configuration demands of every token.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    pub(super) issuer: Option<Box<str>>,
    /// One of these; empty: not looked at.
    pub(super) audience: Box<[Box<str>]>,
}

/// The fixed claims. What an instance may have put under another meaning (`o` before v2, `org_*` since) is read only
/// where it counts.
#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    sid: Text<'a>,
    #[serde(borrow)]
    sub: Text<'a>,
    exp: i64,
    #[serde(default, deserialize_with = "json::present")]
    nbf: Option<i64>,
    #[serde(default, deserialize_with = "json::present")]
    iat: Option<i64>,
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    azp: Option<&'a RawValue>,
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
    #[serde(borrow)]
    sts: Option<&'a RawValue>,
    #[serde(borrow)]
    act: Option<&'a RawValue>,
    #[serde(borrow)]
    v: Option<&'a RawValue>,
    #[serde(borrow)]
    o: Option<&'a RawValue>,
    #[serde(borrow)]
    fea: Option<&'a RawValue>,
    #[serde(borrow)]
    org_id: Option<&'a RawValue>,
    #[serde(borrow)]
    org_role: Option<&'a RawValue>,
    #[serde(borrow)]
    org_slug: Option<&'a RawValue>,
    #[serde(borrow)]
    org_permissions: Option<&'a RawValue>,
}

/// `o` of version 2.
#[derive(Deserialize)]
struct OrgV2<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    slg: Option<Text<'a>>,
    #[serde(borrow)]
    rol: Option<Text<'a>>,
    #[serde(borrow)]
    per: Option<Text<'a>>,
    #[serde(borrow)]
    fpm: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The session that the payload describes; with all its claims where they are `kept`.
pub(super) fn session(payload: Vec<u8>, key: KeyId, expected: &Expected, kept: bool) -> Result<Session, Reason> {
    let payload = String::from_utf8(payload).map_err(|_| Reason::Malformed)?;
    if !json::is_strict_object(&payload) {
        return Err(Reason::Malformed);
    }
    let claims: Claims<'_> = serde_json::from_str(&payload).map_err(|_| Reason::Claims)?;
    expected.check(&claims)?;
    // A machine's token, whatever else it says: Clerk's SDK takes none that begins so for a session's.
    if claims.sub.as_str().starts_with(MACHINE) {
        return Err(Reason::NotASessionToken);
    }
    let (org, permissions) = claims.org()?;
    let scope = scope(org.as_ref(), permissions, claims.act);
    let session = Session {
        sid: SessionId::new(claims.sid.as_str()).map_err(|_| Reason::Claims)?,
        sub: UserId::new(claims.sub.as_str()).map_err(|_| Reason::Claims)?,
        expires_at: Wall::from_seconds(claims.exp),
        not_before: claims.nbf.map(Wall::from_seconds),
        issued_at: claims.iat.map(Wall::from_seconds),
        azp: lenient::<Text<'_>>(claims.azp).as_ref().map(boxed),
        pending: lenient::<Text<'_>>(claims.sts).is_some_and(|sts| sts.as_str() == "pending"),
        impersonated: claims.act.is_some(),
        org,
        scope,
        key,
        claims: kept.then(|| RawValue::from_string(payload)).transpose().map_err(|_| Reason::Malformed)?,
    };
    Ok(session)
}

/// A claim of this type, or none; `null` is none.
fn optional<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Option<T>, Reason> {
    raw.map_or(Ok(None), |raw| serde_json::from_str(raw.get()).map_err(|_| Reason::Claims))
}

/// A claim of this type, or none; one of another type is none too. For claims that are compared alone: an odd one equals
/// nothing, and where nothing is compared with it, Clerk's SDK takes the token.
fn lenient<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

fn boxed(text: &Text<'_>) -> Box<str> {
    text.as_str().into()
}

/// What a minted token depends on beside the session: organization, role, slug, the set of permissions and the actor.
///
/// Canonical, so that a session token that is issued again keeps its minted tokens: permissions are sorted and counted
/// once, in their long form for both versions; the actor's members are taken in the order of their names. Each part is
/// told from an absent one and carries its length, so no two sessions share a digest by the way their values join.
fn scope(org: Option<&Org>, mut permissions: Vec<String>, act: Option<&RawValue>) -> Digest {
    permissions.sort_unstable();
    permissions.dedup();
    let actor: BTreeMap<Text<'_>, &RawValue> = match act.map(|act| (act, serde_json::from_str(act.get()))) {
        None => BTreeMap::new(),
        Some((_, Ok(members))) => members,
        // Not an object: it stands for itself.
        Some((act, Err(_))) => BTreeMap::from([(Text("".into()), act)]),
    };
    let mut parts: Vec<&[u8]> = Vec::new();
    put(&mut parts, org.map(|org| &*org.id));
    put(&mut parts, org.and_then(|org| org.role.as_deref()));
    put(&mut parts, org.and_then(|org| org.slug.as_deref()));
    for permission in &permissions {
        put(&mut parts, Some(permission));
    }
    put(&mut parts, None);
    put(&mut parts, act.map(|_| "act"));
    for (name, value) in &actor {
        put(&mut parts, Some(name.as_str()));
        put(&mut parts, Some(value.get()));
    }
    Digest::of_parts(parts)
}

fn put<'a>(parts: &mut Vec<&'a [u8]>, part: Option<&'a str>) {
    match part {
        Some(part) => parts.extend([b"+", part.as_bytes()]),
        None => parts.push(b"-"),
    }
}

/// The long form of version 2's permissions, as Clerk's SDK unpacks it: the features of `fea` that an organization has
/// (`o:billing`), and for each a number in `fpm` whose bits name permissions of `per`: `org:billing:manage`.
/// `None` when they do not fit together.
fn unpack(features: &str, names: &str, maps: &str) -> Option<Vec<String>> {
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let features = features.split(',').filter_map(|feature| feature.trim().split_once(':'));
    let features = features.filter(|(scope, _)| scope.contains('o')).map(|(_, feature)| feature);
    let mut unpacked = Vec::new();
    let mut maps = maps.split(',');
    for feature in features {
        let Some(map) = maps.next() else { break };
        let map: u64 = map.trim().parse().ok()?;
        if names.len() < 64 && map >> names.len() != 0 {
            return None;
        }
        let granted = names.iter().take(64).enumerate().filter(|(bit, _)| map >> bit & 1 == 1);
        unpacked.extend(granted.map(|(_, name)| format!("org:{feature}:{name}")));
    }
    Some(unpacked)
}

// === impl Expected ===

impl Expected {
    fn check(&self, claims: &Claims<'_>) -> Result<(), Reason> {
        if let Some(issuer) = &self.issuer
            && lenient::<Text<'_>>(claims.iss).is_none_or(|iss| iss.as_str() != &**issuer)
        {
            return Err(Reason::Issuer);
        }
        if self.audience.is_empty() {
            return Ok(());
        }
        let named = match optional::<Audience>(claims.aud)? {
            None => Vec::new(),
            Some(Audience::One(one)) => vec![one],
            Some(Audience::Several(several)) => several,
        };
        let ours = |name: &String| self.audience.iter().any(|own| **own == **name);
        if named.iter().any(ours) { Ok(()) } else { Err(Reason::Claims) }
    }
}

// === impl Claims ===

impl Claims<'_> {
    /// The active organization and its permissions in their long form.
    fn org(&self) -> Result<(Option<Org>, Vec<String>), Reason> {
        // The same number in every notation, as JavaScript compares it.
        let second = lenient::<f64>(self.v).is_some_and(|v| v.to_bits() == 2_f64.to_bits());
        if second { self.org_v2() } else { self.org_v1() }
    }

    fn org_v1(&self) -> Result<(Option<Org>, Vec<String>), Reason> {
        let Some(id) = optional::<Text<'_>>(self.org_id)?.filter(|id| !id.as_str().is_empty()) else {
            return Ok((None, Vec::new()));
        };
        let role = optional::<Text<'_>>(self.org_role)?;
        let slug = optional::<Text<'_>>(self.org_slug)?;
        let permissions = optional::<Vec<String>>(self.org_permissions)?.unwrap_or_default();
        Ok((Some(Org { id: boxed(&id), role: role.as_ref().map(boxed), slug: slug.as_ref().map(boxed) }), permissions))
    }

    fn org_v2(&self) -> Result<(Option<Org>, Vec<String>), Reason> {
        let Some(org) = optional::<OrgV2<'_>>(self.o)? else { return Ok((None, Vec::new())) };
        if org.id.as_str().is_empty() {
            return Err(Reason::Claims);
        }
        let role = org.rol.as_ref().map(|role| format!("org:{}", role.as_str()).into());
        let features = optional::<Text<'_>>(self.fea)?;
        let permissions = match (&features, &org.per, &org.fpm) {
            (Some(features), Some(names), Some(maps)) => {
                let packed = [features, names, maps].map(Text::as_str);
                // What does not unpack still tells sessions apart: it stands for itself.
                unpack(packed[0], packed[1], packed[2]).unwrap_or_else(|| packed.map(str::to_owned).into())
            }
            _ => Vec::new(),
        };
        Ok((Some(Org { id: boxed(&org.id), role, slug: org.slg.as_ref().map(boxed) }), permissions))
    }
}
