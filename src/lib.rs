//! mintgate: a sidecar reverse proxy that takes a Clerk session from a request, has Clerk mint the JWT-template tokens
//! that the route asks for, keeps each one until just before it expires, and injects them into the forwarded request.
//!
//! A file imports only files of a lower layer; `tests/it/layering.rs` holds the table.

pub mod address;
pub mod admin;
pub mod app;
pub mod authz;
pub mod bounded;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod emulator;
pub mod file;
pub mod grpc;
pub mod headers;
pub mod lapsing;
pub mod lifecycle;
pub mod listener;
pub mod live;
pub mod manager;
pub mod metrics;
pub mod proxy;
pub mod record;
pub mod reload;
pub mod revocation;
pub mod route;
pub mod secret;
pub mod server;
pub mod session;
pub mod simulate;
pub mod surface;
pub mod telemetry;
pub mod token;
pub mod token_api;
pub mod traces;
pub mod transport;
pub mod version;
pub mod webhooks;
