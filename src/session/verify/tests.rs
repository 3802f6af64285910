//! Tests of verification as a whole.

use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::Origin;
use crate::secret::Digest;
use crate::session::testing::{claims, jwks, part, signer, stranger, with};

const NOW: i64 = 1_700_000_000;
const SKEW: Duration = Duration::from_secs(5);

/// With keys that have verified nothing yet, and with keys that know the header of a good token: both say the same.
fn verify(token: &str) -> Result<Session, SessionError> {
    static USED: LazyLock<KeySet> = LazyLock::new(|| {
        let keys = signer().keys();
        Verifier::default().verify(&signer().sign(&claims(NOW)), &keys).unwrap();
        keys
    });
    let verdict = Verifier::default().verify(token, &USED);
    let anew = Verifier::default().verify(token, &signer().keys());
    assert_eq!(verdict.as_ref().map(said).map_err(|error| *error), anew.as_ref().map(said).map_err(|error| *error));
    verdict
}

fn said(session: &Session) -> (&str, &str, Digest) {
    (session.sid.as_str(), session.claims.as_deref().unwrap().get(), session.scope)
}

fn verdict(token: &str) -> Result<(), Reason> {
    match verify(token) {
        Ok(_) => Ok(()),
        Err(SessionError::Invalid(reason)) => Err(reason),
        Err(other) => panic!("{other}"),
    }
}

/// The verdict on a token with good claims whose header is changed so; `null` removes a member.
fn header(changes: Value) -> Result<(), Reason> {
    verdict(&signer().sign_texts(&with(signer().header(), changes).to_string(), &claims(NOW).to_string()))
}

fn claim(changes: Value) -> Result<(), Reason> {
    verdict(&signer().sign(&with(claims(NOW), changes)))
}

fn header_text(header: &str) -> Result<(), Reason> {
    verdict(&signer().sign_texts(header, &claims(NOW).to_string()))
}

fn session(changes: Value) -> Session {
    verify(&signer().sign(&with(claims(NOW), changes))).unwrap()
}

fn rules(parties: &[&str], allow_pending: bool) -> SessionRules {
    let authorized_parties = parties.iter().map(|party| Origin((*party).to_owned())).collect();
    SessionRules { allow_pending, authorized_parties, require: Vec::new(), allow_impersonation: true }
}

fn checked(session: &Session, after: i64) -> Result<(), SessionError> {
    check(session, Wall::from_seconds(NOW + after), &rules(&[], false), None, SKEW)
}

#[test]
fn a_good_token_is_a_session() {
    let session = session(json!({}));
    assert_eq!((session.sid.as_str(), session.sub.as_str()), ("sess_1", "user_1"));
    assert_eq!(session.expires_at, Wall::from_seconds(NOW + 60));
    assert_eq!(session.not_before, Some(Wall::from_seconds(NOW - 10)));
    assert_eq!(session.issued_at, Some(Wall::from_seconds(NOW)));
    assert_eq!(session.azp.as_deref(), Some("https://app.example.com"));
    assert!(!session.pending && session.org.is_none());
    assert_eq!(session.key, *signer().keys().find(Some("ins_test")).unwrap().id());
    assert_eq!(serde_json::from_str::<Value>(session.claims.as_deref().unwrap().get()).unwrap(), claims(NOW));
}

#[test]
fn claims_that_no_route_points_to_are_not_kept() {
    let token = signer().sign(&with(claims(NOW), json!({ "role": "admin" })));
    let role = |kept| {
        let session = Verifier::default().with_claims(kept).verify(&token, &signer().keys()).unwrap();
        assert_eq!((session.sub.as_str(), session.claims.is_some()), ("user_1", kept));
        session.value(&crate::config::Claim::Pointer("/role".to_owned()))
    };
    assert_eq!((role(true).as_deref(), role(false)), (Some("admin"), None));
}

