//! config/validate
