//! The listeners of the other ways in: they are there with their certificates, and nothing of the data path is on them.

use std::time::Duration;

use http::Method;

use crate::harness::{Binary, PATIENCE, call, client, until};
use crate::reload::{reloaded, rewrite};
use crate::support::directory::Directory;
use crate::support::tls::Authority;

const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const VARS: [(&str, &str); 2] = [("CLERK_SECRET_KEY", "sk_test_1"), ("SIGNING", SIGNING)];

const FRAME: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                     [clerk]\nsecret_key = { env = \"CLERK_SECRET_KEY\" }\napi_url = \"http://127.0.0.1:1\"\n";

/// No route is there, and nobody waits for keys that nobody needs.
#[tokio::test]
async fn a_gateway_without_routes_serves_its_other_ways() {
    let text = format!(
        "{FRAME}[token_api]\nlisten = \"127.0.0.1:0\"\n[webhooks]\nlisten = \"127.0.0.1:0\"\nsigning_secret = {{ env = \"SIGNING\" }}\n"
    );
    let binary = Binary::start("ways-alone", &text, &VARS).await;
    let client = client(false);
    for (address, path, expected) in [
        (binary.said("token API listening").unwrap(), "/nothing", 401),
        (binary.said("webhooks listening").unwrap(), "/nothing", 404),
        (binary.address, "/", 404),
    ] {
        let answer = call(&client, Method::GET, &format!("http://{address}{path}"), &[], "").await;
        assert_eq!(answer.status, expected, "{answer:?}");
    }
}

/// Fails where the certificate of one way is not watched, and where a changed configuration's is not used.
#[tokio::test]
async fn each_way_has_its_certificate_and_renews_it() {
    let files = Directory::new();
    let [old, new, last] = std::array::from_fn(|_| Authority::new());
    let text = |name: &str| {
        let (cert, key) = (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key")));
        let tls = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
        format!(
            "{FRAME}[token_api]\nlisten = \"127.0.0.1:0\"\n{tls}\n\
             [webhooks]\nlisten = \"127.0.0.1:0\"\n{tls}\nsigning_secret = {{ env = \"SIGNING\" }}\n"
        )
    };
    old.put(&files, "first");
    let binary = Binary::start("ways-tls", &text("first"), &VARS).await;
    let addresses = ["token API listening", "webhooks listening"].map(|what| binary.said(what).unwrap());
    let shown = async |authority: &Authority| {
        for address in addresses {
            let waited = tokio::time::timeout(PATIENCE, async {
                while authority.client(&["http/1.1"], None).connect(address, "localhost").await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            assert!(waited.await.is_ok(), "never shown\n{}", binary.log());
        }
    };
    shown(&old).await;
    new.put(&files, "first");
    shown(&new).await;
    last.put(&files, "second");
    rewrite("ways-tls", &text("second"));
    shown(&last).await;
    reloaded(&binary, 1).await;
    rewrite(
        "ways-tls",
        &text("second").replace("[webhooks]\nlisten = \"127.0.0.1:0\"", "[webhooks]\nlisten = \"127.0.0.1:1\""),
    );
    until("it is told", || binary.log().contains("\"keys\":\"webhooks.listen\"")).await;
}