/// Fails when `alg` is not looked at.
#[test]
fn only_rs256_of_the_known_key_verifies() {
    for alg in ["none", "None", "HS256", "RS384", "RS512", "PS256", "ES256", "rs256", ""] {
        assert_eq!(header(json!({ "alg": alg })), Err(Reason::Algorithm), "{alg}");
    }
    assert_eq!(header_text(r#"{"kid":"ins_test"}"#), Err(Reason::Algorithm));
    assert_eq!(header_text(r#"{"alg":null,"kid":"ins_test"}"#), Err(Reason::Malformed));
    // HS256 with the public key as its secret, named RS256 or not.
    let signed = |alg: &str| {
        let text =
            format!("{}.{}", part(json!({ "alg": alg, "kid": "ins_test" }).to_string()), part(claims(NOW).to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &signer().spki()), text.as_bytes());
        format!("{text}.{}", part(tag))
    };
    assert_eq!(verdict(&signed("HS256")), Err(Reason::Algorithm));
    assert_eq!(verdict(&signed("RS256")), Err(Reason::Signature));
    // Another's signature under our kid, and a key that the token brings along.
    let foreign = stranger().sign_texts(&signer().header().to_string(), &claims(NOW).to_string());
    assert_eq!(verdict(&foreign), Err(Reason::Signature));
    let embedded = with(signer().header(), json!({ "jwk": stranger().jwk(), "jku": "https://evil.example" }));
    assert_eq!(
        verdict(&stranger().sign_texts(&embedded.to_string(), &claims(NOW).to_string())),
        Err(Reason::Signature)
    );
    assert_eq!(verdict(&stranger().sign(&claims(NOW))), Err(Reason::UnknownKey));
    assert_eq!(header(json!({ "kid": null })), Err(Reason::UnknownKey));
    assert_eq!(header(json!({ "kid": "../../etc/passwd" })), Err(Reason::UnknownKey));
    assert_eq!(header(json!({ "kid": 1 })), Err(Reason::Malformed));
}

#[test]
fn a_pinned_key_ignores_the_kid() {
    let keys = KeySet::pinned(&signer().spki()).unwrap();
    let verify = |token: &str| Verifier::default().verify(token, &keys).is_ok();
    for kid in [json!(null), json!("ins_test"), json!("another")] {
        let header = with(signer().header(), json!({ "kid": kid }));
        assert!(verify(&signer().sign_texts(&header.to_string(), &claims(NOW).to_string())));
    }
    assert!(!verify(&stranger().sign(&claims(NOW))));
}

/// Fails when `crit` or `typ` is not looked at, and when a parameter may stand there twice.
#[test]
fn the_header_is_read_strictly() {
    assert_eq!(header(json!({ "typ": null })), Ok(()));
    for typ in ["at+jwt", "jwt", "JOSE", ""] {
        assert_eq!(header(json!({ "typ": typ })), Err(Reason::NotASessionToken), "{typ}");
    }
    assert_eq!(header_text(r#"{"alg":"RS256","kid":"ins_test","typ":null}"#), Err(Reason::Malformed));
    assert_eq!(header(json!({ "crit": ["b64"], "b64": false })), Err(Reason::Algorithm));
    assert_eq!(header_text(r#"{"alg":"RS256","kid":"ins_test","crit":null}"#), Err(Reason::Algorithm));
    assert_eq!(header(json!({ "oiat": 5, "x": { "y": [1] } })), Ok(()));
    for bad in [
        r#"{"alg":"RS256","alg":"RS256","kid":"ins_test"}"#,
        r#"{"alg":"RS256","kid":"ins_test","x":1,"x":1}"#,
        r#"{"alg":"RS256","kid":"ins_test","x":{"y":1,"y":1}}"#,
        r#"["RS256"]"#,
        r#"{"alg":"RS256","kid":"ins_test"} x"#,
        "",
    ] {
        assert_eq!(header_text(bad), Err(Reason::Malformed), "{bad}");
    }
}

#[test]
fn what_was_signed_as_another_kind_is_refused() {
    for good in [json!(null), json!("cl_B7d4PD111AAA"), json!("cl_I7d4PD111III")] {
        assert_eq!(header(json!({ "cat": good })), Ok(()), "{good}");
    }
    for bad in ["cl_B7d4PD222AAA", "cl_B7d4PD333AAA", "cl_b7d4pd111aaa", "", "x"] {
        assert_eq!(header(json!({ "cat": bad })), Err(Reason::Category), "{bad}");
    }
    for bad in ["null", "1", "[]", r#"["cl_B7d4PD111AAA"]"#] {
        assert_eq!(header_text(&format!(r#"{{"alg":"RS256","kid":"ins_test","cat":{bad}}}"#)), Err(Reason::Category));
    }
    // The category of a token that nobody signed means nothing.
    let forged = stranger().sign_texts(
        &with(signer().header(), json!({ "cat": "cl_B7d4PD222AAA" })).to_string(),
        &claims(NOW).to_string(),
    );
    assert_eq!(verdict(&forged), Err(Reason::Signature));
}

#[test]
fn a_header_is_known_once_a_session_with_it_has_verified() {
    let (keys, good) = (signer().keys(), claims(NOW));
    let known = |header: &Value| keys.of_header(&part(header.to_string())).is_some();
    let verify = |signer: &crate::session::testing::Signer, header: &Value, claims: &Value| {
        Verifier::default().verify(&signer.sign_texts(&header.to_string(), &claims.to_string()), &keys).map(drop)
    };
    let refused = |reason| Err(SessionError::Invalid(reason));
    let (usual, bare) = (signer().header(), json!({ "alg": "RS256", "kid": "ins_test" }));
    let template = with(usual.clone(), json!({ "cat": "cl_B7d4PD222AAA" }));
    for _ in 0..2 {
        assert_eq!(verify(stranger(), &bare, &good), refused(Reason::Signature));
        assert_eq!(verify(signer(), &template, &good), refused(Reason::Category));
        assert_eq!(verify(signer(), &bare, &json!({})), refused(Reason::Claims));
    }
    assert!(!known(&bare) && !known(&template) && !known(&usual));
    for _ in 0..2 {
        assert_eq!(verify(signer(), &usual, &good), Ok(()));
        assert_eq!(verify(stranger(), &usual, &good), refused(Reason::Signature));
        // Those with another header are read as ever.
        assert_eq!(verify(signer(), &bare, &good), Ok(()));
        assert_eq!(verify(signer(), &template, &good), refused(Reason::Category));
        assert_eq!(verify(signer(), &with(usual.clone(), json!({ "alg": "none" })), &good), refused(Reason::Algorithm));
    }
    assert!(known(&usual) && !known(&bare) && !known(&template), "the first one is kept");
    assert!(signer().keys().of_header(&part(usual.to_string())).is_none(), "each set knows its own");
}

/// Fails when a token may have any length.
#[test]
fn a_token_has_three_canonical_parts() {
    let token = signer().sign(&claims(NOW));
    let parts: Vec<&str> = token.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three") };
    assert_eq!(verdict(&token), Ok(()));
    let bad = [
        String::new(),
        "..".to_owned(),
        "a".to_owned(),
        format!("{head}.{body}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{token}="),
        format!("{token}=="),
        format!(" {token}"),
        format!("{token} "),
        format!("{head}=.{body}.{signature}"),
        format!("{head}.{body}.+{signature}"),
        "a".repeat(MAX_TOKEN_BYTES + 1),
    ];
    for text in bad {
        assert_eq!(verdict(&text), Err(Reason::Malformed), "{text}");
    }
    // A payload is looked at only once its signature fits.
    assert_eq!(verdict(&format!("{head}.{body}.")), Err(Reason::Signature));
    assert_eq!(verdict(&format!("{head}.{body}\n.{signature}")), Err(Reason::Signature));
    // The same signature bytes, written with other trailing bits.
    let (rest, last) = signature.split_at(signature.len() - 1);
    let twin = (b'A'..=b'z').map(char::from).find(|&other| {
        use base64::Engine as _;
        let lax = base64::engine::GeneralPurpose::new(
            &base64::alphabet::URL_SAFE,
            base64::engine::general_purpose::NO_PAD.with_decode_allow_trailing_bits(true),
        );
        let text = format!("{rest}{other}");
        other.to_string() != last && lax.decode(&text).ok() == lax.decode(signature).ok() && lax.decode(&text).is_ok()
    });
    assert_eq!(verdict(&format!("{head}.{body}.{rest}{}", twin.unwrap())), Err(Reason::Malformed));
    // Up to the limit a token passes.
    assert_eq!(claim(json!({ "x": "y".repeat(10_000) })), Ok(()));
    assert_eq!(claim(json!({ "x": "y".repeat(13_000) })), Err(Reason::Malformed));
}

/// Fails when a machine's `sub` passes, when an `exp` of another type is a time, and when a claim may stand there
/// twice.
#[test]
fn claims_are_required_and_typed() {
    let bad = [
        json!({ "sid": null }),
        json!({ "sid": "" }),
        json!({ "sid": 1 }),
        json!({ "sid": "a/b" }),
        json!({ "sid": ".." }),
        json!({ "sid": "s".repeat(129) }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": ["user_1"] }),
        json!({ "exp": null }),
        json!({ "exp": "1700000060" }),
        json!({ "exp": 1_700_000_060.5 }),
        json!({ "exp": 1_700_000_060.0 }),
        json!({ "exp": u64::MAX }),
        json!({ "exp": true }),
        json!({ "nbf": "1" }),
        json!({ "nbf": 1.5 }),
        json!({ "iat": "1" }),
        json!({ "iat": 1.5 }),
        json!({ "o": [] }),
        json!({ "o": {} }),
        json!({ "o": { "id": "" } }),
        json!({ "o": { "id": 1 } }),
        json!({ "o": { "id": "org_1", "rol": 1 } }),
        json!({ "o": { "id": "org_1", "fpm": [] } }),
        json!({ "o": { "id": "org_1" }, "fea": 1 }),
        json!({ "o": ["org_1", "acme", "admin", "read", "1"] }),
        json!({ "v": 1, "org_id": 1 }),
        json!({ "v": 1, "org_id": "org_1", "org_role": 1 }),
        json!({ "v": 1, "org_id": "org_1", "org_permissions": "org:a:b" }),
        json!({ "v": 1, "org_id": "org_1", "org_permissions": ["org:a:b", null] }),
    ];
    for change in bad {
        assert_eq!(claim(change.clone()), Err(Reason::Claims), "{change}");
    }
    for change in [
        json!({ "nbf": null }),
        json!({ "iat": null }),
        json!({ "azp": null }),
        // Nothing is compared with them.
        json!({ "azp": 1, "sts": 1, "v": "2" }),
        json!({ "exp": -1 }),
        json!({ "v": null, "org_id": "" }),
    ] {
        assert_eq!(claim(change.clone()), Ok(()), "{change}");
    }
    assert_eq!(claim(json!({ "sub": "mch_1" })), Err(Reason::NotASessionToken));
    let text = |payload: &str| verdict(&signer().sign_texts(&signer().header().to_string(), payload));
    let required = r#""sid":"s","sub":"u","exp":1"#;
    assert_eq!(text(&format!("{{{required}}}")), Ok(()));
    for null in ["nbf", "iat"] {
        assert_eq!(text(&format!(r#"{{{required},"{null}":null}}"#)), Err(Reason::Claims), "{null}");
    }
    for twice in [
        r#""sid":"t""#,
        r#""s\u0069d":"t""#,
        r#""x":1,"x":2"#,
        r#""x":1,"a":2,"\u0078":3"#,
        r#""azp":null,"azp":null"#,
        r#""fva":[0,{"a":1,"a":1}]"#,
        r#""aud":["a",{"a":1,"a":1}]"#,
        r#""o":{"id":"a","id":"b"}"#,
        r#""act":{"a":{"b":1,"b":1}}"#,
    ] {
        assert_eq!(text(&format!("{{{required},{twice}}}")), Err(Reason::Malformed), "{twice}");
    }
    for exp in ["1e400", "NaN", "-", "01", "1700000060n"] {
        assert_eq!(text(&format!(r#"{{"sid":"s","sub":"u","exp":{exp}}}"#)), Err(Reason::Malformed), "{exp}");
    }
    for exp in ["1e9", "9223372036854775808"] {
        assert_eq!(text(&format!(r#"{{"sid":"s","sub":"u","exp":{exp}}}"#)), Err(Reason::Claims), "{exp}");
    }
    for payload in ["", "[]", "null", "\"x\"", "{\"sid\":\"s\""] {
        assert_eq!(text(payload), Err(Reason::Malformed), "{payload}");
    }
}

#[test]
fn issuer_and_audience_are_checked_when_configured() {
    let verify = |issuer: Option<&str>, audience: &[&str], changes: Value| {
        let expected = Expected {
            issuer: issuer.map(Into::into),
            audience: audience.iter().map(|&audience| audience.into()).collect(),
        };
        let token = signer().sign(&with(claims(NOW), changes));
        Verifier { expected, ..Verifier::default() }.verify(&token, &signer().keys()).map(drop)
    };
    let issuer = Some("https://clerk.example.com");
    assert_eq!(verify(issuer, &[], json!({})), Ok(()));
    for other in [
        json!(null),
        json!(1),
        json!([issuer]),
        json!("https://clerk.example.com/"),
        json!("https://clerk.evil.example"),
    ] {
        assert_eq!(verify(issuer, &[], json!({ "iss": other })), Err(SessionError::Invalid(Reason::Issuer)));
    }
    for good in [json!("a"), json!(["x", "b"])] {
        assert_eq!(verify(None, &["a", "b"], json!({ "aud": good })), Ok(()));
    }
    for bad in [json!(null), json!("x"), json!([]), json!(["x"]), json!(1), json!({ "a": 1 }), json!(["a", 1])] {
        assert_eq!(verify(None, &["a", "b"], json!({ "aud": bad })), Err(SessionError::Invalid(Reason::Claims)));
    }
    assert_eq!(verify(None, &[], json!({ "aud": 1, "iss": 1 })), Ok(()));
}

/// The run of Clerk's SDK in contract section 3.4, where we are not stricter by design. Fails for each edge that is
/// off by one, with twice the tolerance, and when `nbf` or `iat` is not looked at.
#[test]
fn times_have_the_edges_of_clerks_sdk() {
    let exp = |ago: i64| checked(&session(json!({ "exp": NOW - ago })), 0);
    assert_eq!((exp(4), exp(5), exp(6)), (Ok(()), Err(SessionError::Expired), Err(SessionError::Expired)));
    let early = Err(SessionError::Invalid(Reason::NotYetValid));
    let nbf = |ahead: i64| checked(&session(json!({ "nbf": NOW + ahead })), 0);
    assert_eq!((nbf(4), nbf(5), nbf(6), nbf(8)), (Ok(()), Ok(()), early, early));
    let iat = |ahead: i64| checked(&session(json!({ "iat": NOW + ahead })), 0);
    assert_eq!((iat(5), iat(6), iat(8)), (Ok(()), early, early));
    assert_eq!(checked(&session(json!({ "nbf": null, "iat": null })), 0), Ok(()));
    // To the millisecond.
    let at = |millis: i64| {
        check(&session(json!({})), Wall::from_millis((NOW + 65) * 1000 + millis), &rules(&[], false), None, SKEW)
    };
    assert_eq!((at(-1), at(0)), (Ok(()), Err(SessionError::Expired)));
    for extreme in [i64::MAX, i64::MIN] {
        let _ = checked(&session(json!({ "exp": extreme, "nbf": extreme, "iat": extreme })), 0);
    }
}

/// Fails when `azp` is not looked at, and when an absent one is allowed.
#[test]
fn the_party_must_be_allowed_when_there_is_a_list() {
    let azp = |azp: Value, parties: &[&str], after: i64| {
        let session = session(json!({ "azp": azp }));
        check(&session, Wall::from_seconds(NOW + after), &rules(parties, false), None, SKEW)
    };
    let (app, list) = ("https://app.example.com", &["https://x.example", "https://app.example.com"][..]);
    let refused = Err(SessionError::Invalid(Reason::Azp));
    assert_eq!(azp(json!(app), list, 0), Ok(()));
    assert_eq!(azp(json!("https://evil.example"), list, 0), refused);
    assert_eq!(azp(json!("https://app.example.com/"), list, 0), refused);
    assert_eq!(azp(json!(null), list, 0), refused);
    assert_eq!(azp(json!(null), &[], 0), Ok(()));
    assert_eq!(azp(json!("anything"), &[], 0), Ok(()));
    // Another application's expired cookie is another's, not an expired one of ours.
    assert_eq!(azp(json!("https://evil.example"), list, 3600), refused);
}

#[test]
fn a_cookie_older_than_the_last_sign_out_is_outdated() {
    let uat = |changes: Value, uat: i64| {
        check(&session(changes), Wall::from_seconds(NOW), &rules(&[], false), Some(uat), SKEW)
    };
    let outdated = Err(SessionError::Invalid(Reason::OutdatedCookie));
    assert_eq!((uat(json!({}), NOW), uat(json!({}), NOW - 1), uat(json!({}), NOW + 1)), (Ok(()), Ok(()), outdated));
    assert_eq!(uat(json!({}), i64::MAX), outdated);
    assert_eq!(uat(json!({ "iat": null }), 1), outdated);
}

/// Fails when `check` does not look at `pending`.
#[test]
fn a_pending_session_passes_only_where_it_may() {
    let pending = session(json!({ "sts": "pending" }));
    assert_eq!(checked(&pending, 0), Err(SessionError::Pending));
    assert_eq!(check(&pending, Wall::from_seconds(NOW), &rules(&[], true), None, SKEW), Ok(()));
    assert_eq!(checked(&session(json!({ "sts": null })), 0), Ok(()));
    assert_eq!(checked(&pending, 3600), Err(SessionError::Expired));
}

fn v1(changes: Value) -> Session {
    let v1 = with(with(claims(NOW), json!({ "v": null })), changes);
    verify(&signer().sign(&v1)).unwrap()
}

#[test]
fn both_versions_of_one_organization_have_one_scope() {
    let one = v1(json!({
        "org_id": "org_1", "org_role": "org:admin", "org_slug": "acme",
        "org_permissions": ["org:teams:read", "org:billing:manage", "org:billing:read"],
    }));
    let two = session(json!({
        "fea": "o:billing,u:chat,o:teams",
        "o": { "id": "org_1", "rol": "admin", "slg": "acme", "per": "manage,read", "fpm": "3,2" },
    }));
    assert_eq!(one.org, two.org);
    assert_eq!(one.org.as_ref().unwrap().role.as_deref(), Some("org:admin"));
    assert_eq!(one.scope, two.scope);
    // Neither the order nor the session token's own age counts.
    let again = session(json!({
        "iat": NOW + 30, "jti": "k", "fea": "o:teams, uo:billing",
        "o": { "fpm": "1,3", "per": "read,manage", "slg": "acme", "rol": "admin", "id": "org_1" },
    }));
    assert_eq!(again.scope, two.scope);
}

#[test]
fn whatever_a_token_depends_on_changes_the_scope() {
    let org = |changes: Value| json!({ "fea": "o:a,o:b", "o": with(json!({ "id": "org_1", "rol": "admin", "slg": "acme", "per": "x,y", "fpm": "1,2" }), changes) });
    let variants = [
        json!({}),
        org(json!({})),
        org(json!({ "id": "org_2" })),
        org(json!({ "rol": "member" })),
        org(json!({ "rol": null })),
        org(json!({ "slg": "other" })),
        org(json!({ "slg": null })),
        org(json!({ "fpm": "1,3" })),
        org(json!({ "fpm": "1,junk" })),
        org(json!({ "fpm": "1,other" })),
        org(json!({ "fpm": "1,4" })),
        org(json!({ "fpm": null })),
        json!({ "act": { "sub": "user_2" } }),
        json!({ "act": { "sub": "user_3" } }),
        json!({ "act": { "sub": "user_3", "type": "agent" } }),
        json!({ "act": {} }),
        json!({ "act": "user_3" }),
        json!({ "act": { "": "user_3" } }),
        json!({ "v": 1, "org_id": "org_1", "org_permissions": ["a"] }),
        json!({ "v": 1, "org_id": "org_1", "org_permissions": ["a", "b"] }),
        json!({ "v": 1, "org_id": "org_1", "org_permissions": ["ab"] }),
    ];
    let scopes: Vec<_> = variants.iter().map(|changes| session(changes.clone()).scope).collect();
    for (index, scope) in scopes.iter().enumerate() {
        assert!(!scopes[..index].contains(scope), "{}", variants[index]);
    }
    let texts = [r#"{"sub":"user_3","type":"agent"}"#, r#"{ "type":"agent", "sub" : "user_3" }"#];
    let scope = |act: &str| {
        let payload = format!(r#"{{"sid":"s","sub":"u","exp":1,"act":{act}}}"#);
        verify(&signer().sign_texts(&signer().header().to_string(), &payload)).unwrap().scope
    };
    assert_eq!(scope(texts[0]), scope(texts[1]));
}

#[test]
fn each_version_reads_its_own_organization() {
    let both = json!({ "org_id": "org_v1", "org_role": "org:admin", "o": { "id": "org_v2" } });
    assert_eq!(&*session(both.clone()).org.unwrap().id, "org_v2");
    assert_eq!(&*v1(both).org.unwrap().id, "org_v1");
    // What the other version would read may be anything.
    assert!(session(json!({ "org_id": 1 })).org.is_none());
    assert!(v1(json!({ "o": "x" })).org.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_of_fixed_keys_is_refused_at_once() {
    let (verifier, jwks) = (Verifier::default(), Jwks::fixed(signer().keys()));
    let verdict = verifier.verify_or_fetch(&stranger().sign(&claims(NOW)), &jwks, SKEW).await;
    assert_eq!(verdict.unwrap_err(), SessionError::Invalid(Reason::UnknownKey));
    assert!(verifier.verify_or_fetch(&signer().sign(&claims(NOW)), &jwks, SKEW).await.is_ok());
}

/// Every vector of Wycheproof's JWS file: what it calls valid RS256 opens, and nothing else does.
#[test]
fn wycheproof_agrees() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/wycheproof/json_web_signature_test.json");
    let Ok(text) = std::fs::read(file) else { return };
    let file: Value = serde_json::from_slice(&text).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        let keys = KeySet::parse(&jwks(&[group["public"].clone()])).unwrap_or_default();
        let rs256 = group["public"]["alg"] == "RS256";
        for test in group["tests"].as_array().unwrap() {
            let jws = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
            let open = Jws::split(&jws, MAX_TOKEN_BYTES)
                .and_then(|jws| Ok((jws.judge()?, jws)))
                .ok()
                .and_then(|(header, jws)| jws.open(keys.find(header.kid())?.parsed()).ok());
            let expected = rs256 && test["result"] == "valid";
            assert_eq!(open.is_some(), expected, "{}: {}", test["tcId"], test["comment"]);
            if expected { opened += 1 } else { refused += 1 }
        }
    }
    assert!(opened >= 8 && refused >= 380, "{opened} {refused}");
}

/// What `jsonwebtoken`, set up as we are, says to the same token.
fn second_reading(token: &str, now: i64) -> bool {
    let (n, e) = signer().components();
    let key = jsonwebtoken::DecodingKey::from_rsa_components(&n, &e).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_required_spec_claims(&["exp", "sub"]);
    let Ok(token) = jsonwebtoken::decode::<Value>(token, &key, &validation) else { return false };
    let number = |name: &str| token.claims.get(name).map(|value| value.as_i64().unwrap_or(i64::MIN));
    number("exp").is_some_and(|exp| exp > now - 5)
        && ["nbf", "iat"].iter().all(|name| number(name).is_none_or(|begin| begin <= now + 5))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mutated_token_never_verifies(at in any::<prop::sample::Index>(), to in "[ -~]") {
        let token = signer().sign(&claims(NOW));
        let at = at.index(token.len());
        let mutated = format!("{}{to}{}", &token[..at], &token[at + 1..]);
        prop_assume!(mutated != token);
        prop_assert!(verify(&mutated).is_err());
    }

    #[test]
    fn a_cut_or_grown_token_never_verifies(at in any::<prop::sample::Index>(), more in "[A-Za-z0-9_.=-]{1,4}") {
        let token = signer().sign(&claims(NOW));
        let at = at.index(token.len());
        prop_assert!(verify(&token[..at]).is_err());
        let grown = [&token[..at], &more, &token[at..]].concat();
        prop_assert!(verify(&grown).is_err());
    }

    #[test]
    fn verify_never_panics(token in "([A-Za-z0-9_=-]{0,20}[.]?){0,5}|\\PC{0,40}", header in "\\PC{0,40}", payload in "\\PC{0,40}") {
        prop_assert!(verify(&token).is_err());
        let _ = header_text(&header);
        prop_assert!(verdict(&signer().sign_texts(&signer().header().to_string(), &payload)).is_err());
    }

    #[test]
    fn a_second_reading_agrees(exp in -20i64..20, nbf in proptest::option::of(-20i64..20), iat in proptest::option::of(-20i64..20), own: bool) {
        let changes = json!({ "exp": NOW + exp, "nbf": nbf.map(|nbf| NOW + nbf), "iat": iat.map(|iat| NOW + iat) });
        let header = with(signer().header(), json!({}));
        let claims = with(claims(NOW), changes);
        let signer = if own { signer() } else { stranger() };
        let token = signer.sign_texts(&header.to_string(), &claims.to_string());
        let ours = verify(&token).and_then(|session| checked(&session, 0)).is_ok();
        prop_assert_eq!(ours, second_reading(&token, NOW));
    }
}
