//! What tests over real sockets share: a gateway in this process, the peers around it, and a strict reading of HTTP.

pub(crate) mod authority;
pub(crate) mod directory;
pub(crate) mod doors;
pub(crate) mod faults;
pub(crate) mod gateway;
pub(crate) mod http2;
pub(crate) mod issuer;
pub(crate) mod redis;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod websocket;
pub(crate) mod wire;

use std::time::Duration;

/// Longer than anything that a busy machine needs; nothing waits for it but a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until something is so.
///
/// # Panics
/// When it does not become so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// The same for what has to be asked for.
///
/// # Panics
/// When it does not become so.
pub(crate) async fn eventually_async(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..6000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
