//! `retry_rejected` beside the other rules of a route, and beside other requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mintgate::lifecycle::Spawner;
use serde_json::json;

use super::{get, in_front_of};
use crate::support::gateway::{Boot, Gateway};
use crate::support::issuer::Issuer;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

/// The token goes into a header of its own.
const RETRYING: &str = r#"
[upstreams.up]
url = "{up}"
pool = { idle_timeout = "60s" }

[[routes]]
name = "all"
upstream = "up"
retry_rejected = { statuses = [401] }
{rules}
inject = [{ header = "x-token", template = "custom_hasura" }]
"#;

const REFUSAL: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 3\r\n\r\nbad";

/// Refuses everything but the first request.
async fn refusing() -> Upstream {
    Upstream::scripted(|mut visit| async move {
        while let Some(request) = visit.request().await {
            visit.wire.send(if request.start.starts_with("GET /first ") { OK } else { REFUSAL }).await;
        }
    })
    .await
}

/// A minted token grows old enough to be at fault.
async fn grow_old() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
}

fn tokens(upstream: &Upstream) -> Vec<Option<String>> {
    upstream.requests().iter().map(|request| request.one("x-token").map(str::to_owned)).collect()
}

#[tokio::test]
async fn an_application_of_clerk_gets_the_credential_again_with_the_new_token() {
    let upstream = Upstream::scripted(|mut visit| async move {
        let mut old = None;
        while let Some(request) = visit.request().await {
            let token = request.one("x-token").map(str::to_owned);
            let first = request.start.starts_with("GET /first ");
            let refused = !first && (token.is_none() || token == old);
            if first {
                old = token;
            }
            visit.wire.send(if refused { REFUSAL } else { OK }).await;
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, &RETRYING.replace("{rules}", "clerk_app = true")).await;
    let (bearer, mut client) = (gateway.bearer("alice"), Wire::connect(gateway.address).await);
    assert_eq!(client.ask(get("/first", &bearer)).await.outcome(), (200, ""));
    grow_old().await;
    let cookie = format!("Cookie: a=1; __session={}; __client_uat=1\r\n", gateway.session_token("alice"));
    for (credential, name) in [(&bearer, "authorization"), (&cookie, "cookie")] {
        assert_eq!(client.ask(get("/x", credential)).await.outcome(), (200, ""), "{name}");
        assert_eq!(upstream.last().one(name), credential.trim_end().split_once(": ").map(|(_, value)| value));
    }
    let requests = upstream.requests();
    assert_eq!(requests[1].one("authorization"), requests[2].one("authorization"));
    let sent = tokens(&upstream);
    assert_eq!((sent.len(), gateway.mints()), (4, 2));
    assert!(sent[0] == sent[1] && sent[1] != sent[2] && sent[2] == sent[3]);
    // A bad session counts as none there: nothing was minted for it, so nothing is minted anew.
    assert_eq!(client.ask(get("/x", "Authorization: Bearer bad\r\n")).await.outcome(), (401, ""));
    assert_eq!((tokens(&upstream).len(), tokens(&upstream)[4].as_deref(), gateway.mints()), (5, None, 2));
}

async fn under(issuer: &Issuer, rule: &str) -> (Gateway, Upstream) {
    let upstream = refusing().await;
    let tables = RETRYING.replace("{rules}", &format!("on_mint_error = \"{rule}\"")).replace("{up}", &upstream.url());
    (Boot::new(tables).trusting(issuer).start().await, upstream)
}

#[tokio::test]
async fn a_request_that_went_without_its_token_is_not_retried() {
    for rule in ["session", "pass"] {
        let issuer = Issuer::minting(|_, _| Err(400));
        let (gateway, upstream) = under(&issuer, rule).await;
        let session = issuer.session(&json!({}));
        let mut client = Wire::connect(gateway.address).await;
        let answer = client.ask(get("/x", &format!("Authorization: Bearer {session}\r\n"))).await;
        assert_eq!((answer.outcome(), answer.text()), ((401, ""), "bad"), "{rule}");
        assert_eq!(tokens(&upstream), [(rule == "session").then_some(session)], "{rule}");
        assert_eq!(issuer.asked().len(), 1, "{rule}");
    }
}

#[tokio::test]
async fn what_replaces_a_refused_token_is_a_minted_one_or_nothing() {
    for rule in ["session", "pass"] {
        let issuer = Issuer::minting(|number, _| if number == 0 { Ok(json!({ "number": 0 })) } else { Err(400) });
        let (gateway, upstream) = under(&issuer, rule).await;
        let (bearer, mut client) = (issuer.bearer(&json!({})), Wire::connect(gateway.address).await);
        assert_eq!(client.ask(get("/first", &bearer)).await.outcome(), (200, ""));
        grow_old().await;
        assert_eq!(client.ask(get("/x", &bearer)).await.outcome(), (401, ""), "{rule}");
        let asked = issuer.asked();
        assert_eq!((asked.len(), asked[1].cache_control.as_deref()), (2, Some("no-cache")), "{rule}");
        let sent = tokens(&upstream);
        assert!(sent.len() == 2 && sent[0] == sent[1] && sent[0].is_some(), "{rule}: not sent again without a token");
    }
}

#[tokio::test]
async fn a_refused_token_that_is_no_longer_the_one_in_memory_is_replaced_without_a_mint() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let first = Arc::<Mutex<Option<String>>>::default();
    let upstream = Upstream::scripted(move |mut visit| {
        let (mut gone, first) = (gone.clone(), Arc::clone(&first));
        async move {
            while let Some(request) = visit.request().await {
                let token = request.one("x-token").unwrap().to_owned();
                let refused = *first.lock().unwrap().get_or_insert_with(|| token.clone()) == token
                    && !request.start.starts_with("GET /first ");
                // The late one is refused when the other has been served with another token.
                if refused && request.start.starts_with("GET /late ") {
                    gone.wait_for(|gone| *gone).await.unwrap();
                }
                visit.wire.send(if refused { REFUSAL } else { OK }).await;
            }
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, &RETRYING.replace("{rules}", "")).await;
    let (bearer, mut early) = (gateway.bearer("alice"), Wire::connect(gateway.address).await);
    assert_eq!(early.ask(get("/first", &bearer)).await.outcome(), (200, ""));
    grow_old().await;
    let (address, held) = (gateway.address, bearer.clone());
    let hold = Spawner::current().spawn(async move {
        let mut late = Wire::connect(address).await;
        late.ask(get("/late", &held)).await.status()
    });
    upstream.received(2).await;
    // Both carry the old token by now.
    assert_eq!(early.ask(get("/early", &bearer)).await.outcome(), (200, ""));
    assert_eq!(gateway.mints(), 2);
    go.send(true).unwrap();
    assert_eq!(hold.await.unwrap(), 200);
    assert_eq!(gateway.mints(), 2, "the new one was there already");
    let of = |path: &str| -> Vec<String> {
        let all = upstream.requests();
        let those = all.iter().filter(|request| request.start.contains(path));
        those.map(|request| request.one("x-token").unwrap().to_owned()).collect()
    };
    let (late, early) = (of("/late"), of("/early"));
    assert_eq!((late.len(), early.len()), (2, 2));
    assert!(late[0] == early[0] && late[1] == early[1] && late[0] != late[1]);
}
