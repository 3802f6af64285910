//! token/retry
