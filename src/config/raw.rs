//! config/raw
