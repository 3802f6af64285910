//! What a route may ask of a session: `require`, `allow_impersonation`, its own part of `authorized_parties`.

use serde_json::{Value, json};

use super::{get, trusting};
use crate::support::gateway::PARTY;
use crate::support::issuer::Issuer;
use crate::support::wire::Wire;

const ROUTES: &str = r#"
[[routes]]
name = "require"
match = { path = "/require" }
upstream = "{up}"
session = ["bearer"]
require = { org_role = ["org:admin", "org:owner"], "/metadata/plan" = ["pro", "7", "true"] }
inject = [{ header = "x-user-id", claim = "sub" }]

[[routes]]
name = "optional"
match = { path = "/optional" }
upstream = "{up}"
on_no_session = "pass"
require = { org_role = ["org:admin"] }

[[routes]]
name = "own"
match = { path = "/own" }
upstream = "{up}"
session = ["bearer"]
allow_impersonation = false

[[routes]]
name = "open"
match = { path = "/open" }
upstream = "{up}"
session = ["bearer"]
"#;

fn issuer() -> Issuer {
    Issuer::minting(|_, _| Err(500))
}

fn member(role: &str, plan: &Value) -> Value {
    json!({ "o": { "id": "org_1", "rol": role }, "metadata": { "plan": plan } })
}

#[tokio::test]
async fn every_value_must_be_one_of_those_that_pass() {
    let issuer = issuer();
    let (gateway, upstream) = trusting(&issuer, ROUTES).await;
    let v1 = json!({ "v": null, "org_id": "org_1", "org_role": "org:owner", "metadata": { "plan": "pro" } });
    let good = [member("admin", &json!("pro")), member("owner", &json!(7)), member("admin", &json!(true)), v1];
    let bad = [
        json!({}),
        member("member", &json!("pro")),
        member("admin", &json!("free")),
        member("admin", &json!(null)),
        member("admin", &json!(["pro"])),
        member("admin", &json!(7.5)),
        json!({ "o": { "id": "org_1", "rol": "admin" } }),
        json!({ "metadata": { "plan": "pro" } }),
        // A claim of the user's own making has no say.
        json!({ "org_role": "org:admin", "metadata": { "plan": "pro" } }),
    ];
    let mut client = Wire::connect(gateway.address).await;
    // Twice: remembered or not.
    for _ in 0..2 {
        for claims in &good {
            let answer = client.ask(get("/require", &issuer.bearer(claims))).await;
            assert_eq!(answer.outcome(), (200, ""), "{claims}");
        }
        for claims in &bad {
            let answer = client.ask(get("/require", &issuer.bearer(claims))).await;
            assert_eq!(answer.outcome(), (403, "session-forbidden"), "{claims}");
            assert_eq!(answer.one("www-authenticate"), None);
        }
    }
    assert_eq!(upstream.count(), 2 * good.len());
}

#[tokio::test]
async fn one_session_is_judged_by_each_routes_own_rules() {
    let issuer = issuer();
    let (gateway, _upstream) = trusting(&issuer, ROUTES).await;
    let bearer = issuer.bearer(&member("member", &json!("pro")));
    let mut client = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        assert_eq!(client.ask(get("/open", &bearer)).await.outcome(), (200, ""));
        assert_eq!(client.ask(get("/require", &bearer)).await.outcome(), (403, "session-forbidden"));
    }
}

#[tokio::test]
async fn a_session_that_is_not_allowed_does_not_pass_as_none() {
    let issuer = issuer();
    let (gateway, _upstream) = trusting(&issuer, ROUTES).await;
    let mut client = Wire::connect(gateway.address).await;
    let member = issuer.bearer(&member("member", &json!("pro")));
    assert_eq!(client.ask(get("/optional", "")).await.outcome(), (200, ""));
    assert_eq!(client.ask(get("/optional", &member)).await.outcome(), (403, "session-forbidden"));
}

#[tokio::test]
async fn who_acts_as_another_user_is_kept_out_where_the_route_says_so() {
    let issuer = issuer();
    let (gateway, _upstream) = trusting(&issuer, ROUTES).await;
    let mut client = Wire::connect(gateway.address).await;
    for act in [json!({ "sub": "user_support" }), json!({}), json!("user_support"), json!(false)] {
        let bearer = issuer.bearer(&json!({ "act": act }));
        assert_eq!(client.ask(get("/own", &bearer)).await.outcome(), (403, "session-forbidden"), "{act}");
        assert_eq!(client.ask(get("/open", &bearer)).await.outcome(), (200, ""), "{act}");
    }
    assert_eq!(client.ask(get("/own", &issuer.bearer(&json!({})))).await.outcome(), (200, ""));
}

#[tokio::test]
async fn a_grpc_caller_is_told_permission_denied() {
    let issuer = issuer();
    let (gateway, _upstream) = trusting(&issuer, ROUTES).await;
    let request = get("/require", &format!("{}Content-Type: application/grpc\r\n", issuer.bearer(&json!({}))));
    // Every call of gRPC is a POST.
    let answer = Wire::connect(gateway.address).await.ask(request.replacen("GET", "POST", 1)).await;
    assert_eq!((answer.status(), answer.one("grpc-status")), (200, Some("7")));
    assert_eq!(answer.one("grpc-message"), Some("session-forbidden"));
}

#[tokio::test]
async fn a_route_narrows_the_authorized_parties() {
    let issuer = issuer();
    let upstream = crate::support::upstream::Upstream::answering(crate::support::upstream::OK).await;
    let tables = r#"
[[routes]]
name = "narrow"
match = { path = "/narrow" }
upstream = "{up}"
session = ["bearer"]
authorized_parties = ["https://app.example.com"]

[[routes]]
name = "wide"
match = { path = "/wide" }
upstream = "{up}"
session = ["bearer"]
"#;
    let tables = tables.replace("{up}", &upstream.url());
    let boot = crate::support::gateway::Boot::new(tables).trusting(&issuer).parties(&[PARTY, "https://b.example.com"]);
    let gateway = boot.start().await;
    let mut client = Wire::connect(gateway.address).await;
    let other = issuer.bearer(&json!({ "azp": "https://b.example.com" }));
    assert_eq!(client.ask(get("/wide", &other)).await.outcome(), (200, ""));
    let refused = client.ask(get("/narrow", &other)).await;
    assert_eq!(refused.outcome(), (401, "session-invalid"));
    assert!(refused.text().contains("\"reason\":\"azp\""), "{}", refused.text());
    assert_eq!(client.ask(get("/narrow", &issuer.bearer(&json!({})))).await.outcome(), (200, ""));
}
