//! Tests that need more than one part of the gateway, or a program beside it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod differential;
mod documents;
mod harness;
mod layering;
mod metrics;
mod secrets;
mod telemetry;
mod tokens;
mod volume;
