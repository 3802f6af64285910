//! `allow_odd_paths`: what passes as it is, and what does not get in by another spelling.

use super::{behind, get};
use crate::support::wire::Wire;

const FILES: &str = r#"
[[routes]]
name = "files"
match = { path = "/files" }
upstream = "{up}"
session = []
allow_odd_paths = true

[[routes]]
name = "all"
upstream = "{up}"
session = []

[[routes]]
name = "admin"
match = { path = "/admin" }
upstream = "{up}"
"#;

#[tokio::test]
async fn an_odd_path_of_the_route_is_forwarded_to_the_letter() {
    let (gateway, upstream) = behind(FILES).await;
    let mut client = Wire::connect(gateway.address).await;
    for path in
        ["/files//a", "/files/a%2Fb", "/files/a/../b", "/files/a\\b", "/files/%FF", "/files/%00?x=//", "/files/%zz"]
    {
        assert_eq!(client.ask(get(path, "")).await.outcome(), (200, ""), "{path}");
        assert_eq!(upstream.last().start, format!("GET {path} HTTP/1.1"));
    }
}

#[tokio::test]
async fn no_odd_path_leads_out_of_its_route_or_into_one_that_takes_none() {
    let (gateway, upstream) = behind(FILES).await;
    for path in [
        "/files/../admin",
        "/files/%2e%2e/admin",
        "/files/..%2fadmin",
        "/files/..;/admin",
        "/files/%252e%252e%252fadmin",
        "/files\\..\\admin",
        "/files/%c0%ae%c0%ae/admin",
        "/files/..",
        "/x//y",
        "/admin//x",
        "//admin",
        "/admin/..//files/a",
    ] {
        let answer = Wire::connect(gateway.address).await.ask(get(path, "")).await;
        assert_eq!(answer.outcome(), (400, "request-malformed"), "{path}");
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_prefix_is_stripped_from_an_odd_path_and_the_rest_stays() {
    let (gateway, upstream) =
        behind(&FILES.replacen("session = []", "session = []\nstrip_prefix = \"/files\"", 1)).await;
    let mut client = Wire::connect(gateway.address).await;
    for (path, rest) in [("/files//a%2fb", "//a%2fb"), ("/files/a/./b", "/a/./b")] {
        assert_eq!(client.ask(get(path, "")).await.outcome(), (200, ""));
        assert_eq!(upstream.last().start, format!("GET {rest} HTTP/1.1"));
    }
}
