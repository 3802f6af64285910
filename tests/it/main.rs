//! Tests that need more than one part of the gateway, or a program beside it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod metrics;
mod proxy;
mod support;
mod telemetry;
