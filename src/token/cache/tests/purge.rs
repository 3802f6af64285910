//! What a purge ends, and what never crosses from one session to another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_token_never_crosses_sessions() {
    let bench = Bench::new();
    let fake = bench.healthy(60);
    let mut tasks: Vec<_> = (0..900).map(|index| (index % 300, bench.spawn(index % 300, &fake))).collect();
    for (number, task) in tasks.drain(..) {
        let token = task.await.unwrap().1.unwrap();
        assert_eq!(text(&token).split('.').next().unwrap(), format!("sess_{number}"));
    }
    assert_eq!(fake.calls(), 300);
    for number in 0..300 {
        let token = bench.serve(number, &fake).unwrap();
        assert_eq!(text(&token).split('.').next().unwrap(), format!("sess_{number}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_cannot_be_outrun() {
    for (scope, hit) in [
        (PurgeScope::Session(key(0).parts().sid.clone()), true),
        (PurgeScope::User(key(0).parts().sub.clone().unwrap()), true),
        (PurgeScope::All, true),
        (PurgeScope::Session(key(1).parts().sid.clone()), false),
        (PurgeScope::User(key(1).parts().sub.clone().unwrap()), false),
    ] {
        // A token that is there.
        let bench = Bench::new();
        let fake = bench.healthy(60);
        let _ = bench.get(0, &fake).await;
        bench.cache.purge(&scope, false);
        assert_eq!(bench.serve(0, &fake).is_none(), hit, "{scope:?}");

        // A mint that is under way: given to those who wait, and not kept.
        let bench = Bench::new();
        let fake = bench.healthy(60);
        let before = bench.spawn(0, &fake);
        sleep(LATENCY / 2).await;
        bench.cache.purge(&scope, false);
        let after = bench.spawn(0, &fake);
        assert_eq!(text(&before.await.unwrap().1.unwrap()), "sess_0.0");
        if hit {
            assert!(bench.serve(0, &fake).is_none(), "{scope:?}");
        }
        assert_eq!(text(&after.await.unwrap().1.unwrap()), if hit { "sess_0.1" } else { "sess_0.0" });
        let purged = bench.metrics.control().mints(TemplateId::new(0), MintResult::Purged).get();
        assert_eq!(purged, u64::from(hit));

        // The session was revoked: given to nobody, and those who wait hear it at once.
        let bench = Bench::new();
        let fake = bench.healthy(60);
        let before = bench.spawn(0, &fake);
        sleep(LATENCY / 2).await;
        let purged_at = Instant::now();
        bench.cache.purge(&scope, true);
        let result = before.await.unwrap().1;
        assert_eq!(matches!(result, Err(MintError::Revoked)), hit, "{scope:?}");
        assert_eq!(purged_at.elapsed().is_zero(), hit);
        bench.tasks.idle().await;
        assert_eq!(bench.serve(0, &fake).is_none(), hit);
    }
}

/// The race that the counter of revocations is for: the mint has landed, who waited has not looked yet.
#[tokio::test(start_paused = true)]
async fn a_revocation_reaches_a_waiter_whose_mint_has_just_landed() {
    let bench = Bench::new();
    let ended = Arc::new(AtomicBool::new(false));
    let fake = {
        let (ended, clock) = (Arc::clone(&ended), bench.clock.clone());
        Fake::new(move |_, _| {
            let (ended, now) = (Arc::clone(&ended), clock.now());
            async move {
                if ended.load(Ordering::SeqCst) {
                    return Err(MintError::SessionEnded);
                }
                Ok(Token::new("t", now.mono).unwrap().dated(now.wall.shifted(60_000), None, now.wall, 0))
            }
        })
    };
    let mut waiter = Box::pin(bench.cache.get(request(&key(0)), &fake));
    assert!(futures_poll(&mut waiter).await.is_none(), "it waits");
    bench.tasks.idle().await;
    assert_eq!(bench.cache.under_way(), 0, "the mint has landed");
    ended.store(true, Ordering::SeqCst);
    bench.cache.purge(&PurgeScope::Session(key(0).parts().sid.clone()), true);
    assert!(matches!(error(waiter.await), MintError::SessionEnded));
}

async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_purge_forgets_what_was_missing() {
    let bench = Bench::new();
    let fake = Fake::failing(MintError::TemplateUnknown);
    let _ = bench.get(0, &fake).await;
    bench.cache.purge(&PurgeScope::All, false);
    let _ = bench.get(0, &fake).await;
    assert_eq!(fake.calls(), 2);
}

/// A key that names no user: its token does. Fails where a user's purge takes every such token, and where one that tells
/// nobody is left.
#[tokio::test(start_paused = true)]
async fn a_users_purge_takes_what_says_that_it_is_his_or_nobodys() {
    let bench = Bench::new();
    let of = |number: usize| {
        let sid = key(number).parts().sid.clone();
        TokenKey::new(Issuer::new("https://api.test", "i"), sid, None, &spec("t", None), Scope::Neutral, Vec::new())
    };
    let clock = bench.clock.clone();
    let fake = Fake::new(move |call, _| {
        let claims = ["{\"sub\":\"user_0\"}", "{\"sub\":\"user_1\"}", "{}"][call];
        let (jwt, now) = (format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)), clock.now());
        let token = Token::new(&jwt, now.mono).unwrap().dated(now.wall.shifted(60_000), None, now.wall, 0);
        async move { Ok(token) }
    });
    for number in 0..3 {
        let (_, token) = bench.cache.get(request(&of(number)), &fake).await;
        token.unwrap();
    }
    assert_eq!(bench.cache.purge(&PurgeScope::User(UserId::new("user_0").unwrap()), false), 2);
    let left = (0..3).filter(|number| bench.cache.get_fresh(&of(*number), bench.clock.now()).is_some());
    assert_eq!(left.collect::<Vec<_>>(), [1]);
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Parts {
    issuer: String,
    sid: String,
    sub: String,
    template: String,
    expires_in: Option<u32>,
    scope: Option<String>,
}

impl Parts {
    fn key(&self) -> TokenKey {
        let kind = MintKind::Template(TemplateName::new(&self.template).unwrap());
        let spec = MintSpec { kind, expires_in: self.expires_in, ..spec("t", None) };
        let scope = self.scope.as_ref().map_or(Scope::Neutral, |text| Scope::Claims(Digest::of(text.as_bytes())));
        let (sid, sub) = (SessionId::new(&self.sid).unwrap(), UserId::new(&self.sub).unwrap());
        TokenKey::new(Issuer::new(&self.issuer, ""), sid, Some(sub), &spec, scope, Vec::new())
    }
}

/// Few characters, so that parts run into each other as often as they can.
fn parts() -> impl Strategy<Value = Parts> {
    let expires_in = proptest::option::of(prop_oneof![Just(0), Just(30), Just(60)]);
    ("[ab_]{0,2}", "[ab_]{1,2}", "[ab_]{1,2}", "[ab_]{1,2}", expires_in, proptest::option::of("[ab]{0,1}")).prop_map(
        |(issuer, sid, sub, template, expires_in, scope)| Parts { issuer, sid, sub, template, expires_in, scope },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Case 33. Fails when a part of the key, `expires_in` say, is left out of it.
    #[test]
    fn two_different_keys_never_share_an_entry_or_a_flight(all in proptest::collection::vec(parts(), 2..20)) {
        let distinct: HashSet<_> = all.iter().cloned().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            // Answers with the number of the call, and remembers for which key that was.
            let asked = Arc::new(Mutex::new(Vec::new()));
            let (clock, seen) = (bench.clock.clone(), Arc::clone(&asked));
            let fake = Fake::new(move |call, request: MintRequest| {
                seen.lock().unwrap().push(request.key);
                let now = clock.now();
                let token = Token::new(&call.to_string(), now.mono).unwrap();
                let token = token.dated(now.wall.shifted(60_000), None, now.wall, 0);
                async move {
                    sleep(LATENCY).await;
                    Ok(token)
                }
            });
            let tasks: Vec<_> = all.iter().map(|parts| {
                let (cache, fake, request) = (Arc::clone(&bench.cache), Arc::clone(&fake), request(&parts.key()));
                bench.tasks.spawn(async move { cache.get(request, &fake).await.1.unwrap() })
            }).collect();
            for (parts, task) in all.iter().zip(tasks) {
                let joined = task.await.unwrap();
                let (kept, _) = bench.cache.get_fresh(&parts.key(), bench.clock.now()).expect("it was kept");
                for token in [joined, kept] {
                    let call: usize = text(&token).parse().unwrap();
                    assert!(asked.lock().unwrap()[call] == parts.key());
                }
            }
            assert_eq!(fake.calls(), distinct.len());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_does_not_print() {
    let bench = Bench::new();
    let fake = Fake::new(|_, _| async { Ok(Token::new("canary", Instant::now()).unwrap()) });
    let seen = AtomicUsize::new(0);
    let (lookup, token) = bench.get(0, &fake).await;
    for text in [format!("{:?}", bench.cache), format!("{lookup:?} {token:?}"), format!("{:?}", request(&key(0)))] {
        assert!(!text.contains("canary") && !text.contains("sess_0"), "{text}");
        seen.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(seen.into_inner(), 3);
}
