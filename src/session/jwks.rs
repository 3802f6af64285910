//! session/jwks
