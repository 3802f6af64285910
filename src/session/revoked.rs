//! session/revoked
