//! `expect` and `vary`: nobody gets a token that contradicts his session, or that another one's claims made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::config::{Claim, Expectation};
use crate::session::{KeyId, Org, Session};
use crate::token::expect::holds;

/// A session in this organization, with this metadata.
fn session(org: Option<&str>, metadata: &Value) -> Session {
    Session {
        sid: SessionId::new("sess_1").unwrap(),
        sub: UserId::new("user_1").unwrap(),
        expires_at: Wall::from_seconds(1_800_000_060),
        not_before: None,
        issued_at: None,
        azp: None,
        pending: false,
        impersonated: false,
        org: org.map(|id| Org { id: id.into(), role: None, slug: None }),
        // The same for all: what these tests tell apart is told apart by the named values alone.
        scope: Digest::of(b""),
        claims: RawValue::from_string(json!({ "metadata": metadata }).to_string()).ok(),
        key: KeyId::new("k"),
    }
}

fn expecting(claim: Claim) -> MintSpec {
    MintSpec { expect: vec![Expectation { pointer: "/org".to_owned(), claim }], ..spec("t", None) }
}

fn key_of(session: &Session, spec: &MintSpec) -> TokenKey {
    TokenKey::of(Issuer::new("https://api.test", "i"), session, spec)
}

/// Which mints were forced, and when each was asked for.
type Asked = Arc<Mutex<Vec<(bool, Instant)>>>;

/// Answers with the organizations in their order, and then with the last one.
fn issuer(bench: &Bench, orgs: &[&str]) -> (Arc<Fake>, Asked) {
    let seen = Asked::default();
    let (clock, orgs, asked) =
        (bench.clock.clone(), orgs.iter().map(|org| (*org).to_owned()).collect::<Vec<_>>(), Arc::clone(&seen));
    let fake = Fake::new(move |call, request: MintRequest| {
        asked.lock().unwrap().push((request.forced, Instant::now()));
        let (now, org) = (clock.now(), orgs[call.min(orgs.len() - 1)].clone());
        let jwt = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({ "org": org, "jti": call }).to_string()));
        async move {
            sleep(LATENCY).await;
            Ok(Token::new(&jwt, now.mono).unwrap().dated(now.wall.shifted(60_000), None, now.wall, 0))
        }
    });
    (fake, seen)
}

#[tokio::test(start_paused = true)]
async fn a_token_that_contradicts_the_session_is_minted_once_more_after_a_second() {
    let bench = Bench::new();
    let (fake, seen) = issuer(&bench, &["org_old", "org_new"]);
    let key = key_of(&session(Some("org_new"), &json!({})), &expecting(Claim::OrgId));
    let (lookup, token) = bench.cache.get(request(&key), &fake).await;
    assert_eq!((lookup, holds(text(&token.unwrap()), &key.parts().expected)), (Lookup::Mint, true));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.iter().map(|(forced, _)| *forced).collect::<Vec<_>>(), [false, true]);
    assert_eq!(seen[1].1 - seen[0].1, LATENCY + Duration::from_secs(1));
    // What fits is kept.
    assert_eq!((bench.cache.get(request(&key), &fake).await.0, fake.calls()), (Lookup::Hit, 2));
    let mints = |result| bench.metrics.control().mints(TemplateId::new(0), result).get();
    assert_eq!((mints(MintResult::Stale), mints(MintResult::Ok)), (1, 1));
    assert!(!bench.cache.flights.force(&key, Instant::now()), "it was the key's forced mint");
}

