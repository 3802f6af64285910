//! Which mintgate this is. `build.rs` says what it was built from.

/// The version that `Cargo.toml` has.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, ending in `-dirty` where the sources differed from it; empty where it is not known.
pub const COMMIT: &str = env!("MINTGATE_BUILT_FROM");

/// Both, as `mintgate --version` tells them.
pub const SHOWN: &str = concat!(env!("CARGO_PKG_VERSION"), env!("MINTGATE_BUILT_FROM_SHOWN"));
