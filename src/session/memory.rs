//! session/memory
