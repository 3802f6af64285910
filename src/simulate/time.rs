//! The runtime whose time is virtual, in a build that has one.

use std::io;

use tokio::runtime::Runtime;

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Time cannot be virtual here.
    #[error(
        "this build cannot simulate, since what makes time virtual would cost each request of a gateway a little: \
         build one that can with cargo build --release --features simulate"
    )]
    NotBuilt,
    /// The runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// Time stands still while something is to be done, and jumps to the next timer when nothing is.
#[cfg(feature = "simulate")]
pub(super) fn runtime() -> Result<Runtime, SimulateError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().map_err(SimulateError::Runtime)
}

/// There is none in this build.
#[cfg(not(feature = "simulate"))]
pub(super) fn runtime() -> Result<Runtime, SimulateError> {
    Err(SimulateError::NotBuilt)
}
