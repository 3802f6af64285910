//! How big the future of a request is: it is moved into its connection once for every request.

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use mintgate::app::ClerkMint;
use mintgate::listener::connection::Connection;
use mintgate::proxy::handle;
use mintgate::proxy::worker::Worker;

fn size_of_output<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
    size_of::<F>()
}

/// What is rare is boxed, so that it costs the others nothing.
#[test]
fn the_future_of_a_request_stays_small() {
    let size = size_of_output::<Arc<Worker<ClerkMint>>, Arc<Connection>, Request<Incoming>, _>(handle::<ClerkMint>);
    assert!(size <= 2304, "{size} bytes: box what is rare, or end what is over with a block");
}
