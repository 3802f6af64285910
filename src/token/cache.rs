//! token/cache
