//! Tests that need more than one part of the gateway, or a program beside it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod authz;
mod bounds;
mod capacity;
mod deployment;
mod dev;
mod differential;
mod documents;
mod explain;
mod fleet;
mod footprint;
mod handover;
mod harness;
mod init;
mod instance;
mod layering;
mod metrics;
mod operate;
mod proxy;
mod reload;
mod revocation;
mod schema;
mod secrets;
mod soak;
mod status;
mod support;
mod telemetry;
mod token_api;
mod tokens;
mod version;
mod volume;
mod ways;
mod websockets;