#[tokio::test(start_paused = true)]
async fn a_stale_token_is_given_to_nobody_and_not_kept() {
    let bench = Bench::new();
    let (fake, _) = issuer(&bench, &["org_old"]);
    let key = key_of(&session(Some("org_new"), &json!({})), &expecting(Claim::OrgId));
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let (cache, fake, request) = (Arc::clone(&bench.cache), Arc::clone(&fake), request(&key));
            bench.tasks.spawn(async move { cache.get(request, &fake).await })
        })
        .collect();
    for task in waiting {
        assert!(matches!(task.await.unwrap().1, Err(MintError::Stale)));
    }
    assert_eq!((fake.calls(), bench.cache.entries.size().0), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_beyond_his_deadline_for_the_second_mint() {
    let bench = Bench::new();
    let (fake, _) = issuer(&bench, &["org_old", "org_new"]);
    let key = key_of(&session(Some("org_new"), &json!({})), &expecting(Claim::OrgId));
    let soon = MintRequest { deadline: Instant::now() + Duration::from_millis(900), ..request(&key) };
    assert!(matches!(bench.cache.get(soon, &fake).await.1, Err(MintError::Stale)));
    assert_eq!(fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stale_refresh_leaves_the_live_token() {
    let bench = Bench::new();
    let (fake, seen) = issuer(&bench, &["org_1", "org_2"]);
    let key = key_of(&session(Some("org_1"), &json!({})), &expecting(Claim::OrgId));
    let first = bench.cache.get(request(&key), &fake).await.1.unwrap();
    advance(Duration::from_secs(48)).await;
    bench.cache.refresh(request(&key), &fake);
    advance(Duration::from_secs(2)).await;
    while bench.tasks.alive() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let (served, _) = bench.cache.get_fresh(&key, bench.clock.now()).expect("it lives");
    assert_eq!((text(&served), seen.lock().unwrap().len()), (text(&first), 3));
}

#[tokio::test(start_paused = true)]
async fn routes_that_expect_differently_share_no_token() {
    let bench = Bench::new();
    let (fake, _) = issuer(&bench, &["org_old", "org_old", "org_new"]);
    let session = session(Some("org_new"), &json!({}));
    // One route expects nothing and gets what comes.
    assert!(bench.cache.get(request(&key_of(&session, &spec("t", None))), &fake).await.1.is_ok());
    // That it is in memory is of no use to the other one.
    let key = key_of(&session, &expecting(Claim::OrgId));
    assert!(bench.cache.get_fresh(&key, bench.clock.now()).is_none());
    let token = bench.cache.get(request(&key), &fake).await.1.unwrap();
    assert!(holds(text(&token), &key.parts().expected));
}

/// Values that differ in JSON, and that a careless key would take for each other.
fn value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        prop_oneof![Just(json!("")), Just(json!("null")), Just(json!("1")), Just(json!(1)), Just(json!(1.0))]
            .prop_map(Some),
        prop_oneof![Just(json!(true)), Just(json!("true")), Just(json!([])), Just(json!({})), Just(json!(["a", "b"]))]
            .prop_map(Some),
        "[ab\",+-]{0,3}".prop_map(|text| Some(json!(text))),
    ]
}

proptest! {
    #[test]
    fn two_sessions_that_differ_in_a_varied_claim_never_share_an_entry_or_a_flight(
        a in (value(), value()), b in (value(), value()), by_expect in any::<bool>(),
    ) {
        let session = |(role, plan): &(Option<Value>, Option<Value>)| {
            let mut metadata = serde_json::Map::new();
            metadata.extend(role.clone().map(|value| ("role".to_owned(), value)));
            metadata.extend(plan.clone().map(|value| ("plan".to_owned(), value)));
            session(None, &metadata.into())
        };
        let claims = ["/metadata/role", "/metadata/plan"].map(|pointer| Claim::Pointer(pointer.to_owned()));
        let spec = if by_expect {
            let expect = |claim| Expectation { pointer: "/x".to_owned(), claim };
            MintSpec { expect: claims.map(expect).into(), ..spec("t", None) }
        } else {
            MintSpec { vary: claims.into(), ..spec("t", None) }
        };
        let (one, other) = (key_of(&session(&a), &spec), key_of(&session(&b), &spec));
        prop_assert_eq!(one == other, a == b, "{:?} {:?}", a, b);
        // The table of flights and the entries are both keyed by it alone.
        let (flights, now) = (Flights::default(), Instant::now());
        prop_assert!(matches!(flights.next(&one, now, || None), Next::Begin(_)));
        prop_assert_eq!(matches!(flights.next(&other, now, || None), Next::Join(_)), a == b);
    }
}

#[test]
fn the_same_value_under_another_name_is_another_key() {
    let session = session(None, &json!({ "a": "x", "b": "x" }));
    let varied = |pointer: &str| MintSpec { vary: vec![Claim::Pointer(pointer.to_owned())], ..spec("t", None) };
    assert_ne!(key_of(&session, &varied("/metadata/a")), key_of(&session, &varied("/metadata/b")));
    assert_ne!(key_of(&session, &varied("/metadata/a")), key_of(&session, &spec("t", None)));
}
