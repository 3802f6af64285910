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

fn parts() -> impl Strategy<Value = TokenKey> {
    let id = "[ab]{1,3}";
    (
        0_u8..2,
        id,
        proptest::option::of(id),
        proptest::option::of("[ab]{1,2}"),
        proptest::option::of(30_u32..32),
        0_u8..3,
    )
        .prop_map(|(issuer, sid, sub, template, expires_in, scope)| {
            let kind = template.map_or(MintKind::Session, |name| MintKind::Template(TemplateName::new(&name).unwrap()));
            let spec = MintSpec { id: TemplateId::new(0), kind, expires_in, expect: Vec::new(), vary: Vec::new() };
            let scope = if scope == 0 { Scope::Neutral } else { Scope::Claims(Digest::of(&[scope])) };
            let issuer = Issuer::new("https://api.test", if issuer == 0 { "a" } else { "b" });
            let sub = sub.map(|sub| UserId::new(&sub).unwrap());
            TokenKey::new(issuer, SessionId::new(&sid).unwrap(), sub, &spec, scope, Vec::new())
        })
}

proptest! {
    /// Fails for each part of the key that is left out of the digest.
    #[test]
    fn two_different_keys_never_share_a_name(one in parts(), other in parts()) {
        let seal = seal(1);
        prop_assert_eq!(one == other, seal.names(&one).value == seal.names(&other).value);
    }

    #[test]
    fn anything_that_is_planted_is_a_miss(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(seal(1).open(&seal(1).names(&key(1)), &bytes), Err(Unreadable));
    }
}
