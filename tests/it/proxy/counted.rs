//! What the admin listener tells of the requests that were served.

use super::{MINTING, behind, get};
use crate::support::eventually;
use crate::support::wire::Wire;

#[tokio::test]
async fn every_request_is_counted_once_with_its_route_and_code() {
    let (gateway, _upstream) = behind(MINTING).await;
    let mut client = Wire::connect(gateway.address).await;
    client.ask(get("/", &gateway.bearer("bob"))).await;
    client.ask(get("/", "")).await;
    client.ask(get("/", "")).await;
    client.ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    let scrape = Wire::connect(gateway.admin).await.ask("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    for line in [
        r#"mintgate_requests_total{route="all",status="2xx",code=""} 1"#,
        r#"mintgate_requests_total{route="all",status="401",code="session-missing"} 2"#,
        r#"mintgate_requests_total{route="none",status="400",code="request-malformed"} 1"#,
    ] {
        assert!(scrape.text().lines().any(|own| own == line), "{line}\n{}", scrape.text());
    }
}

#[tokio::test]
async fn a_connection_that_has_ended_is_not_counted_as_open() {
    let (gateway, _upstream) = behind(MINTING).await;
    let mut client = Wire::connect(gateway.address).await;
    client.ask(get("/", "")).await;
    let open = async || {
        let scrape = Wire::connect(gateway.admin).await.ask("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        let line = scrape.text().lines().find(|line| line.starts_with("mintgate_connections{")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(open().await, "1");
    drop(client);
    for _ in 0..500 {
        if open().await == "0" {
            return;
        }
        tokio::task::yield_now().await;
    }
    eventually("the connection is counted out", || false).await;
}
