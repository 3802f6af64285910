//! session/verify
