//! Cases 33 and 35: nothing can be read, and nothing is taken for what it is not.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::config::MintKind;
use crate::config::{MintSpec, TemplateName};
use crate::metrics::TemplateId;
use crate::secret::Digest;
use crate::token::Issuer;
use crate::token::fake::key;

fn cache_key(byte: u8) -> CacheKey {
    use base64::Engine as _;
    CacheKey::parse(&base64::engine::general_purpose::STANDARD.encode([byte; 32])).unwrap()
}

fn seal(byte: u8) -> Seal {
    Seal::new(&cache_key(byte), "mintgate:")
}

fn value() -> Value {
    Value {
        epochs: [[1; 16], [2; 16], [3; 16]],
        expires_at: Wall::from_seconds(1_800_000_060),
        life: Duration::from_mins(1),
        jwt: "a.b.c".to_owned(),
    }
}

#[test]
fn a_value_is_what_it_was_in_its_own_place() {
    let (seal, names) = (seal(1), seal(1).names(&key(1)));
    let sealed = seal.seal(&names, &value()).unwrap();
    assert_eq!(seal.open(&names, &sealed), Ok(value()));
    assert_ne!(sealed, seal.seal(&names, &value()).unwrap(), "a nonce is used once");
}

/// Fails without the associated data together with a key for each place, and without the authentication of either.
#[test]
fn a_swapped_cut_changed_or_foreign_value_does_not_open() {
    let (seal_1, names) = (seal(1), seal(1).names(&key(1)));
    let sealed = seal_1.seal(&names, &value()).unwrap();
    assert_eq!(seal_1.open(&seal_1.names(&key(2)), &sealed), Err(Unreadable), "of another session");
    assert_eq!(seal(2).open(&names, &sealed), Err(Unreadable), "of another fleet");
    let other = Names { value: names.value.replace(":1:", ":2:"), ..names.clone() };
    assert_eq!(seal_1.open(&other, &sealed), Err(Unreadable), "of another version");
    for length in 0..sealed.len() {
        assert_eq!(seal_1.open(&names, &sealed[..length]), Err(Unreadable), "{length}");
    }
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(seal_1.open(&names, &changed), Err(Unreadable), "{at}");
    }
    assert_eq!(seal_1.open(&names, &[0; 200]), Err(Unreadable));
}

#[test]
fn a_value_that_nobody_would_read_is_not_sealed() {
    let jwt = "a".repeat(LONGEST_VALUE);
    let (seal, names) = (seal(1), seal(1).names(&key(1)));
    assert_eq!(seal.seal(&names, &Value { jwt, ..value() }), Err(Unsealable));
}

#[test]
fn names_tell_nobody_whose_they_are_and_keep_a_session_together() {
    let (one, names) = (seal(1), seal(1).names(&key(7)));
    let tag = |name: &str| name.split_once('{').unwrap().1.split_once('}').unwrap().0.to_owned();
    let all = [&names.value, &names.lease, &names.epochs[0], &names.epochs[1], &names.epochs[2]];
    for name in all {
        assert!(name.starts_with("mintgate:1:{") && tag(name).len() == 64, "{name}");
        assert!(!name.contains("sess_7") && !name.contains("user_7") && !name.contains("api.test"), "{name}");
    }
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 5);
    assert_eq!((tag(&names.value), tag(&names.value)), (tag(&names.lease), tag(&names.epochs[0])));
    assert_ne!(seal(2).names(&key(7)).value, names.value, "without the key nobody can guess a name");
    assert_eq!(one.session(&key(7).parts().sid), names.epochs[0]);
    assert_eq!((one.user(key(7).parts().sub.as_ref()), one.all()), (names.epochs[1].clone(), names.epochs[2].clone()));
    assert!(!format!("{one:?} {:?}", value()).contains("a.b.c"));
}

/// The parts of a key, as few as tell one from the other.
type Parts = (u8, &'static str, Option<&'static str>, Option<&'static str>, Option<u32>, u8);

fn made((issuer, sid, sub, template, expires_in, scope): Parts) -> TokenKey {
    let kind = template.map_or(MintKind::Session, |name| MintKind::Template(TemplateName::new(name).unwrap()));
    let spec = MintSpec { id: TemplateId::new(0), kind, expires_in, expect: Vec::new(), vary: Vec::new() };
    let scope = if scope == 0 { Scope::Neutral } else { Scope::Claims(Digest::of(&[scope])) };
    let issuer = Issuer::new("https://api.test", if issuer == 0 { "a" } else { "b" });
    let sub = sub.map(|sub| UserId::new(sub).unwrap());
    TokenKey::new(issuer, SessionId::new(sid).unwrap(), sub, &spec, scope, Vec::new())
}

/// Fails for each part of the key that is left out of the digest, or whose end nothing tells.
#[test]
fn two_different_keys_never_share_a_name() {
    let seal = seal(1);
    let keys: [Parts; 13] = [
        (0, "ab", Some("a"), Some("t"), Some(30), 1),
        (1, "ab", Some("a"), Some("t"), Some(30), 1),
        (0, "a", Some("a"), Some("t"), Some(30), 1),
        (0, "a", Some("ba"), Some("t"), Some(30), 1),
        (0, "ab", Some("b"), Some("t"), Some(30), 1),
        (0, "ab", None, Some("t"), Some(30), 1),
        (0, "ab", Some("a"), Some("u"), Some(30), 1),
        (0, "ab", Some("at"), Some("t"), Some(30), 1),
        (0, "ab", Some("a"), None, Some(30), 1),
        (0, "ab", Some("a"), Some("t"), Some(31), 1),
        (0, "ab", Some("a"), Some("t"), None, 1),
        (0, "ab", Some("a"), Some("t"), Some(30), 2),
        (0, "ab", Some("a"), Some("t"), Some(30), 0),
    ];
    let names: HashSet<_> = keys.iter().map(|parts| seal.names(&made(*parts)).value).collect();
    assert_eq!(names.len(), keys.len());
    // Nor does a name change by itself.
    assert!(keys.iter().all(|parts| names.contains(&seal.names(&made(*parts)).value)));
    // What stands in the name beside the digest does not tell them apart in its place.
    let digests: HashSet<_> = names.iter().map(|name| name.rsplit(':').next().unwrap()).collect();
    assert_eq!(digests.len(), keys.len());
}

proptest! {
    #[test]
    fn anything_that_is_planted_is_a_miss(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(seal(1).open(&seal(1).names(&key(1)), &bytes), Err(Unreadable));
    }
}
