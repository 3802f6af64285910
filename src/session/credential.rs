//! session/credential
