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

/// Express and IIS take `/ADMIN` for `/admin`. Fails without `any_case_agrees`.
#[tokio::test]
async fn letters_of_another_case_lead_into_no_weaker_route() {
    let (gateway, upstream) = behind(FILES).await;
    for path in ["/ADMIN", "/Admin/x", "/%41dmin", "/files/../ADMIN", "/ADMIN;x"] {
        let answer = Wire::connect(gateway.address).await.ask(get(path, "")).await;
        assert_eq!(answer.outcome(), (400, "request-malformed"), "{path}");
    }
    assert_eq!(upstream.count(), 0);
    for path in ["/Users/user_2AbC", "/files/READ.ME", "/administration"] {
        assert_eq!(Wire::connect(gateway.address).await.ask(get(path, "")).await.outcome(), (200, ""), "{path}");
    }
}

/// Node's `new URL(request.url, base)` takes the first segment for a host. Fails without `without_authority`.
#[tokio::test]
async fn two_slashes_are_no_host_behind_which_another_route_begins() {
    let tables = FILES.replace("name = \"all\"", "name = \"all\"\nallow_odd_paths = true");
    let (gateway, upstream) = behind(&tables).await;
    for path in ["//x/admin", "///x/admin/y", "/\\x/admin", "/%2fx/admin"] {
        let answer = Wire::connect(gateway.address).await.ask(get(path, "")).await;
        assert_eq!(answer.outcome(), (400, "request-malformed"), "{path}");
    }
    assert_eq!(upstream.count(), 0);
}

/// Fails without `shallowest`.
#[tokio::test]
async fn dot_segments_lead_out_of_no_prefix_that_is_put_before_them() {
    for (from, outside, inside) in [
        ("", &["/../secret", "/%2e%2e/secret", "/..%2fsecret", "/a/../../secret"][..], "/a/../b"),
        ("/x", &["/x/../x/secret", "/x/a/../../x/secret", "/x/%2e%2e/x/secret"], "/x/a/../b"),
    ] {
        let path = if from.is_empty() { "/" } else { from };
        let tables = format!(
            "[[routes]]\nname = \"all\"\nmatch = {{ path = \"{path}\" }}\nupstream = \"{{up}}\"\nsession = []\n\
             rewrite_prefix = \"/tenant\"\nallow_odd_paths = true\n"
        );
        let (gateway, upstream) = behind(&tables).await;
        for path in outside {
            let answer = Wire::connect(gateway.address).await.ask(get(path, "")).await;
            assert_eq!(answer.outcome(), (400, "request-malformed"), "{path}");
        }
        assert_eq!(Wire::connect(gateway.address).await.ask(get(inside, "")).await.outcome(), (200, ""));
        assert_eq!(upstream.only().start, "GET /tenant/a/../b HTTP/1.1");
    }
}
