//! Session tokens that our key signed, whatever they say: accepted when, and only when, a slow reading accepts them, and
//! as the same session. A token of which one character was changed after it was signed is never accepted.
//!
//! An input is three lines: where a character is changed and into which (empty: nowhere), the header, the payload.
#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use mintgate::clock::Wall;
use mintgate::session::jwks::keys::KeySet;
use mintgate::session::verify::Verifier;
use mintgate_fuzz::gateway;
use mintgate_fuzz::json::{self, Json};

const ISSUER: &str = "https://clerk.example.com";

static PAIR: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(&gateway("[[routes]]\nname = \"r\"\nmatch = { path = \"/\" }\nupstream = \"up\"\n").clerk)
});

/// The one key, pinned: it serves whatever `kid` a token names.
static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::pinned(PAIR.public_key().as_der().unwrap().as_ref()).unwrap());

fn part(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sign(header: &[u8], payload: &[u8]) -> String {
    let signed = format!("{}.{}", part(header), part(payload));
    let mut signature = vec![0; PAIR.public_modulus_len()];
    PAIR.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", part(&signature))
}

/// What a session is told by.
#[derive(Debug, PartialEq)]
struct Told {
    sid: String,
    sub: String,
    exp: Wall,
    nbf: Option<Wall>,
    iat: Option<Wall>,
    azp: Option<String>,
    pending: bool,
    impersonated: bool,
    org: Option<(String, Option<String>, Option<String>)>,
}

/// Whether the header is one of a session token of the key.
fn header(text: &[u8]) -> Option<()> {
    let header = json::read(std::str::from_utf8(text).ok()?)?;
    let word = |name| header.get(name).map(|value| value.text());
    let fits = matches!(header, Json::Object(_))
        && header.get("crit").is_none()
        && word("alg") == Some(Some("RS256"))
        && word("kid") != Some(None)
        && matches!(word("typ"), None | Some(Some("JWT")))
        && matches!(word("cat"), None | Some(Some("cl_B7d4PD111AAA" | "cl_I7d4PD111III")));
    fits.then_some(())
}

fn payload(text: &[u8]) -> Option<Told> {
    let claims = json::read(std::str::from_utf8(text).ok()?)?;
    if !matches!(claims, Json::Object(_)) {
        return None;
    }
    let time = |name| match claims.get(name) {
        None => Some(None),
        Some(value) => value.integer().map(|seconds| Some(Wall::from_seconds(seconds))),
    };
    let sid = claims.get("sid")?.text()?;
    let sub = claims.get("sub")?.text()?;
    let plain = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == '-';
    if sid.is_empty() || sid.len() > 128 || !sid.chars().all(plain) || sub.is_empty() || sub.starts_with("mch_") {
        return None;
    }
    if claims.get("iss")?.text()? != ISSUER {
        return None;
    }
    let act = claims.get("act").filter(|value| **value != Json::Null);
    Some(Told {
        sid: sid.to_owned(),
        sub: sub.to_owned(),
        exp: time("exp")??,
        nbf: time("nbf")?,
        iat: time("iat")?,
        azp: claims.get("azp").and_then(Json::text).map(str::to_owned),
        pending: claims.get("sts").and_then(Json::text) == Some("pending"),
        impersonated: act.is_some(),
        org: organization(&claims)?,
    })
}

/// A text or none; `None` for anything else.
fn optional(value: Option<&Json>) -> Option<Option<String>> {
    match value {
        None | Some(Json::Null) => Some(None),
        Some(value) => value.text().map(|text| Some(text.to_owned())),
    }
}

type Organization = (String, Option<String>, Option<String>);

fn organization(claims: &Json) -> Option<Option<Organization>> {
    let two = |value: &Json| matches!(value, Json::Number(digits) if digits.parse() == Ok(2.0));
    if claims.get("v").is_some_and(two) {
        let org = match claims.get("o") {
            None | Some(Json::Null) => return Some(None),
            Some(org @ Json::Object(_)) => org,
            Some(_) => return None,
        };
        let id = optional(org.get("id"))?.filter(|id| !id.is_empty())?;
        let role = optional(org.get("rol"))?.map(|role| format!("org:{role}"));
        let slug = optional(org.get("slg"))?;
        for packed in [claims.get("fea"), org.get("per"), org.get("fpm")] {
            optional(packed)?;
        }
        return Some(Some((id, role, slug)));
    }
    let Some(id) = optional(claims.get("org_id"))?.filter(|id| !id.is_empty()) else { return Some(None) };
    let (role, slug) = (optional(claims.get("org_role"))?, optional(claims.get("org_slug"))?);
    match claims.get("org_permissions") {
        None | Some(Json::Null) => {}
        Some(Json::List(list)) if list.iter().all(|one| one.text().is_some()) => {}
        Some(_) => return None,
    }
    Some(Some((id, role, slug)))
}

/// The token with one character replaced; `None` when that changes nothing.
fn changed(token: &str, how: &[u8]) -> Option<String> {
    let (&[high, low], into) = how.split_first_chunk::<2>()?;
    let &into = into.first().filter(|byte| byte.is_ascii_graphic())?;
    let at = usize::from(high) * 256 + usize::from(low);
    let mut bytes = token.as_bytes().to_vec();
    let at = at % bytes.len();
    if bytes[at] == into {
        return None;
    }
    bytes[at] = into;
    String::from_utf8(bytes).ok()
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(3, |&byte| byte == b'\n');
    let (Some(how), Some(head), Some(claims)) = (lines.next(), lines.next(), lines.next()) else { return };
    if claims.len() > 4096 {
        return;
    }
    let token = sign(head, claims);
    let expected = header(head).and_then(|()| payload(claims));
    // The second time the header is remembered.
    for _ in 0..2 {
        let session = VERIFIER.verify(&token, &KEYS);
        let told = session.as_ref().ok().map(|session| Told {
            sid: session.sid.as_str().to_owned(),
            sub: session.sub.as_str().to_owned(),
            exp: session.expires_at,
            nbf: session.not_before,
            iat: session.issued_at,
            azp: session.azp.as_deref().map(str::to_owned),
            pending: session.pending,
            impersonated: session.impersonated,
            org: session.org.as_ref().map(|org| {
                let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
                (org.id.to_string(), owned(&org.role), owned(&org.slug))
            }),
        });
        assert_eq!(told, expected, "{:?}: {session:?}", String::from_utf8_lossy(data));
    }
    if let Some(other) = changed(&token, how) {
        assert!(VERIFIER.verify(&other, &KEYS).is_err(), "{other}");
    }
});
