//! Who the upstream believes the caller to be: tokens, credentials, spoofed headers.

use super::{MINTING, behind};
use crate::support::wire::Wire;

#[tokio::test]
async fn the_minted_token_reaches_the_upstream_and_the_credential_does_not() {
    let (gateway, upstream) = behind(MINTING).await;
    let session = gateway.session_token("alice");
    let mut client = Wire::connect(gateway.address).await;
    let answer = client.ask(format!("GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {session}\r\n\r\n")).await;
    assert_eq!((answer.outcome(), answer.text()), ((200, ""), "ok"));
    let seen = upstream.only();
    let minted = seen.one("authorization").unwrap();
    assert!(minted.starts_with("Bearer ey") && !seen.raw.windows(session.len()).any(|part| part == session.as_bytes()));
    assert_eq!(gateway.mints(), 1);
}
