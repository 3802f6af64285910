//! WebSockets: an HTTP/1.1 upgrade (RFC 6455), and the tunnel that it opens.
//!
//! [`handshake`] tells an upgrade from every other request and an agreeing upstream from every other answer; [`tunnel`]
//! carries the bytes of an open one both ways; [`registry`] knows all of a worker's and tells them to end. [`first`] holds
//! back the first message of a caller, and [`init`] knows what it says.

pub mod first;
pub mod flow;
pub mod frames;
pub mod handshake;
pub mod init;
pub mod registry;
pub mod tunnel;
