//! token/clerk
