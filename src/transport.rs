//! Bodies and connections: what passes through the gateway, and the sockets that it passes through.
//!
//! Every proxied body is wrapped exactly once, so that a chunk costs one call on its way.

pub mod body;
pub mod connect;
pub mod io;
pub mod quiet;
pub mod tls;
